"""Lexicographic order of stored texts, without their tokens in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

CHUNK = 1 << 16
"""Tokens that are compared at a time, of all texts together: about 30 bytes each."""


def lexicographic_order(
    files: Sequence[NDArray[numpy.uint32]],
    file: NDArray[Any],
    starts: Sequence[NDArray[Any]],
    lengths: Sequence[NDArray[Any]],
) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    """Sorts texts by their first tokens, then those that are equal so far by the next ones, and so on.

    Args:
        files: token ids. file: [texts] the index in `files` of each text's.
        starts, lengths: of each part of the texts, [texts]: where in its file it begins and how many tokens it has. A
            text is its parts, one after the other.

    Returns:
        [texts] the order, and [texts] the length of the longest prefix that a text shares with the one before it there.
    """
    count = len(file)
    order, common = numpy.arange(count), numpy.zeros(count, "i8")
    equal = numpy.ones(count, bool)  # so far, to the text before
    equal[:1] = False
    depth, longest = 0, int(numpy.sum(lengths, axis=0).max(initial=0))
    while equal.any():
        places = numpy.flatnonzero(equal | numpy.append(equal[1:], False))
        # one behind the longest text's end at most, where a text that is equal so far shows that it ends
        width = min(max(8, min(CHUNK // len(places), 4096)), max(1, longest + 1 - depth))
        chunk = _tokens_at(files, file, starts, lengths, order[places], depth, width)
        begins = ~equal[places]
        group = numpy.cumsum(begins) - 1
        differs = (chunk != chunk[numpy.flatnonzero(begins)[group]]).any(1)
        unsorted = numpy.isin(group, group[differs])
        by = numpy.flatnonzero(unsorted)[_sorted(group[unsorted], chunk[unsorted])]
        chunk[unsorted] = chunk[by]
        order[places[unsorted]] = order[places[by]]
        follows = numpy.flatnonzero(~begins)
        different = chunk[follows] != chunk[follows - 1]
        parted = different.any(1)
        ended = ~parted & (chunk[follows, -1] == 0)
        whole = sum(length[order[places[follows]]] for length in lengths)
        shared = numpy.where(parted, depth + different.argmax(1), whole)
        decided = parted | ended
        common[places[follows[decided]]] = shared[decided]
        equal[places[follows[decided]]] = False
        depth += width
    return order, common


def _tokens_at(
    files: Sequence[NDArray[numpy.uint32]],
    file: NDArray[Any],
    starts: Sequence[NDArray[Any]],
    lengths: Sequence[NDArray[Any]],
    texts: NDArray[Any],
    depth: int,
    width: int,
) -> NDArray[numpy.uint32]:
    """[texts, width] token ids from `depth` on, plus 1; 0 behind the end."""
    found = numpy.zeros((len(texts), width), "u4")
    at = numpy.broadcast_to(depth + numpy.arange(width), found.shape)
    for start, length in zip(starts, lengths, strict=True):
        its = length[texts, None].astype("i8")
        inside = (at >= 0) & (at < its)
        places = start[texts, None].astype("i8") + at
        for number, tokens in enumerate(files):
            its_own = inside & (file[texts] == number)[:, None]
            found[its_own] = tokens[places[its_own]] + 1
        at = at - its
    return found


def _sorted(group: NDArray[Any], chunk: NDArray[numpy.uint32]) -> NDArray[numpy.int64]:
    """[texts] their order by group, then by chunk: one string of bytes each, the high bytes first."""
    keys = numpy.empty((len(group), chunk.shape[1] + 1), ">u4")
    keys[:, 0], keys[:, 1:] = group, chunk
    return keys.view(f"S{keys.itemsize * keys.shape[1]}")[:, 0].argsort(kind="stable")
