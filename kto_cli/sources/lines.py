"""Lines of text files and JSON lines, gzipped or not; what is damaged is said, never guessed."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from kto_cli.errors import BadInput
from kto_cli.sources.records import refuse_useless

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Record:
    """One line, cell row or item of a file: its values, or its fault."""

    origin: str
    values: dict[str, Any] | None
    raw: str = ""
    """The line as it was, where there are no values to show."""
    reason: str = ""
    detail: str = ""


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if they are gzip (told by content: names are often wrong).

    Raises:
        BadInput: missing, a folder, not readable, truncated or damaged gzip, UTF-16.
    """
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == GZIP_MAGIC
        with cast(IO[bytes], gzip.open(path) if zipped else path.open("rb")) as file:
            head = file.read(2)
            file.seek(0)
            if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise BadInput(f"{path} is UTF-16.", "Save it as UTF-8.")
            yield file
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist.", "Check the path.") from error
    except IsADirectoryError as error:
        raise BadInput(f"{path} is a folder, not a file.", "Name the file itself.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path} is truncated or damaged gzip ({error}).", "Fetch it again.") from error
    except PermissionError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}).") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of the lines that are not blank.

    Bytes that are not UTF-8 become lone surrogates, which `check_text` later finds in the rows they hurt.
    """
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def parse_json(text: str) -> Any:
    """json.loads with one exception type for everything that can go wrong.

    Raises:
        ValueError: not JSON, nested too deeply, or a number too long.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_record(origin: str, value: Any, raw: str) -> Record:
    """A parsed JSON value as a record; only objects have values."""
    if isinstance(value, dict):
        return Record(origin, value, raw)
    return Record(origin, None, raw, "not_an_object", f"JSON {type(value).__name__} instead of an object")


def json_line_records(path: Path, name: str) -> Iterator[Record]:
    """One record per line of a JSONL file, called NAME:LINE.

    Raises:
        BadInput: no line could be parsed (raised after the last one), or see `open_bytes`.
    """
    count, parsed, first_fault = 0, 0, None
    for number, line in text_lines(path):
        count += 1
        origin = f"{name}:{number}"
        try:
            record = as_record(origin, parse_json(line), line)
        except ValueError as error:
            record = Record(origin, None, line, "not_json", str(error))
        parsed += record.values is not None
        if record.values is None and first_fault is None:
            first_fault = f"line {number}: {record.detail}"
        yield record
    if not parsed:
        refuse_useless(str(path), first_fault, count)


def json_array_records(path: Path, name: str) -> Iterator[Record]:
    """One record per item of a file that is one JSON array, called NAME:item N.

    Raises:
        BadInput: the file is not JSON as a whole.
    """
    with open_bytes(path) as file:
        text = file.read().decode("utf-8-sig", "surrogateescape")
    try:
        values = parse_json(text)
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}.", "Give a JSON array or JSONL, one object a line.") from error
    if not values:
        refuse_useless(str(path), None, 0)
    for number, value in enumerate(values, start=1):
        yield as_record(f"{name}:item {number}", value, json.dumps(value, ensure_ascii=False))
