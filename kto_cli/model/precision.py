"""Dtypes of weights and of arithmetic, and base weights in 4 bits (QLoRA)."""

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


def four_bit_settings(dtype: torch.dtype) -> Any:
    """How QLoRA holds weights: NF4 with quantized constants, multiplied in `dtype`.

    Raises:
        BadInput: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise BadInput("--load-in-4bit needs bitsandbytes, which is not installed.", "pip install 'kto[bitsandbytes]'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_differentiable(model: Any) -> None:
    """Keeps bitsandbytes from repacking a layer the first time it is used without gradient.

    On a CPU with AVX512-BF16 it does so for layers in evaluation mode (as ours are, also while training), and the
    packed layer passes no gradient on: whatever learns below it would get a wrong one, in silence.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
