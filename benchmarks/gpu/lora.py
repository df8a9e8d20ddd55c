"""8B with adapters: frozen weights in bfloat16, and in float32 as `--dtype bfloat16` loads them."""

from __future__ import annotations

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import TINY, Way, accelerator, llama, rows_of
from benchmarks.gpu.speed import timed
from benchmarks.gpu.timing import device, free_memory
from kto_cli.common.train_config import TrainConfig
from kto_cli.model import base_weights
from kto_cli.model.logprobs.micro_batch_size import default_token_budget
from kto_cli.model.lora import add_adapters
from kto_cli.model.precision import PRECISIONS

COUNT, STEPS = (8, 1) if TINY else (32, 3)
"""Rows of a step, and steps that are timed."""


def run() -> None:
    """As `kto train --lora-r 16` on bfloat16 weights, and with --dtype bfloat16-pure."""
    accelerator()
    for name, held, budget in (
        ("bfloat16 weights, micro-batches of 4,096", torch.bfloat16, 4096),
        ("bfloat16 weights, the default micro-batches", torch.bfloat16, None),
        ("linear layers held in bfloat16, the default micro-batches", torch.float32, None),
    ):
        with check(f"8B LoRA: {name}") as found:
            batches = [rows_of(COUNT, 300 + number) for number in range(STEPS + 1)]
            model = llama("8B", held)
            precision = PRECISIONS["bfloat16-pure" if held == torch.bfloat16 else "bfloat16"]
            budget = budget or default_token_budget(model, TrainConfig(lora_r=16), precision, device())
            adapted = add_adapters(model, TrainConfig(lora_r=16), base="8B")
            if held == torch.float32:
                found["narrowed_GB"] = round(base_weights.narrow_base(adapted, torch.bfloat16, exactly=False) / 1e9, 1)
            free_memory()
            found["budget"] = budget
            timed(model, Way(budget=budget), batches, found)
            del model, adapted
        free_memory()
