"""Dtypes of weights and computation, and 4-bit base weights (QLoRA)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from kto_cli.common.errors import BadInput
from kto_cli.common.install import install_extra


class Precision(NamedTuple):
    """Dtypes of one value of `--dtype`."""

    name: str
    weights: torch.dtype
    compute: torch.dtype


PRECISIONS = {
    "float32": Precision("float32", torch.float32, torch.float32),
    "bfloat16": Precision("bfloat16", torch.float32, torch.bfloat16),
    "bfloat16-pure": Precision("bfloat16-pure", torch.bfloat16, torch.bfloat16),
}


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name; `auto` is bfloat16 over float32 weights on a GPU that has it, else float32.

    Raises:
        BadInput: unknown name.
    """
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and not emulates_bfloat16(device) else "float32"
    if name not in PRECISIONS:
        raise BadInput(f"--dtype {name} is unknown.", f"Use auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def planned_precision(name: str) -> Precision:
    """The precision of that name on a GPU that computes in bfloat16, where none is here."""
    return PRECISIONS["bfloat16" if name == "auto" else name]


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether this is a GPU without bfloat16 arithmetic (V100, T4, RTX 20): it rounds float32's, which takes longer."""
    return device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)


def keep_float32_gradients(model: Any) -> None:
    """Accumulates gradients of bfloat16 weights in float32, so that they do not depend on the micro-batches."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.grad_dtype = torch.float32


def four_bit_settings(dtype: torch.dtype) -> Any:
    """Quantization of QLoRA: NF4 with quantized constants, computed in `dtype`.

    Raises:
        BadInput: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise BadInput(
            "--load-in-4bit needs bitsandbytes, which is not installed.", f"{install_extra('bitsandbytes')}."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_differentiable(model: Any) -> None:
    """Stops bitsandbytes from repacking layers into a form that passes no gradient.

    On a CPU with AVX512-BF16 it repacks a layer in evaluation mode (kto's mode, also in training) on first use without
    gradient; layers below would then silently get a wrong gradient.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
