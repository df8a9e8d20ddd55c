"""A reference that moves: which weights a step compares with, resumed and repeated alike."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import one_step
import pytest
import torch
from conftest import call, error_line
from test_invariance import TORCHRUN, launch, naive_logp
from test_losses_invariance import cut_after
from test_resume import TIMINGS

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.curves import comparable
from kto_cli.core.statistics.verdict import run_verdict
from kto_cli.core.weights import Weights
from kto_cli.model.rounded_weights import RoundedWeights, _Part
from kto_cli.training.settings import RunSettings
from kto_cli.training.synced_reference import SyncedReference

ROWS = 6


def settings_of(total: int = 9, **options: Any) -> RunSettings:
    config = TrainConfig(**options)
    return RunSettings(config, Weights(1.0, 1.0, 1.0), 1e-3, total_steps=total, save_every=4, eval_every=4)


def moved(model: Any, step: int) -> None:
    """Another update of the policy."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)


def out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError


SCHEDULES = {
    "a copy": ({"sync_reference_every": 3}, [0, 0, 0, 3, 3, 3, 6, 6]),
    "a mix": ({"sync_reference_every": 3, "sync_mix": 0.6}, [0, 0, 0, 3, 3, 3, 6, 6]),
    "humanline": ({"humanline": True}, [0, 0, 1, 2, 3, 4, 5, 6]),
    "humanline, every third": ({"humanline": True, "sync_reference_every": 3}, [0, 0, 0, 0, 3, 3, 3, 6]),
}
"""Settings, and for each step the one whose policy it compares with."""


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_compares_with_the_right_weights(name, monkeypatch):
    """Log-probs one row at a time, by models kept aside: a copy of the policy behind the step, or a mix of all such."""
    options, expected = SCHEDULES[name]
    loss = LossSettings(0.1, humanline=options.get("humanline", False))
    model, _, engine = one_step.make_engine(60, packed=True, loss=loss)
    settings, rows, stored = settings_of(**options), one_step.some_rows(ROWS), one_step.some_references(ROWS)
    assert [settings.reference_step(done) for done in range(8)] == expected
    assert settings.steps_moved == sum(step > 0 for step in [*expected, settings.reference_step(8)])
    synced, kept, mix = SyncedReference(model, settings), {}, options.get("sync_mix", 1.0)
    before = copy.deepcopy(model)
    for done in range(8):
        if done % settings.config.sync_every == 0 and done:
            naive = copy.deepcopy(model)
            with torch.no_grad():
                for weight, old in zip(naive.parameters(), before.parameters(), strict=True):
                    weight.copy_(mix * weight + (1 - mix) * old)
            kept[done] = before = naive
        if expected[done]:
            with monkeypatch.context() as patched:
                patched.setattr(engine, "batch", out_of_memory)
                with pytest.raises(torch.OutOfMemoryError):
                    synced.of_step(done, rows, stored, engine)
        found, policy = synced.of_step(done, rows, stored, engine), copy.deepcopy(model.state_dict())
        assert found is synced.of_step(done, rows, stored, engine), "as where memory ran out and the step is repeated"
        assert all(torch.equal(value, policy[name]) for name, value in model.state_dict().items())
        if not expected[done]:
            assert found is stored
        else:
            for which, sums in (("own", found.own), ("mismatched", found.mismatched)):
                logps = [naive_logp(kept[expected[done]], getattr(row, which)).detach() for row in rows]
                torch.testing.assert_close(sums, torch.stack(logps), rtol=1e-6, atol=1e-6)
            if loss.humanline:
                torch.testing.assert_close(found.summed_from_tokens().mismatched, found.mismatched)
        moved(model, done)


def test_weights_change_places_bit_for_bit_rounded_or_not(monkeypatch):
    """In pieces smaller than a tensor, tensors of two types, while the policy's products take rounded weights."""
    monkeypatch.setattr("kto_cli.training.synced_reference.SWAPPED_AT_ONCE", 40)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3, dtype=torch.bfloat16))
    rounded = RoundedWeights([_Part(model[0].weight.detach(), 1, 0)])
    with rounded:
        pass  # the lowest two bits of a weight go with the first time
    synced, policy = SyncedReference(model, settings_of(sync_reference_every=2)), copy.deepcopy(model.state_dict())
    synced._copy()
    moved(synced_model := copy.deepcopy(model), 1)
    synced.load(dict(synced_model.named_parameters()))
    with synced._in_place():
        for name, weight in model.named_parameters():
            assert torch.equal(weight, dict(synced_model.named_parameters())[name])
        assert all(torch.equal(value, policy[name]) for name, value in synced.weights.items())
        with rounded:
            assert torch.equal(model[0].weight.bfloat16().float() // 1, model[0].weight // 1)
    assert all(torch.equal(value, policy[name]) for name, value in model.state_dict().items())


WAYS = {
    "a mix": ("--sync-reference-every", 2, "--sync-mix", 0.6),
    "humanline": ("--humanline", "--sync-reference-every", 2),
    "adapters": ("--sync-reference-every", 2, "--lora-r", 2),
    "ppo": ("--loss", "ppo-offline", "--sync-reference-every", 3),
}


def words_of(pico: Path, data: Path, home: Path, *more: object) -> list[object]:
    words = ["train", "--data", data, "--model", pico, "--batch-size", 6, "--save-every", 1, "--eval-every", 2]
    return [*words, "--max-steps", 6, "--cache", home / "cache", "--learning-rate", 1e-3, *more]


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The weights, and every recorded number that no clock measured."""
    (weights,) = folder.glob("*model.safetensors")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return weights.read_bytes(), [{name: line[name] for name in line if name not in TIMINGS} for line in lines]


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if way in ("adapters", "ppo") else ()) for way in WAYS]
)
def test_a_resumed_run_has_the_same_bits(way, pico, pico_data, tmp_path):
    """Stopped behind step 4, before the reference becomes the policy of that step; its weights are in the checkpoint,
    and in no finished model."""
    flags = WAYS[way]
    switches = [flag for flag in flags if flag == "--humanline"]
    words = words_of(pico, pico_data, tmp_path, *[word for word in flags if word not in switches])
    assert call(*words, *switches, "--out", tmp_path / "whole").code == 0
    cut_after(words, tmp_path / "cut", steps=3, **{flag[2:]: True for flag in switches})
    (tmp_path / "cut" / "steps" / "step-000004" / "reference.safetensors").stat()
    assert call("train", "--resume", "--out", tmp_path / "cut").code == 0
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("reference.*"))
    steps = [line["reference_step"] for line in outcome(tmp_path / "cut")[1]]
    assert steps == {"humanline": [0, 0, 0, 2, 2, 4], "ppo": [0, 0, 0, 3, 3, 3]}.get(way, [0, 0, 2, 2, 4, 4])


def test_a_reference_that_never_moves_is_a_run_without(pico, pico_data, tmp_path):
    words = words_of(pico, pico_data, tmp_path)
    assert call(*words, "--out", tmp_path / "plain").code == 0
    ran = call(*words, "--sync-reference-every", 6, "--out", tmp_path / "never")
    assert "The reference stays: it would move every 6 steps" in " ".join(ran.err.split())
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "never")


@pytest.mark.parametrize(
    "flags",
    [("--humanline",), pytest.param(("--loss", "dpo", "--sync-reference-every", 2), marks=pytest.mark.slow)],
)
def test_the_model_given_at_first_scores_no_more_rows_than_compare_with_it(flags, pico, pico_data, tmp_path):
    """Those of two steps, and the validation rows; all others are scored by later references alone."""
    words = words_of(pico, pico_data, tmp_path, *flags, "--max-steps", 4)
    ran = call(*words, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    said = " ".join(ran.err.split())
    ((trained, computed),) = re.findall(
        r"\((\d+) training rows, validation rows and .*?\): (\d+) computed, 0 cached", said
    )
    assert 8 <= int(trained) <= 12
    assert int(computed) <= 2 * (int(trained) + 8), "own and mismatched completions, and those of validation rows"
    dry = json.loads(call(*words, "--out", tmp_path / "dry", "--dry-run", "--json").out)
    assert dry["passes"]["reference_forward_tokens"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--humanline",), ("--loss", "dpo", "--sync-reference-every", 2, "--sync-mix", 0.6)])
def test_two_processes_train_as_one(flags, pico, pico_data, tmp_path):
    words = words_of(pico, pico_data, tmp_path, *flags)
    assert call(*words, "--out", tmp_path / "one").code == 0
    launch(TORCHRUN, "-m", "kto_cli", *words, "--out", tmp_path / "two")
    one, two = (outcome(tmp_path / name)[1] for name in ("one", "two"))
    for line, other in zip(one, two, strict=True):
        for name, value in line.items():
            if isinstance(value, float) and name != "paired_accuracy":  # at first margins are 0 but for rounding
                assert other[name] == pytest.approx(value, abs=2e-4, rel=1e-3), name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sync-reference-every", 1), "all log-ratios would be 0"),
        (("--sync-reference-every", 0), "--sync-reference-every 0"),
        (("--sync-mix", 0.5), "Add --sync-reference-every"),
        (("--sync-reference-every", 9, "--sync-mix", 0), "--sync-mix 0"),
        (("--sync-reference-every", 9, "--sync-mix", 0.5, "--lora-r", 4), "adapters are products of two matrices"),
        (("--humanline-low", -0.5), "Add --humanline"),
        (("--humanline", "--humanline-low", 0.5), "--humanline-low 0.5"),
        (("--humanline", "--humanline-high", 0), "--humanline-high 0"),
        (("--humanline", "--reference", "none"), "--humanline does nothing with --loss kto --reference none"),
        (("--humanline", "--loss", "simpo"), "--humanline does nothing with --loss simpo"),
        (("--humanline", "--loss", "ppo-offline"), "which clips ratios itself"),
        (("--humanline", "--loss", "a:b"), "other numbers than log-ratios"),
        (("--humanline", "--sft-weight", 0.1), "--sft-weight reads log-probs"),
        (("--sync-reference-every", 9, "--loss", "orpo"), "which reads no reference"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(flags, said, workplace):
    assert said in " ".join(error_line(call("train", *flags)).split())


def test_steps_that_compare_with_different_references_make_no_curve():
    """A loss that jumps up with each new reference is no sign of a learning rate too high."""
    lines = [
        {"step": step, "loss": 0.3 + 0.02 * step, "reward_desirable": 0.1, "reward_undesirable": 0.0, "margin": 0.1}
        for step in range(12)
    ]
    assert "The loss rose" in " ".join(run_verdict(None, lines).warnings)
    moving = [line | {"reference_step": 4, "validation": {"auc": 0.5}} for line in lines]
    assert not run_verdict(None, moving).warnings
    assert comparable(moving)[3] == {"step": 3, "validation": {"auc": 0.5}}


def test_a_dry_run_says_what_it_costs(pico, pico_data, workplace):
    words = words_of(pico, pico_data, workplace, "--out", "run", "--dry-run", "--json")
    plain, moving = (json.loads(call(*words, *more).out) for more in ((), ("--sync-reference-every", 2)))
    weights = plain["memory"]["weights"]
    assert moving["memory"]["reference"] == weights
    assert moving["disk"]["checkpoint"] == plain["disk"]["checkpoint"] + weights
    assert plain["passes"]["moved_reference_forward_tokens"] == 0
    tokens = moving["passes"]["moved_reference_forward_tokens"]
    assert 0 < tokens < plain["tokens"]["run"]


def test_the_loss_is_told_with_its_bounds(pico, pico_data, tmp_path):
    words = words_of(pico, pico_data, tmp_path, "--humanline", "--humanline-low", -0.5, "--out", tmp_path / "run")
    assert "humanline -0.5 to 1.5" in " ".join(call(*words).err.split())
    _, lines = outcome(tmp_path / "run")
    assert all(0 <= line["clamp_fraction"] < 1 and line["logp_per_token_desirable"] < 0 for line in lines)
    assert "humanline -0.5 to 1.5" in (tmp_path / "run" / "README.md").read_text()
    evaluated = call("eval", tmp_path / "run", "--cache", tmp_path / "cache", "--samples", 0)
    assert evaluated.code == 0, evaluated.err
