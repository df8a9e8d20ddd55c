"""Pieces of an epoch: rows of one prompt or one conversation that share a batch; a few numbers a row in memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import overload

import torch
from torch import Tensor

PIECE, CONVERSATION_PIECE = 4, 8
"""Rows of one prompt, and of one conversation, that are placed together at most. Measured in benchmarks/README.md:
with 4, data of up to four answers a prompt share as much as they can, larger groups most of it, and no batch of 32 has
few prompts; with 8, the same holds for the rated turns of a conversation."""
READ_AT_ONCE = 4096
"""Numbers of a tensor that are Python objects (32 bytes each) at a time."""


class RowLists(Sequence[list[int]]):
    """Lists of rows, 8 bytes a row and a list."""

    def __init__(self, lists: Iterable[Sequence[int]] = ()) -> None:
        self._rows, self._starts = array("q"), array("q", [0])
        for rows in lists:
            self.append(rows)

    def append(self, rows: Sequence[int]) -> None:
        """Adds a list of rows."""
        self._rows.extend(rows)
        self._starts.append(len(self._rows))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._rows[self._starts[index] : self._starts[index + 1]].tolist()


def pieces(
    prompts: Sequence[int] | Tensor | None,
    conversations: Sequence[int] | Tensor | None,
    random: Random,
    *,
    rows: int,
    rows_in_unit: int = 1,
) -> RowLists:
    """Rows of each conversation in lists of at most `CONVERSATION_PIECE`, of at most `PIECE` of each prompt.

    Each prompt's rows are shuffled and take turns of `PIECE`; a list has rows of one turn. Prompts, conversations and
    turns come in the order of their first rows.

    Args:
        prompts, conversations: [rows] as `plan_epoch` takes them.
        rows_in_unit: 2 where what is called a row here is a pair; a list then has half as many.
    """
    most, most_together = PIECE // rows_in_unit, CONVERSATION_PIECE // rows_in_unit
    prompts = torch.arange(rows) if prompts is None else torch.as_tensor(prompts, dtype=torch.int64)
    conversations = prompts if conversations is None else torch.as_tensor(conversations, dtype=torch.int64)
    group = _first_equal(conversations, prompts)
    order = group.argsort(stable=True)
    firsts, sizes = group[order].unique_consecutive(return_counts=True)
    starts = sizes.cumsum(0) - sizes
    members = array("q", values(order))
    for start, size in zip(values(starts[sizes > 1]), values(sizes[sizes > 1]), strict=True):
        shuffled = members[start : start + size]
        random.shuffle(shuffled)
        members[start : start + size] = shuffled
    turns = -(-sizes // most)
    of = torch.arange(len(sizes)).repeat_interleave(turns)
    turn = torch.arange(len(of)) - (turns.cumsum(0) - turns)[of]
    starts, lengths = starts[of] + most * turn, (sizes[of] - most * turn).clamp(max=most)
    together = _first_equal(conversations[firsts[of]], turn)
    order = prompts[firsts[of]].argsort(stable=True)
    order = order[together[order].argsort(stable=True)]
    return _filled(members, together[order], starts[order], lengths[order], most_together)


def _filled(members: array[int], together: Tensor, starts: Tensor, lengths: Tensor, most: int) -> RowLists:
    """Pieces of consecutive parts of `members` with equal numbers `together`, of at most `most` members.

    Args:
        together, starts, lengths: [parts].
    """
    found, piece, before = RowLists(), array("q"), -1
    for number, start, length in zip(values(together), values(starts), values(lengths), strict=True):
        if piece and (number != before or len(piece) + length > most):
            found.append(piece)
            piece = array("q")
        piece += members[start : start + length]
        before = number
    if piece:
        found.append(piece)
    return found


def values(numbers: Tensor) -> Iterator[int]:
    """The numbers of a tensor, few at a time as Python objects."""
    return (value for some in numbers.split(READ_AT_ONCE) for value in some.tolist())


def _first_equal(major: Tensor, minor: Tensor) -> Tensor:
    """[items] index of the first item with the same two keys; major, minor: [items]."""
    order = minor.argsort(stable=True)
    order = order[major[order].argsort(stable=True)]
    new = torch.ones(len(order), dtype=torch.bool)
    new[1:] = (major[order[1:]] != major[order[:-1]]) | (minor[order[1:]] != minor[order[:-1]])
    return torch.empty_like(order).index_copy_(0, order, order[new][new.cumsum(0) - 1])
