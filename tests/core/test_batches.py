"""Cutting and packing: every sequence once, budgets kept, prompts once, and what each token may look at."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import sequences

from kto_cli.core.batches import Segment, continuation, micro_batches, pack, pad, prompt_groups, sequence_lengths
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
    shares = micro_batches(sequence_lengths(some), token_budget=budget, ranks=ranks, packed=packed)
    assert len(shares) == ranks
    batches = [batch for share in shares for batch in share]
    assert sorted(place for batch in batches for place in batch) == list(range(len(some)))
    for batch in batches:
        members = [some[place] for place in batch]
        tokens = (pack(members)[0] if packed else pad(members)).input_ids.numel()
        assert tokens <= budget or len(batch) == 1


@settings(max_examples=200, deadline=None)
@given(some=SOME)
def test_a_packed_batch_holds_each_prompt_once_and_no_last_token(some):
    """Tokens: the distinct prompts, and each completion but for its last token, which predicts nothing."""
    batch, prompts = pack(some)
    distinct = {sequence.prompt for sequence in some}
    assert set(prompts) == distinct
    expected = sum(map(len, distinct)) + sum(len(sequence.completion) - 1 for sequence in some)
    assert batch.input_ids.shape == batch.position_ids.shape == (1, expected)
    assert sum(tree.size for tree in prompt_groups(sequence_lengths(some))) == expected
    assert batch.layout is not None
    stops = [segment.stop for segment in batch.layout.segments]
    assert [segment.start for segment in batch.layout.segments] == [0, *stops[:-1]]
    assert stops[-1] == expected


def seen_by(batch, place: int) -> list[int]:
    """The tokens that position `place` of a packed batch looks at, itself last."""
    (segment,) = (each for each in batch.layout.segments if each.start <= place < each.stop)
    prefix = range(*segment.prefix)
    return batch.input_ids[0, [*prefix, *range(segment.start, place + 1)]].tolist()


@settings(max_examples=200, deadline=None)
@given(some=SOME)
def test_what_predicts_a_token_has_seen_all_before_it_and_nothing_else(some):
    batch, _ = pack(some)
    predicted = iter(zip(batch.output_positions.tolist(), batch.rows.tolist(), batch.targets.tolist(), strict=True))
    found: dict[int, list[list[int]]] = {}
    for place, row, target in predicted:
        found.setdefault(row, []).append([*seen_by(batch, place), target])
        assert batch.position_ids[0, place] == len(seen_by(batch, place)) - 1
    for row, (prompt, completion) in enumerate(some):
        expected = [[*prompt, *completion[: end + 1]] for end in range(len(completion))]
        assert found[row] == expected


def test_pack_and_continue_by_hand():
    """Prompt 5 6 with completions 20 21 22 and 23 24; then 30 31 continues that prompt."""
    some = [TokenSequence((5, 6), (20, 21, 22)), TokenSequence((5, 6), (23, 24))]
    batch, prompts = pack(some)
    assert batch.input_ids.tolist() == [[5, 6, 20, 21, 23]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.layout.segments == (Segment(0, 4), Segment(4, 5, (0, 2)))
    assert batch.output_positions.tolist() == [1, 2, 3, 1, 4]
    assert batch.rows.tolist() == [0, 0, 0, 1, 1]
    assert prompts == {(5, 6): (0, 2)}
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


def test_a_large_tree_is_split_the_same_way_when_parts_of_it_are_done():
    """Eight completions of one prompt, several micro-batches; whichever is done, the rest is cut as before."""
    some = [TokenSequence((5, 6), each.completion) for each in sequences([(1, n) for n in (9, 3, 7, 2, 8, 5, 4, 6)])]
    (batches,) = micro_batches(sequence_lengths(some), token_budget=14, packed=True)
    assert len(batches) > 2
    for done in batches:
        left = [place for place in range(len(some)) if place not in done]
        (again,) = micro_batches(sequence_lengths([some[place] for place in left]), token_budget=14, packed=True)
        assert [[left[place] for place in batch] for batch in again] == [batch for batch in batches if batch != done]
