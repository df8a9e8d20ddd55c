"""Openings that many conversations share, such as "Hello": they are told apart by their next turns.

A conversation is known by its first user turn (`records.root`), so that its early and late turns stay in one split. But
a greeting that opens three of four chats would tie these together, and they fit in no validation split. So an opening
with more rows than the whole validation split is told apart by the turns after it, if these differ.
"""

from __future__ import annotations

import numpy

from kto_cli.common.words import plural
from kto_cli.data.columns import I8, Columns, Flags
from kto_cli.data.formats.records import root
from kto_cli.data.pipeline.parsed_row import keys
from kto_cli.data.pipeline.row_spool import Spool, codes
from kto_cli.data.texts import Message

FEWEST_ROWS = 12
"""Rows of the smallest conversation that is looked at."""
FEWEST_WAYS = 4
"""Different next turns after the same opening that make it one of several conversations. Chosen and rejected answers
that are both continued make two, and asking again a third."""
OFFICIAL_SHARE = 0.05
"""Share that counts as large where a source has its own split and no other is asked for."""
DEEPEST = 8
"""User turns of the longest opening."""


def separate_openings(columns: Columns, spool: Spool, share: float) -> list[str]:
    """Gives conversations that only share their opening groups of their own; returns notes.

    Args:
        share: of the rows that the validation split is to have.
    """
    if not len(columns) or not (share or columns.official.any()):
        return []
    notes = []
    for depth in range(2, DEEPEST + 1):
        large = _large_groups(columns, share or OFFICIAL_SHARE)
        if not large.any():
            break
        notes += _separate(columns, spool, large, depth)
    return notes


def _large_groups(columns: Columns, share: float) -> Flags:
    """[groups] whether a group has more rows than the validation split, with several prompts."""
    rows = numpy.bincount(columns.groups)
    pairs = numpy.unique(numpy.column_stack((columns.groups, columns.prompts)), axis=0)
    prompts = numpy.bincount(pairs[:, 0], minlength=len(rows))
    return (rows >= max(share * len(columns), FEWEST_ROWS)) & (prompts >= FEWEST_WAYS)


def _separate(columns: Columns, spool: Spool, large: Flags, depth: int) -> list[str]:
    """Moves rows of large groups to groups by their first `depth` user turns, where these differ enough."""
    at, deeper, shown = _longer_roots(columns, spool, large, depth)
    groups = columns.groups[at]
    notes = []
    for group in numpy.unique(groups).tolist():
        rows = at[groups == group]
        ways = {deeper[row] for row in rows.tolist()}
        if len(ways) < FEWEST_WAYS:
            continue
        columns.group_keys[rows] = keys([deeper[row] for row in rows.tolist()])
        notes.append(
            f"{plural(len(rows), 'row')} begin alike ({shown[group][:40]!r}): they are told apart by their next "
            f"turns, as {len(ways):,} conversations."
        )
    if notes:
        columns.groups = codes(columns.group_keys)
    return notes


def _longer_roots(
    columns: Columns, spool: Spool, large: Flags, depth: int
) -> tuple[I8, dict[int, str], dict[int, str]]:
    """(rows of large groups that are named by their root, longer root of each, opening of each group)."""
    at: list[int] = []
    deeper: dict[int, str] = {}
    shown: dict[int, str] = {}
    for span, batch in spool.batches():
        here = numpy.flatnonzero(large[columns.groups[span]])
        prompts = batch.column("prompt").take(here).to_pylist() if len(here) else []
        for index, prompt in zip(here.tolist(), prompts, strict=True):
            if isinstance(prompt, str):
                continue
            chat: tuple[Message, ...] = tuple(prompt)
            row = span.start + index
            roots = [root(chat, turns) for turns in range(1, depth + 1)]
            if (keys(roots[:-1]) == columns.group_keys[row]).all(1).any():  # else the source names its conversations
                at.append(row)
                deeper[row] = roots[-1]
                shown.setdefault(int(columns.groups[row]), " ".join(roots[-2].split()))
    return numpy.array(at, numpy.int64), deeper, shown
