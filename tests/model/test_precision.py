"""bfloat16 weights and the other choices of precision and memory, end to end on a pico model."""

from __future__ import annotations

import json

import pytest
from conftest import call, spawn
from test_resume import kill_when, outcome

SHORT = ("--max-steps", 3, "--batch-size", 8, "--learning-rate", 1e-3, "--save-every", 1)


@pytest.mark.parametrize("optimizer", ["bfloat16-pure", "adamw-8bit"])
@pytest.mark.slow
def test_killed_and_resumed_is_the_same_run(given, workplace, optimizer):
    """The lower halves of the weights, or moments in 8 bits, come back from a checkpoint bit for bit."""
    flags = ("--dtype", "bfloat16-pure") if optimizer == "bfloat16-pure" else ("--optimizer", optimizer)
    if optimizer != "bfloat16-pure":
        pytest.importorskip("bitsandbytes")
    words = ["train", *given, *flags, "--cache", "cache", "--batch-size", 4, "--max-steps", 12, "--epochs", 2]
    words += ["--learning-rate", 1e-4, "--save-every", 1]
    assert call(*words, "--out", "unbroken").code == 0
    assert kill_when(spawn(*words, "--out", "killed"), lambda: (workplace / "killed" / "metrics.jsonl").exists())
    assert call(*words, "--out", "killed", "--resume").code == 0
    assert outcome(workplace / "killed") == outcome(workplace / "unbroken")


def test_bfloat16_weights_have_a_reference_of_their_own(given, workplace):
    """Their log-probs are other numbers than those of bfloat16 over float32 weights: nothing is taken from that
    cache; the saved model is bfloat16, and eval reads it as the run did, so that nothing is computed again."""
    first = call("precompute", *given, "--cache", "cache", "--dtype", "bfloat16", "--json").json
    pure = call("precompute", *given, "--cache", "cache", "--dtype", "bfloat16-pure", "--json").json
    assert pure["computed"] == first["computed"] == pure["sequences"]
    assert call("train", *given, "--cache", "cache", "--dtype", "bfloat16-pure", *SHORT).code == 0
    lines = [json.loads(line) for line in (workplace / "checkpoint" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["noise_floor"] < 0.5
    assert json.loads((workplace / "checkpoint" / "config.json").read_text())["dtype"] == "bfloat16"
    stored = json.loads((workplace / "checkpoint" / "kto_config.json").read_text())
    assert stored["chosen"]["dtype"] == "bfloat16-pure"
    seen = call("eval", "checkpoint", *given[:2], "--cache", "cache", "--samples", 0, "--json")
    assert seen.code == 0, seen.err


def test_number_of_tokens_is_found_and_kept(given, workplace, monkeypatch):
    """`auto` is tried once; kto_config.json holds what was found, and the run says it."""
    monkeypatch.setattr("kto_cli.training.memory.find_token_budget", lambda seconds, largest: 700)
    ran = call("train", *given, "--cache", "cache", "--micro-batch-tokens", "auto", *SHORT)
    assert ran.code == 0, ran.err
    assert "Micro-batches of 700 tokens" in ran.err
    stored = json.loads((workplace / "checkpoint" / "kto_config.json").read_text())
    assert stored["chosen"]["micro_batch_tokens"] == 700
