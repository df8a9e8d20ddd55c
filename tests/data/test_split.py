"""Validation split: units against union by hand, official splits kept, nothing shared between the splits."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.data.pipeline.split import (
    DETAILS,
    Split,
    number_validation,
    smallest_keys,
    split,
    split_units,
    training_rows,
)
from kto_cli.data.seeded_order import priority, row_keys

ROW = st.tuples(
    st.integers(0, 7),  # prompt
    st.integers(0, 7),  # group
    st.integers(-1, 3),  # cluster
    st.sampled_from([0, 1]),  # label
    st.sampled_from([False, False, False, True]),  # official
    st.integers(0, 2),  # source
    st.sampled_from([True, True, True, False]),  # used
)
ROWS = st.lists(ROW, max_size=30)


def columns(rows: list[tuple]) -> list[numpy.ndarray]:
    """Prompts, groups, clusters, labels, official, sources, used."""
    kinds = (numpy.int64, numpy.int64, numpy.int64, numpy.int8, bool, numpy.int16, bool)
    values = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return [numpy.array(value, dtype=kind) for value, kind in zip(values, kinds, strict=True)]


def split_rows(
    rows: list[tuple], share: float = 0.5, seed: int = 0, *, clustered: bool = True, renumber: bool = False
) -> Split:
    prompts, groups, clusters, labels, official, sources, used = columns(rows)
    group_keys = row_keys(groups)
    if renumber:
        prompts, groups, clusters = prompts * 5 % 8, groups * 3 % 8, numpy.where(clusters < 0, -1, 3 - clusters)
    return split(
        prompts=prompts,
        groups=groups,
        group_keys=group_keys,
        labels=labels,
        official=official,
        sources=sources,
        share=share,
        seed=seed,
        clusters=clusters if clustered else None,
        rows=used,
    )


def plain(
    count: int, *, label=lambda number: number % 2, official=lambda number: False, source=lambda number: 0
) -> list:
    """One row for each of `count` prompts, each its own group."""
    return [(n, n, -1, label(n), official(n), source(n), True) for n in range(count)]


def naive_families(rows: list[tuple], *, clustered: bool = True) -> list[set[int]]:
    """Sets of row positions, merged while any two rows of different sets share something."""
    sets = [{position} for position, row in enumerate(rows) if row[6]]

    def linked(left: int, right: int) -> bool:
        same = [rows[left][kind] == rows[right][kind] for kind in range(3)]
        return same[0] or same[1] or (clustered and same[2] and rows[left][2] >= 0)

    merged = True
    while merged:
        merged = False
        for first in sets:
            for second in sets:
                if first is not second and any(linked(left, right) for left in first for right in second):
                    first |= second
                    sets.remove(second)
                    merged = True
                    break
            if merged:
                break
    return sets


# --- split units ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(ROWS, st.booleans())
def test_families_as_naive(rows, clustered):
    prompts, groups, clusters, *_, used = columns(rows)
    names = split_units(prompts, groups, clusters if clustered else None, used)
    found: dict[int, set[int]] = {}
    for position in numpy.flatnonzero(used).tolist():
        found.setdefault(int(names[position]), set()).add(position)
    expected = naive_families(rows, clustered=clustered)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, expected))
    for name, members in found.items():
        assert name == min(prompts[list(members)])


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_chain_of_any_length_is_one_family(shuffle):
    """Prompt 0 - group 0 - prompt 1 - group 1 ...: 20,000 links, numbered in order or not, are one component."""
    prompts = numpy.repeat(numpy.arange(10_001), 2)[1:-1]
    groups = numpy.repeat(numpy.arange(10_000), 2)
    if shuffle:
        renamed = numpy.random.default_rng(0).permutation(10_001)
        prompts, groups = renamed[prompts], renamed[groups]
    assert set(split_units(prompts, groups).tolist()) == {int(prompts.min())}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2**64 - 1), st.booleans()), max_size=20))
def test_smallest_keys_as_naive(rows):
    names, first, second, used = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    keys = numpy.array([first, second], dtype=numpy.uint64).T.reshape(-1, 2)
    found = smallest_keys(numpy.array(names, dtype=numpy.int64), keys, numpy.array(used, dtype=bool))
    for name in range(max(names, default=-1) + 1):
        of_family = [row[1:3] for row in rows if row[0] == name and row[3]]
        assert tuple(found[name].tolist()) == min(of_family, default=(2**64 - 1, 2**64 - 1))


# --- the split --------------------------------------------------------------------------------


def test_number_validation():
    """The number of units whose rows are nearest to the share: 3 + 3 + 3 of 10 wanted, not 12."""
    ones = numpy.ones(1000, dtype=numpy.int64)
    assert [number_validation(share, ones) for share in (0.0, 0.001, 0.05, 0.5)] == [2, 2, 50, 500]
    assert number_validation(0.1, 3 * ones[:34]) == 3
    assert number_validation(0.1, 4 * ones[:25]) == 3  # 12, as near as 8
    assert number_validation(0.1, ones[:50], left=50) == 10
    assert number_validation(0.9, ones[:50], left=50) == 50


@settings(max_examples=250, deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.1, 0.5, 0.99]), st.integers(0, 5), st.booleans())
def test_nothing_is_shared_and_every_row_has_one_place(rows, share, seed, clustered):
    """Also where one prompt has several groups, one group several prompts, and sources overlap."""
    result = split_rows(rows, share, seed, clustered=clustered)
    prompts, groups, clusters, _, official, sources, used = columns(rows)
    members = [prompts, groups, clusters] if clustered else [prompts, groups]
    train = training_rows(used, result.validation, members)
    places = sum(flags.astype(int) for flags in (train, result.validation, *result.dropped.values()))
    assert (places == used).all()
    for numbers in members:
        assert not (set(numbers[train].tolist()) & set(numbers[result.validation].tolist())) - {-1}
    # official rows are held out, the other rows of their sources are not
    own = set(sources[official & used].tolist())
    for position, source in enumerate(sources.tolist()):
        if source in own:
            assert result.validation[position] == (official & used)[position]
    # why a row is dropped: the first of prompt, group and cluster that it shares
    for reason, numbers in zip(DETAILS, members, strict=False):
        held = set(numbers[result.validation].tolist()) - {-1}
        assert all(number in held for number in numbers[result.dropped[reason]].tolist())
    if not own:
        assert not any(flags.any() for flags in result.dropped.values())


def drawn_by_hand(sets: list[set[int]], share: float) -> list[set[int]]:
    """The first units, one more while that brings the rows nearer to the share; at least two, and two are left."""
    rows = sum(map(len, sets))
    wanted = share * rows
    may = [members for members in sets if len(members) <= max(wanted / 4, 2 * rows / len(sets))]
    chosen: list[set[int]] = []
    for members in may:
        before = sum(map(len, chosen))
        if len(chosen) >= 2 and abs(before + len(members) - wanted) > abs(before - wanted) + 1e-9:
            break
        chosen.append(members)
    return [] if len(sets) < 4 else chosen[: len(sets) - 2]


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(0, 5))
def test_the_seeded_split_as_naive(rows, seed):
    """Families by hand, in the order of the hash of their smallest group key; undone if the draw takes a class."""
    rows = [(*row[:4], False, 0, row[6]) for row in rows]
    result = split_rows(rows, 0.4, seed)
    sets = naive_families(rows)

    def key(members: set[int]) -> tuple:
        return min(tuple(row_keys(numpy.array([rows[member][1]]))[0].tolist()) for member in members)

    def place(members: set[int]) -> int:
        return int(priority(numpy.array([key(members)], dtype=numpy.uint64), seed, "held out")[0])

    held = set().union(*drawn_by_hand(sorted(sets, key=place), 0.4))
    there = {position for position, row in enumerate(rows) if row[6]}
    if {rows[position][3] for position in there - held} != {rows[position][3] for position in there}:
        held = set()
    assert set(numpy.flatnonzero(result.validation).tolist()) == held
    for members in sets:
        assert {tuple(result.unit_keys[member].tolist()) for member in members} == {key(members)}


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 5))
def test_the_order_of_the_rows_is_nothing(rows, seed):
    """Nor are the numbers of prompts and groups, which follow the order: keys are of the content."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    found = split_rows(rows, 0.4, seed)
    shuffled = split_rows([rows[position] for position in order], 0.4, seed, renumber=True)
    assert shuffled.validation.tolist() == [found.validation[position] for position in order]
    used = numpy.array([rows[position][6] for position in order], dtype=bool)
    assert (shuffled.unit_keys[used] == found.unit_keys[order][used]).all()
    assert (shuffled.notes, shuffled.warnings) == (found.notes, found.warnings)


def test_seeds_differ_and_repeat():
    rows = plain(200)
    sides = [tuple(split_rows(rows, 0.1, seed).validation.tolist()) for seed in (0, 0, 1)]
    assert sides[0] == sides[1] != sides[2]
    assert sum(sides[0]) == sum(sides[2]) == 20


def test_more_data_moves_few_families():
    fewer, more = split_rows(plain(400), 0.1), split_rows(plain(420), 0.1)
    assert int(fewer.validation.sum()) == 40
    assert int((fewer.validation & more.validation[:400]).sum()) >= 35


def test_a_row_more_in_a_family_does_not_move_it():
    """A conversation that goes on has more prompts and the same root."""
    rows = plain(100)
    more = [*rows, *((100 + n, n, -1, 1, False, 0, True) for n in range(100))]
    assert split_rows(rows).validation.tolist() == split_rows(more).validation[:100].tolist()


def test_large_families_are_not_drawn_more_often():
    """Of 1,000 units half have ten rows and half one: half of the rows are about 500 units, 250 of each, give or take
    4 deviations (hypergeometric: sqrt(500 * 1/2 * 1/2 * 500/999) = 7.9)."""
    rows = [(n * 10 + k, n * 10 + k, n, k % 2, False, 0, True) for n in range(1000) for k in range(10 if n % 2 else 1)]
    held = split_rows(rows, 0.5).validation
    small = sum(bool(held[position]) for position, row in enumerate(rows) if row[2] % 2 == 0)
    assert abs(small - 250) < 32


def units_of(*sizes: int) -> list[tuple]:
    """Clusters of these sizes, each row with a prompt of its own."""
    names = [number for number, size in enumerate(sizes) for _ in range(size)]
    return [(n, n, names[n], n % 2, False, 0, True) for n in range(len(names))]


def test_the_share_is_of_rows():
    """Units of 1 to 9 rows: a tenth of the rows is validation, to within half of the largest unit."""
    rows = units_of(*(1 + n % 9 for n in range(200)))
    for seed in range(5):
        result = split_rows(rows, 0.1, seed)
        assert abs(result.validation.sum() - 0.1 * len(rows)) <= 5
        assert result.warnings == []


@pytest.mark.parametrize("seed", range(6))
def test_one_very_large_unit_does_not_swallow_the_split(seed):
    """A template of 300 prompts beside 700 single ones: it stays in training, whatever the seed."""
    result = split_rows(units_of(300, *[1] * 700), 0.05, seed)
    assert result.validation.sum() == 50
    assert not result.validation[:300].any()
    assert result.warnings == []


def test_a_share_that_is_not_reached_is_a_warning():
    few = split_rows(units_of(3800, *[1] * 130), 0.05)
    assert few.validation.sum() == 129  # two units are left to training, the large one and another
    assert few.warnings == [
        "Validation split: 129 of 3,930 rows (3.3%), and 5.0% were asked for: "
        "3,800 rows belong together (one prompt, conversation or cluster) and are never drawn."
    ]
    many = split_rows(units_of(*[2] * 10), 0.05)
    assert many.validation.sum() == 4
    assert many.warnings == [
        "Validation split: 4 of 20 rows (20.0%), and 5.0% were asked for: it needs at least 2 prompts."
    ]


# --- official splits --------------------------------------------------------------------------


def test_an_official_split_is_kept_and_what_touches_it_is_dropped():
    rows = [
        (0, 0, 0, 1, True, 0, True),
        (0, 1, 1, 1, False, 0, True),  # same prompt
        (1, 0, 1, 0, False, 0, True),  # same conversation
        (2, 2, 0, 0, False, 0, True),  # nearly the same prompt
        (3, 3, -1, 0, False, 0, True),
        (4, 4, -1, 1, True, 0, False),  # gone
        (4, 5, -1, 1, False, 0, True),
    ]
    result = split_rows(rows, 0.5)
    assert numpy.flatnonzero(result.validation).tolist() == [0]
    assert {reason: numpy.flatnonzero(flags).tolist() for reason, flags in result.dropped.items()} == {
        "prompt_validation": [1],
        "conversation_validation": [2],
        "near_duplicate_validation": [3],
    }
    assert result.notes == [
        "Validation split: the official one of the source is used, and --validation is ignored.",
        "3 training rows dropped, which share a prompt, a near-duplicate or a conversation with the validation split.",
    ]
    assert result.warnings == ["All validation rows have the same label, so kto eval cannot compute an AUC."]
    assert set(result.dropped) <= set(DETAILS)


def test_in_a_mix_each_source_without_a_split_gets_a_seeded_one():
    """Source 0 has 10 official rows of 50; of the 100 prompts of source 1, one in ten is drawn."""
    rows = plain(150, official=lambda n: n < 10, source=lambda n: int(n >= 50), label=lambda n: n % 3 % 2)
    result = split_rows(rows, 0.1)
    assert result.validation[:50].tolist() == [True] * 10 + [False] * 40
    assert int(result.validation[50:].sum()) == 10
    assert result.notes == [
        "Validation split: 1 of 2 sources have an official one, which is used.",
        "Validation split: 10 of 100 rows of the other sources, 10 of 100 prompts or conversations (seed 0).",
    ]


def test_in_a_mix_train_rows_of_any_source_that_touch_validation_rows_are_dropped():
    """Prompt 0 is official in source 0 and a train row in source 1; every drawn prompt of source 1 that source 0
    has in train leaves there."""
    official = [(0, 0, -1, 1, True, 0, True)]
    own = [(n, n, -1, n % 2, False, 0, True) for n in range(1, 30)]
    other = [(n, n, -1, n % 2, False, 1, True) for n in range(30)]
    result = split_rows([*official, *own, *other], 0.2, clustered=False)
    drawn = {n for n in range(30) if result.validation[30 + n]}
    assert len(drawn) == 6
    left = {row for row in range(60) if result.dropped["prompt_validation"][row]}
    assert left == {n for n in drawn if n > 0} | ({30} - {30 + n for n in drawn})


# --- what is said -----------------------------------------------------------------------------


def test_few_prompts_and_whole_classes():
    few = split_rows(plain(3), 0.5)
    assert few.warnings == [
        "No validation split: 3 prompts, and at least 4 are needed. kto eval will need another dataset."
    ]
    assert not few.validation.any()
    assert split_rows(plain(3), 0.0).warnings == []
    assert split_rows(units_of(5, 5, 5), 0.5).warnings == [
        "No validation split: 15 prompts in 3 groups that may not be split (a conversation, near-duplicates), "
        "and at least 4 are needed. kto eval will need another dataset."
    ]
    assert split_rows([], 0.5).warnings == []
    for seed in range(8):
        one = split_rows(plain(4, label=lambda n: int(n > 0)), 0.5, seed)
        assert not one.validation[0]
        why = "No validation split: it would take all rows of one class."
        assert one.validation.any() or one.warnings == [f"{why} kto eval will need another dataset."]


def test_one_class_alone_can_be_validation_but_is_said():
    result = split_rows(plain(20, label=lambda n: 1), 0.2)
    assert int(result.validation.sum()) == 4
    assert result.notes == ["Validation split: 4 of 20 rows, 4 of 20 prompts or conversations (seed 0)."]
    assert result.warnings == ["All validation rows have the same label, so kto eval cannot compute an AUC."]


def test_a_split_of_another_source_that_takes_a_class_does_not_undo_the_draw():
    """Source 0's own test split has the only undesirable row; source 1 is drawn from all the same."""
    rows = [(0, 0, -1, 0, True, 0, True), *((n, n, -1, 1, False, 1, True) for n in range(1, 41))]
    assert int(split_rows(rows, 0.1).validation.sum()) == 5


def test_the_chosen_of_two_seeds_are_unlike():
    """No seed's order is another's shifted: places under neighbouring seeds are uncorrelated (|r| < 4 / sqrt(n))."""
    keys = row_keys(numpy.arange(10_000))
    places = [priority(keys, seed, "held out").astype(float) for seed in range(4)]
    for left, right in pairwise(places):
        assert abs(numpy.corrcoef(left, right)[0, 1]) < 0.04
