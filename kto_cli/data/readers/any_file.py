"""Rows of a file of any format, as a stream. The format follows from the suffix, compression from the first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers.arrow_file import arrow_columns, arrow_records
from kto_cli.data.readers.csv_file import csv_columns, csv_records
from kto_cli.data.readers.excel_file import excel_columns, excel_records, sheet_notes
from kto_cli.data.readers.json_array import json_array_records
from kto_cli.data.readers.json_objects import json_object_records, layout_note, layout_of
from kto_cli.data.readers.jsonl import UNPARSED, Record, line_records, parsed
from kto_cli.data.readers.not_json import refuse_not_json
from kto_cli.data.readers.object_folder import object_folder_records
from kto_cli.data.readers.open_file import refuse_empty, starts_with
from kto_cli.data.readers.parquet import parquet_columns, parquet_records

__all__ = ["SUFFIXES", "UNPARSED", "columns", "parsed", "records", "suffix"]

JSON_LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather")
EXCEL = (".xlsx", ".xlsm")
SUFFIXES = (*JSON_LINES, ".json", ".csv", ".tsv", *EXCEL, ".parquet", *ARROW)
COMPRESSED_SUFFIXES = (".gz", ".zst")
OTHER_KINDS = {
    **dict.fromkeys((".xls", ".xlsb", ".ods", ".numbers"), ("a spreadsheet", "Save the sheet as CSV.")),
    **dict.fromkeys((".txt", ".md", ".log", ".dat"), ("a text file", "Save its rows as JSONL or CSV, and name it so.")),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz"), ("an archive", "Unpack it first.")),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), ("a database", "Export the table as CSV.")),
    ".sql": ("an SQL query", "Run: kto binarize sql:FILE"),
    **dict.fromkeys((".orc", ".avro"), ("a table of another format", "Save it as Parquet.")),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz"), ("a pickle or an array", "Save it as JSONL or Parquet.")),
    **dict.fromkeys((".yaml", ".yml", ".xml", ".html"), ("no table", "Save its rows as JSONL.")),
}
"""Suffixes of files that people have instead: what they are, what to do."""
SAMPLE = 1000
"""Objects of a JSON file whose keys are its columns."""


def suffix(name: str) -> str:
    """Suffix of the format: `.csv` of `a.csv.gz`."""
    suffixes = [part.lower() for part in Path(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def format_of(path: Path) -> str:
    """Suffix of the path's format.

    Raises:
        BadInput: none of SUFFIXES.
    """
    found = suffix(path.name)
    if found not in SUFFIXES:
        step = f"Name it {', '.join(SUFFIXES)} (or .gz or .zst of these)."
        if found in OTHER_KINDS:
            what, step = f"{printable(path)} is {OTHER_KINDS[found][0]}.", OTHER_KINDS[found][1]
        elif found:
            what = f"{printable(path)} has the suffix {printable(found)}, which kto does not read."
        else:
            what = f"{printable(path)} has no suffix that tells its format."
        raise BadInput(what, step)
    return found


def is_array(path: Path) -> bool:
    """Whether a JSON file is one array.

    A line of a JSONL file may start with a bracket too; it is an array only if the first item ends on another line.

    Raises:
        BadInput: see `open_bytes`.
    """
    head = starts_with(path, 4096).lstrip()
    if not head.startswith(b"["):
        return False
    return suffix(path.name) not in JSON_LINES or re.match(rb"\[\s*[\r\n]|[^\r\n]*,\s*[\r\n]", head) is not None


def json_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """Items of an array or objects over several lines (parsed), or lines or files of a folder (unparsed).

    Raises:
        BadInput: see `open_bytes`, `layout_of` and `object_folder_records`.
    """
    if path.is_dir():
        return object_folder_records(path, name)
    if is_array(path):
        return json_array_records(path, name, wanted)
    layout = layout_of(path)
    return json_object_records(path, name, layout, wanted) if layout else line_records(path, name)


def layout_notes(path: Path) -> list[str]:
    """Notes on a file of which only a part is read, or whose rows are found in another way than its suffix says.

    Raises:
        BadInput: see `json_records`.
    """
    if suffix(path.name) in EXCEL:
        return sheet_notes(path)
    is_json = suffix(path.name) in (*JSON_LINES, ".json")
    layout = layout_of(path) if is_json and path.is_file() and not is_array(path) else None
    return [layout_note(layout)] if layout else []


def json_columns(path: Path) -> list[str]:
    """Keys of the first SAMPLE objects, in order of occurrence.

    Raises:
        BadInput: no object in the whole file, or see `open_bytes`.
    """
    found: dict[str, None] = {}
    valid, count, faulty = 0, 0, None
    for record in map(parsed, json_records(path, "", None)):
        count += 1
        if record.values is not None:
            valid += 1
            found.update(dict.fromkeys(record.values))
        faulty = faulty or (record if record.values is None else None)
        if valid and count >= SAMPLE:
            break
    if not count:
        refuse_empty(printable(path))
    if faulty is not None and not valid:
        position = faulty.origin.removeprefix(":")
        refuse_not_json(path, faulty, position if " " in position else f"line {position}")
    return list(found)


def columns(path: Path, name: str, wanted: Sequence[str]) -> list[str]:
    """Column names of a file, from its first rows; `wanted` helps to find a CSV's delimiter.

    Args:
        path: a file, or a folder of files with one object each.

    Raises:
        BadInput: missing, another folder, empty, damaged, of no known format, or no row of it is a JSON object.
    """
    kind = ".json" if path.is_dir() else format_of(path)
    if kind == ".parquet":
        return parquet_columns(path)
    if kind in ARROW:
        return arrow_columns(path)
    if kind in (".csv", ".tsv"):
        return [column for column in csv_columns(path, wanted) if column]
    if kind in EXCEL:
        return [column for column in excel_columns(path) if column]
    return json_columns(path)


def records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """Rows of a file, with the origin NAME:LINE, NAME:item N or NAME:row N and the wanted columns (None: all).

    JSON lines are UNPARSED: `parsed` parses them, in any process. A folder of files with one object each is read as one
    file; their origin is NAME/FILE.

    Raises:
        BadInput: missing, another folder, without rows, of no known format, or damaged (raised where the damage is).
    """
    kind = ".json" if path.is_dir() else format_of(path)
    if kind == ".parquet":
        rows = parquet_records(path, name, wanted)
    elif kind in ARROW:
        rows = arrow_records(path, name, wanted)
    elif kind in (".csv", ".tsv"):
        rows = csv_records(path, name, wanted)
    elif kind in EXCEL:
        rows = excel_records(path, name, wanted)
    else:
        rows = json_records(path, name, wanted)
    first = next(rows, None)
    if first is None:
        raise BadInput(f"{printable(path)} has no rows.", "Give a file with at least one row.")
    yield from chain((first,), rows)
