"""Fields of a raw record, read as what they must be; what they are not is a `RowFault`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.data.formats.labels import as_number
from kto_cli.data.formats.records import Message, Pair, Reject, RowFault, Text, check_text, message, root
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import printable


def raw_text(record: Record) -> str:
    """The record as it was, for a `Reject`: its line, or its values where it has none (Parquet)."""
    return record.raw or json_text(record.values)


def json_text(values: Any) -> str:
    """Values as JSON; empty where they cannot be written (nested too deeply)."""
    try:
        return json.dumps(values, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError):
        return ""


def rejected(record: Record, rows: int, fault: RowFault | None = None) -> Reject:
    """A record as what is wrong with it: `fault`, or what its reader found."""
    if fault is None:
        return Reject(record.origin, record.reason, record.detail, rows, record.raw)
    return Reject(record.origin, fault.reason, fault.detail, rows, raw_text(record))


def text_field(values: dict[str, Any], name: str, empty: str) -> str:
    """A text that is there and holds more than white space; otherwise as it is.

    Raises:
        RowFault: `missing_field`, `not_text`, `bad_text`, or the reason named by `empty`.
    """
    value = values.get(name)
    if value is None:
        raise RowFault("missing_field", f"no {name!r}; found {spell_names(values)}")
    text = check_text(value, name)
    if not text.strip():
        raise RowFault(empty, f"{name} is empty")
    return text


def spell_names(values: dict[str, Any]) -> str:
    """The names of a record's fields, the first few."""
    names = [repr(printable(str(name))[:40]) for name in values]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"


def number(value: Any) -> float | None:
    """A finite number, written as a number or as a text; None for all else."""
    try:
        found = as_number(value)
        result = None if found is None else float(found)
    except (OverflowError, ValueError):
        return None
    return result if result is not None and math.isfinite(result) else None


def is_absent(value: Any) -> bool:
    """Whether a number is missing: null, NaN (how tables spell null) or an empty text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def as_prompt(text: str, plain: bool) -> Text:
    """A prompt of one user turn, or plain text where that is asked for (--text)."""
    return text if plain else (message("user", text),)


def as_answer(text: str, plain: bool) -> Text:
    """An answer of one assistant turn, or plain text."""
    return text if plain else (message("assistant", text),)


def pair(prompt: Text, chosen: Text, rejected: Text, origin: str, group: str | None, split: str | None) -> Pair:
    """Two answers to one prompt; `group` None stands for the prompt's root.

    Raises:
        RowFault: `answers_identical`, white space at the ends aside: one text in both classes would teach both ways.
    """
    if words(chosen) == words(rejected):
        raise RowFault("answers_identical", "both answers are the same text")
    return Pair(prompt, chosen, rejected, origin, group or root(prompt), split)


def words(text: Text) -> str:
    """The text of an answer without white space at its ends."""
    return (text if isinstance(text, str) else "\n\n".join(turn["content"] for turn in text)).strip()


def turns(values: dict[str, Any], name: str) -> tuple[Message, ...]:
    """A field that is a list of chat messages, role and content alone.

    Raises:
        RowFault: `missing_field`, `not_messages`, `not_text` or `bad_text`.
    """
    value = values.get(name)
    if value is None:
        raise RowFault("missing_field", f"no {name!r}; found {spell_names(values)}")
    if isinstance(value, (list, tuple)) and not value:
        raise RowFault("not_messages", f"{name} is an empty list")
    return messages_of(value, name)


def messages_of(value: Any, what: str) -> tuple[Message, ...]:
    """A list of chat messages, role and content alone.

    Raises:
        RowFault: it is something else.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(turn, dict) for turn in value):
        raise RowFault("not_messages", f"{what} is neither text nor a list of messages")
    return tuple(
        message(
            check_text(turn.get("role"), f"a role in {what}"),
            check_text(turn.get("content"), f"a content in {what}"),
        )
        for turn in value
    )


def need_columns(name: str, columns: Sequence[str], needed: Sequence[str], source: str, step: str) -> None:
    """Refuses a file that cannot be of this source.

    Raises:
        BadInput: naming the columns that are missing and those that are there.
    """
    if missing := [column for column in needed if column not in columns]:
        there = ", ".join(printable(column)[:40] for column in list(columns)[:12]) or "none"
        raise BadInput(f"{name} is not {source}: it has no {', '.join(missing)} (its columns: {there}).", step)
