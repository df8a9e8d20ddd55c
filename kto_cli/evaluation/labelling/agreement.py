"""How far people agree: Cohen's kappa of every two with items in common, and of each with the labels of before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from kto_cli.common.words import plural, printable
from kto_cli.core.statistics.kappa import cohen
from kto_cli.evaluation.labelling.label_file import Given

BEFORE = "the labels of before"
"""In place of a person: labels that answers had already."""


def agreements(labels: Sequence[Given]) -> list[dict[str, Any]]:
    """For every two people with items in common, most items first: `people`, `items`, `agree`, `kappa`, `interval`.

    Two answers side by side are one item, whose four choices are its values.
    """
    people: dict[str, dict[str, tuple[str, ...]]] = {}
    for label in labels:
        people.setdefault(label.rater, {})[label.item] = label.value
    found = []
    before = {label.item: label.before for label in labels if label.before}
    pairs = [*combinations(people.items(), 2), *((each, (BEFORE, before)) for each in people.items())]
    for (one, first), (other, second) in pairs:
        shared = first.keys() & second.keys()
        if shared:
            kappa = cohen(Counter((first[item], second[item]) for item in shared))
            found.append({"people": [one, other], **kappa._asdict()})
    return sorted(found, key=lambda each: -each["items"])


def sentence(found: dict[str, Any]) -> str:
    """ana and ben agree on 17 of 20 items, Cohen's kappa 0.69 [0.41, 0.86]."""
    one, other = map(printable, found["people"])
    said = f"{one} and {other} agree on {found['agree']:,} of {plural(found['items'], 'item')}"
    if math.isnan(found["kappa"]):
        return f"{said}; kappa is not defined, as both gave the same to all."
    low, high = found["interval"]
    return f"{said}, Cohen's kappa {found['kappa']:.2f} [{low:.2f}, {high:.2f}]."
