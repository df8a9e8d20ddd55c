"""The batch plan: each row once, both classes everywhere, a pure function; micro-batches and dealing."""

from __future__ import annotations

import random
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kto_cli.core.plan import deal, micro_batches, plan_epoch, steps_in_epoch

LABELS = st.lists(st.booleans(), min_size=1, max_size=120)
SIZES = st.integers(1, 20)
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)


def plan(labels: list[bool], size: int, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    return plan_epoch(labels, batch_size=size, seed=seed, epoch=epoch)


def imbalanced(desirable: int, undesirable: int) -> list[bool]:
    return [True] * desirable + [False] * undesirable


@settings(max_examples=300, deadline=None)
@given(labels=LABELS, size=SIZES, seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_each_row_once_in_batches_of_the_size(labels: list[bool], size: int, seed: int, epoch: int):
    batches = plan(labels, size, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(labels)))
    assert len(batches) == steps_in_epoch(len(labels), size)
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size


@settings(max_examples=500, deadline=None)
@given(few=st.integers(0, 25), many=st.integers(0, 120), size=SIZES, rare=st.booleans())
@example(few=3, many=39, size=20, rare=True)
@example(few=3, many=39, size=20, rare=False)
def test_both_classes_in_each_batch_where_counts_allow(few: int, many: int, size: int, rare: bool):
    """The examples: 42 rows in batches of 20, 20 and 2. The last batch's fair share of 3 rare rows is 0.14,
    which rounds to none, yet there is one for each batch."""
    labels = [rare] * few + [not rare] * many
    batches = plan(labels, size)
    wide = [batch for batch in batches if len(batch) > 1]
    counts = Counter(labels)
    for label in (True, False):
        if counts[label] >= len(wide):
            assert all(any(labels[row] == label for row in batch) for batch in wide)
        else:
            assert sum(any(labels[row] == label for row in batch) for batch in batches) == counts[label]


@settings(max_examples=300, deadline=None)
@given(desirable=st.integers(1, 80), undesirable=st.integers(1, 80), size=st.integers(2, 20))
def test_shares_are_even(desirable: int, undesirable: int, size: int):
    """Where a full batch's fair share of each class is at least one row, no full batch needs lifting: each holds its
    fair share to within one row. The last, ragged batch may be lifted once for each class; its donor then gives one."""
    labels = imbalanced(desirable, undesirable)
    fair = Fraction(desirable, len(labels))
    if size * min(fair, 1 - fair) < 1:
        return
    allowed = 1 if len(labels) % size == 0 else 2
    for batch in plan(labels, size):
        assert abs(sum(labels[row] for row in batch) - len(batch) * fair) < allowed


@pytest.mark.parametrize("labels", [imbalanced(100, 1000), imbalanced(1000, 100)])
def test_one_to_ten(labels: list[bool]):
    """1,100 rows in batches of 8: 137 full ones and one of 4, so 138 batches and only 100 rare rows: each rare row in
    a batch of its own. In batches of 16: 69 batches, 100 rare rows, fair share 1.45: one or two in each."""
    rare = labels.count(True) == 100
    eight = [sum(labels[row] == rare for row in batch) for batch in plan(labels, 8)]
    assert Counter(eight) == {1: 100, 0: 38}
    sixteen = [sum(labels[row] == rare for row in batch) for batch in plan(labels, 16)]
    assert Counter(sixteen) == {1: 38, 2: 31}
    longest = max(map(len, "".join(map(str, sixteen)).split("1")))
    assert longest <= 2, "batches with two rare rows are spread out as well"


@settings(deadline=None)
@given(labels=LABELS, size=SIZES, seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_same_seed_and_epoch_same_plan(labels: list[bool], size: int, seed: int, epoch: int):
    before = random.getstate()
    assert plan(labels, size, seed, epoch) == plan(labels, size, seed, epoch)
    assert random.getstate() == before


def test_other_epochs_and_seeds_other_plans():
    """A row meets other rows: of 100 batches of 8, sets of rows hardly ever repeat."""
    labels = imbalanced(400, 400)
    first = {frozenset(batch) for batch in plan(labels, 8)}
    for seed, epoch in ((0, 1), (1, 0), (1, 1)):
        assert not first & {frozenset(batch) for batch in plan(labels, 8, seed, epoch)}
    assert plan(labels, 8, 0, 1) != plan(labels, 8, 1, 0)


def test_rows_of_a_class_are_shuffled_over_the_whole_epoch():
    """The 100 + 100 rows of the first 20 batches come from all over the data, not from its start."""
    rows = [row for batch in plan(imbalanced(500, 500), 10)[:20] for row in batch]
    for start in (0, 500):
        mine = [row for row in rows if start <= row < start + 500]
        assert min(mine) < start + 50
        assert max(mine) >= start + 450


def test_time_grows_with_the_rows():
    """24,000 rows in batches of 2: about 0.05 s if the time is linear, over 1 s if it is quadratic. (320,000 rows in
    batches of 8, which is hh-rlhf, then take a quarter of a minute an epoch.)"""
    labels = imbalanced(12_000, 12_000)
    start = time.process_time()
    plan(labels, 2)
    assert time.process_time() - start < 0.4


@pytest.mark.parametrize(("rows", "size", "steps"), [(1, 8, 1), (8, 8, 1), (9, 8, 2), (1100, 16, 69)])
def test_steps_in_epoch(rows: int, size: int, steps: int):
    assert steps_in_epoch(rows, size) == steps


# --- micro-batches and dealing -----------------------------------------------------------------


@settings(deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_micro_batches_keep_to_the_budget(lengths: list[int], budget: int):
    batches = micro_batches(lengths, budget)
    order = [position for batch in batches for position in batch]
    assert order == sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    for batch in batches:
        padded = len(batch) * max(lengths[position] for position in batch)
        assert padded <= budget or len(batch) == 1


@settings(deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_micro_batches_are_as_large_as_the_budget_lets_them(lengths: list[int], budget: int):
    for batch in micro_batches(lengths, budget)[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget


def test_micro_batches_by_hand():
    """Budget 10: 7 fits once, 4 twice (8 tokens; 12 would be over), then 2 and 1 (4 tokens). 30 is over, alone."""
    assert micro_batches([4, 7, 1, 4, 2, 30], 10) == [[5], [1], [0, 3], [4, 2]]


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200), data=st.data())
def test_what_remains_is_cut_the_same_way(lengths: list[int], budget: int, data: st.DataObject):
    """An interrupted pass goes on with the batches it would have had, whichever were done."""
    batches = micro_batches(lengths, budget)
    done = data.draw(st.lists(st.booleans(), min_size=len(batches), max_size=len(batches)))
    left = [batch for batch, finished in zip(batches, done, strict=True) if not finished]
    positions = sorted(position for batch in left for position in batch)
    again = micro_batches([lengths[position] for position in positions], budget)
    assert [[positions[place] for place in batch] for batch in again] == left


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), max_size=40), ranks=st.integers(1, 8))
def test_deal_covers_disjointly_and_evenly(lengths: list[int], ranks: int):
    """In turn from the longest: rank r's k-th row is no longer than rank r+1's (k-1)-th, so the tokens of any two ranks
    differ by at most the longest row."""
    hands = deal(lengths, ranks)
    assert len(hands) == ranks
    assert sorted(position for hand in hands for position in hand) == list(range(len(lengths)))
    counts = [len(hand) for hand in hands]
    assert max(counts) - min(counts) <= 1
    tokens = [sum(lengths[position] for position in hand) for hand in hands]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)
