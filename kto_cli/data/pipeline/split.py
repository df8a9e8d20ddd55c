"""Which rows are for validation: whole families, so that no prompt and no conversation root is on both sides.

A source that has an official split keeps it; of the others, the first families in the order of a seeded hash of their
keys are for validation. A family's key is its smallest group key, so its side depends on itself and the seed alone,
and more data moves few families. The draw never takes a class as a whole. What is then to learn from but shares a
prompt, a group or a cluster with a validation row (official splits overlap, and so may two sources) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from kto_cli.data.audit.near_duplicates import joined
from kto_cli.data.columns import I8, U8, Flags
from kto_cli.data.seeded_order import keep_exactly, priority

FEWEST_TO_SPLIT = 4
FEWEST_ON_A_SIDE = 2
"""Families on each side: the reference point needs a prompt and the answer to another."""
DETAILS = {
    "prompt_validation": "the validation split has the same prompt",
    "conversation_validation": "the validation split has the same first turn",
    "near_duplicate_validation": "the validation split has nearly the same prompt",
}
"""What each reason means, in words, for the rows that are on neither side."""


@dataclass
class Split:
    """Which rows are for validation, and which may be on neither side; the others are to learn from."""

    validation: Flags
    dropped: dict[str, Flags]
    """For each reason of `DETAILS`; no row has two."""
    family_keys: U8
    """[rows, 2] the same for the rows of a family, for `shape`."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def families(prompts: I8, groups: I8, clusters: I8 | None = None, rows: Flags | None = None) -> I8:
    """Each row's family: rows that share a prompt, a group or a cluster are of one, however long the chain.

    Args:
        prompts, groups: [rows] numbers from 0.
        clusters: [rows] numbers from 0 of prompts that are nearly the same, -1 for none.
        rows: [rows] which rows count; the others join nothing.

    Returns:
        [rows] the smallest prompt number of the family.
    """
    count = int(prompts.max(initial=-1)) + 1
    first, second = prompts, groups + count
    total = count + int(groups.max(initial=-1)) + 1
    used = numpy.ones(len(prompts), dtype=bool) if rows is None else rows
    first, second = first[used], second[used]
    if clusters is not None:
        near = used & (clusters >= 0)
        first = numpy.concatenate((first, prompts[near]))
        second = numpy.concatenate((second, clusters[near] + total))
        total += int(clusters.max(initial=-1)) + 1
    return joined(numpy.arange(total), first, second)[prompts]


def smallest_keys(names: I8, keys: U8, rows: Flags) -> U8:
    """The smallest key of each family's rows, its first word deciding first.

    Args:
        names: [rows] numbers from 0 of families.
        keys: [rows, 2].
        rows: [rows] which rows count.

    Returns:
        [families, 2]; the largest possible key where a number has no row.
    """
    smallest = numpy.full((int(names.max(initial=-1)) + 1, 2), numpy.iinfo(numpy.uint64).max, dtype=numpy.uint64)
    numpy.minimum.at(smallest[:, 0], names[rows], keys[rows, 0])
    rows = rows & (keys[:, 0] == smallest[names, 0])
    numpy.minimum.at(smallest[:, 1], names[rows], keys[rows, 1])
    return smallest


def number_validation(share: float, count: int) -> int:
    """How many of `count` families are for validation: the share, but enough on each side to work with."""
    if share == 0 or count < FEWEST_TO_SPLIT:
        return 0
    return min(max(round(share * count), FEWEST_ON_A_SIDE), count - FEWEST_ON_A_SIDE)


def split(
    *,
    prompts: I8,
    groups: I8,
    group_keys: U8,
    labels: NDArray[numpy.int8],
    official: Flags,
    sources: NDArray[numpy.int16],
    share: float,
    seed: int,
    clusters: I8 | None = None,
    rows: Flags | None = None,
) -> Split:
    """Validation rows by the rules above.

    Args:
        prompts, groups, clusters: [rows], see `families`.
        group_keys: [rows, 2].
        labels, official, sources: [rows], see `Columns`; labels 1 or 0 where the row counts.
        share: of the families to hold out, of the sources without a split of their own.
        rows: [rows] which rows are still there; the others are on no side and join nothing.
    """
    used = numpy.ones(len(prompts), dtype=bool) if rows is None else rows
    official = official & used
    free = used & ~numpy.isin(sources, sources[official])
    members = [prompts, groups] if clusters is None else [prompts, groups, clusters]
    names = families(prompts, groups, clusters, used)
    keys = smallest_keys(names, group_keys, used)
    whose = " of the other sources" if official.any() else ""
    drawn, note, warning = seeded(names, keys, free, share, seed, whose)
    learned = (to_learn_from(used, flags, members) for flags in (official, official | drawn))
    if len({classes(labels, rows) for rows in learned}) > 1:
        drawn, note = numpy.zeros_like(drawn), ""
        warning = f"No validation split{whose}: it would take all rows of one class."
    notes = [text for text in (official_note(sources, used, free), note) if text]
    warnings = [warning + " kto eval will need other rows."] if warning else []
    validation = official | drawn
    result = Split(validation, touching(used, validation, members), keys[names], notes, warnings)
    return with_counts(result, labels)


def official_note(sources: NDArray[numpy.int16], used: Flags, free: Flags) -> str:
    """What is said where sources have a split of their own; `free` are the rows of those that have none."""
    count, without = len(numpy.unique(sources[used])), len(numpy.unique(sources[free]))
    if count == without:
        return ""
    if without:
        return f"The validation split is the own test split of {count - without} of {count} sources."
    return "The source's own test split is used for validation; --validation is ignored."


def seeded(names: I8, keys: U8, free: Flags, share: float, seed: int, whose: str) -> tuple[Flags, str, str]:
    """The rows of the families that are drawn among the free rows, and what is said of it: a note, a warning."""
    present = numpy.zeros(len(keys), dtype=bool)
    present[names[free]] = True
    count = int(present.sum())
    number = number_validation(share, count)
    chosen = keep_exactly(present, priority(keys, seed, "held out"), number)
    note = f"Held out: {number:,} of {count:,} prompts or conversations{whose}, seed {seed}." if number else ""
    few = f"No validation split{whose}: {count:,} prompts are too few ({FEWEST_TO_SPLIT} needed)."
    return free & chosen[names], note, few if share and count and not number else ""


def touching(used: Flags, validation: Flags, members: list[I8]) -> dict[str, Flags]:
    """The training rows that share a prompt, group or cluster (`members`, in this order) with one that is."""
    left = used & ~validation
    result = {}
    for reason, numbers in zip(DETAILS, members, strict=False):
        held = numpy.zeros(int(numbers.max(initial=-1)) + 2, dtype=bool)
        held[numbers[validation]] = True
        # -1, a row of no cluster, reads the last place
        held[-1] = False
        result[reason] = left & held[numbers]
        left &= ~result[reason]
    return result


def to_learn_from(used: Flags, validation: Flags, members: list[I8]) -> Flags:
    """The rows neither for validation nor dropped."""
    left = used & ~validation
    for flags in touching(used, validation, members).values():
        left &= ~flags
    return left


def classes(labels: NDArray[numpy.int8], rows: Flags) -> frozenset[int]:
    """The labels among some rows."""
    return frozenset(label for label in (0, 1) if (rows & (labels == label)).any())


def with_counts(result: Split, labels: NDArray[numpy.int8]) -> Split:
    """`result` with the note on rows dropped, and a warning where the validation rows cannot give an AUC."""
    rows = sum(int(flags.sum()) for flags in result.dropped.values())
    if rows:
        shared = "a prompt, a near-duplicate" if "near_duplicate_validation" in result.dropped else "a prompt"
        result.notes.append(
            f"{rows:,} training rows dropped: they share {shared} or a conversation with validation rows."
        )
    if result.validation.any() and len(classes(labels, result.validation)) < 2:
        result.warnings.append("The validation rows are all of one class: no AUC.")
    return result
