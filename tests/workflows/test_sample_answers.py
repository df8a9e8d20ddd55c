"""`kto sample`: independent reproducible draws, one file gone on with, judged rows that `kto binarize` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import call, error_line, write_lines
from judge_server import fair, serving
from labelling import served
from test_reward_judge import made as save_reward_model

from kto_cli.evaluation.answers import sampling, store
from kto_cli.evaluation.answers.records import Answer
from kto_cli.evaluation.answers.sampling import draw_seed, repeats

FEW = ("--max-new-tokens", 6, "--engine", "padded", "--limit", 3, "--n", 2)


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def words(pico: Path, pico_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """The command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return ("sample", pico, "--data", pico_data, *FEW)


def test_draws_differ_are_reproducible_and_gone_on_with(words, monkeypatch, tmp_path):
    """Whatever is there of the file, the same answers come out; what is in it is not drawn again."""
    ran = call(*words, "--json").json
    assert (ran["prompts"], ran["answers"], ran["drawn"], ran["labels"]) == (3, 6, 6, {})
    whole = rows_of("answers.jsonl")
    assert [row["draw"] for row in whole] == [1, 2] * 3
    assert len({json.dumps(row["completion"]) for row in whole}) == 6, "draws are independent"
    assert len({row["key"] for row in whole}) == 6
    text = Path("answers.jsonl").read_bytes()
    monkeypatch.setenv("KTO_CACHE", str(tmp_path / "other"))
    Path("answers.jsonl").write_bytes(text[: len(text) * 3 // 5])  # as a kill leaves it
    asked = []
    answer_all = store.answer_all
    monkeypatch.setattr(
        "kto_cli.evaluation.answers.sampling.answer_all",
        lambda engine, questions, *more: asked.append(len(questions)) or answer_all(engine, questions, *more),
    )
    again = call(*words)
    assert "ends in an answer that was not saved completely: removed" in again.err
    assert "3 answers in answers.jsonl from before" in again.err
    assert sum(asked) == 3
    by_key = {row["key"]: row for row in whole}
    assert {row["key"]: row for row in rows_of("answers.jsonl")} == by_key
    more = call(*words, "--n", 3, "--json").json
    assert (more["answers"], more["drawn"]) == (9, 3)
    assert by_key.items() <= {row["key"]: row for row in rows_of("answers.jsonl")}.items()
    assert call(*words, "--json").json["drawn"] == 0


def test_a_file_of_other_settings_is_refused_and_left(words):
    assert call(*words).code == 0
    before = Path("answers.jsonl").read_bytes()
    for other in (("--seed", 1), ("--temperature", 0.9), ("--max-new-tokens", 7)):
        assert "holds answers of other weights, settings or another judge" in error_line(call(*words, *other))
    Path("mine.jsonl").write_text('{"prompt": "a"}\n')
    assert "Line 1 of mine.jsonl is not an answer" in error_line(call(*words, "--out", "mine.jsonl"))
    assert Path("answers.jsonl").read_bytes() == before
    Path("mine.jsonl").write_bytes(before.replace(b'"ended"', b'"end"', 1))
    assert "Line 1 of mine.jsonl is not an answer" in error_line(call(*words, "--out", "mine.jsonl"))
    assert "all answers to a prompt are equal" in error_line(call(*words, "--temperature", 0))
    assert "Leave out one of them" in error_line(call(*words, "--prompts", "mine.jsonl"))


def test_kto_label_opens_the_file_of_a_prompts_file(words, pico):
    """Equal prompts are answered once, records without one are counted; the file is what the page shows."""
    write_lines(Path("asked.jsonl"), [{"prompt": "Why?"}, {"prompt": "Who?"}, {"prompt": "Why?"}, {"prompt": ""}])
    ran = call("sample", pico, "--prompts", "asked.jsonl", *FEW)
    assert ran.code == 0, ran.err
    assert "2 prompts in 3 rows" in ran.err
    assert "records that cannot be used (empty_prompt): 1" in ran.err
    assert "Next: kto label answers.jsonl" in ran.err
    with served(Path("answers.jsonl"), Path("labels.jsonl")) as client:
        for _ in range(4):
            assert client.state("ana")["item"] is not None
            client.label("ana", "good")
    assert len(rows_of("labels.jsonl")) == 4


def test_scores_of_a_reward_model_become_rows(words, tmp_path):
    """The scores are those of the judge itself, and rows above the threshold are desirable."""
    from kto_cli.evaluation.judge.reward_judge import RewardJudge

    folder = save_reward_model(tmp_path / "judge")
    ran = call(*words, "--judge-model", folder)
    assert ran.code == 0, ran.err
    rows, judge = rows_of("answers.jsonl"), RewardJudge(folder)
    for row in rows:
        encoded = judge.encode(tuple(row["prompt"]), row["completion"][0]["content"])
        assert row["score"] == pytest.approx(judge.scores([encoded]).item(), abs=1e-5)
    middle = sorted(row["score"] for row in rows)[3]
    flags = ("--score-column", "score", "--threshold", middle, "--validation", 0, "--json")
    found = call("binarize", "log:answers.jsonl", *flags).json
    assert (found["desirable"], found["undesirable"]) == (3, 3)


def test_verdicts_of_a_served_judge_become_labels(words):
    """A fair judge is for one side in both orders; a row without a target has no label, and binarize counts it."""
    write_lines(
        Path("asked.jsonl"),
        [{"prompt": f"Why {number}?", "target": f"Thus {number}."} for number in range(7)] + [{"prompt": "Who?"}],
    )
    with serving(fair) as server:
        base = (*words[:2], "--prompts", "asked.jsonl", *FEW[:4])
        flags = ("--judge-url", server.url, "--judge-model", "judge-1")
        refused = error_line(call(*base, *flags, "--judge-calls", 55))
        assert "takes up to 56 calls, and --judge-calls allows 55" in refused
        assert not server.asked
        assert not Path("answers.jsonl").exists()
        ran = call(*base, *flags, "--json").json
    rows = rows_of("answers.jsonl")
    labels = [row["label"] for row in rows]
    assert labels.count(None) == 4 == ran["labels"]["unlabelled"]
    for row in rows:
        votes = {None: None, True: "model", False: "baseline"}[row["label"]]
        assert row.get("model_first") == row.get("baseline_first") == votes
    assert {True, False} < set(labels)
    found = call("binarize", "answers.jsonl", "--validation", 0, "--json").json
    assert (found["desirable"], found["undesirable"]) == (labels.count(True), labels.count(False))
    assert sum(found["rejected"].values()) == 4


def test_seeds_of_draws_and_equal_answers():
    """The first draw is that of kto eval; no draw of one seed is one of another."""
    seeds = {draw_seed(seed, number) for seed in range(20) for number in range(1, 20)}
    assert len(seeds) == 20 * 19
    assert draw_seed(7, 1) == 7
    row = {"prompt": "a", "completion": "b"}
    assert repeats([row, row, row, {**row, "completion": "c"}, {**row, "prompt": "c"}]) == 2


def test_the_first_draw_of_a_run_is_what_kto_eval_shows(pico, pico_data, tmp_path, monkeypatch):
    """A run with an adapter: its data, dtype and template come from it; with another cache the answers are the same."""
    monkeypatch.chdir(tmp_path)
    given = ("--data", pico_data, "--model", pico, "--lora-r", 2, "--max-steps", 1, "--batch-size", 8)
    assert call("train", *given, "--learning-rate", 0.05, "--out", "run").code == 0
    short = ("--max-new-tokens", 6, "--engine", "padded")
    assert call("eval", "run", *short, "--samples", 3).code == 0
    shown = {row["prompt"]: row["policy"] for row in rows_of("run/eval/samples.jsonl")}
    monkeypatch.setenv("KTO_CACHE", str(tmp_path / "other"))
    assert call("sample", "run", "--split", "validation", *short, "--n", 1).code == 0
    drawn = {row["prompt"][-1]["content"]: row["completion"][0]["content"] for row in rows_of("answers.jsonl")}
    assert len(shown) == 3
    assert shown.items() <= drawn.items()
    write_lines(Path("asked.jsonl"), [{"prompt": name} for name in shown])
    assert call("sample", "run", "--prompts", "asked.jsonl", *short, "--n", 1, "--out", "again.jsonl").code == 0
    again = {row["prompt"][-1]["content"]: row["completion"][0]["content"] for row in rows_of("again.jsonl")}
    assert again == shown


def test_ctrl_c_keeps_what_was_answered(words, monkeypatch):
    """The first chunk is in the file, the answers of the second in the cache; going on gives what one run gives."""
    assert call(*words, "--out", "whole.jsonl").code == 0
    monkeypatch.setenv("KTO_CACHE", str(Path("other").absolute()))
    monkeypatch.setattr(sampling, "CHUNK", 1)
    append = store.AnswerStore.append
    stored: list[str] = []

    def stopping(self: store.AnswerStore, key: str, answer: Answer) -> None:
        append(self, key, answer)
        stored.append(key)
        if len(stored) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(store.AnswerStore, "append", stopping)
    ran = call(*words)
    assert ran.code == 130
    assert "Stopped: answers of" in ran.err
    assert len(rows_of("answers.jsonl")) == 2
    assert call(*words).code == 0
    assert len(stored) == 6, "no answer was drawn twice"
    assert [row["completion"] for row in rows_of("answers.jsonl")] == [
        row["completion"] for row in rows_of("whole.jsonl")
    ]
