"""Value of a rule for a row: true, false, unknown or not applicable (Kleene's strong three-valued logic, plus faults).

A missing cell (null, NaN, a blank text) makes every comparison but `is null` unknown, and so its negation: a row with a
missing cell matches neither a rule nor its opposite.

A cell of another type than the value makes the comparison not applicable, and the row is rejected, unless the rest of
the rule decides alone: true `or` anything is true, false `and` anything is false, in any order.

    value        cells that can be compared
    number       numbers; texts that are a number ("4", " 4.0"), as CSV has only texts. Not true and false
    true, false  booleans; the texts true and false in any case. Not 1 and 0: these are == 1 and == 0
    text         texts, exactly as they are written, white space and case included; dates by their ISO form
                 (`2026-11-21`, `2026-11-21T09:30:00`)
    contains     texts, in any case; lists: one item is the text, in any case
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from kto_cli.data.formats.labels import WORDS, is_missing
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


def spell_cell(cell: Any) -> str:
    """Cell as text for a message, truncated to 40 characters."""
    if isinstance(cell, (bool, type(None))):
        return {True: "true", False: "false", None: "missing"}[cell]
    text = ascii(cell) if isinstance(cell, str) and not cell.isprintable() else repr(cell)
    return text if len(text) <= 42 else f"{text[:40]}..."


def cell_of(values: Mapping[str, Any], name: str) -> Any:
    """Cell of a name: the column of that name, otherwise the field after the dot of the column before it.

    None if there is no such column or field; NotApplicable if the column before the dot has no fields.
    """
    if name in values:
        return values[name]
    end = name.rfind(".")
    while end > 0:
        inner = values.get(name[:end])
        if isinstance(inner, Mapping):
            return cell_of(inner, name[end + 1 :])
        if not is_missing(inner):
            what = f"{name[:end]} is {spell_cell(inner)}, which has no field {name[end + 1 :]}"
            return NotApplicable(what)
        end = name.rfind(".", 0, end)
    return None


def compiled(node: Node) -> Evaluator:
    """Function from a row's values to the value of the tree."""
    if isinstance(node, Not):
        return opposite(compiled(node.part))
    if isinstance(node, (Every, Some)):
        return joined([compiled(part) for part in node.parts], decides=isinstance(node, Some))
    if isinstance(node, IsNull):
        return missing(node.column)
    if isinstance(node, Order):
        holds, number = ORDERS[node.sign], node.number
        return compared(node.column, number_in_cell, lambda cell: holds(cell, number), number)
    if isinstance(node, Contains):
        text = node.text.casefold()
        return compared(node.column, prose_in_cell, lambda cell: text in cell, node.text)
    return member(node)


def member(node: Member) -> Evaluator:
    """`in` and `==`: one comparison per type of value."""
    kinds: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (str, text_in_cell),
        (bool, boolean_in_cell),
        ((int, float), number_in_cell),
    )
    found: list[Evaluator] = []
    left = list(node.values)
    for kind, read in kinds:
        # booleans before numbers: True is an int in Python
        alike = [value for value in left if isinstance(value, kind)]
        left = [value for value in left if not isinstance(value, kind)]
        if alike:
            found.append(compared(node.column, read, frozenset(alike).__contains__, alike[0]))
    return found[0] if len(found) == 1 else joined(found, decides=True)


def compared(column: str, read: Callable[[Any], Any], holds: Callable[[Any], bool], value: Value) -> Evaluator:
    """Comparison: unknown if the cell is missing, not applicable if `read` gives None, otherwise `holds`."""
    nested = "." in column

    def truth(values: Mapping[str, Any]) -> Truth:
        cell = cell_of(values, column) if nested else values.get(column)
        if is_missing(cell):
            return None
        if isinstance(cell, NotApplicable):
            return cell
        ready = read(cell)
        if ready is None:
            shown = spell_text(value) if isinstance(value, str) else str(value).lower()
            return NotApplicable(f"{column} is {spell_cell(cell)}, which cannot be compared with {shown}")
        return holds(ready)

    return truth


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


def prose_in_cell(cell: Any) -> str | list[Any] | None:
    """Text or list of a cell in lower case, or None."""
    if isinstance(cell, str):
        return cell.casefold()
    if isinstance(cell, (list, tuple)):
        return [item.casefold() if isinstance(item, str) else item for item in cell]
    return None
