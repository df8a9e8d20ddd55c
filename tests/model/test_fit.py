"""`kto binarize --model`: the rows it says will not fit are those that `kto train` cuts, shortens and leaves out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from encoded import OneByOne, stored_rows
from made_feedback import lines_of
from shared import shared

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import KtoError
from kto_cli.common.screen import Screen
from kto_cli.data.dataset import TRAIN, VALIDATION, read_batches
from kto_cli.model.tokens.encoder import LEAST_COMPLETION
from kto_cli.model.tokens.fit import DROPPED, SHORTENED, TRUNCATED, encoder_of, examine_fit
from kto_cli.workflows import binarize as binarize_workflow

FILES = {
    "multi-turn": ("llama-factory", "llama-factory/kto_en_demo.json", ()),
    "trees": ("oasst", "oasst/en_100_tree.jsonl", ("--score", "thumbs", "--threshold", "0")),
    "questions": (
        "log",
        "xstest/xstest_v2_completions_gpt4_gpteval.csv",
        ("--desirable", "final_label == '1_full_compliance'", "--undesirable", "else"),
    ),
}


@pytest.fixture(scope="module")
def model() -> Path:
    """A real tokenizer, chat template included, and a context of 256."""
    return shared("data", "models", "cardputer-chat-3m")


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """Real rows, binarized."""
    from conftest import call

    folder = tmp_path_factory.mktemp("sets")
    for name, (kind, place, flags) in FILES.items():
        typed = f"{kind}:{shared('data', place)}"
        assert call("binarize", typed, *flags, "--validation", "0.2", "--out", folder / name).code == 0
    return {name: folder / name for name in FILES}


@pytest.mark.parametrize("length", [40, 64, 128, 256])
@pytest.mark.parametrize("name", FILES)
def test_what_is_said_to_fit_is_what_training_encodes(model, sets, name, length):
    """Against `write_store`, which cuts for training, row by row of both files and in its report."""
    encoder = encoder_of(str(model), length)
    lines: list[dict[str, str]] = []
    ticks: list[int] = []
    fit = examine_fit(sets[name], encoder, lines.append, ticks.append)
    cut, shortened, dropped, total = 0, 0, 0, 0
    for file in (TRAIN, VALIDATION):
        rows = [row for batch in read_batches(sets[name] / file) for row in batch]
        stored, report = stored_rows(rows, encoder, batch=64)
        cut += report.truncated_completions
        shortened += report.shortened_prompts
        dropped += sum(report.dropped.values())
        total += report.rows
        without = {row.id for row in rows} - {row.id for row in stored}
        assert without == {line["id"] for line in lines if line["finding"] == DROPPED} & {row.id for row in rows}
    assert (fit.rows, sum(ticks), fit.max_length) == (total, total, length)
    assert (fit.counts[DROPPED], fit.counts[TRUNCATED]) == (dropped, cut)
    # a row that is cut though its prompt is shortened is said once, as cut
    assert shortened - cut <= fit.counts[SHORTENED] <= shortened
    assert Counter(line["finding"] for line in lines) == fit.counts
    assert len({line["id"] for line in lines}) == len(lines)


@pytest.mark.parametrize("length", [48, 160])
def test_each_row_is_told_what_an_oracle_tells(model, sets, length):
    """One row at a time, by the rules in words: drop the oldest turns, then cut, then leave out."""
    encoder = encoder_of(str(model), length)
    alone = OneByOne(encoder.tokenizer, max_length=length)
    lines: list[dict[str, str]] = []
    examine_fit(sets["multi-turn"], encoder, lines.append, lambda _: None)
    expected = {}
    for file in (TRAIN, VALIDATION):
        for row in (row for batch in read_batches(sets["multi-turn"] / file) for row in batch):
            answer, _ = alone.completion(row.completion)
            turns = list(row.prompt)
            while len(alone.prompt(turns)) + len(answer) > length and len(turns) > 1:
                turns = turns[2:]
            room = length - len(alone.prompt(turns))
            if room < min(LEAST_COMPLETION, len(answer)):
                expected[row.id] = DROPPED
            elif len(answer) > room:
                expected[row.id] = TRUNCATED
            elif len(turns) < len(row.prompt):
                expected[row.id] = SHORTENED
    assert {line["id"]: line["finding"] for line in lines} == expected
    assert set(expected.values()) == {DROPPED, TRUNCATED, SHORTENED}


def test_the_findings_are_in_the_manifest_and_row_by_row(model, kto, tmp_path):
    source = f"llama-factory:{shared('data', 'llama-factory', 'kto_en_demo.json')}"
    words = ["binarize", source, "--model", model, "--max-length", "128"]
    result = kto(*words, "--out", tmp_path / "set", "--json").json
    listed = Counter(line["finding"] for line in lines_of(tmp_path / "set/findings.jsonl"))
    said = {one["finding"]: one for one in result["findings"]}
    for name in (DROPPED, TRUNCATED, SHORTENED):
        assert said[name]["rows"] == listed[name] > 0
        assert said[name]["severity"] == "warning"
        assert said[name]["summary"].endswith("in 128 tokens")
        assert "--max-length" in said[name]["advice"]
    manifest = json.loads((tmp_path / "set/manifest.json").read_text(encoding="utf-8"))
    assert manifest["findings"] == result["findings"]
    looked = kto(*words, "--check", "--json").json
    assert looked["findings"] == result["findings"]


def test_the_length_is_the_model_s_unless_told_and_never_more(model, kto, tmp_path):
    assert encoder_of(str(model), None).max_length == 256
    source = f"oasst:{shared('data', 'oasst', 'en_100_tree.jsonl')}"
    ran = kto("binarize", source, "--model", model, "--max-length", "300", "--out", tmp_path / "set")
    assert ran.code == 1
    assert "256" in ran.err
    assert not (tmp_path / "set").exists()
    ran = kto("binarize", source, "--model", tmp_path / "nothing", "--out", tmp_path / "set")
    assert ran.code == 1
    assert not (tmp_path / "set").exists()


def test_a_wrong_model_is_said_before_anything_is_read(tmp_path, monkeypatch):
    """Two million rows are not read for nothing."""
    monkeypatch.setattr(binarize_workflow, "read", lambda *_: pytest.fail("rows were read"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Q", "completion": "A", "label": true}\n')
    config = BinarizeConfig((str(rows),), out=str(tmp_path / "out"), model=str(tmp_path / "nowhere"))
    with pytest.raises(KtoError, match="nowhere"):
        binarize_workflow.run(config, Screen(quiet=True))
    assert not (tmp_path / "out").exists()
