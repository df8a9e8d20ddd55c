"""Labels of rows: accepted where their meaning is certain, rejected row by row otherwise, never guessed.

Accepted, ignoring white space around texts:

    true false              JSON and Parquet booleans
    "true" "false"          texts, in any case (CSV has only texts)
    1 0 1.0 0.0 "1" "0"     only if the column has no other number: in a column of stars from 1 to 5 a 1 is the
                            worst rating, so every number of that column is rejected

Rejected:

    label_missing           null, NaN, an empty text, no such field
    label_not_binary        a number, where the column has numbers other than 1 and 0
    label_not_accepted      anything else: "yes", "thumbs_up", a list
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from kto_cli.data.formats.records import RowFault

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?|[+-]?\.[0-9]+")
WORDS = {"true": True, "false": False}


def as_number(value: Any) -> int | float | None:
    """Number of a label, from a number or a text; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        return float(text) if NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or is_missing(value):
        return None
    return float(value) if isinstance(value, Decimal) else value


def is_missing(value: Any) -> bool:
    """Whether a value is missing: null, NaN (null in a table's column of numbers) or an empty text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, (float, Decimal)) and value != value)


def label_value(value: Any) -> bool | float:
    """Label of one value: true or false, or its number (infinite if too large), which depends on the whole column.

    Raises:
        RowFault: `label_missing` or `label_not_accepted`.
    """
    if isinstance(value, bool):
        return value
    if is_missing(value):
        raise RowFault("label_missing", "no label")
    number = as_number(value)
    if number is not None:
        try:
            return float(number)
        except OverflowError:  # too large for a float, so neither 1 nor 0
            return math.inf
    word = WORDS.get(value.strip().casefold()) if isinstance(value, str) else None
    if word is None:
        shown = repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"
        raise RowFault("label_not_accepted", f"the label is {shown}, none of true, false, 1, 0")
    return word
