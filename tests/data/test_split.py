"""Validation split: no validation row ever moves to training, official splits kept, nothing shared by both sides."""

from __future__ import annotations

import random

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.data.pipeline.kept_split import KeptSides
from kto_cli.data.pipeline.split import below_threshold, most_of_a_root, smallest_keys, split, split_units
from kto_cli.data.pipeline.split_notes import DETAILS, SHARED, Split
from kto_cli.data.seeded_order import row_keys

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
    rows: list[tuple],
    share: float = 0.5,
    seed: int = 0,
    *,
    clustered: bool = True,
    renumber: bool = False,
    kept: KeptSides | None = None,
    pairs: list[int] | None = None,
    roots: list[int] | None = None,
) -> Split:
    """Splits rows; each prompt is a root unless `roots` says otherwise."""
    prompts, groups, clusters, labels, official, sources, used = columns(rows)
    group_keys, keys = row_keys(groups), row_keys(prompts, groups, labels)
    numbers = prompts if roots is None else numpy.array(roots, dtype=numpy.int64)
    root_keys = row_keys(numbers)
    if renumber:
        numbers = numbers * 3 % 8
        prompts, groups, clusters = prompts * 5 % 8, groups * 3 % 8, numpy.where(clusters < 0, -1, 3 - clusters)
    return split(
        prompts=prompts,
        groups=groups,
        group_keys=group_keys,
        roots=numbers,
        root_keys=root_keys,
        keys=keys,
        pairs=numpy.array(pairs or [-1] * len(rows), dtype=numpy.int64),
        labels=labels,
        official=official,
        sources=sources,
        share=share,
        seed=seed,
        clusters=clusters if clustered else None,
        rows=used,
        kept=kept,
    )


def training(result: Split, rows: list[tuple]) -> numpy.ndarray:
    """Rows that are neither for validation nor dropped."""
    left = columns(rows)[6] & ~result.validation
    for flags in result.dropped.values():
        left &= ~flags
    return left


LEFT_OUT = {"large_validation", "few_validation", "near_duplicate_training"}


def halves(rows: list[tuple]) -> list[int]:
    """Roots that two prompts share."""
    return [row[0] // 2 for row in rows]


def drawn(root: int, share: float = 0.5, seed: int = 0) -> bool:
    """Whether the hash of this root is below the threshold."""
    return bool(below_threshold(row_keys(numpy.array([root])), share, seed)[0])


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


@settings(max_examples=250, deadline=None)
@given(ROWS, st.sampled_from([0.0, 0.1, 0.5, 0.99]), st.integers(0, 5), st.booleans())
def test_nothing_is_shared_and_every_row_has_one_place(rows, share, seed, clustered):
    """Also where one prompt has several groups, one group several prompts, and sources overlap."""
    result = split_rows(rows, share, seed, clustered=clustered, roots=halves(rows))
    prompts, groups, clusters, _, official, sources, used = columns(rows)
    members = [prompts, groups, clusters] if clustered else [prompts, groups]
    train = training(result, rows)
    places = sum(flags.astype(int) for flags in (train, result.validation, *result.dropped.values()))
    assert (places == used).all()
    for numbers in members:
        assert not (set(numbers[train].tolist()) & set(numbers[result.validation].tolist())) - {-1}
    own = set(sources[official & used].tolist())
    for position, source in enumerate(sources.tolist()):
        if source in own:
            assert result.validation[position] == (official & used)[position]
        else:
            due = bool(used[position]) and drawn(int(prompts[position]) // 2, share, seed)
            left_out = any(result.dropped[name][position] for name in LEFT_OUT & set(result.dropped))
            assert not result.validation[position] or due
            if "No validation split" not in str(result.warnings):
                assert result.validation[position] == (due and not left_out)
    # why a row is dropped: the first of prompt, group and cluster that it shares
    for reason, numbers in zip(SHARED, members, strict=False):
        held = set(numbers[result.validation].tolist()) - {-1}
        if reason in result.dropped:
            assert all(number in held for number in numbers[result.dropped[reason]].tolist())


@settings(max_examples=250, deadline=None)
@given(ROWS, ROWS, st.integers(0, 5), st.booleans(), st.randoms(use_true_random=False))
def test_validation_rows_stay_when_rows_are_added(rows, more, seed, clustered, random):
    """New rows come anywhere, of new and old prompts, conversations, clusters and sources; also official ones."""
    more = [(*row[:4], False, 3 + row[5], row[6]) for row in more]
    order = list(range(len(rows) + len(more)))
    random.shuffle(order)
    together = [*rows, *more]
    now_there = [together[position] for position in order]
    before = split_rows(rows, 0.4, seed, clustered=clustered, roots=halves(rows))
    after = split_rows(now_there, 0.4, seed, clustered=clustered, roots=halves(now_there))
    trained, validated = training(after, now_there), after.validation
    left_out = [flags for name, flags in after.dropped.items() if name in LEFT_OUT]
    for position in numpy.flatnonzero(before.validation):
        now = order.index(position)
        assert not trained[now]
        assert validated[now] or any(flags[now] for flags in left_out)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 5))
def test_the_order_of_the_rows_is_nothing(rows, seed):
    """Nor are the numbers of prompts and groups, which follow the order: keys are of the content."""
    rows = list({(row[0], row[1], row[3]): row for row in rows}.values())  # copies of a row are alike to the limit
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    found = split_rows(rows, 0.4, seed)
    shuffled = split_rows([rows[position] for position in order], 0.4, seed, renumber=True)
    assert shuffled.validation.tolist() == [found.validation[position] for position in order]
    used = numpy.array([rows[position][6] for position in order], dtype=bool)
    assert (shuffled.unit_keys[used] == found.unit_keys[order][used]).all()
    assert (shuffled.notes, shuffled.warnings) == (found.notes, found.warnings)


def test_the_share_is_of_rows():
    """Prompts of 1 to 9 rows, 20,000 rows: a tenth of the rows is validation, to within 4 deviations: the variance is
    p (1 - p) times the sum of squared sizes, 4,000 prompts of mean square 31.7: 107 rows."""
    rows = [(n, n * 10 + k, -1, k % 2, False, 0, True) for n in range(4000) for k in range(1 + n % 9)]
    for seed in range(5):
        assert abs(split_rows(rows, 0.1, seed, clustered=False).validation.sum() - 0.1 * len(rows)) < 428


def test_seeds_differ_and_repeat():
    rows = plain(2000)
    sides = [tuple(split_rows(rows, 0.1, seed).validation.tolist()) for seed in (0, 0, 1)]
    assert sides[0] == sides[1] != sides[2]
    both = numpy.array(sides[0]) & numpy.array(sides[2])
    assert abs(sum(sides[0]) - 200) < 54  # 4 sqrt(2000 * 0.1 * 0.9)
    assert both.sum() < 46  # of 20 expected if the seeds are independent: 6 deviations


def test_a_large_root_does_not_swamp_the_split():
    """500 rows of one drawn prompt beside 500 single ones: at 5 %, 12 of them are for validation, the others in
    no split, which is a warning; the first rows of a seeded order, whatever else is added to the prompt."""
    number = next(n for n in range(1000) if drawn(n, 0.05))
    rows = [(number, 1000 + k, -1, k % 2, False, 0, True) for k in range(500)]
    rows += [(n, n, -1, n % 2, False, 0, True) for n in range(2000, 2500)]
    result = split_rows(rows, 0.05)
    assert most_of_a_root(0.05, 1000) == 12
    assert result.validation[:500].sum() == 12
    assert result.dropped["large_validation"].sum() == 488
    assert not training(result, rows)[:500].any()
    assert result.warnings[0] == f"488 rows dropped: {DETAILS['large_validation']}."


def test_the_limit_of_a_root_keeps_pairs_whole():
    number = next(n for n in range(100) if drawn(n))
    rows = [(500 + k // 2, number, -1, k % 2, False, 0, True) for k in range(40)]
    others = [(n, n, -1, n % 2, False, 0, True) for n in range(200, 240)]
    pairs, roots = [k // 2 for k in range(40)] + [-1] * 40, [number] * 40 + [row[0] for row in others]
    held = split_rows([*rows, *others], 0.5, pairs=pairs, roots=roots).validation[:40]
    assert held.sum() == 10
    assert (held[::2] == held[1::2]).all()


def test_a_row_that_joins_two_sides_never_takes_validation_to_training():
    """A new row has a training prompt and is of the conversation of a validation row: it is dropped and counted, the
    other rows stay where they are."""
    held = next(n for n in range(100) if drawn(n))
    trained = next(n for n in range(100) if not drawn(n))
    rows = [(n, n, -1, n % 2, False, 0, True) for n in (held, trained, *range(100, 140))]
    joining = (trained, held, -1, 0, False, 0, True)
    before, after = split_rows(rows), split_rows([*rows, joining])
    assert before.validation[:2].tolist() == [True, False]
    assert after.validation.tolist() == [*before.validation, False]
    assert training(after, [*rows, joining]).tolist() == [*training(before, rows), False]
    assert after.dropped["conversation_validation"].tolist() == [False] * len(rows) + [True]
    result = after
    assert any(note.startswith("1 training row dropped, which share") for note in result.notes)


def test_a_cluster_of_near_duplicates_loses_the_rows_of_one_side():
    """A template of 200 prompts on both sides: at 5 % the hash of its smallest root mostly says training, and the few
    rows that were drawn are left out; the others train."""
    rows = [(n, n, 0, n % 2, False, 0, True) for n in range(200)] + plain(400)[200:]
    result = split_rows(rows, 0.05)
    held = numpy.array([drawn(n, 0.05) for n in range(200)])
    assert 0 < held.sum() < 20
    assert result.dropped["near_duplicate_training"][:200].tolist() == held.tolist()
    assert training(result, rows)[:200].tolist() == (~held).tolist()


# --- an earlier split that is kept ------------------------------------------------------------


def sides_of(rows: list[tuple], *, validation: set[int], training: set[int]) -> KeptSides:
    """Sides known by prompt."""
    prompts = [row[0] for row in rows]
    return KeptSides(
        numpy.array([prompt in validation for prompt in prompts], dtype=bool),
        numpy.array([prompt in training - validation for prompt in prompts], dtype=bool),
        numpy.zeros((2, len(rows)), dtype=bool),
    )


@settings(max_examples=250, deadline=None)
@given(ROWS, st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)), st.integers(0, 5))
def test_kept_sides_come_before_the_hash(rows, validation, train, seed):
    """Whatever the earlier split was: its validation prompts are never trained on, its training prompts never validated
    on, and a conversation with one of either kind has that side."""
    rows = [(*row[:4], False, 0, row[6]) for row in rows]
    result = split_rows(rows, 0.4, seed, kept=sides_of(rows, validation=validation, training=train))
    trained = training(result, rows)
    for position, row in enumerate(rows):
        if row[0] in validation:
            assert not trained[position]
        elif row[0] in train:
            assert not result.validation[position]
    used = [row for row in rows if row[6]]
    for position, row in enumerate(rows):
        of_group = {other[0] for other in used if other[1] == row[1]}
        if row[6] and of_group & validation:
            assert not trained[position]
        elif row[6] and of_group & train:
            assert not result.validation[position]


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
    """Source 0 has 10 official rows of 50; of the 100 prompts of source 1, those are drawn whose hash is low."""
    rows = plain(150, official=lambda n: n < 10, source=lambda n: int(n >= 50), label=lambda n: n % 3 % 2)
    result = split_rows(rows, 0.1)
    assert result.validation[:50].tolist() == [True] * 10 + [False] * 40
    assert result.validation[50:].tolist() == [drawn(n, 0.1) for n in range(50, 150)]
    count = int(result.validation[50:].sum())
    assert result.notes == [
        "Validation split: 1 of 2 sources have an official one, which is used.",
        f"Validation split: {count} of 100 rows, {count} of 100 prompts or conversations (seed 0).",
    ]


def test_in_a_mix_train_rows_of_any_source_that_touch_validation_rows_are_dropped():
    """Prompt 0 is official in source 0 and a train row in source 1; every drawn prompt of source 1 that source 0
    has in train leaves there."""
    official = [(0, 0, -1, 1, True, 0, True)]
    own = [(n, n, -1, n % 2, False, 0, True) for n in range(1, 30)]
    other = [(n, n, -1, n % 2, False, 1, True) for n in range(30)]
    result = split_rows([*official, *own, *other], 0.2, clustered=False)
    chosen = {n for n in range(30) if drawn(n, 0.2)}
    assert {n for n in range(30) if result.validation[30 + n]} == chosen
    left = {row for row in range(60) if result.dropped["prompt_validation"][row]}
    assert left == {n for n in chosen if n > 0} | ({30} - {30 + n for n in chosen})


# --- what is said -----------------------------------------------------------------------------


def test_few_validation_rows_and_none_are_warnings():
    rows = [(n, n, -1, k, False, 0, True) for n in range(40) for k in (0, 1)]
    count = int(split_rows(rows).validation.sum())
    few = f"Only {count} validation rows: below 100, intervals are wide and few verdicts are sure."
    assert split_rows(rows).warnings == [f"{few} More feedback gives more."]
    assert split_rows(plain(1000), 0.05).warnings[0].endswith("sure. --validation 0.1 would give about 100.")
    none = [row for row in plain(40) if not drawn(row[0])]
    assert split_rows(none).warnings == [
        f"No validation split: none of {len(none)} rows was drawn; a larger --validation draws more. kto eval will "
        "need another dataset."
    ]
    assert split_rows(none, 0.0).warnings == split_rows([]).warnings == []


def test_too_few_prompts_make_no_validation_split():
    """Below four prompts or conversations all rows are for training, and of one drawn prompt alone none."""
    three = plain(3)
    result = split_rows(three, 0.99)
    assert training(result, three).all()
    why = "No validation split: 3 prompts or conversations, and 4 are needed. kto eval will need another dataset."
    assert result.warnings == [why]
    alone = [row for row in plain(200) if not drawn(row[0])]
    number = next(n for n in range(200) if drawn(n))
    rows = [*alone, (number, number, -1, 1, False, 0, True)]
    result = split_rows(rows)
    assert not result.validation.any()
    assert result.dropped["few_validation"].tolist() == [False] * len(alone) + [True]
    assert training(result, rows).sum() == len(alone)


def test_the_draw_never_takes_a_class_or_all_prompts():
    """All rows are for training then, until there is a row of that class, or a prompt, on the training side."""
    rows = [(n, n, -1, int(not drawn(n)), False, 0, True) for n in range(40)]
    result = split_rows(rows)
    assert training(result, rows).all()
    why = "No validation split: it would take all rows of one class. kto eval will need another dataset."
    assert result.warnings == [why]
    number = next(n for n in range(100, 200) if not drawn(n))
    assert split_rows([*rows, (number, number, -1, 0, False, 0, True)]).validation.any()
    rows = [row for row in plain(80) if drawn(row[0])]
    assert "less than two prompts or conversations for training" in split_rows(rows).warnings[0]


def test_one_class_alone_can_be_validation_but_is_said():
    result = split_rows(plain(20, label=lambda n: 1))
    assert result.validation.any()
    assert result.warnings == ["All validation rows have the same label, so kto eval cannot compute an AUC."]
