"""Out of memory by a stub: the step is done again in smaller micro-batches and gives the same numbers. Peaks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, call
from one_step import LEARNING_RATE, SETTINGS, make_engine, some_references, some_rows

from kto_cli.common.errors import OutOfMemory
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.logprobs.micro_batch_size import cpu_token_budget, default_token_budget
from kto_cli.model.memory_need import SMALLEST
from kto_cli.model.precision import PRECISIONS
from kto_cli.training.memory import find_token_budget, step_within_memory
from kto_cli.training.optimizer import make_optimizer, state_bytes

ROWS = 12
LONGEST = 32


def small_memory(engine: Any, most: int) -> None:
    """Makes the scorer fail above `most` tokens."""
    forward = engine.scorer.forward

    def failing(input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if input_ids.numel() > most:
            raise torch.OutOfMemoryError("stub")
        return forward(input_ids, *rest)

    engine.scorer.forward = failing


def step(engine: Any, said: list[str], relieve: Callable[[], bool] = lambda: False) -> Any:
    """One step, recovering."""
    references, rows = some_references(ROWS), some_rows(ROWS)
    return step_within_memory(
        engine,
        lambda: engine.step(rows, references, SETTINGS, learning_rate=LEARNING_RATE),
        longest=LONGEST,
        say=said.append,
        relieve=relieve,
    )


def test_step_is_done_again_with_half_the_tokens():
    """Room for 70 tokens and a budget of 256: halved twice, said twice; weights as with room enough, to 1e-12."""
    model, _, engine = make_engine(256)
    expected = step(engine, [])
    small, _, engine = make_engine(256)
    small_memory(engine, 70)
    said: list[str] = []
    output = step(engine, said)
    assert engine.token_budget == 64
    assert [text.split(":")[0] for text in said] == [
        f"Out of memory with micro-batches of {n} tokens" for n in (256, 128)
    ]
    torch.testing.assert_close(output.log_ratios, expected.log_ratios, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(small.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_row_too_long_for_memory_ends_with_advice():
    _, _, engine = make_engine(64)
    small_memory(engine, 4)
    with pytest.raises(OutOfMemory, match=r"longest row: 32.*--micro-batch-tokens"):
        step(engine, [])


def test_nothing_is_done_twice_once_the_update_began():
    """Memory that runs out inside the optimizer is not a reason to do the step again."""
    _, optimizer, engine = make_engine(256)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("stub")

    optimizer.register_step_post_hook(fail)
    said: list[str] = []
    with pytest.raises(OutOfMemory):
        step(engine, said)
    assert not said


@pytest.mark.parametrize(
    ("fits", "fastest", "found"),
    [(10**9, 4 * SMALLEST, 4 * SMALLEST), (2 * SMALLEST, 10**9, 2 * SMALLEST), (0, 10**9, SMALLEST // 2)],
    ids=["no more speed", "no more memory", "no memory at all"],
)
def test_search_ends_where_speed_or_memory_does(fits: int, fastest: int, found: int):
    """A device whose speed grows with the tokens up to `fastest` and that holds `fits` of them."""

    def seconds(tokens: int) -> float:
        if tokens > fits:
            raise torch.OutOfMemoryError("stub")
        return max(tokens, fastest) / fastest if tokens > fastest else 1.0

    assert find_token_budget(seconds, 64 * SMALLEST) == found


def test_checkpointing_is_the_last_resort_and_said():
    """Not even a row fits: checkpointing is asked for once, at the smallest micro-batches; when that frees memory the
    step is done with the same budget, when not it is the end."""
    model, _, engine = make_engine(LONGEST)
    expected = step(engine, [])
    relieved, _, engine = make_engine(LONGEST)
    forward = engine.scorer.forward
    small_memory(engine, 0)

    def relieve() -> bool:
        engine.scorer.forward = forward
        return True

    said: list[str] = []
    output = step(engine, said, relieve)
    assert said == [
        f"Out of memory with micro-batches of {LONGEST} tokens: repeating the step with gradient checkpointing, from "
        "now on."
    ]
    assert engine.token_budget == LONGEST
    torch.testing.assert_close(output.log_ratios, expected.log_ratios, rtol=0, atol=0)
    for ours, theirs in zip(relieved.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    small_memory(engine, 0)
    answers = iter([True, False])
    with pytest.raises(OutOfMemory):
        step(engine, [], lambda: next(answers))


# --- what is chosen unasked ---------------------------------------------------------------------


def config(layers: int, hidden: int, inner: int) -> Any:
    """A Llama's sizes."""
    from transformers import LlamaConfig

    return LlamaConfig(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=inner, num_attention_heads=1)


def test_default_micro_batch_by_model_and_memory(monkeypatch):
    """24 GiB: 3 for activations. 4 layers of 768 and 2,048 keep 4 * 4 * (16 * 768 + 5 * 2048) = 360 KB a token: 8,192
    tokens. A 1B Llama keeps 16 * 4 * (16 * 2048 + 5 * 8192) = 4.7 MB: 682, so the least, 1,024. Between them 2,048."""
    from types import SimpleNamespace

    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=24 << 30))
    assert cpu_token_budget(config(4, 768, 2048)) == 8192
    assert cpu_token_budget(config(16, 2048, 8192)) == 1024
    assert cpu_token_budget(config(12, 1024, 2816)) == 2048


@pytest.mark.parametrize(
    ("settings", "cards", "tokens"),
    [
        ({}, 1, 1024),
        ({}, 8, 4096),
        ({"gradient_checkpointing": "on"}, 8, 16384),
        ({"lora_r": 16}, 1, 4096),
        ({"lora_r": 16, "lora_targets": "q_proj,v_proj"}, 1, 8192),
        ({"lora_r": 16, "gradient_checkpointing": "on"}, 1, 16384),
        (None, 1, 16384),
    ],
    ids=str,
)
def test_default_micro_batch_on_a_gpu(monkeypatch, settings: dict[str, Any] | None, cards: int, tokens: int):
    """An 8B model on 80 GB: what learns, what is sharded and what is computed again decides; it was 1,024 for each."""
    from types import SimpleNamespace

    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=32, hidden_size=4096, intermediate_size=14336, **sizes))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))
    given = ModelConfig() if settings is None else TrainConfig(**settings)
    found = default_token_budget(model, given, PRECISIONS["bfloat16"], torch.device("cuda"), cards=cards)
    assert found == tokens


# --- the search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "adamw-8bit", "rmsprop"])
def test_state_of_the_optimizer_is_that_of_what_is_trained(name: str):
    """Two adapters of 4096 x 4 = 16,384 numbers and a norm of 100 that learn, over a frozen weight: 8 bytes each, or
    two bytes and two float32 scales for each 256, small tensors as ever; 4 bytes of RMSprop. In 8 bits measured by
    bitsandbytes itself."""
    frozen = torch.zeros(4096, 4096, device="meta")
    learning = [torch.zeros(4096, 4), torch.zeros(4, 4096), torch.zeros(100)]
    for each in learning:
        each.requires_grad_()
    numbers = 2 * 16384 + 100
    expected = {"adamw": 8 * numbers, "adamw-8bit": 2 * 32768 + 8 * 32768 // 256 + 800, "rmsprop": 4 * numbers}[name]
    assert state_bytes(name, [frozen, *learning]) == expected
    if "8bit" in name:
        pytest.importorskip("bitsandbytes")
    optimizer = make_optimizer(name, learning, learning_rate=1e-3, device=torch.device("cpu"))
    for each in learning:
        each.grad = torch.ones_like(each)
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    maps = 2 * 256 * 4 * 2 if "8bit" in name else 0  # tables of bitsandbytes' code, the same for all tensors
    assert sum(value.nbytes for value in tensors) == pytest.approx(expected + maps, abs=64)


def test_split_adamw_has_as_many_bytes():
    learning = torch.zeros(1000, dtype=torch.bfloat16, requires_grad=True)
    optimizer = make_optimizer("adamw", [learning], learning_rate=1e-3, device=torch.device("cpu"))
    learning.grad = torch.ones_like(learning)
    optimizer.step()
    found = sum(value.nbytes for value in optimizer.state[learning].values())
    assert found == state_bytes("adamw", [learning]) + 4, "and a counter"


def test_the_search_is_of_the_model_as_it_is_trained(workplace, given, monkeypatch):
    """Adapters are on, layers are checkpointed, and nothing else learns; before, it was the base model, and an 8B
    model's 96 GB of state left room for no more than 512 tokens."""
    seen: dict[str, Any] = {}

    def choose(scorer: Any, rows: Any, accelerator: Any, optimizer: str) -> int:
        seen["learning"] = {name for name, each in scorer.named_parameters() if each.requires_grad}
        seen["forward"] = scorer.model.model.layers[0].forward.__qualname__
        return 700

    monkeypatch.setattr("kto_cli.training.setup.choose_token_budget", choose)
    words = ("--lora-r", 4, "--gradient-checkpointing", "on", "--max-steps", 1)
    ran = call("train", *given, "--micro-batch-tokens", "auto", *words)
    assert ran.code == 0, ran.err
    assert seen["learning"]
    assert all("lora_" in name for name in seen["learning"])
    assert "checkpoint_layers" in seen["forward"]
    assert "Micro-batches of 700 tokens" in ran.err


@pytest.mark.slow
def test_memory_of_training_is_flat_in_the_number_of_rows(tmp_path: Path, pico: Path):
    """Peak memory of `kto train`, tokens and reference log-probs stored: 31,000 more rows cost less than 30 MiB, of
    which a full micro-batch of validation rows takes the most."""
    script = REPOSITORY / "tests" / "support" / "train_peak.py"
    peaks = []
    for count in (1_000, 32_000):
        words = [sys.executable, script, str(count), str(tmp_path / f"set{count}"), str(pico)]
        for _ in ("written", "trained"):
            ran = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(int(ran.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 30 << 20
