"""What a run of `kto binarize` counts, and how it looks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.core.weights import lambda_interval
from kto_cli.data.audit.findings import as_json
from kto_cli.data.columns import Columns, Flags
from kto_cli.data.dataset import find_data_dir
from kto_cli.data.pipeline.assign import Decision
from kto_cli.data.pipeline.outcome import DROPPED, REJECTED
from kto_cli.data.select import Chosen


def account(
    columns: Columns, decision: Decision, lost: Counter[tuple[str, str]], lines: int, sources: list[Chosen]
) -> dict[str, Any]:
    """All counts of the result; that they add up is checked here.

    Args:
        lost: (kind, reason) -> rows of the input that gave none. lines: records read.
    """
    fates = decision.fates
    rows_in = len(columns) + sum(lost.values())
    reasons = {kind: together(kind, fates.counts(kind), lost) for kind in (REJECTED, DROPPED)}
    train, validation = per_class(columns, fates.train), per_class(columns, fates.validation)
    accounted = sum(sum(part.values()) for part in (train, validation, *reasons.values()))
    assert accounted == rows_in, f"{rows_in} rows in, {accounted} accounted for"
    return {
        "rows_in": rows_in,
        **train,
        "validation": sum(validation.values()),
        "dropped": sum(reasons[DROPPED].values()),
        "rejected": reasons[REJECTED],
        "lambda_interval": lambda_interval(train["desirable"], train["undesirable"]),
        "lines_in": lines,
        "splits": {"train": train, "validation": validation},
        "dropped_reasons": reasons[DROPPED],
        "findings": as_json(decision.findings),
        "sources": [
            {"name": one.name, "kind": one.source.name, **one.where, **per_class(columns, fates.train & rows)}
            for one, rows in zip(sources, (columns.sources == number for number in range(len(sources))), strict=True)
        ],
    }


def together(kind: str, of_rows: dict[str, int], lost: Counter[tuple[str, str]]) -> dict[str, int]:
    """Rows by reason, the most frequent first."""
    total = Counter(of_rows)
    total.update({reason: rows for (each, reason), rows in lost.items() if each == kind})
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def per_class(columns: Columns, rows: Flags) -> dict[str, int]:
    """How many of the rows are of each class."""
    desirable = int((rows & (columns.labels == 1)).sum())
    return {"desirable": desirable, "undesirable": int(rows.sum()) - desirable}


def show(result: dict[str, Any], screen: Screen) -> None:
    """The tables and the next command."""
    splits, sources = result["splits"], result["sources"]
    rows = [(name.replace("_", "-"), *split.values(), sum(split.values())) for name, split in splits.items()]
    title = sources[0]["name"] if len(sources) == 1 else f"{len(sources)} sources"
    screen.table(title, ("rows", "desirable", "undesirable", "all"), rows)
    if len(sources) > 1:
        mix = [(one["name"], one["desirable"], one["undesirable"]) for one in sources]
        screen.table("To learn from, by source", ("source", "desirable", "undesirable"), mix)
    lost = [("rejected: " + reason, count) for reason, count in result["rejected"].items()]
    lost += [("dropped: " + reason, count) for reason, count in result["dropped_reasons"].items()]
    if lost:
        screen.table("Not used", ("reason", "rows"), lost)
    show_findings(result["findings"], screen)
    total = sum(result["rejected"].values())
    screen.say(f"{result['lines_in']:,} lines, {result['rows_in']:,} rows in; {total:,} rejected.")
    low_d, high_d = result["lambda_interval"]["lambda_d"]
    low_u, high_u = result["lambda_interval"]["lambda_u"]
    interval = f"lambda_d in [{low_d:.4g}, {high_d:.4g}] with lambda_u 1, or lambda_u in [{low_u:.4g}, {high_u:.4g}]"
    screen.say(f"Weights (Eq. 8): {interval} with lambda_d 1.")
    if result["out"] is None:
        screen.say(
            "Nothing was written (--check). A run without it lists every row of these findings in findings.jsonl."
        )
        return
    screen.say(f"Written to {result['out']}." + (" rejects.jsonl says why rows are not used." if lost else ""))
    for path, count in result["exports"].items():
        screen.say(f"{count:,} rows in {Path(result['out']) / path}.")
    flag = data_flag(Path(result["out"]))
    screen.say(f"Next: kto precompute{flag}, or at once kto train{flag}")


def show_findings(findings: list[dict[str, Any]], screen: Screen) -> None:
    """What the doctor says: warnings first, then what is worth knowing; all of it is in the manifest."""
    rows = [
        ("! " + one["summary"] if one["severity"] == "warning" else one["summary"], one["advice"] or "-")
        for one in sorted(findings, key=lambda one: one["severity"] != "warning")
        if one["advice"] or one["finding"] == "length_bias"
    ]
    if rows:
        screen.texts("Doctor", ("found", "what to do"), rows)


def data_flag(out: Path) -> str:
    """What the next command needs to find this dataset: nothing where it is the only one in data/."""
    try:
        return "" if find_data_dir(None) == out else f" --data {out}"
    except BadInput:
        return f" --data {out}"
