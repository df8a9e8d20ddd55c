"""The file of `kto sample`: JSON lines in TRL's columns, one answer each.

    {"prompt": [...], "completion": [...], "draw": 1, "model": "checkpoint", "tokens": 31, "ended": true,
     "key": "0123456789abcdef", "of": "0123456789abcdef"}

`key` names prompt and draw, `of` what answered them how: weights, decoding, engine, judge. Where they are known also
`target`, `tools`, and what a judge said: `score` of a reward model; `label` (true, false or null), `model_first` and
`baseline_first` of a judge that compares with the target.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import append_synced, json_lines, replacing, saying_disk_full
from kto_cli.common.read import parse_json, read_bytes
from kto_cli.common.secrets import scrub_all
from kto_cli.common.words import plural, printable

WHAT = "answers of kto sample"
STARTS = b'{"prompt": '
"""How each line begins, and what is left of one."""


class SampleFile:
    """The answers in a file; what is appended is on the disk when `append` returns."""

    def __init__(self, path: Path, of: str) -> None:
        """Reads what is there; a last line that a kill left half-written is removed from the file.

        Args:
            of: what answers now.

        Raises:
            BadInput: the file is no file of answers, damaged elsewhere than at its end, or of something else.
        """
        self.path, self._of = path, of
        self.rows: dict[str, dict[str, Any]] = {}
        """By key."""
        self.notes: list[str] = []
        if path.exists() or path.is_symlink():
            self._read()

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Appends answers, all or none; `of` is added to each.

        Raises:
            DiskFull: no space left. BadInput: the file cannot be written.
        """
        rows = [{**row, "of": self._of} for row in rows]
        with saying_disk_full(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_synced(self.path, json_lines(scrub_all(rows)).encode())
        self.rows |= {row["key"]: row for row in rows}

    def _read(self) -> None:
        *lines, last = read_bytes(self.path, WHAT).split(b"\n")
        torn = last.startswith(STARTS[: len(last)]) and not _is_json(last) if last else False
        if last and not torn:
            lines.append(last)
        for number, line in enumerate(lines, start=1):
            row = self._row(number, line)
            self.rows[row["key"]] = row
        if torn:
            self.notes.append(f"{printable(self.path)} ends in an answer that was not saved completely: removed.")
        if last:
            with replacing(self.path) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        if self.rows:
            self.notes.append(f"{plural(len(self.rows), 'answer')} in {printable(self.path)} from before.")

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        """
        Raises:
            BadInput: it is no answer, or of another model or other settings.
        """
        where = f"Line {number} of {printable(self.path)}"
        try:
            row = parse_json(line.decode("utf-8"))
        except ValueError as error:
            raise BadInput(f"{where} is damaged: {error}.", "Remove the line.") from error
        texts = ("key", "of", "model")
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in texts):
            raise BadInput(f"{where} is not an answer of kto sample.", "Give another file with --out.")
        if row["of"] != self._of:
            what = f"{printable(self.path)} holds answers of other weights, settings or another judge"
            raise BadInput(f"{what} (by {printable(row['model'])}).", "Give another file with --out.")
        return dict(row)


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line.decode("utf-8"))
    except ValueError:
        return False
    return True
