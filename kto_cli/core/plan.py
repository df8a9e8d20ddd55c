"""Effective batches of an epoch and the learning rate of a step, as pure functions.

The order of the rows is a function of labels, sizes, seed and epoch. It is never stored; a resumed run computes it
again. Planning takes some hundred bytes a row.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from kto_cli.core.pieces import RowLists, pieces, values

VERSION = 3
"""Of the plan: a run resumes only with the one it was started with, else rows would be trained twice or never."""
PAIR = 2
"""Rows of a pair."""


def plan_epoch(
    labels: Sequence[bool] | Tensor,
    prompts: Sequence[int] | Tensor | None = None,
    conversations: Sequence[int] | Tensor | None = None,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    partners: Sequence[int] | Tensor | None = None,
) -> list[list[int]]:
    """Effective batches of one epoch: lists of row indices, each row exactly once.

    Both classes are shuffled anew each epoch and distributed evenly: every batch gets its rounded share of each class,
    and at least one row of each class if there are enough rows. Where in the epoch a row comes does not depend on how
    many rows its prompt has: batches are composed in a random order of their numbers.

    Args:
        labels: [rows] True is desirable. batch_size: rows of an effective batch at most; see `batch_sizes`.
        prompts: [rows] equal values mark rows of one prompt. Up to `PIECE` of them at a time share a batch wherever the
            classes' shares allow it, so that the prompt is computed once. None: all rows are drawn independently.
        conversations: [rows] equal values mark rows of one conversation, whose prompts begin alike: likewise, up to
            `CONVERSATION_PIECE`, prompts of neighbouring numbers together. None: each prompt is one of its own.
        partners: [rows] index of the other row of a pair, -1 for a row of no pair (`pairs.pairing_of`). Given, pairs
            are planned, not rows: each pair exactly once, both rows in one batch, and rows of no pair left out. Then a
            batch has its desirable rows first, and its undesirable rows in the order of their partners.
    """
    random = Random(f"kto plan {seed} {epoch}")
    if partners is not None:
        return _plan_pairs(labels, prompts, conversations, partners, batch_size, random)
    desirable = bytes(values(torch.as_tensor(labels, dtype=torch.uint8)))
    return _compose(desirable, pieces(prompts, conversations, random, rows=len(labels)), batch_size, random)


def _plan_pairs(
    labels: Sequence[bool] | Tensor,
    prompts: Sequence[int] | Tensor | None,
    conversations: Sequence[int] | Tensor | None,
    partners: Sequence[int] | Tensor,
    batch_size: int,
    random: Random,
) -> list[list[int]]:
    """Effective batches of whole pairs; a pair goes by the prompt of its desirable row."""
    partner = torch.as_tensor(partners, dtype=torch.int64)
    winners = (torch.as_tensor(labels, dtype=torch.bool) & (partner >= 0)).nonzero()[:, 0]
    of_prompts, of_conversations = (
        None if each is None else torch.as_tensor(each)[winners] for each in (prompts, conversations)
    )
    alike = bytes([1]) * len(winners)
    together = pieces(of_prompts, of_conversations, random, rows=len(winners), rows_in_unit=PAIR)
    batches = _compose(alike, together, pairs_in_batch(batch_size), random)
    return [[*winners[batch].tolist(), *partner[winners[batch]].tolist()] for batch in batches]


def _compose(desirable: bytes, lists: RowLists, batch_size: int, random: Random) -> list[list[int]]:
    """Effective batches of pieces; `desirable` [rows] is 1 or 0."""
    sizes = batch_sizes(len(desirable), batch_size)
    shares = _shares(sizes, sum(desirable))
    pool = _Pool(desirable, lists, random)
    batches: list[list[int]] = [[] for _ in sizes]
    # The batches composed last get the pieces that fitted nowhere before; they must not be the last of the epoch.
    for number in random.sample(range(len(sizes)), len(sizes)):
        batches[number] = pool.draw(shares[number], sizes[number] - shares[number])
    return batches


def batch_sizes(rows: int, batch_size: int) -> list[int]:
    """Sizes of an epoch's effective batches: as few as possible of at most `batch_size` rows, equal to within one row.

    A small last batch would give its rows a multiple of the other rows' learning rate.
    """
    steps = steps_in_epoch(rows, batch_size)
    return [rows * (step + 1) // steps - rows * step // steps for step in range(steps)]


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch. Of pairs: their number, and `pairs_in_batch` as the size."""
    return -(-rows // batch_size)


def pairs_in_batch(batch_size: int) -> int:
    """Pairs of an effective batch of at most `batch_size` rows.

    Raises:
        ValueError: a pair does not fit.
    """
    if batch_size < PAIR:
        raise ValueError("a batch of one row has no room for a pair")
    return batch_size // PAIR


class _Pool:
    """Pieces that no batch has taken yet, in one random order."""

    def __init__(self, labels: bytes, pieces: RowLists, random: Random) -> None:
        self._labels, self._pieces = labels, pieces
        self._order = array("q", range(len(pieces)))
        """[pieces] indices in the random order; a piece goes by its position there."""
        self._rests: dict[int, tuple[list[int], list[int]]] = {}
        """What is left of pieces that were split: desirable rows, undesirable rows."""
        self._by_counts: dict[tuple[int, int], list[int]] = {}
        """(desirable, undesirable) counts -> heap of positions."""
        random.shuffle(self._order)
        for position, index in enumerate(self._order):
            rows = pieces[index]
            self._add(position, desirable := sum(labels[row] for row in rows), len(rows) - desirable)

    def _add(self, position: int, desirable: int, undesirable: int) -> None:
        heapq.heappush(self._by_counts.setdefault((desirable, undesirable), []), position)

    def draw(self, desirable: int, undesirable: int) -> list[int]:
        """Takes that many rows of each class, desirable rows first: of the pieces that fit the earliest; where none
        fits, the earliest with a row that is still needed is split."""
        taken: tuple[list[int], list[int]] = ([], [])
        while (room := (desirable - len(taken[0]), undesirable - len(taken[1]))) != (0, 0):
            usable = [n for n in self._by_counts if min(n[0], room[0]) + min(n[1], room[1])]
            fitting = [n for n in usable if n[0] <= room[0] and n[1] <= room[1]]
            position, piece = self._take(min(fitting or usable, key=lambda counts: self._by_counts[counts][0]))
            for rows, members, space in zip(taken, piece, room, strict=True):
                rows += members[:space]
            rest = piece[0][room[0] :], piece[1][room[1] :]
            if any(rest):
                self._rests[position] = rest
                self._add(position, *map(len, rest))
        return taken[0] + taken[1]

    def _take(self, counts: tuple[int, int]) -> tuple[int, tuple[list[int], list[int]]]:
        """Removes the earliest piece with these counts: its position, its desirable and its undesirable rows."""
        position = heapq.heappop(self._by_counts[counts])
        if not self._by_counts[counts]:
            del self._by_counts[counts]
        if position in self._rests:
            return position, self._rests.pop(position)
        rows = self._pieces[self._order[position]]
        return position, ([row for row in rows if self._labels[row]], [row for row in rows if not self._labels[row]])


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
