"""Damage that exporters do to all answers of a source, seen by many rows together: cut at one length, lines lost."""

from __future__ import annotations

import numpy

from kto_cli.common.words import plural
from kto_cli.data.audit.exporter_damage import FLAT_LIST, LINES, LONG, TRAILS, UNENDED
from kto_cli.data.audit.findings import NO_ROWS, Finding
from kto_cli.data.columns import I8, Columns, Flags

SHORTEST_LIMIT = 80
"""Characters; lengths below this repeat by themselves."""
LEAST_CUT = 5
"""Different answers of the greatest length, or of those near it that end in an ellipsis."""
LEAST_ALL_TRAIL = 3
"""The same if each of them ends in an ellipsis, at exactly one length."""
MOST_EXPECTED = 0.1
"""Answers per length just below the greatest one, as a share of those of the greatest length."""
LEAST_UNENDED = 0.6
"""Share of cut answers that end within a sentence: a limit falls anywhere."""
LEAST_SHORTER = 0.05
"""Shorter answers for each of the greatest length; answers that are all of one length were not cut."""
WITHIN = 0.9
"""Answers cut at a word are at least this share of the greatest length,"""
LEAST_MARKED, MOST_MARKED_BELOW = 0.6, 0.1
"""of which at least so many end in an ellipsis, and of the shorter ones at most so many."""
MOST_LINES = 0.02
"""Share of long answers with newlines in a source that lost its newlines."""
LEAST_FLAT = 5


def cut_answers(columns: Columns, at: I8) -> Finding:
    """Rows whose answer the exporter cut: see `cut_rows`."""
    rows, limits = cut_rows(columns, at)
    told = ", ".join(f"{limit:,}" for limit in limits)
    return Finding(
        "cut_answers",
        f"{len(rows):,} of {plural(len(at), 'row')} have an answer that was cut off, at {told} characters",
        "export the whole answers",
        True,
        rows,
        "the answer was cut off: many of its source end in mid-sentence at this length, and none is longer",
        facts={"limits": limits},
        fix="cut-answers",
    )


def cut_rows(columns: Columns, at: I8) -> tuple[I8, list[int]]:
    """(rows with a cut answer, the length limits), source by source; what is cut once is looked at again without it."""
    rows, limits = [NO_ROWS], []
    for source in numpy.unique(columns.sources[at]).tolist():
        left = at[columns.sources[at] == source]
        while len(cut := _at_limit(columns, left)):
            rows.append(cut)
            limits.append(int(columns.completion_chars[cut].max()))
            left = left[~numpy.isin(left, cut)]
    return numpy.sort(numpy.concatenate(rows)), limits


def _at_limit(columns: Columns, at: I8) -> I8:
    """Rows of one source that reach a limit of its answers' length."""
    lengths, shapes = columns.completion_chars[at], columns.shapes[at]
    top = int(lengths.max(initial=0))
    if top < SHORTEST_LIMIT:
        return NO_ROWS
    trails = shapes & TRAILS != 0

    def texts(rows: Flags) -> int:
        return len(numpy.unique(columns.completions[at[rows]]))

    near = lengths >= WITHIN * top
    is_marked = texts(near & trails) >= LEAST_CUT and trails[near].mean() >= LEAST_MARKED
    if is_marked and not near.all() and trails[~near].mean() <= MOST_MARKED_BELOW:
        return at[near & trails]
    reach = lengths == top
    expected = ((lengths >= 0.8 * top) & ~reach).sum() / (0.2 * top)
    least = LEAST_ALL_TRAIL if trails[reach].all() else LEAST_CUT
    is_one_length = (~reach).sum() < max(LEAST_CUT, LEAST_SHORTER * reach.sum())
    if is_one_length or texts(reach) < least or expected > MOST_EXPECTED * texts(reach):
        return NO_ROWS
    unended = trails | (shapes & UNENDED != 0)
    return at[reach] if unended[reach].mean() >= LEAST_UNENDED else NO_ROWS


def lost_newlines(columns: Columns, at: I8) -> Finding:
    """Rows with a list or code in one line, of sources in which long answers never have a newline."""
    found = [NO_ROWS]
    for source in numpy.unique(columns.sources[at]).tolist():
        rows = at[columns.sources[at] == source]
        rows = rows[columns.completion_chars[rows] >= LONG]
        flat = rows[columns.shapes[rows] & FLAT_LIST != 0]
        lines = (columns.shapes[rows] & LINES != 0).sum()
        if len(numpy.unique(columns.completions[flat])) >= LEAST_FLAT and lines <= MOST_LINES * len(rows):
            found.append(flat)
    return Finding(
        "lost_newlines",
        f"in {sum(map(len, found)):,} of {plural(len(at), 'row')} a list or code is in one line, and long answers of "
        "their source never have a newline",
        "export again with newlines: a model learns to write without them",
        True,
        numpy.concatenate(found),
        "a list or code in one line, in a source that lost its newlines",
    )
