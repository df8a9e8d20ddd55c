"""The items of a file that is one JSON array, read as a stream: no more than one item and a block of it is held."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.data.readers import jsonl
from kto_cli.data.readers.jsonl import Record, as_record, twice
from kto_cli.data.readers.open_file import Reached, open_text, printable

BLOCK = 2**20
"""Characters read at a time."""
SPACE = re.compile(r"[ \t\n\r]*")
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?P<end>"?)|[\[\]{},]', re.DOTALL)
"""A text, open at the end of what is held or not, or a mark of structure."""
LAST_FEW = 16
"""A fault so near the end of what is held may be a word or a number that is cut: the longest, `-Infinity` and a pair
of \\u escapes, are shorter."""


class ItemTooLong(ValueError):
    """An item is longer than MAX_LINE."""


@dataclass
class Window:
    """The part of a text that is held, and where the next item starts in it."""

    text: TextIOWrapper
    held: str = ""
    start: int = 0

    def grow(self) -> bool:
        """Reads on, as much as is held still, so that a long item is not looked at too often; False at the end.

        Raises:
            ItemTooLong: more than MAX_LINE characters are held.
        """
        left = self.held[self.start :]
        if len(left) > jsonl.MAX_LINE:
            raise ItemTooLong(f"longer than {jsonl.MAX_LINE:,} characters")
        more = self.text.read(max(BLOCK, len(left)))
        if more:
            self.held, self.start = left + more, 0
        return bool(more)

    def next_mark(self) -> str:
        """Goes to the next character that is not white space and gives it; nothing at the end."""
        while True:
            found = SPACE.match(self.held, self.start)
            self.start = found.end() if found else self.start
            if self.start < len(self.held):
                return self.held[self.start]
            if not self.grow():
                return ""

    def take(self, end: int) -> str:
        """The text up to `end`, passed over."""
        raw = self.held[self.start : end]
        self.start = end
        return raw


class ItemReader:
    """Items of an array, each as a record."""

    def __init__(self, window: Window, wanted: Sequence[str] | None) -> None:
        self.window = window
        self.wanted = wanted
        self.duplicates: list[str] = []
        self.decoder = json.JSONDecoder(object_pairs_hook=self.noting_duplicates)

    def noting_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object; a key given twice is noted, not raised: decoding has to go on to the item's end."""
        values = dict(pairs)
        if len(values) != len(pairs):
            self.duplicates.append(twice(pairs))
        return values

    def next(self, origin: str) -> Record:
        """The item that starts here; one that cannot be a value in Python is a fault of its own.

        Raises:
            ValueError: what comes is no JSON value, so nobody can tell where the next item starts.
        """
        window = self.window
        while True:
            self.duplicates.clear()
            try:
                value, end = self.decoder.raw_decode(window.held, window.start)
            except json.JSONDecodeError as error:
                if is_broken(error, window) or not window.grow():
                    raise
            except RecursionError:
                return Record(origin, None, window.take(item_end(window)), "not_json", "nested too deeply")
            except ValueError as error:
                return Record(origin, None, window.take(item_end(window)), "not_json", str(error))
            else:
                # a number near the end of what is held may go on: `1`, then `.5`
                if end > len(window.held) - LAST_FEW and window.grow():
                    continue
                raw = window.take(end)
                if self.duplicates:
                    return Record(origin, None, raw, "duplicate_key", self.duplicates[0])
                return as_record(origin, value, raw, self.wanted)


def is_broken(error: json.JSONDecodeError, window: Window) -> bool:
    """Whether an item is at fault, not just cut by the end of what is held."""
    return not error.msg.startswith("Unterminated string") and error.pos < len(window.held) - LAST_FEW


def item_end(window: Window) -> int:
    """Where an item ends that the decoder gave up on: at the comma or bracket outside all of its own brackets.

    Raises:
        ValueError: the file ends before.
    """
    while True:
        depth = 0
        for token in TOKEN.finditer(window.held, window.start):
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
    """One parsed record per item of a file that is one JSON array, called NAME:item N.

    Raises:
        BadInput: the file is not JSON from some item on (raised there), or see `open_bytes`.
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
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            fault = f"{printable(path)} is not JSON in item {reached.count + 1:,}: {what}."
            raise BadInput(fault, "Give a JSON array or JSONL, one object a line.") from error


def items(window: Window, reader: ItemReader, name: str, reached: Reached) -> Iterator[Record]:
    """The items up to the end of the array, which is not passed over.

    Raises:
        ValueError: what comes is neither an item nor the end.
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
