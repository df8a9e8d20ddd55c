"""The order in which samples are drawn: each row's place comes from its own content and the seed alone.

So a sample depends on neither the order of the rows nor on how many there are, and more data moves few choices.
"""

from __future__ import annotations

import hashlib
import json

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import I8, U8, Flags

START = (0x243F6A8885A308D3, 0x13198A2E03707344)
"""The first binary digits of pi: where the two words of a key start."""
STEP = 0x9E3779B97F4A7C15
"""The increment of splitmix64, 2^64 over the golden ratio."""


def mix(words: U8) -> U8:
    """A one-to-one scrambling of 64-bit words: the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        words: [rows].
    """
    words = (words ^ (words >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return words ^ (words >> numpy.uint64(31))


def salt_words(seed: int, salt: str) -> tuple[numpy.uint64, numpy.uint64]:
    """Two 64-bit words that stand for a seed and what is drawn."""
    digest = hashlib.blake2b(json.dumps([seed, salt]).encode(), digest_size=16).digest()
    return numpy.uint64(int.from_bytes(digest[:8], "little")), numpy.uint64(int.from_bytes(digest[8:], "little"))


def priority(keys: U8, seed: int, salt: str) -> U8:
    """A seeded 64-bit hash of each key; samples take the smallest first.

    Args:
        keys: [rows, 2].
        seed: the user's.
        salt: what is drawn. Each draw has its own: the rows that one draw keeps have small hashes, so a second draw
            by the same hashes would favour what the first one favoured.

    Returns:
        [rows].
    """
    first, second = salt_words(seed, salt)
    return mix(mix(keys[:, 0] ^ first) + (keys[:, 1] ^ second))


def row_keys(*parts: U8 | I8 | NDArray[numpy.int8]) -> U8:
    """A 128-bit key of each row, from what makes the row what it is: its prompt, its completion, its label.

    Args:
        parts: each [rows] or [rows, 2], whole numbers; their order counts.

    Returns:
        [rows, 2].
    """
    low: U8 = numpy.full(len(parts[0]), START[0], dtype=numpy.uint64)
    high: U8 = numpy.full(len(parts[0]), START[1], dtype=numpy.uint64)
    for part in parts:
        for column in (part,) if part.ndim == 1 else (part[:, 0], part[:, 1]):
            word = column.astype(numpy.uint64)
            low = mix(low ^ word)
            high = mix((high + numpy.uint64(STEP)) ^ word)
    return numpy.column_stack((low, high))


def numbered(keys: U8) -> U8:
    """Keys that tell the copies of a row apart: the first copy, the second, and so on ([rows, 2] -> [rows, 2])."""
    return row_keys(keys, occurrence(keys[:, 0], keys[:, 1]))


def places(starts: Flags) -> I8:
    """How far each item is from the start of its run; `starts` [items] is true where a run starts, first item too."""
    positions = numpy.arange(len(starts), dtype=numpy.int64)
    return positions - numpy.maximum.accumulate(numpy.where(starts, positions, 0))


def occurrence(*codes: NDArray) -> I8:
    """How many earlier rows have the same codes.

    Args:
        codes: each [rows], for instance the numbers of prompt, completion and label.

    Returns:
        [rows], 0 for the first of its kind.
    """
    order = numpy.lexsort(codes)
    starts = numpy.ones(len(order), dtype=bool)
    starts[1:] = False
    for code in codes:
        in_order = code[order]
        starts[1:] |= in_order[1:] != in_order[:-1]
    result = numpy.empty(len(order), dtype=numpy.int64)
    result[order] = places(starts)
    return result


def rank_in_groups(groups: I8, priorities: U8) -> I8:
    """Each row's place in its group by priority, from 0; ties by position ([rows], [rows] -> [rows])."""
    order = numpy.lexsort((priorities, groups))
    in_order = groups[order]
    starts = numpy.ones(len(order), dtype=bool)
    starts[1:] = in_order[1:] != in_order[:-1]
    result = numpy.empty(len(order), dtype=numpy.int64)
    result[order] = places(starts)
    return result


def keep_exactly(eligible: Flags, priorities: U8, count: int) -> Flags:
    """The `count` eligible rows of the smallest priority, ties by position; all of them if there are no more.

    Args:
        eligible: [rows].
        priorities: [rows].
        count: 0 or above.
    """
    index = numpy.flatnonzero(eligible)
    if count >= len(index):
        return eligible.copy()
    kept = numpy.zeros(len(eligible), dtype=bool)
    if count == 0:
        return kept
    drawn = priorities[index]
    last = numpy.partition(drawn, count - 1)[count - 1]
    sure = drawn < last
    ties = numpy.flatnonzero(drawn == last)[: count - int(sure.sum())]
    kept[index[sure]] = True
    kept[index[ties]] = True
    return kept
