// Parts of the page. Values become text, never markup.

export const STALE_SECONDS = 20;
const GIB = 2 ** 30;
const BYTES = new Set(["memory", "object_store_memory"]);
const ROOT = new URL("..", location.href);
export const HEALTH = { healthy: "Healthy", unhealthy: "Unhealthy", unknown: "Checking…" };
const GOOD = new Set(["RUNNING", "SUCCEEDED"]);
const BAD = new Set(["FAILED", "DEPLOY_FAILED", "UNHEALTHY"]);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) {
      made.addEventListener(key.slice(2), value);
    } else if (value === true) {
      made.setAttribute(key, "");
    } else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(key, value);
    }
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

// Airflow shows the page in a frame that may not open windows or navigate the UI; the document around it may.
function follow(event) {
  if (window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) {
    return;
  }
  event.preventDefault();
  const { href, target } = event.currentTarget;
  const outside = window.parent.document.createElement("a");
  Object.assign(outside, { href, target: target === "_blank" ? "_blank" : "_self", rel: "noopener noreferrer" });
  outside.click();
}

export function link(address, text, { outside = false, label = null } = {}) {
  if (!/^https?:/.test(address ?? "")) {
    return document.createTextNode(text);
  }
  const target = outside ? { target: "_blank", rel: "noopener noreferrer" } : { target: "_top" };
  return element("a", { href: address, onclick: follow, "aria-label": label, ...target }, text);
}

const amount = (value, name) => {
  if (value === null || value === undefined) {
    return "?";
  }
  const number = BYTES.has(name) ? value / GIB : value;
  return number.toLocaleString("en", { maximumFractionDigits: Math.abs(number) < 10 ? 1 : 0 });
};

export function meter(resource) {
  if (!resource) {
    return element("span", { class: "none" }, "–");
  }
  const { name, used, total } = resource;
  const text = `${amount(used, name)} / ${amount(total, name)}${BYTES.has(name) ? " GiB" : ""}`;
  const share = total > 0 && used !== null ? Math.min(Math.max(used / total, 0), 1) : 0;
  const fill = element("span", { class: share >= 0.9 ? "full" : "" });
  fill.style.width = `${100 * share}%`;
  const bar = element("span", {
    class: "bar", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": total,
    "aria-valuenow": used ?? 0, "aria-valuetext": text,
  }, fill);
  return element("span", { class: "meter" }, bar, element("span", { class: "amount" }, text));
}

function ago(seconds) {
  if (seconds < 60) {
    return `${Math.round(seconds)} s`;
  }
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) {
    return `${minutes} min`;
  }
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
}

// Durations and ages keep counting between two answers.
const since = (milliseconds, before = "", after = "", from = 0) =>
  element("time", { "data-since": milliseconds, "data-before": before, "data-after": after, "data-from": from });

export function tick(root) {
  for (const each of root.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, (Date.now() - Number(each.dataset.since)) / 1000);
    const text = seconds < Number(each.dataset.from) ? "" : each.dataset.before + ago(seconds) + each.dataset.after;
    if (each.textContent !== text) {
      each.textContent = text;
    }
  }
}

export const seenAt = (seconds) => Math.round((Date.now() - seconds * 1000) / 1000) * 1000;

const state = (status) =>
  element("span", { class: `state ${GOOD.has(status) ? "good" : BAD.has(status) ? "bad" : "other"}` }, status);

export const health = (cluster) =>
  element("span", { class: `health ${cluster.health}` }, element("span", { class: "dot" }), HEALTH[cluster.health]);

export function age(seconds) {
  return seconds === null ? null : element("span", { class: "stale" }, since(seenAt(seconds), "updated ", " ago", STALE_SECONDS));
}

function taskLink(task) {
  if (!task) {
    return element("span", { class: "none" }, "–");
  }
  const { dag_id: dag, run_id: run, task_id: name, map_index: index } = task;
  const mapped = Number(index) >= 0 ? `/mapped/${Number(index)}` : "";
  const path = `dags/${encodeURIComponent(dag)}/runs/${encodeURIComponent(run)}/tasks/${encodeURIComponent(name)}${mapped}`;
  return [link(new URL(path, ROOT).href, `${dag} / ${name}${mapped ? ` [${index}]` : ""}`), element("small", {}, run)];
}

function lasted(job) {
  if (!job.started_ms) {
    return "";
  }
  return job.ended_ms ? ago((job.ended_ms - job.started_ms) / 1000) : since(job.started_ms);
}

function stopButton(cluster, job, context) {
  const key = `${cluster.conn_id} ${job.submission_id}`;
  if (!job.submission_id || !cluster.may_stop || job.ended_ms) {
    return null;
  }
  if (context.stopping.has(key)) {
    return element("span", { class: "none" }, "Stopping…");
  }
  const attributes = { type: "button", class: "small", "data-key": key, "aria-label": `Stop ${job.submission_id}` };
  return element("button", { ...attributes, onclick: () => context.stop(cluster.conn_id, job, key) }, "Stop");
}

export function jobTable(cluster, context, withTasks = true) {
  const rows = cluster.jobs.map((job) => {
    const name = job.submission_id ?? `driver ${job.job_id ?? "?"}`;
    const exit = job.exit_code !== null && job.ended_ms ? `exit code ${job.exit_code}` : null;
    const outcome = [job.error_type, exit].filter(Boolean).join(", ");
    return element("tr", {},
      element("th", { scope: "row", class: "id" }, link(job.url, name, { outside: true })),
      element("td", {}, state(job.status), " ", element("small", {}, outcome)),
      element("td", { class: "number" }, lasted(job)),
      withTasks ? element("td", {}, taskLink(job.task)) : null,
      element("td", { class: "action" }, stopButton(cluster, job, context)));
  });
  const titles = ["Job", "State", "Duration", ...(withTasks ? ["Airflow task"] : [])];
  const heads = titles.map((text) => element("th", { scope: "col" }, text));
  const label = `Jobs on ${cluster.conn_id}`;
  return element("table", { class: "inner", "aria-label": label },
    element("thead", {}, element("tr", {}, heads, element("td", {}))), element("tbody", {}, rows));
}

function section(title, ...content) {
  return element("section", {}, element("h3", {}, title), ...content);
}

export const nothing = (text) => element("p", { class: "none" }, text);

const unknown = (reason) => nothing(reason ? `Unknown: ${reason}.` : "Unknown.");

export function jobsSection(cluster, context) {
  const count = cluster.active;
  if (count === null) {
    return section("Jobs", unknown(cluster.jobs_fault));
  }
  const more = count > cluster.jobs.length ? nothing(`Showing the newest ${cluster.jobs.length} of ${count} jobs.`) : null;
  const table = count ? jobTable(cluster, context) : nothing("No running or pending jobs.");
  return section("Jobs", age(cluster.jobs_seen), table, more);
}

export function resourcesSection(cluster) {
  const rows = cluster.resources.map((resource) => [element("dt", {}, resource.name), element("dd", {}, meter(resource))]);
  const nodes = cluster.nodes ? `${cluster.nodes.alive} of ${cluster.nodes.total} nodes alive` : "Nodes unknown";
  const usage = cluster.usage_fault ? nothing(`Usage unknown: ${cluster.usage_fault}.`) : null;
  return section("Resources", rows.length ? element("dl", {}, rows) : null, nothing(`${nodes}.`), usage);
}

export function serveSection(cluster) {
  if (!cluster.applications) {
    return section("Serve", unknown(cluster.serve_fault));
  }
  if (!cluster.applications.length) {
    return section("Serve", nothing("No applications."));
  }
  const heads = ["Application", "Route", "State"].map((text) => element("th", { scope: "col" }, text));
  const rows = cluster.applications.map((each) => element("tr", {},
    element("th", { scope: "row", class: "id" }, each.name),
    element("td", {}, each.route ?? ""), element("td", {}, state(each.status))));
  return section("Serve", element("table", { class: "inner", "aria-label": `Serve on ${cluster.conn_id}` },
    element("thead", {}, element("tr", {}, heads)), element("tbody", {}, rows)));
}

export const labels = (given) => Object.entries(given).map(([key, value]) => element("span", {}, `${key}=${value}`));

// What could not be read says why; a dash stands for what has not been read yet.
const missing = (reason) => element("span", { class: "none", title: reason }, reason ? "Unknown" : "–");

export function demandCount({ demands, usage_fault: reason }) {
  return demands === null ? missing(reason) : element("span", { class: demands ? "busy" : "none" }, String(demands));
}

export function jobCount({ running, pending, jobs_fault: reason }) {
  if (running === null) {
    return missing(reason);
  }
  const waiting = pending ? element("small", { class: "busy" }, `${pending} pending`) : null;
  return [element("span", { class: running ? "" : "none" }, `${running} running`), waiting];
}

export function serveCount({ applications, serve_fault: reason }) {
  if (!applications?.length) {
    return missing(applications ? null : reason);
  }
  const bad = applications.filter((each) => each.status !== "RUNNING").length;
  const total = `${applications.length} app${applications.length > 1 ? "s" : ""}`;
  return [total, bad ? element("small", { class: "busy" }, `${bad} not running`) : null];
}
