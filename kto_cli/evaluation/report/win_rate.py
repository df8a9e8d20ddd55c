"""The judge's win rate, and what besides better answers could explain it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kto_cli.common.eval_config import TARGET
from kto_cli.common.screen import number
from kto_cli.evaluation.files import WIN_RATE
from kto_cli.evaluation.report.charts import Chart
from kto_cli.evaluation.report.evidence import Evidence, is_number, part
from kto_cli.evaluation.report.interval_chart import Measured, interval_chart
from kto_cli.evaluation.report.numbers import Grid, is_known_interval, shown

LENGTHS = {
    "shorter": "where the model's answer is shorter",
    "like": "where lengths are alike",
    "longer": "where the model's answer is longer",
}


@dataclass(frozen=True)
class WinRateSection:
    """The report's section on the win rate."""

    sentence: str
    chart: Chart | None
    table: Grid


def win_rate_section(evidence: Evidence) -> WinRateSection | None:
    """The section from win_rate.json; None if nothing was judged."""
    found = evidence.part(WIN_RATE)
    if not is_number(found.get("win_rate")):
        return None
    where = f"{evidence.results_folder}/{WIN_RATE}"
    known = [("all comparisons", found)]
    known += [(LENGTHS.get(name, name), one) for name, one in part(found, "by_length").items() if isinstance(one, dict)]
    known.append(("at equal length (logistic regression)", part(found, "length_controlled")))
    if part(found, "people").get("known"):
        known.append(("corrected for the judge's errors", part(found, "people")))
    rows = [
        Measured(name, float(one["win_rate"]), one["interval"])
        for name, one in known
        if is_number(one.get("win_rate")) and is_known_interval(one.get("interval"))
    ]
    chart = interval_chart(
        "win-rate",
        _against(found),
        "Marks are win rates (a tie is half a win), bars their 90 % intervals. If it wins only where its answers are "
        "longer, the judge may like length.",
        rows,
        line=0.5,
        axis="0.5: no better, no worse",
        source=f"{where}: win_rate, by_length, length_controlled, people",
    )
    said = [shown(one["sentence"]) for one in (found, part(found, "people")) if "sentence" in one]
    return WinRateSection(" ".join(said), chart, Grid(["", ""], _facts(found), where))


def _against(found: dict[str, Any]) -> str:
    baseline = found.get("baseline")
    whom = "the data's desirable completion" if baseline == TARGET else f"the answer of {shown(baseline)}"
    return f"How often its answer beats {whom}"


def _facts(found: dict[str, Any]) -> list[list[str]]:
    """The judge, its question, and its consistency and biases."""
    bias, length, people = (part(found, name) for name in ("position_bias", "length", "people"))
    facts = [
        ("judge", found.get("judge")),
        ("asked for", found.get("for")),
        ("wins, ties, losses", ", ".join(shown(found.get(name)) for name in ("wins", "ties", "losses"))),
        ("comparisons dropped: a reply could not be read", found.get("unreadable")),
        ("both orders say the same", _share(found.get("consistency"))),
        (
            "for the answer shown first (both orders are asked, so it cancels)",
            f"{_share(bias.get('first'))} ({_interval(bias.get('interval'))})",
        ),
        ("pairs on which the judge was compared with people", people.get("pairs")),
        (
            "it prefers what they prefer (a tie counts half)",
            f"{_share(people['agreement'])} ({_interval(people.get('agreement_interval'))})"
            if "agreement" in people
            else None,
        ),
        ("words of an answer, model and baseline", _two(length, "words")),
        ("characters of an answer, model and baseline", _two(length, "characters")),
    ]
    return [[name, shown(value)] for name, value in facts if value is not None]


def _two(length: dict[str, Any], unit: str) -> str:
    return " and ".join(
        f"{length[f'{side}_{unit}']:.0f}" for side in ("model", "baseline") if f"{side}_{unit}" in length
    )


def _interval(value: Any) -> str:
    low, high = value if is_known_interval(value) else (None, None)
    return f"90 % interval {_share(low)} to {_share(high)}"


def _share(value: Any) -> str:
    return f"{value:.0%}" if is_number(value) else number(None)
