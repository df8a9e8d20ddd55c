"""Values that a token classification model sees: from tags to spans, windows, and --scrub-model in a dataset."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from binarizing import binarize
from conftest import call, error_line
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from kto_cli.data.audit.scrub import Finds, also_finding, scrub
from kto_cli.model.token_classes import finder_of, named

CLASSES = ("O", "B-private_person", "I-private_person", "E-private_person", "S-private_person", "S-secret")
WORDS = {"Maria": 1, "van": 2, "Keller": 3, "Li": 4, "swordfish": 5}
"""Words and the class that the model gives them; all others are outside."""


def save_model(folder: Path) -> Path:
    """A BERT that tells a word's class by its embedding: attention and the feed-forward part add nothing."""
    vocabulary = {"[UNK]": 0, **{word: index for index, word in enumerate(WORDS, start=1)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]", model_max_length=32
    )
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 64}
    names = dict(enumerate(CLASSES))
    labels = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    model = BertForTokenClassification(
        BertConfig(num_hidden_layers=1, num_attention_heads=1, pad_token_id=0, **sizes, **labels)
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "LayerNorm" not in name:
                weights.zero_()
        for word, number in vocabulary.items():
            model.bert.embeddings.word_embeddings.weight[number, WORDS.get(word, 0)] = 4.0
        model.classifier.weight[:, : len(CLASSES)] = torch.eye(len(CLASSES))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("classes"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O B-A I-A O", [("b c", "a")]),
        ("B-A E-A S-B O", [("a b", "a"), ("c", "b")]),
        ("B-A B-A I-B I-B", [("a", "a"), ("b", "a"), ("c d", "b")]),
        ("S-A S-A O S-A", [("a", "a"), ("b", "a"), ("d", "a")]),
        ("A A O B", [("a b", "a"), ("d", "b")]),
        ("I-A O O O", [("a", "a")]),
        ("O O O O", []),
    ],
)
def test_tags_become_spans(labels, expected):
    text = "a b c d"
    found = named(text, labels.split(), [(0, 1), (1, 3), (3, 5), (5, 7)])
    assert [(text[start:end], kind) for (start, end), kind in found] == expected


def test_a_model_names_values_in_any_window(model):
    """A text of 200 tokens is read 32 at a time; a name at the end of a window is whole in the next."""
    find = finder_of(str(model))
    filler = "word " * 30
    text = f"{filler}Maria van Keller {filler * 5}met Li {filler}swordfish"
    values = {text[start:end] for (start, end), _ in find(text)}
    assert {"Maria van Keller", "Li", "swordfish"} <= values
    assert not values - {"Maria van Keller", "Li", "swordfish", "Maria", "Maria van", "van Keller", "Keller"}
    with also_finding(find):
        assert scrub(text, Finds()) == f"{filler}<PERSON> {filler * 5}met <PERSON> {filler}<SECRET>"


def test_a_dataset_without_the_names_that_a_model_sees(model, tmp_path):
    rows = [
        {"prompt": "I am Maria van Keller , who are you?", "completion": "I am Li .", "label": True},
        {"prompt": "Mail to li.wei88@qq.com , Li !", "completion": "The word is swordfish", "label": False},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = binarize(path, tmp_path / "out", scrub=True, scrub_model=str(model), validation=0.0, text=True)
    assert found["scrubbed"] == {
        "emails": {"values": 1, "rows": 1},
        "private_person": {"values": 3, "rows": 2},
        "secret": {"values": 1, "rows": 1},
    }
    from pyarrow import parquet

    texts = parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [(row["prompt"], row["completion"]) for row in texts] == [
        ("I am <PERSON> , who are you?", "I am <PERSON> ."),
        ("Mail to <EMAIL> , <PERSON> !", "The word is <SECRET>"),
    ]


def test_what_is_no_such_model_is_one_line(model, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"P{n}", "completion": "A", "label": n > 0}) + "\n" for n in range(2))
    )
    out = ("--out", tmp_path / "out")
    assert "needs --scrub" in error_line(call("binarize", path, "--scrub-model", model, *out))
    both = error_line(call("binarize", path, "--scrub", "--scrub-model", model, "--workers", "2", *out))
    assert "Remove --workers" in both
    missing = error_line(call("binarize", path, "--scrub", "--scrub-model", tmp_path / "none", *out))
    assert "cannot be loaded" in missing
    assert "openai/privacy-filter" in missing
    two = BertForTokenClassification.from_pretrained(model)
    two.config.id2label = {number: f"LABEL_{number}" for number in range(len(CLASSES))}
    two.save_pretrained(tmp_path / "two")
    PreTrainedTokenizerFast.from_pretrained(model).save_pretrained(tmp_path / "two")
    assert "no classes of values" in error_line(
        call("binarize", path, "--scrub", "--scrub-model", tmp_path / "two", *out)
    )
    assert not (tmp_path / "out").exists()


def test_presidio_is_asked_where_it_is_installed(tmp_path, monkeypatch):
    """A stand-in for the package: what it finds is replaced by its kind; without it the extra is named."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"I am Ada Byron {n}", "completion": "Hello", "label": n > 0} for n in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    flags = ("--scrub", "--scrub-model", "presidio", "--out", tmp_path / "out", "--validation", "0")
    assert "presidio" in error_line(call("binarize", path, *flags)).partition("not installed")[2]

    class AnalyzerEngine:
        def analyze(self, *, text: str, language: str, entities: list[str], score_threshold: float) -> list[Any]:
            start = text.find("Ada Byron")
            assert (language, "PERSON" in entities, score_threshold) == ("en", True, 0.5)
            hit = types.SimpleNamespace(start=start, end=start + 9, entity_type="PERSON")
            return [hit] if start >= 0 else []

    package = types.ModuleType("presidio_analyzer")
    package.AnalyzerEngine = AnalyzerEngine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", package)
    assert call("binarize", path, *flags, "--json").json["scrubbed"] == {"person": {"values": 2, "rows": 2}}
