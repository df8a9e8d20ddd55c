"""Log-probs and gradients in bfloat16 of sharded pico models, as one process of a launch; saves what came out.

Run as `torchrun --nproc_per_node N tests/support/fsdp_bfloat16.py OUT` by test_distributed.py.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from accelerate import Accelerator
from pico import build, sequences
from torch import nn

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.batches import pack
from kto_cli.model.base_weights import narrow_base
from kto_cli.model.distributed.gathering import full
from kto_cli.model.distributed.processes import to_devices
from kto_cli.model.lora import add_adapters
from kto_cli.model.scorer import CompletionScorer

FAMILIES = ("llama", "qwen3", "gemma3")


def scorer_of(family: str, *, adapters: bool, accelerator: Any = None) -> CompletionScorer:
    """A packing scorer in bfloat16; its model is sharded where the launch asks for it."""
    model = build(family)
    if adapters:
        narrow_base(add_adapters(model, TrainConfig(lora_r=2), base="pico"), torch.bfloat16, exactly=False)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    scorer = CompletionScorer(model, torch.bfloat16)
    scorer = scorer if accelerator is None else to_devices(scorer, accelerator)
    checked = scorer.trust_or_fall_back(sequences())
    assert scorer.packs, checked.unpacked
    return scorer


def numbers(scorer: CompletionScorer) -> dict[str, Any]:
    """Log-probs, gradients, and the dtypes of weights as each module sees them."""
    used: dict[str, torch.dtype] = {}

    def look(name: str) -> Any:
        return lambda module, inputs: used.update({name: module.weight.dtype})

    for name, module in scorer.model.named_modules():
        if isinstance(getattr(module, "weight", None), torch.Tensor):
            module.register_forward_pre_hook(look(name))
    logps = scorer(*pack(sequences())[0])
    logps.sum().backward()
    learned = {name: each for name, each in scorer.model.named_parameters() if each.requires_grad}
    return {
        "logps": logps.detach(),
        "used": used,
        "held": {each.dtype for each in learned.values()} | {each.grad.dtype for each in learned.values()},
        "gradients": {name: full(each.grad) for name, each in learned.items()},
    }


if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    found = {
        (family, adapters): numbers(scorer_of(family, adapters=adapters, accelerator=accelerator))
        for family in FAMILIES
        for adapters in (False, True)
    }
    torch.save(found, f"{sys.argv[1]}.{os.environ['RANK']}")
