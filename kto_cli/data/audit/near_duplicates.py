"""Clusters of nearly equal prompts, from their sketches (`minhash.py`)."""

from __future__ import annotations

import numpy

from kto_cli.data.audit.minhash import ALIKE, BANDS, HASHES, KEY_BITS, NEIGHBOURS, RELATED
from kto_cli.data.columns import I8, U8, Flags

MOST_ROUNDS = 64
KEY_WIDTH = numpy.uint64(KEY_BITS)


def near_duplicates(sketches: U8) -> I8:
    """Clusters of prompts linked by a Jaccard index of at least ALIKE.

    Every prompt of a cluster also has a Jaccard index of at least RELATED with the cluster's first prompt, which bounds
    chains; prompts that fail this form clusters of their own. Each prompt is compared with at most NEIGHBOURS prompts
    per band key, so that keys shared by very many prompts stay cheap.

    Args:
        sketches: [prompts, WIDTH], one of each distinct prompt.

    Returns:
        [prompts] number of the first prompt of each prompt's cluster; its own number if it is alone.
    """
    if not len(sketches):
        return numpy.zeros(0, numpy.int64)
    which, firsts = _distinct(sketches)
    seen = sketches[firsts]
    parents = numpy.arange(len(firsts))
    for band in range(BANDS):
        keys = _keys(seen, band) << KEY_WIDTH | _keys(seen, (band + 1) % BANDS)
        order = numpy.argsort(keys, kind="stable")
        keys = keys[order] >> KEY_WIDTH
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            at = numpy.flatnonzero(keys[step:] == keys[:-step])
            left, right = order[at], order[at + step]
            near = agree(seen, left, right, ALIKE)
            parents = joined(parents, left[near], right[near])
    return firsts[_led(seen, parents)][which]


def agree(sketches: U8, left: I8, right: I8, jaccard: float) -> Flags:
    """[pairs] whether the estimated Jaccard index of sketches `left` and `right` is at least `jaccard`."""
    first, second = sketches[:, 0], sketches[:, 1]
    differing = _ones(first[left] ^ first[right])
    differing += _ones(second[left] ^ second[right])
    return differing <= numpy.uint64(int(HASHES * (1 - jaccard) / 2 + 1e-9))


def _ones(numbers: U8) -> U8:
    """Number of bits set in each number (numpy 2 has bitwise_count)."""
    shift = [numpy.uint64(by) for by in (1, 2, 4, 56)]
    odd, twos, fours, bytes_ = (
        numpy.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)
    )
    numbers = numbers - (numbers >> shift[0] & odd)
    numbers = (numbers & twos) + (numbers >> shift[1] & twos)
    numbers += numbers >> shift[2]
    numbers &= fours
    numbers *= bytes_
    numbers >>= shift[3]
    return numbers


def _distinct(sketches: U8) -> tuple[I8, I8]:
    """(number of each sketch's value; index where each value is first), values numbered in order of occurrence."""
    order = numpy.lexsort(sketches.T)
    opens = numpy.ones(len(order), bool)
    opens[1:] = False
    for column in sketches.T:
        opens[1:] |= column[order[1:]] != column[order[:-1]]
    firsts = order[opens]  # lexsort is stable: the first of its value
    rank = numpy.empty(len(firsts), numpy.int64)
    rank[numpy.argsort(firsts)] = numpy.arange(len(firsts))
    which = numpy.empty(len(order), numpy.int64)
    which[order] = rank[numpy.cumsum(opens) - 1]
    return which, numpy.sort(firsts)


def _keys(sketches: U8, band: int) -> U8:
    shift = numpy.uint64(KEY_BITS * (band % 3))
    return (sketches[:, 2 + band // 3] >> shift) & numpy.uint64((1 << KEY_BITS) - 1)


def _led(sketches: U8, parents: I8) -> I8:
    """Components split until every prompt agrees with the first of its own; after MOST_ROUNDS the rest is alone."""
    leaders = parents.copy()
    waiting = numpy.flatnonzero(leaders != numpy.arange(len(leaders)))
    for _ in range(MOST_ROUNDS):
        fails = ~agree(sketches, waiting, leaders[waiting], RELATED)
        waiting = waiting[fails]
        if not len(waiting):
            return leaders
        lowest = numpy.full(len(leaders), len(leaders))
        numpy.minimum.at(lowest, parents[waiting], waiting)
        leaders[waiting] = lowest[parents[waiting]]
    leaders[waiting] = waiting
    return leaders


def joined(parents: I8, left: I8, right: I8) -> I8:
    """Smallest member of each node's connected component, by hooking and pointer jumping.

    Every root hooks onto the smallest root it is linked to, then all paths are shortened, until no link joins two roots
    (Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982): few array passes instead of a Python
    step per link.

    Args:
        parents: [nodes] result without these links (`numpy.arange(nodes)` at first); changed in place.
        left, right: [links] both ends.

    Returns:
        [nodes].
    """
    left, right = parents[left], parents[right]
    while len(left):
        apart = left != right
        low, high = numpy.minimum(left, right)[apart], numpy.maximum(left, right)[apart]
        numpy.minimum.at(parents, high, low)
        while True:
            above = parents[parents]
            if numpy.array_equal(above, parents):
                break
            parents = above
        left, right = parents[low], parents[high]
    return parents
