"""Areas under the ROC curve: plain, of many resamples at once, adjusted for length."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def auc(scores: Tensor, desirable: Tensor) -> float:
    """ROC-AUC: the chance that a desirable row scores above an undesirable one; ties count one half.

    Mann-Whitney U over mid-ranks. NaN where a class has no rows.
    """
    positives = int(desirable.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts.double() - 1) / 2)[inverse]
    return ((ranks[desirable].sum() - positives * (positives + 1) / 2) / (positives * negatives)).item()


class Standing(NamedTuple):
    """Where desirable rows stand among the undesirable ones: what an AUC needs of scores, whatever the weights."""

    desirable: Tensor
    """[rows] bool."""
    order: Tensor
    """[undesirable] places from the lowest score to the highest."""
    below: Tensor
    """[desirable] undesirable rows with lower scores."""
    upto: Tensor
    """[desirable] those and the ties."""


def standing(scores: Tensor, desirable: Tensor) -> Standing:
    """Sorts scores [rows] once for all resamples."""
    lower = scores[~desirable].sort()
    wanted = scores[desirable].contiguous()
    below, upto = (torch.searchsorted(lower.values, wanted, right=right) for right in (False, True))
    return Standing(desirable, lower.indices, below, upto)


def standing_auc(found: Standing, weights: Tensor) -> Tensor:
    """`weighted_auc` of scores that are sorted already."""
    up, down = weights[:, found.desirable].double(), weights[:, ~found.desirable].double()
    sums = torch.zeros(len(weights), down.shape[1] + 1, dtype=torch.float64)
    torch.cumsum(down[:, found.order], 1, out=sums[:, 1:])
    beaten = (sums[:, found.below] + sums[:, found.upto]) / 2
    return (up * beaten).sum(1) / (up.sum(1) * down.sum(1))


def weighted_auc(scores: Tensor, desirable: Tensor, weights: Tensor) -> Tensor:
    """`auc` of rows that count several times: for each draw the weight of the pairs that are won, over that of all.

    Args:
        scores: [rows], or [draws, rows] where they differ from draw to draw. desirable: [rows] bool.
        weights: [draws, rows] how often a row is in a draw.

    Returns:
        [draws] float64; NaN where a class has no weight.
    """
    if scores.dim() == 1:
        return standing_auc(standing(scores, desirable), weights)
    order = scores[:, ~desirable].sort(dim=1)
    down = weights[:, ~desirable].double().gather(1, order.indices)
    below = torch.cat([torch.zeros(len(weights), 1, dtype=torch.float64), down.cumsum(1)], dim=1)
    up, wanted = weights[:, desirable].double(), scores[:, desirable].contiguous()
    edges = [torch.searchsorted(order.values, wanted, right=right) for right in (False, True)]
    beaten = (below.gather(1, edges[0]) + below.gather(1, edges[1])) / 2
    return (up * beaten).sum(1) / (up.sum(1) * down.sum(1))


def length_adjusted_auc(values: Tensor, lengths: Tensor, desirable: Tensor, weights: Tensor) -> Tensor:
    """How often a desirable row beats an undesirable one OF THE SAME LENGTH: the covariate-adjusted AUC of Janes and
    Pepe (2009, Biometrika 96), semiparametric: P(1 - F(Y_D | length) <= chance).

    In the undesirable rows (the controls) value = a + b log(length) + noise is fitted by least squares; what is left of
    every row after b log(length) is compared as in `weighted_auc`. If values depend on length alone, in the same way
    in both classes, this is 0.5, however much length tells. Where all undesirable rows have one length, b is 0.

    Args:
        values: [rows] log-ratios. lengths: [rows] tokens, at least 1. desirable: [rows] bool. weights: [draws, rows].

    Returns:
        [draws]; the slope is fitted anew in each draw.
    """
    logs = lengths.double().clamp(min=1).log()
    values = values.double()
    controls = weights[:, ~desirable].double()
    x, y = logs[~desirable], values[~desirable]
    total = controls.sum(1, keepdim=True)
    from_mean = x - (controls @ x)[:, None] / total
    spread = (controls * from_mean.square()).sum(1)
    together = (controls * from_mean * (y - (controls @ y)[:, None] / total)).sum(1)
    slopes = torch.where(spread > 1e-12 * total[:, 0], together / spread, torch.zeros_like(spread))
    return weighted_auc(values - slopes[:, None] * logs, desirable, weights)
