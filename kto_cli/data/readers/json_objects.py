"""JSON files that are neither one array nor one object a line, as records.

    objects     one object, or several one after the other: over several lines, `}{`, or with a comma between them
    wrapped     one object around the rows: {"exported": "...", "data": [rows]}, {"data": {"items": [rows]}}

Both are read as a stream. `layout_of` tells which one a file is; a file that is neither is read line by line. An object
that holds columns, or one row in each of its fields, is rejected with the way to write its rows (json_shape.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kto_cli.common.words import printable
from kto_cli.data.readers import jsonl
from kto_cli.data.readers.json_array import ItemReader, Window, refuse_item
from kto_cli.data.readers.json_shape import fields, list_items, pass_over, refuse_other_shape, shape_of
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import Reached, open_text


class Layout(NamedTuple):
    """How a file of JSON objects is written."""

    rows: tuple[str, ...] = ()
    """Names on the way to the list of a wrapped file; none for objects one after the other."""
    other: tuple[str, ...] = ()
    """Fields beside that list."""


def layout_of(path: Path) -> Layout | None:
    """Layout of a file that begins with an object; None for one object a line, and for what is not JSON.

    Raises:
        BadInput: the rows are in several lists, or the object holds columns; or see `open_bytes`.
    """
    lines = _is_lines(path)
    if lines:
        return None
    with open_text(path, Reached("item")) as text:
        window = Window(text)
        try:
            shape = shape_of(window)
            several = bool(window.next_mark())
        except ValueError:
            return None
    if not several:
        refuse_other_shape(shape, path)
        if shape.paths:
            return Layout(shape.paths[0], shape.beside)
    return Layout() if lines is None else None


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
            if layout.rows:
                yield from _rows_at(layout.rows, window, reader, name, reached)
            else:
                yield from _one_after_the_other(window, reader, name, reached)
        except ValueError as error:
            refuse_item(path, window, reached, error)


def _rows_at(
    names: tuple[str, ...], window: Window, reader: ItemReader, name: str, reached: Reached
) -> Iterator[Record]:
    """Rows of the list at the end of some names, within the value that starts here."""
    if not names:
        yield from list_items(window, reader, name, reached)
        return
    for field in fields(window, reader):
        if field == names[0]:
            yield from _rows_at(names[1:], window, reader, name, reached)
        else:
            pass_over(window, reader)


def _one_after_the_other(window: Window, reader: ItemReader, name: str, reached: Reached) -> Iterator[Record]:
    while window.next_mark():
        yield reader.next(f"{name}:item {reached.count + 1}")
        reached.count += 1
        if window.next_mark() == ",":
            window.start += 1


def layout_note(layout: Layout) -> str:
    """Note on how such a file is read."""
    if not layout.rows:
        return "JSON that is not one object a line is read object by object."
    other = f"; left out beside it: {printable(', '.join(layout.other[:8]))}" if layout.other else ""
    return f"The rows are the list {printable('.'.join(layout.rows))!r} of the file{other}."
