"""Typed access to the fields of a raw record; a field of another type raises `RowFault`."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.cell_text import READ_AS_CHAT, chat_in, chat_in_text
from kto_cli.data.formats.counts import count
from kto_cli.data.formats.labels import as_number, finite, spell_cell, way_in
from kto_cli.data.formats.messages import Turn, read_turns
from kto_cli.data.formats.records import Pair, RowFault, Text, check_text, message, root
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.texts import joined

MOST_NAMED = 40
"""Columns that a note names."""


def raw_text(record: Record) -> str:
    """Original text of a record, for a `Reject`: its line, or its values as JSON where it has none (Parquet)."""
    return record.raw if record.raw or record.values is None else json_text(record.values)


def json_text(values: Any) -> str:
    """Values as JSON; empty if they cannot be encoded (nested too deeply)."""
    try:
        return json.dumps(values, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError):
        return ""


def text_field(values: dict[str, Any], name: str, empty: str) -> str:
    """Text field `name`, unchanged; it must hold more than white space.

    Raises:
        RowFault: `missing_field`, `not_text`, `bad_text`, or the reason given as `empty`.
    """
    text = check_text(needed(values, name), name)
    if not text.strip():
        raise RowFault(empty, f"{name} is empty")
    return text


def needed(values: dict[str, Any], name: str) -> Any:
    """Value of field `name`.

    Raises:
        RowFault: `missing_field`, with the first twelve fields that are there.
    """
    if values.get(name) is None:
        names = [repr(printable(str(each))[:40]) for each in values]
        there = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
        raise RowFault("missing_field", f"no {name!r}; found {there}")
    return values[name]


def number(value: Any) -> float | None:
    """A finite number, from a number or a text; None for anything else."""
    return finite(as_number(value))


def as_prompt(text: str, plain: bool) -> Text:
    """Prompt of one user turn, or plain text with --text."""
    return text if plain else (message("user", text),)


def as_answer(text: str, plain: bool) -> Text:
    """Answer of one assistant turn, or plain text with --text."""
    return text if plain else (message("assistant", text),)


def pair(prompt: Text, chosen: Text, rejected: Text, origin: str, group: str | None, split: str | None) -> Pair:
    """Pair of answers to one prompt; `group` defaults to the prompt's root.

    Raises:
        RowFault: `answers_identical` (ignoring white space at the ends): the text would be in both classes.
    """
    if words(chosen) == words(rejected):
        raise RowFault("answers_identical", "both answers are the same text")
    return Pair(prompt, chosen, rejected, origin, group or root(prompt), split)


def words(text: Text) -> str:
    """Text of an answer without white space at its ends."""
    return joined(text).strip()


def chat_turns(value: Any, what: str) -> list[Turn]:
    """Messages of a chat: a list, one message, or the text of either.

    Raises:
        RowFault: `value` is no chat, or a message cannot be read (messages.py).
    """
    if isinstance(value, str) and (chat := chat_in_text(value, what)) is not None:
        count(READ_AS_CHAT)
        value = chat
    elif isinstance(value, dict):
        value = chat_in(value) or value
    if not isinstance(value, (list, tuple)) or not all(isinstance(turn, (dict, Turn)) for turn in value):
        wanted = "not a list" if isinstance(value, str) else "neither text nor a list"
        raise RowFault("not_messages", f"{what} is {kind_of(value)}, {wanted} of messages{way_in(value, what)}")
    return read_turns(value, what)


def kind_of(value: Any) -> str:
    """Kind of a value that is neither text nor a chat, for a message."""
    if isinstance(value, str):
        return f"the text {spell_cell(value)}"
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list" if value else "an empty list"
    if isinstance(value, (bool, int, float)):
        return f"the {'value' if isinstance(value, bool) else 'number'} {spell_cell(value)}"
    return f"a {type(value).__name__}"


def ignored_columns(columns: Sequence[str], read: Container[str]) -> list[str]:
    """Note on the columns of a file that are not read, if there are any."""
    ignored = [printable(column) for column in columns if column not in read]
    more = f" and {len(ignored) - MOST_NAMED} more" if len(ignored) > MOST_NAMED else ""
    return [f"Columns ignored: {', '.join(ignored[:MOST_NAMED])}{more}."] if ignored else []


def need_columns(name: str, columns: Sequence[str], needed: Sequence[str], source: str, step: str) -> None:
    """Rejects a file that cannot be of this source.

    Raises:
        BadInput: names the missing columns and those that are there.
    """
    if missing := [column for column in needed if column not in columns]:
        there = ", ".join(printable(column)[:40] for column in list(columns)[:12]) or "none"
        what = f"{name} is not a file of {source}: it has no column {' or '.join(missing)} (its columns: {there})."
        raise BadInput(what, step)
