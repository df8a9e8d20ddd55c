"""Steps of pico models on the make-believe device, as one process; prints a JSON object of what each did.

Run as `python tests/support/second_device_steps.py quick` (or `all`) by test_second_device.py.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from one_step import SETTINGS, some_references, some_rows
from pico import build
from second_device import DEVICE, NAME, kernel, recording

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.batches import pack
from kto_cli.core.rows import TokenSequence
from kto_cli.model import varlen_plan
from kto_cli.model.attention import PackedAttention
from kto_cli.model.layers import checkpoint_layers
from kto_cli.model.lora import add_adapters
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.varlen_attention import KERNELS
from kto_cli.model.varlen_kernels import REFERENCE
from kto_cli.training.optimizer import make_optimizer
from kto_cli.training.step import TrainingEngine

COUNTED = REFERENCE._replace(
    name="counted", forward=kernel("attention", REFERENCE.forward), backward=kernel("attention", REFERENCE.backward)
)
"""One operation each way, as flash attention is."""
FAMILIES = ("llama", "qwen3", "mistral", "gemma3", "gemma2")
MODES: dict[str, dict[str, Any]] = {
    "one pass": {},
    "micro-batches": {"budget": 60},
    "padded": {"packed": False},
    "checkpointing": {"checkpointing": True},
    "lora": {"lora": True},
    "bfloat16": {"dtype": torch.bfloat16},
    "all": {"dtype": torch.bfloat16, "budget": 60, "checkpointing": True, "lora": True},
    "bfloat16 weights": {"dtype": torch.bfloat16, "pure": True},
}
STEPS = [(family, mode) for family in FAMILIES for mode in MODES if family in ("llama", "gemma3") or mode == "bfloat16"]
QUICK_STEPS = [("llama", "one pass"), ("llama", "all"), ("llama", "padded"), ("gemma3", "bfloat16")]
WAYS: dict[str, dict[str, Any]] = {
    "one call": {"most": 100},
    "shared spans in place": {"most": 0},
    "walk": {"fast": False},
}
ROWS = 6


class Alone:
    """A launch of one process on a device, as far as an engine asks."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, limit: float) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    @contextlib.contextmanager
    def no_sync(self, _: Any) -> Iterator[None]:
        yield


def make_engine(
    family: str,
    device: torch.device,
    *,
    budget: int = 10_000,
    packed: bool = True,
    checkpointing: bool = False,
    lora: bool = False,
    dtype: torch.dtype = torch.float32,
    pure: bool = False,
) -> TrainingEngine:
    model = build(family)
    if pure:
        model = model.bfloat16()
    if lora:
        add_adapters(model, TrainConfig(lora_r=2), base="pico")
    scorer = CompletionScorer(model, dtype).to(device)
    model.tie_weights()  # CUDA keeps what is tied; here each name gets a tensor of its own
    if packed:
        rows = [row.own for row in some_rows(6)]
        checked = scorer.trust_or_fall_back([*rows, TokenSequence(rows[0].prompt, (7, 8, 9))])
        assert scorer.packs, checked.unpacked
    if checkpointing:
        checkpoint_layers(scorer)
    optimizer = make_optimizer("adamw", scorer.parameters(), learning_rate=1e-3, device=device)
    return TrainingEngine(Alone(device), scorer, optimizer, token_budget=budget, max_grad_norm=1.0)


def step(engine: TrainingEngine) -> dict[str, Any]:
    """A first step's numbers and a second one's record; the first makes optimizer states and plans."""
    rows, references = some_rows(ROWS), some_references(ROWS)
    references = references._replace(own=references.own.float().double())
    output = engine.step(rows, references, SETTINGS, learning_rate=1e-3)
    with recording() as record:
        engine.step(rows, references, SETTINGS, learning_rate=1e-3)
    return {
        "log_ratios": output.log_ratios.tolist(),
        "mismatched": output.mismatched_log_ratios.tolist(),
        "norm": output.gradient_norm,
        "waits": record.waits,
        "transfers": record.transfers,
        "ways": dict(engine.scorer.packing.ways) if engine.packs else {},
    }


def reference_pass(engine: TrainingEngine) -> dict[str, Any]:
    """Log-probs of rows as for the reference and validation, in as many micro-batches as the budget asks for."""
    sequences = [row.own for row in some_rows(ROWS)]
    with recording() as record:
        logps = engine.log_probs(sequences)
    return {"log_ratios": logps.tolist(), "waits": record.waits, "transfers": record.transfers}


def conversations(rows: int) -> list[TokenSequence]:
    """Two rows a prompt, below a common system prompt, with ragged lengths."""
    draw = random.Random(0)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 131) for _ in range(draw.randint(low, high)))

    system, found = tokens(10, 10), []
    for _ in range(rows // 2):
        prompt = system + tokens(3, 9)
        found += [TokenSequence(prompt, tokens(3, 12)) for _ in range(2)]
    return found


def operations(family: str, rows: int, *, fast: bool = True, most: float = 4) -> dict[str, float]:
    """Operations that one more layer costs, forward and backward, in bfloat16 autocast."""
    varlen_plan.MOST_COPIES, counts = most, []
    for layers in (2, 4):  # whole periods of gemma3's layers
        kinds = {"layer_types": ["sliding_attention", "full_attention"] * (layers // 2)} if family == "gemma3" else {}
        scorer = CompletionScorer(build(family, num_hidden_layers=layers, **kinds), torch.bfloat16).to(DEVICE)
        scorer.packing = PackedAttention(scorer.model)
        scorer.packing.fast = fast
        batch = pack(conversations(rows))[0].to(DEVICE)
        with torch.no_grad():
            scorer(*batch)  # tries the kernels, learns the plans
        with recording() as forward:
            logps = scorer(*batch)
        with recording() as backward:
            logps.sum().backward()
        counts.append((forward.operations.total(), backward.operations.total()))
    forward_more, backward_more = ((more - few) / 2 for few, more in zip(*counts, strict=True))
    return {"forward": forward_more, "backward": backward_more}


def main(everything: bool) -> None:
    found: dict[str, Any] = {"steps": {}, "passes": {}, "operations": {}}
    with recording():
        KERNELS[NAME] = lambda query: COUNTED
        for family, mode in STEPS if everything else QUICK_STEPS:
            ours, on_cpu = (step(make_engine(family, where, **MODES[mode])) for where in (DEVICE, torch.device("cpu")))
            found["steps"][f"{family}, {mode}"] = {**ours, "cpu": on_cpu}
        for budget in (10_000, 60):
            engine, on_cpu = (make_engine("llama", where, budget=budget) for where in (DEVICE, torch.device("cpu")))
            found["passes"][budget] = {**reference_pass(engine), "cpu": reference_pass(on_cpu)}
        for family in ("llama", "gemma3") if everything else ("llama",):
            for way in WAYS if everything else ("one call",):
                counts = [operations(family, rows, **WAYS[way]) for rows in (6, 14)]
                found["operations"][f"{family}, {way}"] = counts
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1] == "all")
