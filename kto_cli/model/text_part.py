"""The text part of a model that also reads images or sounds: the only one that text feedback trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kto_cli.common.errors import BadModel, first_line

TEXT_ALONE = ("llama4",)
"""Kinds of image-text models of which the text model alone is loaded: in transformers 5.24 the class of the whole fails
without images."""


def loading_class(config: Any) -> Any:
    """transformers' class that loads the model of a config: of causal language models, or of image-text models where
    the first has no class for it or one of its text alone, which would lose the image part."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    causal, whole = AutoModelForCausalLM._model_mapping, AutoModelForImageTextToText._model_mapping
    if type(config) not in whole or config.is_encoder_decoder or config.get_text_config() is config:
        return AutoModelForCausalLM
    if config.model_type in TEXT_ALONE:
        return AutoModelForCausalLM
    reads_images = type(config) in causal and causal[type(config)] is whole[type(config)]
    return AutoModelForCausalLM if reads_images else AutoModelForImageTextToText


def text_part(model: Any) -> str:
    """Name of the module that reads the text in a model of several modalities; empty for a model of text alone."""
    if model.config.get_text_config() is model.config:
        return ""
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if module is decoder), "")


def refuse_no_text_model(model: Any, ids: Sequence[int]) -> None:
    """Refuses a model of several modalities that needs an image, or whose earlier tokens see later ones.

    PaliGemma reads all that it is given as a prefix, in both directions: the log-prob of an answer would be that of
    tokens which the model has seen.

    Raises:
        BadModel: in those cases.
    """
    if not text_part(model):
        return
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)
    name = type(model).__name__
    try:
        with torch.no_grad():
            whole, start = (
                model(input_ids=each).logits[0].float().log_softmax(-1) for each in (tokens, tokens[:, :-1])
            )
    except (AttributeError, TypeError, ValueError) as error:
        raise BadModel(
            f"{name} cannot read text without an image: {first_line(error)}.", "Use a model that reads text alone."
        ) from error
    rounding = 1e-3 if model.get_input_embeddings().weight.dtype == torch.float32 else 0.1
    if (whole[:-1] - start).abs().mean() > rounding:
        raise BadModel(
            f"{name} lets earlier tokens see later ones, so that it has no log-probs of answers.",
            "Use a model with causal attention.",
        )


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
