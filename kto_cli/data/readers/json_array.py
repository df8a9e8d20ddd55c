"""Items of a file that is one JSON array, as a stream: one item and one block are in memory at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from kto_cli.common.errors import BadInput
from kto_cli.common.read import twice
from kto_cli.common.words import printable
from kto_cli.data.readers import jsonl
from kto_cli.data.readers.jsonl import Record, as_record
from kto_cli.data.readers.not_json import fault_at
from kto_cli.data.readers.open_file import Reached, open_text

BLOCK = 2**20
"""Characters read at a time."""
SPACE = re.compile(r"[ \t\n\r]*")
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?P<end>"?)|[\[\]{},]', re.DOTALL)
"""A JSON string, complete or not, or a structural character."""
LAST_FEW = 16
"""A fault this near to the end of the window may be a truncated word or number: the longest, `-Infinity` and a pair of
\\u escapes, are shorter."""


class ItemTooLong(ValueError):
    """An item is longer than MAX_LINE."""


@dataclass
class Window:
    """Part of a text in memory, and the start of the next item in it."""

    file: TextIOWrapper
    text: str = ""
    start: int = 0

    def grow(self) -> bool:
        """Doubles the window, so that a long item is scanned few times; False at the end of the text.

        Raises:
            ItemTooLong: the window has more than MAX_LINE characters.
        """
        left = self.text[self.start :]
        if len(left) > jsonl.MAX_LINE:
            raise ItemTooLong(f"longer than {jsonl.MAX_LINE:,} characters")
        more = self.file.read(max(BLOCK, len(left)))
        if more:
            self.text, self.start = left + more, 0
        return bool(more)

    def next_mark(self) -> str:
        """Next character that is not white space, where the window then starts; empty at the end."""
        while True:
            found = SPACE.match(self.text, self.start)
            self.start = found.end() if found else self.start
            if self.start < len(self.text):
                return self.text[self.start]
            if not self.grow():
                return ""

    def take(self, end: int) -> str:
        """Text up to `end`, where the window then starts."""
        raw = self.text[self.start : end]
        self.start = end
        return raw


class ItemReader:
    """Items of an array as records."""

    def __init__(self, window: Window, wanted: Sequence[str] | None) -> None:
        self.window = window
        self.wanted = wanted
        self.duplicates: list[str] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self.noting_duplicates)

    def noting_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """JSON object; a duplicate key is recorded, not raised, so that decoding reaches the item's end."""
        values = dict(pairs)
        if len(values) != len(pairs):
            self.duplicates.append(twice(pairs))
        return values

    def next(self, origin: str) -> Record:
        """Record of the item that starts here, with its fault if Python cannot represent it.

        Raises:
            ValueError: not a JSON value, so the start of the next item is unknown.
        """
        window = self.window
        while True:
            self.duplicates.clear()
            try:
                value, end = self.decoder.raw_decode(window.text, window.start)
            except json.JSONDecodeError as error:
                if is_broken(error, window) or not window.grow():
                    raise
            except RecursionError:
                return Record(origin, None, window.take(item_end(window)), "not_json", "nested too deeply")
            except ValueError as error:
                return Record(origin, None, window.take(item_end(window)), "not_json", str(error))
            else:
                # a number near the end of the window may continue: `1`, then `.5`
                if end > len(window.text) - LAST_FEW and window.grow():
                    continue
                raw = window.take(end)
                if self.duplicates:
                    return Record(origin, None, raw, "duplicate_key", self.duplicates[0])
                return as_record(origin, value, raw, self.wanted)


def is_broken(error: json.JSONDecodeError, window: Window) -> bool:
    """Whether an item is faulty, not just truncated by the end of the window."""
    return not error.msg.startswith("Unterminated string") and error.pos < len(window.text) - LAST_FEW


def item_end(window: Window) -> int:
    """End of an item that cannot be decoded: the first comma or bracket outside all of its own brackets.

    Raises:
        ValueError: the file ends first.
    """
    while True:
        depth = 0
        for token in TOKEN.finditer(window.text, window.start):
            mark = token.group()
            if mark[0] == '"':
                if not token["end"]:
                    break
            elif depth == 0 and mark in ",]}":
                return token.start()
            else:
                depth += {"[": 1, "{": 1, "]": -1, "}": -1, ",": 0}[mark]
        if not window.grow():
            raise ValueError("it has no end")


def json_array_records(path: Path, name: str, wanted: Sequence[str] | None = None) -> Iterator[Record]:
    """One parsed record per item of a file that is one JSON array, with the origin NAME:item N.

    Raises:
        BadInput: the file is not JSON from some item on, or see `open_bytes`.
    """
    reached = Reached("item")
    with open_text(path, reached) as text:
        window = Window(text)
        reader = ItemReader(window, wanted)
        try:
            if window.next_mark() != "[":
                raise ValueError("it does not start with [")
            window.start += 1
            if window.next_mark() != "]":
                yield from items(window, reader, name, reached)
            window.start += 1
            if window.next_mark():
                raise ValueError("there is more after the end of the array")
        except ValueError as error:
            refuse_item(path, window, reached, error)


def refuse_item(path: Path, window: Window, reached: Reached, error: ValueError) -> NoReturn:
    """Rejects a file that is not JSON from the next item on.

    Raises:
        BadInput: with what stands there, where its kind is known.
    """
    found = fault_at(window.text, error.pos if isinstance(error, json.JSONDecodeError) else window.start)
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    what, step = found or (what, "Give a JSON array or JSONL, one object a line.")
    raise BadInput(f"{printable(path)} is not JSON in item {reached.count + 1:,}: {what}.", step) from error


def items(window: Window, reader: ItemReader, name: str, reached: Reached) -> Iterator[Record]:
    """Items up to the end of the array.

    Raises:
        ValueError: neither an item nor the end follows.
    """
    while True:
        window.next_mark()
        yield reader.next(f"{name}:item {reached.count + 1}")
        mark = window.next_mark()
        if mark == "]":
            return
        if mark != ",":
            raise ValueError("there is no comma after it" if mark else "the file ends after it")
        window.start += 1
        reached.count += 1
        if window.next_mark() == "]":
            raise ValueError("a comma stands before the closing bracket")
