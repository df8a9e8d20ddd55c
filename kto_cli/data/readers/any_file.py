"""Rows of a file of any format, as a stream: told by the name's suffix, packed or not by the first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.data.readers.csv_file import csv_columns, csv_records
from kto_cli.data.readers.json_array import json_array_records
from kto_cli.data.readers.jsonl import UNPARSED, Record, line_records, parsed
from kto_cli.data.readers.open_file import printable, refuse_useless, starts_with
from kto_cli.data.readers.parquet import parquet_columns, parquet_records

__all__ = ["SUFFIXES", "UNPARSED", "columns", "parsed", "records", "suffix"]

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*JSON_LINES, ".json", ".csv", ".tsv", ".parquet")
PACKED_SUFFIXES = (".gz", ".zst")
LOOK = 1000
"""JSON has no header: the columns are the keys of so many objects."""


def suffix(name: str) -> str:
    """The suffix that tells the format: `.csv` of `a.csv.gz`."""
    suffixes = [part.lower() for part in Path(name).suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def format_of(path: Path) -> str:
    """The suffix of the path that tells its format.

    Raises:
        BadInput: none of SUFFIXES.
    """
    found = suffix(path.name)
    if found not in SUFFIXES:
        step = f"Name it {', '.join(SUFFIXES)} (or .gz or .zst of these)."
        raise BadInput(f"{printable(path)} has no suffix that tells its format.", step)
    return found


def is_array(path: Path) -> bool:
    """Whether a JSON file is one array.

    A line of JSON Lines may begin with a bracket too: there the name decides, unless the line goes on in the next.

    Raises:
        BadInput: see `open_bytes`.
    """
    head = starts_with(path, 4096).lstrip()
    if not head.startswith(b"["):
        return False
    return suffix(path.name) not in JSON_LINES or re.match(rb"\[\s*[\r\n]|[^\r\n]*,\s*[\r\n]", head) is not None


def json_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """The items of an array, parsed, or the lines, not parsed.

    Raises:
        BadInput: see `open_bytes`.
    """
    return json_array_records(path, name, wanted) if is_array(path) else line_records(path, name)


def json_columns(path: Path) -> list[str]:
    """The keys of the first LOOK objects, in the order they are met.

    Raises:
        BadInput: no object in the whole file, or see `open_bytes`.
    """
    found: dict[str, None] = {}
    whole, count, first_fault = 0, 0, None
    for record in map(parsed, json_records(path, "", None)):
        count += 1
        if record.values is not None:
            whole += 1
            found.update(dict.fromkeys(record.values))
        elif first_fault is None:
            place = record.origin.removeprefix(":")
            first_fault = f"{place if ' ' in place else f'line {place}'}: {record.detail}"
        if whole and count >= LOOK:
            break
    if not whole:
        refuse_useless(printable(path), first_fault, count)
    return list(found)


def columns(path: Path, name: str, wanted: Sequence[str]) -> list[str]:
    """The column names of a file, read from its beginning; `wanted` tells a CSV's delimiter. `name` is not needed.

    Raises:
        BadInput: missing, a folder, empty, damaged, of no known format, or no row of it is a JSON object.
    """
    kind = format_of(path)
    if kind == ".parquet":
        return parquet_columns(path)
    if kind in (".csv", ".tsv"):
        return [column for column in csv_columns(path, wanted) if column]
    return json_columns(path)


def records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """The rows of a file, called NAME:LINE, NAME:item N or NAME:row N, with the wanted columns (None: all).

    JSON lines are not parsed but given as UNPARSED: `parsed` does that, in any process.

    Raises:
        BadInput: missing, a folder, without rows, of no known format, or damaged (raised where the damage is).
    """
    kind = format_of(path)
    if kind == ".parquet":
        rows = parquet_records(path, name, wanted)
    elif kind in (".csv", ".tsv"):
        rows = csv_records(path, name, wanted)
    else:
        rows = json_records(path, name, wanted)
    first = next(rows, None)
    if first is None:
        raise BadInput(f"{printable(path)} has no rows.", "Give a file with at least one row.")
    yield from chain((first,), rows)
