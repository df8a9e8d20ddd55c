"""How a model's decoder layers run: compiled, or computing their activations a second time instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kto_cli.common.errors import BadModel
from kto_cli.model.scorer import CompletionScorer


def compile_layers(scorer: CompletionScorer) -> int:
    """Hands every decoder layer to torch.compile, for any number of tokens; comes before `checkpoint_layers`.

    Attention stays outside: it walks over segments, which differ from batch to batch.

    Returns:
        How many layers.

    Raises:
        BadModel: the model's layers are not known.
    """
    layers = _layers(scorer, "--compile")
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    return len(layers)


def checkpoint_layers(scorer: CompletionScorer) -> int:
    """Switches it on for every decoder layer of the scorer's model; results do not change.

    Done here rather than by the model, whose own switch works only in training mode, with dropout.

    Returns:
        How many layers.

    Raises:
        BadModel: the model's layers are not known.
    """
    from torch.utils.checkpoint import checkpoint

    contexts: dict[str, Any] = {"context_fn": scorer.packing.recompute_contexts} if scorer.packing else {}

    def forgetting(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **contexts, **kwargs)

        return run

    layers = _layers(scorer, "--gradient-checkpointing on")
    for layer in layers:
        layer.forward = forgetting(layer.forward)
    return len(layers)


def _layers(scorer: CompletionScorer, flag: str) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in scorer.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise BadModel("This model's layers are not built in transformers' way.", f"Leave out {flag}.")
    return layers
