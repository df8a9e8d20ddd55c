"""Intervals of estimates: a bootstrap over prompts for any statistic, Wilson's interval for shares.

Rows of one prompt are not independent, so the bootstrap resamples prompts and takes all their rows. Wilson's interval
assumes independent trials: right for one row (or pair) per prompt, somewhat narrow otherwise; but it does not collapse
to a point where all trials agree, as the bootstrap does.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

LEVEL = 0.90
"""Coverage of all intervals; they are central."""
NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half-width of an interval in standard errors of a normal estimate: 1.645."""
RESAMPLES = 1000
BLOCK = 1 << 18
"""Numbers of a bootstrap held at once (2 MiB), of resamples times rows: memory does not grow with rows."""


def wilson(successes: float, trials: int) -> list[float]:
    """Score interval of a share (Wilson 1927; recommended by Brown, Cai and DasGupta 2001, Statistical Science 16):
    all p with |share - p| <= 1.645 sqrt(p (1 - p) / trials). Ties may count as half successes.

    For 9 of 10: centre (0.9 + z2 / 20) / (1 + z2 / 10) = 0.8148, half-width 0.1625 (z2 = 2.7055): 0.652 to 0.977.

    Returns:
        [low, high] in [0, 1]; NaN without trials.
    """
    if not trials:
        return [math.nan, math.nan]
    share, squared = successes / trials, NORMAL**2
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    reach = NORMAL * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2)) / (1 + squared / trials)
    return [max(0.0, middle - reach), min(1.0, middle + reach)]


def cluster_numbers(names: Sequence[Hashable]) -> tuple[Tensor, int]:
    """Numbers names 0 .. count-1, in order of first appearance: ([names] numbers, count)."""
    numbers: dict[Hashable, int] = {}
    indices = [numbers.setdefault(name, len(numbers)) for name in names]
    return torch.tensor(indices, dtype=torch.int64), len(numbers)


def resample_weights(clusters: Tensor, count: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yields blocks of [resamples, rows] float64: how often each resample of the prompts contains each row.

    Args:
        clusters: [rows] number of each row's prompt, below `count`.
    """
    generator = torch.Generator().manual_seed(seed)
    block = max(1, BLOCK // len(clusters))
    for start in range(0, resamples, block):
        some = min(block, resamples - start)
        drawn = torch.randint(count, (some, count), generator=generator)
        times = torch.zeros(some, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        yield times[:, clusters]


def percentiles(values: Tensor) -> list[float]:
    """[low, high] of the central 90 % of [resamples] values; ignores NaN, the value of a resample without a class."""
    known = values[values.isfinite()]
    if not len(known):
        return [math.nan, math.nan]
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=known.dtype)
    return torch.quantile(known, edges).tolist()


def clustered_error(values: Tensor, clusters: Tensor, count: int) -> float:
    """Standard error of the mean of [rows] values that come in `count` clusters (Liang and Zeger 1986):
    sqrt(G / (G - 1) * sum over clusters of (sum of deviations)^2) / rows; with one row per cluster the usual one.

    NaN for fewer than two clusters.
    """
    if count < 2:
        return math.nan
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, clusters, values.double() - values.double().mean())
    return math.sqrt(count / (count - 1) * (sums @ sums).item()) / len(values)
