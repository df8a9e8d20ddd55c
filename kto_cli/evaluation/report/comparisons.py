"""This checkpoint compared with others on the same validation rows: differences and their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kto_cli.common.tables import LABELS
from kto_cli.evaluation.files import COMPARISONS
from kto_cli.evaluation.report.evidence import Evidence, is_number, objects, part
from kto_cli.evaluation.report.numbers import Grid, is_known_interval, shown

VERDICTS = {"second": "yes", "first": "no, worse", "differs": "differs", "unclear": "not shown"}
"""Whether the second is better than the first."""


@dataclass(frozen=True)
class ComparisonTable:
    """A comparison of two checkpoints."""

    first: str
    second: str
    table: Grid


def comparison_tables(evidence: Evidence) -> list[ComparisonTable]:
    """Every comparison this checkpoint was part of."""
    found: list[ComparisonTable] = []
    for index, one in enumerate(objects(evidence.part(COMPARISONS).get("comparisons"))):
        differences = part(one, "differences")
        rows = [_row(name, part(differences, name)) for name in differences if part(differences, name)]
        names = (shown(one.get("first")), shown(one.get("second")))
        source = f"{evidence.results_folder}/{COMPARISONS}: comparisons.{index}.differences"
        columns = ["", f"is {names[1]} better?", "difference", "90 % interval", *names]
        if rows:
            found.append(ComparisonTable(*names, Grid(columns, rows, source, note=_note(one))))
    return found


def _row(name: str, one: dict[str, Any]) -> list[str]:
    return [
        LABELS.get(name, name.replace("_", " ")),
        VERDICTS.get(str(one.get("verdict")), shown(one.get("verdict"))),
        _four(one.get("difference"), "+"),
        " to ".join(_four(edge, "+") for edge in one["interval"]) if is_known_interval(one.get("interval")) else "",
        _four(one.get("first")),
        _four(one.get("second")),
    ]


def _four(value: Any, sign: str = "") -> str:
    """Four decimals, so that a column can be compared."""
    return f"{value:{sign}.4f}" if is_number(value) else "-"


def _note(one: dict[str, Any]) -> str:
    rows = one.get("rows")
    return f"On the same {rows:,} validation rows; intervals are paired." if isinstance(rows, int) else ""
