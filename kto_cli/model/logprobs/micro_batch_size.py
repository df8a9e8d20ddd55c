"""Tokens that go through a model at once, chosen from the model's and the machine's size alone."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from kto_cli.common.model_config import ModelConfig
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.memory_need import SMALLEST, fitting_tokens
from kto_cli.model.model_sizes import MemoryOptions, ModelSizes
from kto_cli.model.precision import Precision

MOST_ON_CPU = 8192
"""Tokens that are chosen unasked at most on a CPU."""
HIDDEN_KEPT, INNER_KEPT = 16, 5
"""Numbers a layer keeps of a token for its backward pass, in its hidden and inner widths: 75 KB measured for widths of
768 and 2,048, where these make 90."""


def default_token_budget(
    model: Any, config: ModelConfig, precision: Precision, device: torch.device, *, cards: int = 1
) -> int:
    """Tokens of a micro-batch with which a step is predicted to fit a GPU (memory_need.py); on a CPU see below.

    A function of model, settings and machine alone, not of what happens to be free: a resumed run finds the same.

    Args:
        model: as loaded, before it gets adapters.
        cards: over which weights and optimizer state are sharded.
    """
    if device.type != "cuda":
        return cpu_token_budget(model.config)
    targets = config.lora_targets if isinstance(config, TrainConfig) and config.lora_r else None
    sizes, options = ModelSizes.of(model, targets), MemoryOptions.of(config, precision, cards=cards)
    return fitting_tokens(sizes, options, torch.cuda.get_device_properties(device).total_memory) or SMALLEST


def cpu_token_budget(config: Any) -> int:
    """Tokens whose activations, in float32, are estimated to take no more than an eighth of a machine's memory.

    A machine has no part of its memory for itself, so nothing else is subtracted; and micro-batches decide the last
    bits of a run, so the estimate stays as it is.

    Args:
        config: the model's, for its sizes.
    """
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None) or 4 * text.hidden_size
    a_token = 4 * text.num_hidden_layers * (HIDDEN_KEPT * text.hidden_size + INNER_KEPT * inner)
    room = psutil.virtual_memory().total / 8
    tokens = MOST_ON_CPU
    while tokens > SMALLEST and tokens * a_token > room:
        tokens //= 2
    return tokens
