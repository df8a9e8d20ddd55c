"""What a finding is, and findings as others want them: a table for the screen, JSON for the manifest, bits for rows."""

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
    """One thing found."""

    name: str
    """A stable snake_case id."""
    summary: str
    """One sentence with its numbers."""
    advice: str
    warns: bool = True
    """A warning, else a note."""
    rows: I8 = field(default_factory=lambda: NO_ROWS)
    """The rows it is about, ascending; none for what is said of all of them."""
    detail: str = ""
    """What is the matter with each of these rows."""
    others: I8 | None = None
    """For each of these rows the other row that `detail` speaks of."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Numbers for the manifest."""


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """For manifest.json; the affected rows as a count."""
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
    """(bits of each row [rows], the finding of each bit): what a second pass over the rows needs to list them.

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
    """The other row that a finding of `row` speaks of."""
    if finding.others is None:
        return None
    return int(finding.others[numpy.searchsorted(finding.rows, row)])
