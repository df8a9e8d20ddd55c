"""`kto train --loss X`, then `kto eval`: every loss runs, records what it defines, and refuses what means nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import call, make_dataset, write_lines

from kto_cli.core.loss_kinds import LOSSES


def one_error(done: Any) -> str:
    """The only line of a mistake."""
    assert done.code != 0
    text = " ".join(done.err.split())
    assert text.count("error:") == 1
    assert "Traceback" not in text
    return text


PAIRED = [name for name, kind in LOSSES.items() if kind.unit == "pair"]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_is_evaluated(loss, given, workplace):
    kind = LOSSES[loss]
    words = [*given, "--cache", "cache", "--max-steps", 3, "--batch-size", 8, "--learning-rate", 1e-3]
    trained = call("train", *words, "--loss", loss, "--out", "run", "--json")
    assert trained.code == 0, trained.err
    lines = lines_of(Path("run"))
    assert len(lines) == (2 if loss == "sft" else 3)  # 16 desirable rows
    for line in lines:
        assert math.isfinite(line["loss"])
        assert not [name for name, value in line.items() if value is None], "what is undefined is absent"
        assert ("z_ref" in line) == (kind.is_unpaired and kind.point != "zero")
        assert ("z_ref_se" in line) == (kind.point == "mismatched")
        assert ("margin" in line) == (kind.classes == "both" and not kind.control)
        assert ("paired_accuracy" in line) == (kind.unit == "pair")
        assert line["logp_per_token_desirable"] < 0
        of_tokens = {"clip_fraction", "mean_ratio", "critic_loss", "explained_variance"}
        assert of_tokens & set(line) == (of_tokens if kind.per_token else set())
    config = json.loads(Path("run/kto_config.json").read_text())
    assert config["chosen"]["loss"]["loss"] == loss
    assert config["chosen"]["loss"]["point"] == kind.point
    assert loss in Path("run/README.md").read_text()
    found = call("eval", "run", "--cache", "cache", "--samples", 2, "--max-new-tokens", 4)
    assert found.code == 0, found.err
    metrics = json.loads(Path("run/eval/metrics.json").read_text())["metrics"]
    assert {"auc", "kl", "margin"} <= set(metrics)
    assert ("loss" in metrics) != kind.per_token
    assert ("calibration" in metrics) == kind.is_unpaired == ("accuracy" in metrics)
    said = " ".join(found.err.split() + found.out.split())
    assert ("This loss has no reference point" in said) == (not kind.is_unpaired)


@pytest.mark.parametrize(
    ("flags", "named", "hint"),
    [
        (("--loss", "dpo", "--lambda-u", 1.33), "--lambda-u does nothing with --loss dpo", "kto"),
        (("--loss", "sft", "--beta", 0.2), "--beta does nothing with --loss sft", "dpo"),
        (("--loss", "dpo", "--value", "linear"), "--value does nothing with --loss dpo", "bco"),
        (("--ipo-tau", 0.2), "--ipo-tau does nothing with --loss kto", "--loss ipo"),
        (
            ("--loss", "simpo", "--label-smoothing", 0.1),
            "--label-smoothing does nothing with --loss simpo",
            "--loss dpo",
        ),
        (("--loss", "sft", "--sft-weight", 0.1), "--sft-weight does nothing with --loss sft", "Leave it out"),
        (("--loss", "csft", "--sft-weight", 0.1), "--sft-weight does nothing with --loss csft", "Leave it out"),
        (("--loss", "sft", "--control-bad", "x"), "--control-bad does nothing with --loss sft", "--loss csft"),
        (("--loss", "csft", "--control-good", ""), "--control-good ''", "a text that says the class"),
        (("--loss", "csft", "--control-bad", "<|good|>"), 'are both "<|good|>"', "two different texts"),
        (("--loss", "dpoo"), "--loss dpoo is not known", "dpo"),
        (("--reference-point", "none"), "--reference-point none is not known", "mismatched"),
        (("--loss", "dpo", "--label-smoothing", 0.5), "--label-smoothing", "below 0.5"),
        (("--loss", "ipo", "--ipo-tau", 0), "--ipo-tau", "above 0"),
        (("--ppo-clip", 2), "--ppo-clip does nothing with --loss kto", "--loss ppo-offline"),
        (("--loss", "ppo-offline", "--beta", 0.2), "--beta does nothing with --loss ppo-offline", "kto"),
        (("--loss", "ppo-offline", "--reference", "none"), "--reference none does nothing", "Leave it out"),
        (("--loss", "ppo-offline", "--ppo-clip", 1), "--ppo-clip", "above 1"),
        (("--loss", "ppo-offline", "--ppo-gamma", 1.5), "--ppo-gamma", "from 0 to 1"),
        (("--loss", "ppo-offline", "--ppo-penalty", -1), "--ppo-penalty", "0 or above"),
        (("--loss", "ppo-offline", "--dtype", "bfloat16-pure"), "--dtype bfloat16-pure", "Leave it out"),
        (("--loss", "ppo-offline", "--optimizer", "adamw-8bit"), "--optimizer adamw-8bit", "Leave it out"),
    ],
)
def test_a_flag_that_means_nothing_is_refused_by_name(flags, named, hint, given, workplace):
    text = one_error(call("train", *given, *flags))
    assert named in text
    assert hint in text
    assert not Path("checkpoint").exists()


@pytest.mark.parametrize("loss", PAIRED[:2])
def test_rows_without_pairs_are_refused_by_a_pair_loss(loss, pico, workplace):
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}.", "label": n % 2 == 0} for n in range(12)]
    write_lines(Path("rows.jsonl"), rows)
    assert call("binarize", "rows.jsonl", "--out", "data").code == 0
    text = one_error(call("train", "--data", "data", "--model", pico, "--loss", loss))
    assert f"--loss {loss} needs pairs" in text


def test_offline_ppo_with_the_optimizer_of_the_papers_runs(given, workplace):
    """Its value head is a group of RMSprop as of AdamW."""
    words = [*given, "--cache", "cache", "--max-steps", 2, "--batch-size", 8, "--loss", "ppo-offline"]
    assert call("train", *words, "--optimizer", "rmsprop", "--out", "run").code == 0
    first, second = lines_of(Path("run"))
    assert first["critic_loss"] != second["critic_loss"]


def test_left_out_rows_are_counted(given, pico_data, workplace):
    said = call("train", *given, "--max-steps", 1, "--loss", "sft", "--out", "run").err
    assert "--loss sft learns from the 16 desirable rows; 16 undesirable rows left out." in " ".join(said.split())
    said = call("train", *given, "--max-steps", 1, "--loss", "dpo", "--out", "other").err
    assert "--loss dpo learns from 16 pairs." in " ".join(said.split())


def test_the_default_rate_has_the_losss_factor(given, workplace):
    said = " ".join(call("train", *given, "--max-steps", 1, "--loss", "dpo", "--out", "run").err.split())
    assert "x 0.1 for dpo" in said


OWN = """
import torch

def hinge(values, settings):
    return torch.relu(1 - settings.beta * values.signs * values.log_ratios)

def wrong(values, settings):
    return values.logps.sum()

def fails(values, settings):
    raise RuntimeError("no such luck")
"""


def test_a_loss_of_ones_own_trains_is_announced_and_not_run_by_eval(given, workplace, monkeypatch):
    Path("my_losses.py").write_text(OWN)
    words = [*given, "--cache", "cache", "--max-steps", 2, "--out", "run", "--loss", "my_losses:hinge"]
    trained = call("train", *words)
    assert trained.code == 0, trained.err
    assert "Running code of" in trained.err
    assert "my_losses.py" in trained.err
    assert lines_of(Path("run"))[0]["loss"] == pytest.approx(1.0, abs=1e-3)
    found = call("eval", "run", "--cache", "cache", "--samples", 2, "--max-new-tokens", 4)
    assert found.code == 0, found.err
    assert "loss" not in json.loads(Path("run/eval/metrics.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_losses:wrong", "[] losses for four rows"),
        ("my_losses:fails", "no such luck"),
        ("my_losses:nothing", "cannot be imported"),
        ("no_such_module_here:f", "cannot be imported"),
    ],
)
def test_a_loss_of_ones_own_that_is_wrong_stops_before_the_run(name, said, given, workplace):
    Path("my_losses.py").write_text(OWN)
    assert said in one_error(call("train", *given, "--loss", name))
    assert not Path("checkpoint").exists()


def test_without_a_reference(given, workplace):
    trained = call("train", *given, "--cache", "cache", "--max-steps", 2, "--out", "run", "--reference", "none")
    assert trained.code == 0, trained.err
    assert "no reference" in trained.err
    assert json.loads(Path("run/kto_config.json").read_text())["chosen"]["loss"]["beta"] == 1.0
    assert lines_of(Path("run"))[0]["z_ref"] < 0, "log-probs a token"
    assert call("eval", "run", "--cache", "cache", "--samples", 2, "--max-new-tokens", 4).code == 0
    for words in (("--loss", "dpo"), ("--reference-point", "zero")):
        assert "--reference none" in one_error(call("train", *given, "--reference", "none", *words, "--out", "other"))


@pytest.mark.parametrize("adapters", [(), ("--lora-r", 4)], ids=["whole weights", "adapters"])
def test_sft_then_kto(adapters, given, pico_data, workplace):
    """The second run's reference is the first's result: its log-probs are computed anew, and it starts there."""
    shared = ["--cache", "cache", "--max-steps", 2, "--learning-rate", 1e-2, "--batch-size", 8, *adapters]
    assert call("train", *given, *shared, "--loss", "sft", "--out", "sft").code == 0
    chained = call("train", "--data", pico_data, "--model", "sft", *shared, "--out", "kto")
    assert chained.code == 0, chained.err
    assert ", 0 cached" in chained.err, "not the base model's"
    assert lines_of(Path("kto"))[0]["noise_floor"] < 1e-3
    assert call("eval", "kto", "--cache", "cache", "--samples", 2, "--max-new-tokens", 4).code == 0
    again = call("train", *given, *shared, "--loss", "dpo", "--reference", "sft", "--out", "other")
    if not adapters:
        assert again.code == 0, again.err
        assert "kl_at_start" in lines_of(Path("other"))[0]


def test_after_sft_on_the_same_rows_z_ref_may_be_zero(given, pico_data, pico, workplace):
    """Said where the run reads mismatched completions, and was fine-tuned on these rows; no other run."""
    words = "z_ref may be set to 0 (paper v5, section 4.1): --reference-point zero"
    fast = ["--cache", "cache", "--max-steps", 1, "--batch-size", 8]
    for loss in ("sft", "dpo"):
        assert call("train", *given, *fast, "--loss", loss, "--out", loss).code == 0
    other = make_dataset(Path.cwd(), 12, validation=0.2)

    def says(model: object, data: object, *more: object) -> bool:
        done = call("train", "--data", data, "--model", model, *fast, *more, "--dry-run")
        assert done.code == 0, done.err
        return words in " ".join(done.err.split())

    assert says("sft", pico_data)
    assert says("sft", pico_data, "--lora-r", 2)
    for model, data, *more in (
        ("sft", other),
        ("dpo", pico_data),
        (pico, pico_data),
        ("sft", pico_data, "--reference-point", "zero"),
        ("sft", pico_data, "--loss", "dpo"),
    ):
        assert not says(model, data, *more)


@pytest.mark.parametrize(("value", "point"), [("concave", "opposite-class"), ("linear", "zero")])
def test_rows_are_told_by_the_runs_own_value_and_point(value, point, given, workplace):
    """rows.parquet by hand: concave has the gradient share sigmoid(-u), linear none; a desirable row is compared with
    the mean of the undesirable ones, not below 0, and the reverse."""
    import pyarrow.parquet

    words = [*given, "--cache", "cache", "--max-steps", 3, "--learning-rate", 1e-2, "--beta", 0.5, "--out", "run"]
    assert call("train", *words, "--value", value, "--reference-point", point).code == 0
    assert call("eval", "run", "--cache", "cache", "--samples", 2, "--max-new-tokens", 4).code == 0
    rows = pyarrow.parquet.read_table("run/eval/rows.parquet").to_pylist()
    means = {
        label: max(0.0, sum(ratios) / len(ratios))
        for label in (True, False)
        for ratios in [[row["log_ratio"] for row in rows if row["label"] == label]]
    }
    assert point == "zero" or means[True] != means[False]
    for row in rows:
        z = 0.0 if point == "zero" else means[not row["label"]]
        u = 0.5 * (row["log_ratio"] - z) * (1 if row["label"] else -1)
        assert row["right_side"] == (u > 0)
        if value == "concave":
            assert row["gradient_weight"] == pytest.approx(1 / (1 + math.exp(u)), abs=1e-9)
        else:
            assert math.isnan(row["gradient_weight"])
    metrics = json.loads(Path("run/eval/metrics.json").read_text())["metrics"]
    right = sum(row["right_side"] for row in rows) / len(rows)
    assert metrics["accuracy"] == pytest.approx(right)
    assert ("saturated_right" in metrics["by_class"]["desirable"]) == (value == "concave")
