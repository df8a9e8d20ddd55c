"""Weights as bfloat16 products take them: rounded at random, as the written model will have them.

Autocast rounds float32 weights to the nearest bfloat16 number for each product, and most steps are smaller than the
distance between two: training would see a small part of what the weights have learned, and z_ref, rewards and curves
would be too small by as much (docs/training.md). Rounded at random (core/rounding.py) the change stays on average.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from kto_cli.core.rounding import put_rest_back, round_and_keep_rest
from kto_cli.model.distributed import zero
from kto_cli.model.distributed.gathering import is_dtensor, local_rows, rounding_seed
from kto_cli.model.linear_layers import linear_layers
from kto_cli.model.stored_dtypes import StoredDtypes


class _Part(NamedTuple):
    """This process's rows of a weight."""

    values: Tensor
    seed: int
    first: int


class RoundedWeights:
    """A context in which weights have their rounded values; behind it, their own again. It can be nested."""

    def __init__(self, parts: list[_Part] | None = None) -> None:
        self.parts = parts or []
        self._depth = 0

    def __enter__(self) -> Self:
        if self._depth == 0:
            for part in self.parts:
                round_and_keep_rest(part.values, seed=part.seed, first=part.first)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for part in self.parts:
                put_rest_back(part.values)


def rounded_weights(model: Any, compute: torch.dtype, stored: StoredDtypes, seed: int) -> RoundedWeights:
    """The weights of linear layers that are trained in float32, multiplied in bfloat16, and written in it.

    Call it before the first step: the policy's log-probs then begin at the reference's, whose weights bfloat16 holds.
    A model whose weights bfloat16 does not hold (a float32 checkpoint) has none, nor has one under DeepSpeed.

    Args:
        model: with its weights sharded already, where they are.
        seed: that the written model's weights are rounded with, so that they are the same.
    """
    found = []
    if compute == torch.bfloat16:
        multiplied = {id(weight) for weight in _multiplied(model)}
        for name, weight in model.named_parameters():
            if id(weight) in multiplied and weight.requires_grad and weight.dtype == torch.float32:
                if zero.is_partitioned(weight) or stored.of(name, weight) != torch.bfloat16:
                    return RoundedWeights()
                local, row = local_rows(weight) if is_dtensor(weight) else (weight, 0)
                found.append(_Part(local.detach(), rounding_seed(seed, name), row * weight.shape[1:].numel()))
    exact = all(torch.equal(part.values.to(torch.bfloat16).float(), part.values) for part in found)
    return RoundedWeights(found if exact else None)


def _multiplied(model: Any) -> list[Tensor]:
    """Weights of the linear layers and of the head."""
    head = model.get_output_embeddings()
    weights = [layer.weight for layer in linear_layers(model).values()]
    return [*weights, head.weight] if isinstance(head, nn.Linear) else weights
