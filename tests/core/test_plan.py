"""The batch plan: each row once, both classes everywhere, a pure function; micro-batches and dealing."""

from __future__ import annotations

import gc
import math
import random
import time
from collections import Counter
from fractions import Fraction
from statistics import mean, stdev

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kto_cli.core.packing import assign, padded_batches
from kto_cli.core.pieces import CONVERSATION_PIECE, PIECE, pieces
from kto_cli.core.plan import batch_sizes, plan_epoch, steps_in_epoch

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
    assert [len(batch) for batch in batches] == batch_sizes(len(labels), size)


@settings(max_examples=300, deadline=None)
@given(rows=st.integers(1, 2000), size=st.integers(1, 64))
def test_batches_are_even(rows: int, size: int):
    """As few steps as batches of at most `size` rows allow, and no row weighs much more than another: sizes differ by
    one at most. (33 rows in batches of 32 are 16 and 17, not 32 and a last row with 32 times the others' rate.)"""
    sizes = batch_sizes(rows, size)
    assert sum(sizes) == rows
    assert len(sizes) == steps_in_epoch(rows, size) == -(-rows // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=500, deadline=None)
@given(few=st.integers(0, 25), many=st.integers(0, 120), size=SIZES, rare=st.booleans())
@example(few=3, many=2, size=2, rare=True)
@example(few=3, many=2, size=2, rare=False)
def test_both_classes_in_each_batch_where_counts_allow(few: int, many: int, size: int, rare: bool):
    """A batch of one row cannot have both; any larger one does, where there are as many rows of each class."""
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
    """Where a batch's fair share of each class is at least one row, none needs lifting: each holds its fair share to
    within one row."""
    labels = imbalanced(desirable, undesirable)
    fair = Fraction(desirable, len(labels))
    if min(batch_sizes(len(labels), size)) * min(fair, 1 - fair) < 1:
        return
    for batch in plan(labels, size):
        assert abs(sum(labels[row] for row in batch) - len(batch) * fair) < 1


@pytest.mark.parametrize("labels", [imbalanced(100, 1000), imbalanced(1000, 100)])
def test_one_to_ten(labels: list[bool]):
    """1,100 rows in batches of 8: 138 batches of 7 or 8 and only 100 rare rows: each rare row in a batch of its own.
    In batches of 16: 69 batches, 100 rare rows, fair share 1.45: one or two in each."""
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
    """Eight times the rows, in batches of 2, take about eight times as long (0.05 s for 24,000); 64 times if the time
    were quadratic. Least of three, without the collector: it looks through all that other tests have left."""

    def seconds(of_each: int) -> float:
        labels = imbalanced(of_each, of_each)
        taken = []
        for _ in range(3):
            start = time.process_time()
            plan(labels, 2)
            taken.append(time.process_time() - start)
        return min(taken)

    gc.disable()
    try:
        assert seconds(12_000) < 24 * seconds(1_500)
    finally:
        gc.enable()


@pytest.mark.parametrize(("rows", "size", "steps"), [(1, 8, 1), (8, 8, 1), (9, 8, 2), (1100, 16, 69)])
def test_steps_in_epoch(rows: int, size: int, steps: int):
    assert steps_in_epoch(rows, size) == steps


# --- rows of one prompt ------------------------------------------------------------------------


def batches_of_each_prompt(batches: list[list[int]], prompts: list[int]) -> dict[int, int]:
    """Prompt -> in how many batches it has rows."""
    found: dict[int, set[int]] = {}
    for number, batch in enumerate(batches):
        for row in batch:
            found.setdefault(prompts[row], set()).add(number)
    return {prompt: len(numbers) for prompt, numbers in found.items()}


@settings(max_examples=300, deadline=None)
@given(labels=LABELS, size=SIZES, seed=st.integers(0, 5), data=st.data())
def test_grouping_changes_no_share(labels: list[bool], size: int, seed: int, data: st.DataObject):
    """Each row once, batches of the same sizes and class shares as without prompts."""
    prompts = data.draw(st.lists(st.integers(0, 12), min_size=len(labels), max_size=len(labels)))
    grouped = plan_epoch(labels, prompts, batch_size=size, seed=seed, epoch=0)
    assert sorted(row for batch in grouped for row in batch) == list(range(len(labels)))
    apart = plan(labels, size, seed)
    assert [len(batch) for batch in grouped] == [len(batch) for batch in apart]
    for ours, theirs in zip(grouped, apart, strict=True):
        assert sum(labels[row] for row in ours) == sum(labels[row] for row in theirs)


def test_pairs_stay_together():
    """512 pairs in batches of 32: 16 pairs each, none parted, and no batch the same in the next epoch."""
    labels, prompts = [True, False] * 512, [row // 2 for row in range(1024)]
    first, second = (plan_epoch(labels, prompts, batch_size=32, seed=0, epoch=epoch) for epoch in range(2))
    assert set(batches_of_each_prompt(first, prompts).values()) == {1}
    assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}


def test_groups_of_up_to_a_piece_are_hardly_parted():
    """1 to 4 rows a prompt, labels at random, batches of 32: fewer than one prompt a batch is parted."""
    draw = random.Random(0)
    prompts = [prompt for prompt in range(400) for _ in range(draw.randint(1, PIECE))]
    labels = [draw.random() < 0.4 for _ in prompts]
    batches = plan_epoch(labels, prompts, batch_size=32, seed=0, epoch=0)
    parted = sum(count - 1 for count in batches_of_each_prompt(batches, prompts).values())
    assert parted < len(batches)


def test_a_rows_place_does_not_depend_on_its_prompts_count():
    """A product's log: 3 questions asked 300 times each, 1,000 asked once. Batches are composed in a random order of
    their numbers, so the batch of any row is uniform: its mean is the middle, 0.5, for the frequent and for the rare.
    With 120 epochs the means of both are within 4 of their standard errors, which are below 0.02. (Composed from
    first to last, with whole groups kept together, frequent prompts came last: 0.70 against 0.32.)"""
    draw = random.Random(0)
    prompts = [prompt for prompt in range(3) for _ in range(300)] + list(range(3, 1003))
    labels = [draw.random() < 0.5 for _ in prompts]
    places: dict[bool, list[float]] = {True: [], False: []}
    for epoch in range(120):
        batches = plan_epoch(labels, prompts, batch_size=32, seed=0, epoch=epoch)
        for frequent, means in places.items():
            means.append(
                mean(
                    (number + 0.5) / len(batches)
                    for number, batch in enumerate(batches)
                    for row in batch
                    if (prompts[row] < 3) == frequent
                )
            )
    for means in places.values():
        error = stdev(means) / math.sqrt(len(means))
        assert error < 0.02
        assert abs(mean(means) - 0.5) < 4 * error


def test_no_batch_falls_to_a_few_prompts():
    """2 to 60 answers a prompt: a batch of 32 has at least 32 / PIECE prompts but for a piece or two that share one."""
    draw = random.Random(0)
    prompts = [prompt for prompt in range(600) for _ in range(min(60, 2 + int(draw.paretovariate(1.1))))]
    labels = [draw.random() < 0.5 for _ in prompts]
    batches = plan_epoch(labels, prompts, batch_size=32, seed=0, epoch=0)
    assert min(len({prompts[row] for row in batch}) for batch in batches) >= 32 // PIECE - 2


def test_rated_turns_of_a_conversation_stay_together():
    """1 to 8 rated turns a conversation, one row each: fewer than one conversation a batch is parted, and a batch of 32
    has at least 32 / CONVERSATION_PIECE of them."""
    draw = random.Random(0)
    conversations = [number for number in range(300) for _ in range(draw.randint(1, CONVERSATION_PIECE))]
    labels = [draw.random() < 0.5 for _ in conversations]
    batches = plan_epoch(labels, list(range(len(labels))), conversations, batch_size=32, seed=0, epoch=0)
    parted = sum(count - 1 for count in batches_of_each_prompt(batches, conversations).values())
    assert parted < len(batches)
    assert min(len({conversations[row] for row in batch}) for batch in batches) >= 32 // CONVERSATION_PIECE


@settings(max_examples=300, deadline=None)
@given(data=st.data(), rows=st.integers(1, 60))
def test_pieces_of_a_conversation_by_definition(data: st.DataObject, rows: int):
    """Every row once; no piece has more than `PIECE` rows of a prompt, more than `CONVERSATION_PIECE` rows, or rows of
    two conversations; the prompts of a piece follow each other in the conversation where each has a turn to take."""
    prompts = data.draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows))
    conversations = [prompt // 4 for prompt in prompts]
    found = pieces(prompts, conversations, random.Random(0), rows=rows)
    assert sorted(row for piece in found for row in piece) == list(range(rows))
    for piece in found:
        assert len({conversations[row] for row in piece}) == 1
        assert len(piece) <= CONVERSATION_PIECE
        assert max(Counter(prompts[row] for row in piece).values()) <= PIECE
        assert [prompts[row] for row in piece] == sorted(prompts[row] for row in piece)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), rows=st.integers(1, 80))
def test_pieces_are_those_of_lists_and_dicts(data: st.DataObject, rows: int):
    """The same draws in the same order as with a list for each prompt in the order of their first rows: plans of runs
    that are resumed stay as they were."""
    prompts = data.draw(st.lists(st.integers(-3, 5), min_size=rows, max_size=rows))
    conversations = data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    draw, groups, turns, expected = random.Random(1), {}, {}, []
    for row, key in enumerate(zip(conversations, prompts, strict=True)):
        groups.setdefault(key, []).append(row)
    for (conversation, prompt), members in groups.items():
        draw.shuffle(members)
        for turn, start in enumerate(range(0, len(members), PIECE)):
            turns.setdefault((conversation, turn), []).append((prompt, members[start : start + PIECE]))
    for parts in turns.values():
        expected.append([])
        for _, part in sorted(parts):
            if len(expected[-1]) + len(part) > CONVERSATION_PIECE:
                expected.append([])
            expected[-1] += part
    found = random.Random(1)
    assert list(pieces(prompts, conversations, found, rows=rows)) == expected
    assert found.getstate() == draw.getstate()


def test_a_frequent_opening_does_not_fill_pieces_with_one_prompt():
    """A greeting asked 100 times, and 10 conversations of 3 turns behind it: each piece takes up to 4 of the greetings
    once, and the later turns come in the order of their prompts."""
    prompts = [0] * 100 + list(range(1, 31))
    found = pieces(prompts, [0] * 130, random.Random(0), rows=130)
    assert [len(piece) for piece in found if 0 in {prompts[row] for row in piece}] == [8, *[4] * 24]
    assert [prompts[row] for piece in found for row in piece if prompts[row]] == list(range(1, 31))


def test_a_prompt_larger_than_a_batch_is_parted():
    labels = [row % 2 == 0 for row in range(40)]
    batches = plan_epoch(labels, [0] * 40, batch_size=8, seed=0, epoch=0)
    assert [sum(labels[row] for row in batch) for batch in batches] == [4] * 5


# --- micro-batches and dealing -----------------------------------------------------------------


@settings(deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_padded_batches_keep_to_the_budget(lengths: list[int], budget: int):
    batches = padded_batches(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[index] for index in batch) <= budget or len(batch) == 1 for batch in batches)


@settings(deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_padded_batches_are_as_large_as_the_budget_lets_them(lengths: list[int], budget: int):
    for batch in padded_batches(lengths, budget)[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget


def test_padded_batches_by_hand():
    """Budget 10: 7 fits once, 4 twice (8 tokens; 12 would be over), then 2 and 1 (4 tokens); 30 is over, alone."""
    assert padded_batches([4, 7, 1, 4, 2, 30], 10) == [[5], [1], [0, 3], [4, 2]]


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200), data=st.data())
def test_what_remains_is_cut_the_same_way(lengths: list[int], budget: int, data: st.DataObject):
    """An interrupted pass goes on with the batches it would have had, whichever were done."""
    batches = padded_batches(lengths, budget)
    done = data.draw(st.lists(st.booleans(), min_size=len(batches), max_size=len(batches)))
    left = [batch for batch, finished in zip(batches, done, strict=True) if not finished]
    positions = sorted(position for batch in left for position in batch)
    again = padded_batches([lengths[position] for position in positions], budget)
    assert [[positions[place] for place in batch] for batch in again] == left


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), max_size=40), ranks=st.integers(1, 8))
def test_deal_covers_disjointly_and_evenly(lengths: list[int], ranks: int):
    """Each piece goes to whom has least: the last one whoever has most was given made the difference."""
    shares = assign(lengths, ranks)
    assert len(shares) == ranks
    assert sorted(position for hand in shares for position in hand) == list(range(len(lengths)))
    loads = [sum(lengths[position] for position in hand) for hand in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)
