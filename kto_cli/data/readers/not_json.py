"""Faults of JSON in words, and what a file without any JSON object is instead: a table, Python text, nested lists."""

from __future__ import annotations

import json
import re
import shlex
from itertools import islice
from pathlib import Path
from typing import NoReturn

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers.jsonl import Record, bounded_lines
from kto_cli.data.readers.open_file import open_text

Found = tuple[str, str]
"""(what it is, next step)"""
PYTHON = ("written as Python prints it ({what}), not as JSON", "Write it with json.dumps.")
FAULTS = (
    (r"//|/\*|#", ("a comment stands there, which JSON does not have", "Remove the comments.")),
    (r"'", (PYTHON[0].format(what="single quotes"), PYTHON[1])),
    (r"(None|True|False)\b", (PYTHON[0].format(what="None, True, False"), PYTHON[1])),
    (
        r"[A-Za-z_$][\w$]*\s*:",
        ("a name stands there without double quotes", "Write it with JSON.stringify or json.dumps."),
    ),
    (r",\s*[\]}]", ("a comma stands before the closing bracket", "Remove the comma.")),
)
"""Pattern of the text at which parsing fails."""
TABLE_DELIMITERS = ("\t", ";", ",", "|")
LONGEST_NAME = 60
"""Characters of a column name."""
FIRST_LINES = 20
LARGEST = 2**24
"""Characters of a file that is parsed as a whole to find its fault."""


def fault_at(text: str, position: int) -> Found | None:
    """What stands where the parser of a JSON text gave up, if it is a known kind of fault."""
    if text[position : position + 1] in ("]", "}") and text[:position].rstrip().endswith(","):
        return FAULTS[-1][1]
    return next((found for pattern, found in FAULTS if re.compile(pattern).match(text, position)), None)


def refuse_not_json(path: Path, record: Record, position: str) -> NoReturn:
    """Rejects a file none of whose records is an object, with what it seems to be.

    Args:
        record: its first one.
        position: of that record, for the message: `line 1`.

    Raises:
        BadInput: always.
    """
    name = printable(path)
    if record.reason == "not_an_object":
        found = _not_objects(json.loads(record.raw), name, position)
    else:
        found = _other_kind(path, name) if path.is_file() else None
    if found is None:
        what = f"No line of {name} is a JSON object; {position}: {record.detail}."
        found = what, "Give a JSONL file, one object a line."
    raise BadInput(*found)


def _not_objects(value: object, name: str, position: str) -> Found | None:
    """What JSON values are that are no objects."""
    file, is_item = shlex.quote(name), position.startswith("item")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        step = f"Decode them: jq -c '{'.[] | ' if is_item else ''}fromjson' {file} > rows.jsonl"
        return f"{position} of {name} is a text with JSON in it: its objects are encoded twice.", step
    if not isinstance(value, list):
        return None
    if value and all(isinstance(item, dict) for item in value):
        step = f"Write the objects one a line: jq -c '{'.[][]' if is_item else '.[]'}' {file} > rows.jsonl"
        return f"{name} is a list of lists: {position} is a list of objects.", step
    step = 'Write each row as an object with the names of the columns, {"prompt": "...", ...}, or as CSV with a header.'
    return f"The rows of {name} are lists without names of columns ({position}).", step


def _other_kind(path: Path, name: str) -> Found | None:
    """What a text is that is not JSON, from its first lines."""
    with open_text(path) as text:
        lines = [*islice((line.strip() for line, _ in bounded_lines(text, name) if not line.isspace()), FIRST_LINES)]
    if prefix := next(filter(None, map(_text_before_object, lines)), None):
        step = f"Remove it: sed -n 's/^[^{{]*{{/{{/p' {shlex.quote(name)} > rows.jsonl"
        return f"{name} has text before the JSON of each line: {printable(prefix)!r}.", step
    if any(line[0] in "{[" for line in lines) and (fault := _json_fault(path, name)):
        return fault
    if (names := _table_header(lines)) is not None:
        shown = printable(", ".join(names[:8]))
        return f"{name} is not JSON: its first line looks like the header of a table ({shown}).", "Name it .csv."
    return None


def _text_before_object(line: str) -> str | None:
    """Text before the JSON object of a line, as of a stream of events (`data: {...}`) or a log."""
    start = line.find('{"')
    if start < 1 or line[0] in "[{":
        return None
    try:
        json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return line[: min(start, LONGEST_NAME)].strip()


def _json_fault(path: Path, name: str) -> Found | None:
    """First fault of a text that is meant as JSON, or of its first line."""
    with open_text(path) as file:
        text = file.read(LARGEST)
    text = text.lstrip()
    for part in (text.split("\n", 1)[0], text):
        try:
            json.loads(part)
        except json.JSONDecodeError as error:
            if (found := fault_at(part, error.pos)) is not None:
                return f"{name} is not JSON in line {error.lineno:,}: {found[0]}.", found[1]
        except (ValueError, RecursionError):
            return None
    return None


def _table_header(lines: list[str]) -> list[str] | None:
    """Cells of a first line that looks like the header of a table, with a row after it."""
    for delimiter in TABLE_DELIMITERS:
        cells = [cell.strip().strip('"') for cell in lines[0].split(delimiter)]
        named = len(cells) > 1 and all(0 < len(cell) <= LONGEST_NAME and cell[-1] not in ".!?" for cell in cells)
        if named and len(set(cells)) == len(cells) and any(delimiter in line for line in lines[1:]):
            return cells
    return None
