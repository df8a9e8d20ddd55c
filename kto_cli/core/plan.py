"""Which rows make which optimizer step: a pure function of labels, sizes, seed and epoch.

Nothing about data order is ever stored; a resumed run calls the same function again.
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
    """The effective batches of one epoch: row indices, each row exactly once.

    Both classes are shuffled anew each epoch and spread evenly: every batch holds its share of each,
    rounded, and at least one row of each class whenever there are enough rows for that. The last batch
    holds what is left over.

    Args:
        labels: desirable or not, one a row. batch_size: rows of an effective batch.
        prompts: what tells rows of one prompt, one a row. Given, rows of one prompt come into the same batch
            wherever the classes' shares allow it, so that the prompt is computed once; not given, all rows
            are drawn independently.
    """
    random = Random(f"kto plan {seed} {epoch}")
    sizes = [min(batch_size, len(labels) - start) for start in range(0, len(labels), batch_size)]
    shares = _shares(sizes, sum(labels))
    pool = _Pool(labels, range(len(labels)) if prompts is None else prompts, random)
    return [pool.draw(share, size - share) for size, share in zip(sizes, shares, strict=True)]


class _Pool:
    """Groups of rows not yet in a batch, drawn at random, whole where they fit."""

    def __init__(self, labels: Sequence[bool], prompts: Iterable[Hashable], random: Random) -> None:
        groups: dict[Hashable, tuple[list[int], list[int]]] = {}
        for row, (label, prompt) in enumerate(zip(labels, prompts, strict=True)):
            groups.setdefault(prompt, ([], []))[not label].append(row)
        self._random = random
        self._shelves: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = {}
        for group in groups.values():
            for members in group:
                random.shuffle(members)
            self._shelve(group)
        for shelf in self._shelves.values():
            random.shuffle(shelf)

    def _shelve(self, group: tuple[list[int], list[int]]) -> None:
        """Groups of the same make-up, (desirable, undesirable) rows, lie together."""
        self._shelves.setdefault((len(group[0]), len(group[1])), []).append(group)

    def draw(self, desirable: int, undesirable: int) -> list[int]:
        """Takes so many rows of each class out of the pool, desirable ones first."""
        taken: tuple[list[int], list[int]] = ([], [])
        while (room := (desirable - len(taken[0]), undesirable - len(taken[1]))) != (0, 0):
            fitting = [make for make in self._shelves if make[0] <= room[0] and make[1] <= room[1]]
            makes = fitting or [make for make in self._shelves if min(make[0], room[0]) + min(make[1], room[1])]
            group = self._take(makes)
            for rows, members, space in zip(taken, group, room, strict=True):
                rows += members[:space]
            rest = group[0][room[0] :], group[1][room[1] :]
            if any(rest):
                self._shelve(rest)
        return taken[0] + taken[1]

    def _take(self, makes: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """A random group of one of these make-ups, each group equally likely."""
        counts = [len(self._shelves[make]) for make in makes]
        (make,) = self._random.choices(makes, counts)
        group = self._shelves[make].pop()
        if not self._shelves[make]:
            del self._shelves[make]
        return group


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


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch, the ragged last one included."""
    return -(-rows // batch_size)


def learning_rate_share(step: int, *, total: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate at `step` (0-based) of `total`: linear warm-up, then the schedule.

    Args:
        warmup: a share of `total` if below 1, else a number of steps. The first step is never at 0.
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
