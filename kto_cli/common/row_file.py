"""Files of rows in TRL's columns, JSON lines, that a command appends to and goes on with after a kill.

`append_rows` leaves all its rows or none, but a kill or a power cut may leave a part of the last line. It is told from
the end of somebody's own file by how it begins, and is never read as a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.files import append_synced, json_lines, saying_disk_full
from kto_cli.common.read import parse_json, read_bytes
from kto_cli.common.words import printable

STARTS = b'{"prompt": '
"""How each line begins, and what is left of one."""


class RowsRead(NamedTuple):
    """What a file holds."""

    rows: list[Any]
    """[lines] any JSON."""
    torn: bool
    """Whether its last line is a part of a row, and not among `rows`."""
    ended: bool
    """Whether the last line has its end; otherwise the file is to be written anew before a row is appended."""


def read_rows(path: Path, what: str) -> RowsRead:
    """The rows of a file.

    Args:
        what: describes the file in an error.

    Raises:
        BadInput: it cannot be read, or is damaged elsewhere than at its end.
    """
    *lines, last = read_bytes(path, what).split(b"\n")
    torn = last.startswith(STARTS[: len(last)]) and not _is_json(last) if last else False
    if last and not torn:
        lines.append(last)
    return RowsRead([_row(path, number, line) for number, line in enumerate(lines, start=1)], torn, not last)


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Appends rows, all or none; they survive a power cut once it returns.

    Raises:
        DiskFull: no space left. BadInput: the file cannot be written.
    """
    with saying_disk_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        append_synced(path, json_lines(rows).encode())


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line.decode("utf-8"))
    except ValueError:
        return False
    return True


def _row(path: Path, number: int, line: bytes) -> Any:
    try:
        return parse_json(line.decode("utf-8"))
    except ValueError as error:
        raise BadInput(f"Line {number} of {printable(path)} is damaged: {error}.", "Remove the line.") from error
