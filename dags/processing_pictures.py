"""The merged result of the processing job as a picture, which the link "Ray plots" of its task opens."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_ray.links import PICTURE_KEY, RayPictureLink

if TYPE_CHECKING:
    from airflow.sdk import Context
    from matplotlib.figure import SubFigure

STATISTICS = ("seed", "name", "priority", "length")
WIDTH_INCHES, CLUSTER_INCHES, BAR_INCHES, MARGIN_INCHES = 16.0, 4.0, 0.45, 1.4
FONT_POINTS = 13
# Browsers cannot show a larger picture in full.
CLUSTERS_DRAWN = 40


class DrawSummaries(BaseOperator):
    """Draw the merged result of ``ray_fan_out``: how the work was divided, and the summaries of each cluster.

    The picture is stored in the XCom ``ray_picture`` as a base64-encoded PNG, because the API server that shows it need
    not share a file system with the worker that draws it.

    :param merged: XCom of ``merge``. (templated)
    """

    template_fields: Sequence[str] = ("merged",)
    operator_extra_links = (RayPictureLink(),)

    def __init__(self, *, merged: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.merged = merged

    def execute(self, context: Context) -> None:
        picture = draw(self.merged, f"Fan-out {context['run_id']}")
        context["ti"].xcom_push(key=PICTURE_KEY, value=b64encode(picture).decode())


def draw(merged: Mapping[str, Mapping[str, Any]], title: str) -> bytes:
    """A PNG that compares the planned share of each cluster with the time taken, and has a row of plots per cluster.

    :param merged: result of a fan-out by connection id.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    parts = _parts(merged)
    answers = {name: part["output"]["output"] for name, part in parts.items() if part["output"]}
    drawn = list(answers)[:CLUSTERS_DRAWN]
    left_out = f", {len(drawn)} of {len(answers)} clusters shown" if len(answers) > len(drawn) else ""
    heights = [MARGIN_INCHES + BAR_INCHES * len(parts), *[CLUSTER_INCHES] * len(drawn)]
    buffer = BytesIO()
    with rc_context({"font.size": FONT_POINTS}):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
        figure.suptitle(f"{title}{left_out}", fontsize=FONT_POINTS + 5)
        overview, *rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        _overview(overview, parts)
        for place, name in zip(rows, drawn, strict=True):
            _summaries(place, name, answers[name])
        figure.savefig(buffer, format="png", dpi=72)
    return buffer.getvalue()


def _parts(merged: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What each cluster did, both its own work and work that it took over."""
    parts = {}
    for conn_id, result in merged.items():
        parts[conn_id] = result
        for part in result["taken_over"]:
            parts[f"{conn_id} for {part['from']}"] = part
    return parts


def _overview(place: SubFigure, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """The planned share next to the time taken, one row per cluster, in order from the top."""
    names = [name if part["status"] == "SUCCEEDED" else f"{name}: {part['status']}" for name, part in parts.items()]
    columns = {
        "Planned share of the work (%)": [100 * part["share"] for part in parts.values()],
        "Time taken (s)": [part["seconds"] or 0.0 for part in parts.values()],
    }
    for axes, (title, values) in zip(place.subplots(1, 2, sharey=True), columns.items(), strict=True):
        axes.bar_label(axes.barh(names, values, height=0.5, color="tab:blue"), fmt="%.1f", padding=4)
        axes.set_title(title)
        axes.margins(x=0.12)
        axes.set_axisbelow(True)
        axes.grid(visible=True, axis="x")
    axes.invert_yaxis()


def _summaries(place: SubFigure, name: str, summaries: Sequence[Mapping[str, Any]]) -> None:
    """Mean against variance for each statistic; the colors tell the summaries apart."""
    place.suptitle(name, fontsize=FONT_POINTS + 3)
    panels = place.subplots(1, len(STATISTICS))
    for axes, statistic in zip(panels, STATISTICS, strict=True):
        points = axes.scatter(
            [mean for summary in summaries for mean in summary[statistic]["mean"]],
            [variance for summary in summaries for variance in summary[statistic]["variance"]],
            c=[index for index, summary in enumerate(summaries, start=1) for _ in summary["batches"]],
            cmap="turbo",
            alpha=0.7,
        )
        axes.set(title=f"{statistic.capitalize()} of a batch", xlabel="mean")
        axes.grid(visible=True)
    panels[0].set_ylabel("variance")
    place.colorbar(points, ax=panels, label="summary", pad=0.01)
