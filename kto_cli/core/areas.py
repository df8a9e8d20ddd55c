"""Areas under the ROC curve: plain, of many resamples at once, adjusted for length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kto_cli.core.intervals import BLOCK

LIKE_LENGTH = 1.2
"""Two completions are of like length when the longer has at most this many times the shorter's tokens."""


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


def weighted_auc(scores: Tensor, desirable: Tensor, weights: Tensor) -> Tensor:
    """`auc` of rows that count several times: for each draw the weight of the pairs that are won, over that of all.

    Args:
        scores: [rows], or [draws, rows] where they differ from draw to draw. desirable: [rows] bool.
        weights: [draws, rows] how often a row is in a draw.

    Returns:
        [draws] float64; NaN where a class has no weight.
    """
    scores = scores.expand(len(weights), -1)
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


def pair_areas(log_ratios: Tensor, by_length: Tensor, lengths: Tensor, desirable: Tensor, weights: Tensor) -> Tensor:
    """Three AUCs as weighted sums over (desirable, undesirable) pairs, a block of pairs at a time.

    Returns:
        [3, draws]: of the log-ratios, of length, and of the log-ratios among pairs of like length.
    """
    up, down = weights[:, desirable].float(), weights[:, ~desirable].float()
    wins, totals = (torch.zeros(3, len(weights), dtype=torch.float64) for _ in range(2))
    block = max(1, BLOCK // max(1, down.shape[1]))
    for start in range(0, up.shape[1], block):
        part = slice(start, start + block)
        left = up[:, part]
        better = _wins(log_ratios[desirable][part], log_ratios[~desirable])
        longer = _wins(by_length[desirable][part], by_length[~desirable])
        like = _like_length(lengths[desirable][part], lengths[~desirable])
        for index, won in enumerate((better, longer, better * like)):
            wins[index] += ((left @ won) * down).sum(1).double()
        totals[2] += ((left @ like) * down).sum(1).double()
    totals[:2] = up.sum(1).double() * down.sum(1).double()
    return wins / totals


def _wins(upper: Tensor, lower: Tensor) -> Tensor:
    """[u], [l] -> [u, l]: 1 where the first is larger, one half where they tie."""
    return ((upper[:, None] - lower).sign() + 1).float() / 2


def _like_length(upper: Tensor, lower: Tensor) -> Tensor:
    """[u], [l] token counts -> [u, l] float: 1 where they are of like length."""
    return (torch.maximum(upper[:, None], lower) <= LIKE_LENGTH * torch.minimum(upper[:, None], lower)).float()
