"""`kto loop`: the same files as by hand, gone on with wherever it was killed, the reference as said, one line where it
cannot go on."""

from __future__ import annotations

import gc
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call, error_line, write_lines
from judge_server import answers, fair, serving
from labelling import rows_of, served
from test_reward_judge import made as save_reward_model
from test_run_dir import Killed, sha

from kto_cli.common.errors import BadFlag
from kto_cli.common.loop_config import LoopConfig, loop_config
from kto_cli.common.screen import Screen
from kto_cli.data.dataset import load_data_dir
from kto_cli.evaluation.answers import sample_file
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.step import TrainingEngine
from kto_cli.workflows import evaluate, loop_record
from kto_cli.workflows.loop_steps import Round, spelled
from kto_cli.workflows.loop_table import show

FEW = ("--n", 2, "--max-new-tokens", 5, "--engine", "padded", "--validation", 0.3, "--samples", 4)
LEARN = ("--learning-rate", 0.01, "--batch-size", 8, "--no-curves")


@pytest.fixture(scope="module")
def home(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """asked.jsonl: prompts; judge: a reward model; whole: a loop of two rounds, whole.txt: what it said."""
    folder = tmp_path_factory.mktemp("loops")
    write_lines(folder / "asked.jsonl", [{"prompt": f"Why {number}?", "target": "Thus."} for number in range(20)])
    save_reward_model(folder / "judge")
    ran = call(*words(folder, pico), "--rounds", 2, "--out", folder / "whole")
    assert ran.code == 0, ran.err
    (folder / "whole.txt").write_text(ran.err)
    return folder


def words(home: Path, pico: Path, *more: object) -> tuple[object, ...]:
    judge = ("--prompts", home / "asked.jsonl", "--judge-model", home / "judge", "--cache", home / "cache")
    return ("loop", "--model", pico, *judge, *FEW, *LEARN, *more)


def record(folder: Path | str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(folder, "loop.json").read_text())["rounds"]
    return found


def bytes_of(folder: Path, number: int, name: str) -> bytes:
    """Of a round's file; answers name the model's folder."""
    return (folder / f"round-{number}" / name).read_bytes().replace(str(folder).encode(), b"DIR")


@pytest.mark.slow
def test_the_commands_it_prints_give_the_same_files_by_hand(home, pico, tmp_path):
    """Answers, rows, weights and results of both rounds; nothing is done in another way."""
    said = (home / "whole.txt").read_text()
    typed = re.findall(r"^\W*(kto .*)$", said, re.MULTILINE)
    typed = [line for line in typed if "NUMBER" not in line]
    assert [line.split()[1] for line in typed] == ["sample", "binarize", "train", "eval"] * 2
    for line in typed:
        ran = call(*shlex.split(line.replace(str(home / "whole"), str(tmp_path)))[1:])
        assert ran.code == 0, ran.err
    for name in ("answers.jsonl", "data/train.parquet", "run/model.safetensors", "run/eval/samples.jsonl"):
        for number in (1, 2):
            assert bytes_of(tmp_path, number, name) == bytes_of(home / "whole", number, name), (number, name)
    found = json.loads((tmp_path / "round-2/run/eval/metrics.json").read_text())["metrics"]
    shown = record(home / "whole")[1]["eval"]
    assert (shown["auc"], shown["kl"]) == (found["auc"], found["kl"])
    won = json.loads((tmp_path / "round-2/run/eval/win_rate.json").read_text())
    assert (shown["win_rate"], won["baseline"]) == (won["win_rate"], str(pico))


def test_every_round_starts_from_the_last_one_and_answers_the_same_validation_prompts(home):
    second = record(home / "whole")[1]
    assert second["answers"]["model"] == str(home / "whole/round-1/run")
    scores = [row["score"] for row in rows_of(home / "whole/round-2/answers.jsonl")]
    assert second["answers"]["score"] == pytest.approx(sum(scores) / len(scores))
    asked = [[row["prompt"] for row in rows_of(home / f"whole/round-{n}/run/eval/samples.jsonl")] for n in (1, 2)]
    assert asked[0] == asked[1]
    held = [{row.prompt_id for row in load_data_dir(home / f"whole/round-{n}/data").validation} for n in (1, 2)]
    assert held[0] == held[1]
    answered = [
        {row["draw"]: row["completion"] for row in rows_of(home / f"whole/round-{n}/answers.jsonl")} for n in (1, 2)
    ]
    assert answered[0] != answered[1]


class Dying:
    """Something that ends the process when it is called for the given time, before or after its work."""

    def __init__(self, work: Any, at: int, *, after: bool = False) -> None:
        self.work, self.left, self.after = work, at, after

    def __get__(self, one: Any, kind: type) -> Any:
        return lambda *given, **named: self(one, *given, **named)

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        found = self.work(*given, **named)
        if self.left == 0:
            raise Killed
        return found


PLACES = {
    "answers are written": (sample_file.SampleFile, "append", 1, True),
    "rows are written": (loop_record.LoopRecord, "note", 2, False),
    "in a step of training": (TrainingEngine, "step", 3, False),
    "the run is finished": (RunDir, "finish", 1, True),
    "evaluated and not noted": (loop_record.LoopRecord, "note", 2, False),
    "in the second round": (TrainingEngine, "step", 2, False),
    "in its evaluation": (evaluate, "write_comparisons", 1, False),
}
"""Where a loop is killed, one place after the other: what is called how often, and whether it still does its work."""


@pytest.mark.slow
def test_killed_everywhere_it_ends_as_an_unbroken_loop(home, pico, tmp_path):
    """Each launch goes on to the next place. Nothing that was finished is done again."""
    out = tmp_path / "cut"
    trained: list[int] = []
    whole = TrainingEngine.step
    for owner, name, at, after in PLACES.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainingEngine, "step", lambda self, *a, **b: trained.append(1) or whole(self, *a, **b))
            patch.setattr(owner, name, Dying(getattr(owner, name), at, after=after))
            with pytest.raises(Killed):
                call(*words(home, pico, "--rounds", 2, "--out", out, "--save-every", 1))
    ran = call(*words(home, pico, "--rounds", 2, "--out", out, "--save-every", 1, "--json"))
    assert ran.code == 0, ran.err
    for name in ("answers.jsonl", "data/train.parquet", "run/model.safetensors"):
        for number in (1, 2):
            assert bytes_of(out, number, name) == bytes_of(home / "whole", number, name), (number, name)
    assert [numbers(each) for each in record(out)] == [numbers(each) for each in record(home / "whole")]
    assert ran.json["rounds"] == record(out)


def numbers(one: dict[str, Any]) -> dict[str, Any]:
    """A round's results without paths and the sentence that names steps."""
    return {
        "rows": one["rows"],
        "eval": {name: value for name, value in one["eval"].items() if name != "report"},
        "answers": {name: value for name, value in one["answers"].items() if name != "model"},
        "verdict": one["train"]["verdict"],
    }


def test_a_finished_loop_runs_nothing_and_other_settings_are_refused(home, pico, tmp_path, monkeypatch):
    for name in ("sample", "binarize", "train"):
        monkeypatch.setattr(f"kto_cli.workflows.{name}.run", None)
    ran = call(*words(home, pico, "--rounds", 2, "--out", home / "whole"))
    assert ran.code == 0, ran.err
    assert re.search(r"round .*score .*verdict .*win rate .*KL .*tokens .*distinct-2 .*AUC", ran.out)
    rows = re.findall(r"^│ (\w+) +│ +([^│ ]*) *│", ran.out, re.MULTILINE)
    scores = [f"{one['answers']['score']:.4g}" for one in record(home / "whole")]
    assert rows == [("start", scores[0]), ("1", scores[1]), ("2", "")], "of the answers that each model gave"
    asked = (*words(home, pico, "--rounds", 2, "--out", home / "whole"),)
    for more, named in {("--n", 3): "n (2, now 3)", ("--beta", 0.2): "beta (default, now 0.2)"}.items():
        assert f"was started with other settings or inputs: {named}. Give the same" in error_line(call(*asked, *more))
    other = write_lines(tmp_path / "asked.jsonl", [{"prompt": "Who?"}])
    refused = error_line(call(*asked[:4], other, *asked[5:]))
    assert "prompt_files" in refused
    kept = (home / "asked.jsonl").read_bytes()
    (home / "asked.jsonl").write_bytes(kept + b'{"prompt": "Who?"}\n')
    refused = error_line(call(*asked))
    (home / "asked.jsonl").write_bytes(kept)
    assert f"the content of {home / 'asked.jsonl'}. Give the same" in refused
    assert "has other files" in error_line(call(*words(home, pico, "--out", home)))


# --- the reference -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_rounds(home: Path, pico: Path) -> Path:
    """The same loop with --reference round."""
    ran = call(*words(home, pico, "--rounds", 2, "--out", home / "round", "--reference", "round"))
    assert ran.code == 0, ran.err
    return home / "round"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["fixed", "round"])
def test_the_reference_is_the_one_that_was_asked_for(home, pico, of_rounds, which):
    """Log-ratios of the second round's validation rows are those to this model, computed by transformers alone."""
    import pyarrow.parquet

    folder = home / "whole" if which == "fixed" else of_rounds
    run = folder / "round-2/run"
    copy = Path(shutil.copytree(run, folder / "again", dirs_exist_ok=True))
    assert call("eval", copy, "--samples", 0, "--cache", home / "cache").code == 0
    found = pyarrow.parquet.read_table(copy / "eval/rows.parquet").to_pylist()
    ratios = {row["id"]: row["log_ratio"] for row in found}
    expected = {"fixed": pico, "round": folder / "round-1/run"}
    to = {name: log_ratios(run, model, folder / "round-2/data") for name, model in expected.items()}
    assert len(ratios) > 3
    assert ratios == pytest.approx(to[which], abs=1e-4)
    (other,) = set(to) - {which}
    assert ratios != pytest.approx(to[other], abs=1e-2)


def log_ratios(policy: Path, reference: Path, data: Path) -> dict[str, float]:
    """By row of the validation split."""
    return {
        row.id: logp(policy, row.prompt, row.completion) - logp(reference, row.prompt, row.completion)
        for row in load_data_dir(data).validation
    }


def logp(folder: Path, prompt: Any, completion: Any) -> float:
    """Log-prob of a completion and its end."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template([*prompt], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False).rstrip()
    begin, ids = (tokenizer(text, add_special_tokens=False).input_ids for text in (asked, whole))
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(found[at - 1, ids[at]].item() for at in range(len(begin), len(ids)))


# --- where it stops ----------------------------------------------------------------------------


def target_wins(handler: Any, asked: dict[str, Any]) -> None:
    handler.say("Verdict: " + ("A" if answers(asked)[0] == "Thus." else "B"))


def no_verdict(handler: Any, asked: dict[str, Any]) -> None:
    handler.say("Verdict: tie")


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (target_wins, "There are 0 desirable and "),
        (no_verdict, "16 answers and no label by the judge (a tie, "),
    ],
)
def test_labels_of_one_class_or_none_stop_it_with_one_line_and_keep_the_answers(home, pico, tmp_path, judge, why):
    """The same line again, and no answer is drawn twice."""
    out = tmp_path / "out"
    with serving(judge) as server:
        flags = ("--judge-url", server.url, "--judge-model", "judge-1", "--limit", 8)
        asked = ("loop", "--model", pico, "--prompts", home / "asked.jsonl", *flags, *FEW, *LEARN, "--out", out)
        lines = [error_line(call(*asked)) for _ in range(2)]
        calls = len(server.asked)
    assert lines[0] == lines[1]
    assert calls == 32
    assert lines[0].startswith(f"error: Round 1 stops the loop: {why}"), lines[0]
    assert f"Everything is kept in {out}; another loop needs another --out." in lines[0]
    assert len(rows_of(out / "round-1/answers.jsonl")) == 16
    assert sorted(path.name for path in (out / "round-1").iterdir()) == ["answers.jsonl"]


def test_a_training_that_went_wrong_stops_it_and_is_kept(home, pico, tmp_path):
    out = tmp_path / "out"
    asked = words(home, pico, "--out", out, "--learning-rate", 0.9, "--epochs", 3)
    line = error_line(call(*asked))
    assert re.match(r"error: Round 1 stops the loop: (Blown up|Collapsed): ", line), line
    assert RunDir(out / "round-1/run").finished
    assert not (out / "round-2").exists()
    assert error_line(call(*asked)) == line


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(home, pico, tmp_path, monkeypatch):
    whole = TrainingEngine.step

    def stopped(self: TrainingEngine, *given: Any, **named: Any) -> Any:
        monkeypatch.setattr(TrainingEngine, "step", whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingEngine, "step", stopped)
    ran = call(*words(home, pico, "--rounds", 1, "--out", tmp_path / "out"))
    assert ran.code == 130
    assert "The same kto loop command does all of it." in ran.err
    assert call(*words(home, pico, "--rounds", 1, "--out", tmp_path / "out")).code == 0
    name = "round-1/run/model.safetensors"
    assert sha(tmp_path / "out" / name) == sha(home / "whole" / name)


def test_a_loop_that_could_not_begin_leaves_nothing_and_takes_other_settings(home, pico, tmp_path):
    """Nor does one that was killed before its first answer hold on to its settings."""
    out = tmp_path / "out"
    asked = words(home, pico, "--out", out, "--rounds", 1)
    assert "not a model folder" in error_line(call(*asked, "--judge-model", tmp_path / "judge"))
    assert not out.exists()
    out.mkdir()
    (out / "loop.json").write_text("{}")
    assert error_line(call(*asked, "--limit", 1)).startswith("error: Round 1 stops the loop: ")
    assert json.loads((out / "loop.json").read_text())["settings"]["limit"] == 1


# --- labels ------------------------------------------------------------------------------------


def test_people_label_and_the_same_command_goes_on(home, pico, tmp_path):
    """The rows are those that people labelled; without a judge there is no win rate."""
    out = tmp_path / "out"
    asked = ("loop", "--model", pico, "--prompts", home / "asked.jsonl", "--people", *FEW, *LEARN, "--rounds", 1)
    ran = call(*asked, "--out", out, "--json").json
    assert ran["waiting"] == f"kto label {out}/round-1/answers.jsonl --out {out}/round-1/labels.jsonl"
    assert not (out / "round-1/data").exists()
    with served(out / "round-1/answers.jsonl", out / "round-1/labels.jsonl") as client:
        number = 0
        while client.state("ana")["item"]:
            client.label("ana", "good" if number % 3 else "bad")
            number += 1
    ran = call(*asked, "--out", out)
    assert ran.code == 0, ran.err
    assert f"{number} labels of people for 40 answers" in ran.err
    assert "No judge for win rates" in ran.err
    assert "win rate" not in ran.out
    data = load_data_dir(out / "round-1/data")
    labels = {json.dumps(row["completion"]): row["label"] for row in rows_of(out / "round-1/labels.jsonl")}
    found = {json.dumps([*row.completion]): row.label for row in (*data.train, *data.validation)}
    assert found == labels
    assert {True, False} == set(labels.values())


def models_in_memory() -> set[int]:
    from transformers import PreTrainedModel

    return {id(each) for each in gc.get_objects() if issubclass(type(each), PreTrainedModel)}


def test_prompts_of_a_dataset_stay_on_its_split_and_a_fair_judge_labels_and_compares(
    pico, pico_data, tmp_path, monkeypatch, request
):
    """No model of a step before is in memory when a round is evaluated."""
    out, run = tmp_path / "out", evaluate.run
    request.addfinalizer(gc.enable)
    gc.collect()
    gc.disable()
    others = models_in_memory()  # of tests before
    alive: list[set[int]] = []
    monkeypatch.setattr(evaluate, "run", lambda *given: alive.append(models_in_memory() - others) or run(*given))
    with serving(fair) as server:
        flags = ("--judge-url", server.url, "--judge-model", "judge-1", "--rounds", 1, "--max-new-tokens", 5)
        few = ("--n", 2, "--engine", "padded", "--samples", 4, "--no-curves", "--batch-size", 8)
        ran = call("loop", "--model", pico, "--data", pico_data, *flags, *few, "--out", out, "--json")
    assert alive == [set()]
    given, made = load_data_dir(pico_data), load_data_dir(out / "round-1/data")
    for split in ("train", "validation"):
        asked = {row.prompt_id for row in getattr(given, split)}
        assert {row.prompt_id for row in getattr(made, split)} <= asked
    (one,) = ran.json["rounds"]
    labels = [row["label"] for row in rows_of(out / "round-1/answers.jsonl")]
    assert one["answers"]["labels"] == {"desirable": labels.count(True), "undesirable": labels.count(False)}
    assert one["rows"]["training"] + one["rows"]["validation"] == len(labels) == 40
    assert one["eval"]["comparisons"] == 4


# --- settings ----------------------------------------------------------------------------------

JUDGED: dict[str, Any] = {"judge_model": "judge", "prompt_files": ("asked.jsonl",)}


@pytest.mark.parametrize(
    ("settings", "train", "words"),
    [
        ({"judge_model": None}, {}, "Nothing labels the answers"),
        ({"rounds": 0}, {}, "--rounds 0"),
        ({"reference": "start"}, {}, "one of fixed, round"),
        ({"threshold": "high"}, {}, "--threshold high"),
        ({"people": True, "threshold": "0"}, {}, "--threshold is for scores"),
        ({"n": 1}, {}, "--n 2 or more"),
        ({"temperature": 0.0}, {}, "all answers to a prompt are equal"),
        ({"engine": "http://localhost:8000/v1"}, {}, "--engine URL serves one model"),
        ({"data": "data/a"}, {}, "Leave out one of them"),
        ({"prompt_files": ("a", "b"), "rounds": 3}, {}, "2 files for 3 rounds"),
        ({}, {"continue_adapter": True, "merge": True}, "leaves no adapter"),
        ({}, {"beta": 0.0}, "--beta 0"),
        ({"load_in_4bit": True}, {}, "--load-in-4bit"),
    ],
)
def test_settings_that_do_not_go_together(settings, train, words):
    with pytest.raises(BadFlag, match=re.escape(words)):
        LoopConfig(**{**JUDGED, **settings}, train=train)


def test_adapters_go_on_and_a_merged_model_gets_new_ones():
    """The learning rate is that of the first round; a file for each round is asked in its turn."""
    config = LoopConfig(**{**JUDGED, "prompt_files": ("a", "b"), "model": "m", "rounds": 2}, train={"lora_r": 4})
    second = Round(config, 2, 0.5).training()
    assert second["continue_adapter"]
    assert "lora_r" not in second
    assert (second["model"], second["reference"], second["learning_rate"]) == ("loop/round-1/run", "m", 0.5)
    assert [Round(config, number, None).sampling()[0]["prompt_file"] for number in (1, 2)] == ["a", "b"]
    merged = LoopConfig(**JUDGED, train={"lora_r": 4, "merge": True}, reference="round")
    second = Round(merged, 2, 0.5).training()
    assert (second["lora_r"], second["merge"]) == (4, True)
    assert not {"continue_adapter", "reference"} & set(second)
    assert "model" not in Round(merged, 1, None).training(), "the built-in one"
    assert Round(LoopConfig(**JUDGED, train={"loss": "dpo"}), 1, None).binarizing()["pair_within_prompts"] == 4


def test_a_config_file_of_kto_train_is_taken_but_for_what_the_loop_decides(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("data: d\nmodel: m\nout: o\nbeta: 0.2\nepochs: 2\nseed: 5\nmax_length: 64\n")
    config, not_taken = loop_config({**JUDGED, "seed": 7}, {"epochs": 3}, str(file))
    assert not_taken == ["data", "out"]
    assert (config.model, config.seed, config.max_length, config.out) == ("m", 7, 64, "loop")
    assert config.training == {"beta": 0.2, "epochs": 3, "seed": 7, "max_length": 64}


def test_commands_are_spelled_as_they_are_typed():
    settings = {"sources": ("log:a b",), "fix": ("urls", "echoes"), "chat_template_kwargs": {"a": False}}
    assert spelled("binarize", settings) == (
        "kto binarize 'log:a b' --fix urls --fix echoes --chat-template-kwargs '{\"a\": false}'"
    )
    settings = {"micro_batch_tokens": 0, "keep_best": False, "dora": True, "learning_rate": 1e-05}
    assert (
        spelled("train", settings) == "kto train --micro-batch-tokens auto --no-keep-best --dora --learning-rate 1e-05"
    )


def test_a_judge_that_prefers_a_model_that_forgets_is_warned_of(capsys):
    """The first such round; not one whose win rate may be 50 %, and a round without numbers is shown as such."""

    def one(number: int, verdict: str, low: float | None) -> dict[str, Any]:
        judged = {"win_rate": 0.7, "win_rate_interval": [low, 0.9]} if low is not None else {"win_rate": None}
        found = {"verdict": verdict, "kl": None, "auc": None, "auc_interval": [None, None], "start": {}, "sentence": ""}
        rows = {"share_desirable": 0.5}
        return {"round": number, "answers": {}, "rows": rows, "eval": {**found, **judged, "report": f"report-{number}"}}

    forgetting = [one(1, "drifted", 0.4), one(2, "learned", 0.6), one(3, "drifted", 0.6), one(4, "collapsed", 0.6)]
    show([*forgetting, one(5, "unknown", None)], Screen())
    said = capsys.readouterr()
    assert re.findall(r"Round (\d): the judge prefers", said.err) == ["3"]
    assert "against the start it has drifted" in said.err
    assert "report-3" in said.err
