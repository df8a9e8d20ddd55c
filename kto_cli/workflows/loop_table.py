"""The table over the rounds of `kto loop`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kto_cli.common.screen import Screen, number

Numbers = dict[str, Any]
TITLE = "Rounds: each model against the start, on the same validation prompts (90 % intervals)"
KL = "KL: mean log-ratio to the start on mismatched completions of the first round, in nats; it may be below 0."

FORGETTING = ("blown up", "collapsed", "drifted")
"""Verdicts on a model that says desirable answers of the start less and less."""


def table_row(result: Numbers) -> Numbers:
    """The numbers of a round that the table shows, from the result of `kto eval`.

    Returns:
        auc, kl with their intervals; of the answers tokens, ended, repetition, distinct_2, and those of the start
        (start) and a sentence on both; with a judge win_rate, its interval, comparisons.
    """
    generations = result.get("generations", {})
    models = generations.get("models", {})
    names = {"tokens": "tokens_mean", "ended": "ended", "repetition": "repetition", "distinct_2": "distinct_2"}
    policy, start = (
        {name: models[each][key] for name, key in names.items()} if each in models else {}
        for each in ("policy", "reference")
    )
    found = {name: result[name] for name in ("auc", "auc_interval", "kl", "kl_interval", "verdict")}
    judged = {}
    if "win_rate" in result:
        one = result["win_rate"]
        judged = {"win_rate": one["win_rate"], "win_rate_interval": one["interval"], "comparisons": one["comparisons"]}
        judged["win_rate_at_equal_length"] = one["length_controlled"]["win_rate"]
    return {
        **found,
        **policy,
        **judged,
        "start": start,
        "sentence": generations.get("sentence", ""),
        "report": result["report"],
    }


def show(rounds: Sequence[Numbers], screen: Screen) -> None:
    """Prints the finished rounds, the model of the start first; each row is of one model."""
    done = [one for one in rounds if "eval" in one]
    if not done:
        return
    scored = any("score" in one["answers"] for one in done)
    judged = any("win_rate" in one["eval"] for one in done)
    drawn = [_score(one, scored) for one in rounds if "rows" in one]
    names = ["round", "score" if scored else "desirable", "verdict", *(["win rate"] if judged else [])]
    start = ["start", drawn[0], "", *([""] if judged else []), "", *_answers(done[0]["eval"]["start"]), ""]
    rows = []
    for one in done:
        found = one["eval"]
        rate = [_percent(found.get("win_rate"), found.get("win_rate_interval"))] if judged else []
        score = drawn[one["round"]] if one["round"] < len(drawn) else ""
        shown = [found["kl"], *_answers(found), _interval(found["auc"], found["auc_interval"])]
        rows.append([one["round"], score, found["verdict"], *rate, *shown])
    screen.table(TITLE, [*names, "KL", "tokens", "distinct-2", "AUC"], [start, *rows])
    screen.say(KL)
    last = done[-1]["eval"]
    if last["sentence"]:
        screen.say(f"Round {done[-1]['round']}: {last['sentence']}")
    first = next((one for one in done if _pleases(one["eval"])), None)
    if first is not None:
        found = first["eval"]
        screen.warn(
            f"Round {first['round']}: the judge prefers its answers, and against the start it has {found['verdict']}. "
            f"It may have learned to please the judge: read the answers in {found['report']}"
        )


def _pleases(found: Numbers) -> bool:
    """Whether a judge surely prefers the answers of a model that forgets how desirable answers were given."""
    return found["verdict"] in FORGETTING and (found.get("win_rate_interval", [None])[0] or 0.0) > 0.5


def _score(one: Numbers, scored: bool) -> str:
    """Of the answers that the round learned from."""
    return number(one["answers"]["score"]) if scored else f"{one['rows']['share_desirable']:.0%}"


def _answers(found: Numbers) -> list[Any]:
    return [found.get("tokens"), found.get("distinct_2")]


def _percent(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:.1%} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _interval(value: float | None, interval: Sequence[Any]) -> str:
    if value is None or None in interval:
        return "-"
    return "{:.2f} [{:.2f}, {:.2f}]".format(value, *interval)
