"""Cells by their names: a column, or a part of one at a path such as `scores[name="thumbs"].value`.

`feedback.thumbs` is a field, `votes[0]` an item (`votes[-1]` the last), `scores[name="thumbs"]` the one item with that
field, of a column or of the JSON text in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kto_cli.common.words import printable
from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.formats.labels import is_missing, spell_cell

CHOICE = r"""\[(?P<field>\w+)==?(?P<quote>["'])(?P<text>(?:(?!(?P=quote)).)*)(?P=quote)\]"""
PART = re.compile(rf"\.|\[-?[0-9]+\]|{CHOICE}")
ITEM = re.compile(r"\[(-?[0-9]{1,9})\]|\.([0-9]{1,9})(?=[.\[]|$)")
"""An item of a list: `[0]`, or `.0` as jq and JavaScript users write it."""
CHOSEN = re.compile(CHOICE)
"""The item of a list whose field is a text: `[name="thumbs"]`."""
MOST_NAMED = 8
"""Fields or items that a message names."""


@dataclass(frozen=True)
class NotApplicable:
    """A cell that cannot be compared with the value."""

    detail: str
    """Names the column and the value."""


def cell_of(values: Mapping[str, Any], name: str) -> Any:
    """Cell of a name: the column of that name, otherwise the part after a dot or bracket of the column before it.

    None if there is no such column, field or item; NotApplicable if the column has no parts of this kind.
    """
    if name in values:
        return values[name]
    for end in reversed(starts_of_parts(name)):
        if not is_missing(inner := values.get(name[:end])):
            return part_of(inner, name[:end], name[end:])
    return None


def starts_of_parts(name: str) -> list[int]:
    """Positions in a name at which the path within a column may start."""
    return [part.start() for part in PART.finditer(name) if part.start()]


def part_of(cell: Any, shown: str, path: str) -> Any:
    """Part of a cell at a path such as `.message.content` or `[0].text`; `shown` is the name of the cell."""
    whole = structure_of(cell) if isinstance(cell, str) else cell
    item = ITEM.match(path)
    if isinstance(whole, Mapping) and path[0] == ".":
        return cell_of(whole, path[1:])
    if isinstance(whole, (list, tuple)) and item:
        index, rest = int(item[1] or item[2]), path[item.end() :]
        inner = whole[index] if -len(whole) <= index < len(whole) else None
        return inner if not rest or is_missing(inner) else part_of(inner, shown + item[0], rest)
    if isinstance(whole, (list, tuple)) and (chosen := CHOSEN.match(path)):
        found = [
            each for each in whole if isinstance(each, Mapping) and str(each.get(chosen["field"])) == chosen["text"]
        ]
        if len(found) > 1:
            return NotApplicable(f"{shown} has {len(found)} items with {chosen.group()[1:-1]}")
        rest = path[chosen.end() :]
        return part_of(found[0], shown + chosen.group(), rest) if found and rest else found[0] if found else None
    if isinstance(whole, (list, tuple)):
        return NotApplicable(f"{shown} is a list; name an item of it, as in {shown}[0]{path}")
    kind = f"item {path}" if path[0] == "[" else f"field {path[1:]}"
    return NotApplicable(f"{shown} is {spell_cell(cell)}, which has no {kind}")


def dead_end(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """What stands where a path leads to nothing in all of some rows; None if it leads to a cell or a fault in one."""
    ends = [*starts_of_parts(name), len(name)]
    if not rows or any(not is_missing(cell_of(row, name)) for row in rows):
        return None
    for start, end in reversed([*pairwise(ends)]):
        wholes = [cell for row in rows if not is_missing(cell := cell_of(row, name[:start]))]
        if wholes:
            return _there(wholes, name[:start], name[start:end])
    return None


def _there(cells: Sequence[Any], shown: str, part: str) -> str:
    """Items or fields that cells have instead of a part."""
    wholes = [structure_of(cell) if isinstance(cell, str) else cell for cell in cells]
    items = [item for whole in wholes if isinstance(whole, (list, tuple)) for item in whole]
    fields = dict.fromkeys(str(key) for each in (*items, *wholes) if isinstance(each, Mapping) for key in each)
    if chosen := CHOSEN.match(part):
        field = chosen["field"]
        values = dict.fromkeys(str(item[field]) for item in items if isinstance(item, Mapping) and field in item)
        if values:
            return f"no item of {shown} has the {field} {spell_cell(chosen['text'])}, they have {_first(values)}"
        return f"the items of {shown} have no {field}, they have the fields {_first(fields)}"
    if ITEM.match(part) and items:
        return f"{shown} has {max(len(whole) for whole in wholes if isinstance(whole, (list, tuple)))} items at most"
    if part[1:] in fields:
        return f"{shown} has that field, without a value"
    return f"{shown} has the fields {_first(fields)}"


def _first(names: Mapping[str, None]) -> str:
    shown = [printable(name)[:40] for name in [*names][:MOST_NAMED]]
    return ", ".join(shown) + (", ..." if len(names) > MOST_NAMED else "") if shown else "none"
