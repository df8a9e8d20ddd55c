"""Validation split: a hash of each prompt's root below a threshold, so that no row moves to training when others come.

A root is a prompt up to its first user turn, which all turns of a conversation have in common. A source with an
official split keeps it; of the other sources, the roots whose seeded hash is below the share that was asked for are for
validation. That depends on nothing but the row's own text, so it holds whatever other rows there are. Where an earlier
split is kept (`kept_split.py`), its sides come first.

Rows that would be on the wrong side are dropped, never moved to training: training rows that share a prompt, a group (a
conversation that the source names) or a cluster of near-duplicate prompts with a validation row, and the rows of a root
beyond `most_of_a_root`. A cluster of prompts on both sides keeps the rows of one of them, by a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.data.audit.near_duplicates import joined
from kto_cli.data.columns import I8, U8, Flags
from kto_cli.data.pipeline.kept_split import KeptSides
from kto_cli.data.pipeline.split_notes import SHARED, Split, drawn_note, official_note, with_counts
from kto_cli.data.seeded_order import priority, rank_in_groups

FEWEST_TO_SPLIT = 4
"""Prompts or conversations needed for a validation split."""
FEWEST_PROMPTS = 2
"""Prompts of a validation split: the reference point (z_ref) needs a prompt and the answer to another prompt."""
LARGEST_PART = 0.25
"""Share of the validation rows asked for that one root may be."""
LEAST_OF_A_ROOT = 10
"""Validation rows that any root may have, however few are asked for."""


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


def below_threshold(root_keys: U8, share: float, seed: int) -> Flags:
    """[rows] whether the seeded hash of a root is in the first `share` of all hashes."""
    return priority(root_keys, seed, "validation") < numpy.uint64(int(share * 2**64))


def most_of_a_root(share: float, rows: int) -> int:
    """Validation rows that a root may have at most, of so many rows of which `share` are for validation."""
    return max(LEAST_OF_A_ROOT, int(LARGEST_PART * share * rows))


def split(
    *,
    prompts: I8,
    groups: I8,
    group_keys: U8,
    roots: I8,
    root_keys: U8,
    keys: U8,
    pairs: I8,
    labels: NDArray[numpy.int8],
    official: Flags,
    sources: NDArray[numpy.int16],
    share: float,
    seed: int,
    clusters: I8 | None = None,
    rows: Flags | None = None,
    earlier_keys: Sequence[U8] = (),
    kept: KeptSides | None = None,
) -> Split:
    """Splits rows by the rules above.

    Args:
        prompts, groups, clusters: [rows], see `split_units`.
        roots: [rows] numbers from 0.
        group_keys, root_keys, keys: [rows, 2] of the groups, the roots and the rows themselves.
        pairs, labels, official, sources: [rows], see `Columns`; labels of rows that count are 1 or 0.
        share: of the rows to validate on, among the sources without an official split.
        rows: [rows] rows that count; other rows are in no split and connect nothing.
        earlier_keys: each [rows, 2] what the roots were before `separate_openings` told them apart.
        kept: sides of an earlier dataset.
    """
    used = numpy.ones(len(prompts), dtype=bool) if rows is None else rows
    official = official & used
    free = used & ~numpy.isin(sources, sources[official])
    hashed = below_threshold(root_keys, share, seed)
    if why_not := _no_split(roots, labels, official, free | ~used, hashed):
        hashed = numpy.zeros_like(hashed)
    kept = KeptSides.nothing(len(prompts)) if kept is None else kept
    sides = kept.of_groups(roots, groups, used)
    for_validation = sides[0] | (hashed & ~sides[1])
    drawn = free & for_validation & ~kept.training
    outvoted = _of_training_clusters(drawn, free & ~for_validation, clusters, root_keys, sides[0], share, seed)
    drawn = drawn & ~outvoted
    within = _within_limit(drawn, roots, pairs, keys, most_of_a_root(share, int(free.sum())), seed)
    was = [below_threshold(before, share, seed) for before in (() if why_not else earlier_keys)]
    dropped = {
        "kept_training": free & for_validation & kept.training,
        "opening_validation": free & _any_of(was, free) & ~for_validation & ~sides[1],
        "near_duplicate_training": outvoted,
        "large_validation": drawn & ~within,
    }
    if len(numpy.unique(prompts[official | within])) < FEWEST_PROMPTS:
        dropped["few_validation"], within = within, numpy.zeros_like(within)
    validation = official | within
    left = used & ~validation & ~numpy.logical_or.reduce(list(dropped.values()))
    dropped |= overlapping(left, validation, prompts, groups, clusters, kept=kept)
    units = split_units(prompts, groups, clusters, used)
    unit_keys = smallest_keys(units, group_keys, used)[units]
    result = Split(validation, {name: flags for name, flags in dropped.items() if flags.any()}, unit_keys)
    result.notes += filter(None, [official_note(sources, used, free), drawn_note(free, within, roots, seed)])
    return with_counts(result, labels, share, int(free.sum()), "" if within.any() else why_not)


def _no_split(roots: I8, labels: NDArray[numpy.int8], official: Flags, free: Flags, hashed: Flags) -> str:
    """Reason to draw no rows; empty if there is none. It holds for no more rows once it does not: all rows count."""
    found = len(numpy.unique(roots[free]))
    if found < FEWEST_TO_SPLIT:
        return (
            f"{plural(found, 'prompt or conversation', 'prompts or conversations')}, and {FEWEST_TO_SPLIT} are needed"
        )
    left = ~official & ~(free & hashed)
    if len(numpy.unique(roots[left])) < FEWEST_PROMPTS:
        return "it would leave less than two prompts or conversations for training"
    classes = [numpy.unique(labels[rows & (labels >= 0)]) for rows in (left, ~official)]
    return "it would take all rows of one class" if len(classes[0]) < len(classes[1]) else ""


def _of_training_clusters(
    drawn: Flags, training: Flags, clusters: I8 | None, root_keys: U8, kept: Flags, share: float, seed: int
) -> Flags:
    """[rows] drawn rows of near-duplicate clusters that also have training rows, if the hash of the cluster's smallest
    root is not below the threshold and no row of it has `kept` its side."""
    if clusters is None:
        return numpy.zeros_like(drawn)
    count = int(clusters.max(initial=-1)) + 1
    members = {name: numpy.zeros(count + 1, dtype=bool) for name in ("drawn", "training", "kept")}
    for name, rows in (("drawn", drawn), ("training", training), ("kept", drawn & kept)):
        members[name][clusters[rows]] = True
    smallest = smallest_keys(numpy.where(clusters < 0, count, clusters), root_keys, drawn | training)
    below = below_threshold(smallest, share, seed)
    outvoted = members["drawn"] & members["training"] & ~members["kept"]
    outvoted[: len(below)] &= ~below
    outvoted[-1] = False  # of the number -1, a row of no cluster
    return drawn & outvoted[clusters]


def _within_limit(drawn: Flags, roots: I8, pairs: I8, keys: U8, most: int, seed: int) -> Flags:
    """[rows] the first `most` drawn rows of each root in a seeded order; a pair is in or out as a whole."""
    index = numpy.flatnonzero(drawn)
    ranks = rank_in_groups(roots[index], _of_pairs(pairs[index], priority(keys[index], seed, "validation rows")))
    within = numpy.zeros_like(drawn)
    within[index] = _of_pairs(pairs[index], ranks) < most
    return within


def _of_pairs(pairs: I8, values: NDArray[Any]) -> NDArray[Any]:
    """[rows] values in which both rows of a pair have the smaller of theirs."""
    paired = pairs >= 0
    smallest = numpy.full(int(pairs.max(initial=-1)) + 1, numpy.iinfo(values.dtype).max, dtype=values.dtype)
    numpy.minimum.at(smallest, pairs[paired], values[paired])
    result = values.copy()
    result[paired] = smallest[pairs[paired]]
    return result


def _any_of(flags: Sequence[Flags], like: Flags) -> Flags:
    """[rows] whether one of them is set."""
    return numpy.logical_or.reduce([numpy.zeros_like(like), *flags])


def overlapping(left: Flags, validation: Flags, *members: I8 | None, kept: KeptSides) -> dict[str, Flags]:
    """Rows of `left` that share a prompt, group or cluster (`members`, in this order) with a validation row.

    A row whose prompt was for validation in the dataset of `kept` has a reason too, if that prompt's rows are not here.
    """
    result = {}
    for reason, numbers in zip(SHARED, members, strict=True):
        if numbers is None:
            continue
        shared = numpy.zeros(int(numbers.max(initial=-1)) + 2, dtype=bool)
        shared[numbers[validation]] = True
        shared[-1] = False  # read by the number -1, a row of no cluster
        result[reason] = left & shared[numbers]
        if reason == SHARED[0]:
            result[reason] |= left & kept.validation
        left = left & ~result[reason]
    return result
