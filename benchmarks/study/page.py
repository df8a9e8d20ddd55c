"""The page of the study: tables of docs/study.md, computed from the committed results."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.cells import read_results
from benchmarks.study.figure import figure
from benchmarks.study.markdown import markdown
from benchmarks.study.paper import paper_tables
from benchmarks.study.small_tables import small_tables
from benchmarks.study.z_ref import z_ref_tables

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/study.md"
FIGURE = REPOSITORY / "docs/images/study-reward-kl.svg"
RESULTS = Path(__file__).with_name("results.jsonl")
STORIES = Path(__file__).with_name("stories.jsonl")
MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
BETA = 0.1
"""Of all runs of the table of learning rates: a reward is so many times the log-ratio."""
EARLY = (10, 20, 30)
"""Percent of the steps, at which the runs on 1,600 rows were validated."""
HEADER = (
    "weights", "rate", "verdict (seeds)", "margin, nats", "nats a token: desirable", "undesirable", "AUC",
    "loss", "answers: tokens", "ended", "distinct trigrams",
)  # fmt: skip


def write_page() -> None:
    """Writes the tables of the page and its figure anew, and leaves its text."""
    FIGURE.write_text(figure(read_results(STORIES)), encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """The text with every marked table computed anew."""
    tables = all_tables()
    return MARKED.sub(lambda found: found[1] + tables[found["name"]] + "\n" + found[3], text)


def all_tables() -> dict[str, str]:
    """Tables of the page by name."""
    results = read_results(RESULTS)
    small = {f"stories-{name}": table for name, table in small_tables(read_results(STORIES)).items()}
    return {name: make(results) for name, make in TABLES.items()} | paper_tables() | small | z_ref_tables()


def learning_rates(data: str) -> Callable[[Sequence[dict[str, Any]]], str]:
    """Table of one dataset: a line for all weights or adapters at a rate, over its seeds."""

    def make(results: Sequence[dict[str, Any]]) -> str:
        groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for one in results:
            if one["table"] == "learning-rate" and one["data"] == data:
                groups.setdefault((one["varied"]["weights"], one["varied"]["rate"]), []).append(one)
        reference = next(one["answers"]["reference"] for group in groups.values() for one in group if "answers" in one)
        rows = [("reference", "", "", "", "", "", "", "", *answer_cells(reference))]
        rows += [line(weights, rate, groups[weights, rate]) for weights, rate in sorted(groups)]
        return markdown(HEADER, rows)

    return make


def line(weights: str, rate: float, group: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Medians over the seeds; answers of the first one."""
    verdicts = [one["verdict"] for one in sorted(group, key=lambda one: one["seed"])]
    named = [f"{verdict} ({verdicts.count(verdict)})" for verdict in dict.fromkeys(verdicts)]
    found = [one["validation"] for one in group]
    numbers = (
        f"{median(found, 'margin_nats'):+.1f}",
        f"{median(found, 'log_ratio_per_token_desirable'):+.2f}",
        f"{median(found, 'log_ratio_per_token_undesirable'):+.2f}",
        f"{median(found, 'auc'):.3f}",
        f"{median(found, 'loss'):.3f}",
    )
    answers = next((one["answers"]["policy"] for one in group if "answers" in one), None)
    where = "all" if weights == "all" else "LoRA"
    return (where, f"{rate:.0e}".replace("e-0", "e-"), ", ".join(named), *numbers, *answer_cells(answers))


def early_signs(data: str) -> Callable[[Sequence[dict[str, Any]]], str]:
    """Table of one dataset: how far desirable rows had moved early in a run, by the verdict at its end."""

    def make(results: Sequence[dict[str, Any]]) -> str:
        groups: dict[str, list[dict[int, float]]] = {}
        for one in results:
            if one["table"] == "learning-rate" and one["data"] == data:
                moved = {round(100 * each["step"] / one["steps"]): each["reward_desirable"] for each in one["curve"]}
                groups.setdefault(one["verdict"], []).append(moved)
        rows = [
            (verdict, str(len(runs)), *(spread([each[share] / BETA for each in runs]) for share in EARLY))
            for verdict, runs in sorted(groups.items())
        ]
        return markdown(("verdict at the end", "runs", *(f"at {share} % of the steps" for share in EARLY)), rows)

    return make


def spread(values: Sequence[float]) -> str:
    """Lowest and highest."""
    return f"{min(values):+.1f} to {max(values):+.1f}"


def answer_cells(answers: dict[str, Any] | None) -> tuple[str, str, str]:
    """Mean tokens, share that ended, and share of distinct trigrams over all answers."""
    if answers is None:
        return ("", "", "")
    return (f"{answers['tokens_mean']:.0f}", f"{answers['ended']:.0%}", f"{answers['distinct_3']:.2f}")


def median(found: Iterable[dict[str, Any]], name: str) -> float:
    """Of one number over runs."""
    return statistics.median(one[name] for one in found)


TABLES = {f"learning-rate-{data}": learning_rates(data) for data in ("hh1600", "hh4k", "halu")}
TABLES["learning-rate-early"] = early_signs("hh1600")
