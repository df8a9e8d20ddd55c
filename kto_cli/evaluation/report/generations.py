"""Statistics of the models' answers, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kto_cli.common.screen import number
from kto_cli.evaluation.files import GENERATIONS
from kto_cli.evaluation.report.evidence import Evidence, is_number, part
from kto_cli.evaluation.report.numbers import Grid, is_known_interval, shown

SHARES = ("ended", "repetition")
QUANTITIES = {
    "tokens_mean": ("tokens, mean", "tokens_mean_interval"),
    "tokens_median": ("tokens, median", ""),
    "longest": ("tokens, longest", ""),
    "ended": ("ended by themselves", "ended_wilson"),
    "empty": ("empty", ""),
    "repetition": ("repeated 4-grams", "repetition_interval"),
    "distinct_1": ("different words (distinct-1)", ""),
    "distinct_2": ("different pairs (distinct-2)", ""),
    "distinct_3": ("different triples (distinct-3)", ""),
}
"""Key -> (label, key of its interval)."""


@dataclass(frozen=True)
class AnswerSection:
    """The report's section on answers."""

    sentence: str
    table: Grid
    about: str
    """How the answers were generated."""


def generations(evidence: Evidence) -> AnswerSection | None:
    """The section from generations.json; None if there are no answers."""
    found = evidence.part(GENERATIONS)
    models = part(found, "models")
    if not models:
        return None
    rows = [
        [called, *(_cell(part(models, one), name, interval) for one in models)]
        for name, (called, interval) in QUANTITIES.items()
    ]
    where = f"{evidence.results_folder}/{GENERATIONS}: models"
    return AnswerSection(shown(found.get("sentence", "")), Grid(["", *models], rows, where), _about(found))


def _cell(one: dict[str, Any], name: str, interval: str) -> str:
    """A number and, in brackets, its interval."""
    value, edges = one.get(name), one.get(interval)
    if not is_number(value):
        return "-"
    form = (lambda x: f"{x:.0%}") if name in SHARES else number
    return form(value) + (f" ({form(edges[0])} to {form(edges[1])})" if is_known_interval(edges) else "")


def _about(found: dict[str, Any]) -> str:
    decoding = part(found, "decoding")
    prompts, most = found.get("prompts"), decoding.get("max_new_tokens")
    temperature, top_p, seed = (shown(decoding.get(name)) for name in ("temperature", "top_p", "seed"))
    drawn = f"drawn at temperature {temperature} from the likeliest {top_p}, seed {seed}"
    if decoding.get("temperature") == 0:
        drawn = "the likeliest token each time"
    return (
        f"Prompts: {shown(prompts)}; at most {shown(most)} tokens an answer, {drawn}. Intervals are of 90 %. "
        f"Distinct-n is over equally many words of each model ({shown(found.get('distinct_over_words'))})."
    )
