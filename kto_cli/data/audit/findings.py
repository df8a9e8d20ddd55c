"""One finding of the doctor; findings as JSON for the manifest and as bits per row for findings.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import I8

Marks = NDArray[numpy.uint32]
NO_ROWS: I8 = numpy.zeros(0, numpy.int64)


@dataclass(frozen=True, eq=False)
class Finding:
    """Finding of the doctor."""

    name: str
    """A stable snake_case id."""
    summary: str
    """One sentence with its numbers."""
    advice: str
    warns: bool = True
    """A warning, else a note."""
    rows: I8 = field(default_factory=lambda: NO_ROWS)
    """Affected rows, ascending; none for a finding about the rows as a whole."""
    detail: str = ""
    """Fault of each affected row."""
    others: I8 | None = None
    """For each affected row, the other row that `detail` refers to."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Numbers for the manifest."""


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings for manifest.json, with the number of affected rows."""
    return [
        {
            "finding": finding.name,
            "severity": "warning" if finding.warns else "note",
            "rows": len(finding.rows),
            "summary": finding.summary,
            "advice": finding.advice,
            **({"facts": finding.facts} if finding.facts else {}),
        }
        for finding in findings
    ]


def mark(findings: Sequence[Finding], rows: int) -> tuple[Marks, list[Finding]]:
    """([rows] bits of each row, the finding of each bit), for the second pass over the rows, which lists them.

    Raises:
        ValueError: more than 32 findings of rows.
    """
    of_rows = [finding for finding in findings if len(finding.rows)]
    if len(of_rows) > 32:
        raise ValueError(f"{len(of_rows)} findings do not fit in 32 bits")
    marks = numpy.zeros(rows, numpy.uint32)
    for bit, finding in enumerate(of_rows):
        marks[finding.rows] |= numpy.uint32(1 << bit)
    return marks, of_rows


def other_row(finding: Finding, row: int) -> int | None:
    """Other row that the finding of `row` refers to, if any."""
    if finding.others is None:
        return None
    return int(finding.others[numpy.searchsorted(finding.rows, row)])
