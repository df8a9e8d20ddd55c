"""Which rows make which optimizer step: a pure function of labels, sizes, seed and epoch.

Nothing about data order is ever stored; a resumed run calls the same function again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def plan_epoch(labels: Sequence[bool], *, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The effective batches of one epoch: row indices, each row exactly once.

    Both classes are shuffled anew each epoch and spread evenly: every batch holds its share of each,
    rounded, and at least one row of each class whenever there are enough rows for that. The last batch
    holds what is left over.

    Args:
        labels: desirable or not, one a row. batch_size: rows of an effective batch.
    """
    random = Random(f"kto plan {seed} {epoch}")
    desirable = [row for row, label in enumerate(labels) if label]
    undesirable = [row for row, label in enumerate(labels) if not label]
    random.shuffle(desirable)
    random.shuffle(undesirable)
    sizes = [min(batch_size, len(labels) - start) for start in range(0, len(labels), batch_size)]
    batches: list[list[int]] = []
    taken = others = 0
    for size, share in zip(sizes, _shares(sizes, len(desirable)), strict=True):
        rest = size - share
        batches.append(desirable[taken : taken + share] + undesirable[others : others + rest])
        taken += share
        others += rest
    return batches


def _shares(sizes: list[int], members: int) -> list[int]:
    """How many of a class's `members` each batch gets: even, and 1 .. size-1 where counts allow."""
    total, before, shares, seen = sum(sizes), 0, [], 0
    for size in sizes:
        seen += size
        upto = (2 * members * seen + total) // (2 * total)
        shares.append(upto - before)
        before = upto
    _lift_empty(shares, sizes)
    rest = [size - share for size, share in zip(sizes, shares, strict=True)]
    _lift_empty(rest, sizes)
    return [size - share for size, share in zip(sizes, rest, strict=True)]


def _lift_empty(shares: list[int], sizes: list[int]) -> None:
    """Gives each batch of two or more rows one member of the class, taken from the fullest batch."""
    for batch, size in enumerate(sizes):
        if size > 1 and shares[batch] == 0:
            fullest = max(range(len(sizes)), key=lambda other: (shares[other], -other))
            if shares[fullest] < 2:
                return
            shares[fullest] -= 1
            shares[batch] += 1


def deal(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Deals the rows of an effective batch to processes: positions, longest first, in turn.

    A process may get none; all get within one row of the same number.
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    return [order[rank::ranks] for rank in range(ranks)]


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cuts sequences into padded batches of at most `token_budget` tokens, padding included.

    Longest first and greedy, so a batch's size depends on its longest sequence alone. What remains
    after any of the batches are done is cut the same way again: an interrupted pass over the data
    goes on with the batches it would have had. A sequence longer than the budget is a batch of its own.

    Args:
        lengths: tokens of each sequence. token_budget: tokens, padding included.
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch, the ragged last one included."""
    return -(-rows // batch_size)
