"""Charts of validation rows: rewards by class, shares with their intervals, calibration; each with its data."""

from __future__ import annotations

from typing import Any

import numpy

from kto_cli.common.screen import number
from kto_cli.common.tables import LABELS
from kto_cli.evaluation.report.charts import DESIRABLE, PLAIN, TEXT, UNDESIRABLE, Chart, draw
from kto_cli.evaluation.report.evidence import Evidence, as_floats, is_number, objects, part
from kto_cli.evaluation.report.interval_chart import Measured, interval_chart
from kto_cli.evaluation.report.numbers import Grid, interval_text, is_known_interval

BINS = 24
SHARES = ("auc", "auc_length", "auc_length_matched", "auc_length_adjusted", "paired_accuracy", "accuracy")
LOOKS: dict[str, dict[str, Any]] = {
    "desirable": {"color": DESIRABLE, "linestyle": "-"},
    "undesirable": {"color": UNDESIRABLE, "linestyle": (0, (5, 2))},
    "training": {"color": PLAIN, "linestyle": "-"},
    "validation": {"color": TEXT, "linestyle": (0, (1, 1.2)), "marker": "o", "markersize": 4},
}
"""Classes and splits differ by line as well as by colour."""


def reward_chart(evidence: Evidence) -> Chart | None:
    """How often each reward occurs, by class, as a share of the class."""
    if evidence.rows is None:
        return None
    rewards, labels = as_floats(evidence.rows["reward"]), evidence.rows["label"].astype(bool)
    if not numpy.isfinite(rewards).all() or not 0 < labels.sum() < len(labels):
        return None
    low, high = float(rewards.min()), float(rewards.max())
    edges = numpy.linspace(low, high, BINS + 1) if high - low > 1e-5 else numpy.array([low - 0.5, high + 0.5])
    shares = {
        name: numpy.histogram(rewards[of_class], edges)[0] / of_class.sum()
        for name, of_class in (("desirable", labels), ("undesirable", ~labels))
    }

    def paint(axes: Any) -> None:
        for name, share in shares.items():
            if name == "desirable":
                axes.stairs(share, edges, color=DESIRABLE, fill=True, alpha=0.2)
            axes.stairs(share, edges, label=name, linewidth=1.6, baseline=0, **LOOKS[name])
        axes.axvline(0, color=TEXT, linewidth=0.7)
        axes.set_xlabel("reward (beta x nats)")
        axes.set_ylabel("share of the class")

    middles = {name: float(numpy.median(rewards[labels == (name == "desirable")])) for name in shares}
    described = " ".join(f"Median reward of {name} rows: {number(value)}." for name, value in middles.items())
    rows = [
        [
            f"{number(float(edges[index]))} to {number(float(edges[index + 1]))}",
            *(f"{share[index]:.1%}" for share in shares.values()),
        ]
        for index in range(len(edges) - 1)
    ]
    source = f"{evidence.results_folder}/rows.parquet: reward, label"
    caption = "The further the two shapes stand apart, the better the model tells liked answers from disliked ones."
    svg = draw("rewards", "Validation rewards by class", described, paint, height=2.7)
    return Chart("Validation rewards by class", f"{caption} {described}", svg, Grid(["reward", *shares], rows, source))


def share_chart(evidence: Evidence) -> Chart | None:
    """AUCs and accuracies with their intervals on one scale, against guessing."""
    metrics = evidence.metrics
    known = [
        Measured(LABELS.get(name, name), float(metrics[name]), metrics[f"{name}_interval"])
        for name in SHARES
        if is_number(metrics.get(name)) and is_known_interval(metrics.get(f"{name}_interval"))
    ]
    names = ", ".join(name for name in SHARES if name in metrics)
    return interval_chart(
        "shares",
        "How well rewards tell the classes apart",
        "Marks are estimates, bars their 90 % intervals. Where the AUC of length alone is high too, see the margin "
        "between equal lengths.",
        known,
        line=0.5,
        axis="0.5 is guessing",
        source=f"{evidence.results_folder}/metrics.json: metrics.{names}",
    )


def calibration_chart(evidence: Evidence) -> Chart | None:
    """Chance of being desirable implied by rewards against the observed share, in bins with intervals."""
    bins = [
        one
        for one in objects(part(evidence.metrics, "calibration").get("bins"))
        if is_number(one.get("predicted")) and is_number(one.get("desirable"))
    ]
    if len(bins) < 2:
        return None
    values = [(one["predicted"], one["desirable"], one.get("desirable_wilson"), one.get("rows")) for one in bins]
    rows = [
        [number(predicted), number(desirable), interval_text(interval), number(count)]
        for predicted, desirable, interval, count in values
    ]
    described = " ".join(f"Implied {row[0]}, observed {row[1]}." for row in rows)
    title = "Calibration of rewards"
    source = f"{evidence.results_folder}/metrics.json: metrics.calibration.bins"
    return Chart(
        title,
        "If sigmoid(reward - beta x z_ref) were the chance that a row is desirable, the marks would lie on the thin "
        "line. KTO does not promise that; bars are 90 % intervals.",
        draw("calibration", title, described, lambda axes: _paint_calibration(axes, values), height=2.7),
        Grid(["implied", "observed", "90 % interval", "rows"], rows, source),
    )


def _paint_calibration(axes: Any, values: list[tuple[float, float, Any, Any]]) -> None:
    """Draws bins with their intervals, and the line of equality."""
    for at, _, interval, _ in values:
        if is_known_interval(interval):
            axes.plot([at, at], interval, color=PLAIN, linewidth=4, alpha=0.35, solid_capstyle="butt")
    predicted, desirable = [value[0] for value in values], [value[1] for value in values]
    axes.plot(predicted, desirable, color=PLAIN, marker="D", markersize=4, linestyle="")
    axes.plot([min(predicted), max(predicted)], [min(predicted), max(predicted)], color=TEXT, linewidth=0.7)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("chance implied by the reward")
    axes.set_ylabel("share desirable")
