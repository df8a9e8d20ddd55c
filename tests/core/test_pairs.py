"""Pairs as units: which rows make one, the plan of whole pairs, micro-batches that do not part them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.batches import micro_batches, pack, pad, parted
from kto_cli.core.packing import even_runs, even_unit_runs, padded_batches, padded_units
from kto_cli.core.pairs import ALONE, CROWDED, NO_ID, ONE_CLASS, pairing_of
from kto_cli.core.pieces import PIECE
from kto_cli.core.plan import batch_sizes, pairs_in_batch, plan_epoch, steps_in_epoch
from kto_cli.core.prefix_order import prefix_order
from kto_cli.core.rows import TokenSequence

ROWS = st.lists(st.tuples(st.sampled_from([None, *"abcdefghijkl"]), st.booleans()), max_size=40)


def test_each_kind_of_row_that_makes_no_pair_is_counted():
    """a: one of each class. b: its partner is gone. c: two desirable rows. d: three rows. One row has no id."""
    rows = [("a", True), ("b", True), ("a", False), ("c", True), ("c", True), (None, True), *[("d", True)] * 2]
    rows.append(("d", False))
    found = pairing_of(*zip(*rows, strict=True))
    assert found.partners.tolist() == [2, -1, 0, -1, -1, -1, -1, -1, -1]
    assert found.left_out == {NO_ID: 1, ALONE: 1, ONE_CLASS: 2, CROWDED: 3}
    assert found.pairs == 1
    assert found.sentence() == (
        "1 pair; left out: 7 of 9 rows (1 without a pair_id, 1 whose partner is missing, 2 whose partner has the same "
        "label, 3 whose pair_id is held by more than two rows)."
    )


def test_whole_pairs_need_no_sentence():
    assert pairing_of(["a", "a"], [False, True]).sentence() == ""
    assert pairing_of([], []).pairs == 0


@given(rows=ROWS)
def test_a_partner_has_the_same_id_and_the_other_label(rows):
    names, labels = [name for name, _ in rows], [label for _, label in rows]
    found = pairing_of(names, labels)
    for row, partner in enumerate(found.partners.tolist()):
        alike = [other for other, name in enumerate(names) if name == names[row] is not None]
        whole = len(alike) == 2 and labels[alike[0]] != labels[alike[1]]
        assert (partner >= 0) == whole
        assert partner < 0 or sorted((row, partner)) == alike
    assert sum(found.left_out.values()) + 2 * found.pairs == len(rows)


# --- the plan ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, size=st.integers(2, 12), seed=st.integers(0, 3), epoch=st.integers(0, 3), data=st.data())
def test_each_whole_pair_once_and_both_its_rows_in_one_batch(rows, size, seed, epoch, data):
    """A batch of n rows has n // 2 pairs at most, sizes differ by one pair, and what is in no pair is in no batch."""
    names, labels = [name for name, _ in rows], [label for _, label in rows]
    prompts = data.draw(st.none() | st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows)))
    pairing = pairing_of(names, labels)
    partners = pairing.partners.tolist()
    batches = plan_epoch(labels, prompts, batch_size=size, seed=seed, epoch=epoch, partners=partners)
    paired = [row for row, partner in enumerate(partners) if partner >= 0]
    assert sorted(row for batch in batches for row in batch) == paired
    assert len(batches) == steps_in_epoch(pairing.pairs, pairs_in_batch(size))
    assert [len(batch) // 2 for batch in batches] == batch_sizes(pairing.pairs, pairs_in_batch(size))
    for batch in batches:
        half = len(batch) // 2
        assert all(labels[row] for row in batch[:half])
        assert [partners[row] for row in batch[:half]] == batch[half:]
    assert batches == plan_epoch(labels, prompts, batch_size=size, seed=seed, epoch=epoch, partners=pairing.partners)


def test_a_row_plan_parts_pairs_and_a_pair_plan_does_not():
    """380 pairs in batches of 31, which is no whole number of pairs: rows as units part some, pairs as units none; a
    batch then has 15 pairs at most."""
    labels, names = [True, False] * 380, [str(row // 2) for row in range(760)]
    prompts = [row // 2 for row in range(760)]
    partners = pairing_of(names, labels).partners

    def torn(batches: list[list[int]]) -> int:
        return sum(int(partners[row]) not in batch for batch in map(set, batches) for row in batch)

    asked = {"batch_size": 31, "seed": 0, "epoch": 0}
    assert torn(plan_epoch(labels, prompts, **asked)) > 0
    assert torn(plan_epoch(labels, **asked)) > 600
    for groups in ([], [prompts]):
        batches = plan_epoch(labels, *groups, **asked, partners=partners)
        assert torn(batches) == 0
        assert {len(batch) for batch in batches} <= {28, 30}


def test_pairs_of_a_prompt_share_a_batch_and_none_is_full_of_one_prompt():
    """64 prompts of two pairs in batches of 16 pairs: `PIECE` is 4 rows, so both pairs of each prompt come together;
    prompts of more pairs take turns of two, spread over the epoch."""
    labels, names = [True, False] * 128, [str(row // 2) for row in range(256)]
    partners = pairing_of(names, labels).partners
    two = [row // 4 for row in range(256)]
    for batch in plan_epoch(labels, two, batch_size=32, seed=0, epoch=0, partners=partners):
        assert len({two[row] for row in batch}) * PIECE == len(batch)
    twenty = [row // 40 for row in range(256)]
    for batch in plan_epoch(labels, twenty, batch_size=32, seed=0, epoch=0, partners=partners):
        assert len({twenty[row] for row in batch}) >= 3


def test_epochs_and_seeds_shuffle_pairs():
    labels, names = [True, False] * 100, [str(row // 2) for row in range(200)]
    partners = pairing_of(names, labels).partners
    plans = [
        plan_epoch(labels, batch_size=8, seed=seed, epoch=epoch, partners=partners)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    first, second, third = ({frozenset(batch) for batch in plan} for plan in plans)
    assert len(first & second) + len(first & third) <= 1


def test_a_pair_does_not_fit_into_a_batch_of_one_row():
    with pytest.raises(ValueError, match="no room for a pair"):
        plan_epoch([True, False], batch_size=1, seed=0, epoch=0, partners=[1, 0])


# --- micro-batches -------------------------------------------------------------------------------

SEQUENCE = st.builds(
    TokenSequence,
    st.sampled_from(((1, 2, 3), (1, 2), (4,), (1, 2, 3, 5, 5))),
    st.lists(st.integers(1, 3), min_size=1, max_size=9).map(tuple),
)


@st.composite
def some_pairs(draw: st.DrawFn) -> tuple[list[TokenSequence], list[int]]:
    """Sequences, some of them in pairs, in any order."""
    sequences = draw(st.lists(SEQUENCE, min_size=1, max_size=24))
    order = draw(st.permutations(range(len(sequences))))
    pairs = draw(st.integers(0, len(sequences) // 2))
    partners = [-1] * len(sequences)
    for one, other in zip(order[:pairs], order[pairs : 2 * pairs], strict=True):
        partners[one], partners[other] = other, one
    return sequences, partners


@settings(max_examples=400, deadline=None)
@given(some=some_pairs(), budget=st.integers(1, 60), ranks=st.integers(1, 3), packed=st.booleans())
def test_a_cut_keeps_pairs_together_where_the_budget_allows(some, budget, ranks, packed):
    """Every row once, every budget kept, and the pairs that are parted are those that exceed the budget alone."""
    sequences, partners = some

    def tokens(rows: list[int]) -> int:
        members = [sequences[row] for row in rows]
        return int((pack(members)[0] if packed else pad(members)).input_ids.numel())

    shares = micro_batches(sequences, token_budget=budget, ranks=ranks, packed=packed, partners=partners)
    assert len(shares) == ranks
    batches = [batch for share in shares for batch in share]
    assert sorted(row for batch in batches for row in batch) == list(range(len(sequences)))
    for batch in batches:
        assert tokens(batch) <= budget or len(batch) == 1
    for row, partner in parted(shares, partners):
        assert partners[row] == partner
        assert tokens([row, partner]) > budget
    apart = {row for pair in parted(shares, partners) for row in pair}
    for batch in batches:
        assert all(partners[row] < 0 or row in apart or partners[row] in batch for row in batch)


@settings(max_examples=200, deadline=None)
@given(some=some_pairs(), budget=st.integers(1, 60), ranks=st.integers(1, 3))
def test_units_of_one_row_are_cut_as_rows(some, budget, ranks):
    sequences, _ = some
    order, units = prefix_order(sequences), [[row] for row in range(len(sequences))]
    assert even_unit_runs(order, units, budget, ranks) == even_runs(order, budget, ranks)
    lengths = [sequence.length for sequence in sequences]
    assert padded_units(units, lengths, budget) == padded_batches(lengths, budget)


def test_without_pairs_the_cut_is_that_of_rows():
    sequences = [TokenSequence((1, 2), (3, number)) for number in range(9)]
    for packed in (True, False):
        plain, units = (
            micro_batches(sequences, token_budget=9, ranks=2, packed=packed, partners=partners)
            for partners in (None, [-1] * 9)
        )
        assert plain == units


def test_interleaved_pairs_of_one_prompt_still_share_it():
    """In lexicographic order the pairs (0, 2) and (1, 3) of one prompt interleave. With a budget of 7 tokens, each
    pair is one micro-batch with the prompt of 5 tokens once, 7 tokens; cutting the order in half would part both."""
    prompt = (9, 9, 9, 9, 9)
    sequences = [TokenSequence(prompt, (number, 8)) for number in range(4)]
    shares = micro_batches(sequences, token_budget=7, packed=True, partners=[2, 3, 0, 1])
    assert shares == [[[0, 2], [1, 3]]]
    assert parted(micro_batches(sequences, token_budget=7, packed=True), [2, 3, 0, 1]) == [(0, 2), (1, 3)]
    assert [pack([sequences[row] for row in batch])[0].input_ids.numel() for batch in shares[0]] == [7, 7]
