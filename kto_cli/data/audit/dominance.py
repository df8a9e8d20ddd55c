"""Findings about where rows come from: one user or day that dominates, labels that follow from one thing alone."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.data.audit.facets import Facets
from kto_cli.data.audit.findings import Finding
from kto_cli.data.columns import I8, Columns

LEAST_ROWS = 50
"""Rows with a facet; of fewer any user has a large share."""
MOST_OF_USER, MOST_OF_DAY = 0.25, 0.5
"""Share of the rows of one user (or one day) above which the finding is a warning."""
RULE = 0.98
"""Share of labels that one thing tells, above which they count as following from it."""
LEAST_OF_CLASS = 10
"""Rows of the rarer label; a few are told by chance."""


def examine(columns: Columns, at: I8) -> list[Finding]:
    """Findings on the rows `at` (one or more)."""
    return [*(finding for finding in (dominance(columns, at), one_rule(columns, at)) if finding is not None)]


def dominance(columns: Columns, at: I8) -> Finding | None:
    """Greatest share of a user and of a day; None if that is nothing to warn of."""
    found, facts = [], dict[str, Any]()
    for name, most in (("user", MOST_OF_USER), ("day", MOST_OF_DAY)):
        codes = _facet(columns, at, name)
        codes = codes[codes > 0]
        if len(codes) < LEAST_ROWS:
            continue
        counts = numpy.unique(codes, return_counts=True)[1]
        share = float(counts.max() / len(codes))
        facts[name] = {"rows": len(codes), "values": len(counts), "largest_share": share}
        if share > most:
            found.append(f"{share:.0%} of {plural(len(codes), 'row')} are of one {name} (of {len(counts):,})")
    if not found:
        return None
    advice = "a model learns the taste of one; collect more of others, or limit these rows in the file"
    return Finding("dominance", "; ".join(found), advice, True, facts=facts)


def one_rule(columns: Columns, at: I8) -> Finding | None:
    """Things that tell nearly all labels by themselves: the model, the user, the day, or the answer's length."""
    labels = columns.labels[at] == 1
    if min(labels.sum(), (~labels).sum()) < LEAST_OF_CLASS:
        return None
    told: dict[str, float] = {}
    for name in Facets._fields:
        codes = _facet(columns, at, name)
        if (codes > 0).mean() >= RULE:
            told[name] = _told_by_groups(codes, labels)
    told["length"] = _told_by_threshold(columns.completion_chars[at], labels)
    rules = {name: share for name, share in told.items() if share >= RULE}
    if not rules:
        return None
    names = " and ".join(f"the {WORDS[name]} ({share:.1%})" for name, share in rules.items())
    return Finding(
        "one_rule",
        f"The labels follow from one thing alone: {names}",
        "a model learns that instead of what is better; take answers of both labels from each",
        True,
        facts=rules,
    )


WORDS = {"user": "user", "model": "model that answered", "day": "day", "length": "length of the answer"}


def _facet(columns: Columns, at: I8, name: str) -> NDArray[numpy.uint32]:
    return columns.facets[at, Facets._fields.index(name)]


def _told_by_groups(codes: NDArray[Any], labels: NDArray[numpy.bool_]) -> float:
    """Share of the labels that are those of most of their group, both labels counted alike; 0 for many small groups."""
    _, groups = numpy.unique(codes, return_inverse=True)
    weights = _balanced(labels)
    if (int(groups.max()) + 1) * LEAST_OF_CLASS > len(labels):
        return 0.0
    good, bad = numpy.bincount(groups, weights * labels), numpy.bincount(groups, weights * ~labels)
    return float(numpy.maximum(good, bad).sum())


def _told_by_threshold(values: NDArray[Any], labels: NDArray[numpy.bool_]) -> float:
    """Share of the labels that one threshold of the value tells, the better way round, both labels counted alike."""
    order = numpy.argsort(values, kind="stable")
    ends = numpy.append(values[order][1:] != values[order][:-1], True)
    signed = numpy.cumsum(numpy.where(labels, -1, 1)[order] * _balanced(labels)[order])[ends]
    return float(0.5 + abs(signed).max())


def _balanced(labels: NDArray[numpy.bool_]) -> NDArray[numpy.float64]:
    """[rows] weights of which each label has 1/2."""
    return numpy.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
