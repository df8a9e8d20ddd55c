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


LIKE_LENGTH = 1.2
"""Two completions are of like length when the longer has at most this many times the shorter's tokens."""


class Level(NamedTuple):
    """The undesirable rows in blocks of 2^level lengths each, by score within a block; and what is asked of them.

    Asked is for the weight from one place of this order to another, once for each (desirable row, block, sign).
    """

    order: Tensor
    """[undesirable] places among the undesirable rows."""
    rows: Tensor
    """[asked] places among the desirable rows."""
    start: Tensor
    """[asked] where the block begins."""
    below: Tensor
    """[asked] where scores at least as high as the desirable row's begin."""
    upto: Tensor
    """[asked] where higher scores begin."""
    signs: Tensor
    """[asked] +1 or -1."""


class LikeLength(NamedTuple):
    """What does not change from one resample to the next."""

    desirable: Tensor
    """[rows] bool."""
    by_length: Tensor
    """[undesirable] places in order of length."""
    first: Tensor
    """[desirable] where in that order the like lengths begin."""
    last: Tensor
    """[desirable] and end."""
    levels: list[Level]


def prepare(scores: Tensor, lengths: Tensor, desirable: Tensor) -> LikeLength:
    """Finds, for each desirable row, the undesirable ones of like length that score lower, as few stretches.

    The like lengths lie between two edges. Rows below an edge are cut by its binary digits into blocks of 1, 2, 4, ...
    different lengths, each sorted by score once: log2(lengths) look-ups an edge in sums over a sorted block. So
    time is O(rows log rows log lengths), then O(rows log lengths) a resample, where pairs would be O(rows^2).

    Args:
        scores, lengths (above 0), desirable: [rows].
    """
    lengths = lengths.double()
    ours, others = lengths[desirable].contiguous(), lengths[~desirable]
    by_length = others.argsort(stable=True)
    values = others[by_length]
    # As longest <= 1.2 * shortest is written, so that both are rounded alike.
    first = torch.searchsorted(LIKE_LENGTH * values, ours)
    last = torch.searchsorted(values, LIKE_LENGTH * ours, right=True)
    # The same edges in different lengths instead of rows; `kinds` has one more, the end.
    number = torch.zeros(len(values), dtype=torch.int64)
    number[1:] = (values[1:] != values[:-1]).cumsum(0)
    kinds = torch.cat([number, torch.tensor([int(number[-1]) + 1 if len(number) else 0])])
    kind = torch.empty_like(number).index_copy_(0, by_length, number)
    edges = torch.stack([kinds[first], kinds[last]])
    lower = scores[~desirable].sort(stable=True)
    ranks = torch.empty_like(number).index_copy_(0, lower.indices, torch.arange(len(number)))
    wanted = scores[desirable].contiguous()
    places = torch.stack([torch.searchsorted(lower.values, wanted, right=right) for right in (False, True)])
    depth = int(kinds[-1]).bit_length()
    levels = [_level(height, kind, ranks, edges, places) for height in range(depth)]
    return LikeLength(desirable, by_length, first, last, [level for level in levels if len(level.rows)])


def _level(height: int, kind: Tensor, ranks: Tensor, edges: Tensor, places: Tensor) -> Level:
    """What is asked at one block size.

    Args:
        kind, ranks: [undesirable] the number of its length; its place by score.
        edges: [2, desirable] the first like length, and the first that is too long.
        places: [2, desirable] how many score lower, and how many no higher.
    """
    many = len(kind) + 1
    keys = ((kind >> height) * many + ranks).sort()
    block = edges >> height
    asked = block % 2 == 1
    asked &= ~(asked & (block == block.flip(0))).all(0)  # what both edges ask for cancels
    sides, rows = asked.nonzero(as_tuple=True)
    blocks = block[sides, rows] - 1  # the edge's digit is 1: the block before it is whole
    start, below, upto = (
        torch.searchsorted(keys.values, blocks * many + rank) for rank in (0, places[0, rows], places[1, rows])
    )
    return Level(keys.indices, rows, start, below, upto, 2.0 * sides.double() - 1)


def like_length_auc(pairs: LikeLength, weights: Tensor) -> Tensor:
    """How often a desirable row beats an undesirable one of like length; ties count one half.

    Args:
        weights: [draws, rows] how often a row is in a draw.

    Returns:
        [draws] float64; NaN where there are no such pairs.
    """
    up, down = (weights[:, side].double().T.contiguous() for side in (pairs.desirable, ~pairs.desirable))
    sums = torch.zeros(len(down) + 1, len(weights), dtype=torch.float64)
    torch.cumsum(down[pairs.by_length], 0, out=sums[1:])
    total = (up * (sums[pairs.last] - sums[pairs.first])).sum(0)
    won = torch.zeros(len(weights), dtype=torch.float64)
    for level in pairs.levels:
        torch.cumsum(down[level.order], 0, out=sums[1:])
        beaten = (sums[level.below] + sums[level.upto]) / 2 - sums[level.start]
        won += (up[level.rows] * beaten * level.signs[:, None]).sum(0)
    return won / total
