"""Weights of linear layers in 4 bits, through bitsandbytes: what QLoRA puts its adapters on."""

from __future__ import annotations

from typing import Any

import torch

from kto_cli.common.errors import BadInput


def settings(dtype: torch.dtype) -> Any:
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
