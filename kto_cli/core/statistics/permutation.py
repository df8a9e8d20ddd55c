"""Permutation test of an AUC: how often labels given out by chance would rank as well.

Where rewards have nothing to do with labels, labels may change places between prompts with the same number of rows, and
between the rows of one prompt. Prompts stay whole, so that rows of one prompt, which are alike, do not count as
independent. The test is exact at any number of rows: its p is at most x with a probability of at most x.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import BLOCK

PERMUTATIONS = 2000
"""At most; p of 0.025 then has a standard error of 0.0035."""
ROW_BUDGET = 10_000_000
"""Rows given a label by a whole test at most: above 5,000 rows there are fewer permutations, but at least 200."""


def chance_of_auc(values: Tensor, desirable: Tensor, clusters: Tensor, *, seed: int = 0) -> float:
    """One-sided p: the share of permutations with an AUC as high as the one observed, which counts as one of them.

    Args:
        values: [rows]. desirable: [rows] bool. clusters: [rows] number of each row's prompt.

    Returns:
        p in (0, 1]; NaN where a class has no rows.
    """
    if desirable.all() or not desirable.any():
        return math.nan
    ranks = _ranks(values)
    # Ranks are halves and their sums whole or half numbers below 2^52: compared exactly.
    observed = ranks[desirable].sum()
    count = min(PERMUTATIONS, max(200, ROW_BUDGET // len(values)))
    reached = sum(int((sums >= observed).sum()) for sums in _rank_sums(ranks, desirable, clusters, count, seed))
    return (1 + reached) / (1 + count)


def least_chance(desirable: Tensor, clusters: Tensor) -> float:
    """The smallest p that the rows allow: 1 / number of ways in which their labels can be given out.

    2 and 2 rows of four prompts: 1 / 6, so even a perfect ranking is nothing unusual. Pairs of 6 prompts: 1 / 64.
    """
    ways = 0.0  # logarithm
    for rows in _by_size(clusters):
        size, patterns = rows.shape[1], Counter(desirable[rows].sum(1).tolist())
        ways += _log_factorial(len(rows))
        for labelled, prompts in patterns.items():
            ways += prompts * _log_choices(size, labelled) - _log_factorial(prompts)
    return math.exp(-ways)


def _rank_sums(ranks: Tensor, desirable: Tensor, clusters: Tensor, count: int, seed: int) -> Iterator[Tensor]:
    """Sums of the desirable rows' ranks in `count` permutations, in blocks."""
    generator = torch.Generator().manual_seed(seed)
    groups = [(ranks[rows], desirable[rows].double()) for rows in _by_size(clusters)]
    block = max(1, BLOCK // len(ranks))
    for start in range(0, count, block):
        some = min(block, count - start)
        sums = torch.zeros(some, dtype=torch.float64)
        for group, labels in groups:
            prompts, size = labels.shape
            mixed = labels[torch.rand(some, prompts, generator=generator).argsort(1)]
            if size > 1:
                mixed = mixed.gather(2, torch.rand(some, prompts, size, generator=generator).argsort(2))
            sums += (mixed * group).sum((1, 2))
        yield sums


def _by_size(clusters: Tensor) -> list[Tensor]:
    """For each number of rows that a prompt has: [prompts, rows of a prompt] indices of rows."""
    order = clusters.argsort(stable=True)
    sizes = torch.bincount(clusters)
    sizes = sizes[sizes > 0]
    ends = sizes.cumsum(0)
    return [order[(ends[sizes == size] - size)[:, None] + torch.arange(int(size))] for size in sizes.unique().tolist()]


def _ranks(values: Tensor) -> Tensor:
    """[rows] float64 ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts.double() - 1) / 2
    return ranks[inverse]


def _log_factorial(count: int) -> float:
    return math.lgamma(count + 1)


def _log_choices(total: int, chosen: int) -> float:
    return _log_factorial(total) - _log_factorial(chosen) - _log_factorial(total - chosen)
