"""The charts of a page, in Vega-Lite: what each shows is put in by the page's script, under `points`.

Colours come with the data as CSS variables, so that a chart follows its page from light to dark and to paper.
Marks have no voice for a screen reader: the tables beside them say the same, and the page names each chart.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt

_POINTS = alt.NamedData("points")
_HEIGHT = 230
_PERCENT = alt.Scale(domain=[0, 100], clamp=False, nice=False)


@cache
def specs() -> dict[str, Any]:
    """Every chart by its name, the same for every page; Altair takes half a second to make and check them."""
    charts = {
        "curves": _curves(),
        "ssim": _visible("SSIM (1: the same)", alt.Scale(zero=False, nice=False, domainMax=1)),
        "l2": _visible("L2, pixels in [0, 1]", alt.Scale(zero=True)),
        "heatmap": _heatmap(),
        "training": _training(),
        "bars": _bars(),
        "differences": _differences(),
    }
    return {name: _spec(chart) for name, chart in charts.items()}


def _spec(chart: Any) -> dict[str, Any]:
    spec: dict[str, Any] = chart.configure(**_CONFIG).to_dict()
    return {**spec, "autosize": {"type": "fit-x", "contains": "padding"}}


_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "aria": False,
    "view": alt.ViewConfig(stroke=None),
    "axis": alt.AxisConfig(
        labelColor="var(--muted)",
        titleColor="var(--ink)",
        gridColor="var(--grid)",
        domainColor="var(--axis)",
        tickColor="var(--axis)",
        titleFontWeight="normal",
        labelFontSize=11,
        titleFontSize=12,
        labelSeparation=8,
    ),
}


def _field(name: str, kind: str, title: str, **more: Any) -> alt.Tooltip:
    return alt.Tooltip(field=name, type=kind, title=title, **more)  # type: ignore[arg-type]


def _curves() -> Any:
    """Robust accuracy against epsilon: a band for the interval, a line that breaks at a hole, a hollow point
    where a check doubts the number, a cross on the axis where there is none.

    Points that say `step` are those of a step function, and are no numbers of a table; what is `stepped` has
    that in place of lines between its numbers.
    """
    hover = alt.selection_point(fields=["line"], on="pointerover", clear="pointerout")
    faded = alt.when(hover).then(alt.value(1)).otherwise(alt.value(0.25))
    base = alt.Chart(_POINTS, height=_HEIGHT, width="container").encode(
        x=alt.X("epsilon:Q", title="epsilon", axis=alt.Axis(grid=False, tickCount=6)),
        color=alt.Color("colour:N", scale=None),
        detail="line:N",
    )
    joined = base.transform_filter("!datum.step && !datum.stepped")
    stepped = base.transform_filter("datum.step")
    numbers = base.transform_filter("isValid(datum.value) && !datum.step")
    y = alt.Y("value:Q", title="robust accuracy, %", scale=_PERCENT, axis=alt.Axis(tickCount=5))
    ends = {"y": alt.Y("low:Q", scale=_PERCENT), "y2": "high:Q"}
    band = joined.mark_area(opacity=0.15, invalid="break-paths-filter-domains").encode(**ends)
    band_of_steps = stepped.mark_area(opacity=0.15, interpolate="step-after").encode(**ends)
    drawn = {"y": y, "strokeDash": alt.StrokeDash("dash:N", scale=None), "opacity": faded}
    line = joined.mark_line(strokeWidth=2, invalid="break-paths-filter-domains").encode(**drawn)
    line_of_steps = stepped.mark_line(strokeWidth=2, interpolate="step-after").encode(**drawn)
    told = [
        _field("name", "nominal", "model"),
        _field("defence", "nominal", "defence"),
        _field("attack", "nominal", "attack"),
        _field("text", "nominal", "epsilon"),
        _field("shown", "nominal", "robust accuracy"),
        _field("n", "quantitative", "test images"),
        _field("doubt", "nominal", "checks"),
    ]
    points = numbers.mark_point(size=55, strokeWidth=1.8, opacity=1).encode(
        y=y,
        shape=alt.Shape("shape:N", scale=None),
        fill=alt.Fill("fill:N", scale=None),
        opacity=faded,
    )
    # Points that are easier to meet. (Vega-Lite's `nearest` finds no text for its tooltips.)
    near = numbers.mark_circle(size=400, opacity=0).encode(y=y, tooltip=told).add_params(hover)
    holes = (
        base.transform_filter("!isValid(datum.value) && !datum.step")
        .mark_text(text="×", fontSize=17, fontWeight="bold")
        .encode(y=alt.datum(2), tooltip=told)
    )
    layers = (band, band_of_steps, line, line_of_steps, holes, points, near)
    return alt.layer(*layers).resolve_scale(y="shared")


def _visible(title: str, scale: alt.Scale) -> Any:
    """A mean of full-budget images against epsilon, a line for each model."""
    base = alt.Chart(_POINTS, height=_HEIGHT, width="container").encode(
        x=alt.X("epsilon:Q", title="epsilon", axis=alt.Axis(grid=False, tickCount=6)),
        y=alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=4)),
        color=alt.Color("colour:N", scale=None),
        detail="line:N",
        tooltip=[
            _field("name", "nominal", "model"),
            _field("text", "nominal", "epsilon"),
            _field("shown", "nominal", title),
            _field("accuracy", "nominal", "robust accuracy"),
            _field("n", "nominal", "images"),
        ],
    )
    line = base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("dash:N", scale=None))
    points = base.mark_point(size=55, filled=True, opacity=1).encode(shape=alt.Shape("shape:N", scale=None))
    return alt.layer(line, points)


def _heatmap() -> Any:
    """A number for each model and attack at one epsilon; a hole says what it is. The page's script sets the
    height, and breaks labels into lines, as of all charts with a line for each name."""
    base = alt.Chart(_POINTS, width="container").encode(
        x=alt.X("column:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, labelOverlap=False)),
        y=alt.Y("line:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, labelOverlap=False)),
        tooltip=[
            _field("line", "nominal", "model"),
            _field("column", "nominal", "of"),
            _field("text", "nominal", "epsilon"),
            _field("shown", "nominal", "robust accuracy"),
            _field("n", "quantitative", "test images"),
            _field("doubt", "nominal", "checks"),
        ],
    )
    numbers = base.transform_filter("isValid(datum.value)")
    tiles = numbers.mark_rect(stroke="var(--paper)", strokeWidth=2).encode(
        color=alt.Color("value:Q", scale=alt.Scale(scheme="cividis", domain=[0, 100]), legend=None)
    )
    texts = numbers.mark_text(fontSize=12).encode(
        text="label:N",
        color=alt.when("datum.value > 55").then(alt.value("#000")).otherwise(alt.value("#fff")),
    )
    holes = base.transform_filter("!isValid(datum.value)").mark_text(fontSize=11, fontStyle="italic")
    return alt.layer(
        tiles, texts, holes.encode(text="label:N", color=alt.value("var(--muted)"))
    ).resolve_scale(color="independent")


def _training() -> Any:
    """Accuracy against epoch, of training images and of those held out."""
    base = alt.Chart(_POINTS, height=180, width="container").encode(
        x=alt.X("epoch:Q", axis=alt.Axis(grid=False, tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title="accuracy, %", scale=alt.Scale(domainMax=100, zero=False)),
        color=alt.Color("colour:N", scale=None),
        detail=["victim:N", "of:N"],
        tooltip=[
            _field("victim", "nominal", "victim"),
            _field("of", "nominal", "on"),
            _field("epoch", "quantitative", "epoch"),
            _field("value", "quantitative", "accuracy, %", format=".1f"),
            _field("loss", "quantitative", "loss", format=".3g"),
        ],
    )
    line = base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("dash:N", scale=None))
    return alt.layer(line, base.mark_circle(size=25, opacity=1))


def _bars() -> Any:
    """Seconds by what they went to."""
    base = alt.Chart(_POINTS, width="container").encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, labelOverlap=False)),
        x=alt.X("seconds:Q", title="seconds of all workers together", axis=alt.Axis(tickCount=4)),
        tooltip=[
            _field("name", "nominal", "of"),
            _field("shown", "nominal", "time"),
            _field("share", "nominal", "share"),
        ],
    )
    return alt.layer(
        base.mark_bar(color="var(--s0)"),
        base.mark_text(align="left", dx=4, color="var(--ink)", fontSize=11).encode(text="shown:N"),
    )


def _differences() -> Any:
    """Points of robust accuracy between two models, with their 95% intervals."""
    base = alt.Chart(_POINTS, width="container").encode(
        y=alt.Y("pair:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, labelOverlap=False)),
        color=alt.Color("colour:N", scale=None),
        tooltip=[
            _field("pair", "nominal", "compared"),
            _field("text", "nominal", "epsilon"),
            _field("shown", "nominal", "difference, points"),
            _field("p", "nominal", "p after Holm"),
            _field("result", "nominal", "result"),
            _field("n", "quantitative", "test images"),
        ],
    )
    ends = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="points"), x2="high:Q")
    zero = (
        alt.Chart(_POINTS)
        .mark_rule(strokeDash=[3, 3])
        .encode(x=alt.datum(0), color=alt.value("var(--muted)"))
    )
    return alt.layer(zero, ends, base.mark_circle(size=70, opacity=1).encode(x="difference:Q"))
