"""Sequences assigned to processes and put into micro-batches: padded ones by length, packed ones by common prefix."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import accumulate, pairwise

from kto_cli.core.prefix_order import PrefixOrder


def assign(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Greedy balancing: assigns pieces, largest first, to the rank with the fewest tokens.

    Args:
        sizes: tokens of each piece.

    Returns:
        For each rank the indices of its pieces.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for index in _largest_first(sizes):
        load, rank = heappop(loads)
        shares[rank].append(index)
        heappush(loads, (load + sizes[index], rank))
    return shares


def padded_units(units: Sequence[Sequence[int]], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """`padded_batches` of units, which are not split.

    Args:
        units: rows of each; lengths: [rows] tokens.

    Returns:
        Lists of rows.
    """
    longest = [max(lengths[row] for row in unit) for unit in units]
    batches: list[list[int]] = []
    width = 0
    for number in _largest_first(longest):
        if batches and (len(batches[-1]) + len(units[number])) * width <= token_budget:
            batches[-1] += units[number]
        else:
            batches.append(list(units[number]))
            width = longest[number]
    return batches


def padded_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Splits sequences into padded batches of at most `token_budget` tokens, padding included.

    Longest first and greedy, so a batch's size depends on its longest sequence alone. Whichever batches are done, the
    remaining sequences form the same batches again, so an interrupted pass over the data resumes unchanged. A sequence
    longer than the budget is a batch of its own.

    Args:
        lengths: tokens of each sequence.

    Returns:
        Lists of indices.
    """
    order = _largest_first(lengths)
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def prefix_runs(order: PrefixOrder, token_budget: int) -> list[list[int]]:
    """Splits sequences, in lexicographic order, into packed batches of at most `token_budget` tokens.

    Greedy, which gives the fewest such batches. A sequence longer than the budget is a batch of its own.

    Returns:
        Lists of indices.
    """
    bounds = _bounds(order, token_budget)
    return [list(order.indices[start:stop]) for start, stop in pairwise(bounds)]


def even_runs(order: PrefixOrder, token_budget: int, ranks: int = 1) -> list[list[int]]:
    """`prefix_runs` of as few batches as one rank needs at least, times `ranks`, the largest of them as small as
    possible."""
    budget = _even_budget(lambda most: len(_bounds(order, most)) - 1, token_budget, ranks)
    return prefix_runs(order, budget)


def even_unit_runs(
    order: PrefixOrder, units: Sequence[Sequence[int]], token_budget: int, ranks: int = 1
) -> list[list[int]]:
    """`even_runs` of units, which are not split: rows of a unit need not be neighbours in the order.

    Units come in the order of their first rows. A prefix counts once in a batch, whichever unit has it.

    Args:
        units: indices of each; each sequence is in one unit.
    """
    places = [0] * len(order.indices)
    for place, index in enumerate(order.indices):
        places[index] = place
    sorted_units = sorted(sorted(places[index] for index in unit) for unit in units)
    budget = _even_budget(lambda most: len(_unit_runs(order, sorted_units, most)), token_budget, ranks)
    return [[order.indices[place] for place in run] for run in _unit_runs(order, sorted_units, budget)]


def _unit_runs(order: PrefixOrder, units: Sequence[Sequence[int]], token_budget: int) -> list[list[int]]:
    """Batches of whole units, greedily; units and batches are places in the order."""
    runs: list[list[int]] = []
    tokens = 0
    for unit in units:
        if runs:
            grown = list(runs[-1])
            tokens += _added(order, grown, unit)
            if tokens <= token_budget:
                runs[-1] = grown
                continue
        runs.append([])
        tokens = _added(order, runs[-1], unit)
    return runs


def _added(order: PrefixOrder, run: list[int], unit: Sequence[int]) -> int:
    """Adds a unit to the sorted places of a batch; returns how many tokens the batch grows by."""
    tokens = 0
    for place in unit:
        position = bisect_left(run, place)
        before = min(order.common[run[position - 1] + 1 : place + 1]) if position else 0
        behind = min(order.common[place + 1 : run[position] + 1]) if position < len(run) else 0
        tokens += order.lengths[place] - max(before, behind)
        insort(run, place)
    return tokens


def packed_tokens(order: PrefixOrder, runs: Sequence[Sequence[int]]) -> int:
    """Tokens of packed batches that are consecutive parts of the order, as of `prefix_runs`."""
    cuts = list(accumulate(map(len, runs)))[:-1]
    return order.tokens + sum(order.common[cut] for cut in cuts)


def _even_budget(batches: Callable[[int], int], token_budget: int, ranks: int) -> int:
    """The least budget with which no rank has more batches than with `token_budget`.

    Args:
        batches: their number with a budget, which does not rise with it.
    """
    rounds = -(-batches(token_budget) // ranks)
    low, high = 1, token_budget
    while low < high:
        middle = (low + high) // 2
        if batches(middle) <= rounds * ranks:
            high = middle
        else:
            low = middle + 1
    return low


def missing_runs(order: PrefixOrder, token_budget: int, missing: Sequence[bool]) -> list[list[int]]:
    """`prefix_runs` of the sequences that are `missing`.

    Runs that are missing as a whole are those of all sequences: an interrupted pass over the data is resumed with the
    batches it would have had. What is missing of the other runs makes further ones.

    Args:
        missing: [sequences], by index.
    """
    runs = prefix_runs(order, token_budget)
    whole = [all(missing[index] for index in run) for run in runs]
    others = [index for run, kept in zip(runs, whole, strict=True) if not kept for index in run if missing[index]]
    rest = prefix_runs(order.of(others), token_budget)
    return [run for run, kept in zip(runs, whole, strict=True) if kept] + rest


def _bounds(order: PrefixOrder, token_budget: int) -> list[int]:
    """Where in the order each batch of `prefix_runs` begins, and the end."""
    bounds, tokens = [0], 0
    for position, (length, common) in enumerate(zip(order.lengths, order.common, strict=True)):
        tokens += length - common
        if tokens > token_budget and position > bounds[-1]:
            bounds.append(position)
            tokens = length
    return [*bounds, len(order.lengths)] if order.lengths else [0]


def _largest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
