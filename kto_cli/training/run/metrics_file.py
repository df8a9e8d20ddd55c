"""metrics.jsonl: a line per step, each with a checksum, so that a damaged one is noticed and the others are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common import files
from kto_cli.common.read import parse_json, read_bytes
from kto_cli.common.seals import sealed, unsealed

SHOWN = 5
"""Lines or steps named in a message."""


class Recorded(NamedTuple):
    """What metrics.jsonl holds."""

    lines: list[dict[str, Any]]
    """Sound lines, without their checksums."""
    damaged: list[int]
    """Numbers of damaged lines; a truncated last one, as a killed run leaves it, is not among them."""

    def fault(self, path: Path, until: int) -> str:
        """What is wrong with the record of steps 1 to `until`; empty if nothing is."""
        known = {line["step"] for line in self.lines}
        missing = [step for step in range(1, until + 1) if step not in known]
        parts = []
        if self.damaged:
            parts.append(f"{_listed('line', self.damaged)} damaged and left out")
        if len(missing) > len(self.damaged):
            parts.append(f"{_listed('step', missing)} missing")
        return f"{path}: {', '.join(parts)}. The other lines are kept; no weight depends on them." if parts else ""


def _listed(noun: str, numbers: list[int]) -> str:
    """ "lines 2, 3 ... are" """
    shown = ", ".join(map(str, numbers[:SHOWN])) + (" ..." if len(numbers) > SHOWN else "")
    return f"{noun} {shown} is" if len(numbers) == 1 else f"{noun}s {shown} are"


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Appends one step's numbers.

    Raises:
        DiskFull: no space left. BadInput: the file cannot be written.
    """
    with files.saying_disk_full(path), path.open("a", encoding="utf-8") as file:
        file.write(files.json_lines([sealed(record)]))


def sync(path: Path) -> None:
    """Makes all lines survive a power cut."""
    if path.is_file():
        files.sync_file(path)


def read_lines(path: Path) -> Recorded:
    """All sound lines, and which lines are damaged. Lines of an earlier kto have no checksums.

    Raises:
        BadInput: the file cannot be read.
    """
    if not os.path.lexists(path):
        return Recorded([], [])
    *whole, last = read_bytes(path, "numbers of every step").split(b"\n")
    found = [_parsed(line) for line in whole]
    if last and (torn := _parsed(last)) is not None:  # only its end is missing
        found.append(torn)
    have_seals = any(each is not None and each[1] for each in found)
    lines, damaged = [], []
    for number, each in enumerate(found, start=1):
        if each is None or each[1] is False or (each[1] is None and have_seals):
            damaged.append(number)
        else:
            lines.append(each[0])
    return Recorded(lines, damaged)


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Replaces the file by these lines, atomically."""
    files.write_json_lines(path, map(sealed, lines))


def _parsed(line: bytes) -> tuple[dict[str, Any], bool | None] | None:
    """A line without its checksum, and whether that is right (None: it has none); None if it is no line of kto."""
    try:
        value = parse_json(line.decode("utf-8"), constants=False)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    content, intact = unsealed(value)
    return (content, intact) if type(content.get("step")) is int else None
