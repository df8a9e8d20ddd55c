"""Micro-batches: every sequence once, budgets kept; packed, continued and padded batches by hand."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.batches import continuation, micro_batches, pack, pad
from kto_cli.core.packing import even_runs, missing_runs, packed_tokens, prefix_runs
from kto_cli.core.prefix_order import PrefixOrder, prefix_order
from kto_cli.core.prefix_tree import Segment, Span
from kto_cli.core.rows import TokenSequence

PROMPTS = ((5, 6, 7), (5, 6), (8,), (9, 10, 11, 12))
SOME = st.lists(
    st.builds(
        TokenSequence,
        st.sampled_from(PROMPTS),
        st.lists(st.integers(20, 40), min_size=1, max_size=9).map(tuple),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(some=SOME, budget=st.integers(1, 60), ranks=st.integers(1, 4), packed=st.booleans())
def test_cut_takes_each_sequence_once_within_the_budget(some, budget, ranks, packed):
    shares = micro_batches(some, token_budget=budget, ranks=ranks, packed=packed)
    assert len(shares) == ranks
    batches = [batch for share in shares for batch in share]
    assert sorted(place for batch in batches for place in batch) == list(range(len(some)))
    for batch in batches:
        members = [some[place] for place in batch]
        tokens = (pack(members)[0] if packed else pad(members)).input_ids.numel()
        assert tokens <= budget or len(batch) == 1


def test_pack_and_continue_by_hand():
    """Prompt 5 6 with completions 20 21 22 and 23 24; then 30 31 continues that prompt."""
    some = [TokenSequence((5, 6), (20, 21, 22)), TokenSequence((5, 6), (23, 24))]
    batch, prompts = pack(some)
    assert batch.input_ids.tolist() == [[5, 6, 20, 21, 23]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.layout.segments == (Segment(0, 4), Segment(4, 5, (Span(0, 2),)))
    assert batch.output_positions.tolist() == [1, 2, 3, 1, 4]
    assert batch.rows.tolist() == [0, 0, 0, 1, 1]
    assert prompts == {(5, 6): ((Span(0, 2),), 1)}
    rest = continuation([TokenSequence((5, 6), (30, 31))], prompts)
    assert rest.input_ids.tolist() == [[30]]
    assert rest.position_ids.tolist() == [[2]]
    assert rest.layout.continues
    assert rest.output_positions.tolist() == [0, 1], "the prompt's last output, then the first of its own"


def test_a_continuation_is_never_empty():
    some = [TokenSequence((5, 6), (20,)), TokenSequence((7,), (21,))]
    rest = continuation(some, pack(some)[1])
    assert rest.input_ids.numel() == 1
    assert rest.output_positions.tolist() == [0, 1], "nothing of it is read"


def test_padding_is_on_the_right():
    batch = pad([TokenSequence((5, 6), (20, 21)), TokenSequence((7,), (22,))], pad_id=99)
    assert batch.input_ids.tolist() == [[5, 6, 20], [7, 99, 99]]
    assert batch.output_positions.tolist() == [1, 2, 3]
    assert batch.to(torch.device("cpu")).size == 2


# --- micro-batches over prefixes -----------------------------------------------------------------

FEW = st.integers(1, 3)
TREES = st.lists(
    st.builds(
        TokenSequence,
        st.lists(FEW, min_size=1, max_size=8).map(tuple),
        st.lists(FEW, min_size=1, max_size=6).map(tuple),
    ),
    min_size=1,
    max_size=25,
)
"""Few distinct tokens, so that most sequences share a prefix with others, at any depth."""


def packed_size(members: list[TokenSequence]) -> int:
    """Tokens of a packed batch, counted by hand: distinct prefixes of the inputs."""
    inputs = [each.prompt + each.completion[:-1] for each in members]
    return len({tokens[:length] for tokens in inputs for length in range(1, len(tokens) + 1)})


@settings(max_examples=300, deadline=None)
@given(some=TREES, budget=st.integers(1, 60), ranks=st.integers(1, 4))
def test_packed_micro_batches_are_counted_and_even(some, budget, ranks):
    """Each sequence once, within the budget; what is counted ahead is what is packed; one rank more of the same size
    would not do with less, and no rank has more batches than the greedy fewest need."""
    order = prefix_order(some)
    runs = even_runs(order, budget, ranks)
    assert sorted(index for run in runs for index in run) == list(range(len(some)))
    sizes = [packed_size([some[index] for index in run]) for run in runs]
    assert all(size <= budget or len(run) == 1 for size, run in zip(sizes, runs, strict=True))
    assert packed_tokens(order, runs) == sum(sizes)
    assert sizes == [pack([some[index] for index in run])[0].input_ids.numel() for run in runs]
    rounds = -(-len(prefix_runs(order, budget)) // ranks)
    assert len(runs) <= rounds * ranks
    if max(sizes) > max(packed_size([each]) for each in some):
        assert len(prefix_runs(order, max(sizes) - 1)) > rounds * ranks, "the largest could be smaller"
    shares = micro_batches(some, token_budget=budget, ranks=ranks, packed=True)
    assert max(map(len, shares)) == -(-len(runs) // ranks)


def test_a_prefix_counts_once_in_each_micro_batch():
    """System prompt of 6 tokens, four rows of 3 more: 6 + 4 * 3 = 18 in one. At most 17 would hold three rows and then
    one; even ones hold two each, 6 + 2 * 3 = 12 tokens."""
    some = [TokenSequence((1, 2, 3, 4, 5, 6, row), (7, 8, 9)) for row in range(4)]
    assert prefix_order(some).tokens == 18
    assert micro_batches(some, token_budget=18, packed=True) == [[[0, 1, 2, 3]]]
    assert micro_batches(some, token_budget=17, packed=True) == [[[0, 1], [2, 3]]]
    assert micro_batches(some, token_budget=18, packed=True, ranks=2) == [[[0, 1]], [[2, 3]]]


@settings(max_examples=300, deadline=None)
@given(some=TREES, data=st.data())
def test_an_order_of_some_is_that_of_their_own(some, data):
    order = prefix_order(some)
    chosen = data.draw(st.sets(st.sampled_from(range(len(some)))))
    kept = [index for index in order.indices if index in chosen]
    own = prefix_order([some[index] for index in kept])
    assert order.of(kept) == PrefixOrder([kept[place] for place in own.indices], own.lengths, own.common)


@settings(max_examples=500, deadline=None)
@given(some=TREES, budget=st.integers(1, 40), data=st.data())
def test_an_interrupted_pass_continues_with_the_same_micro_batches(some, budget, data):
    """Whichever micro-batches are done, the rest is as before; and what a cache lacks is cut within the budget."""
    order = prefix_order(some)
    batches = missing_runs(order, budget, [True] * len(some))
    done = data.draw(st.lists(st.booleans(), min_size=len(batches), max_size=len(batches)))
    left = [batch for batch, finished in zip(batches, done, strict=True) if not finished]
    missing = [any(index in batch for batch in left) for index in range(len(some))]
    assert missing_runs(order, budget, missing) == left
    missing = data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some)))
    batches = missing_runs(order, budget, missing)
    assert sorted(index for batch in batches for index in batch) == [
        index for index in range(len(some)) if missing[index]
    ]
    assert all(packed_size([some[index] for index in batch]) <= budget or len(batch) == 1 for batch in batches)
