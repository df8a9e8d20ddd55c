"""Effective batches of an epoch and the learning rate of a step, as pure functions.

The order of the rows is a function of labels, sizes, seed and epoch. It is never stored; a resumed run computes it
again.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from random import Random


def plan_epoch(
    labels: Sequence[bool],
    prompts: Sequence[Hashable] | None = None,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
) -> list[list[int]]:
    """Effective batches of one epoch: lists of row indices, each row exactly once.

    Both classes are shuffled anew each epoch and distributed evenly: every batch gets its rounded share of each class,
    and at least one row of each class if there are enough rows. The last batch takes the remainder.

    Args:
        labels: [rows] True is desirable. batch_size: rows of an effective batch.
        prompts: [rows] equal values mark rows of one prompt, which then share a batch wherever the classes' shares
            allow it, so that the prompt is computed once. None: all rows are drawn independently.
    """
    random = Random(f"kto plan {seed} {epoch}")
    sizes = [min(batch_size, len(labels) - start) for start in range(0, len(labels), batch_size)]
    shares = _shares(sizes, sum(labels))
    pool = _GroupPool(labels, range(len(labels)) if prompts is None else prompts, random)
    return [pool.draw(share, size - share) for size, share in zip(sizes, shares, strict=True)]


_Group = tuple[list[int], list[int]]
"""(desirable, undesirable) rows of one prompt."""


class _GroupPool:
    """Prompt groups that no batch has taken yet. Groups are drawn at random and kept together where they fit."""

    def __init__(self, labels: Sequence[bool], prompts: Iterable[Hashable], random: Random) -> None:
        groups: dict[Hashable, _Group] = {}
        for row, (label, prompt) in enumerate(zip(labels, prompts, strict=True)):
            groups.setdefault(prompt, ([], []))[not label].append(row)
        self._random = random
        self._by_counts: dict[tuple[int, int], list[_Group]] = {}
        for group in groups.values():
            for members in group:
                random.shuffle(members)
            self._add(group)
        for same_counts in self._by_counts.values():
            random.shuffle(same_counts)

    def _add(self, group: _Group) -> None:
        """Files a group under its (desirable, undesirable) counts."""
        self._by_counts.setdefault((len(group[0]), len(group[1])), []).append(group)

    def draw(self, desirable: int, undesirable: int) -> list[int]:
        """Takes that many rows of each class out of the pool, desirable rows first."""
        taken: _Group = ([], [])
        while (room := (desirable - len(taken[0]), undesirable - len(taken[1]))) != (0, 0):
            fitting = [n for n in self._by_counts if n[0] <= room[0] and n[1] <= room[1]]
            # Where no group fits whole, one with a row that is still needed is split.
            usable = fitting or [n for n in self._by_counts if min(n[0], room[0]) + min(n[1], room[1])]
            group = self._take(usable)
            for rows, members, space in zip(taken, group, room, strict=True):
                rows += members[:space]
            rest = group[0][room[0] :], group[1][room[1] :]
            if any(rest):
                self._add(rest)
        return taken[0] + taken[1]

    def _take(self, candidates: list[tuple[int, int]]) -> _Group:
        """A random group with one of these counts, each group equally likely."""
        numbers = [len(self._by_counts[counts]) for counts in candidates]
        (counts,) = self._random.choices(candidates, numbers)
        group = self._by_counts[counts].pop()
        if not self._by_counts[counts]:
            del self._by_counts[counts]
        return group


def _shares(sizes: list[int], members: int) -> list[int]:
    """How many of a class's `members` each batch gets: an even share, within 1 .. size-1 where counts allow."""
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
    """Gives each batch of two or more rows at least one member of the class, taken from the batch with most."""
    for batch, size in enumerate(sizes):
        if size > 1 and shares[batch] == 0:
            fullest = max(range(len(sizes)), key=lambda other: (shares[other], -other))
            if shares[fullest] < 2:
                return
            shares[fullest] -= 1
            shares[batch] += 1


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch, the smaller last one included."""
    return -(-rows // batch_size)


def learning_rate_share(step: int, *, total: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate at `step` (0-based) of `total`: linear warm-up, then the schedule.

    Args:
        warmup: a share of `total` if below 1, else a number of steps. The first step's rate is above 0.
        schedule: linear or cosine (both reach 0 only after the last step) or constant.
    """
    warm = round(warmup * total) if warmup < 1 else int(warmup)
    if step < warm:
        return (step + 1) / (warm + 1)
    passed = (step - warm) / max(1, total - warm)
    if schedule == "linear":
        return 1 - passed
    if schedule == "cosine":
        return (1 + math.cos(math.pi * passed)) / 2
    return 1.0
