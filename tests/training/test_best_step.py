"""--keep-best: the model of the step with the lowest validation loss, kept, resumed, and said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from conftest import call
from test_run_dir import flip_a_byte, train_until_killed_in

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.comparison import loss_difference
from kto_cli.core.statistics.scores import Scores
from kto_cli.data.dataset import Row
from kto_cli.data.dataset_writer import write_data_dir

STEPS = 7
SETTINGS = ("--batch-size", 8, "--max-steps", STEPS, "--epochs", 10, "--learning-rate", "3e-3", "--warmup", 0)
SETTINGS += ("--schedule", "constant", "--eval-every", 1, "--save-every", 3, "--no-curves")


def rows_of(start: int, count: int, *, swapped: bool) -> list[Row]:
    """Kind and rude answers, their labels the other way round if `swapped`."""
    texts = ("Gladly, keep it dry and warm.", "Go away with it, please!")
    return [
        Row(
            f"{n}-{k}",
            f"p{n}",
            None,
            "made",
            f"made:{n}",
            f"How do I clean thing {n}?",
            f"{text} {n}",
            (k == 0) != swapped,
        )
        for n in range(start, start + count)
        for k, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Validation rows say the reverse of the training rows: what is learned makes their loss higher."""
    folder = tmp_path_factory.mktemp("reversed") / "set"
    rows = rows_of(0, 8, swapped=False), rows_of(100, 12, swapped=True)
    write_data_dir(folder, *rows, [], {}, overwrite=False)
    return folder


@pytest.fixture(scope="module")
def words(data, pico, tmp_path_factory) -> tuple:
    home = tmp_path_factory.mktemp("cache")
    return ("--data", data, "--model", pico, "--cache", home, *SETTINGS)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def losses(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["validation"]["loss"] for line in lines}


@pytest.fixture(scope="module")
def kept(words, tmp_path_factory) -> tuple[Path, dict]:
    """A run whose best step is not the last, and its result."""
    out = tmp_path_factory.mktemp("kept") / "run"
    ran = call("train", *words, "--out", out, "--json")
    assert ran.code == 0, ran.err
    return out, json.loads(ran.out)


def test_the_finished_model_is_that_of_the_best_step(kept, words, tmp_path):
    """The learning rate is constant: a run of so many steps ends with the same weights."""
    run, result = kept
    found = losses(run)
    best = min(found, key=lambda step: found[step])
    assert best < STEPS
    assert (result["steps"], result["kept_step"]) == (STEPS, best)
    shorter = [best if word == STEPS else word for word in words]
    assert call("train", *shorter, "--out", tmp_path / "short").code == 0
    assert sha(run / "model.safetensors") == sha(tmp_path / "short/model.safetensors")
    stored = json.loads((run / "kto_config.json").read_text())["finished"]
    assert (stored["step"], stored["overfit"]["loss"]) == (best, found[best])
    assert (stored["verdict"], stored["sentence"]) == (result["verdict"], result["sentence"])
    assert not (run / "best").exists()


def test_it_is_said_by_train_and_eval_and_on_the_card(kept):
    run, result = kept
    said = f"overfit after step {result['kept_step']} of {STEPS}: the validation loss rose from"
    assert said in result["sentence"]
    assert f"| model of step | {result['kept_step']}," in (run / "README.md").read_text()
    ran = call("eval", run, "--samples", 0, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["verdict"], found["sentence"]) == (result["verdict"], result["sentence"])
    assert said in (run / "eval/report.html").read_text()


def test_no_keep_best_keeps_the_last(words, kept, tmp_path):
    ran = call("train", *words, "--no-keep-best", "--out", tmp_path / "last", "--json")
    assert json.loads(ran.out)["kept_step"] == STEPS
    assert sha(tmp_path / "last/model.safetensors") != sha(kept[0] / "model.safetensors")
    assert losses(tmp_path / "last") == losses(kept[0])


@pytest.mark.parametrize("step", [2, 6])
def test_a_killed_run_ends_with_the_same_bits(words, kept, workplace, step):
    """Before its first checkpoint and after it; the best step is found again although it is before the checkpoint."""
    train_until_killed_in(step, *words, "--out", "run")
    assert len(list(Path("run/best").iterdir())) == 1
    assert call("train", *words, "--out", "run", "--resume").code == 0
    assert sha(Path("run/model.safetensors")) == sha(kept[0] / "model.safetensors")
    stored = [json.loads((folder / "kto_config.json").read_text())["finished"] for folder in (Path("run"), kept[0])]
    assert stored[0]["overfit"] == stored[1]["overfit"]


def test_a_damaged_best_step_is_said_and_the_last_one_kept(words, workplace):
    train_until_killed_in(6, *words, "--out", "run")
    (folder,) = Path("run/best").iterdir()
    flip_a_byte(folder / "model.safetensors")
    ran = call("train", *words, "--out", "run", "--resume")
    assert ran.code == 0
    assert "The best step so far is not known any more" in " ".join(ran.err.split())


def test_of_adapters_only_they_are_kept(words, workplace):
    lora = (*words, "--lora-r", 2)
    train_until_killed_in(4, *lora, "--out", "run")
    (folder,) = Path("run/best").iterdir()
    assert (folder / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()
    assert not (folder / "optimizer.safetensors").exists()
    assert call("train", *lora, "--out", "run", "--resume").code == 0
    assert call("train", *lora, "--out", "unbroken").code == 0
    assert sha(Path("run/adapter_model.safetensors")) == sha(Path("unbroken/adapter_model.safetensors"))


def test_a_last_step_as_good_within_noise_is_kept(pico, data, workplace):
    """Hardly any learning rate: the losses differ, but by nothing."""
    words = ("--data", data, "--model", pico, *SETTINGS, "--learning-rate", "1e-7")
    ran = call("train", *words, "--out", "run")
    assert ran.code == 0
    assert json.loads(Path("run/kto_config.json").read_text())["finished"]["step"] == STEPS


def test_the_difference_of_losses_is_paired():
    """Of scores that all lie a nat higher for undesirable rows the loss is surely higher; of equal ones it is not."""
    import torch

    torch.manual_seed(0)
    ratios = torch.randn(60)
    desirable = torch.arange(60) % 2 == 0
    names, pairs = [str(row) for row in range(60)], [None] * 60
    first = Scores(ratios, torch.zeros(60), desirable, torch.full((60,), 9), names, pairs)
    worse = first._replace(log_ratios=ratios + torch.where(desirable, -0.1, 0.1))
    settings = LossSettings(beta=0.1, lambda_d=1.0, lambda_u=1.0)
    low, high = loss_difference(first, worse, settings)
    assert 0 < low <= high < 0.01
    assert loss_difference(first, first, settings) == [0.0, 0.0]
