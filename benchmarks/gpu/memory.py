"""Micro-batch sizes, and steps that run out of memory: done again, with the same numbers, leaving nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import Way, llama, make_engine, rows_of, step
from benchmarks.gpu.timing import device, free_memory
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.layers import checkpoint_layers
from kto_cli.model.logprobs.micro_batch_size import default_token_budget
from kto_cli.model.precision import PRECISIONS
from kto_cli.training.memory import step_within_memory

BUDGET = 16384


def run() -> None:
    """All of them; without a GPU the sizes alone."""
    default_sizes()
    if device().type != "cuda":
        return
    rows = rows_of(32, 2, prompt=200, completion=150)
    made = make_engine(llama("mid"), Way(budget=BUDGET), rows)
    longest = max(row.own.length for row in rows)
    free = step(made.engine, rows)
    free_memory()
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step(made.engine, rows)
    peak = torch.cuda.max_memory_allocated()

    def with_share(share: float, relieve: Callable[[], bool]) -> tuple[Any, list[str]]:
        """A step that is given a share of what it takes, and what was said."""
        said: list[str] = []
        free_memory()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((base + share * (peak - base)) / total)
        try:
            output = step_within_memory(
                made.engine, lambda: step(made.engine, rows), longest=longest, say=said.append, relieve=relieve
            )
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return output, said

    with check("out of memory: smaller micro-batches") as found:
        output, said = with_share(0.45, lambda: False)
        free_memory()
        found |= {
            "said": said,
            "budget": made.engine.token_budget,
            "base_MB": base >> 20,
            "peak_MB": peak >> 20,
            "left_behind_MB": (torch.cuda.memory_allocated() - base) >> 20,
            "norm_relative": abs(output.gradient_norm / free.gradient_norm - 1),
            "log_ratio_difference": (output.log_ratios - free.log_ratios).abs().max().item(),
        }
        found["ok"] = bool(said) and found["left_behind_MB"] < 64 and found["norm_relative"] < 0.02
    with check("out of memory: gradient checkpointing in the end") as found:
        switched: list[int] = []
        made.engine.token_budget = BUDGET

        def relieve() -> bool:
            if switched:
                return False
            switched.append(checkpoint_layers(made.scorer))
            return True

        # Beside gradients and bfloat16 copies of the weights, less than the smallest micro-batch takes.
        weights = sum(each.numel() for each in made.scorer.parameters())
        output, said = with_share(0.12 + 6 * weights / (peak - base), relieve)
        found |= {"said": said, "budget": made.engine.token_budget, "checkpointed": bool(switched)}
        found["norm_relative"] = abs(output.gradient_norm / free.gradient_norm - 1)
        found["ok"] = found["norm_relative"] < 0.02


def default_sizes() -> None:
    """Tokens of a micro-batch that are chosen unasked, for all weights and for adapters."""
    with check("default tokens of a micro-batch") as found:
        for name in ("1B", "8B"):
            model = llama(name, where="meta")
            for way, config in (("", TrainConfig()), (" LoRA", TrainConfig(lora_r=16))):
                found[name + way] = default_token_budget(model, config, PRECISIONS["bfloat16"], device())
