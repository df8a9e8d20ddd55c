"""Sequences assigned to processes and put into micro-batches by size."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush


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


def packed_batches(sizes: Sequence[int], token_budget: int) -> list[list[int]]:
    """Best-fit bin packing: puts pieces, largest first, into the batch of at most `token_budget` tokens that they fill
    best.

    As with `padded_batches`, the remaining pieces form the same batches again, whichever batches are done, and a piece
    larger than the budget is a batch of its own.

    Args:
        sizes: tokens of each piece.

    Returns:
        Lists of indices.
    """
    batches: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, batch), sorted
    for index in _largest_first(sizes):
        fit = bisect_left(room, (sizes[index], -1))
        if fit < len(room):
            free, batch = room.pop(fit)
            batches[batch].append(index)
        else:
            free, batch = token_budget, len(batches)
            batches.append([index])
        insort(room, (free - sizes[index], batch))
    return batches


def _largest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
