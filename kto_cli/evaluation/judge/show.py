"""The win rate in words and on the screen."""

from __future__ import annotations

from typing import Any

from kto_cli.common.eval_config import TARGET
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural

BY_SCORE = "its score"
"""The criterion of a reward model."""


def sentence(found: dict[str, Any]) -> str:
    """The win rate as a sentence."""
    (low, high), whom = found["interval"], found["baseline"]
    whom = "the desirable completions of the data" if whom == TARGET else whom
    if not found["comparisons"]:
        return "No verdict could be read: the judge does not answer in the required form. Try a larger one."
    better = "better" if low > 0.5 else "worse" if high < 0.5 else "not shown to be better or worse"
    said = (
        f"{found['win_rate']:.1%} [{low:.1%}, {high:.1%}] against {whom}: {better} "
        f"({plural(found['wins'], 'win')}, {plural(found['ties'], 'tie')}, "
        f"{plural(found['losses'], 'loss', 'losses')})."
    )
    length = found["length"]
    said += f" Words an answer: {length['model_words']:.0f} against {length['baseline_words']:.0f}."
    if found["unreadable"]:
        said += f" {plural(found['unreadable'], 'comparison')} dropped: no verdict could be read."
    if found["consistency"] < 0.6:
        said += (
            f" The judge agrees with itself in {found['consistency']:.0%} of the comparisons: it mostly goes by order."
        )
    return said


def show_win_rate(screen: Screen, found: dict[str, Any]) -> None:
    """Prints win rates by length, and the judge's biases."""
    if not found["comparisons"]:
        screen.say(found["sentence"])
        return
    rows: list[list[Any]] = [_rate("all comparisons", found)]
    rows += [
        _rate(f"model's answer {name}" if name != "like" else "of similar length", one)
        for name, one in found["by_length"].items()
    ]
    controlled = found["length_controlled"]
    rows.append(["at equal length", "", f"{controlled['win_rate']:.1%}", _interval(controlled)])
    people = found.get("people", {})
    if people.get("known"):
        rows.append(["corrected by people", people["pairs"], f"{people['win_rate']:.1%}", _interval(people)])
    screen.table(
        f"Win rate of {found['model']} against {found['baseline']}, judged by {found['judge']}",
        ["", "comparisons", "win rate", "90 % interval"],
        rows,
    )
    bias = found["position_bias"]
    screen.say(f"Win rate {found['sentence']}")
    if people:
        screen.say(people["sentence"])
    if found["for"] == BY_SCORE:  # it is shown one answer at a time
        return
    screen.say(
        f"The answer shown first was preferred in {bias['first']:.0%}; both orders were asked, so that cancels. "
        f"They agree in {found['consistency']:.0%}."
    )


def _rate(name: str, one: dict[str, Any]) -> list[Any]:
    return [
        name,
        one["comparisons"],
        f"{one['win_rate']:.1%}" if one["comparisons"] else "-",
        _interval(one) if one["comparisons"] else "",
    ]


def _interval(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{low:.1%} to {high:.1%}"
