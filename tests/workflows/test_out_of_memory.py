"""Memory that runs out, by a stub, in each pass of each command: smaller micro-batches and the same numbers, or one
line; a resumed run goes on with what it came down to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Command, error_line
from test_end_to_end import sha
from test_run_dir import train_until_killed_in

from kto_cli.model.scorer import CompletionScorer
from kto_cli.training.step import TrainingEngine

SHORT = ("--batch-size", 8, "--learning-rate", 1e-3, "--save-every", 1, "--micro-batch-tokens", 512, "--epochs", 2)
SMALL = 100
"""Tokens that fit; the longest row has about 40, the rows of a step about 180."""

Shrink = Callable[..., pytest.MonkeyPatch]


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Shrink:
    """Makes passes with (or without) gradient fail above so many tokens; the start-up check reads at most SMALL."""

    def apply(most: int, *, gradient: bool) -> pytest.MonkeyPatch:
        forward = CompletionScorer.forward

        def failing(self, input_ids, *rest, **others):
            if input_ids.numel() > most and torch.is_grad_enabled() == gradient:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, input_ids, *rest, **others)

        monkeypatch.setattr(CompletionScorer, "forward", failing)
        return monkeypatch

    return apply


def words_of(text: str) -> str:
    return " ".join(text.split())


def test_the_reference_pass_goes_on_in_halves(kto: Command, workplace: Path, given, shrink: Shrink):
    """Each value that was stored stays; all of them are those of a machine with memory, to rounding."""
    words = ("train", *given, *SHORT, "--max-steps", 1)
    whole = kto(*words, "--out", "whole", "--cache", "whole-cache")
    shrink(SMALL, gradient=False)
    ran = kto("precompute", *given, "--micro-batch-tokens", 512, "--cache", "cache")
    assert ran.code == 0, ran.err
    said = words_of(ran.err)
    assert "Out of memory with micro-batches of 512 tokens: repeating the reference pass with 256." in said
    assert "repeating the reference pass with 64." in said
    trained = kto(*words, "--out", "small", "--cache", "cache", "--micro-batch-tokens", 64)
    assert trained.code == whole.code == 0
    first, second = (
        json.loads((workplace / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("whole", "small")
    )
    assert second["noise_floor"] < 1e-3
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-6)


def test_validation_and_eval_go_on_in_halves(kto: Command, workplace: Path, given, shrink: Shrink):
    words = ("train", *given, *SHORT, "--max-steps", 1, "--eval-every", 1, "--cache", "cache")
    whole = kto(*words, "--out", "whole", "--json").json
    seen = kto("eval", "whole", "--micro-batch-tokens", 512, "--cache", "cache", "--samples", 0, "--json").json
    shrink(SMALL, gradient=False)
    ran = kto(*words, "--out", "small", "--json")
    assert "repeating the validation with 128." in words_of(ran.err)
    assert ran.json["validation"]["loss"] == pytest.approx(whole["validation"]["loss"], abs=1e-6)
    ran = kto("eval", "whole", "--micro-batch-tokens", 512, "--cache", "cache", "--samples", 0, "--json")
    assert "repeating the validation with 256." in words_of(ran.err)
    assert ran.json["loss"] == pytest.approx(seen["loss"], abs=1e-6)


@pytest.mark.parametrize("words", [("precompute",), ("train",), ("train", "--dry-run")], ids=" ".join)
def test_not_even_a_row_fits_is_one_line(kto: Command, workplace: Path, given, shrink: Shrink, words):
    """In the start-up check too, which computes a few rows."""
    shrink(4, gradient=False)
    assert "emory" in error_line(kto(*words[:1], *given, *words[1:]))


def test_a_row_too_long_for_the_reference_pass_is_one_line(kto: Command, workplace: Path, given, monkeypatch):
    """The start-up check fits; 40 tokens do, the longest row does not."""
    from kto_cli.model.logprobs.forward import DistributedScorer

    def no_memory(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(DistributedScorer, "batch", no_memory)
    line = error_line(kto("precompute", *given))
    assert "Out of memory in the reference pass, with micro-batches of" in line
    assert "--max-length" in line


def test_a_resumed_run_has_the_bits_of_the_unbroken_one(kto: Command, workplace: Path, given, shrink: Shrink):
    """Both came down to 128 tokens in their first step. The run is resumed on a machine with memory: without what the
    checkpoint remembers it would take 512 tokens and round otherwise."""
    assert kto("precompute", *given, "--cache", "cache").code == 0
    words = (*given, *SHORT, "--cache", "cache")
    patch = shrink(SMALL, gradient=True)
    unbroken = kto("train", *words, "--out", "unbroken")
    assert "repeating the step with 128." in words_of(unbroken.err)
    train_until_killed_in(6, *words, "--out", "killed")
    state = json.loads((workplace / "killed/steps/step-000003/state.json").read_text())
    assert (state["micro_batch_tokens"], state["checkpointing"]) == (128, False)
    patch.undo()
    patch.chdir(workplace)
    ran = kto("train", *words, "--out", "killed", "--resume")
    assert ran.code == 0, ran.err
    assert sha(workplace / "killed/model.safetensors") == sha(workplace / "unbroken/model.safetensors")
    assert "--micro-batch-tokens 128, as since the run was short of memory" in words_of(ran.err)


def test_tokens_given_now_count(kto: Command, workplace: Path, given, shrink: Shrink):
    """A run that came down to 128 tokens goes on with the 400 asked for on another machine."""
    words = (*given, *SHORT, "--cache", "cache")
    patch = shrink(SMALL, gradient=True)
    train_until_killed_in(6, *words, "--out", "killed")
    patch.undo()
    patch.chdir(workplace)
    ran = kto("train", *words, "--out", "killed", "--resume", "--micro-batch-tokens", 400)
    assert ran.code == 0, ran.err
    assert "as since the run" not in ran.err


def test_checkpointing_that_was_turned_on_is_remembered(kto: Command, workplace: Path, given, monkeypatch):
    """A step's first pass with gradient fails once, with micro-batches of one row: checkpointing comes on, and stays on
    when the run is resumed."""
    from kto_cli.training import loop

    words = (*given, *SHORT, "--cache", "cache", "--micro-batch-tokens", 16)
    forward, step, steps, calls = CompletionScorer.forward, TrainingEngine.step, [], []

    def counted(self, *args, **others):
        steps.append(1)
        return step(self, *args, **others)

    def failing_once(self, *args, **others):
        if torch.is_grad_enabled() and steps and not calls:
            calls.append(1)
            raise torch.OutOfMemoryError("stub")
        return forward(self, *args, **others)

    with monkeypatch.context() as patch:
        patch.setattr(CompletionScorer, "forward", failing_once)
        patch.setattr(TrainingEngine, "step", counted)
        train_until_killed_in(4, *words, "--out", "killed")
    turned_on = []
    plain = loop.checkpoint_layers
    monkeypatch.setattr(loop, "checkpoint_layers", lambda scorer: turned_on.append(plain(scorer)))
    ran = kto("train", *words, "--out", "killed", "--resume")
    assert "Gradient checkpointing, as since the run was short of memory" in words_of(ran.err)
    assert turned_on == [1]
