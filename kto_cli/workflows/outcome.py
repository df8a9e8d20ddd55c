"""`kto outcome`: did thumbs rise? Shares of desirable answers by version of the model, or before and after a day."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.files import finite, make_folder, write_json
from kto_cli.common.outcome_config import RESULT, OutcomeConfig, day_of_flag
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.statistics.outcome import Answer, compare_versions, version_counts
from kto_cli.core.statistics.shares import LEVEL
from kto_cli.data.audit.facets import day_of
from kto_cli.data.pipeline.label_values import next_step, value_lines
from kto_cli.data.pipeline.logged_answers import LoggedAnswer, ReadAnswers, labelled, read_answers, spelled
from kto_cli.data.select import choose, split_name
from kto_cli.workflows.outcome_tables import shortened, show

MOST_VERSIONS = 20
BEFORE, AFTER = "before", "after"
EMPTY = "(empty)"
"""The kind of a prompt whose cell is empty."""


def run(config: OutcomeConfig, screen: Screen) -> dict[str, Any]:
    """Reads the log, compares its versions, shows tables and writes outcome.json into `out` if there is one.

    Returns:
        The result for --json: `versions` (see `core.statistics.outcome.version_counts`), `baseline`, `differences`
        (`compare_versions`), `mix` (counts by kind of prompt), `not_used`, `level`, `out`.

    Raises:
        BadInput: the log or a column cannot be used. BadData: fewer than two rated versions.
    """
    config = replace(config, sources=tuple(map(source_of, config.sources)))
    sources = choose(config)
    for one in sources:
        screen.warn(*one.warnings)
        screen.note(*one.notes)
    if config.out is not None:
        make_folder(Path(config.out))
    with screen.progress("reading", None):
        read = read_answers(sources, config, screen.note, screen.tick)
    for counts in read.decisions.values():
        for text in value_lines(counts, config):
            screen.note(text)
    answers = labelled(read.answers, config)
    if not any(answer.label is not None for answer in answers):
        raise no_ratings(read, len(answers), next_step(read.decisions, sources))
    names, kept, not_used = versions_of(answers, config)
    for reason, count in not_used.items():
        screen.note(f"Not compared: {plural(count, 'answer')}, {reason}.")
    result = compare(names, kept, config) | {"not_used": not_used | dict(read.rejected), "out": config.out}
    show(result, config, screen)
    if config.out is not None:
        write_json(Path(config.out) / RESULT, finite(result))
        screen.say(f"Written to {Path(config.out) / RESULT}.")
    return result


def source_of(name: str) -> str:
    """A source as `kto binarize` names it; a file alone is a log."""
    return f"log:{name}" if split_name(name)[0] is None and os.path.isfile(name) else name


def no_ratings(read: ReadAnswers, answers: int, step: str | None) -> BadData:
    """Error for a log in which no answer has a label."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in (read.unrated + read.rejected).most_common(5))
    what = f"None of {plural(answers + read.rejected.total(), 'answer')} has a label: {reasons}."
    first = "" if read.first is None else f" First: {read.first.origin}: {read.first.detail[:200].rstrip('.')}."
    return BadData(what + first, step or "Check the rules or the label column.")


def versions_of(
    answers: list[LoggedAnswer], config: OutcomeConfig
) -> tuple[list[str], list[tuple[str, LoggedAnswer]], dict[str, int]]:
    """Names of the versions, the baseline first; the answers with their version; why others have none.

    Raises:
        BadInput: the column has no value, one value, or too many; the baseline is none of them.
    """
    kept: list[tuple[str, LoggedAnswer]] = []
    not_used: Counter[str] = Counter()
    for answer in answers:
        version = version_of(answer, config)
        if version is None:
            not_used[f"{config.by or config.time_column} is {'empty' if config.by else 'empty or no time'}"] += 1
        else:
            kept.append((version, answer))
    names = [*dict.fromkeys(version for version, _ in kept)]
    if config.before_after is not None:
        if len(names) < 2:
            there = f"All {plural(len(kept), 'answer')} with a time are {names[0]}" if names else "No answer has a time"
            raise BadInput(f"{there} ({config.time_column}).", days_step(answers))
        return [BEFORE, AFTER], kept, dict(not_used)
    check_versions(names, kept, config)
    first = config.baseline or names[0]
    return [first, *(name for name in names if name != first)], kept, dict(not_used)


def days_step(answers: list[LoggedAnswer]) -> str:
    """The next step for a day that does not divide the log: the days that it has."""
    days = sorted(day for answer in answers if (day := day_of(answer.cells["--time-column"])))
    if not days:
        return "Name a column with dates such as 2026-11-02, or seconds since 1970."
    first, last = (date.fromordinal(day).isoformat() for day in (days[0], days[-1]))
    return f"Its days are {first} to {last}: give --before-after a day after the first."


def check_versions(names: list[str], kept: list[tuple[str, LoggedAnswer]], config: OutcomeConfig) -> None:
    """Rejects a column that does not tell versions.

    Raises:
        BadInput: with its values.
    """
    step = "Give a column with two values or more, or --before-after DATE --time-column COLUMN."
    if not names:
        raise BadInput(f"{config.by} is empty in all rows.", step)
    if len(names) == 1:
        raise BadInput(
            f"{config.by} is {shortened(names[0])} in all {plural(len(kept), 'row')} where it is filled.", step
        )
    shown = ", ".join(map(shortened, names[:5]))
    if len(names) > MOST_VERSIONS:
        what = f"{config.by} has {len(names):,} values ({shown} ...); versions are at most {MOST_VERSIONS}."
        raise BadInput(what, "Give a column of model versions.")
    if config.baseline is not None and config.baseline not in names:
        raise BadInput(f"--baseline {config.baseline} is no value of {config.by}.", f"It has: {', '.join(names)}.")


def version_of(answer: LoggedAnswer, config: OutcomeConfig) -> str | None:
    """The version of an answer; None: not told."""
    if config.before_after is None:
        cell = answer.cells["--by"]
        return None if cell is None else spelled(cell)
    day = day_of(answer.cells["--time-column"])
    if not day:
        return None
    return BEFORE if day < day_of_flag(config.before_after).toordinal() else AFTER


def compare(names: list[str], kept: list[tuple[str, LoggedAnswer]], config: OutcomeConfig) -> dict[str, Any]:
    """Shares of the versions and the differences to the first that is rated.

    Raises:
        BadData: fewer than two versions are rated.
    """
    indices = {name: index for index, name in enumerate(names)}
    answers = [answer_of(indices[name], answer, config) for name, answer in kept]
    versions = [{"version": name, **version_counts(answers, index)} for name, index in indices.items()]
    rated = [one["version"] for one in versions if one["rated"]]
    if len(rated) < 2 or rated[0] != names[0]:
        without = ", ".join(name for name in names if name not in rated)
        raise BadData(f"No answer of {without} is rated.", "Two versions with ratings are needed; see --baseline.")
    is_mixed = config.mix is not None
    differences = [
        {"version": name, **compare_versions(answers, 0, indices[name], is_mixed=is_mixed)} for name in rated[1:]
    ]
    mix = {"mix": {"column": config.mix, "strata": strata(names, answers)}} if is_mixed else {}
    return {"versions": versions, "baseline": names[0], "differences": differences, **mix, "level": LEVEL}


def answer_of(version: int, answer: LoggedAnswer, config: OutcomeConfig) -> Answer:
    """An answer as the estimators take it; without a user its conversation stands for one."""
    cell = answer.cells.get("--mix")
    stratum = "" if config.mix is None else EMPTY if cell is None else spelled(cell)
    if config.user is None:
        return Answer(version, answer.label, stratum, (answer.conversation,))
    user = answer.cells["--user"]
    name = f"nobody {answer.conversation}" if user is None else f"user {spelled(user)}"
    return Answer(version, answer.label, stratum, (answer.conversation, name))


def strata(names: list[str], answers: list[Answer]) -> list[dict[str, Any]]:
    """Rated and desirable answers of each version by kind of prompt, the most frequent first."""
    cells: dict[str, list[dict[str, int]]] = {}
    for answer in answers:
        if answer.label is not None:
            of_versions = cells.setdefault(answer.stratum, [{"rated": 0, "desirable": 0} for _ in names])
            of_versions[answer.version]["rated"] += 1
            of_versions[answer.version]["desirable"] += answer.label
    found = [
        {
            "stratum": stratum,
            "rated": sum(cell["rated"] for cell in of_versions),
            "versions": dict(zip(names, of_versions, strict=True)),
        }
        for stratum, of_versions in cells.items()
    ]
    return sorted(found, key=lambda one: -one["rated"])
