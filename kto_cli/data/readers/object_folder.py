"""A folder of JSON files with one object each, read as one file: each object is a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers.json_objects import layout_of
from kto_cli.data.readers.jsonl import UNPARSED, Record
from kto_cli.data.readers.open_file import open_text

LARGEST = 2**24
"""Bytes of a file of one object; a larger one is read as a stream, by itself."""
JSON_FILES = ("*.json", "*.json.gz", "*.json.zst")


def object_files(folder: Path) -> list[Path]:
    """Files directly in a folder that hold one object each, and those among them that are empty or damaged.

    Returns:
        None of them if fewer than two are sound: they are files of their own.

    Raises:
        BadInput: a file cannot be read as text.
    """
    found = sorted(path for pattern in JSON_FILES for path in folder.glob(pattern) if not path.name.startswith("."))
    kinds = {path: _holds_one_object(path) for path in found if path.is_file()}
    sound = sum(kind is True for kind in kinds.values())
    return [path for path, kind in kinds.items() if kind is not False] if sound > 1 else []


def _holds_one_object(path: Path) -> bool | None:
    """Whether a file is one object that is a row; None if it is empty or damaged."""
    if path.stat().st_size > LARGEST:
        return False
    text = _text(path).strip()
    if not text:
        return None
    if text[0] != "{":
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return False if error.msg.startswith("Extra data") else None
    except (ValueError, RecursionError):
        return None
    layout = layout_of(path)
    return layout is None or not layout.rows


def _text(path: Path) -> str:
    with open_text(path) as text:
        return text.read()


def object_folder_records(folder: Path, name: str) -> Iterator[Record]:
    """One record per file, UNPARSED, with the origin NAME/FILE; an empty file is a fault.

    Raises:
        BadInput: there are no such files, or one cannot be read.
    """
    files = object_files(folder)
    if not files:
        raise BadInput(f"{printable(folder)} is a folder, not a file.", "Name the file itself.")
    for path in files:
        origin, text = f"{name}/{path.name}", _text(path).strip()
        yield Record(origin, None, text, UNPARSED) if text else Record(origin, None, "", "not_json", "it is empty")
