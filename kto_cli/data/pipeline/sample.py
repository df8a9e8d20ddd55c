"""The shape of the rows to learn from: which leave because fewer were asked for. Validation rows are never touched.

The steps, in this order, each on what the one before left:

    max_pairs           most pairs of one prompt, whole pairs; rows of no pair stay
    one_y_per_x         one row of each prompt, any of them at random (KTO paper, arXiv 2402.01306v1, section 4.1:
                        "subsample one output y per x"; it does not say which. HALOs takes the first pair of a prompt
                        and alternates between the classes from one prompt to the next, so an output depends on those
                        before it; here it does not)
    max_per_prompt      most rows of one prompt
    keep_desirable      a share of the desirable rows: floor(share * rows + 1/2), the share as it is written
    keep_undesirable    so of the undesirable ones
    balance             as many rows of each class
    weights             the sources' shares of the rows
    limit               most rows: whole families in a seeded order until there are enough, the last one cut;
                        with balance, half of them in each class

All that is chosen is chosen by a seeded hash of the row's own content (`seeded_order.py`): the order of rows does not
matter, and more data moves few choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor, lcm
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import I8, U8, Flags
from kto_cli.data.seeded_order import keep_exactly, numbered, priority, rank_in_groups

CLASSES = {"desirable": 1, "undesirable": 0}
DETAILS = {
    "max_pairs": "its prompt has as many pairs as --max-pairs allows",
    "one_y_per_x": "another row of its prompt was chosen",
    "max_per_prompt": "its prompt has as many rows as --max-per-prompt allows",
    "keep_desirable": "not in the sample of desirable rows",
    "keep_undesirable": "not in the sample of undesirable rows",
    "balance": "its class has more rows than the other",
    "weights": "its source has more rows than its weight allows",
    "limit": "there are as many rows as --limit allows",
}
"""What each reason means, in words."""


class Rows(NamedTuple):
    """What a row's place in a sample depends on; each [rows], or [rows, 2] where said."""

    prompts: I8
    pairs: I8
    """-1: of no pair."""
    labels: NDArray[numpy.int8]
    sources: NDArray[numpy.int16]
    keys: U8
    """[rows, 2] of prompt, completion and label (`order.row_keys`); the same for copies."""
    family_keys: U8
    """[rows, 2] of `split.split`."""


@dataclass
class Shape:
    """Which rows to learn from are kept, and why the others leave."""

    kept: Flags
    dropped: dict[str, Flags] = field(default_factory=dict)
    """For each step that was asked for, in order; no row has two."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def leave(self, reason: str, kept: Flags, what: str) -> None:
        """One step is done: `kept` of the rows stay."""
        self.dropped[reason] = self.kept & ~kept
        self.notes.append(f"{what}: {int(kept.sum()):,} of {int(self.kept.sum()):,} rows to learn from stay.")
        self.kept = kept


def shape(
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
) -> Shape:
    """The steps above that are asked for, on the `train` [rows] alone; `names` of the sources are for the screen."""
    result = Shape(train.copy())
    if max_pairs is not None:
        what = f"At most {plural(max_pairs, 'pair')} of one prompt"
        result.leave("max_pairs", few_pairs(train, rows, max_pairs, seed), what)
    if one_y_per_x:
        result.leave("one_y_per_x", few_per_prompt(result.kept, rows, 1, seed, "one_y_per_x"), "One row of each prompt")
    if max_per_prompt is not None:
        kept = few_per_prompt(result.kept, rows, max_per_prompt, seed, "max_per_prompt")
        result.leave("max_per_prompt", kept, f"At most {plural(max_per_prompt, 'row')} of one prompt")
    for name, share in (("desirable", keep_desirable), ("undesirable", keep_undesirable)):
        if share != 1:
            kept = share_of_class(result.kept, rows, CLASSES[name], share, seed)
            result.leave(f"keep_{name}", kept, f"A sample of {share:g} of the {name} rows")
    if balance:
        result.leave("balance", balanced(result.kept, rows, seed), "As many rows of each class")
    if len(weights):
        weigh(result, rows, weights, seed, names)
    if limit is not None:
        result.leave("limit", limited(result.kept, rows, limit, seed, balance), f"At most {plural(limit, 'row')}")
    if balance and len(set(counts(result.kept, rows))) > 1:
        left = "{:,} desirable and {:,} undesirable".format(*counts(result.kept, rows))
        result.warnings.append(f"The classes were balanced before --weights, which left {left} rows.")
    return result


def counts(kept: Flags, rows: Rows) -> tuple[int, int]:
    """The desirable and the undesirable rows."""
    return int((kept & (rows.labels == 1)).sum()), int((kept & (rows.labels == 0)).sum())


def drawn(kept: Flags, rows: Rows, seed: int, salt: str) -> U8:
    """The place of each row in one draw, copies of a row told apart ([rows]; 0 for those not kept)."""
    places = numpy.zeros(len(kept), dtype=numpy.uint64)
    places[kept] = priority(numbered(rows.keys[kept]), seed, salt)
    return places


def few_pairs(kept: Flags, rows: Rows, most: int, seed: int) -> Flags:
    """At most that many pairs of each prompt; a pair of which one row is gone is a pair still.

    A pair's place comes from those of its rows (their sum, whichever is first), so it is the same wherever it stands.
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
    """At most that many rows of each prompt."""
    index = numpy.flatnonzero(kept)
    ranks = rank_in_groups(rows.prompts[index], drawn(kept, rows, seed, salt)[index])
    result = kept.copy()
    result[index[ranks >= most]] = False
    return result


def share_of_class(kept: Flags, rows: Rows, label: int, share: float, seed: int) -> Flags:
    """A sample of one class, floor(share * rows + 1/2) of them; the other class stays.

    The share counts as it is written: 0.145 of 100 rows are 15, though the float 0.145 is a little less.
    """
    of_class = kept & (rows.labels == label)
    count = floor(as_written(share) * int(of_class.sum()) + Fraction(1, 2))
    sample = keep_exactly(of_class, drawn(of_class, rows, seed, f"keep {label}"), count)
    return (kept & ~of_class) | sample


def balanced(kept: Flags, rows: Rows, seed: int) -> Flags:
    """A sample of the larger class, as large as the smaller one."""
    count = min(counts(kept, rows))
    places = drawn(kept, rows, seed, "balance")
    halves = [keep_exactly(kept & (rows.labels == label), places, count) for label in CLASSES.values()]
    return halves[0] | halves[1]


def weigh(result: Shape, rows: Rows, weights: Sequence[float], seed: int, names: Sequence[str]) -> None:
    """A sample of each source, so that their shares are those of the weights."""
    available = [int((result.kept & (rows.sources == source)).sum()) for source in range(len(weights))]
    wanted = quotas(available, weights)
    places = drawn(result.kept, rows, seed, "weights")
    kept = numpy.zeros(len(result.kept), dtype=bool)
    for source, count in enumerate(wanted):
        kept |= keep_exactly(result.kept & (rows.sources == source), places, count)
    called = list(names) or [f"source {number}" for number in range(1, len(weights) + 1)]
    parts = ", ".join(
        f"{count:,} of {there:,} rows of {name}" for count, there, name in zip(wanted, available, called, strict=True)
    )
    result.leave("weights", kept, f"Weights {', '.join(f'{weight:g}' for weight in weights)} ({parts})")
    empty = [name for name, there in zip(called, available, strict=True) if not there]
    if empty:
        result.warnings.append(f"--weights leaves nothing to learn from: there are no rows of {', '.join(empty)}.")


def quotas(available: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many rows of each source: the most of which every source has its share, by weight, to less than one row.

    In whole numbers throughout. Of `total` rows a source's share is total * weight / sum of weights; the largest total
    is taken for which no source has fewer rows than its share. Shares are rounded up or down such that they add up:
    up where most is lost otherwise, first source first among equals (largest remainder; Hamilton, 1792).

    Args:
        available: rows of each source.
        weights: of each, above 0; they count as they are written.
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
    """At most that many rows: whole families in a seeded order, of the last one the first rows in another.

    With `halves` that is done in each class for half of them, so that what was balanced stays so.
    """
    index = numpy.flatnonzero(kept)
    if len(index) <= most:
        return kept
    of_families = priority(rows.family_keys[index], seed, "limit")
    order = index[numpy.lexsort((drawn(kept, rows, seed, "limit rows")[index], of_families))]
    result = numpy.zeros(len(kept), dtype=bool)
    if halves:
        for label in CLASSES.values():
            result[order[rows.labels[order] == label][: most // 2]] = True
    else:
        result[order[:most]] = True
    return result


def as_written(number: float) -> Fraction:
    """The number that a person wrote, not the float nearest to it."""
    return Fraction(repr(float(number)))


def plural(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
