"""The study's small worlds: rewards, variants of the data, the order of trials, and differences with intervals."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from conftest import REPOSITORY

from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import TrainConfig
from kto_cli.training.loss_flags import loss_kind


@pytest.fixture(autouse=True)
def repository_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))


def study(name: str) -> Any:
    return importlib.import_module(f"benchmarks.study.{name}")


def pairs(count: int) -> list[Any]:
    turn = [{"role": "user", "content": "?"}]
    return [study("worlds").Pair(turn, f"better {number}", f"worse {number}") for number in range(count)]


def test_reward_is_the_share_of_good_words_minus_that_of_bad_ones():
    """Of six words two are good and one is bad: 1 / 6. Case and punctuation do not matter."""
    world = study("worlds").World("w", Path(), {}, frozenset({"happy", "play"}), frozenset({"rude"}))
    assert world.reward("Happy, they PLAY. A rude end") == pytest.approx(1 / 6)
    assert world.reward("...") == 0


def test_prompts_are_whole_first_sentences():
    worlds = study("worlds")
    texts = ["One day a dog ran off. It came back.", "One day a dog ran off. No.", "Too short. Yes.", "No end at all"]
    assert worlds.openings(texts) == ["One day a dog ran off."]
    assert worlds.whole_sentences('He said "go!"\nShe went.  And th') == 'He said "go!" She went.'
    assert worlds.whole_sentences("no end") == ""


def test_built_in_answers_that_people_liked_earn_more(tmp_path):
    world = study("worlds").builtin(tmp_path)
    gaps = [world.reward(one.chosen) - world.reward(one.rejected) for one in world.splits["train"]]
    assert sum(gap > 0 for gap in gaps) > 0.8 * len(gaps)
    prompts = [{str(one.prompt) for one in some} for some in world.splits.values()]
    assert len(set.union(*prompts)) == sum(map(len, prompts))


@pytest.mark.parametrize(
    ("variant", "desirable", "undesirable", "wrong"),
    [
        ("pairs", 60, 60, 0),
        ("prompts=0.5", 30, 30, 0),
        ("one-y", 30, 30, 0),
        ("desirable=0.1", 6, 60, 0),
        ("undesirable=0.01", 60, 1, 0),
        ("flipped=0.2", 60, 60, 24),
        ("judges=0/3", 60, 60, 0),
        ("judges=1/3", 60, 60, 40),
        ("longer", 60, 60, 0),
    ],
)
def test_variants_of_60_pairs(variant, desirable, undesirable, wrong):
    """Rows by class, and rows whose label is wrong: two for each pair the wrong way round."""
    rows = []
    for one in study("variants").records(pairs(60), variant):
        halves = (
            ((one["chosen"], True), (one["rejected"], False))
            if "chosen" in one
            else ((one["completion"], one["label"]),)
        )
        rows += [(turns[0]["content"], label) for turns, label in halves]
    assert sum(label for _, label in rows) == desirable
    assert sum(not label for _, label in rows) == undesirable
    assert sum(text.startswith("better") != label for text, label in rows) == wrong


def test_the_better_answer_loses_its_last_sentence_where_it_has_several():
    [one] = study("variants").records([pairs(1)[0]._replace(chosen="So! They ran. They slept.")], "longer")
    assert one["chosen"][0]["content"] == "So! They ran."


def test_conditions_are_distinct_and_are_settings_of_kto_train():
    questions = study("questions").QUESTIONS
    conditions = [one for make in questions.values() for one in make()]
    names = {one.full_name for one in conditions}
    assert len(names) == len(conditions)
    for one in conditions:
        assert {one.against, one.rate_of} - {""} <= names
        assert bool(one.rates) != bool(one.rate_of)
        loss_kind(TrainConfig(**dict(one.settings)))


def test_log_probs_of_a_padded_batch_are_those_of_each_sequence():
    drawing = study("drawing")
    answering = drawing.Answering.load(study("worlds").SAMPLE_DATA / "model")
    prompt = [{"role": "user", "content": "How often should I water my fern?"}]
    sequences = [(drawn.prompt, drawn.ids) for drawn in drawing.draw(answering, [prompt] * 3, tokens=12, seed=1)]
    sequences[1] = (sequences[1][0], sequences[1][1][:3])
    expected = []
    for before, ids in sequences:
        logps = answering.model(torch.tensor([[*before, *ids]])).logits[0].log_softmax(-1)
        expected.append(sum(logps[len(before) - 1 + index, token].item() for index, token in enumerate(ids)))
    assert drawing.log_probs(answering.model, sequences).tolist() == pytest.approx(expected, abs=1e-4)
    [greedy] = drawing.draw(answering, [prompt], tokens=12)
    assert greedy.ids[0] == answering.model(torch.tensor([greedy.prompt])).logits[0, -1].argmax()


def test_a_difference_of_three_seeds_and_two_prompts():
    """Gaps by seed 1, 2, 3 (mean 2, variance 1, so 1/3 of the mean), by prompt 1 and 3 (variance 2, so 1).

    The variance is 4/3 with (4/3)^2 / ((1/3)^2 / 2 + 1^2 / 1) = 1.68, so one degree of freedom: t(.95) = 6.314.
    """
    contrasts = study("contrasts")
    one = contrasts.difference([[0, 2], [1, 3], [2, 4]], [[0, 0], [0, 0], [0, 0]])
    assert one.mean == 2
    assert one.high - one.mean == pytest.approx(6.3138 * (4 / 3) ** 0.5, rel=1e-4)
    assert one.p == pytest.approx(2 * scipy.stats.t.sf(2 / (4 / 3) ** 0.5, 1))
    same = contrasts.difference([[1, 2]], [[1, 2]])
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 12, 127])
@pytest.mark.parametrize("t", [0.0, 0.5, -1.7, 4.0])
def test_p_values_are_those_of_students_t(freedom, t):
    assert study("contrasts").two_sided(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(abs(t), freedom), abs=1e-12)


def test_holm_multiplies_by_how_many_are_left():
    """.01 times 3, .02 times 2, and .03 no less than the one before."""
    assert study("contrasts").holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert study("contrasts").holm([]) == []


@pytest.fixture
def ran(monkeypatch, tmp_path) -> Any:
    """Keys of trials that ran, which are not trained: the second rate of each earns most."""
    schedule, trials, keys = study("schedule"), study("trials"), []

    def measure(self, trial, sft_rate):
        keys.append(trial.key("w"))
        if trial.condition.name == "batch 8":
            raise BadInput("Out of luck.", "Try again.")
        reward = 1.0 if trial.condition.rates and trial.rate == trial.condition.rates[1] else 0.5
        return {"seconds": 1.0, "reward": reward, "sft_rate": sft_rate, "rewards": [1, 2]}

    monkeypatch.setattr(trials.Bench, "measure", measure)
    monkeypatch.setattr(trials.Bench, "measure_start", lambda self, name, rate: {"seconds": 1.0, "reward": 0.0})
    monkeypatch.setattr(trials.Bench, "prepare", lambda self, conditions, rate: None)
    world = study("worlds").World("w", Path(), {}, frozenset(), frozenset())
    monkeypatch.setattr(schedule, "_bench", lambda setup: trials.Bench(world, tmp_path))
    return keys


def run(tmp_path: Path, table: str, **given: Any) -> int:
    schedule = study("schedule")
    path = tmp_path / "results.jsonl"
    return int(schedule.run(table, schedule.Setup(tmp_path), path, **{"jobs": 1, "seconds": 60, **given}))


def test_rates_are_chosen_first_and_results_are_not_made_again(ran, tmp_path):
    """Three rates of SFT, four of KTO; then three seeds of KTO and of the two conditions with half the answers."""
    assert run(tmp_path, "one-y", most=1) == 0
    assert [key.rpartition(" / ")[2] for key in ran] == ["seed 0"] * 7 + ["seed 1", "seed 2", "seed 3"] * 3
    assert {key.split(" / ")[-2] for key in ran[7:]} == {"0.0003"}
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {one["sft_rate"] for one in results if "sft_rate" in one} == {0.0, 0.003}
    assert [one["name"] for one in results if one["seed"] == -1] == ["the model", "the model after SFT"]
    before = len(ran)
    assert run(tmp_path, "one-y", most=1) == 0
    assert len(ran) == before


def test_a_failed_trial_is_counted_and_tried_again(ran, tmp_path):
    assert run(tmp_path, "settings") == 3
    before = len(ran)
    assert run(tmp_path, "settings") == 3
    assert {key.split(" / ")[1] for key in ran[before:]} == {"batch 8"}


def test_no_trial_begins_when_time_is_up(ran, tmp_path):
    assert run(tmp_path, "noise", seconds=-1) == 0
    assert not ran


def test_tables_hold_what_has_results(ran, tmp_path):
    """Differences are of the same seeds and prompts; a table without results is left out."""
    run(tmp_path, "one-y", most=1)
    results = study("cells").read_results(tmp_path / "results.jsonl")
    numbers = ("reward_greedy", "kl", "auc", "auc_length", "margin", "tokens", "ended", "distinct", "repeated")
    given = [one | dict.fromkeys(numbers, 0.5) for one in results]
    tables = study("small_tables").small_tables(given)
    assert tables.keys() == {"family", "one-y", "length", "rates"}
    assert "| +0.0 [+0.0, +0.0] | 1.000 |" in tables["one-y"]
    assert "| kto, SFT first | 50.0 (0) | 100.0 (0) | 50.0 (0) | 50.0 (0) |  |" in tables["rates"]


def test_the_figure_has_each_rate_of_each_loss():
    figure, page = study("figure"), study("page")
    results = study("cells").read_results(page.STORIES)
    reached = figure.points(results)
    assert {loss: len(some) for loss, some in reached.items()} == dict.fromkeys(figure.LOSSES, 4)
    assert min(reached["kto"])[0] < 2
    assert max(reached["ppo-offline"])[0] > figure.FURTHEST
    drawn = figure.figure(results)
    assert all(f">{loss}<" in drawn for loss in figure.LOSSES)
    assert all(f">{loss}<" in page.FIGURE.read_text(encoding="utf-8") for loss in figure.LOSSES)


def test_each_condition_of_the_page_has_all_seeds():
    """So that no table leaves one out, and none was run at settings that the page no longer names."""
    found: dict[str, set[int]] = {}
    for one in study("cells").read_results(study("page").STORIES):
        if one["seed"] > 0:
            found.setdefault(f"{one['table']} / {one['name']}", set()).add(one["seed"])
    expected = {one.full_name for make in study("questions").QUESTIONS.values() for one in make()}
    assert found == {name: set(study("trials").SEEDS) for name in expected}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_tables_quickly(tmp_path):
    """Each table has a row for each of its conditions."""
    command = [sys.executable, "-m", "benchmarks.study", "all", "--quick", "--jobs", "2", "--work", str(tmp_path)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for table, make in study("questions").QUESTIONS.items():
        shown = ran.stdout.split(f"\n{table}\n\n| condition")[1].split("\n\n")[0]
        assert {one.name for one in make()} <= {line[2:].split(" | ")[0] for line in shown.splitlines()}
