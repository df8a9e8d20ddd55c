"""Which nodes of a graph hang together, for millions of links."""

from __future__ import annotations

import numpy

from kto_cli.feedback.columns import I8


def joined(parents: I8, left: I8, right: I8) -> I8:
    """The smallest member of each node's connected component, by hooking and pointer jumping.

    Every root hooks onto the smallest root it has a link to, then all paths are cut short, until no link joins two
    roots (after Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982): few passes over arrays
    instead of one step of Python for each link.

    Args:
        parents: [nodes] the answer without these links; `numpy.arange(nodes)` where there were none. It is changed.
        left, right: [links] the two ends.

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
