"""DESIGN invariant 1: a step depends on its effective batch alone, not on how memory or processes cut it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import one_step
import pytest
import torch
from conftest import REPOSITORY, call
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.losses import kto_loss
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.core.statistics.metrics import step_metrics
from kto_cli.model.logprobs.reference import ReferenceLogps

ROWS = 32


def naive_logp(model: torch.nn.Module, sequence: TokenSequence) -> torch.Tensor:
    """One sequence, no padding, softmax over everything."""
    ids = torch.tensor([sequence.prompt + sequence.completion])
    logps = model(input_ids=ids).logits[0].log_softmax(-1)
    first = len(sequence.prompt)
    return sum(logps[first + place - 1, token] for place, token in enumerate(sequence.completion))  # type: ignore[return-value]


@functools.cache
def naive(*, tied: bool = False, lora: bool = False, seed: int | None = None) -> dict[str, torch.Tensor]:
    """The step as the paper writes it: one row at a time, Eq. 7 over the whole batch, one AdamW update."""
    model = one_step.pico_model(tied=tied)
    if lora:
        one_step.with_adapters(model)
    rows, references = one_step.rows_of(ROWS, seed), one_step.some_references(ROWS)
    with torch.no_grad():
        mismatched = torch.stack([naive_logp(model, row.mismatched) for row in rows])
    policy = torch.stack([naive_logp(model, row.own) for row in rows])
    labels = torch.tensor([row.label for row in rows])
    chosen = {name: getattr(one_step.SETTINGS, name) for name in ("beta", "lambda_d", "lambda_u")}
    loss, point, _ = kto_loss(policy, references.own, labels, mismatched, references.mismatched, **chosen)
    learning = one_step.learning(model)
    optimizer = torch.optim.AdamW(learning.values(), lr=one_step.LEARNING_RATE, weight_decay=0.0)
    loss.backward()
    gradients = {f"gradient.{name}": value.grad.clone() for name, value in learning.items()}
    optimizer.step()
    assert seed is not None or point.value > 0, "a z_ref of 0 would hide a wrong one"
    return {
        **gradients,
        **{f"weight.{name}": value.detach() for name, value in learning.items()},
        "loss": loss.detach(),
        "z_ref": point.value,
    }


def agree(result: dict[str, torch.Tensor], naive: dict[str, torch.Tensor], labels: list[bool]) -> None:
    """Loss, z_ref, every gradient and every weight after the step, in float64."""
    labelled, prompts = torch.tensor(labels), list(range(len(labels)))
    found = step_metrics(result["log_ratios"], result["mismatched"], labelled, one_step.SETTINGS, prompts)
    assert found["loss"] == pytest.approx(naive["loss"].item(), rel=1e-12)
    assert found["z_ref"] == pytest.approx(naive["z_ref"].item(), rel=1e-12)
    for name, value in naive.items():
        if "." in name:
            # AdamW's first update divides the gradient by its own size: what is 0 but for rounding stays within 1e-8.
            torch.testing.assert_close(
                result[name], value, rtol=1e-9, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}"
            )


BUDGETS = pytest.mark.parametrize("budget", [1, 96, 10_000], ids=["one row", "a few rows", "all rows"])
"""Tokens of a micro-batch. With all rows in a packed one, the mismatched pairs continue the gradient pass's prompts."""
SWITCHES = ("", "packed", "checkpointing", "lora", "packed checkpointing", "packed checkpointing lora")
WAYS = pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: switches or "padded")


@BUDGETS
@WAYS
def test_micro_batches_change_nothing(switches, budget):
    """Micro-batches of 1, about 3 and all 32 rows, padded or packed with shared prompts, activations kept or computed
    again, all weights or adapters: the naive step's loss, z_ref, gradients and weights."""
    rows = one_step.some_rows(ROWS)
    on = dict.fromkeys(switches.split(), True)
    result = one_step.take_step(rows, one_step.some_references(ROWS), token_budget=budget, **on)
    agree(result, naive(lora="lora" in on), [row.label for row in rows])


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    switches=st.sampled_from(("", "checkpointing", "lora", "checkpointing lora")),
    budget=st.sampled_from((1, 40, 120, 10_000)),
)
@pytest.mark.slow
def test_trees_change_nothing(seed, switches, budget):
    """Prompts that continue one another up to five deep, packed with every prefix once: the naive step."""
    rows = one_step.tree_rows(ROWS, seed)
    on = dict.fromkeys(switches.split(), True)
    references = one_step.some_references(ROWS)
    result = one_step.take_step(rows, references, token_budget=budget, packed=True, **on)
    agree(result, naive(lora="lora" in on, seed=seed), [row.label for row in rows])


def test_row_order_changes_nothing():
    """The rows of an effective batch in another order: same step."""
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3)).tolist()
    rows, references = one_step.some_rows(ROWS), one_step.some_references(ROWS)
    shuffled: list[EncodedRow] = [rows[place] for place in order]
    result = one_step.take_step(
        shuffled, ReferenceLogps(references.own[order], references.mismatched[order]), token_budget=200, packed=True
    )
    agree(result, naive(), [row.label for row in shuffled])


def test_an_infinite_pair_updates_nothing():
    """A mismatched log-ratio of -inf vanishes in z_ref's clamp, and the loss stays finite; the weights must too."""
    rows, references = one_step.some_rows(ROWS), one_step.some_references(ROWS)
    references.mismatched[3] = float("inf")
    model, _, engine = one_step.make_engine(200)
    engine.step(rows, references, one_step.SETTINGS, learning_rate=one_step.LEARNING_RATE)
    for (name, value), before in zip(model.named_parameters(), one_step.pico_model().parameters(), strict=True):
        assert torch.equal(value, before), name


def launch(launcher: str, *words: object, **environment: str) -> str:
    """A launch of two processes on the CPU; what it said."""
    environment |= {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *launcher.split(), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


TORCHRUN = "torch.distributed.run --nproc_per_node 2 --master_port 29611"
ACCELERATE = "accelerate.commands.launch --num_processes 2 --main_process_port 29612"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "seed"), [*(pytest.param(budget, None, marks=pytest.mark.long) for budget in (1, 96)), (96, 5)]
)
def test_two_processes_change_nothing(tmp_path, budget, seed):
    """Two processes, in float64: both end with the naive step's weights, and know the same loss and z_ref; also where
    prompts continue one another (with a seed)."""
    words = (budget, ROWS, *([] if seed is None else [seed]))
    launch(TORCHRUN, REPOSITORY / "tests" / "support" / "one_step.py", tmp_path / "step", *words)
    for rank in range(2):
        results = torch.load(f"{tmp_path / 'step'}.{rank}")
        for name, case in one_step.CASES.items():
            if "max_grad_norm" not in case:
                expected = naive(tied="tied" in case, lora="lora" in case, seed=seed)
                agree(results[name], expected, [row.label for row in one_step.rows_of(ROWS, seed)])


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_like_one(pico, pico_data, tmp_path):
    """The command itself, float32, in steps of one row: one process has none, and the other no row of one class.
    Neither hangs, and losses, z_ref and weights are those of one process."""
    from safetensors.torch import load_file

    words = ["train", "--data", pico_data, "--model", pico, "--batch-size", 1, "--learning-rate", 1e-3]
    words += ["--max-steps", 4, "--cache", tmp_path / "cache", "--schedule", "constant"]
    call(*words, "--out", tmp_path / "one")
    said = launch(ACCELERATE, "-m", "kto_cli", *words, "--out", tmp_path / "two", "--micro-batch-tokens", 200)
    assert "starting the 2 asked for" in said
    assert json.loads((tmp_path / "two" / "kto_config.json").read_text())["chosen"]["processes"] == 2
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [line["rows"] for line in one] == [1, 2, 3, 4]
    for name in ("loss", "z_ref", "z_ref_pairs", "reward_desirable", "reward_undesirable", "gradient_norm", "tokens"):
        for first, second in zip(one, two, strict=True):
            # None: the reward of a class that the step has no row of
            assert (first[name] is None) == (second[name] is None), name
            assert second[name] is None or second[name] == pytest.approx(first[name], rel=1e-4, abs=1e-6), name
    weights, others = (
        load_file(tmp_path / "one" / "model.safetensors"),
        load_file(tmp_path / "two" / "model.safetensors"),
    )
    for name, value in weights.items():
        assert (value - others[name]).abs().max() < 1e-5, name
