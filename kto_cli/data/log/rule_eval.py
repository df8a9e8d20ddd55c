"""Value of a rule for a row: true, false, unknown or not applicable (Kleene's strong three-valued logic, plus faults).

A missing cell (`is_missing`: null, NaN, a blank text, N/A and its like) makes every comparison but `is null` unknown,
and so its negation: a row with a missing cell matches neither a rule nor its opposite. A placeholder such as N/A is a
value only for a rule that names it.

A cell of another type than the value makes the comparison not applicable, and the row is rejected, unless the rest of
the rule decides alone: true `or` anything is true, false `and` anything is false, in any order. If the two rules
compare the column with values of several types, as in `label in ("yes", 1)`, a cell of any of these types can be
compared, and is not equal to a value of another one; with < and > it can be compared if a rule names it
(`label == "good" or label >= 4`).

    value        cells that can be compared
    number       numbers; texts that are a number ("4", " 4.0"), as CSV has only texts. Not true and false
    true, false  booleans; the texts true and false in any case. Not 1 and 0: these are == 1 and == 0
    text         texts. One that differs from the value in case, width, or white space and punctuation at its ends
                 (`fold`) is equal, unless a rule names that very spelling; dates by their ISO form (`2026-11-21`)
    contains     texts, in any case; lists: one item is the text, in any case
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.formats.labels import WORDS, fold, is_blank, is_missing, spell_cell, way_in
from kto_cli.data.log.cell_path import PART, NotApplicable, cell_of
from kto_cli.data.log.rule_ast import (
    Comparison,
    Contains,
    Every,
    IsNull,
    Member,
    Node,
    Not,
    Order,
    Some,
    Value,
    comparisons,
    spell_text,
)
from kto_cli.data.log.rule_lexer import read_number

Truth = bool | None | NotApplicable
"""None: unknown."""
Evaluator = Callable[[Mapping[str, Any]], Truth]
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Reading = tuple[Callable[[Any], Any], Callable[[Any], bool]]
"""(cell as the type of a value, or None; whether that holds)"""


@dataclass(frozen=True)
class Compared:
    """What two rules compare a column with."""

    texts: frozenset[str]
    values: tuple[Reading, ...]
    """Readings of all values of == and in."""
    has_order: bool
    """Whether a rule has < or > for it."""

    def has(self, cell: Any) -> bool:
        """Whether a rule names the value of a cell."""
        return any(holds(ready) for read, holds in self.values if (ready := read(cell)) is not None)

    def has_type(self, cell: Any) -> bool:
        """Whether a rule has a value of the type of a cell."""
        is_number = self.has_order and number_in_cell(cell) is not None
        return is_number or any(read(cell) is not None for read, _ in self.values)


Columns = Mapping[str, Compared]
"""By the column's name."""


def compiled(node: Node, columns: Columns) -> Evaluator:
    """Function from a row's values to the value of the tree."""
    if isinstance(node, Not):
        return opposite(compiled(node.part, columns))
    if isinstance(node, (Every, Some)):
        return joined([compiled(part, columns) for part in node.parts], decides=isinstance(node, Some))
    if isinstance(node, IsNull):
        return missing(node.column)
    rules = columns[node.column]
    if isinstance(node, Order):
        holds, number = ORDERS[node.sign], node.number
        return compared(node.column, ((number_in_cell, lambda cell: holds(cell, number)),), (number,), rules.has)
    if isinstance(node, Contains):
        text, item = node.text.casefold(), fold(node.text)
        readings = ((prose_in_cell, lambda cell: text in cell), (items_in_cell, lambda cell: item in cell))
        return compared(node.column, readings, (node.text,), lambda cell: False)
    return compared(node.column, readings_of(node.values, rules.texts), node.values, rules.has_type)


def by_column(trees: Sequence[Node]) -> Columns:
    """What rules compare their columns with."""
    found: dict[str, list[Comparison]] = {}
    for each in (each for tree in trees for each in comparisons(tree)):
        found.setdefault(each.column, []).append(each)
    return {column: _compared(nodes) for column, nodes in found.items()}


def _compared(nodes: Sequence[Comparison]) -> Compared:
    values = [value for node in nodes if isinstance(node, Member) for value in node.values]
    texts = frozenset(value for value in values if isinstance(value, str))
    return Compared(texts, readings_of(values, texts), any(isinstance(node, Order) for node in nodes))


def readings_of(values: Sequence[Value], named: frozenset[str]) -> tuple[Reading, ...]:
    """`in` and `==`: one reading per type of value. A text equals one that folds alike, if no rule names it itself."""
    texts = frozenset(value for value in values if isinstance(value, str))
    booleans = frozenset(value for value in values if isinstance(value, bool))
    numbers = frozenset(value for value in values if not isinstance(value, (str, bool)))
    folded = frozenset(map(fold, texts))

    def is_text(cell: str) -> bool:
        return cell in texts or (fold(cell) in folded and cell not in named)

    kinds: tuple[tuple[frozenset[Any], Reading], ...] = (
        (texts, (text_in_cell, is_text)),
        (booleans, (boolean_in_cell, booleans.__contains__)),
        (numbers, (number_in_cell, numbers.__contains__)),
    )
    return tuple(reading for values_of_kind, reading in kinds if values_of_kind)


def compared(
    column: str, readings: Sequence[Reading], values: Sequence[Value], is_of_rules: Callable[[Any], bool]
) -> Evaluator:
    """Comparison: unknown if the cell is missing, not applicable if no reading fits it, otherwise whether one holds.

    Args:
        is_of_rules: whether the rules have another comparison for a cell that no reading fits.
    """
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
        return False if fits or is_of_rules(cell) else not_applicable(column, cell, values[0])

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
