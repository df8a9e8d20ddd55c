"""JSON files that are neither one array nor one object a line, as records.

    objects     one object, or several one after the other: over several lines, `}{`, or with a comma between them
    wrapped     one object around the rows: {"exported": "...", "data": [rows]}

Both are read as a stream. `layout_of` tells which one a file is; a file that is neither is read line by line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers import jsonl
from kto_cli.data.readers.json_array import ItemReader, Window, items
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import Reached, open_text

WRAPPERS = (
    *("data", "rows", "records", "items", "results", "result", "examples", "entries", "instances", "samples", "list"),
    *("feedback", "feedbacks", "feedback_data", "dataset", "logs", "events", "conversations", "train", "test"),
)
"""Names of the list that holds the rows of a wrapped file."""


class Layout(NamedTuple):
    """How a file of JSON objects is written."""

    rows: str | None
    """Name of the list of a wrapped file; None for objects one after the other."""
    other: tuple[str, ...] = ()
    """Fields beside that list."""


def layout_of(path: Path) -> Layout | None:
    """Layout of a file that begins with an object; None for one object a line, and for what is not JSON.

    Raises:
        BadInput: the rows are in several lists; or see `open_bytes`.
    """
    lines = _is_lines(path)
    if lines:
        return None
    with open_text(path, Reached("item")) as text:
        window = Window(text)
        reader = ItemReader(window, ())
        try:
            kinds = {key: _is_list_of_objects(window, reader) for key in _fields(window, reader)}
            several = bool(window.next_mark())
        except ValueError:
            return None
    found = [] if several else [key for key, is_list in kinds.items() if is_list and key.lower() in WRAPPERS]
    if len(found) > 1:
        what = f"The rows of {printable(path)} are in several lists: {', '.join(found)}."
        raise BadInput(what, f"Write one of them to a file of its own: jq '.{found[0]}' FILE > {found[0]}.json")
    if found:
        return Layout(found[0], tuple(key for key in kinds if key != found[0]))
    return Layout(None) if lines is None else None


def _is_lines(path: Path) -> bool | None:
    """Whether each line seems to be an object: False if there is only one line, None if the first is not whole."""
    with open_text(path, Reached("line")) as text:
        first = text.readline(jsonl.MAX_LINE)
        while first.isspace():
            first = text.readline(jsonl.MAX_LINE)
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return None
        return any(line.strip() for line in text)


def _fields(window: Window, reader: ItemReader) -> Iterator[str]:
    """Names of the fields of the object that starts here; after each the caller reads the value.

    Raises:
        ValueError: it is not an object, or not JSON.
    """
    if window.next_mark() != "{":
        raise ValueError("it does not start with {")
    window.start += 1
    mark = window.next_mark()
    while mark != "}":
        if mark != '"':
            raise ValueError("a field has no name")
        name = json.loads(reader.next("").raw)
        if window.next_mark() != ":":
            raise ValueError("there is no colon after a name")
        window.start += 1
        yield name
        mark = window.next_mark()
        if mark == ",":
            window.start += 1
            mark = window.next_mark()
        elif mark != "}":
            raise ValueError("there is no comma after a value")
    window.start += 1


def _is_list_of_objects(window: Window, reader: ItemReader) -> bool:
    """Passes over a value; whether it is a list of objects that are no chat messages."""
    if window.next_mark() != "[":
        reader.next("")
        return False
    keys: set[str] = set()
    objects = True
    for record in _rows_of_list(window, ItemReader(window, None), "", Reached("item")):
        objects = objects and record.values is not None
        keys.update(record.values or ())
    return objects and bool(keys) and not keys & {"role", "from"}


def _rows_of_list(window: Window, reader: ItemReader, name: str, reached: Reached) -> Iterator[Record]:
    """Items of the list that starts here."""
    window.next_mark()
    window.start += 1
    if window.next_mark() != "]":
        yield from items(window, reader, name, reached)
    window.start += 1


def json_object_records(path: Path, name: str, layout: Layout, wanted: Sequence[str] | None) -> Iterator[Record]:
    """One parsed record per object of a file, called NAME:item N.

    Raises:
        BadInput: the file is not JSON from some object on (raised there), or see `open_bytes`.
    """
    reached = Reached("item")
    with open_text(path, reached) as text:
        window = Window(text)
        reader = ItemReader(window, wanted)
        try:
            if layout.rows is None:
                yield from _one_after_the_other(window, reader, name, reached)
                return
            for field in _fields(window, reader):
                if field == layout.rows:
                    yield from _rows_of_list(window, reader, name, reached)
                else:
                    _is_list_of_objects(window, reader)
        except ValueError as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            fault = f"{printable(path)} is not JSON in item {reached.count + 1:,}: {what}."
            raise BadInput(fault, "Give a JSON array or JSONL, one object a line.") from error


def _one_after_the_other(window: Window, reader: ItemReader, name: str, reached: Reached) -> Iterator[Record]:
    while window.next_mark():
        yield reader.next(f"{name}:item {reached.count + 1}")
        reached.count += 1
        if window.next_mark() == ",":
            window.start += 1


def layout_note(layout: Layout) -> str:
    """Note on how such a file is read."""
    if layout.rows is None:
        return "JSON that is not one object a line is read object by object."
    other = f"; left out beside it: {printable(', '.join(layout.other[:8]))}" if layout.other else ""
    return f"The rows are the list {layout.rows!r} of the file{other}."
