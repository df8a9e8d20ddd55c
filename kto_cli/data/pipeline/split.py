"""Validation split: whole split units, so that no prompt and no conversation is in both splits.

A split unit is the rows that share a prompt, a group (conversation) or a cluster of near-duplicate prompts, directly or
through other rows. A source with an official split keeps it; of the other sources, the first units in the order of a
seeded hash of their keys are for validation, until they hold the share of the rows that was asked for. A unit's key is
its smallest group key, so more data moves few units. A very large unit is never drawn: it would be all of the split.
The draw never takes all rows of a class. Training rows that share a prompt, group or cluster with a validation row are
dropped: official splits may overlap, and so may two sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.data.audit.near_duplicates import joined
from kto_cli.data.columns import I8, U8, Flags
from kto_cli.data.seeded_order import keep_exactly, priority

FEWEST_TO_SPLIT = 4
"""Split units needed for a validation split."""
FEWEST_PER_SPLIT = 2
"""Split units in each split: the reference point (z_ref) needs a prompt and the answer to another prompt."""
LARGEST_PART = 0.25
"""Share of the validation rows that one split unit may be, unless all units are about as large."""
CLOSE = 0.2
"""A split that is further from the share that was asked for, relative to it, is a warning."""
DETAILS = {
    "prompt_validation": "the validation split has the same prompt",
    "conversation_validation": "the validation split has the same conversation",
    "near_duplicate_validation": "the validation split has nearly the same prompt",
}
"""Explanation of each reason to drop a row."""


@dataclass
class Split:
    """Rows for validation and rows to drop; all other rows are for training."""

    validation: Flags
    dropped: dict[str, Flags]
    """Rows by the reasons of `DETAILS`; no row has two."""
    unit_keys: U8
    """[rows, 2] key of each row's split unit, for `sample`."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def split_units(prompts: I8, groups: I8, clusters: I8 | None = None, rows: Flags | None = None) -> I8:
    """Split unit of each row: the connected component of rows that share a prompt, a group or a cluster.

    Args:
        prompts, groups: [rows] numbers from 0.
        clusters: [rows] numbers from 0 of near-duplicate prompts, -1 for none.
        rows: [rows] rows that count; other rows connect nothing.

    Returns:
        [rows] the smallest prompt number of the unit.
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


def smallest_keys(units: I8, keys: U8, rows: Flags) -> U8:
    """Smallest key among the rows of each split unit; keys are compared by their first word, then the second.

    Args:
        units: [rows] numbers from 0.
        keys: [rows, 2].
        rows: [rows] rows that count.

    Returns:
        [units, 2]; the largest possible key for a number without rows.
    """
    smallest = numpy.full((int(units.max(initial=-1)) + 1, 2), numpy.iinfo(numpy.uint64).max, dtype=numpy.uint64)
    numpy.minimum.at(smallest[:, 0], units[rows], keys[rows, 0])
    rows = rows & (keys[:, 0] == smallest[units, 0])
    numpy.minimum.at(smallest[:, 1], units[rows], keys[rows, 1])
    return smallest


def number_validation(share: float, sizes: I8, left: int = 0) -> int:
    """Number of units, the first of `sizes`, whose rows are nearest to the share, within what both splits need.

    Args:
        share: of all rows.
        sizes: [units] rows of each unit that may be drawn, in the order of the draw.
        left: rows of the units that may not be drawn.
    """
    wanted = share * (int(sizes.sum()) + left)
    nearest = int((numpy.cumsum(sizes) - sizes / 2 <= wanted).sum())
    return min(max(nearest, FEWEST_PER_SPLIT), len(sizes))


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
    """Splits rows by the rules above.

    Args:
        prompts, groups, clusters: [rows], see `split_units`.
        group_keys: [rows, 2].
        labels, official, sources: [rows], see `Columns`; labels of rows that count are 1 or 0.
        share: of the rows to validate on, among the sources without an official split.
        rows: [rows] rows that count; other rows are in no split and connect nothing.
    """
    used = numpy.ones(len(prompts), dtype=bool) if rows is None else rows
    official = official & used
    free = used & ~numpy.isin(sources, sources[official])
    members = [prompts, groups] if clusters is None else [prompts, groups, clusters]
    units = split_units(prompts, groups, clusters, used)
    keys = smallest_keys(units, group_keys, used)
    whose = " of the other sources" if official.any() else ""
    drawn, note, warning = seeded(units, keys, free, share, seed, whose, len(numpy.unique(prompts[free])))
    training = (training_rows(used, flags, members) for flags in (official, official | drawn))
    if len({classes(labels, rows) for rows in training}) > 1:
        drawn, note = numpy.zeros_like(drawn), ""
        warning = f"No validation split{whose}: it would take all rows of one class."
    notes = [text for text in (official_note(sources, used, free), note) if text]
    warnings = [warning if drawn.any() else warning + " kto eval will need another dataset."] if warning else []
    validation = official | drawn
    result = Split(validation, overlapping(used, validation, members), keys[units], notes, warnings)
    return with_counts(result, labels)


def official_note(sources: NDArray[numpy.int16], used: Flags, free: Flags) -> str:
    """Note on official splits, if there are any; `free` are the rows of the sources without one."""
    count, without = len(numpy.unique(sources[used])), len(numpy.unique(sources[free]))
    if count == without:
        return ""
    if without:
        return f"Validation split: {count - without} of {plural(count, 'source')} have an official one, which is used."
    return "Validation split: the official one of the source is used, and --validation is ignored."


def seeded(
    units: I8, keys: U8, free: Flags, share: float, seed: int, whose: str, prompts: int
) -> tuple[Flags, str, str]:
    """(rows of the split units drawn among the free rows, a note, a warning); texts may be empty.

    `prompts` is the number of prompts of the free rows.
    """
    sizes = numpy.bincount(units[free], minlength=len(keys))
    count, rows = int((sizes > 0).sum()), int(free.sum())
    if share == 0 or count < FEWEST_TO_SPLIT:
        found = plural(count, "prompt")
        if prompts > count:
            groups = plural(count, "group that may not be split", "groups that may not be split")
            found = f"{plural(prompts, 'prompt')} in {groups} (a conversation, near-duplicates)"
        few = f"No validation split{whose}: {found}, and at least {FEWEST_TO_SPLIT} are needed."
        return numpy.zeros_like(free), "", few if share and count else ""
    may = (sizes > 0) & (sizes <= max(LARGEST_PART * share * rows, 2 * rows / count))
    order = priority(keys, seed, "held out")
    ordered = numpy.flatnonzero(may)[numpy.lexsort((order[may],))]
    number = number_validation(share, sizes[ordered], int(sizes[~may].sum()))
    number = min(number, count - FEWEST_PER_SPLIT)
    drawn = free & keep_exactly(may, order, number)[units]
    got = int(drawn.sum())
    what = f"Validation split: {got:,} of {plural(rows, 'row')}{whose}"
    note = f"{what}, {number:,} of {plural(count, 'prompt or conversation', 'prompts or conversations')} (seed {seed})."
    return drawn, note, off_target(what, got / rows, share, int(sizes.max()), number)


def off_target(what: str, got: float, share: float, largest: int, number: int) -> str:
    """Warning that the validation split is larger or smaller than asked for, and why; empty if it is not."""
    if abs(got - share) <= CLOSE * share:
        return ""
    if got > share:
        why = f"it needs at least {FEWEST_PER_SPLIT} prompts" if number == FEWEST_PER_SPLIT else "they have many rows"
    else:
        why = f"{plural(largest, 'row')} belong together (one prompt, conversation or cluster) and are never drawn"
    return f"{what} ({got:.1%}), and {share:.1%} were asked for: {why}."


def overlapping(used: Flags, validation: Flags, members: list[I8]) -> dict[str, Flags]:
    """Other rows that share a prompt, group or cluster (`members`, in this order) with a validation row, by reason."""
    left = used & ~validation
    result = {}
    for reason, numbers in zip(DETAILS, members, strict=False):
        shared = numpy.zeros(int(numbers.max(initial=-1)) + 2, dtype=bool)
        shared[numbers[validation]] = True
        shared[-1] = False  # read by the number -1, a row of no cluster
        result[reason] = left & shared[numbers]
        left &= ~result[reason]
    return result


def training_rows(used: Flags, validation: Flags, members: list[I8]) -> Flags:
    """Rows that are neither for validation nor dropped."""
    left = used & ~validation
    for flags in overlapping(used, validation, members).values():
        left &= ~flags
    return left


def classes(labels: NDArray[numpy.int8], rows: Flags) -> frozenset[int]:
    """Labels that occur among some rows."""
    return frozenset(label for label in (0, 1) if (rows & (labels == label)).any())


def with_counts(result: Split, labels: NDArray[numpy.int8]) -> Split:
    """`result` with a note on dropped rows, and a warning if the validation rows cannot give an AUC."""
    count = sum(int(flags.sum()) for flags in result.dropped.values())
    if count:
        what = "a prompt, a near-duplicate" if "near_duplicate_validation" in result.dropped else "a prompt"
        rows = plural(count, "training row")
        result.notes.append(f"{rows} dropped, which share {what} or a conversation with the validation split.")
    if result.validation.any() and len(classes(labels, result.validation)) < 2:
        result.warnings.append("All validation rows have the same label, so kto eval cannot compute an AUC.")
    return result
