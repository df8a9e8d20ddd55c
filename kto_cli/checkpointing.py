"""Gradient checkpointing: a layer forgets its activations and computes them again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kto_cli.errors import BadModel
from kto_cli.scoring import CompletionScorer


def checkpoint_layers(scorer: CompletionScorer) -> int:
    """Switches it on for every decoder layer of the scorer's model; results do not change.

    Done here rather than by the model, whose own switch works only in training mode, with dropout.

    Returns:
        How many layers.

    Raises:
        BadModel: the model has no layers that transformers could checkpoint.
    """
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    contexts: dict[str, Any] = {"context_fn": scorer.packing.recompute_contexts} if scorer.packing else {}

    def forgetting(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **contexts, **kwargs)

        return run

    layers = [module for module in scorer.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise BadModel("This model's layers cannot be checkpointed.", "Use --gradient-checkpointing off.")
    for layer in layers:
        layer.forward = forgetting(layer.forward)
    return len(layers)
