"""Openings that many conversations share, such as "Hello": they are told apart by their next turns.

The side of a row is decided by its root, the prompt up to its first user turn, so that early and late turns stay in
one split. But a greeting that opens three of four chats would tie these together, and they fit in no validation split.
So an opening with many rows is told apart by the turns after it, if these differ. How many is a fixed number: a log
that grows never falls below it again.
"""

from __future__ import annotations

import numpy

from kto_cli.common.words import plural
from kto_cli.data.columns import I8, U8, Columns, Flags
from kto_cli.data.formats.records import root
from kto_cli.data.pipeline.parsed_row import keys
from kto_cli.data.pipeline.row_spool import Spool, codes
from kto_cli.data.texts import Message

FEWEST_ROWS = 50
"""Rows of an opening that is told apart: half of the validation rows that a verdict needs."""
FEWEST_WAYS = 4
"""Different next turns after the same opening that make it one of several conversations. Chosen and rejected answers
that are both continued make two, and asking again a third."""
DEEPEST = 8
"""User turns of the longest opening."""


def separate_openings(columns: Columns, spool: Spool, share: float) -> tuple[list[str], list[U8]]:
    """Gives conversations that only share their opening roots of their own; groups too, if the source names none.

    Args:
        share: of the rows that the validation split is to have; without one there is nothing to do.

    Returns:
        Notes, and what the root keys were before each change.
    """
    if not len(columns) or not (share or columns.official.any()):
        return [], []
    notes: list[str] = []
    earlier: list[U8] = []
    unnamed = (columns.group_keys == columns.root_keys).all(1)
    for depth in range(2, DEEPEST + 1):
        large = _large_roots(columns)
        if not large.any():
            break
        before = columns.root_keys.copy()
        if found := _separate(columns, spool, large, depth):
            notes += found
            earlier.append(before)
            columns.group_keys[unnamed] = columns.root_keys[unnamed]
            columns.groups = codes(columns.group_keys)
    return notes, earlier


def _large_roots(columns: Columns) -> Flags:
    """[roots] whether a root has many rows, with several prompts."""
    rows = numpy.bincount(columns.roots)
    pairs = numpy.unique(numpy.column_stack((columns.roots, columns.prompts)), axis=0)
    prompts = numpy.bincount(pairs[:, 0], minlength=len(rows))
    return (rows >= FEWEST_ROWS) & (prompts >= FEWEST_WAYS)


def _separate(columns: Columns, spool: Spool, large: Flags, depth: int) -> list[str]:
    """Moves rows of large roots to roots of their first `depth` user turns, where these differ enough."""
    at, deeper, shown = _longer_roots(columns, spool, large, depth)
    roots = columns.roots[at]
    notes = []
    for number in numpy.unique(roots).tolist():
        rows = at[roots == number]
        ways = {deeper[row] for row in rows.tolist()}
        if len(ways) < FEWEST_WAYS:
            continue
        columns.root_keys[rows] = keys([deeper[row] for row in rows.tolist()])
        notes.append(
            f"{plural(len(rows), 'row')} begin alike ({shown[number][:40]!r}): they are told apart by their next "
            f"turns, as {len(ways):,} conversations."
        )
    if notes:
        columns.roots = codes(columns.root_keys)
    return notes


def _longer_roots(
    columns: Columns, spool: Spool, large: Flags, depth: int
) -> tuple[I8, dict[int, str], dict[int, str]]:
    """(rows of large roots, longer root of each, opening of each root)."""
    at: list[int] = []
    deeper: dict[int, str] = {}
    shown: dict[int, str] = {}
    for span, batch in spool.batches():
        here = numpy.flatnonzero(large[columns.roots[span]])
        prompts = batch.column("prompt").take(here).to_pylist() if len(here) else []
        for index, prompt in zip(here.tolist(), prompts, strict=True):
            if isinstance(prompt, str):
                continue
            chat: tuple[Message, ...] = tuple(prompt)
            row = span.start + index
            at.append(row)
            deeper[row] = root(chat, depth)
            shown.setdefault(int(columns.roots[row]), " ".join(root(chat, depth - 1).split()))
    return numpy.array(at, numpy.int64), deeper, shown
