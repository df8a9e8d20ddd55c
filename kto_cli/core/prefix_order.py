"""Lexicographic order of sequences: neighbours share the longest prefixes, which a packed batch computes once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kto_cli.core.rows import TokenSequence


class PrefixOrder(NamedTuple):
    """Sequences in lexicographic order of their input tokens, which are all but the last."""

    indices: Sequence[int]
    """[sequences] in this order."""
    lengths: Sequence[int]
    """[sequences] input tokens of each, in this order."""
    common: Sequence[int]
    """[sequences] length of the longest prefix it shares with the one before; 0 for the first."""

    @property
    def tokens(self) -> int:
        """Tokens of one packed batch of all sequences."""
        return sum(self.lengths) - sum(self.common)

    def of(self, chosen: Sequence[int]) -> PrefixOrder:
        """The order of some of the sequences: `chosen` indices, in this order."""
        kept, shared = set(chosen), 0
        found: tuple[list[int], list[int], list[int]] = ([], [], [])
        for index, length, common in zip(*self, strict=True):
            shared = min(shared, common)
            if index in kept:
                for values, value in zip(found, (index, length, shared), strict=True):
                    values.append(value)
                shared = length
        return PrefixOrder(*found)


def prefix_order(sequences: Sequence[TokenSequence]) -> PrefixOrder:
    """The order of sequences in memory, or of stored sequences, which know how to find theirs."""
    stored: PrefixOrder | None = getattr(sequences, "prefix_order", None)
    if stored is not None:
        return stored
    inputs = [prompt + completion[:-1] for prompt, completion in sequences]
    indices = sorted(range(len(inputs)), key=inputs.__getitem__)
    before: tuple[int, ...] = ()
    common = []
    for index in indices:
        common.append(common_prefix(before, inputs[index]))
        before = inputs[index]
    return PrefixOrder(indices, [len(inputs[index]) for index in indices], common)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix of two tuples, by bisection over slices."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def lengths_of(sequences: Sequence[TokenSequence]) -> list[int]:
    """[sequences] tokens of prompt and completion, of sequences in memory or of stored ones, which know theirs."""
    stored: Any = getattr(sequences, "lengths", None)
    return [sequence.length for sequence in sequences] if stored is None else stored.tolist()
