"""Value of a rule for a row: true, false, unknown or not applicable (Kleene's strong three-valued logic, plus faults).

A missing cell (`is_missing`: null, NaN, a blank text, N/A and its like) makes every comparison but `is null` unknown,
and so its negation: a row with a missing cell matches neither a rule nor its opposite. A placeholder such as N/A is a
value only for a rule that names it.

A cell of another type than the value makes the comparison not applicable, and the row is rejected, unless the rest of
the rule decides alone: true `or` anything is true, false `and` anything is false, in any order.

    value        cells that can be compared
    number       numbers; texts that are a number ("4", " 4.0"), as CSV has only texts. Not true and false
    true, false  booleans; the texts true and false in any case. Not 1 and 0: these are == 1 and == 0
    text         texts. One that differs from the value in case, width, or white space and punctuation at its ends
                 (`fold`) is equal, unless a rule names that very spelling; dates by their ISO form (`2026-11-21`)
    contains     texts, in any case; lists: one item is the text, in any case

`feedback.thumbs` is a field, `votes[0]` an item (`votes[-1]` the last), `scores[name="thumbs"]` the one item with that
field, of a column or of the JSON text in it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.formats.labels import WORDS, fold, is_blank, is_missing, spell_cell, way_in
from kto_cli.data.log.rule_ast import Contains, Every, IsNull, Member, Node, Not, Order, Some, Value, spell_text
from kto_cli.data.log.rule_lexer import read_number


@dataclass(frozen=True)
class NotApplicable:
    """A cell that cannot be compared with the value."""

    detail: str
    """Names the column and the value."""


Truth = bool | None | NotApplicable
"""None: unknown."""
Evaluator = Callable[[Mapping[str, Any]], Truth]
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CHOICE = r"""\[(?P<field>\w+)==?(?P<quote>["'])(?P<text>(?:(?!(?P=quote)).)*)(?P=quote)\]"""
PART = re.compile(rf"\.|\[-?[0-9]+\]|{CHOICE}")
ITEM = re.compile(r"\[(-?[0-9]{1,9})\]|\.([0-9]{1,9})(?=[.\[]|$)")
"""An item of a list: `[0]`, or `.0` as jq and JavaScript users write it."""
CHOSEN = re.compile(CHOICE)
"""The item of a list whose field is a text: `[name="thumbs"]`."""
Reading = tuple[Callable[[Any], Any], Callable[[Any], bool]]
"""(cell as the type of a value, or None; whether that holds)"""
Named = Mapping[str, frozenset[str]]
"""Texts that the rules name, by column."""


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


def compiled(node: Node, named: Named) -> Evaluator:
    """Function from a row's values to the value of the tree."""
    if isinstance(node, Not):
        return opposite(compiled(node.part, named))
    if isinstance(node, (Every, Some)):
        return joined([compiled(part, named) for part in node.parts], decides=isinstance(node, Some))
    if isinstance(node, IsNull):
        return missing(node.column)
    if isinstance(node, Order):
        holds, number = ORDERS[node.sign], node.number
        return compared(node.column, ((number_in_cell, lambda cell: holds(cell, number)),), (number,))
    if isinstance(node, Contains):
        text, item = node.text.casefold(), fold(node.text)
        readings = ((prose_in_cell, lambda cell: text in cell), (items_in_cell, lambda cell: item in cell))
        return compared(node.column, readings, (node.text,))
    return member(node, named.get(node.column, frozenset()))


def member(node: Member, named: frozenset[str]) -> Evaluator:
    """`in` and `==`: one reading per type of value. A text equals one that folds alike, if no rule names it itself."""
    texts = frozenset(value for value in node.values if isinstance(value, str))
    booleans = frozenset(value for value in node.values if isinstance(value, bool))
    numbers = frozenset(value for value in node.values if not isinstance(value, (str, bool)))
    folded = frozenset(map(fold, texts))

    def is_text(cell: str) -> bool:
        return cell in texts or (fold(cell) in folded and cell not in named)

    kinds: tuple[tuple[frozenset[Any], Reading], ...] = (
        (texts, (text_in_cell, is_text)),
        (booleans, (boolean_in_cell, booleans.__contains__)),
        (numbers, (number_in_cell, numbers.__contains__)),
    )
    return compared(node.column, [reading for values, reading in kinds if values], node.values)


def compared(column: str, readings: Sequence[Reading], values: Sequence[Value]) -> Evaluator:
    """Comparison: unknown if the cell is missing, not applicable if no reading fits it, otherwise whether one holds."""
    nested = PART.search(column) is not None
    names_placeholder = any(isinstance(value, str) and is_missing(value) for value in values)

    def truth(row: Mapping[str, Any]) -> Truth:
        cell = cell_of(row, column) if nested else row.get(column)
        if isinstance(cell, NotApplicable):
            return cell
        empty = is_missing(cell)
        if empty and (is_blank(cell) or not names_placeholder):
            return None
        fits = False
        for read, holds in readings:
            if (ready := read(cell)) is not None:
                if holds(ready):
                    return True
                fits = True
        if empty:
            return None
        return False if fits else not_applicable(column, cell, values[0])

    return truth


def not_applicable(column: str, cell: Any, value: Value) -> NotApplicable:
    """Fault of a cell that cannot be compared with a value."""
    shown = spell_text(value) if isinstance(value, str) else str(value).lower()
    return NotApplicable(f"{column} is {spell_cell(cell)}, which cannot be compared with {shown}{way_in(cell, column)}")


def missing(column: str) -> Evaluator:
    """`is null`; never unknown."""

    def truth(values: Mapping[str, Any]) -> Truth:
        cell = cell_of(values, column)
        return cell if isinstance(cell, NotApplicable) else is_missing(cell)

    return truth


def opposite(part: Evaluator) -> Evaluator:
    """`not`."""

    def truth(values: Mapping[str, Any]) -> Truth:
        found = part(values)
        return not found if isinstance(found, bool) else found

    return truth


def joined(parts: list[Evaluator], *, decides: bool) -> Evaluator:
    """`or` (decided by true) or `and` (decided by false); otherwise not applicable takes precedence over unknown."""

    def truth(values: Mapping[str, Any]) -> Truth:
        result: Truth = not decides
        for part in parts:
            found = part(values)
            if found is decides:
                return decides
            if not isinstance(found, bool) and not isinstance(result, NotApplicable):
                result = found
        return result

    return truth


def number_in_cell(cell: Any) -> int | float | None:
    """Finite number of a cell, or None."""
    if isinstance(cell, (str, Decimal)):
        # a decimal by its digits: Decimal("0.1") does not equal the float 0.1
        return read_number(str(cell))
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return None
    return cell if isinstance(cell, int) or math.isfinite(cell) else None


def boolean_in_cell(cell: Any) -> bool | None:
    """Boolean of a cell, or None."""
    if isinstance(cell, str):
        return WORDS.get(cell.strip().casefold())
    return cell if isinstance(cell, bool) else None


def text_in_cell(cell: Any) -> str | None:
    """Text of a cell, or None."""
    if isinstance(cell, date):
        return cell.isoformat()
    return cell if isinstance(cell, str) else None


def prose_in_cell(cell: Any) -> str | None:
    """Text of a cell in lower case, or None; the text of a list is that list (`items_in_cell`)."""
    return cell.casefold() if isinstance(cell, str) and not isinstance(structure_of(cell), list) else None


def items_in_cell(cell: Any) -> list[str] | None:
    """Folded items of a list of texts, numbers and booleans, or of its JSON; None for anything else."""
    items = structure_of(cell) if isinstance(cell, str) else cell
    if not isinstance(items, (list, tuple)) or any(isinstance(item, (list, tuple, dict)) for item in items):
        return None
    return [fold(str(item)) for item in items if item is not None]
