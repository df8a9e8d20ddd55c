"""Every loss on the built-in sample, as typed; and every flag with every loss: taken, or refused in one line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from conftest import call, error_line

from kto_cli.common.errors import BadFlag
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LOSSES
from kto_cli.training.loss_flags import loss_kind

FLAGS = {
    "beta": ("beta", 0.2),
    "lambda_d": ("lambda_d", 1.1),
    "lambda_u": ("lambda_u", 1.1),
    "value": ("value", "concave"),
    "reference_point": ("point", "zero"),
    "label_smoothing": ("label_smoothing", 0.1),
    "ipo_tau": ("ipo_tau", 0.2),
    "slic_delta": ("slic_delta", 2.0),
    "slic_lambda": ("slic_lambda", 0.2),
    "simpo_gamma": ("simpo_gamma", 0.5),
    "orpo_lambda": ("orpo_lambda", 0.2),
    "ppo_gamma": ("ppo_gamma", 0.9),
    "ppo_lambda": ("ppo_lambda", 0.9),
    "ppo_clip": ("ppo_clip", 2.0),
    "ppo_critic": ("ppo_critic", 0.1),
    "ppo_penalty": ("ppo_penalty", 0.2),
    "control_good": ("control_good", "Good:"),
    "control_bad": ("control_bad", "Bad:"),
    "reference": ("reference", "none"),
}
"""Setting -> its name in a loss's settings, and a value."""


def test_no_setting_of_a_loss_is_left_out_here():
    assert {name for name, _ in FLAGS.values()} == {name for kind in LOSSES.values() for name in kind.settings}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_flag_is_taken_or_refused_in_one_line(loss, workplace):
    """The line names the flag and the loss, and nothing is loaded before it is said: there is no data here."""
    for setting, (name, value) in FLAGS.items():
        flag = "--" + setting.replace("_", "-")
        if name in LOSSES[loss].settings:
            loss_kind(TrainConfig(loss=loss, **{setting: value}))
            continue
        with pytest.raises(BadFlag):
            loss_kind(TrainConfig(loss=loss, **{setting: value}))
        refused = call("train", "--loss", loss, flag, value)
        assert refused.code == 2
        line = error_line(refused)
        assert flag in line
        assert f"--loss {loss}" in line
        assert refused.err.count("\n") == 1


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """The built-in rows and a cache that all losses share."""
    folder = tmp_path_factory.mktemp("sample")
    assert call("binarize", "hh-rlhf", "--out", folder / "data").code == 0
    return folder


IN_CI = ("nca", "ppo-offline")
"""A loss of pairs and one of tokens; the other twelve before a release."""


@pytest.mark.parametrize(
    "loss", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long) for name in LOSSES]
)
def test_every_loss_on_the_built_in_sample_in_under_a_minute(loss, sample, workplace):
    """A whole epoch and its evaluation with the built-in model: seconds of this process, whatever else runs here."""
    began = time.process_time()
    words = ["--data", sample / "data", "--loss", loss, "--cache", sample / "cache", "--out", "run"]
    trained = call("train", *words)
    assert trained.code == 0, trained.err
    evaluated = call("eval", "run", "--cache", sample / "cache", "--samples", 8)
    assert evaluated.code == 0, evaluated.err
    assert time.process_time() - began < 60
    metrics = json.loads(Path("run/eval/metrics.json").read_text())["metrics"]
    assert metrics["not_finite"] == 0
    assert metrics["auc"] > 0.3
    assert ("loss" in metrics) == (not LOSSES[loss].per_token), "of single tokens none is kept of validation rows"
    assert loss in json.loads(Path("run/eval/metrics.json").read_text())["loss"]


def test_on_one_class_sft_works_and_kto_says_what_to_do(pico, workplace):
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}.", "label": True} for n in range(12)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert call("binarize", "rows.jsonl", "--out", "data", "--for", "sft").code == 0
    words = ["train", "--data", "data", "--model", pico, "--cache", "cache"]
    for loss, kind in LOSSES.items():
        ran = call(*words, "--loss", loss, "--out", loss, "--max-steps", 1)
        if kind.classes == "desirable":
            assert ran.code == 0, ran.err
            continue
        line = " ".join(error_line(ran).split())
        assert "--loss sft" in line or (kind.unit == "pair" and f"--loss {loss} needs pairs" in line)
