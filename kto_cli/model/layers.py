"""Decoder layers compiled, or with gradient checkpointing (activations recomputed instead of stored)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kto_cli.common.errors import BadModel
from kto_cli.model.scorer import CompletionScorer


def compile_layers(scorer: CompletionScorer) -> int:
    """Compiles every decoder layer for any number of tokens; call it before `checkpoint_layers`.

    Attention in one call a layer (on GPUs) is compiled with them; segment by segment it is not, because segments differ
    from batch to batch.

    Returns:
        The number of layers.

    Raises:
        BadModel: the model's layers are not known.
    """
    layers = _layers(scorer, "--compile")
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    return len(layers)


def checkpoint_layers(scorer: CompletionScorer) -> int:
    """Turns on gradient checkpointing in every decoder layer; results do not change.

    The model's own switch works only in training mode, with dropout.

    Returns:
        The number of layers.

    Raises:
        BadModel: the model's layers are not known.
    """
    from torch.utils.checkpoint import checkpoint

    contexts: dict[str, Any] = {"context_fn": scorer.packing.recompute_contexts} if scorer.packing else {}

    def checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **contexts, **kwargs)

        return run

    layers = _layers(scorer, "--gradient-checkpointing on")
    for layer in layers:
        layer.forward = checkpointed(layer.forward)
    return len(layers)


def _layers(scorer: CompletionScorer, flag: str) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in scorer.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise BadModel("This model's layers are not transformers decoder layers.", f"Leave out {flag}.")
    return layers
