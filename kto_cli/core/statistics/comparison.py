"""Differences of two checkpoints on the same rows, with paired intervals."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.estimates import Estimator, resamples_for
from kto_cli.core.statistics.intervals import cluster_numbers, mean_interval, resample_weights
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.shares import FEWEST_COMPARED

COMPARED = (
    "auc",
    "auc_length_matched",
    "auc_length_adjusted",
    "paired_accuracy",
    "accuracy",
    "margin",
    "reward_desirable",
    "reward_undesirable",
    "kl",
)
"""Metrics compared, in the order shown; not the loss, which depends on each run's weights."""
BETTER_WHEN_HIGHER = ("auc", "auc_length_matched", "auc_length_adjusted", "paired_accuracy", "accuracy")
"""Metrics that do not depend on beta; a larger margin or KL only means that more has changed."""


class Side(NamedTuple):
    """One checkpoint's scores and its run's own beta and weights."""

    scores: Scores
    settings: LossSettings


def compare(first: Side, second: Side, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Second minus first, on the same rows in the same order.

    Paired bootstrap: both are computed on the same resamples of the prompts, and their difference is taken in each.
    What makes a prompt easy or hard for both cancels, so a difference can be clear although the intervals of the two
    checkpoints overlap.

    Returns:
        For each of `COMPARED` that both have: first, second, difference, interval (90 %) and
        verdict: "second" or "first" (is better) if 0 lies outside the interval, else "unclear", as with fewer than
        `FEWEST_COMPARED` prompts; for quantities that
        are not better for being higher "differs" instead.
    """
    clusters, count = cluster_numbers(first.scores.prompt_ids)
    ways = [Estimator(side.scores, side.settings) for side in (first, second)]
    whole = [estimate(torch.ones(1, len(clusters), dtype=torch.float64)) for estimate in ways]
    resamples = resamples_for(len(clusters))
    parts = [[estimate(drawn) for estimate in ways] for drawn in resample_weights(clusters, count, resamples, seed)]
    found = {}
    for name in [name for name in COMPARED if name in whole[0] and name in whole[1]]:
        left, right = whole[0][name].item(), whole[1][name].item()
        drawn = torch.cat([after[name] - before[name] for before, after in parts])
        interval = mean_interval(right - left, drawn, count)
        found[name] = {
            "first": left,
            "second": right,
            "difference": right - left,
            "interval": interval,
            "verdict": _verdict(name, interval) if count >= FEWEST_COMPARED else "unclear",
        }
    return found


def loss_difference(first: Scores, second: Scores, settings: LossSettings, *, seed: int = 0) -> list[float]:
    """90 % interval of the second's loss minus the first's, on the same rows in the same order, paired as in `compare`;
    NaN where the loss is not defined."""
    clusters, count = cluster_numbers(first.prompt_ids)
    ways = [Estimator(scores, settings) for scores in (first, second)]
    whole = [estimate.of_loss(torch.ones(1, len(clusters), dtype=torch.float64)).get("loss") for estimate in ways]
    if any(value is None for value in whole):
        return [math.nan, math.nan]
    before, after = (float(value) for value in whole if value is not None)
    drawn = [
        ways[1].of_loss(weights)["loss"] - ways[0].of_loss(weights)["loss"]
        for weights in resample_weights(clusters, count, resamples_for(len(clusters)), seed)
    ]
    return mean_interval(after - before, torch.cat(drawn), count)


def _verdict(name: str, interval: list[float]) -> str:
    low, high = interval
    if not (low > 0 or high < 0):  # NaN is unclear too
        return "unclear"
    if name not in BETTER_WHEN_HIGHER:
        return "differs"
    return "second" if low > 0 else "first"
