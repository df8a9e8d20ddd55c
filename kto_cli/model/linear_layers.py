"""The linear layers of a model: what adapters go onto, whatever adapters are there already."""

from __future__ import annotations

from typing import Any

from torch import nn

from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import ALL_LINEAR
from kto_cli.model.text_part import text_part


def layers_to_adapt(model: Any, targets: str) -> list[str]:
    """Names of the linear layers to adapt, without the output head.

    Args:
        targets: `all-linear`, or last parts of layer names, separated by commas.

    Raises:
        BadInput: the model has no layer of that name; the message lists those it has.
    """
    known = {name.rpartition(".")[2] for name in linear_layers(model)}
    if not known:
        raise BadInput("This model has no linear layer to adapt.", "Train it without --lora-r.")
    if targets == ALL_LINEAR:
        return sorted(known)
    wanted = {name.strip() for name in targets.split(",")} - {""}
    unknown = sorted(wanted - known)
    if unknown or not wanted:
        raise BadInput(
            f"--lora-targets {targets}: this model has no linear layer named {', '.join(unknown) or 'nothing'} "
            "(embeddings and the output head are not adapted).",
            f"It has: {', '.join(sorted(known))}.",
        )
    return sorted(wanted)


def linear_layers(model: Any) -> dict[str, Any]:
    """Linear layers of the model's text part by full name, without the output head.

    Layers inside a state-space mixer are excluded: the mixer reads their weights directly and would bypass adapters.
    Routers of experts too: Jamba's is a linear layer in some versions of transformers only, and adapters must fit all.
    """
    from transformers.pytorch_utils import Conv1D

    head, text = model.get_output_embeddings(), f"{text_part(model)}."
    modules = dict(model.named_modules())
    mixers = tuple(f"{name}." for name, module in modules.items() if "MambaMixer" in type(module).__name__)
    adapted = tuple(f"{name}." for name, module in modules.items() if _is_adapted_layer(module))
    plain = {
        name: module.get_base_layer() if hasattr(module, "base_layer") else module
        for name, module in modules.items()
        if not name.startswith((*mixers, *adapted))
    }
    return {
        name: module
        for name, module in plain.items()
        if isinstance(module, (nn.Linear, Conv1D))
        and modules[name] is not head
        and not name.endswith(".router")
        and (text == "." or name.startswith(text))
    }


def _is_adapted_layer(module: Any) -> bool:
    """Whether peft put the module in the place of one of the model's, which is inside it."""
    return hasattr(module, "base_layer") or hasattr(module, "original_module")
