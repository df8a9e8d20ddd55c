"""Lines of text files and JSON lines, as a stream: one line is in memory at a time. Lines end at LF, CR LF or CR.

Reasons of a rejected line:

    not_json          not JSON, nested too deeply, or with a number of thousands of digits
    duplicate_key     an object has one key twice (RFC 8259 section 4: its meaning is undefined)
    not_an_object     JSON, but a text, a number or a list
    repeated_header   every value is the name of its column (in any file)
    line_too_long     more than MAX_LINE characters, which are never in memory
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.read import DuplicateKey, parse_json
from kto_cli.common.words import printable
from kto_cli.data.readers.open_file import Reached, open_bytes, open_text

__all__ = ["MAX_LINE", "UNPARSED", "Record", "line_records", "open_bytes", "parse_json", "parsed"]

MAX_LINE = 64 * 2**20
"""Characters; a longer line is damage, or an attack on the memory."""
UNPARSED = "unparsed"
"""Reason of a record that `parsed` has yet to parse."""
MOST_BLANK = 1_000_000
"""Consecutive blank lines; more are an attack on the run time."""
RAW_OF_LONG = 200
"""Characters kept of a line that is too long."""


@dataclass(frozen=True)
class Record:
    """One line, table row or array item of a file: its values, or its fault."""

    origin: str
    values: dict[str, Any] | None
    raw: str = ""
    """Original text."""
    reason: str = ""
    detail: str = ""


def bounded_lines(text: io.TextIOWrapper, name: str) -> Iterator[tuple[str, bool]]:
    """(line with its end, whether it is complete); of a line longer than MAX_LINE only the start.

    Raises:
        BadInput: more than MOST_BLANK consecutive blank lines.
    """
    limit, blank = MAX_LINE + len("\r\n"), 0
    for line in iter(partial(text.readline, limit), ""):
        if len(line) < limit or line[-1] in "\r\n":
            blank = blank + 1 if len(line) <= 2 and line.isspace() else 0
            if blank > MOST_BLANK:
                raise BadInput(f"{name} has more than {MOST_BLANK:,} blank lines in a row.", "Check the file.")
            yield line, True
            continue
        start, line = line[:RAW_OF_LONG], ""
        yield start, False
        for rest in iter(partial(text.readline, 2**20), ""):
            if rest[-1] in "\r\n":
                break


def line_records(path: Path, name: str) -> Iterator[Record]:
    """Lines of a file that are not blank, UNPARSED, with the origin NAME:LINE.

    Raises:
        BadInput: see `open_bytes`.
    """
    reached = Reached("line")
    with open_text(path, reached) as text:
        for number, (line, complete) in enumerate(bounded_lines(text, printable(path)), start=1):
            if not complete:
                detail = f"the line is longer than {MAX_LINE:,} characters"
                yield Record(f"{name}:{number}", None, line, "line_too_long", detail)
            elif not line.isspace():
                yield Record(f"{name}:{number}", None, line.rstrip("\r\n"), UNPARSED)
            reached.count = number


def as_record(origin: str, value: Any, raw: str, wanted: Sequence[str] | None = None) -> Record:
    """Record of the values of one row, with the wanted keys; a fault if it is no object, or a header again."""
    if not isinstance(value, dict):
        return Record(origin, None, raw, "not_an_object", f"JSON {type(value).__name__} instead of an object")
    if is_header(value):
        shown = raw or json.dumps([*value.values()], ensure_ascii=False)
        return Record(origin, None, shown, "repeated_header", "every cell is the name of its column: the header again")
    if wanted is not None:
        value = {key: value[key] for key in wanted if key in value}
    return Record(origin, value, raw)


LONGEST_NAME = 256
"""Characters from which on a text is no column name."""


def is_header(values: dict[str, Any]) -> bool:
    """Whether every value of a row is the name of its column, as where a logger has written the header again."""
    filled = 0
    for name, value in values.items():
        if value is None:
            continue
        if not isinstance(value, str) or len(value) >= LONGEST_NAME or bare_name(value) != _name(name):
            return False
        filled += 1
    return filled > 1


def bare_name(text: str) -> str:
    """A column name without case, and without byte order mark, white space and quotes at its ends."""
    return text.strip().strip("\ufeff\"'").strip().casefold() if len(text) < LONGEST_NAME else text


_name = lru_cache(maxsize=1024)(bare_name)  # columns have the same names in all rows


def parsed(record: Record, wanted: Sequence[str] | None = None) -> Record:
    """An UNPARSED record with its wanted values or its fault; any other record unchanged."""
    if record.reason != UNPARSED:
        return record
    try:
        value = parse_json(record.raw)
    except ValueError as error:
        reason = "duplicate_key" if isinstance(error, DuplicateKey) else "not_json"
        return Record(record.origin, None, record.raw, reason, str(error))
    return as_record(record.origin, value, record.raw, wanted)
