"""`kto train --dry-run`: what it says is what then happens, and what would stop a run is said before it starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import one_step
import pytest
import torch

from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import readable
from kto_cli.core.loss_kinds import LOSSES, LossSettings
from kto_cli.core.plan import plan_epoch
from kto_cli.core.weights import Weights
from kto_cli.training.dry_run import estimate
from kto_cli.training.dry_run.probe import SavedForBackward, bytes_of
from kto_cli.training.planned import repeated_batches
from kto_cli.training.settings import RunSettings

SHORT = ("--batch-size", 6, "--save-every", 2, "--learning-rate", 1e-3)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("more", [(), ("--epochs", 2, "--max-steps", 9)], ids=["one epoch", "a part of the second"])
def test_what_is_said_is_what_happens(kto, workplace, given, more):
    """32 rows in batches of 6: 6 steps an epoch. Steps and tokens to the number, disk within 10 %, time within 2x."""
    cache = ("--cache", workplace / "cache")
    said = kto("train", *given, *SHORT, *more, *cache, "--dry-run", "--json").json
    assert files_in(workplace) & {"checkpoint"} == set(), "nothing is written to --out"
    probed = size_of(workplace / "cache/reference")
    assert said["problems"] == []
    ran = kto("train", *given, *SHORT, *more, *cache, "--json")
    lines = [json.loads(line) for line in (workplace / "checkpoint/metrics.jsonl").read_text().splitlines()]
    assert said["steps"] == ran.json["steps"] == (9 if more else 6)
    assert said["tokens"]["run"] == lines[-1]["tokens"]
    assert said["rows"]["desirable"] + said["rows"]["undesirable"] == 32
    assert said["disk"]["out_at_end"] == pytest.approx(size_of(workplace / "checkpoint"), rel=0.1)
    step = workplace / "checkpoint/steps/step-000002" if not more else workplace / "checkpoint/steps/step-000008"
    assert said["disk"]["checkpoint"] == pytest.approx(size_of(step), rel=0.1)
    assert probed + said["disk"]["reference_cache"] >= size_of(workplace / "cache/reference")
    assert said["noise_floor"] < 1e-3


@pytest.mark.parametrize("loss", ["kto", "ppo-offline"])
def test_the_reference_cache_is_foreseen(kto, workplace, given, pico_data, loss):
    """The first dry run leaves the values of the probed rows; the second foretells the rest, all but a frame or two."""
    words = ("train", *given, *SHORT, "--loss", loss, "--cache", "cache", "--dry-run", "--json")
    kto(*words)
    before = size_of(workplace / "cache/reference")
    said = kto(*words).json
    assert kto("precompute", *given, "--loss", loss, "--cache", "cache").code == 0
    written = size_of(workplace / "cache/reference") - before
    assert said["disk"]["reference_cache"] == pytest.approx(written, rel=0.1)


@pytest.mark.parametrize(("loss", "again"), [("dpo", False), ("ppo-offline", True), ("bco", True)])
def test_a_loss_that_reads_no_mismatched_completions_is_not_charged_for_them(kto, workplace, given, loss, again):
    """Where the rows make several micro-batches, some losses need a pass over the rows themselves."""
    words = ("train", *given, "--loss", loss, "--batch-size", 8, "--max-steps", 4, "--micro-batch-tokens", 60)
    said = kto(*words, "--dry-run", "--json").json
    own = said["passes"]["forward_backward_tokens"]
    quick = kto(*words[:-2], "--micro-batch-tokens", 5000, "--dry-run", "--json").json
    assert (said["passes"]["forward_tokens"] - quick["passes"]["forward_tokens"] > own / 2) == again
    assert kto(*words).code == 0
    lines = (workplace / "checkpoint/metrics.jsonl").read_text().splitlines()
    assert said["tokens"]["run"] == json.loads(lines[-1])["tokens"]


def test_time_is_foreseen_within_a_factor_of_two(kto, workplace, given):
    """The sum of what the steps took; the rest of a run this short is loading and saving. The busiest of three tries
    may lie: the machine is shared."""
    words = ("train", *given, "--epochs", 4, "--batch-size", 8)
    assert kto("precompute", *given).code == 0
    ratios = []
    for attempt in range(3):
        said = kto(*words, "--dry-run", "--json").json
        assert kto(*words, "--out", f"run{attempt}").code == 0
        lines = (workplace / f"run{attempt}/metrics.jsonl").read_text().splitlines()
        share = said["tokens"]["run"] + said["passes"]["forward_backward_tokens"] * 2
        steps_alone = said["seconds"] * share / (share + validation_tokens(said))
        ratios.append(steps_alone / sum(json.loads(line)["seconds"] for line in lines))
    assert 0.5 < sorted(ratios)[1] < 2


def validation_tokens(said: dict[str, Any]) -> int:
    """What is forward only, less the mismatched pairs."""
    return said["passes"]["forward_tokens"] - (said["tokens"]["run"] - said["passes"]["forward_backward_tokens"])


def test_the_run_is_the_same_after_a_dry_run(kto, workplace, given):
    assert kto("train", *given, *SHORT, "--out", "plain", "--cache", "one").code == 0
    assert kto("train", *given, *SHORT, "--dry-run", "--cache", "two").code == 0
    assert kto("train", *given, *SHORT, "--out", "after", "--cache", "two").code == 0
    first, second = ((workplace / name / "model.safetensors") for name in ("plain", "after"))
    assert {path.name for path in (workplace / "plain").iterdir()} == {
        path.name for path in (workplace / "after").iterdir()
    }
    from safetensors.torch import load_file

    weights, others = load_file(first), load_file(second)
    # A cached value may come from a micro-batch of other rows: equal to rounding, not to the bit.
    assert all(torch.allclose(value, others[name], atol=1e-5) for name, value in weights.items())


# --- what would stop it -----------------------------------------------------------------------


def test_everything_that_would_stop_it_is_said_at_once(kto, workplace, given, monkeypatch):
    from kto_cli.training.dry_run import probe
    from kto_cli.workflows import dry_run

    monkeypatch.setattr(dry_run, "free_disk", lambda path: 1000)
    monkeypatch.setattr(probe, "free_memory", lambda device: 1000)
    (workplace / "checkpoint").mkdir()
    (workplace / "checkpoint/thesis.tex").write_text("x")
    ran = kto("train", *given, "--dry-run", "--json")
    assert ran.code == 1
    problems = json.loads(ran.out)["problems"]
    assert [part in "; ".join(problems) for part in ("not empty", "memory", "--out", "are free")] == [True] * 4
    assert all(problem in " ".join(ran.err.split()) for problem in problems)
    assert files_in(workplace / "checkpoint") == {"thesis.tex"}


def test_a_reference_that_gives_nan(kto, workplace, pico, pico_data):
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(pico, workplace / "broken"))
    weights = load_file(broken / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    ran = kto("train", "--data", pico_data, "--model", broken, "--dry-run")
    assert ran.code == 1
    assert "not a finite number" in " ".join(ran.err.split())


def test_out_of_memory_in_the_longest_batch(kto, workplace, given, monkeypatch):
    from kto_cli.training.step import TrainingEngine

    def no_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TrainingEngine, "step", no_memory)
    ran = kto("train", *given, "--dry-run")
    assert ran.code == 1
    assert "--micro-batch-tokens" in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max-length", 9999), "more than the 256 tokens"),
        (("--max-length", 8), "None of the 32 rows fits"),
        (("--resume",), "Remove --resume"),
        (("--data", "nowhere"), "not a folder"),
    ],
)
def test_what_train_refuses_is_refused(kto, workplace, given, words, says):
    ran = kto("train", *given, "--dry-run", *words)
    assert ran.code == (2 if words == ("--resume",) else 1)
    assert says in " ".join(ran.err.split())
    assert ran.err.count("error:") == 1


# --- the estimates ----------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [60, 10_000])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("loss", ["bco", "apo-zero-unpaired"])
def test_a_pass_over_the_rows_before_the_gradient_is_counted(loss, packed, budget, monkeypatch):
    """Of bco, whose reference point is the mean over the step; not where the step is one packed micro-batch."""
    settings = LossSettings(0.1, loss=loss, value=LOSSES[loss].value, point=LOSSES[loss].point)
    rows = one_step.paired_rows(12)
    _, _, engine = one_step.make_engine(budget, packed=packed, loss=settings)
    passes, as_ever = [], engine.log_probs
    monkeypatch.setattr(engine, "log_probs", lambda own, **how: passes.append(len(own)) or as_ever(own, **how))
    engine.step(rows, one_step.some_references(12), settings, learning_rate=0.0)
    own = [row.own for row in rows]
    first, before = estimate.step_tokens(own, [], token_budget=budget, packed=packed, own_first=loss == "bco")
    assert before == (first if passes else 0)
    assert bool(passes) == (loss == "bco" and (not packed or first > budget))


def test_planned_batches_take_each_row_as_often_as_the_run_does():
    """5 rows in batches of 2 are 3 steps an epoch: 7 steps are two epochs and one batch of the third."""
    labels = [True, False, True, False, True]

    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.labels)

    config = TrainConfig(batch_size=2, seed=0, group_prompts=False)
    settings = RunSettings(config, Weights(1.0, 1.0, 1.0), 1e-3, total_steps=7, save_every=1, eval_every=1)
    planned = list(repeated_batches(Rows(labels=numpy.array(labels)), settings))
    assert [times for times, _ in planned] == [2, 2, 2, 1]
    assert sorted(row for times, batch in planned[:3] for row in batch) == [0, 1, 2, 3, 4]
    assert planned[3][1] == plan_epoch(labels, batch_size=2, seed=0, epoch=2)[0]


def test_disk_need():
    """11 steps, saved after 3, 6 and 9 (not after the last): of 3 checkpoints 2 stay, 3 lie there for a moment."""
    sizes = {"weights": 100, "finished": 50, "optimizer": 200, "tokenizer": 7, "reference": 5, "keep_best": False}
    need = estimate.disk_need(**sizes, total_steps=11, save_every=3, kept=2)
    assert (need.checkpoint, need.checkpoints, need.checkpoints_kept) == (307, 921, 614)
    assert need.out == 921 + 57 + 11 * estimate.METRICS_BYTES
    assert estimate.disk_need(**sizes, total_steps=3, save_every=3, kept=2).checkpoints == 0
    best = estimate.disk_need(**sizes | {"keep_best": True}, total_steps=11, save_every=3, kept=2)
    assert (best.best, best.out - need.out) == (107, 2 * 107 - 57)
    assert best.out_at_end == need.out_at_end


def test_time_is_cost_over_speed():
    """3 * 100 + 50 forward tokens in steps, 20 + 30 besides, at 10 tokens a second."""
    work = estimate.TokenWork(own=100, mismatched=50, reference=20, validation=30)
    assert estimate.eta_seconds(work, probed_cost=35, probed_seconds=3.5) == pytest.approx(40)


def test_readable():
    assert [readable(size) for size in (5, 12_345, 1.5e9, 2e15)] == [
        "5 bytes",
        "12.3 kB",
        "1.5 GB",
        "2e+03 TB",
    ]


def test_saved_for_backward_counts_each_micro_batch_anew():
    """x * x keeps x (400 bytes, computed, so no leaf); exp keeps its result. The larger of two micro-batches counts."""
    weight = torch.ones(100, requires_grad=True)
    counter = SavedForBackward([weight])
    with counter:
        for scale in (1, 2):
            inner = weight * 1.0
            for _ in range(scale):
                inner = inner.exp()
            inner.sum().backward()
    assert counter.most == 2 * 400
    assert torch.allclose(
        weight.grad, torch.tensor(1.0).exp() + torch.tensor(1.0).exp().exp() * torch.tensor(1.0).exp()
    )


def test_frozen_weights_do_not_count():
    """A frozen weight is kept for the gradient of its input, and is there anyway; before, it counted below adapters."""
    frozen, learning = torch.ones(30, 20), torch.ones(20, 20, requires_grad=True)
    counter = SavedForBackward([frozen, learning])
    with counter:
        ((learning * 1.0) @ frozen.T).exp().sum().backward()
    assert counter.most == 4 * 20 * 30, "what exp gave"


def test_shared_memory_counts_once():
    values = torch.zeros(10)
    assert bytes_of([values, values[2:5], torch.zeros(3)]) == 52


def test_cached_counts_of_the_timed_steps_are_named_as_theirs(kto, workplace, given):
    """A second dry run finds the values of the steps that the first one timed, and says so of no other rows."""
    words = ("train", *given, *SHORT, "--cache", "cache", "--dry-run")
    assert kto(*words).code == 0
    ran = kto(*words)
    assert "Reference log-probs (of the few steps timed now): 0 computed" in ran.err
    assert "not yet in the cache" in ran.out
    assert kto("precompute", *given, "--cache", "cache").code == 0
    assert kto(*words, "--json").json["passes"]["reference_forward_tokens"] == 0
