"""Tokenized rows before training: the classes that a loss needs, and pair ids that too many rows hold."""

from __future__ import annotations

import pytest
from conftest import SAMPLE
from encoded import stored_rows

from kto_cli.common.errors import BadData
from kto_cli.data.dataset import Row
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.prepare import class_counts
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.pair_ids import crowded_notes
from kto_cli.model.tokens.store import EncodedRows


def rows_of(labels: list[bool], pairs: list[str | None] | None = None) -> EncodedRows:
    tokenizer = load_tokenizer(SAMPLE / "model", chat_template=None, trust_remote_code=False)[0]
    rows = [
        Row(
            f"{number}", f"p{number}", pair, "test", f"test:{number}", f"Question {number}?", f"Answer {number}.", label
        )
        for number, (label, pair) in enumerate(zip(labels, pairs or [None] * len(labels), strict=True))
    ]
    return stored_rows(rows, Encoder(tokenizer, max_length=60))[0]


@pytest.mark.parametrize(
    ("labels", "enough_for"),
    [
        ([True, False, True], {"both", "desirable", "any"}),
        ([True, True, True], {"desirable", "any"}),
        ([False, False], {"any"}),
    ],
)
def test_a_loss_needs_its_classes(labels: list[bool], enough_for: set[str]):
    rows = rows_of(labels)
    for needs in ("both", "desirable", "any"):
        if needs in enough_for:
            assert class_counts(rows, needs) == (sum(labels), len(labels) - sum(labels))
        else:
            with pytest.raises(BadData, match=r"There are no (un)?desirable rows left to train on"):
                class_counts(rows, needs)


def test_rows_of_one_class_name_the_loss_for_them():
    """Good answers alone can be trained on with --loss sft; bad ones alone cannot."""
    with pytest.raises(BadData) as found:
        class_counts(rows_of([True, True]))
    assert "KTO needs both kinds" in found.value.what
    assert "--loss sft" in found.value.next_step
    with pytest.raises(BadData) as found:
        class_counts(rows_of([False, False]))
    assert "--loss sft" not in found.value.next_step
    for needs in ("both", "desirable", "any"):
        with pytest.raises(BadData, match="no training rows"):
            class_counts(EncodedRows(), needs)


def test_a_pair_id_of_more_than_two_rows_is_named():
    held = ["a", "a", "b", "b", "b", None, "c", "c", "c", "c"]
    (sentence,) = crowded_notes(rows_of([True, False] * 5, held), "training")
    assert sentence.startswith("pair_id b is held by 3 training rows, and 1 other by more than two: ")
    assert crowded_notes(rows_of([True, False] * 2, ["a", "a", "b", None]), "training") == []
    assert crowded_notes(EncodedRows(), "training") == []
