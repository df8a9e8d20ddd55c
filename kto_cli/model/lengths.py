"""How many tokens a sequence may have: the model's context, and the length up to which its positions stay the same."""

from __future__ import annotations

from typing import Any

from kto_cli.common.errors import BadInput

DEFAULT = 1024
"""Tokens of prompt and completion at most, unless --max-length says otherwise."""


def context_length(model_config: Any) -> int | None:
    """Context length of the model in tokens; None if its config lacks it."""
    text = model_config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def rotation_switch(model_config: Any) -> int | None:
    """Length in tokens beyond which a model rotates the positions of a whole batch differently; None if there is none.

    Models with longrope (Phi-3.5, Phi-4-mini with 128k tokens) take other factors for all of a batch as soon as one of
    its sequences is longer than their original context, those with dynamic NTK scaling another base: a sequence's
    log-prob then depends on what else is in its batch (transformers.modeling_rope_utils.dynamic_rope_update).
    """
    text = model_config.get_text_config()
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [value for value in given.values() if isinstance(value, dict)]
    lengths = []
    for parameters in nested or [given]:
        kind = parameters.get("rope_type") or parameters.get("type")
        if kind in ("longrope", "su"):
            original = parameters.get("original_max_position_embeddings")
            lengths.append(original or getattr(text, "original_max_position_embeddings", None))
        elif kind == "dynamic":
            lengths.append(getattr(text, "max_position_embeddings", None))
    return min((length for length in lengths if length), default=None)


def independent_length(model_config: Any) -> int | None:
    """Length in tokens up to which what a model computes of a sequence does not depend on its batch: its context, or
    where it rotates positions differently; None if its config states neither."""
    known = [length for length in (context_length(model_config), rotation_switch(model_config)) if length]
    return min(known, default=None)


def greatest_length(asked: int | None, model_config: Any) -> int:
    """Maximum length of prompt and completion in tokens: as asked, else what the model takes, at most `DEFAULT`.

    Raises:
        BadInput: longer than the model's context, or than its rotation stays the same for.
    """
    context, switch = context_length(model_config), rotation_switch(model_config)
    if asked is not None and context is not None and asked > context:
        raise BadInput(
            f"--max-length {asked} is more than the {context} tokens this model takes.",
            f"Use {context} or less.",
        )
    if asked is not None and switch is not None and asked > switch:
        raise BadInput(
            f"--max-length {asked}: beyond {switch} tokens this model rotates the positions of a whole batch "
            "differently, so a row's log-prob would depend on the rows beside it.",
            f"Use {switch} or less.",
        )
    return asked or min(DEFAULT, independent_length(model_config) or DEFAULT)
