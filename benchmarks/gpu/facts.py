"""Versions, the card's ceilings, which attention kernel torch takes, and what a cuDNN plan costs."""

from __future__ import annotations

import importlib
import math
import statistics
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.checks import check
from benchmarks.gpu.timing import device, seconds, synchronize

LIBRARIES = (
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "pyarrow",
    "typer",
    "trl",
    "bitsandbytes",
    "flash_attn",
    "vllm",
)
KERNELS = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn", 4: "overrideable"}
"""torch's numbers of attention back ends."""


def run() -> None:
    """All of them; without a GPU the versions alone."""
    versions()
    if device().type != "cuda":
        return
    ceilings()
    kernels()
    for cudnn in (True, False):
        new_shapes(cudnn)
    masked_backward()
    torch.backends.cuda.enable_cudnn_sdp(False)


def versions() -> None:
    """Of the libraries that decide numbers and speed, and the card."""
    with check("versions") as found:
        found |= {"python": sys.version.split()[0], "torch": torch.__version__}
        for name in LIBRARIES:
            try:
                found[name] = getattr(importlib.import_module(name), "__version__", "yes")
            except Exception as error:  # noqa: BLE001  (a broken installation is a fact too)
                found[name] = f"no ({type(error).__name__})"
        if device().type == "cuda":
            card = torch.cuda.get_device_properties(0)
            found |= {
                "gpu": card.name,
                "GiB": round(card.total_memory / 2**30, 1),
                "capability": [card.major, card.minor],
                "cudnn": torch.backends.cudnn.version(),
                "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
            }


def ceilings() -> None:
    """Matrix products, copies and launches: what the other groups are measured against."""
    with check("ceilings") as found:
        square = [torch.randn(8192, 8192, device=device(), dtype=torch.bfloat16) for _ in range(2)]
        found["product_8192_tflops"] = round(2 * 8192**3 / seconds(lambda: square[0] @ square[1]) / 1e12)
        weight = torch.randn(8192, 2048, device=device(), dtype=torch.bfloat16)
        for rows in (1024, 3280, 4096, 16384):
            some = torch.randn(rows, 2048, device=device(), dtype=torch.bfloat16)
            took = seconds(lambda some=some: some @ weight.T)
            found[f"product_{rows}x2048x8192_tflops"] = round(2 * rows * 2048 * 8192 / took / 1e12)
        block = torch.empty(1 << 30, device=device(), dtype=torch.uint8)
        found["copy_TB_s"] = round(2 * block.numel() / seconds(block.clone) / 1e12, 2)
        one = torch.zeros(1, device=device())
        began = time.perf_counter()
        for _ in range(2000):
            one.add_(1)
        found["launch_us"] = round((time.perf_counter() - began) / 2000 * 1e6, 2)
        synchronize()


def kernels() -> None:
    """The back end that torch chooses by itself, before kto turns cuDNN off."""
    with check("attention: the kernel torch chooses") as found:
        for dtype in (torch.bfloat16, torch.float32):
            query = torch.randn(1, 8, 70, 64, device=device(), dtype=dtype)
            keys = torch.randn(1, 8, 140, 64, device=device(), dtype=dtype)
            mask = torch.zeros(70, 140, device=device(), dtype=dtype)
            kind = str(dtype).removeprefix("torch.")
            found[f"{kind} causal"] = KERNELS[torch._fused_sdp_choice(query, query, query, is_causal=True)]
            found[f"{kind} masked"] = KERNELS[torch._fused_sdp_choice(query, keys, keys, attn_mask=mask)]


def new_shapes(cudnn: bool) -> None:
    """Time of attention at twelve shapes that were never seen: cuDNN makes a plan for each."""
    with check(f"attention: twelve new shapes, cuDNN {'on' if cudnn else 'off'}") as found:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        forward, backward = [], []
        for number in range(12):
            queries, keys = 40 + 3 * number, 111 + 7 * number
            options = {"device": device(), "dtype": torch.bfloat16}
            query = torch.randn(1, 32, queries, 64, **options).requires_grad_()
            key = torch.randn(1, 32, keys, 64, **options).requires_grad_()
            mask = torch.zeros(queries, keys, **options)
            synchronize()
            began = time.perf_counter()
            output = scaled_dot_product_attention(query, key, key, attn_mask=mask)
            synchronize()
            forward.append(time.perf_counter() - began)
            began = time.perf_counter()
            output.sum().backward()
            synchronize()
            backward.append(time.perf_counter() - began)
        found["forward_ms"] = round(statistics.median(forward) * 1e3, 2)
        found["backward_ms"] = round(statistics.median(backward) * 1e3, 2)


def masked_backward() -> None:
    """Numbers in the gradient where cuDNN's masked backward pass gave NaN (pytorch/pytorch issue 196678): a length of
    64 modulo 128 and scores that are strongly negative. Off, as kto has it, all must be finite."""
    with check("attention: gradients of a masked backward pass") as found:
        length, width = 704, 64
        for cudnn in (True, False):
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
            torch.manual_seed(0)
            operands = [
                scale * torch.randn(1, 1, length, width, device=device(), dtype=torch.bfloat16)
                for scale in (0.1, 0.1, 1.0)
            ]
            operands[0][..., 0], operands[1][..., 0] = 1.0, -120 * math.sqrt(width)
            query, key, value = (each.requires_grad_() for each in operands)
            mask = torch.ones(length, length, dtype=torch.bool, device=device()).tril()[None, None]
            output = scaled_dot_product_attention(query, key, value, attn_mask=mask)
            output.backward(torch.randn_like(output))
            assert query.grad is not None
            found[f"not finite, cuDNN {'on' if cudnn else 'off'}"] = int((~query.grad.isfinite()).sum())
        found["ok"] = found["not finite, cuDNN off"] == 0
