"""How far a judge agrees with people, and the win rate corrected for its errors.

What people prefer is known of two answers to one prompt from

    the validation rows   a desirable and an undesirable answer to one prompt
    kto label             a file of labels in which people called one of two answers better; where the two are of the
                          very sides that are compared now, the judge's errors are estimated for each side apart

It is asked about them as about any comparison, in both orders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.words import plural, printable
from kto_cli.core.statistics.intervals import wilson
from kto_cli.core.statistics.judge_errors import UNKNOWN, corrected, one_rate, two_rates
from kto_cli.core.statistics.shares import FEWEST_COMPARED
from kto_cli.core.statistics.win_rates import JudgedComparison
from kto_cli.data.dataset import VALIDATION, DataDir, Row, read_batches
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.rows import labelled
from kto_cli.data.texts import last_turn
from kto_cli.evaluation.judge.comparisons import Comparison
from kto_cli.evaluation.labelling.label_file import Given, LabelFile

VALIDATION_PAIRS = "validation rows"
"""Where preferences come from, unless from a file."""


class Preference(NamedTuple):
    """Two answers of which people prefer one."""

    comparison: Comparison
    """The preferred answer as the model's, the other one as the baseline's."""
    better: str = ""
    """Who gave the preferred answer, as far as that is known."""
    worse: str = ""


def preferences_of_rows(data: DataDir, most: int) -> list[Preference]:
    """A pair of each of the first `most` validation prompts with rows of both labels, in the order of their hashes."""
    if not most:
        return []
    prompts: dict[str, dict[bool, Row]] = {}
    for row in (row for rows in read_batches(data.folder / VALIDATION) for row in rows):
        prompts.setdefault(row.prompt_id, {}).setdefault(row.label, row)
    both = (prompts[name] for name in sorted(prompts) if len(prompts[name]) == 2)
    return [
        Preference(
            Comparison(
                rows[True].id, rows[True].prompt, last_turn(rows[True].completion), last_turn(rows[False].completion)
            )
        )
        for rows in islice(both, most)
    ]


def preferences_in_file(path: Path) -> list[Preference]:
    """Of a file of `kto label` the pairs of which one answer was called better, by all who labelled the pair.

    Raises:
        BadInput: it is no such file, or there is no such pair in it.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {printable(path)}.", "Give one that kto label wrote.")
    items: dict[str, list[Given]] = {}
    for label in LabelFile(path, change=False).labels:
        items.setdefault(label.item, []).append(label)
    found = [
        _preference(path, labels[0])
        for labels in items.values()
        if len({label.value for label in labels}) == 1 and "better" in labels[0].value
    ]
    if not found:
        what = f"In {printable(path)} nobody called one of two answers better, or people contradict each other on all."
        raise BadInput(what, "Label pairs: kto label CHECKPOINT BASELINE")
    return found


def _preference(path: Path, label: Given) -> Preference:
    by_choice = {row["choice"]: row for row in label.rows}
    try:
        better, worse = (
            labelled(by_choice[choice], "", isinstance(by_choice[choice]["prompt"], str), None)
            for choice in ("better", "worse")
        )
    except RowFault as fault:
        raise BadInput(
            f"{printable(path)} has a label that cannot be read: {fault.detail}.", "Remove its rows."
        ) from fault
    comparison = Comparison(label.item, better.prompt, last_turn(better.completion), last_turn(worse.completion))
    return Preference(comparison, *(str(by_choice[choice].get("model", "")) for choice in ("better", "worse")))


def against_people(
    outcomes: Sequence[float],
    preferences: Sequence[Preference],
    judged: Sequence[JudgedComparison],
    *,
    sides: tuple[str, str],
    source: str,
) -> dict[str, Any]:
    """Agreement of a judge with people, and the corrected win rate.

    Args:
        outcomes: the judge's of the comparisons. judged: of the preferences. sides: names of model and baseline.

    Returns:
        source, pairs (readable ones), unreadable, agreement (ties count half), agreement_interval (Wilson), by_side
        (whether errors were estimated for each side), the keys of `corrected`, sentence.
    """
    read = [
        (preference, one.outcome)
        for preference, one in zip(preferences, judged, strict=True)
        if one.outcome is not None
    ]
    right = [outcome for _, outcome in read]
    wins = [outcome for each, outcome in read if (each.better, each.worse) == sides]
    losses = [outcome for each, outcome in read if (each.worse, each.better) == sides]
    by_side = len(wins) + len(losses) == len(read) and min(len(wins), len(losses)) >= FEWEST_COMPARED
    errors = two_rates(wins, losses) if by_side else one_rate(right)
    found = {
        "source": source,
        "pairs": len(read),
        "unreadable": len(judged) - len(read),
        "agreement": math.fsum(right) / len(right) if right else math.nan,
        "agreement_interval": wilson(math.fsum(right), len(right)),
        "by_side": by_side,
        **corrected(outcomes, errors),
    }
    return {**found, "sentence": sentence(found)}


def sentence(found: dict[str, Any]) -> str:
    """Agreement and corrected win rate in words."""
    if not found["pairs"]:
        return "The judge was compared with people on no pair."
    low, high = found["agreement_interval"]
    said = (
        f"The judge prefers what people prefer in {found['agreement']:.0%} [{low:.0%}, {high:.0%}] of "
        f"{plural(found['pairs'], 'pair')} ({found['source']})"
    )
    if not found["known"]:
        return f"{said}. The win rate is not corrected: {UNKNOWN[found['why']]}."
    low, high = found["interval"]
    return f"{said}; corrected for that, the win rate is {found['win_rate']:.1%} [{low:.1%}, {high:.1%}]."
