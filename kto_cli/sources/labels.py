"""Labels: read where they can only mean one thing, rejected by row otherwise; never coerced in silence.

Accepted, white space around texts aside:

    true false              JSON and Parquet booleans
    "true" "false"          texts, in any case (CSV has only texts)
    1 0 1.0 0.0 "1" "0"     only if the whole column has no other number: in a column of stars from 1 to 5 a
                            1 is the worst mark, so there every number is rejected

Rejected:

    label_missing           null, NaN, an empty text, no such field
    label_not_binary        a number, where the column has numbers other than 1 and 0
    label_not_accepted      anything else: "yes", "thumbs_up", a list
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from kto_cli.sources.records import RowFault

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?|[+-]?\.[0-9]+")
WORDS = {"true": True, "false": False}


def as_number(value: Any) -> int | float | None:
    """The number a label is, written as a number or as a text; None for all else."""
    if isinstance(value, str):
        text = value.strip()
        return float(text) if NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or is_missing(value):
        return None
    return float(value) if isinstance(value, Decimal) else value


def is_missing(value: Any) -> bool:
    """Whether a label was left out: null, NaN (how tables spell null among numbers) or an empty text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, (float, Decimal)) and value != value)


def other_numbers(labels: Iterable[Any]) -> tuple[str, ...]:
    """The first few distinct numbers of a label column that are neither 1 nor 0, as texts."""
    found: dict[str, None] = {}
    for label in labels:
        value = as_number(label)
        if value is not None and value not in (0, 1) and len(found) < 4:
            found[str(label).strip()[:20]] = None
    return tuple(found)


def read_label(value: Any, others: tuple[str, ...]) -> bool:
    """True for desirable, False for undesirable; `others` as `other_numbers` found them in the whole column.

    Raises:
        RowFault: `label_missing`, `label_not_binary` or `label_not_accepted`.
    """
    if isinstance(value, bool):
        return value
    if is_missing(value):
        raise RowFault("label_missing", "no label")
    number = as_number(value)
    if number is not None and others:
        column = f"the label column has numbers other than 1 and 0 ({', '.join(others)})"
        raise RowFault(
            "label_not_binary", f"{column}, so {str(value)[:20]} may be a mark on a scale; give true or false"
        )
    if number is not None:
        return number == 1
    word = WORDS.get(value.strip().casefold()) if isinstance(value, str) else None
    if word is None:
        raise RowFault("label_not_accepted", f"{str(value)[:40]!r} is none of true, false, 1, 0")
    return word
