"""Training curves: one chart for each quantity in metrics.jsonl, with its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from kto_cli.common.chart_panels import PANELS, Panel, validation_records
from kto_cli.common.screen import number
from kto_cli.evaluation.report.charts import DESIRABLE, PLAIN, TEXT, Chart, draw
from kto_cli.evaluation.report.evidence import Evidence, is_number
from kto_cli.evaluation.report.figures import LOOKS
from kto_cli.evaluation.report.numbers import Grid, interval_text, is_known_interval

MOST_POINTS = 200
"""Points of a curve; in longer runs each is the mean of consecutive steps."""
MOST_LINES = 40
"""Rows of the table beside a chart."""
Final = tuple[float, float, Sequence[float]]
"""(last step, AUC on all validation rows, its interval)."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    points: list[tuple[float, float]]
    """(step, value); NaN values are left out."""
    spread: list[float] = field(default_factory=list)
    """Half the width of a band around each point."""
    interval: list[tuple[float, float]] = field(default_factory=list)
    """(low, high) at each point; NaN where it is not known."""


def training_charts(evidence: Evidence) -> list[Chart]:
    """A chart for each panel that has at least two points."""
    final = _final_auc(evidence)
    charts = []
    for panel in PANELS:
        curves = _curves(panel, evidence.steps)
        if max((len(curve.points) for curve in curves), default=0) > 1:
            charts.append(_training_chart(panel, curves, final if panel.name == "auc" else None, evidence))
    return charts


def _final_auc(evidence: Evidence) -> Final | None:
    value, interval = evidence.metrics.get("auc"), evidence.metrics.get("auc_interval")
    if not evidence.steps or not isinstance(value, float) or not is_known_interval(interval):
        return None
    return evidence.steps[-1]["step"], value, interval


def _curves(panel: Panel, steps: Sequence[dict[str, Any]]) -> list[Curve]:
    curves = [_curve(name, key, steps, panel.spread) for name, key in panel.training]
    seen = validation_records(steps)
    curves += [_curve(name, key, seen, None, panel.interval) for name, key in panel.validation]
    return [curve for curve in curves if curve.points]


def _curve(
    name: str, key: str, lines: Sequence[dict[str, Any]], spread: str | None, interval: str | None = None
) -> Curve:
    """Points of at most `MOST_POINTS` bins of consecutive steps."""
    kept = [line for line in lines if is_number(line.get(key))]
    size = max(1, math.ceil(len(kept) / MOST_POINTS))
    bins = [kept[start : start + size] for start in range(0, len(kept), size)]
    points = [(_mean(part, "step"), _mean(part, key)) for part in bins]
    edges = [_interval(part[-1].get(interval)) for part in bins] if interval else []
    return Curve(
        name,
        points,
        [_mean(part, spread) for part in bins] if spread else [],
        edges if any(map(is_known_interval, edges)) else [],
    )


def _interval(value: Any) -> tuple[float, float]:
    return (value[0], value[1]) if is_known_interval(value) else (math.nan, math.nan)


def _mean(lines: Sequence[dict[str, Any]], key: str) -> float:
    values = [float(line[key]) for line in lines if is_number(line.get(key))]
    return sum(values) / len(values) if values else math.nan


def _training_chart(panel: Panel, curves: list[Curve], final: Final | None, evidence: Evidence) -> Chart:
    middle = [value for _, value in _curve("", "z_ref_mean", evidence.steps, None).points]

    def paint(axes: Any) -> None:
        for curve in curves:
            _paint_curve(axes, curve, middle)
        if final:
            step, value, (low, high) = final
            bar = {"color": DESIRABLE, "capsize": 4, "marker": "D", "label": "all rows"}
            axes.errorbar([step], [value], [[max(0, value - low)], [max(0, high - value)]], **bar)
        if panel.level is not None:
            axes.axhline(panel.level, color=TEXT, linewidth=0.7)
        if panel.share:
            axes.set_ylim(0, max(0.1, 1.08 * max(value for curve in curves for _, value in curve.points)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        low, high = axes.get_ylim()
        if high - low < 1e-5:  # rounding: before the first update all rewards are 0
            axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)

    svg = draw(f"curve-{panel.name}", panel.title, _description(curves), paint)
    caption = _caption(panel, len(evidence.steps), final)
    return Chart(panel.title, caption, svg, _curve_table(curves, _source(panel, final, evidence)))


def _paint_curve(axes: Any, curve: Curve, middle: list[float]) -> None:
    """A line, with dots where there are few, and its band around `middle`."""
    steps, values = zip(*curve.points, strict=True)
    few = {"marker": "o", "markersize": 3.5} if len(steps) < 15 else {}
    axes.plot(steps, values, label=curve.name, **few | LOOKS[curve.name])
    if curve.spread and len(middle) == len(steps):
        around, half = numpy.array(middle), numpy.array(curve.spread)
        axes.fill_between(steps, around - half, around + half, color=PLAIN, alpha=0.22, linewidth=0)
    if curve.interval:
        axes.fill_between(steps, *zip(*curve.interval, strict=True), color=PLAIN, alpha=0.22, linewidth=0)


def _caption(panel: Panel, steps: int, final: Final | None) -> str:
    size = math.ceil(steps / MOST_POINTS)
    binned = f" Each point of training is the mean of {size} steps." if panel.training and size > 1 else ""
    bar = " The bar at the end is that of all validation rows, with its 90 % interval." if final else ""
    return panel.caption + bar + binned


def _source(panel: Panel, final: Final | None, evidence: Evidence) -> str:
    keys = [key for _, key in panel.training] + [f"validation.{key}" for _, key in panel.validation]
    keys += [panel.spread, "z_ref_mean"] if panel.spread else []
    keys += [f"validation.{panel.interval}"] if panel.interval else []
    also = f"; {evidence.results_folder}/metrics.json: metrics.auc" if final else ""
    return f"metrics.jsonl: {', '.join(keys)}{also}"


def _description(curves: list[Curve]) -> str:
    """Text alternative of the chart."""
    return " ".join(
        f"{curve.name}: from {number(curve.points[0][1])} at step {curve.points[0][0]:g} to "
        f"{number(curve.points[-1][1])} at step {curve.points[-1][0]:g}, "
        f"least {number(min(value for _, value in curve.points))}, "
        f"most {number(max(value for _, value in curve.points))}."
        for curve in curves
    )


def _curve_table(curves: list[Curve], source: str) -> Grid:
    """One row per step with a point, thinned evenly."""
    values = [{step: number(value) for step, value in curve.points} for curve in curves]
    bands = [dict(zip((step for step, _ in curve.points), _bands(curve), strict=False)) for curve in curves]
    steps = sorted({step for curve in curves for step, _ in curve.points})
    every = math.ceil(len(steps) / MOST_LINES)
    listed = [*steps[:-1:every], steps[-1]]

    def cell(index: int, step: float) -> str:
        return values[index].get(step, "-") + bands[index].get(step, "")

    rows = [[f"{step:g}", *(cell(index, step) for index in range(len(curves)))] for step in listed]
    note = "" if len(listed) == len(steps) else f"{len(listed)} of {len(steps)} points."
    return Grid(["step", *(curve.name for curve in curves)], rows, source, note=note)


def _bands(curve: Curve) -> list[str]:
    """The band at each point as text."""
    halves = [f" +- {number(half)}" if math.isfinite(half) else "" for half in curve.spread]
    return halves or [f" ({text})" if (text := interval_text(edges)) else "" for edges in curve.interval]
