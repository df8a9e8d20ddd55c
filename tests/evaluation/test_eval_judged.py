"""`kto eval` with a judge, through the command: what is asked, what is kept, and what is there when it fails."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluated
import pytest
from conftest import Command, error_line
from evaluated import SHORT, part, place, runs
from judge_server import Handler, failing, fair, saying, serving
from test_invariance import launch
from test_judge_served import MODEL, url
from test_reward_judge import made as save_reward_model

from kto_cli.data.dataset import load_data_dir
from kto_cli.evaluation import session
from kto_cli.evaluation.report.evidence import gather

KEY = "sk-thirtytwo-characters-of-secret"
__all__ = ["place", "runs", "url"]
"""Fixtures."""
TWO = "torch.distributed.run --standalone --nproc_per_node 2"
FIRST = saying("Verdict: A")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("KTO_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def judged(server: Any, *more: object) -> tuple[object, ...]:
    """The flags for a judge on this server."""
    return (*SHORT, "--judge-url", server.url, "--judge-model", "judge-1", *more)


def text_of(folder: Path) -> str:
    """Everything that is stored below a folder."""
    return "".join(
        path.read_bytes().decode("utf-8", "replace") + str(path) for path in folder.rglob("*") if path.is_file()
    )


# --- what comes out ----------------------------------------------------------------------------


def test_what_a_fair_judge_says_is_in_all_places(kto: Command, place):
    """By hand: the judge is for the answer with the higher hash, in both orders."""
    with serving(fair) as server:
        ran = kto("eval", "a", *judged(server, "--json"))
        found = ran.json["win_rate"]
        assert set(server.contents().values()) == {1}
        assert len(server.asked) == 8
        assert kto("eval", "a", *judged(server, "--json")).json["win_rate"] == found
        assert len(server.asked) == 8, "every verdict was known"
    assert re.search(r"Judge judge-1: 8 calls \(about [\d,]+ tokens to read\), 0 verdicts known", ran.err)
    digests = [
        [hashlib.sha256(sample[name].encode()).hexdigest() for name in ("policy", "target")]
        for sample in ran.json["samples"]
    ]
    wins = sum(ours > theirs for ours, theirs in digests)
    assert (found["comparisons"], found["wins"], found["ties"], found["losses"]) == (4, wins, 0, 4 - wins)
    assert found["win_rate"] == wins / 4
    assert (found["judge"], found["model"], found["baseline"], found["consistency"]) == ("judge-1", "a", "target", 1.0)
    stored = part("a", "win_rate.json")
    assert {name: stored[name] for name in found} == found
    comparisons = evaluated.lines(place / "a/eval/judged.jsonl")
    assert [(comparison["model"], comparison["baseline"]) for comparison in comparisons] == [
        (sample["policy"], sample["target"]) for sample in ran.json["samples"]
    ]
    exported = json.loads((place / "a/eval/alpaca_eval/annotations.json").read_text())
    assert sum(one["preference"] - 1 for one in exported) / len(exported) == found["win_rate"]
    page = (place / "a/eval/report.html").read_text()
    assert found["sentence"].split(" (")[0].split(": ")[0] in page
    shown = kto("eval", "a", *judged(server)[:-4], "--judge-model", "judge-1", "--judge-url", server.url)
    assert shown.code == 1, "the server is gone"


def test_a_judge_for_the_first_answer_says_nothing(kto: Command, place):
    with serving(FIRST) as server:
        ran = kto("eval", "a", *judged(server))
        found = part("a", "win_rate.json")
    assert (found["win_rate"], found["ties"], found["comparisons"], found["consistency"]) == (0.5, 4, 4, 0.0)
    assert found["position_bias"]["first"] == 1
    assert "not shown to be better or worse" in found["sentence"]
    folded = " ".join(ran.out.split())
    assert "Win rate of a against target, judged by judge-1" in folded
    assert "The answer shown first was preferred in 100%" in folded
    assert "mostly goes by order" in folded


def test_a_judge_of_nonsense_is_said_to_be_one(kto: Command, place):
    with serving(saying("I like turtles.")) as server:
        ran = kto("eval", "a", *judged(server))
    assert ran.code == 0, ran.err
    assert "No verdict could be read" in ran.out
    assert "nan" not in ran.out
    assert part("a", "win_rate.json")["comparisons"] == 0
    assert (place / "a/eval/report.html").is_file()


def test_a_judge_is_compared_with_people_on_validation_pairs(kto: Command, place):
    """By hand: the judge is for the answer with the higher hash; people for the desirable one."""
    rows = load_data_dir(Path("set")).validation
    with serving(fair) as server:
        found = kto("eval", "a", *judged(server, "--judge-pairs", 5, "--json")).json["win_rate"]
        assert len(server.asked) == 8 + 10
        shown = kto("eval", "a", *judged(server, "--judge-pairs", 5)).out
    people = found["people"]
    prompts = sorted({row.prompt_id for row in rows})[:5]
    digest = {
        (row.prompt_id, row.label): hashlib.sha256(row.completion[0]["content"].encode()).hexdigest() for row in rows
    }
    right = sum(digest[name, True] > digest[name, False] for name in prompts)
    assert (people["pairs"], people["unreadable"], people["agreement"]) == (5, 0, right / 5)
    assert (people["known"], people["why"]) == (False, "few")
    assert people["sentence"] in " ".join(shown.split())
    assert people["sentence"].split(" (")[0] in (place / "a/eval/report.html").read_text()
    assert part("a", "win_rate.json")["people"]["sentence"] == people["sentence"]


@pytest.mark.parametrize("other", ["reference", "b"])
def test_against_other_models(kto: Command, place, other):
    with serving(fair) as server:
        result = kto("eval", "a", *judged(server, "--against", other, "--json")).json
    comparisons = evaluated.lines(place / "a/eval/judged.jsonl")
    theirs = [sample[other] for sample in result["samples"]]
    assert [comparison["baseline"] for comparison in comparisons] == theirs
    assert result["win_rate"]["comparisons"] == 4
    assert Path(result["win_rate"]["baseline"]).name == {"reference": "pico", "b": "b"}[other]
    identical = sum(sample["policy"] == sample[other] for sample in result["samples"])
    assert result["win_rate"]["ties"] == identical
    assert len(server.asked) == 2 * (4 - identical), "an answer is not compared with itself"


def test_against_itself_all_are_ties_and_nothing_is_asked(kto: Command, place):
    with serving(fair) as server:
        ran = kto("eval", "a", *judged(server, "--against", "./a", "--json"))
        assert server.asked == []
    assert "measured against itself" in ran.err
    assert (ran.json["win_rate"]["win_rate"], ran.json["win_rate"]["ties"]) == (0.5, 4)


def test_answers_from_a_file_also_one_of_its_own(kto: Command, place):
    with serving(fair) as server:
        kto("eval", "b", *judged(server))
        exported = place / "b/eval/alpaca_eval/model_outputs.json"
        asked = len(server.asked)
        result = kto("eval", "a", *judged(server, "--against", exported, "--json")).json
        theirs = [sample["policy"] for sample in evaluated.samples("b")]
        assert [comparison["baseline"] for comparison in evaluated.lines(place / "a/eval/judged.jsonl")] == theirs
        assert result["win_rate"]["baseline"] == "b"
        half = [{"instruction": row["instruction"], "output": "x"} for row in json.loads(exported.read_text())[:3]]
        (place / "half.json").write_text(json.dumps(half))
        asked = len(server.asked)
        ran = kto("eval", "a", *judged(server, "--against", "half.json", "--json"))
        assert "Judged: 3 of 4 prompts; to the others half has no answer" in ran.err
        assert ran.json["win_rate"]["comparisons"] == 3
        assert len(server.asked) - asked == 6


def test_a_reward_model_judges_here(kto: Command, place):
    save_reward_model(place / "reward")
    result = kto("eval", "a", *SHORT, "--judge-model", "reward", "--json").json
    shown = kto("eval", "a", *SHORT, "--judge-model", "reward").out
    assert "judged by reward" in shown
    assert "shown first" not in shown, "it is shown one answer at a time"
    found = result["win_rate"]
    assert found["comparisons"] == found["wins"] + found["losses"] == 4
    assert (found["for"], found["consistency"]) == ("its score", 1.0)
    from kto_cli.evaluation.judge.comparisons import Comparison
    from kto_cli.evaluation.judge.reward_judge import RewardJudge

    judge = RewardJudge(place / "reward")
    comparisons = [Comparison(one["id"], one["prompt"], one["policy"], one["target"]) for one in result["samples"]]
    scores = [
        judge.scores([judge.encode(comparison.prompt, text)])[0]
        for comparison in comparisons
        for text in (comparison.model, comparison.baseline)
    ]
    wins = sum(bool(ours > theirs) for ours, theirs in zip(scores[::2], scores[1::2], strict=True))
    assert found["wins"] == wins


# --- limits and failures -----------------------------------------------------------------------


def test_over_the_limit_nothing_is_asked_and_the_rest_is_there(kto: Command, place):
    with serving(fair) as server:
        error = error_line(kto("eval", "a", *judged(server, "--judge-calls", 7)))
        assert server.asked == []
    assert "Judging needs 8 calls" in error
    assert "the limit is 7; none was made" in error
    assert "--judge-calls" in error
    assert_the_rest_is_there(place)


def assert_the_rest_is_there(place: Path) -> None:
    """Validation numbers, answers and a report, and no win rate."""
    evidence = gather(place / "a/eval", place / "a")
    assert evidence.metrics["rows"] == 16
    assert len(evidence.samples) == 4
    assert evidence.part("generations.json")["prompts"] == 4
    assert evidence.part("win_rate.json") == {}
    assert "Validation rewards by class" in (place / "a/eval/report.html").read_text()


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (failing(401, {"error": {"message": f"Incorrect key: {KEY}"}}), "answers 401: Incorrect key: [key]"),
        (failing(404, {"error": {"message": "no judge-1"}}), "answers 404: no judge-1. Check the URL"),
        (failing(302, "", Location=f"http://evil.invalid/?k={KEY}"), "redirects to http://evil.invalid/?k=[key]"),
        (failing(429, {"error": {"message": f"insufficient_quota {KEY[:12]}..."}}), "answers 429: insufficient_quota"),
    ],
)
def test_a_refusal_is_one_line_the_rest_is_there_and_the_key_nowhere(
    kto: Command, place, monkeypatch, behaviour, said, capfd
):
    monkeypatch.setenv("KTO_JUDGE_KEY", KEY)
    with serving(behaviour) as server:
        ran = kto("eval", "a", *judged(server))
        assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
        assert server.headers
    assert said in error_line(ran)
    assert_the_rest_is_there(place)
    everything = ran.out + ran.err + text_of(place) + "".join(capfd.readouterr())
    assert KEY[:8] not in everything
    assert KEY[-8:] not in everything


def test_the_key_is_kept_nowhere(kto: Command, place, monkeypatch, caplog, capfd):
    """Also not where a judge repeats it, and with all that Python can log."""
    monkeypatch.setenv("KTO_JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    def echo(handler: Handler, asked: dict[str, Any]) -> None:
        handler.say(f"Your header was {handler.headers['Authorization']}.\nVerdict: A")

    with serving(echo) as server:
        ran = kto("eval", "a", *judged(server))
        assert ran.code == 0, ran.err
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert part(place / "a", "win_rate.json")["win_rate"] == 0.5
    assert "Your header was Bearer [key]" in text_of(place / "cache")
    assert KEY[:8] not in ran.out + ran.err + caplog.text + text_of(place) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "x"), "http://127.0.0.1:9/v1 cannot be reached"),
        (("--judge-url", "http://127.0.0.1:9/v1"), "--judge-url needs --judge-model"),
        (("--judge-url", "localhost:9", "--judge-model", "x"), "--judge-url localhost:9 cannot be used"),
        (("--judge-url", "http://me:secret@h/v1", "--judge-model", "x"), "holds more than a place"),
        (("--judge-url", "http://h/v1?key=secret", "--judge-model", "x"), "holds more than a place"),
        (("--judge-model", ""), "--judge-model '' cannot be used"),
        (("--judge-model", "pico"), "The judge pico has no classification head (LlamaForCausalLM)"),
        (("--judge-model", "set"), "set has no config.json"),
        (("--judge-model", "nowhere"), "There is no folder nowhere"),
        (("--judge-model", "reward", "--samples", 0), "With --samples 0 there are no answers to judge"),
        (("--judge-model", "reward", "--judge-calls", 0), "--judge-calls 0 cannot be used"),
        (("--judge-model", "reward", "--judge-workers", 0), "--judge-workers 0 cannot be used"),
        (("--judge-model", "reward", "--judge-for", " "), "--judge-for '' cannot be used"),
        (("--judge-model", "reward", "--against", "nowhere"), "There is no folder nowhere"),
        (("--judge-model", "reward", "--against", "broken.json"), "broken.json is damaged"),
        (("--judge-model", "reward", "--against", "bytes.json"), "bytes.json is damaged"),
        (("--judge-model", "reward", "--against", "object.json"), "object.json holds no answers"),
        (("--judge-model", "reward", "--against", "others.json"), "others.json answers none of the"),
        (("--judge-model", "reward", "--report-only"), "--report-only computes nothing"),
        (("--judge-model", "strict"), "The judge strict cannot read 8 of 8 prompts"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(kto: Command, place, reward, flags, said):
    shutil.copytree(reward, "reward")
    shutil.copytree(reward, "strict")
    (place / "strict/chat_template.jinja").write_text("{{ raise_exception('No.') }}")
    (place / "broken.json").write_text("[{")
    (place / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (place / "object.json").write_text('{"instruction": "x", "output": "y"}')
    (place / "others.json").write_text('[{"instruction": "x", "output": "y"}]')
    error = error_line(kto("eval", "a", *flags))
    assert said in error
    assert "secret" not in error
    assert not (place / "a/eval").exists()


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("reward") / "model")


def test_without_a_desirable_completion_there_is_nothing_to_be_measured_against(
    kto: Command, place, reward, monkeypatch
):
    real = session.choose_prompts

    def without_targets(*words: Any) -> Any:
        prompts = real(*words)
        return replace(prompts, targets=[None] * len(prompts))

    monkeypatch.setattr(session, "choose_prompts", without_targets)
    error = error_line(kto("eval", "a", *SHORT, "--judge-model", reward))
    assert "None of the 4 validation prompts has a desirable completion" in error
    assert "--against reference" in error
    result = kto("eval", "a", *SHORT, "--judge-model", reward, "--against", "reference", "--json").json
    assert result["win_rate"]["comparisons"] == 4
    assert list(result["generations"]["models"]) == ["reference", "policy"]
    assert all("target" not in sample for sample in result["samples"])


# --- stopped in the middle ---------------------------------------------------------------------


def stuck_after(count: int) -> Callable[[Handler, dict[str, Any]], None]:
    """Answers some and keeps the others waiting."""

    def behave(handler: Handler, asked: dict[str, Any]) -> None:
        if len(handler.server.asked) > count:
            time.sleep(1.0)
        fair(handler, asked)

    return behave


def until(reached: Callable[[], bool], process: Any) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_in_the_middle_it_asks_only_what_was_not_answered(kto: Command, kto_started, place):
    with serving(stuck_after(3)) as server:
        process = kto_started("eval", "a", *judged(server, "--judge-workers", 1), cwd=place)
        until(lambda: len(server.asked) > 3, process)
        process.kill()
        process.wait()
        assert part("a", "generations.json")["prompts"] == 4, "what was finished before is there"
        server.behaviour = fair
        before = server.contents()
        ran = kto("eval", "a", *judged(server, "--json"))
        again = server.contents() - before
    assert "5 calls" in ran.err
    assert "3 verdicts known from before" in ran.err
    assert sum(again.values()) == 5
    assert ran.json["win_rate"]["comparisons"] == 4
    assert len([name for name in again if name in before]) == 1, "the one under way"


@pytest.mark.slow
def test_ctrl_c_waits_for_what_is_under_way_and_reports(kto: Command, kto_started, place):
    with serving(stuck_after(2)) as server:
        process = kto_started("eval", "a", *judged(server, "--judge-workers", 2), cwd=place)
        until(lambda: len(server.asked) == 4, process)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Traceback" not in out + err
        assert "Stopped after 4 calls to the judge. Every verdict is kept" in " ".join(err.split())
        assert_the_rest_is_there(place)
        server.behaviour = fair
        assert kto("eval", "a", *judged(server)).code == 0
        assert len(server.asked) == 8
        assert set(server.contents().values()) == {1}


# --- others ------------------------------------------------------------------------------------


def test_a_win_rate_of_other_weights_is_not_shown(kto: Command, place, reward):
    shutil.copytree("b", "plain", ignore=shutil.ignore_patterns("kto_config.json", "metrics.jsonl", "steps", "eval"))
    words = ("eval", "plain", "--data", "set", "--reference", "pico", *SHORT)
    rate = kto(*words, "--judge-model", reward, "--json").json["win_rate"]
    assert rate["sentence"] in (place / "plain/eval/report.html").read_text().replace("&#39;", "'")
    assert kto(*words).code == 0
    assert gather(place / "plain/eval", None).part("win_rate.json")["win_rate"] == rate["win_rate"], "it stays"
    shutil.copy("a/model.safetensors", "plain/model.safetensors")
    assert kto(*words).code == 0
    assert gather(place / "plain/eval", None).part("win_rate.json") == {}
    assert rate["sentence"] not in (place / "plain/eval/report.html").read_text().replace("&#39;", "'")


def test_two_checkpoints_against_the_same_other_side(kto: Command, place):
    with serving(fair) as server:
        ran = kto("eval", "a", "b", *judged(server, "--json"))
    result = ran.json
    rates = [one["win_rate"] for one in result["checkpoints"]]
    (found,) = result["comparisons"]
    difference = found["differences"]["win_rate"]
    assert difference["comparisons"] == 4
    assert difference["difference"] == pytest.approx(rates[1]["win_rate"] - rates[0]["win_rate"])
    for name in ("a", "b"):
        evidence = gather(place / name / "eval", place / name)
        assert evidence.part("comparisons.json")["comparisons"][0]["differences"]["win_rate"]["comparisons"] == 4
        assert "is b better?" in (place / name / "eval/report.html").read_text()


@pytest.mark.slow
def test_a_judge_that_transformers_serves(kto: Command, place, url):
    """The built-in model was not made to judge: its nonsense is said to be that, and not asked for again."""
    flags = (*SHORT, "--samples", 2, "--judge-url", url, "--judge-model", MODEL)
    ran = kto("eval", "a", *flags)
    assert ran.code == 0, ran.err
    found = part("a", "win_rate.json")
    assert found["comparisons"] + found["unreadable"] == 2
    again = kto("eval", "a", *flags, "--json")
    assert ": 0 calls" in again.err
    assert "4 verdicts known" in again.err


@pytest.mark.long
def test_of_two_processes_one_judges(kto: Command, place, tmp_path, monkeypatch):
    with serving(fair) as server:
        alone = kto("eval", "a", *judged(server, "--json")).json
        rate, asked = part("a", "win_rate.json"), server.contents()
        shutil.rmtree("a/eval")
        monkeypatch.setenv("KTO_CACHE", str(tmp_path / "fresh"))
        launch(TWO, "-m", "kto_cli", "eval", "a", *judged(server))
        assert server.contents() - asked == asked, "each question once more"
    assert part("a", "win_rate.json") == rate
    assert alone["win_rate"]["win_rate"] == rate["win_rate"]


@pytest.mark.slow
def test_of_two_processes_none_hangs_where_the_judge_refuses(kto: Command, place):
    """At the end of the work, and before it."""
    with serving(failing(401, {"error": {"message": "no"}})) as server:
        with pytest.raises(AssertionError) as caught:
            launch(TWO, "-m", "kto_cli", "eval", "a", *judged(server))
        assert "answers 401: no." in str(caught.value)
    assert_the_rest_is_there(place)
    with pytest.raises(AssertionError) as caught:
        launch(TWO, "-m", "kto_cli", "eval", "a", *judged(server))
    assert "cannot be reached" in str(caught.value)


def test_ties_without_a_question_and_damaged_verdicts_are_said(kto: Command, place):
    """A greedy answer is the same twice; a verdict whose line is damaged is asked for again."""
    with serving(fair) as server:
        ran = kto("eval", "a", *judged(server, "--against", "./a", "--temperature", 0))
        assert "Equal answers in 4 comparisons: counted as ties without asking" in ran.err
        assert not server.asked
        assert kto("eval", "a", *judged(server)).code == 0
        asked = len(server.asked)
        (kept,) = (place / "cache/verdicts").rglob("*.jsonl")
        first, rest = kept.read_bytes().split(b"\n", 1)
        kept.write_bytes(first[:-9] + b"\n" + rest)
        again = kto("eval", "a", *judged(server))
    assert ": 1. They are asked for again." in " ".join(again.err.split())
    assert len(server.asked) == asked + 1
