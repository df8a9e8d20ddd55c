"""Agreement of raters who rated the same answers: the finding `rater_agreement`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kto_cli.common.words import plural, printable
from kto_cli.data.audit.findings import Finding
from kto_cli.data.formats.counts import Ratings

LEAST_KAPPA, LEAST_ANSWERS = 0.4, 20
"""Kappa below this (less than moderate, Landis and Koch 1977) is a warning, of at least so many answers."""


class Agreement(NamedTuple):
    """Agreement on one rating."""

    answers: int
    """Answers that several raters rated."""
    agree: int
    """Those of them on which all gave the same value."""
    kappa: float | None
    """Fleiss' kappa; None if all ratings are of one value."""


def rater_agreement(counts: Iterable[Counter[Ratings]]) -> list[Finding]:
    """One finding for each rating that several raters gave, over all sources."""
    names: dict[str, Counter[tuple[str, ...]]] = {}
    for ratings in counts:
        for (name, values), answers in ratings.items():
            names.setdefault(name, Counter())[values] += answers
    return [_finding(name, fleiss(values)) for name, values in names.items()]


def _finding(name: str, found: Agreement) -> Finding:
    summary = f"All raters agree on {found.agree:,} of {plural(found.answers, 'answer')} with several ratings of "
    summary += f"{printable(name)}" + ("" if found.kappa is None else f"; Fleiss' kappa {found.kappa:.2f}")
    warns = found.kappa is not None and found.kappa < LEAST_KAPPA and found.answers >= LEAST_ANSWERS
    advice = "agree on what the rating means, or take rows of one rater" if warns else ""
    return Finding("rater_agreement", summary, advice, warns, facts={"rating": name, **found._asdict()})


def fleiss(answers: Mapping[tuple[str, ...], int]) -> Agreement:
    """Agreement of raters by chance taken out: (P - Pe) / (1 - Pe).

    P is the mean share of pairs of raters of an answer that agree; Pe the same for ratings drawn at random from all
    (Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76). Answers may have
    different numbers of raters, who need no names; for two raters it is Scott's pi.

    Args:
        answers: values of an answer's ratings (two or more) -> number of such answers.
    """
    total, agree, pairs = sum(answers.values()), 0, 0.0
    values: Counter[str] = Counter()
    for given, times in answers.items():
        own, raters = Counter(given), len(given)
        agree += times * (len(own) == 1)
        pairs += times * sum(count * (count - 1) for count in own.values()) / (raters * (raters - 1))
        for value, count in own.items():
            values[value] += times * count
    chance = sum((count / values.total()) ** 2 for count in values.values())
    return Agreement(total, agree, (pairs / total - chance) / (1 - chance) if len(values) > 1 else None)
