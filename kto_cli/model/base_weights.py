"""Weights below adapters: held in the dtype they are multiplied in, and merged with the adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kto_cli.model.linear_layers import linear_layers


def narrow_base(model: Any, dtype: torch.dtype, *, exactly: bool) -> int:
    """Holds the frozen weights of linear layers in the dtype that products are computed in; in place.

    Autocast would round them for each product: the products are the same numbers, and the second copy goes. Norms,
    embeddings and a head tied to them stay as they are. Adapters come first, because peft gives new ones the dtype of
    the layers below.

    Args:
        exactly: leave weights that would lose bits (of a float32 checkpoint), because merging or DoRA reads them.

    Returns:
        Bytes that this saves.
    """
    base = model.get_base_model()
    head, embeddings = base.get_output_embeddings(), base.get_input_embeddings()
    layers = linear_layers(base).values()
    weights = [each for layer in layers for each in layer.parameters(recurse=False) if not each.requires_grad]
    if isinstance(head, nn.Linear) and head.weight is not embeddings.weight:
        weights.append(head.weight)  # its bias is added in float32
    before = sum(weight.nbytes for weight in weights)
    for weight in weights:
        if weight.dtype == torch.float32:  # 4-bit weights are bytes
            weight.data = _narrowed(weight.data, dtype) if exactly else weight.data.to(dtype)
    return before - sum(weight.nbytes for weight in weights)


def _narrowed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in a dtype that holds it exactly; else as it is."""
    narrow = weight.to(dtype)
    return narrow if torch.equal(narrow.to(weight.dtype), weight) else weight


def merged(model: Any, round_weight: Callable[[str, Tensor], None]) -> Any:
    """Merges the adapters into the base model's weights, in place; returns a plain transformers model.

    A layer at a time in float32, so that a narrow base is not widened as a whole.

    Args:
        round_weight: rounds a merged weight, by its name in the plain model, to what will be written of it; in place.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.get_base_model().named_modules()):
        if isinstance(module, BaseTunerLayer):
            weight: Any = module.get_base_layer().weight
            held = weight.dtype
            weight.data = weight.data.to(torch.promote_types(held, torch.float32))
            module.merge()
            round_weight(f"{name}.weight", weight.data)
            weight.data = _narrowed(weight.data, held)
    return model.unload()
