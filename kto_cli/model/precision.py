"""What numbers a run is made of: the dtype its weights are kept in and the one its matrices are multiplied in."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from kto_cli.common.errors import BadInput


class Precision(NamedTuple):
    """A value of `--dtype`, `auto` resolved."""

    name: str
    weights: torch.dtype
    compute: torch.dtype


PRECISIONS = {
    "float32": Precision("float32", torch.float32, torch.float32),
    "bfloat16": Precision("bfloat16", torch.float32, torch.bfloat16),
    "bfloat16-pure": Precision("bfloat16-pure", torch.bfloat16, torch.bfloat16),
}


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto`: bfloat16 over float32 weights on a GPU that computes in it, else float32.

    Raises:
        BadInput: another name.
    """
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if name not in PRECISIONS:
        raise BadInput(f"--dtype {name} is unknown.", f"Use auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def keep_float32_gradients(model: Any) -> None:
    """Lets bfloat16 weights gather their gradient in float32, so that it does not depend on the micro-batches.

    Needs a torch whose tensors have `grad_dtype`; without, gradients add up in bfloat16.
    """
    if not hasattr(torch.Tensor, "grad_dtype"):
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.grad_dtype = torch.float32
