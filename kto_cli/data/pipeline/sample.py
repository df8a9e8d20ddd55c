"""Samples of the training rows. Validation rows are never sampled.

The steps, in this order, each on the rows that the previous one kept:

    max_pairs           maximum of pairs per prompt; rows of no pair are kept
    one_y_per_x         one row per prompt, chosen at random (KTO paper, arXiv 2402.01306v1, section 4.1: "subsample one
                        output y per x", which leaves open which. HALOs takes the first pair of a prompt and alternates
                        between the classes from prompt to prompt, so the choice depends on earlier prompts; here not)
    max_per_prompt      maximum of rows per prompt
    keep_desirable      a share of the desirable rows: floor(share * rows + 1/2), with the share in decimal notation
    keep_undesirable    a share of the undesirable rows
    balance             equal numbers of rows of both classes
    weights             the sources' shares of the rows
    limit               maximum of rows: whole split units (split.py) in a seeded order until there are enough, the last
                        one in part; with balance, half of them of each class

Rows are chosen by a seeded hash of their own content (`seeded_order.py`): the order of the rows does not matter, and
more data changes few choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor, lcm
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.data.columns import I8, U8, Flags
from kto_cli.data.seeded_order import keep_exactly, numbered, priority, rank_in_groups

CLASSES = {"desirable": 1, "undesirable": 0}
DETAILS = {
    "max_pairs": "its prompt has more pairs than --max-pairs allows",
    "one_y_per_x": "another row of its prompt was chosen (--one-y-per-x)",
    "max_per_prompt": "its prompt has more rows than --max-per-prompt allows",
    "keep_desirable": "not in the sample of --keep-desirable",
    "keep_undesirable": "not in the sample of --keep-undesirable",
    "balance": "its class has more rows than the other (--balance)",
    "weights": "its source has more rows than its share of --weights",
    "limit": "there are more rows than --limit allows",
}
"""Explanation of each reason."""


class Rows(NamedTuple):
    """Everything that a sample depends on; each field [rows] unless given."""

    prompts: I8
    pairs: I8
    """-1: of no pair."""
    labels: NDArray[numpy.int8]
    sources: NDArray[numpy.int16]
    keys: U8
    """[rows, 2] hash of prompt, completion and label (`seeded_order.row_keys`); equal for copies of a row."""
    unit_keys: U8
    """[rows, 2] key of the row's split unit (`Split.unit_keys`)."""


@dataclass
class Sample:
    """Training rows that are kept, and the reasons for dropping the others."""

    kept: Flags
    dropped: dict[str, Flags] = field(default_factory=dict)
    """Rows that each step dropped, in the order of the steps; no row is in two."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def keep(self, kept: Flags, reason: str, what: str) -> None:
        """Ends the step `reason`, which keeps `kept` rows."""
        self.dropped[reason] = self.kept & ~kept
        before = plural(int(self.kept.sum()), "training row")
        self.notes.append(f"{what}: kept {int(kept.sum()):,} of {before}.")
        self.kept = kept


def sample(
    train: Flags,
    rows: Rows,
    *,
    seed: int,
    max_pairs: int | None = None,
    one_y_per_x: bool = False,
    max_per_prompt: int | None = None,
    keep_desirable: float = 1.0,
    keep_undesirable: float = 1.0,
    balance: bool = False,
    weights: Sequence[float] = (),
    limit: int | None = None,
    names: Sequence[str] = (),
) -> Sample:
    """Applies the requested steps to the `train` [rows]; `names` are the sources', for the notes."""
    result = Sample(train.copy())
    if max_pairs is not None:
        what = f"At most {plural(max_pairs, 'pair')} per prompt"
        result.keep(few_pairs(train, rows, max_pairs, seed), "max_pairs", what)
    if one_y_per_x:
        kept = few_per_prompt(result.kept, rows, 1, seed, "one_y_per_x")
        result.keep(kept, "one_y_per_x", "One row per prompt")
    if max_per_prompt is not None:
        kept = few_per_prompt(result.kept, rows, max_per_prompt, seed, "max_per_prompt")
        result.keep(kept, "max_per_prompt", f"At most {plural(max_per_prompt, 'row')} per prompt")
    for name, share in (("desirable", keep_desirable), ("undesirable", keep_undesirable)):
        if share != 1:
            kept = share_of_class(result.kept, rows, CLASSES[name], share, seed)
            result.keep(kept, f"keep_{name}", f"Share {share:g} of the {name} rows")
    if balance:
        result.keep(balanced(result.kept, rows, seed), "balance", "Equal numbers of both classes")
    if len(weights):
        weigh(result, rows, weights, seed, names)
    if limit is not None:
        result.keep(limited(result.kept, rows, limit, seed, balance), "limit", f"At most {plural(limit, 'row')}")
    if balance and len(set(counts(result.kept, rows))) > 1:
        both = "{:,} desirable and {:,} undesirable".format(*counts(result.kept, rows))
        result.warnings.append(f"--weights is applied after --balance, and left {both} rows.")
    return result


def counts(kept: Flags, rows: Rows) -> tuple[int, int]:
    """(desirable, undesirable) rows."""
    return int((kept & (rows.labels == 1)).sum()), int((kept & (rows.labels == 0)).sum())


def priorities(kept: Flags, rows: Rows, seed: int, salt: str) -> U8:
    """Priority of each row in one draw, different for copies of a row ([rows]; 0 for those not kept)."""
    found = numpy.zeros(len(kept), dtype=numpy.uint64)
    found[kept] = priority(numbered(rows.keys[kept]), seed, salt)
    return found


def few_pairs(kept: Flags, rows: Rows, most: int, seed: int) -> Flags:
    """At most `most` pairs per prompt; a pair of which one row was dropped still counts.

    A pair's priority is the sum of those of its rows, so it depends on neither their order nor their position.
    """
    index = numpy.flatnonzero(kept & (rows.pairs >= 0))
    numbers, members = numpy.unique(rows.pairs[index], return_inverse=True)
    words = numpy.zeros(len(numbers), dtype=numpy.uint64)
    numpy.add.at(words, members, priority(rows.keys[index], seed, "max_pairs"))
    prompts = numpy.zeros(len(numbers), dtype=numpy.int64)
    prompts[members] = rows.prompts[index]
    leaving = rank_in_groups(prompts, words) >= most
    result = kept.copy()
    result[index[leaving[members]]] = False
    return result


def few_per_prompt(kept: Flags, rows: Rows, most: int, seed: int, salt: str) -> Flags:
    """At most `most` rows per prompt."""
    index = numpy.flatnonzero(kept)
    ranks = rank_in_groups(rows.prompts[index], priorities(kept, rows, seed, salt)[index])
    result = kept.copy()
    result[index[ranks >= most]] = False
    return result


def share_of_class(kept: Flags, rows: Rows, label: int, share: float, seed: int) -> Flags:
    """A sample of floor(share * rows + 1/2) rows of one class; the other class is kept.

    The share is exact in decimal notation: 0.145 of 100 rows are 15, though the float 0.145 is a little less.
    """
    of_class = kept & (rows.labels == label)
    count = floor(as_written(share) * int(of_class.sum()) + Fraction(1, 2))
    drawn = keep_exactly(of_class, priorities(of_class, rows, seed, f"keep {label}"), count)
    return (kept & ~of_class) | drawn


def balanced(kept: Flags, rows: Rows, seed: int) -> Flags:
    """A sample of the larger class, as large as the smaller one."""
    count = min(counts(kept, rows))
    order = priorities(kept, rows, seed, "balance")
    halves = [keep_exactly(kept & (rows.labels == label), order, count) for label in CLASSES.values()]
    return halves[0] | halves[1]


def weigh(result: Sample, rows: Rows, weights: Sequence[float], seed: int, names: Sequence[str]) -> None:
    """Samples each source so that the sources' shares are those of the weights."""
    available = [int((result.kept & (rows.sources == source)).sum()) for source in range(len(weights))]
    wanted = quotas(available, weights)
    order = priorities(result.kept, rows, seed, "weights")
    kept = numpy.zeros(len(result.kept), dtype=bool)
    for source, count in enumerate(wanted):
        kept |= keep_exactly(result.kept & (rows.sources == source), order, count)
    named = list(names) or [f"source {number}" for number in range(1, len(weights) + 1)]
    parts = ", ".join(
        f"{count:,} of {plural(there, 'row')} of {name}"
        for count, there, name in zip(wanted, available, named, strict=True)
    )
    result.keep(kept, "weights", f"Weights {', '.join(f'{weight:g}' for weight in weights)} ({parts})")
    empty = [name for name, there in zip(named, available, strict=True) if not there]
    if empty:
        result.warnings.append(f"--weights keeps no training rows, because there are none of {', '.join(empty)}.")


def quotas(available: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Number of rows per source: as many as possible while each source has its share, to less than one row.

    In exact arithmetic. Of `total` rows a source's share is total * weight / sum of weights; the largest total is taken
    for which every source has enough rows. Shares are rounded by the largest remainder (Hamilton, 1792), the first
    source first among equals, so that they add up.

    Args:
        available: rows of each source.
        weights: weight of each source, above 0, exact in decimal notation.
    """
    written = [as_written(weight) for weight in weights]
    scale = lcm(*(weight.denominator for weight in written))
    parts = [int(weight * scale) for weight in written]
    whole = sum(parts)
    total = min(there * whole // part for there, part in zip(available, parts, strict=True))
    shares = [divmod(total * part, whole) for part in parts]
    result = [share for share, _ in shares]
    most_lost = sorted(range(len(parts)), key=lambda source: -shares[source][1])
    for source in most_lost[: total - sum(result)]:
        result[source] += 1
    return result


def limited(kept: Flags, rows: Rows, most: int, seed: int, halves: bool = False) -> Flags:
    """At most `most` rows: whole split units in a seeded order, and part of the last one.

    With `halves` each class gets half of them, so that balanced classes stay balanced.
    """
    index = numpy.flatnonzero(kept)
    if len(index) <= most:
        return kept
    of_units = priority(rows.unit_keys[index], seed, "limit")
    order = index[numpy.lexsort((priorities(kept, rows, seed, "limit rows")[index], of_units))]
    result = numpy.zeros(len(kept), dtype=bool)
    if halves:
        for label in CLASSES.values():
            result[order[rows.labels[order] == label][: most // 2]] = True
    else:
        result[order[:most]] = True
    return result


def as_written(number: float) -> Fraction:
    """Exact decimal value of a number as the user typed it, instead of the nearest float."""
    return Fraction(repr(float(number)))
