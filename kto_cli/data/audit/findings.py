"""One finding of the doctor; findings as JSON for the manifest and as bits per row for findings.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import I8

Marks = NDArray[numpy.uint64]
NO_ROWS: I8 = numpy.zeros(0, numpy.int64)


@dataclass(frozen=True, eq=False)
class Finding:
    """Finding of the doctor."""

    name: str
    """A stable snake_case id."""
    summary: str
    """One sentence with its numbers."""
    advice: str
    """What to do, without the fix."""
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
    fix: str = ""
    """The `--fix` that would change something, if there is one."""


FIX_DOES = {
    "contradictions": "drops all of them",
    "duplicates": "keeps the first of each",
    "refusals": "drops them",
    "urls": "drops them",
    "echoes": "drops them",
    "cut-answers": "drops them",
    "encoding": "restores the text",
    "near-duplicates": "keeps them on one side of the split",
}
LEFT = "the fix left these as they are: findings.jsonl lists them"


def with_advice(finding: Finding, fixes: frozenset[str]) -> Finding:
    """Finding whose advice includes its fix, or says that the fix was made and what is left."""
    if not finding.fix:
        return finding
    advice = LEFT if finding.fix in fixes else f"--fix {finding.fix} {FIX_DOES[finding.fix]}"
    return replace(finding, advice="; ".join(filter(None, (finding.advice, advice))), fix="")


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
        ValueError: more than 64 findings of rows.
    """
    of_rows = [finding for finding in findings if len(finding.rows)]
    if len(of_rows) > 64:
        raise ValueError(f"{len(of_rows)} findings do not fit in 64 bits")
    marks = numpy.zeros(rows, numpy.uint64)
    for bit, finding in enumerate(of_rows):
        marks[finding.rows] |= numpy.uint64(1 << bit)
    return marks, of_rows


def other_row(finding: Finding, row: int) -> int | None:
    """Other row that the finding of `row` refers to, if any."""
    if finding.others is None:
        return None
    return int(finding.others[numpy.searchsorted(finding.rows, row)])
