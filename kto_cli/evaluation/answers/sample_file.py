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
from kto_cli.common.files import write_json_lines
from kto_cli.common.row_file import append_rows, read_rows
from kto_cli.common.secrets import scrub_all
from kto_cli.common.words import plural, printable

WHAT = "answers of kto sample"


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
        append_rows(self.path, scrub_all(rows))
        self.rows |= {row["key"]: row for row in rows}

    def _read(self) -> None:
        found, torn, ended = read_rows(self.path, WHAT)
        rows = [self._row(number, row) for number, row in enumerate(found, start=1)]
        self.rows = {row["key"]: row for row in rows}
        if torn:
            self.notes.append(f"{printable(self.path)} ends in an answer that was not saved completely: removed.")
        if not ended:
            write_json_lines(self.path, rows)
        if self.rows:
            self.notes.append(f"{plural(len(self.rows), 'answer')} in {printable(self.path)} from before.")

    def _row(self, number: int, row: Any) -> dict[str, Any]:
        """
        Raises:
            BadInput: it is no answer, or of another model or other settings.
        """
        texts, others = ("key", "of", "model"), {"prompt", "completion", "ended"}
        sound = isinstance(row, dict) and all(isinstance(row.get(name), str) for name in texts) and others <= row.keys()
        if not sound:
            what = f"Line {number} of {printable(self.path)} is not an answer of kto sample."
            raise BadInput(what, "Give another file with --out.")
        if row["of"] != self._of:
            what = f"{printable(self.path)} holds answers of other weights, settings or another judge"
            raise BadInput(f"{what} (by {printable(row['model'])}).", "Give another file with --out.")
        return dict(row)
