"""Prefix trees of packed batches: each prefix once, and each token sees exactly what is before it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.batches import Batch, continuation, pack
from kto_cli.core.prefix_order import common_prefix
from kto_cli.core.prefix_tree import PrefixTree, SharedSpan, Span
from kto_cli.core.rows import TokenSequence

TOKENS = st.lists(st.integers(1, 2), min_size=1, max_size=6).map(tuple)
"""Of two kinds, so that prefixes are shared at every depth."""


@st.composite
def conversations(draw: st.DrawFn) -> list[TokenSequence]:
    """Rows whose prompts begin alike, repeat, or continue one another."""
    roots = draw(st.lists(TOKENS, min_size=1, max_size=3))
    some = []
    for _ in range(draw(st.integers(1, 9))):
        root = draw(st.sampled_from([*roots, *[prompt + completion for prompt, completion in some]]))
        some.append(TokenSequence(root + draw(st.one_of(st.just(()), TOKENS)), draw(TOKENS)))
    return some


def seen(batch: Batch, past: Batch | None, token: int) -> dict[str, list[int]]:
    """Tokens that a token of a packed batch attends to, in order of position, by segments and by shared spans."""
    assert batch.layout is not None
    (segment,) = (each for each in batch.layout.segments if each.start <= token < each.stop)
    shared = [each.keys for each in batch.layout.shared if each.start <= token < each.stop]
    found = {}
    for name, spans in (("segments", segment.prefix), ("shared", shared)):
        sources = [(past if span.past else batch, index) for span in spans for index in range(span.start, span.stop)]
        sources += [(batch, index) for index in range(segment.start, token + 1)]
        by_position = sorted((of.position_ids[0, index].item(), of.input_ids[0, index].item()) for of, index in sources)
        assert [position for position, _ in by_position] == list(range(len(by_position))), "each position once"
        found[name] = [value for _, value in by_position]
    return found


@settings(max_examples=300, deadline=None)
@given(some=conversations())
def test_each_prefix_is_computed_once(some: list[TokenSequence]):
    """As many tokens as distinct prefixes of the prompts, and of the completions but for their last token."""
    inputs = [prompt + completion[:-1] for prompt, completion in some]
    distinct = {tokens[:length] for tokens in inputs for length in range(1, len(tokens) + 1)}
    batch, prompts = pack(some)
    assert batch.input_ids.numel() == len(distinct)
    assert set(prompts) == {prompt for prompt, _ in some}
    stops = [segment.stop for segment in batch.layout.segments]
    assert [segment.start for segment in batch.layout.segments] == [0, *stops[:-1]]
    assert batch.layout.longest == max(map(len, inputs))


@settings(max_examples=300, deadline=None)
@given(some=conversations(), data=st.data())
def test_what_predicts_a_token_has_seen_all_before_it_and_nothing_else(some: list[TokenSequence], data: st.DataObject):
    """In the batch itself, and in a continuation with other completions."""
    first, prompts = pack(some)
    others = [TokenSequence(prompt, data.draw(TOKENS)) for prompt, _ in some]
    for batch, past, rows in ((first, None, some), (continuation(others, prompts), first, others)):
        ends = [prompts[prompt].last for prompt in prompts] if past else []
        predicted: dict[int, list[int]] = {}
        for output, row, target in zip(*(part.tolist() for part in batch[2:5]), strict=True):
            whole, source, index = rows[row].prompt + rows[row].completion, batch, output - len(ends)
            if output < len(ends):
                source, index = past, ends[output]
            for tokens in seen(source, past if source is batch else None, index).values():
                assert (*tokens, target) == whole[: len(tokens) + 1]
                assert len(tokens) >= len(rows[row].prompt)
            predicted.setdefault(row, []).append(target)
        assert [tuple(predicted[row]) for row in range(len(rows))] == [completion for _, completion in rows]


def test_a_conversation_by_hand():
    """System 1 2 behind which 3 4 is asked and 5 answered, then 6 asked and 7 answered; and 8 is asked, 9 answered.
    Last tokens of completions (5 but in the longer prompt, 7, 9) predict nothing. In lexicographic order: 1 2 3 4,
    grown to 1 2 3 4 5 6; then 8 behind 1 2, which it sees as a whole."""
    rows = [TokenSequence((1, 2, 3, 4), (5,)), TokenSequence((1, 2, 3, 4, 5, 6), (7,)), TokenSequence((1, 2, 8), (9,))]
    batch, prompts = pack(rows)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 8]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 2]]
    assert batch.layout.segments == ((0, 6, ()), (6, 7, (Span(0, 2),)))
    assert batch.layout.shared == (SharedSpan(6, 7, Span(0, 2)),)
    assert [prompts[row.prompt].last for row in rows] == [3, 5, 6]
    assert batch.output_positions.tolist() == [3, 5, 6]


def test_a_path_is_left_and_taken_up_again():
    """0 1 2, then 3 behind 0 1, then 4 behind 0: the span 0 is seen by both, 1 by the first alone."""
    tree = PrefixTree()
    tree.grow((10, 11, 12))
    tree.branch(2)
    tree.grow((13,))
    tree.branch(1)
    tree.grow((14,))
    assert tree.spans() == (Span(0, 1), Span(4, 5))
    layout = tree.layout()
    assert layout.shared == (SharedSpan(3, 4, Span(1, 2)), SharedSpan(3, 5, Span(0, 1)))


@given(left=st.lists(st.integers(0, 1)).map(tuple), right=st.lists(st.integers(0, 1)).map(tuple))
def test_common_prefix(left: tuple[int, ...], right: tuple[int, ...]):
    naive = 0
    while naive < min(len(left), len(right)) and left[naive] == right[naive]:
        naive += 1
    assert common_prefix(left, right) == naive
