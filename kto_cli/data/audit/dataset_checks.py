"""Findings about the rows as a whole: length bias, balance of the labels, prompts with one label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.core.statistics.shares import all_pairs, auc_variance, share_of
from kto_cli.core.weights import lambda_interval
from kto_cli.data.audit.findings import Finding
from kto_cli.data.columns import I8, Columns, Flags

BIASED = 0.05
"""Length bias is a warning if the AUC is at least this far from 1/2 and its interval excludes 1/2."""
SCARCE = 0.1
"""Balance is a warning if a label has less than this share of the rows, or a source has one label only: a model can
then learn to tell sources apart instead."""


def examine(columns: Columns, at: I8, sources: Sequence[str]) -> list[Finding]:
    """Length bias, balance and one-label prompts of the rows `at`; nothing where all have one label."""
    if len(numpy.unique(columns.labels[at])) < 2:
        return []
    return [length_bias(columns, at, sources), balance(columns, at, sources), one_label_prompts(columns, at)]


def length_bias(columns: Columns, at: I8, sources: Sequence[str]) -> Finding:
    """AUC of answer length for the label, over all rows, per source and within pairs.

    It warns for all rows or for one source: opposite biases of two sources cancel in the total.
    """
    area = _area(columns, at)
    facts = _as_facts(area)
    numbers = f"AUC of length alone {_spell(area)}"
    areas: dict[str, Area] = {}
    if len(sources) > 1:
        areas = {name: _area(columns, at[columns.sources[at] == number]) for number, name in enumerate(sources)}
        facts["sources"] = {name: _as_facts(own) for name, own in areas.items()}
        numbers += "".join(f", in {name} {_spell(own)}" for name, own in areas.items() if _biased(own))
    pairs, longer = longer_in_pairs(columns, at)
    if pairs:
        facts |= {"pairs": pairs, "desirable_longer_in_pairs": longer}
        numbers += f", in {longer:.0%} of {plural(pairs, 'pair')} the desirable answer is the longer one"
    if any(map(_biased, (area, *areas.values()))):
        learns = "a KTO model will learn length"
        advice = "compare with the AUC between answers of similar length that kto eval gives"
    else:
        learns, advice = "too little to matter much", ""
    if area.low > 0.5 or area.high < 0.5:
        which = "longer" if area.auc > 0.5 else "shorter"
        numbers = f"Desirable answers are {which}: {numbers}; {learns}"
    else:
        numbers = f"Neither label has the longer answers: {numbers}" + (f"; {learns}" if advice else "")
    return Finding("length_bias", numbers, advice, bool(advice), facts=facts)


def balance(columns: Columns, at: I8, sources: Sequence[str]) -> Finding:
    """Rows per label and per source, and the class weights that Eq. 8 of the paper allows for them."""
    labels = columns.labels[at]
    good, bad = int((labels == 1).sum()), int((labels == 0).sum())
    counts = numpy.zeros((len(sources), 2), numpy.int64)
    numpy.add.at(counts, (columns.sources[at], labels), 1)
    facts: dict[str, Any] = {"desirable": good, "undesirable": bad}
    facts["sources"] = {
        name: {"desirable": int(row[1]), "undesirable": int(row[0])} for name, row in zip(sources, counts, strict=True)
    }
    summary = f"{good:,} desirable, {bad:,} undesirable"
    interval = lambda_interval(good, bad)
    facts |= interval
    weight, other = ("lambda_d", "lambda_u") if good < bad else ("lambda_u", "lambda_d")
    low, high = interval[weight]
    summary += f"; with {other} 1, {weight} may be {low:.3g} to {high:.3g} (paper, Eq. 8)"
    one_sided = [
        name for name, row in zip(sources, counts.tolist(), strict=True) if 0 in row and sum(row) < len(at) and any(row)
    ]
    if one_sided:
        advice = f"rows of one label only in {', '.join(one_sided)}: a model can learn to tell the source instead"
    elif min(good, bad) < SCARCE * len(at):
        advice = "collect more of the scarce label, or weigh it"
    else:
        advice = ""
    return Finding("balance", summary, advice, bool(advice), facts=facts)


def one_label_prompts(columns: Columns, at: I8) -> Finding:
    """Prompts that have answers of one label only; normal for unpaired feedback."""
    _, which = numpy.unique(columns.prompts[at], return_inverse=True)
    rows, good = numpy.bincount(which), numpy.bincount(which, columns.labels[at])
    facts = {
        "prompts": len(rows),
        "desirable_only": int((good == rows).sum()),
        "undesirable_only": int((good == 0).sum()),
    }
    one = facts["desirable_only"] + facts["undesirable_only"]
    summary = f"{one:,} of {plural(len(rows), 'prompt')} have answers of one label only"
    return Finding("one_label_prompts", summary, "", False, facts=facts)


def _area(columns: Columns, at: I8) -> Area:
    return length_auc(columns.completion_chars[at], columns.labels[at] == 1, columns.prompts[at])


def _biased(area: Area) -> bool:
    return abs(area.auc - 0.5) >= BIASED and (area.low > 0.5 or area.high < 0.5)


def _spell(area: Area) -> str:
    return f"{area.auc:.2f}" if math.isnan(area.low) else f"{area.auc:.2f} [{area.low:.2f}, {area.high:.2f}]"


def _as_facts(area: Area) -> dict[str, Any]:
    """The area for JSON, which has no NaN."""
    if math.isnan(area.auc):
        return {"auc": None, "auc_interval": None}
    return {"auc": area.auc, "auc_interval": None if math.isnan(area.low) else [area.low, area.high]}


class Area(NamedTuple):
    """AUC with its 90 % interval; NaN if a class is missing (interval: or if all rows have one prompt)."""

    auc: float
    low: float
    high: float


def length_auc(lengths: NDArray[Any], desirable: Flags, prompts: I8) -> Area:
    """Share of pairs in which the desirable answer is longer than the undesirable one, ties as half (Mann-Whitney).

    The interval is a score interval (`share_of`), so a few rows in perfect order are not certain. Its variance treats
    the rows of one prompt as a cluster (Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data",
    Biometrics 53); with one row per prompt it is DeLong's.

    Args:
        lengths, desirable, prompts: [rows]; prompts are numbers from 0.
    """
    good, bad = numpy.sort(lengths[desirable]), numpy.sort(lengths[~desirable])
    if not len(good) or not len(bad):
        return Area(math.nan, math.nan, math.nan)
    beaten = numpy.empty(len(lengths))
    for own, others in ((desirable, bad), (~desirable, good)):
        mine = lengths[own]
        shorter = numpy.searchsorted(others, mine, "left") + numpy.searchsorted(others, mine, "right")
        beaten[own] = shorter / (2 * len(others))
    beaten[~desirable] = 1 - beaten[~desirable]
    auc = float(beaten[desirable].mean())
    weights = (beaten - auc) / numpy.where(desirable, len(good), len(bad))
    _, clusters = numpy.unique(prompts, return_inverse=True)
    shares = numpy.bincount(clusters, weights)
    if len(shares) < 2:
        return Area(auc, math.nan, math.nan)
    variance = len(shares) / (len(shares) - 1) * float(shares @ shares)
    rows_of_prompts = [numpy.unique(clusters[own], return_counts=True)[1] for own in (desirable, ~desirable)]
    share = share_of(
        auc,
        variance,
        partial(auc_variance, counts=all_pairs(len(good), len(bad))),
        prompts=min(map(len, rows_of_prompts)),
        copies=max(float(rows @ rows) / float(rows.sum()) for rows in rows_of_prompts),
    )
    return Area(auc, *share.interval())


def longer_in_pairs(columns: Columns, at: I8) -> tuple[int, float]:
    """(pairs with both labels, share of them in which the desirable answer is longer, ties counted half)."""
    at = at[columns.pairs[at] >= 0]
    if not len(at):
        return 0, math.nan
    _, which = numpy.unique(columns.pairs[at], return_inverse=True)
    signs = numpy.where(columns.labels[at] == 1, 1, -1)
    whole = numpy.bincount(which, signs) == 0  # one row of each label: a pair has two rows at most
    lead = numpy.bincount(which, signs * columns.completion_chars[at])[whole]
    pairs = int(whole.sum())
    return pairs, float(((lead > 0) + 0.5 * (lead == 0)).mean()) if pairs else math.nan
