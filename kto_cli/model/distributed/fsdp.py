"""FSDP2: torch's `fully_shard` with the settings of the accelerate config.

accelerate itself shards on GPUs only: on CPUs, where the tests run, it would train full models without a warning.
A sharded weight is a DTensor, sliced along its first dimension.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import nn

from kto_cli.common.errors import BadModel


class Sharding(NamedTuple):
    """FSDP2 settings of an accelerate config."""

    layers: tuple[str, ...] | None
    """Classes whose modules are gathered one at a time; None: those the model names itself."""
    sharded_files: bool
    """Checkpoints as each process's own slices, not gathered in one."""


def sharding_asked_for(processes: int) -> Sharding | None:
    """The launch's FSDP2 settings; None for one process or without FSDP."""
    if processes == 1 or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin()
    names = plugin.transformer_cls_names_to_wrap
    return Sharding(
        layers=tuple(names) if names else None,
        sharded_files="SHARDED" in str(plugin.state_dict_type),
    )


def shard(scorer: Any, sharding: Sharding) -> Any:
    """FSDP2 shards a scorer in place: its layers one by one, the rest (embeddings, head) as the root.

    The root's weights are full while the scorer's forward and the backward of its output run, so it may read the
    head's weight itself. `scorer.model` names its layer classes.

    Where a bfloat16 product is taken of float32 weights, layers travel in bfloat16, half the bytes: autocast would
    round the same weights after they came. Norms and the root are computed in float32 and travel so. Gradients are
    summed over processes in float32.

    Raises:
        BadModel: none of the layer classes occurs in the model.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    model = scorer.model
    names = sharding.layers or tuple(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in scorer.modules() if type(module).__name__ in names]
    if not layers:
        raise BadModel(
            f"No layer of the model is called {' or '.join(names) or 'anything known'}, so FSDP cannot shard it.",
            "Name its layer class in the accelerate config: fsdp_transformer_layer_cls_to_wrap.",
        )
    narrow = MixedPrecisionPolicy()
    if scorer.dtype == torch.bfloat16 and model.get_input_embeddings().weight.dtype == torch.float32:
        # The hidden states between layers stay float32, as autocast leaves them.
        narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        scorer.narrow = True
        for layer in layers:
            if norms := _of_vectors(layer):
                fully_shard(norms, reshard_after_forward=True)
    for layer in layers:
        fully_shard(layer, reshard_after_forward=True, mp_policy=narrow)
    fully_shard(scorer, reshard_after_forward=True)
    if torch.distributed.get_backend() == "gloo":
        for module in scorer.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)  # gloo has no average
    return scorer


def _of_vectors(layer: nn.Module) -> list[nn.Module]:
    """Modules in a layer whose own weights are all vectors: its norms."""
    own = [(module, list(module.parameters(recurse=False))) for module in layer.modules()]
    return [module for module, weights in own if weights and all(weight.ndim == 1 for weight in weights)]
