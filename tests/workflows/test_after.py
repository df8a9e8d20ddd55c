"""kto train --after RUN: last week's model, settings and split, new rows, a share of the old ones, and a comparison."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import call, error_line, pairs_on_both_sides, write_lines

from kto_cli.data.dataset import load_data_dir
from kto_cli.data.replay import chosen_rows
from kto_cli.training.settings import resolve_options

SETTINGS = ("--batch-size", 8, "--beta", 0.2, "--learning-rate", "1e-3", "--no-curves")


@pytest.fixture(scope="module")
def week(pico, tmp_path_factory) -> Path:
    """week1 and week2: datasets; full, lora: finished runs on the first; cache. Not to be changed."""
    home = tmp_path_factory.mktemp("weeks")
    rows = pairs_on_both_sides(48, 0.25)
    held = rows[:]
    for name, some in (("week1", held[::2]), ("week2", held[1::2])):
        file = write_lines(home / f"{name}.jsonl", some)
        assert call("binarize", file, "--out", home / name, "--validation", 0.25).code == 0
    words = ("--data", home / "week1", "--model", pico, "--cache", home / "cache", *SETTINGS)
    assert call("train", *words, "--out", home / "full").code == 0
    assert call("train", *words, "--lora-r", 2, "--out", home / "lora").code == 0
    return home


def after(week: Path, run: str, *words: object, out: str) -> tuple[dict, str]:
    """The result of a run after another, and what was said."""
    given = ("--after", week / run, "--data", week / "week2", "--cache", week / "cache", "--no-curves", "--out", out)
    ran = call("train", *given, *words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out), " ".join(ran.err.split())


@pytest.mark.parametrize("flag", ["merge", "load_in_4bit"])
def test_flags_are_judged_together_with_what_is_filled_in(week, workplace, flag):
    """These are of adapters, which are the last run's."""
    given = {"after": str(week / "lora"), "data": str(week / "week2"), flag: True, "out": "next"}
    config, _ = resolve_options(given, config_file=None, resume=False)
    assert config.continue_adapter
    assert getattr(config, flag)


@pytest.mark.parametrize("run", ["full", "lora"])
def test_settings_model_and_rows_come_from_the_last_run(week, workplace, run):
    result, said = after(week, run, out="next")
    stored = json.loads(Path("next/kto_config.json").read_text())
    assert (stored["train"]["beta"], stored["train"]["batch_size"]) == (0.2, 8)
    assert stored["train"]["continue_adapter"] == (run == "lora")
    assert "--beta 0.2" in said, "what is filled in is said"
    first, second = (load_data_dir(week / name) for name in ("week1", "week2"))
    found = re.search(r"([\d,]+) new rows and ([\d,]+) rows of the last run \(--replay 0.3\)", said)
    assert found is not None
    old = int(found[2])
    assert abs(old - 0.3 * len(first.train)) <= 2
    assert stored["data"]["train_rows"] == len(second.train) + old
    assert stored["data"]["validation_rows"] == len(first.validation) + len(second.validation)
    before = json.loads((week / run / "kto_config.json").read_text())
    assert stored["reference"]["fingerprint"] == before["reference"]["fingerprint"]
    assert result["after"]["differences"]["auc"]["first"] > 0
    shown = call("eval", "next", "--samples", 0, "--json", "--cache", week / "cache")
    second_margin = result["after"]["differences"]["margin"]["second"]
    assert json.loads(shown.out)["margin"] == pytest.approx(second_margin, abs=1e-4)


def test_the_last_model_is_compared_as_it_evaluates_on_those_rows(week, workplace):
    """Its numbers are those of `kto eval` of it on the same validation split."""
    result, _ = after(week, "full", out="next")
    data = json.loads(Path("next/kto_config.json").read_text())["data"]["folder"]
    ran = call("eval", week / "full", "--data", data, "--samples", 0, "--json", "--cache", week / "cache")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    for name in ("auc", "margin"):
        assert result["after"]["differences"][name]["first"] == pytest.approx(found[name], abs=1e-4)


def test_only_new_references_are_computed(week, workplace):
    """Old rows' log-probs are in the cache: with --replay 1 as many are computed as with --replay 0, but for changed
    partners of the mismatched completions."""
    counts = []
    for share in (0, 1):
        cache = shutil.copytree(week / "cache", f"cache{share}")
        _, said = after(week, "full", "--replay", share, "--max-steps", 1, "--cache", cache, out=f"run{share}")
        found = re.search(r"Reference log-probs \(.*?\): ([\d,]+) computed, ([\d,]+) cached", said)
        counts.append((int(found[1].replace(",", "")), int(found[2].replace(",", ""))))
    assert counts[1][1] >= counts[0][1] + len(load_data_dir(week / "week1").train)
    assert counts[1][0] <= counts[0][0] + 30


def test_a_killed_run_after_another_ends_with_the_same_bits(week, workplace):
    from test_run_dir import train_until_killed_in

    after(week, "full", out="whole")
    words = ("--after", week / "full", "--data", week / "week2", "--cache", week / "cache", "--save-every", 1)
    train_until_killed_in(4, *words, "--no-curves", "--out", "cut")
    ran = call("train", "--resume", "--out", "cut", "--json")
    assert ran.code == 0, ran.err
    assert Path("cut/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert json.loads(ran.out)["after"]["differences"]["auc"]["first"] > 0


def test_a_run_after_another_is_repeated_from_its_config(week, workplace):
    after(week, "full", "--max-steps", 2, out="one")
    assert call("train", "--config", "one/kto_config.json", "--out", "two").code == 0
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()


def test_wrong_ways_to_go_on_are_one_line(week, workplace):
    given = ("train", "--after", week / "full")
    assert "--data" in error_line(call(*given, "--out", "a"))
    assert "Leave out --model" in error_line(call(*given, "--data", week / "week2", "--model", "x", "--out", "a"))
    assert "not a finished run" in error_line(call("train", "--after", week / "week1", "--data", week / "week2"))
    assert "no folder nowhere" in error_line(call("train", "--after", "nowhere", "--data", week / "week2"))
    assert "--after" in error_line(call("train", "--replay", 0.5, "--data", week / "week2"))
    assert not Path("a").exists()


def test_rows_keep_the_side_that_they_had(week):
    """Prompts validated on before are not trained on, prompts trained on before not validated on; pairs stay whole."""
    first, second = (load_data_dir(week / name) for name in ("week1", "week2"))
    swapped = type(
        "Data", (), {"train": first.validation + second.train, "validation": first.train[:4] + second.validation}
    )
    train, validation, counts = chosen_rows(swapped, first, share=0.5, seed=0)
    assert not {row.prompt_id for row in train} & {row.prompt_id for row in validation}
    assert (counts.validated_before, counts.trained_before) == (len(first.validation), 4)
    old = [row for row in train if row.id in {one.id for one in first.train}]
    assert len(old) == counts.old
    assert abs(len(old) - len(first.train) / 2) <= 1
    assert all(sum(other.prompt_id == row.prompt_id for other in old) == 2 for row in old)
