"""Seeded random order for samples: each row's priority depends on its own content and the seed alone.

So a sample does not depend on the order of the rows, and more data changes few choices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import I8, U8, Flags

START = (0x243F6A8885A308D3, 0x13198A2E03707344)
"""Start values of the two words of a key: the first binary digits of pi."""
STEP = 0x9E3779B97F4A7C15
"""Increment of splitmix64: 2^64 over the golden ratio."""


def mix(words: U8) -> U8:
    """Bijective scrambling of 64-bit words: the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        words: [rows].
    """
    words = (words ^ (words >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return words ^ (words >> numpy.uint64(31))


def salt_words(seed: int, salt: str) -> tuple[numpy.uint64, numpy.uint64]:
    """Two 64-bit words from a seed and the name of a draw."""
    digest = hashlib.blake2b(json.dumps([seed, salt]).encode(), digest_size=16).digest()
    return numpy.uint64(int.from_bytes(digest[:8], "little")), numpy.uint64(int.from_bytes(digest[8:], "little"))


def priority(keys: U8, seed: int, salt: str) -> U8:
    """Seeded 64-bit hash of each key; samples take the smallest first.

    Args:
        keys: [rows, 2].
        seed: from the user.
        salt: name of the draw. Each draw has its own: rows kept by one draw have small hashes, so a second draw with
            the same hashes would favour them again.

    Returns:
        [rows].
    """
    first, second = salt_words(seed, salt)
    return mix(mix(keys[:, 0] ^ first) + (keys[:, 1] ^ second))


def row_keys(*parts: U8 | I8 | NDArray[numpy.int8]) -> U8:
    """128-bit key of each row, from its content: prompt, completion, label.

    Args:
        parts: each [rows] or [rows, 2], integers; their order matters.

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
    """Keys that differ for the first, second, ... copy of a row ([rows, 2] -> [rows, 2])."""
    return row_keys(keys, occurrence(keys[:, 0], keys[:, 1]))


def positions_in_runs(starts: Flags) -> I8:
    """Distance of each item from the start of its run; `starts` [items] is true at the first item of each run."""
    positions = numpy.arange(len(starts), dtype=numpy.int64)
    return positions - numpy.maximum.accumulate(numpy.where(starts, positions, 0))


def occurrence(*codes: NDArray) -> I8:
    """Number of earlier rows with the same codes.

    Args:
        codes: each [rows], for instance the numbers of prompt, completion and label.

    Returns:
        [rows].
    """
    return _ranks(numpy.lexsort(codes), codes)


def rank_in_groups(groups: I8, priorities: U8) -> I8:
    """Rank of each row in its group by priority, from 0; ties by position ([rows], [rows] -> [rows])."""
    return _ranks(numpy.lexsort((priorities, groups)), (groups,))


def _ranks(order: I8, codes: Sequence[NDArray]) -> I8:
    """Position of each row among those with the same codes, in an order that puts these next to each other."""
    starts = numpy.ones(len(order), dtype=bool)
    starts[1:] = False
    for code in codes:
        in_order = code[order]
        starts[1:] |= in_order[1:] != in_order[:-1]
    result = numpy.empty(len(order), dtype=numpy.int64)
    result[order] = positions_in_runs(starts)
    return result


def keep_exactly(eligible: Flags, priorities: U8, count: int) -> Flags:
    """The `count` eligible rows with the smallest priorities, ties by position; all of them if there are fewer.

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
