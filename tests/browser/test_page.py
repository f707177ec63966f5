"""The page in Airflow's UI, in a real browser."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Locator, expect

from dev.page_site import DAG_ID, Site
from tests.browser.conftest import Window, opened

BACKGROUND = """body => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = getComputedStyle(body).backgroundColor;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
BOTH = pytest.mark.parametrize("window", ["light", "dark"], indirect=True)


def row(window: Window, name: str) -> Locator:
    return window.here.get_by_role("row").filter(has=window.here.get_by_role("button", name=name, exact=True))


def _tab(site: Site, task_id: str, map_index: int = -1) -> str:
    run_id = quote(site.run_id, safe="")
    return f"/ray/page?dag_id={DAG_ID}&run_id={run_id}&task_id={task_id}&map_index={map_index}"


def brightness(window: Window) -> float:
    """Of the background, from 0 to 1."""
    pixel = window.here.locator("body").evaluate(BACKGROUND)
    return float(sum(pixel) / len(pixel) / 255)


def test_without_connections(airflow: Site, window: Window) -> None:
    window.go("/ray/page")
    expect(window.here.get_by_text("There are no Ray connections that you can view.")).to_be_visible()
    expect(window.here.get_by_role("table")).to_be_hidden()


def test_the_page_is_in_the_menu(airflow: Site, window: Window) -> None:
    window.go("/")
    window.page.get_by_role("button", name="Browse").click()
    window.page.get_by_role("menuitem", name="Ray").click()
    window.here = window.page.frame_locator("iframe")
    expect(window.here.get_by_role("heading", name="Ray clusters")).to_be_visible()


@BOTH
def test_three_clusters(clusters: Site, window: Window, request: pytest.FixtureRequest) -> None:
    window.go("/plugin/ray", in_frame=True)
    expect(window.here.get_by_text("3 clusters · 3 jobs running · 1 pending")).to_be_visible()
    expect(row(window, "gpu_lab")).to_contain_text(re.compile("site=lab.*gpu=true.*Healthy.*2.60.0.*26 / 32.*4 / 4"))
    expect(row(window, "gpu_lab").get_by_role("meter", name="CPU")).to_have_attribute("aria-valuenow", "26")
    expect(row(window, "cloud")).to_contain_text("0 / 64")
    assert (brightness(window) > 0.5) == ("light" in request.node.name)


def test_what_unfolds(clusters: Site, window: Window) -> None:
    window.go("/ray/page")
    button = row(window, "gpu_lab").get_by_role("button")
    button.focus()
    button.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    jobs = window.here.get_by_role("table", name="Jobs on gpu_lab")
    expect(jobs.get_by_role("row")).to_have_count(4)
    expect(jobs.get_by_role("row", name="nightly-retrain")).to_contain_text("PENDING")
    expect(window.here.get_by_role("meter", name="fpga")).to_have_attribute("aria-valuetext", "0 / 2")
    expect(window.here.get_by_role("table", name="Serve on gpu_lab")).to_contain_text("DEPLOY_FAILED")
    row(window, "cloud").get_by_role("button").click()
    expect(window.here.get_by_text("Unknown: the cluster responded with status 501.")).to_be_visible()
    button.click()
    expect(jobs).to_be_hidden()
    # Refreshing leaves alone what has the focus.
    window.page.wait_for_timeout(4000)
    expect(button).to_be_focused()


def test_jobs_that_cannot_be_listed_are_unknown_and_the_cluster_is_healthy(clusters: Site, window: Window) -> None:
    office = clusters.clusters["office"]
    usual = list(office.faults)
    office.fail(500, times=1000, path="/api/v0/jobs")
    try:
        window.go("/ray/page")
        expect(row(window, "office")).to_contain_text(re.compile("Healthy.*Unknown"))
        row(window, "office").get_by_role("button").click()
        expect(window.here.get_by_text("Unknown: the cluster responded with status 500.")).to_be_visible()
        expect(window.here.get_by_text("3 clusters · 2 jobs running · 1 pending · jobs unknown on 1")).to_be_visible()
    finally:
        office.faults[:] = usual
    expect(row(window, "office")).to_contain_text("1 running")


def test_links_lead_out_of_the_frame(clusters: Site, window: Window) -> None:
    window.go("/plugin/ray", in_frame=True)
    with window.page.expect_popup() as popup:
        row(window, "office").get_by_role("link", name="Ray dashboard of office").click()
    assert popup.value.url == f"{clusters.clusters['office'].url}/"
    popup.value.close()
    row(window, "gpu_lab").get_by_role("button").click()
    window.here.get_by_role("link", name=f"{DAG_ID} / shard [0]").click()
    expect(window.page).to_have_url(re.compile(f"/team/dags/{DAG_ID}/runs/.*/tasks/shard/mapped/0"))
    expect(window.page.get_by_text("RaySubmitJobOperator").first).to_be_visible()


def test_a_job_is_stopped_by_its_button(clusters: Site, window: Window) -> None:
    lab = clusters.clusters["gpu_lab"]
    (name,) = [each for each in lab.jobs if each.startswith("ray_page-shard")]
    window.go("/plugin/ray", in_frame=True)
    row(window, "gpu_lab").get_by_role("button").click()
    stop = window.here.get_by_role("button", name=f"Stop {name}")
    dialog = window.here.get_by_role("dialog")
    stop.click()
    expect(dialog).to_contain_text(f"It was submitted by the task shard of the Dag {DAG_ID}.")
    expect(dialog).to_contain_text("If that task is still waiting for the job, it will fail, or submit a new job")
    dialog.get_by_role("button", name="Keep running").click()
    expect(dialog).to_be_hidden()
    assert lab.jobs[name].status == "RUNNING"
    stop.click()
    dialog.get_by_role("button", name="Stop job").click()
    expect(window.here.get_by_text(f"Job {name} is being stopped.")).to_be_visible()
    expect(stop).to_be_hidden()
    expect(window.here.get_by_role("table", name="Jobs on gpu_lab").get_by_role("row")).to_have_count(3)
    assert lab.jobs[name].status == "STOPPED"


def test_fifty_clusters_of_which_five_hang(many: Site, window: Window) -> None:
    window.go("/ray/page")
    expect(window.here.get_by_text(re.compile("^50 clusters · 5 unhealthy"))).to_be_visible()
    names = window.here.locator("tbody:visible .unfold")
    expect(names).to_have_count(50)
    assert names.all_inner_texts()[:7] == [*(f"far_{number}" for number in range(1, 6)), "cloud", "edge_01"]
    expect(row(window, "far_3")).to_contain_text("Unhealthy")
    expect(row(window, "edge_07")).to_contain_text("Healthy")
    box = window.here.get_by_role("searchbox", name="Filter")
    box.fill("site=edge-3")
    expect(names).to_have_count(7)
    box.fill("2.49.2")
    expect(names).to_have_count(21)
    box.fill("no such thing")
    expect(window.here.get_by_text("No clusters match the filter.")).to_be_visible()
    box.fill("")
    window.here.get_by_role("combobox", name="Sort").select_option("Name")
    expect(names.first).to_have_text("cloud")


def test_a_hidden_window_asks_nothing_and_one_that_comes_back_at_once(clusters: Site, window: Window) -> None:
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url) if "/ray/api/" in request.url else None)
    window.go("/ray/page")
    expect(row(window, "office")).to_contain_text("Healthy")
    hide = "(_, value) => { Object.defineProperty(document, 'hidden', { get: () => value, configurable: true }); "
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    body = window.here.locator("body")
    body.evaluate(hide, True)
    window.page.wait_for_timeout(1000)
    asked.clear()
    window.page.wait_for_timeout(4000)
    assert asked == []
    body.evaluate(hide, False)
    window.page.wait_for_timeout(1000)
    assert len(asked) == 1


def test_what_is_old_says_so(clusters: Site, window: Window) -> None:
    window.page.clock.install()
    window.go("/ray/page")
    expect(row(window, "office")).to_contain_text("Healthy")
    window.page.route("**/ray/api/**", lambda route: route.abort())
    window.page.clock.run_for(40_000)
    expect(window.here.get_by_text("Airflow is not responding. The data below may be out of date.")).to_be_visible()
    expect(row(window, "office")).to_contain_text(re.compile("updated [34][0-9] s ago"))
    window.page.unroute("**/ray/api/**")
    window.page.clock.run_for(4_000)
    expect(window.here.get_by_text("Airflow is not responding")).to_be_hidden()
    window.complaints[:] = [each for each in window.complaints if "net::ERR_FAILED" not in each]


def test_the_theme_of_the_ui_is_followed(clusters: Site, browser: Browser, window: Window) -> None:
    window.go("/plugin/ray", in_frame=True)
    expect(row(window, "office")).to_contain_text("Healthy")
    bright = brightness(window)
    window.page.evaluate("localStorage.setItem('theme', 'dark')")
    expect(window.here.locator("html")).to_have_attribute("data-theme", "dark")
    assert brightness(window) < 0.5 < bright


def test_the_tab_of_a_task(clusters: Site, window: Window) -> None:
    window.go(f"/dags/{DAG_ID}/runs/{clusters.run_id}/tasks/train", in_frame=True)
    window.page.get_by_role("link", name="Ray", exact=True).click()
    jobs = window.here.get_by_role("table", name="Jobs on gpu_lab")
    expect(jobs.get_by_role("row")).to_have_count(2)
    expect(jobs).to_contain_text(re.compile("ray_page-train-.*RUNNING.*Stop"))
    window.go(f"/dags/{DAG_ID}/runs/{clusters.run_id}/tasks/shard/mapped/1/plugin/ray-jobs", in_frame=True)
    expect(window.here.get_by_role("table", name="Jobs on office")).to_contain_text("ray_page-shard-1-")
    window.go(_tab(clusters, "draw"))
    expect(window.here.get_by_text("This task has not submitted or waited for a Ray job.")).to_be_visible()


def test_the_tab_of_a_job_that_ends(clusters: Site, window: Window) -> None:
    office = clusters.clusters["office"]
    (name,) = [each for each in office.jobs if each.startswith("ray_page-shard")]
    window.go(_tab(clusters, "shard", 1))
    jobs = window.here.get_by_role("table", name="Jobs on office")
    expect(jobs).to_contain_text("RUNNING")
    office.jobs[name].outcome.ends_after = 0.0
    office.jobs[name].outcome.status = "FAILED"
    office.jobs[name].outcome.exit_code = 3
    expect(jobs).to_contain_text("FAILED exit code 3")
    expect(jobs.get_by_role("button")).to_have_count(0)


def test_the_picture_of_a_task(airflow: Site, window: Window) -> None:
    window.go(f"/dags/{DAG_ID}/runs/{airflow.run_id}/tasks/draw/details")
    window.page.get_by_role("link", name="Ray plots").click()
    expect(window.page).to_have_url(re.compile("/team/ray/dags/.*/picture$"))
    assert window.page.locator("img").evaluate("image => image.naturalWidth") == 16


def test_who_may_not_read_connections(clusters: Site, viewers_window: Window) -> None:
    viewers_window.go("/ray/page")
    expect(viewers_window.here.get_by_text("You do not have permission to view connections")).to_be_visible()
    viewers_window.go(_tab(clusters, "train"))
    expect(viewers_window.here.get_by_role("table", name="Jobs on gpu_lab")).to_contain_text("RUNNING")
    expect(viewers_window.here.get_by_role("button", name="Stop")).to_have_count(0)


def test_who_is_logged_out_sees_nothing_more(clusters: Site, browser: Browser, logged_in: dict[str, str]) -> None:
    with opened(browser, storage_state=logged_in["admin"]) as context:
        window = Window(context.new_page(), clusters.stack.url)
        window.go("/ray/page")
        expect(row(window, "office")).to_contain_text("Healthy")
        context.clear_cookies()
        expect(window.here.get_by_text("Your session has expired.")).to_be_visible()
        expect(window.here.get_by_role("row")).to_have_count(0)
