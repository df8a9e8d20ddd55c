"""Seals: a JSON object carries the hash of its own content, so that a changed bit or an edit by hand is noticed.

    {"step": 6, ..., "seal": "kto:0123456789abcdef"}

Objects of earlier versions of kto have none, and are read as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import finite, text_hash, write_json
from kto_cli.common.read import read_json, read_object

SEAL, MARK = "seal", "kto:"


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The object with its seal as the last key; an earlier seal is replaced."""
    value = {key: item for key, item in value.items() if key != SEAL}
    return {**value, SEAL: _seal_of(value)}


def unsealed(value: dict[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """The object without its seal, and whether the seal is right; None: it never had one.

    A seal under another key is a damaged one.
    """
    content = {key: item for key, item in value.items() if key != SEAL}
    if SEAL in value:
        return content, value[SEAL] == _seal_of(content)
    damaged = any(isinstance(item, str) and item.startswith(MARK) for item in content.values())
    return content, False if damaged else None


def _seal_of(value: dict[str, Any]) -> str:
    return MARK + text_hash(json.dumps(as_read_back(value), sort_keys=True))


def as_read_back(value: dict[str, Any]) -> dict[str, Any]:
    """An object as JSON gives it back: tuples are lists, keys are texts."""
    found: dict[str, Any] = json.loads(json.dumps(finite(value)))
    return found


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes an object with its seal as indented JSON, atomically."""
    write_json(path, sealed(value))


def read_sealed(path: Path, what: str) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its seal; `what` describes the file in the error.

    Raises:
        BadInput: it cannot be read, or is not what was written.
    """
    value, intact = unsealed(read_object(path, what))
    if intact is False:
        raise BadInput(f"{path} is damaged or was changed by hand ({what}): its checksum differs.", "Restore the file.")
    return value


def is_changed(path: Path) -> bool:
    """Whether a file has a seal that is not right; False for files of others."""
    try:
        value = read_json(path, "a sealed file")
    except BadInput:
        return False
    return isinstance(value, dict) and unsealed(value)[1] is False
