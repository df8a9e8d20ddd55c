"""Labels of rows: the one place where the value of a cell becomes a label, for all tables and logs.

Accepted, ignoring white space around texts:

    true false              JSON and Parquet booleans
    "true" "false"          texts, in any case (CSV has only texts)
    1 0 1.0 0.0 "1" "0"     only if the column has no other number: in a column of stars from 1 to 5 a 1 is the
                            worst rating, so every number of that column is rejected

Rejected:

    label_missing           an empty cell (`is_missing`), no such field
    label_not_binary        a number, where the column has numbers other than 1 and 0
    label_not_accepted      anything else: "yes", "thumbs_up", a list

Every value is counted with its outcome (counts.py); `pipeline/label_values.py` shows the counts.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.formats.counts import count_label
from kto_cli.data.formats.records import RowFault

MINUS = "\u2212"
"""Minus of typography; spreadsheets and documents write it for `-`."""
NUMBER = re.compile(r"[+\-\u2212]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
WORDS = {"true": True, "false": False}
DESIRABLE, UNDESIRABLE, BY_NUMBER = "desirable", "undesirable", "number"
"""Outcomes of a cell, besides the reasons why a row has no label."""
PLACEHOLDERS = frozenset(
    [
        *("nan", "-nan", "none", "null", "nil", "na", "n/a", "n.a.", "nat", "undefined", "\\n"),
        *("-", "--", "---", "–", "—", "#n/a", "#na", "<na>", "<null>", "<none>", "<nan>", "(null)"),
        *("[null]", "(none)", "(empty)", "(blank)", "[]", "{}", "''", '""', "not available"),
        *("not applicable",),
    ]
)
"""Texts that databases, spreadsheets and data frames write for an empty cell, in lower case (\\N is MySQL's)."""
EDGES = " \t\r\n.,;:!?\"'`´‘’“”„«»()"
"""Characters at the ends of a value that do not make it another one."""
INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400)])
"""Zero-width characters, variation selectors and skin tones of emoji."""
LONGEST_VALUE = 64
"""Characters; a longer text is prose, not a value."""


def is_blank(value: Any) -> bool:
    """Whether a cell has no value: null, NaN (null in a table's column of numbers) or a blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, (float, Decimal)) and value != value)


def is_missing(value: Any) -> bool:
    """Whether a cell of a label, a score or a rule is empty: blank, an empty list, or one of PLACEHOLDERS.

    Not for prompts and answers: None is an answer to `Any allergies?`.
    """
    if isinstance(value, str) and len(value) <= LONGEST_VALUE:
        value = value.strip().casefold()
        return not value or value in PLACEHOLDERS
    return is_blank(value) or (isinstance(value, (list, tuple, dict)) and not value)


def fold(text: str) -> str:
    """A value without what does not make it another one: case, width, white space and punctuation at its ends.

    Numbers by their value: `1.0` and `1` are the same.
    """
    return _fold(text) if len(text) <= LONGEST_VALUE else text


@lru_cache(maxsize=4096)
def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold().translate(INVISIBLE)
    folded = " ".join(folded.split()).strip(EDGES) or text
    return f"{number_of(folded):.17g}" if NUMBER.fullmatch(folded) else folded


def number_of(text: str) -> float:
    """Number of a text that NUMBER matches."""
    return float(text.replace(MINUS, "-"))


def as_number(value: Any) -> int | float | None:
    """Number of a label, from a number or a text; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        return number_of(text) if NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or is_missing(value):
        return None
    return float(value) if isinstance(value, Decimal) else value


def finite(number: float | None) -> float | None:
    """A number as a finite float; None if it is not one."""
    try:
        return None if number is None or not math.isfinite(number) else float(number)
    except OverflowError:
        return None


def label_value(value: Any, column: str = "label") -> bool | float:
    """Label of a cell: true or false, or its number, whose meaning depends on the whole column.

    Raises:
        RowFault: `label_missing` or `label_not_accepted`.
    """
    if isinstance(value, bool):
        count_label(column, "true" if value else "false", DESIRABLE if value else UNDESIRABLE)
        return value
    label: bool | float | None = finite(as_number(value))
    if label is None and isinstance(value, str):
        label = WORDS.get(value.strip().casefold())
    outcome = BY_NUMBER if not isinstance(label, bool) else DESIRABLE if label else UNDESIRABLE
    if label is None:
        outcome = "label_missing" if is_missing(value) else "label_not_accepted"
    count_label(column, spell_value(value), outcome)
    if label is not None:
        return label
    if is_missing(value):
        raise RowFault("label_missing", f"{column} is empty")
    found = f"{column} is {spell_cell(value)}, none of true, false, 1, 0{way_in(value, column)}"
    raise RowFault("label_not_accepted", found)


def spell_value(value: Any) -> str:
    """Value of a cell as a rule writes it: `"up"`, 4, true; a long or structured one shortened."""
    if is_blank(value):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and len(value) <= LONGEST_VALUE and value.isprintable():
        return '"' + value.replace('"', '""') + '"'
    return spell_cell(value)


def spell_cell(cell: Any) -> str:
    """Cell as text for a message, truncated to 40 characters."""
    if isinstance(cell, (bool, type(None))):
        return {True: "true", False: "false", None: "missing"}[cell]
    if isinstance(cell, date):
        return cell.isoformat()
    text = ascii(cell) if isinstance(cell, str) and not cell.isprintable() else repr(cell)
    return text if len(text) <= 42 else f"{text[:40]}..."


def way_in(value: Any, column: str) -> str:
    """Hint for a cell that has parts: the path of one of them."""
    value = structure_of(value) if isinstance(value, str) else value
    if isinstance(value, dict) and value:
        fields = [str(name) for name in value][:5]
        return f"; it has the fields {', '.join(fields)}: name one, as in {column}.{fields[0]}"
    if isinstance(value, (list, tuple)) and value:
        return f"; it is a list: name an item, as in {column}[0]"
    return ""
