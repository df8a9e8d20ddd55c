"""Benchmarks of the checkpoint beside those of its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kto_cli.common.screen import number
from kto_cli.common.words import plural
from kto_cli.evaluation.files import BENCHMARKS
from kto_cli.evaluation.report.charts import Chart
from kto_cli.evaluation.report.evidence import Evidence, is_number, number_or_nan, part
from kto_cli.evaluation.report.interval_chart import Measured, interval_chart
from kto_cli.evaluation.report.numbers import Grid, interval_text, is_known_interval, shown


@dataclass(frozen=True)
class BenchmarkSection:
    """The report's section on benchmarks."""

    sentence: str
    """What changed."""
    about: str
    """How it was run."""
    chart: Chart | None
    table: Grid
    parts: list[tuple[str, Grid]]
    """(name, table of its tasks) of each benchmark with several tasks."""


def benchmark_section(evidence: Evidence) -> BenchmarkSection | None:
    """The section from benchmarks.json; None if none was run."""
    found = evidence.part(BENCHMARKS)
    tasks, where = part(found, "tasks"), f"{evidence.results_folder}/{BENCHMARKS}"
    if not tasks:
        return None
    against, before = part(found, "against_reference"), part(found, "reference")
    chart = interval_chart(
        "benchmarks",
        "Did anything break?",
        "What changed against the reference on the same questions; bars are 90 % intervals. Left of the line is worse "
        "where higher is better.",
        [
            Measured(name, float(one["difference"]), one["interval"])
            for name in tasks
            if is_number((one := part(against, name)).get("difference")) and is_known_interval(one.get("interval"))
        ],
        line=0,
        axis="difference to the reference",
        source=f"{where}: against_reference",
    )
    columns = ["", "shots", "metric", "questions", "this checkpoint", "reference", "better?"]
    rows = [_row(name, part(tasks, name), part(before, name), part(against, name)) for name in tasks]
    parts = [
        (name, _parts(part(part(tasks, name), "subtasks"), f"{where}: tasks.{name}.subtasks"))
        for name in tasks
        if part(part(tasks, name), "subtasks")
    ]
    return BenchmarkSection(
        _changes(tasks, against), _about(found), chart, Grid(columns, rows, f"{where}: tasks, reference"), parts
    )


def _changes(tasks: dict[str, Any], against: dict[str, Any]) -> str:
    """A sentence: benchmarks that got worse or better by name, the rest counted."""
    verdicts = {name: part(against, name).get("verdict") for name in tasks}
    changes = [
        f"{word} in {', '.join(names)}"
        for word in ("worse", "better")
        if (names := [name for name, verdict in verdicts.items() if verdict == word])
    ]
    rest = sum(verdict not in ("worse", "better") for verdict in verdicts.values())
    if rest:
        changes.append(f"no change shown in {rest} of {len(tasks)}")
    return f"Benchmarks beside the reference's: {'; '.join(changes)}."


def _about(found: dict[str, Any]) -> str:
    limit = number_or_nan(found.get("limit"))
    first = f", the first {plural(round(limit), 'question')} of each task" if is_number(limit) else ""
    templates = {part(part(found, "tasks"), name).get("chat_template") for name in part(found, "tasks")}
    applied = "with the model's chat template" if templates == {True} else "as plain text, without a chat template"
    return f"By lm-eval {shown(found.get('lm_eval'))}, {applied}{first}."


def _row(name: str, after: dict[str, Any], before: dict[str, Any], against: dict[str, Any]) -> list[str]:
    return [
        name,
        number(after.get("shots")),
        str(after.get("metric", "")).partition(",")[0],
        _whole(after.get("n")),
        _value(after),
        _value(before),
        shown(against.get("verdict", "-")),
    ]


def _value(one: dict[str, Any]) -> str:
    interval = interval_text(one.get("interval"))
    return number(one.get("value")) + (f" ({interval})" if interval else "")


def _whole(value: Any) -> str:
    return f"{value:,.0f}" if is_number(value) else "-"


def _parts(subtasks: dict[str, Any], source: str) -> Grid:
    rows = [
        [name, number(one.get("value")), number(one.get("stderr")), _whole(one.get("n"))]
        for name in subtasks
        if (one := part(subtasks, name))
    ]
    return Grid(["", "value", "standard error", "questions"], rows, source)
