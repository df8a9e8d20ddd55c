"""`kto eval --tasks`, through the command: benchmarks of the checkpoint beside those of its reference."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import evaluated
import pytest
from conftest import Command, error_line
from evaluated import SHORT, part, runs
from test_tasks import choice_task, few

from kto_cli.common.install import install_extra
from kto_cli.evaluation.benchmarks import run as running
from kto_cli.evaluation.report.evidence import gather
from kto_cli.model.load import load_model, load_tokenizer

__all__ = ["few", "runs"]
"""Fixtures."""
pytestmark = pytest.mark.extra
NONE = ("--samples", 0)


@pytest.fixture
def place(runs, tmp_path) -> Any:
    """The same runs, to be evaluated, with their cache and a folder of tasks."""
    folder = evaluated.copy_of(runs, tmp_path / "runs")
    choice_task(folder / "tasks")
    with evaluated.here(folder):
        yield folder


@pytest.fixture
def _lm_eval() -> None:
    pytest.importorskip("lm_eval")


def asked(*more: object) -> tuple[object, ...]:
    return (*NONE, "--tasks", "colours", "--task-folder", "tasks", *more)


@pytest.mark.usefixtures("_lm_eval")
def test_a_task_of_ones_own_is_run_on_both(kto: Command, place, monkeypatch):
    """Its numbers are those of the model folders, loaded by themselves."""
    ran = kto("eval", "a", *asked())
    assert ran.code == 0, ran.err
    found = part("a", "benchmarks.json")
    assert found["tasks"]["colours"]["n"] == 24
    against = found["against_reference"]["colours"]
    for name, folder in (("policy", "a"), ("reference", "pico")):
        tokenizer, fallback = load_tokenizer(Path(folder), chat_template=None, trust_remote_code=False)
        subject = running.BenchmarkModel("x", load_model(Path(folder)), tokenizer, not fallback)
        plan = running_plan("tasks")
        alone = running.run_tasks(plan, subject, running.BenchmarkSettings())["tasks"]["colours"]["value"]
        assert against[name] == alone, name
    assert against["difference"] == pytest.approx(against["policy"] - against["reference"])
    assert "Benchmarks (lm-eval" in ran.out
    line = next(line for line in ran.out.splitlines() if "colours" in line)
    assert f"{against['policy']:.3f}" in line
    assert f"{against['reference']:.3f}" in line
    page = (place / "a/eval/report.html").read_text()
    assert "colours" in page.partition('id="benchmarks"')[2]

    def no_more(*words: Any, **options: Any) -> None:
        raise AssertionError("asked twice")

    import lm_eval

    monkeypatch.setattr(lm_eval.evaluator, "evaluate", no_more)
    again = kto("eval", "a", *asked("--json")).json["benchmarks"]
    assert again["tasks"]["colours"] == found["tasks"]["colours"]
    assert kto("eval", "a", *SHORT).code == 0
    assert gather(place / "a/eval", place / "a").part("benchmarks.json")["tasks"], "it stays"


@pytest.mark.usefixtures("_lm_eval")
def test_a_conditional_model_is_asked_by_its_own_template(kto: Command, place, pico_data):
    """Its template writes the text behind every question; the reference's does not."""
    words = ["--data", pico_data, "--model", "pico", "--max-steps", 2, "--learning-rate", 1e-2, "--loss", "csft"]
    assert kto("train", *words, "--out", "csft").code == 0
    assert kto("eval", "csft", *asked()).code == 0
    against = part("csft", "benchmarks.json")["against_reference"]["colours"]
    asked_of = {}
    for name, folder in (("policy", "csft"), ("reference", "pico")):
        tokenizer, _ = load_tokenizer(Path(folder), chat_template=None, trust_remote_code=False)
        asked_of[name] = tokenizer.chat_template
        subject = running.BenchmarkModel("x", load_model(Path(folder)), tokenizer, True)
        alone = running.run_tasks(running_plan("tasks"), subject, running.BenchmarkSettings())["tasks"]["colours"]
        assert against[name] == alone["value"], name
    assert "<|good|>" in asked_of["policy"]
    assert "<|good|>" not in asked_of["reference"]


def running_plan(folder: str) -> Any:
    from kto_cli.evaluation.benchmarks.plan import plan_tasks

    return plan_tasks(["colours"], folder=Path(folder))


@pytest.mark.usefixtures("_lm_eval")
def test_an_adapter_and_a_limit(kto: Command, place):
    found = kto("eval", "lora", *asked("--task-limit", 5, "--json")).json["benchmarks"]
    assert (found["limit"], found["tasks"]["colours"]["n"], found["reference"]["colours"]["n"]) == (5, 5, 5)


@pytest.mark.usefixtures("_lm_eval")
def test_two_checkpoints_are_compared(kto: Command, place):
    ran = kto("eval", "a", "b", *asked("--json"))
    first, second = (one["benchmarks"]["tasks"]["colours"]["value"] for one in ran.json["checkpoints"])
    (found,) = ran.json["comparisons"]
    one = found["differences"]["colours"]
    assert (one["first"], one["second"]) == (first, second)
    assert one["difference"] == pytest.approx(second - first)
    assert one["verdict"] in ("first", "second", "unclear")
    for name in ("a", "b"):
        stored = part(name, "comparisons.json")["comparisons"]
        assert [each["differences"]["colours"] for each in stored] == [one]
        page = (place / name / "eval/report.html").read_text()
        assert "is b better?" in page
    shown = kto("eval", "a", "b", *asked()).out
    assert "colours" in shown.partition("Is b better than a?")[2]


@pytest.mark.usefixtures("_lm_eval", "few")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tasks", "no_such_task"), "lm-eval has no task no_such_task"),
        (("--tasks", "color", "--task-folder", "tasks"), "lm-eval has no task color. "),
        (("--tasks", "humaneval"), "humaneval executes code that the model writes"),
        (("--tasks", "gsm8k@x"), "'gsm8k@x' is neither a task nor task@shots"),
        (("--tasks", "colours", "--task-folder", "nowhere"), "nowhere is not a folder of tasks"),
        (("--tasks", "broken", "--task-folder", "tasks"), "broken"),
        (("--tasks", ""), "--tasks names no benchmark"),
        (("--tasks", " , "), "--tasks names no benchmark"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_loaded(kto: Command, place, monkeypatch, flags, said):
    from kto_cli.model import source

    monkeypatch.setattr(source, "load_model", None)
    (place / "tasks/broken.yaml").write_text("task: [")
    assert said in error_line(kto("eval", "a", *NONE, *flags))
    assert not (place / "a/eval").exists()


@pytest.mark.usefixtures("_lm_eval")
def test_a_dataset_that_is_not_there_leaves_the_earlier_results(kto: Command, place):
    assert kto("eval", "a", *SHORT).code == 0
    (place / "tasks/colours.jsonl").unlink()
    shutil.rmtree(place / "cache/benchmarks", ignore_errors=True)
    error = error_line(kto("eval", "a", *asked()))
    assert "colours.yaml cannot be loaded" in error
    assert gather(place / "a/eval", place / "a").metrics["rows"] == 16


@pytest.mark.parametrize("flag", [("--task-folder", "tasks"), ("--task-limit", 3), ("--allow-code-execution",)])
def test_flags_of_tasks_need_some(kto: Command, place, flag):
    assert f"{flag[0]} needs --tasks" in error_line(kto("eval", "a", *flag))


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is here")
def test_without_lm_eval_the_way_to_get_it_is_said(kto: Command, place):
    assert f"{install_extra('tasks')}." in error_line(kto("eval", "a", "--tasks", "mmlu"))
