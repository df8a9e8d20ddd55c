"""The text part of a model that also reads images or sounds: the only one that text feedback trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_part(model: Any) -> str:
    """Name of the module that reads the text in a model of several modalities; empty for a model of text alone."""
    if model.config.get_text_config() is model.config:
        return ""
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if module is decoder), "")


def freeze_other_parts(model: Any) -> int:
    """Keeps all but the text part and the output head as they are; returns how many parameters that are."""
    text = text_part(model)
    if not text:
        return 0
    learn = {id(parameter) for parameter in model.get_submodule(text).parameters()}
    head = model.get_output_embeddings()
    learn |= {id(parameter) for parameter in head.parameters()} if head is not None else set()
    others = [parameter for parameter in model.parameters() if id(parameter) not in learn]
    for parameter in others:
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in others)


def left_out(model: Any, architectures: Sequence[str]) -> str:
    """What a checkpoint of these `architectures` held besides the model that was loaded from it, in a sentence; empty
    where it held nothing else. Of some image-text checkpoints transformers loads the text model alone."""
    loaded = type(model).__name__
    whole = [name for name in architectures if name.endswith("ForConditionalGeneration")]
    if not whole or loaded in architectures:
        return ""
    return (
        f"The checkpoint holds an image-text model ({whole[0]}), of which transformers loads the text model alone "
        f"({loaded}): the finished model will read no images."
    )
