"""The figure of docs/study.md: reward against distance, a point for each learning rate that was tried."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from benchmarks.study.trials import TUNING_SEED

LOSSES = {"kto": "#0072b2", "dpo": "#d55e00", "bco": "#009e73", "ppo-offline": "#cc79a7", "slic": "#000000"}
"""Colours that colour-blind readers tell apart."""
FURTHEST = 300.0
"""Nats; what went further fell apart and is left out."""


def points(results: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Loss -> (KL in nats, reward in percentage points) on validation prompts after SFT, by learning rate."""
    found: dict[str, list[tuple[float, float]]] = {loss: [] for loss in LOSSES}
    for one in sorted(results, key=lambda one: one.get("rate", 0)):
        loss, _, start = one["name"].partition(", ")
        if one["table"] == "family" and start == "SFT first" and one["seed"] == TUNING_SEED and loss in found:
            found[loss].append((one["kl"], 100 * one["reward"]))
    return found


def figure(results: Sequence[dict[str, Any]]) -> str:
    """The SVG's text, the same on every call."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 10}):
        drawn = Figure(figsize=(6.6, 3.6), layout="constrained")
        axes = drawn.add_subplot()
        for loss, reached in points(results).items():
            near = [point for point in reached if point[0] <= FURTHEST]
            axes.plot(*zip(*near, strict=True), marker="o", color=LOSSES[loss], label=loss)
        axes.set(xscale="log", xlabel="KL to the model after SFT, nats an answer", ylabel="reward, percentage points")
        axes.legend(frameon=False)
        raw = io.StringIO()
        drawn.savefig(raw, format="svg", metadata={"Date": None})
    return raw.getvalue()
