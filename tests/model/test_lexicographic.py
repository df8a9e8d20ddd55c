"""Lexicographic order of stored texts against Python's own order of tuples."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.prefix_order import common_prefix
from kto_cli.model.tokens import lexicographic
from kto_cli.model.tokens.lexicographic import lexicographic_order

TEXTS = st.lists(st.lists(st.sampled_from([0, 1, 2, 70000]), max_size=30), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(files=st.lists(TEXTS, min_size=1, max_size=2), data=st.data(), chunk=st.sampled_from([1, 64, 1 << 20]))
def test_order_and_common_prefixes_are_those_of_tuples(files, data, chunk):
    """Texts of two parts, the second truncated, from one or two files; any number of tokens at a time. Token 0 is not
    the end of a text, and 70,000 comes after 2 (by its low bytes, it would come between 112 and 113)."""
    texts, columns = [], []
    for _ in range(data.draw(st.integers(1, 20))):
        file = data.draw(st.integers(0, len(files) - 1))
        numbers = [data.draw(st.integers(0, len(files[file]) - 1)) for _ in range(2)]
        first, second = (files[file][number] for number in numbers)
        kept = data.draw(st.integers(0, len(second)))
        begins = [sum(map(len, files[file][:number])) for number in numbers]
        texts.append((*first, *second[:kept]))
        columns.append((file, *begins, len(first), kept))
    stored = [numpy.array([*chain(*texts), 0], "u4") for texts in files]
    file, *others = (numpy.array(column) for column in zip(*columns, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicographic, "CHUNK", chunk)
        order, common = lexicographic_order(stored, file, others[:2], others[2:])
    found = [texts[index] for index in order]
    assert sorted(order.tolist()) == list(range(len(texts)))
    assert found == sorted(texts)
    assert common.tolist() == [0, *(common_prefix(*pair) for pair in pairwise(found))]


def test_a_long_common_prefix_is_passed_in_steps():
    """2,000 texts behind a system prompt of 3,000 tokens; the chunks of all are then 524 tokens wide."""
    draw = numpy.random.default_rng(0)
    own = draw.integers(0, 50_000, (2000, 5), "u4")
    tokens = numpy.concatenate([draw.integers(0, 50_000, 3000, "u4"), own.ravel()])
    starts = [numpy.zeros(2000, "i8"), 3000 + 5 * numpy.arange(2000)]
    order, common = lexicographic_order(
        [tokens], numpy.zeros(2000, "u1"), starts, [numpy.full(2000, n) for n in (3000, 5)]
    )
    expected = sorted(range(2000), key=own.tolist().__getitem__)
    assert own[order].tolist() == own[expected].tolist()
    assert common[0] == 0
    assert common[1:].min() >= 3000


def test_no_texts():
    order, common = lexicographic_order([], numpy.zeros(0, "u1"), [numpy.zeros(0, "i8")], [numpy.zeros(0, "i8")])
    assert len(order) == len(common) == 0
