"""Sequences shared out to processes and put into micro-batches by size."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush


def deal(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Deals pieces of work to processes: positions, the largest first, each to whom has least so far.

    Args:
        sizes: tokens of each piece.
    """
    hands: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for position in _largest_first(sizes):
        load, rank = heappop(loads)
        hands[rank].append(position)
        heappush(loads, (load + sizes[position], rank))
    return hands


def padded_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cuts sequences into padded batches of at most `token_budget` tokens, padding included.

    Longest first and greedy, so a batch's size depends on its longest sequence alone. What remains
    after any of the batches are done is cut the same way again: an interrupted pass over the data
    goes on with the batches it would have had. A sequence longer than the budget is a batch of its own.

    Args:
        lengths: tokens of each sequence. token_budget: tokens, padding included.
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
    """Packs pieces into batches of at most `token_budget` tokens: each, largest first, where it leaves least room.

    As with `padded_batches`, what remains after any of the batches are done is packed the same way again,
    and a piece larger than the budget is a batch of its own.

    Args:
        sizes: tokens of each piece.
    """
    batches: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for position in _largest_first(sizes):
        place = bisect_left(room, (sizes[position], -1))
        if place < len(room):
            free, batch = room.pop(place)
            batches[batch].append(position)
        else:
            free, batch = token_budget, len(batches)
            batches.append([position])
        insort(room, (free - sizes[position], batch))
    return batches


def _largest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda position: (-sizes[position], position))
