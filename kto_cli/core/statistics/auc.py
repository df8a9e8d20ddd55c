"""AUC (area under the ROC curve): plain, of many resamples at once, adjusted for length, between similar lengths."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import copies_in_class, drawn_share
from kto_cli.core.statistics.shares import PairCounts, Share, all_pairs, auc_variance

# Two texts have similar lengths when the longer one has at most this many times the length of the shorter one. The two
# ratios differ for historical reasons ("a fifth" of the shorter text, "a fifth" of the longer text); one ratio for both
# would change numbers that users have on record.
SIMILAR_TOKENS = 1.2  # completions in tokens, for the AUC between rows of similar length
SIMILAR_WORDS = 1.25  # answers in words, for the win rate by length: the shorter one has at least 4/5 of the longer one


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
    won = ranks[desirable].sum() - positives * (positives + 1) / 2
    return float(won / (positives * negatives))


class Ranks(NamedTuple):
    """Sorted scores, computed once and reused for every bootstrap resample of the AUC."""

    desirable: Tensor
    """[rows] bool."""
    order: Tensor
    """[undesirable] indices of the undesirable rows, from the lowest score to the highest."""
    below: Tensor
    """[desirable] number of undesirable rows with lower scores."""
    upto: Tensor
    """[desirable] number of undesirable rows with lower or equal scores."""


def rank_scores(scores: Tensor, desirable: Tensor) -> Ranks:
    """Ranks each desirable row among the undesirable rows; scores and desirable are [rows]."""
    lower = scores[~desirable].sort()
    wanted = scores[desirable].contiguous()
    below, upto = (torch.searchsorted(lower.values, wanted, right=right) for right in (False, True))
    return Ranks(desirable, lower.indices, below, upto)


def ranked_auc(ranks: Ranks, weights: Tensor) -> Tensor:
    """`weighted_auc` of scores that are already ranked."""
    up, down = weights[:, ranks.desirable].double(), weights[:, ~ranks.desirable].double()
    sums = torch.zeros(len(weights), down.shape[1] + 1, dtype=torch.float64)
    torch.cumsum(down[:, ranks.order], 1, out=sums[:, 1:])
    beaten = (sums[:, ranks.below] + sums[:, ranks.upto]) / 2
    return (up * beaten).sum(1) / (up.sum(1) * down.sum(1))


def weighted_auc(scores: Tensor, desirable: Tensor, weights: Tensor) -> Tensor:
    """AUC of weighted rows: the weight of the pairs won over the weight of all pairs, for each resample.

    Args:
        scores: [rows], or [resamples, rows] where each resample has its own scores. desirable: [rows] bool.
        weights: [resamples, rows] how often a resample contains a row.

    Returns:
        [resamples] float64; NaN where a class has no weight.
    """
    if scores.dim() == 1:
        return ranked_auc(rank_scores(scores, desirable), weights)
    order = scores[:, ~desirable].sort(dim=1)
    down = weights[:, ~desirable].double().gather(1, order.indices)
    below = torch.cat([torch.zeros(len(weights), 1, dtype=torch.float64), down.cumsum(1)], dim=1)
    up, wanted = weights[:, desirable].double(), scores[:, desirable].contiguous()
    edges = [torch.searchsorted(order.values, wanted, right=right) for right in (False, True)]
    beaten = (below.gather(1, edges[0]) + below.gather(1, edges[1])) / 2
    return (up * beaten).sum(1) / (up.sum(1) * down.sum(1))


def auc_share(area: float, drawn: Tensor, desirable: Tensor, clusters: Tensor) -> Share:
    """The AUC of all rows with its [resamples], for its interval."""
    prompts = min(len(clusters[desirable].unique()), len(clusters[~desirable].unique()))
    variance = partial(auc_variance, counts=all_pairs(int(desirable.sum()), int((~desirable).sum())))
    return drawn_share(area, drawn, variance, prompts=prompts, copies=copies_in_class(desirable, clusters))


def pair_counts(partners: Tensor, others: Tensor) -> PairCounts:
    """From the number of partners of each desirable row and of each undesirable one."""
    partners, others = partners.double(), others.double()
    shared = (partners * (partners - 1)).sum() + (others * (others - 1)).sum()
    return PairCounts(partners.sum().item(), shared.item())


def length_adjusted_auc(values: Tensor, lengths: Tensor, desirable: Tensor, weights: Tensor) -> Tensor:
    """Covariate-adjusted AUC: how often a desirable row beats an undesirable one OF THE SAME LENGTH (Janes and Pepe
    2009, Biometrika 96; semiparametric: P(1 - F(Y_D | length) <= chance)).

    Least squares fits value = a + b log(length) + noise to the undesirable rows (the controls); `weighted_auc` then
    compares value - b log(length) of all rows. The result is 0.5 if values depend on length alone, in the same way in
    both classes, however well length predicts the label. b is 0 where all undesirable rows have one length.

    Args:
        values: [rows] log-ratios. lengths: [rows] tokens, at least 1. desirable: [rows] bool.
        weights: [resamples, rows].

    Returns:
        [resamples]; each resample fits its own slope.
    """
    logs = lengths.double().clamp(min=1).log()
    values = values.double()
    controls = weights[:, ~desirable].double()
    x, y = logs[~desirable], values[~desirable]
    total = controls.sum(1, keepdim=True)
    from_mean = x - (controls @ x)[:, None] / total
    spread = (controls * from_mean.square()).sum(1)
    together = (controls * from_mean * (y - (controls @ y)[:, None] / total)).sum(1)
    # A variance of log lengths under 1e-12 is rounding: all controls have one length.
    slopes = torch.where(spread > 1e-12 * total[:, 0], together / spread, torch.zeros_like(spread))
    return weighted_auc(values - slopes[:, None] * logs, desirable, weights)


class LengthBlocks(NamedTuple):
    """Undesirable rows in blocks of 2^height different lengths, sorted by score within a block, and queries on them.

    A query is (desirable row, block, sign); its answer is the weight between two positions of the sorted order.
    """

    order: Tensor
    """[undesirable] indices of the undesirable rows in the sorted order."""
    rows: Tensor
    """[queries] indices of the desirable rows."""
    start: Tensor
    """[queries] position where the block begins."""
    below: Tensor
    """[queries] position where scores at least as high as the desirable row's begin."""
    upto: Tensor
    """[queries] position where higher scores begin."""
    signs: Tensor
    """[queries] +1 or -1."""


class SimilarLengthPairs(NamedTuple):
    """Pairs of a desirable and an undesirable row of similar length, found once and reused for every resample."""

    desirable: Tensor
    """[rows] bool."""
    by_length: Tensor
    """[undesirable] indices of the undesirable rows in order of length."""
    first: Tensor
    """[desirable] position in `by_length` where similar lengths begin."""
    last: Tensor
    """[desirable] position in `by_length` where similar lengths end."""
    levels: list[LengthBlocks]
    """One per block size 1, 2, 4, ... that has queries."""


def similar_length_pairs(scores: Tensor, lengths: Tensor, desirable: Tensor) -> SimilarLengthPairs:
    """Finds, for each desirable row, the undesirable rows of similar length with lower scores, as few block ranges.

    Similar lengths lie between two edges. The binary digits of an edge cut the rows below it into blocks of 1, 2, 4,
    ... different lengths; each block is sorted by score once, so an edge takes log2(lengths) look-ups in cumulative
    sums. Time is O(rows log rows log lengths) once and O(rows log lengths) per resample; a loop over pairs would take
    O(rows^2).

    Args:
        scores, lengths (above 0), desirable: [rows].
    """
    lengths = lengths.double()
    wanted_lengths, other_lengths = lengths[desirable].contiguous(), lengths[~desirable]
    by_length = other_lengths.argsort(stable=True)
    values = other_lengths[by_length]
    # Both edges multiply the shorter length (longer <= 1.2 * shorter), so that both are rounded alike.
    first = torch.searchsorted(SIMILAR_TOKENS * values, wanted_lengths)
    last = torch.searchsorted(values, SIMILAR_TOKENS * wanted_lengths, right=True)
    # The same edges counted in different lengths instead of rows; `numbers` has one more entry, the end.
    number = torch.zeros(len(values), dtype=torch.int64)
    number[1:] = (values[1:] != values[:-1]).cumsum(0)
    numbers = torch.cat([number, torch.tensor([int(number[-1]) + 1 if len(number) else 0])])
    length_numbers = torch.empty_like(number).index_copy_(0, by_length, number)
    edges = torch.stack([numbers[first], numbers[last]])
    lower = scores[~desirable].sort(stable=True)
    ranks = torch.empty_like(number).index_copy_(0, lower.indices, torch.arange(len(number)))
    wanted = scores[desirable].contiguous()
    beaten = torch.stack([torch.searchsorted(lower.values, wanted, right=right) for right in (False, True)])
    depth = int(numbers[-1]).bit_length()
    levels = [_length_blocks(height, length_numbers, ranks, edges, beaten) for height in range(depth)]
    return SimilarLengthPairs(desirable, by_length, first, last, [level for level in levels if len(level.rows)])


def _length_blocks(height: int, length_numbers: Tensor, ranks: Tensor, edges: Tensor, beaten: Tensor) -> LengthBlocks:
    """Sorted order and queries of one block size.

    Args:
        length_numbers, ranks: [undesirable] rank of the row's length among the different lengths; rank by score.
        edges: [2, desirable] number of the first similar length, and of the first that is too long.
        beaten: [2, desirable] how many undesirable rows score lower, and how many lower or equal.
    """
    many = len(length_numbers) + 1
    keys = ((length_numbers >> height) * many + ranks).sort()
    block = edges >> height
    queried = block % 2 == 1
    queried &= ~(queried & (block == block.flip(0))).all(0)  # equal queries of both edges cancel
    sides, rows = queried.nonzero(as_tuple=True)
    blocks = block[sides, rows] - 1  # the edge's digit is 1: the block before it lies wholly below the edge
    start, below, upto = (
        torch.searchsorted(keys.values, blocks * many + rank) for rank in (0, beaten[0, rows], beaten[1, rows])
    )
    return LengthBlocks(keys.indices, rows, start, below, upto, 2.0 * sides.double() - 1)


def similar_length_auc(pairs: SimilarLengthPairs, weights: Tensor) -> Tensor:
    """AUC between rows of similar length: how often the desirable row of such a pair scores higher; ties count half.

    Args:
        weights: [resamples, rows] how often a resample contains a row.

    Returns:
        [resamples] float64; NaN where there are no such pairs.
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


def similar_length_counts(pairs: SimilarLengthPairs) -> PairCounts:
    """How many pairs of similar length there are, and how many have a row in common."""
    partners = pairs.last - pairs.first
    steps = torch.zeros(len(pairs.by_length) + 1, dtype=torch.int64)
    ones = torch.ones_like(pairs.first)
    steps.index_add_(0, pairs.first, ones).index_add_(0, pairs.last, -ones)
    return pair_counts(partners, steps.cumsum(0)[:-1])
