"""Counts of a run of `kto binarize`, and its summary on the screen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.weights import choose_weights, lambda_interval
from kto_cli.data.audit.findings import as_json
from kto_cli.data.columns import Columns, Flags
from kto_cli.data.dataset import REMARKS
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.data.pipeline.assign import Assignment
from kto_cli.data.pipeline.export_pairs import NAME as PAIRS
from kto_cli.data.pipeline.outcome import DROPPED, REJECTED
from kto_cli.data.select import Chosen


def account(
    columns: Columns, assigned: Assignment, unused: Counter[tuple[str, str]], lines: int, sources: list[Chosen]
) -> dict[str, Any]:
    """Counts of the result, checked to add up.

    Args:
        unused: (kind, reason) -> rows of input that never became rows. lines: records read.
    """
    outcomes = assigned.outcomes
    rows_in = len(columns) + sum(unused.values())
    reasons = {kind: by_reason(kind, outcomes.counts(kind), unused) for kind in (REJECTED, DROPPED)}
    train, validation = per_class(columns, outcomes.train), per_class(columns, outcomes.validation)
    accounted = sum(sum(part.values()) for part in (train, validation, *reasons.values()))
    assert accounted == rows_in, f"{rows_in} rows in, {accounted} accounted for"
    return {
        "rows_in": rows_in,
        **train,
        "validation": sum(validation.values()),
        "dropped": sum(reasons[DROPPED].values()),
        "rejected": reasons[REJECTED],
        "lambda_interval": lambda_interval(**train) if all(train.values()) else None,
        "lines_in": lines,
        "splits": {"train": train, "validation": validation},
        "dropped_reasons": reasons[DROPPED],
        "findings": as_json(assigned.findings),
        **({} if assigned.made_pairs is None else {"made_pairs": assigned.made_pairs._asdict()}),
        "sources": [
            {"name": one.name, "kind": one.source.name, **one.where, **per_class(columns, outcomes.train & rows)}
            for one, rows in zip(sources, (columns.sources == number for number in range(len(sources))), strict=True)
        ],
    }


def by_reason(kind: str, of_rows: dict[str, int], unused: Counter[tuple[str, str]]) -> dict[str, int]:
    """Number of rows by reason, the most frequent first."""
    total = Counter(of_rows)
    total.update({reason: rows for (each, reason), rows in unused.items() if each == kind})
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def per_class(columns: Columns, rows: Flags) -> dict[str, int]:
    """Number of rows per class."""
    desirable = int((rows & (columns.labels == 1)).sum())
    return {"desirable": desirable, "undesirable": int(rows.sum()) - desirable}


def show(result: dict[str, Any], screen: Screen) -> None:
    """Shows the tables, the counts and the next command."""
    splits, sources = result["splits"], result["sources"]
    rows = [(name, *split.values(), sum(split.values())) for name, split in splits.items()]
    title = sources[0]["name"] if len(sources) == 1 else f"{len(sources)} sources"
    screen.table(f"Rows of {title}", ("split", "desirable", "undesirable", "total"), rows)
    if len(sources) > 1:
        mix = [(one["name"], one["desirable"], one["undesirable"]) for one in sources]
        screen.table("Training rows by source", ("source", "desirable", "undesirable"), mix)
    unused = [("rejected: " + reason, count) for reason, count in result["rejected"].items()]
    unused += [("dropped: " + reason, count) for reason, count in result["dropped_reasons"].items()]
    if unused:
        screen.table("Not used", ("reason", "rows"), unused)
    if (replaced := result.get("scrubbed")) is not None:
        kinds = [(kind, each["values"], each["rows"]) for kind, each in replaced.items()]
        screen.table("Replaced (--scrub)", ("finding", "values", "rows"), kinds or [("nothing was found", 0, 0)])
    show_findings(result["findings"], screen)
    screen.say(counts_sentence(result))
    one_class = result["lambda_interval"] is None
    if one_class:
        screen.say("Rows of desirable answers alone (--for sft): KTO and losses of pairs cannot learn from them.")
    else:
        screen.say(weights_sentence(result["desirable"], result["undesirable"]))
    if result["out"] is None:
        screen.say("Nothing was written (--check). Without --check, findings.jsonl lists every row with a finding.")
        return
    details = "; its rejects.jsonl lists the unused rows and why" if unused else ""
    screen.say(f"Written to {result['out']}{details}.")
    if REMARKS in result["files"]:
        screen.say(f"Its {REMARKS} has what raters wrote beside their ratings.")
    for path, count in result["exports"].items():
        counted = plural(count, "pair" if path.startswith(f"{PAIRS}/") else "row")
        screen.say(f"Also written: {Path(result['out']) / path} ({counted}).")
    for path, count in result["exports_left_out"].items():
        screen.say(f"Left out of {path}: {plural(count, 'row')} in no pair.")
    flag = data_flag(Path(result["out"]))
    if one_class:
        screen.say(f"Next: kto train --loss sft{flag}")
    else:
        screen.say(f"Next: kto precompute{flag}, or directly kto train{flag}")


def counts_sentence(result: dict[str, Any]) -> str:
    """Sentence on the outcomes of all rows."""
    read = f"{plural(result['rows_in'], 'row')} read from {plural(result['lines_in'], 'record')}"
    train, rejected = result["desirable"] + result["undesirable"], sum(result["rejected"].values())
    used = f"{train:,} for training, {result['validation']:,} for validation"
    return f"{read}: {used}, {result['dropped']:,} dropped, {rejected:,} rejected."


def weights_sentence(desirable: int, undesirable: int) -> str:
    """Sentence on the class weights that Eq. 8 of the KTO paper recommends for these counts."""
    weights = choose_weights(desirable, undesirable)
    recommended = "lambda_d 1, lambda_u 1 (the default of kto train)"
    if (weights.lambda_d, weights.lambda_u) != (1, 1):
        raised, other = ("lambda_d", "lambda_u") if weights.lambda_d > 1 else ("lambda_u", "lambda_d")
        low, high = lambda_interval(desirable, undesirable)[raised]
        recommended = f"{other} 1, {raised} {low:.4g} to {high:.4g} (default of kto train: {low:.4g})"
    return f"Recommended class weights (KTO paper, Eq. 8): {recommended}."


def show_findings(findings: list[dict[str, Any]], screen: Screen) -> None:
    """Shows the doctor's findings, warnings first; the manifest has all of them."""
    rows = [
        ("! " + one["summary"] if one["severity"] == "warning" else one["summary"], one["advice"] or "-")
        for one in sorted(findings, key=lambda one: one["severity"] != "warning")
        if one["advice"] or one["finding"] == "length_bias"
    ]
    if rows:
        screen.texts("Doctor", ("found", "what to do"), rows)


def data_flag(out: Path) -> str:
    """Flag with which the next command finds this dataset; empty if it is the only one in data/."""
    try:
        return "" if find_data_dir(None) == out else f" --data {out}"
    except BadInput:
        return f" --data {out}"
