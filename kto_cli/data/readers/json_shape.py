"""Shape of a JSON object that is a whole file: where its rows are, and what else it may be.

wrapped     a list of rows in a field with a usual name, or in the only field; also a field of such a field
keyed       a row in each field: {"0": {row}, "1": {row}}, or under names when all rows have the same fields
columns     pandas' to_json without orient="records": {"question": {"0": ..., "1": ...}}, {"question": [...]}
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers.json_array import ItemReader, Window, items
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import Reached

CONTAINERS = (
    *("data", "rows", "records", "items", "results", "result", "examples", "entries", "instances", "samples", "list"),
    *("dataset", "payload", "body", "export", "hits"),
)
"""Names of an object, or of the list in it, that holds the rows of a file."""
WRAPPERS = (
    *CONTAINERS,
    *("feedback", "feedbacks", "feedback_data", "logs", "events", "conversations", "train", "test"),
    *("edges", "nodes", "documents", "docs"),
)
"""Names of the list that holds the rows of a wrapped file."""
CHAT_MESSAGE = {"role", "from"}
"""Names in objects that are no rows."""
DEEPEST = 3
"""Fields within fields that are searched for rows."""
Way = tuple[str, ...]


class Shape(NamedTuple):
    """Kind of a JSON value."""

    kind: str
    """object, list, or value."""
    size: int = 0
    """Fields or items."""
    has_objects: bool = False
    """Whether a list has an object in it."""
    is_numbered: bool = False
    """Whether the names of all fields are whole numbers."""
    names: frozenset[str] = frozenset()
    """Of the fields of an object."""
    paths: tuple[Way, ...] = ()
    """Ways from here to lists of rows."""
    beside: Way = ()
    """Fields that are not on the first way."""
    fields: tuple[tuple[str, Shape], ...] = ()
    """Of an object that is a whole file."""


def fields(window: Window, reader: ItemReader) -> Iterator[str]:
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


def list_items(window: Window, reader: ItemReader, name: str, reached: Reached) -> Iterator[Record]:
    """Items of the list that starts here."""
    window.next_mark()
    window.start += 1
    if window.next_mark() != "]":
        yield from items(window, reader, name, reached)
    window.start += 1


def pass_over(window: Window, reader: ItemReader) -> None:
    """Passes over the value that starts here; a list item by item."""
    if window.next_mark() == "[":
        for _ in list_items(window, reader, "", Reached("item")):
            pass
    else:
        reader.next("")


def shape_of(window: Window) -> Shape:
    """Shape of the object that starts here and is a whole file.

    Raises:
        ValueError: it is not an object, or not JSON.
    """
    return _object_shape(window, ItemReader(window, ()), 1)


def _object_shape(window: Window, reader: ItemReader, depth: int) -> Shape:
    known: dict[Shape, Shape] = {}  # most fields have equal shapes
    shapes = {}
    for name in fields(window, reader):
        shape = _value_shape(window, reader, depth + 1)
        shapes[name] = known.setdefault(shape, shape)
    ways = {name: shape for name, shape in shapes.items() if shape.paths and (len(shapes) == 1 or _leads(name, shape))}
    paths = tuple((name, *path) for name, shape in ways.items() for path in shape.paths)
    first = next(iter(ways), None)
    beside = (*(name for name in shapes if name != first),) if first is not None else ()
    if first is not None:
        beside += tuple(f"{first}.{name}" for name in ways[first].beside)
    numbered = bool(shapes) and all(name.isdecimal() for name in shapes)
    whole_file = tuple(shapes.items()) if depth == 1 else ()
    return Shape("object", len(shapes), False, numbered, frozenset(shapes), paths, beside, whole_file)


def _leads(name: str, shape: Shape) -> bool:
    """Whether a field beside others, by its name, leads to the rows."""
    return name.lower() in (WRAPPERS if shape.kind == "list" else CONTAINERS)


def _value_shape(window: Window, reader: ItemReader, depth: int) -> Shape:
    mark = window.next_mark()
    if mark == "{" and depth <= DEEPEST:
        return _object_shape(window, reader, depth)
    if mark != "[":
        reader.next("")
        return Shape("object" if mark == "{" else "value")
    keys: set[str] = set()
    size = objects = 0
    for record in list_items(window, ItemReader(window, None), "", Reached("item")):
        size += 1
        objects += record.values is not None
        keys.update(record.values or ())
    is_rows = objects == size and bool(keys) and not keys & CHAT_MESSAGE
    return Shape("list", size, objects > 0, paths=((),) if is_rows else ())


def refuse_other_shape(shape: Shape, path: Path) -> None:
    """Rejects an object whose rows are in several lists, in its fields, or written as columns.

    Raises:
        BadInput: with the way to write its rows.
    """
    name = printable(path)
    names = printable(", ".join([field for field, _ in shape.fields][:4])) + (", ..." if shape.size > 4 else "")
    file = shlex.quote(name)
    if len(shape.paths) > 1:
        lists = [".".join(way) for way in shape.paths]
        what = f"The rows of {name} are in several lists: {printable(', '.join(lists))}."
        raise BadInput(what, f"Write one of them to a file of its own: jq '.{lists[0]}' {file} > rows.json")
    if _is_columns(shape):
        what = f"{name} holds columns ({names}), as pandas' to_json writes them, not rows."
        raise BadInput(what, 'Write rows instead: to_json("rows.jsonl", orient="records", lines=True)')
    if _is_keyed(shape):
        what = f"{name} is one object with a row in each of its fields ({names})."
        raise BadInput(what, f"Write the rows one a line: jq -c '.[]' {file} > rows.jsonl")


def _is_keyed(shape: Shape) -> bool:
    """Whether each field is a row: by their numbers, or by three rows or more with the same two names or more."""
    shapes = [each for _, each in shape.fields]
    if not all(each.kind == "object" and each.size for each in shapes):
        return False
    is_alike = len(shapes) > 2 and len({each.names for each in shapes}) == 1
    return shape.is_numbered or (is_alike and shapes[0].size > 1 and not shapes[0].names & CHAT_MESSAGE)


def _is_columns(shape: Shape) -> bool:
    """Whether the fields are columns: objects with numbered fields, or lists, all of one size; or a table in parts."""
    shapes = dict(shape.fields)
    if {"columns", "data"} <= set(shapes) <= {"columns", "index", "data"}:  # orient="split"
        return shapes["data"].kind == "list" and not shapes["data"].has_objects
    kinds = {(each.kind, each.size) for each in shapes.values()}
    if len(shapes) < 2 or len(kinds) != 1:
        return False
    (kind, size) = kinds.pop()
    if kind == "object":
        return not shape.is_numbered and all(each.is_numbered for each in shapes.values())
    return kind == "list" and size > 1 and not all(each.has_objects for each in shapes.values())
