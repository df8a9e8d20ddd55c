"""Weights of models that answer, in the dtype of matrix products: on a GPU half the memory and time of float32."""

from __future__ import annotations

import re
from typing import Any

import torch

from kto_cli.model.precision import choose_precision


def answer_dtype(asked: str, device: torch.device) -> torch.dtype:
    """The dtype of answers, benchmarks and local judges for a value of `--dtype`; auto: by the device, as in training.

    Raises:
        BadInput: unknown name.
    """
    return choose_precision(asked, device).compute


def cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Casts float32 weights, in place, to what `load_model` gives in that dtype; such a model is scored no more.

    Buffers (rotary frequencies) and weights that the model's code wants in float32 stay, and so do 4-bit ones.
    """
    if dtype == torch.float32:
        return
    wanted = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    kept = re.compile("|".join(rf"(^|\.){re.escape(name)}(\.|$)" for name in sorted(wanted)) or r"(?!)")
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float32 and not kept.search(name):
            parameter.data = parameter.data.to(dtype)
