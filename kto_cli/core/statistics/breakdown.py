"""Validation rows one by one, by class and by source: saturated, likely mislabelled, moved most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, sigmoid

from kto_cli.core.losses import label_signs
from kto_cli.core.statistics.auc import auc_share, rank_scores, ranked_auc
from kto_cli.core.statistics.estimates import resamples_for
from kto_cli.core.statistics.intervals import cluster_numbers, mean_interval, resample_weights, wilson
from kto_cli.core.statistics.metrics import SATURATED_BELOW
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.value_functions import slope_shares

CLASSES = ("desirable", "undesirable")


class RowValues(NamedTuple):
    """Per row, shape [rows]."""

    rewards: Tensor
    """beta * log-ratio."""
    probabilities: Tensor
    """sigmoid(beta * (log-ratio - z_ref)): predicted probability that the row is desirable."""
    margins: Tensor
    """beta * sign * (log-ratio - z_ref): above 0 on the side of the label."""
    gradient_weights: Tensor
    """Gradient weight as a share of its maximum, in [0, 1] (Prop. 4.1); NaN where it has none."""
    saturated: Tensor
    """bool: below `SATURATED_BELOW`."""


def row_values(scores: Scores, *, z_ref: Tensor | float, beta: float, value: str = "logistic") -> RowValues:
    """Values of each row, float64.

    Args:
        z_ref: of all rows, or [rows]. value: the value function; a name that has no largest slope has NaN for weights.
    """
    log_ratios = scores.log_ratios.double()
    margins = beta * label_signs(scores.desirable, dtype=torch.float64) * (log_ratios - z_ref)
    weights = slope_shares(value, margins)
    if weights is None:
        weights = torch.full_like(margins, float("nan"))
    return RowValues(
        rewards=beta * log_ratios,
        probabilities=sigmoid(beta * (log_ratios - z_ref)),
        margins=margins,
        gradient_weights=weights,
        saturated=weights < SATURATED_BELOW,
    )


def by_class(scores: Scores, values: RowValues) -> dict[str, dict[str, Any]]:
    """Reward, accuracy and saturation of each class. A saturated row has almost no gradient (Prop. 4.1): it is learned
    ("right": on its label's side of z_ref), or far on the other side ("wrong": typical of mislabelled rows).

    Returns:
        For "desirable" and "undesirable": rows, reward, completion_tokens (means; NaN without rows), and the shares
        accuracy (margin above 0, ties half), saturated_right, saturated_wrong, each with NAME_wilson.
    """
    found = {}
    for name, members in zip(CLASSES, (scores.desirable, ~scores.desirable), strict=True):
        margins, saturated = values.margins[members], values.saturated[members]
        counts = {
            "accuracy": ((margins.sign() + 1) / 2).sum().item(),
            "saturated_right": (saturated & (margins > 0)).sum().item(),
            "saturated_wrong": (saturated & (margins < 0)).sum().item(),
        }
        found[name] = {
            "rows": len(margins),
            "reward": values.rewards[members].mean().item(),
            "completion_tokens": scores.lengths[members].double().mean().item(),
            **_shares(counts, len(margins)),
        }
    return found


def by_source(scores: Scores, values: RowValues, sources: Sequence[str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The same question asked of each source alone, with the z_ref of all rows; sources by their number of rows.

    Returns:
        Of each: rows, desirable, prompts; margin and auc, each with NAME_interval (bootstrap over its prompts);
        accuracy with accuracy_wilson; saturated (share).
    """
    numbers, _ = cluster_numbers(sources)
    names = list(dict.fromkeys(sources))
    parts = {name: (numbers == number).nonzero()[:, 0] for number, name in enumerate(names)}
    found = {}
    for name in sorted(names, key=lambda each: (-len(parts[each]), each)):
        rows = parts[name]
        labels, rewards, margins = scores.desirable[rows], values.rewards[rows], values.margins[rows]
        prompts = [scores.prompt_ids[row] for row in rows.tolist()]
        correct = ((margins.sign() + 1) / 2).sum().item()
        found[name] = {
            "rows": len(rows),
            "desirable": int(labels.sum()),
            "prompts": len(set(prompts)),
            **_margin_and_area(rewards, labels, prompts, seed),
            **_shares({"accuracy": correct}, len(rows)),
            "saturated": values.saturated[rows].double().mean().item(),
        }
    return found


def _shares(counts: dict[str, float], rows: int) -> dict[str, Any]:
    """Each count as a share of the rows, with its Wilson interval."""
    found: dict[str, Any] = {}
    for name, count in counts.items():
        found[name] = count / rows if rows else float("nan")
        found[f"{name}_wilson"] = wilson(count, rows)
    return found


def _margin_and_area(rewards: Tensor, desirable: Tensor, prompts: Sequence[str], seed: int) -> dict[str, Any]:
    sorted_rewards = rank_scores(rewards, desirable)

    def both(weights: Tensor) -> tuple[Tensor, Tensor]:
        up, down = weights * desirable, weights * ~desirable
        margin = (up @ rewards) / up.sum(1) - (down @ rewards) / down.sum(1)
        return margin, ranked_auc(sorted_rewards, weights)

    clusters, count = cluster_numbers(prompts)
    draws = [both(drawn) for drawn in resample_weights(clusters, count, resamples_for(len(desirable)), seed)]
    margins, areas = (torch.cat(drawn) for drawn in zip(*draws, strict=True))
    margin, area = (each.item() for each in both(torch.ones(1, len(desirable), dtype=torch.float64)))
    prompts_of_class = (len(clusters[rows].unique()) for rows in (desirable, ~desirable))
    return {
        "margin": margin,
        "margin_interval": mean_interval(margin, margins, min(prompts_of_class)),
        "auc": area,
        "auc_interval": auc_share(area, areas, desirable, clusters).interval(),
    }


def likely_mislabelled(values: RowValues) -> list[int]:
    """Rows saturated on the wrong side of z_ref, the furthest first: look at their labels before anything else."""
    wrong = (values.saturated & (values.margins < 0)).nonzero()[:, 0]
    return wrong[values.margins[wrong].argsort(stable=True)].tolist()


def biggest_movers(scores: Scores, count: int) -> dict[str, dict[str, list[int]]]:
    """Rows whose probability changed most against the reference: by class, the largest |log-ratio| up and down.

    Returns:
        {class: {"up": rows with the largest log-ratios above 0, "down": with the smallest below 0}}, largest
        change first, at most `count` each.
    """
    found = {}
    for name, members in zip(CLASSES, (scores.desirable, ~scores.desirable), strict=True):
        rows = members.nonzero()[:, 0]
        order = rows[scores.log_ratios[rows].argsort(stable=True)]
        moved = scores.log_ratios[order]
        found[name] = {
            "up": order[moved > 0].flip(0)[:count].tolist(),
            "down": order[moved < 0][:count].tolist(),
        }
    return found
