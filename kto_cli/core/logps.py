"""Log-probs of completion tokens from hidden states, without a [batch, time, vocab] tensor of logits.

log p(token) = logit(token) - logsumexp(logits). The language-model head runs only at positions that predict a
completion token, on one tile (some positions, some of the vocabulary) at a time; the backward pass computes each tile's
logits again instead of storing them. Memory for logits is therefore one tile, whatever the batch, the lengths or the
vocabulary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE, TILE_VOCABULARY = 1 << 21, 1 << 12
"""Most logits of a tile on a CPU (8 MiB in float32: they stay in its cache), and most tokens of its vocabulary."""
GPU_TILE, GPU_TILE_VOCABULARY = 1 << 26, 1 << 16
"""The same on a GPU (256 MiB in float32: large enough to keep it busy)."""


class Head(NamedTuple):
    """A language-model head: logits = softcap(scale * (hidden @ weight.T + bias))."""

    weight: Tensor
    """[vocab, hidden]."""
    bias: Tensor | None = None
    """[vocab]."""
    scale: float = 1.0
    """Factor of the logits (Cohere's logit_scale, the inverse of Granite's logits_scaling)."""
    softcap: float | None = None
    """Cap of the logits: cap * tanh(logits / cap), as in Gemma 2."""


def token_logps(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Log-prob of each target token in nats.

    Args:
        hidden: [predicted, hidden] outputs of the body at the positions that predict `targets`.
        targets: [predicted] token ids.

    Returns:
        [predicted] float32 (float64 for float64 input). Differentiable in `hidden`, `head.weight` and `head.bias`.
    """
    apply: Callable[..., Tensor] = _TiledLogps.apply
    return apply(hidden, head.weight, head.bias, targets, head.scale, head.softcap)


def sequence_logps(token_values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums token log-probs per sequence: [predicted] values and sequence indices -> [count], in float64.

    In float32 a sum of 8,000 tokens is off by 0.02 nats and depends on its order; Apple's GPUs have no float64.
    """
    dtype = torch.float32 if token_values.device.type == "mps" else torch.float64
    return torch.zeros(count, dtype=dtype, device=token_values.device).index_add(0, rows, token_values.to(dtype))


class _Tile(NamedTuple):
    """A part of the logits: some positions and some of the vocabulary."""

    rows: slice
    tokens: slice


def _tiles(targets: Tensor, vocab: int) -> Iterator[_Tile]:
    """Splits [predicted, vocab] into tiles: the whole vocabulary for some positions, then the next positions."""
    elements, widest = (GPU_TILE, GPU_TILE_VOCABULARY) if targets.is_cuda else (TILE, TILE_VOCABULARY)
    width = min(vocab, widest)
    height = max(1, elements // width)
    for row in range(0, len(targets), height):
        for token in range(0, vocab, width):
            yield _Tile(slice(row, min(row + height, len(targets))), slice(token, min(token + width, vocab)))


def _accumulator(tensor: Tensor) -> torch.dtype:
    """float32 at least, whatever the model's dtype."""
    return torch.promote_types(tensor.dtype, torch.float32)


@functools.cache
def gives_float32(kind: str) -> bool:
    """Whether matrix products of this kind of device can leave a lower precision in float32, as they are summed.

    torch registers such a product for CUDA alone; on a CPU, products of bfloat16 numbers in float32 take two to three
    times as long.
    """
    try:
        here = torch._C._dispatch_has_kernel_for_dispatch_key("aten::mm.dtype", kind.upper())
    except RuntimeError:  # a torch without that product
        return False
    return here and torch.version.hip is None


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in the accumulator's dtype, not rounded to their own where the device allows it.

    Logits around 16 are rounded by up to 1/16 in bfloat16: 0.3 to 0.4 nats over a completion of 140 tokens.
    """
    exact = _accumulator(left)
    if exact != left.dtype and gives_float32(left.device.type):
        return torch.mm(left, right, out_dtype=exact)
    return torch.mm(left, right).to(exact)


class _Logits(NamedTuple):
    """Computes tiles of the logits, in the accumulator's dtype."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None

    def __call__(self, tile: _Tile) -> Tensor:
        logits = _product(self.hidden[tile.rows], self.weight[tile.tokens].T)
        if self.bias is not None:
            logits += self.bias[tile.tokens]
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits


def _within(targets: Tensor, tile: _Tile) -> tuple[Tensor, Tensor]:
    """Whether the target of each position lies in the tile ([rows] bool), and at which column ([rows], else 0)."""
    inside = targets[tile.rows] - tile.tokens.start
    here = (inside >= 0) & (inside < tile.tokens.stop - tile.tokens.start)
    return here, inside.where(here, 0)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, without a temporary of total's size if the dtypes agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += _product(left, right)


class _TiledLogps(torch.autograd.Function):
    """Forward and backward of `token_logps`. For one position with logits l, target t, p = softmax(l):
    d logp / d l = onehot(t) - p; through the soft cap, times 1 - (l / cap)^2; through the scale, times scale."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        chosen = torch.zeros(len(targets), dtype=_accumulator(hidden), device=hidden.device)
        highest = torch.full_like(chosen, -math.inf)
        total = torch.zeros_like(chosen)
        with torch.autocast(hidden.device.type, enabled=False):
            compute = _Logits(hidden, weight.to(hidden.dtype), bias, scale, softcap)
            for tile in _tiles(targets, len(weight)):
                rows, logits = tile.rows, compute(tile)
                here, inside = _within(targets, tile)
                chosen[rows] += logits.gather(-1, inside[:, None])[:, 0].where(here, 0)
                before = highest[rows].clone()
                highest[rows] = torch.maximum(before, logits.amax(-1))
                total[rows] *= (before - highest[rows]).exp()
                total[rows] += logits.sub_(highest[rows, None]).exp_().sum(-1)
                del logits  # before the next tile is computed
        normalizers = highest + total.log()
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers)
        ctx.scale, ctx.softcap = scale, softcap
        return chosen - normalizers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers = ctx.saved_tensors
        (gradient,) = gradients
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        hidden_gradient = torch.zeros_like(hidden, dtype=_accumulator(hidden)) if wants_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=_accumulator(weight)) if wants_weight else None
        bias_gradient = torch.zeros_like(bias, dtype=_accumulator(bias)) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            compute = _Logits(hidden, weight.to(hidden.dtype), bias, ctx.scale, ctx.softcap)
            for tile in _tiles(targets, len(weight)):
                d_logits = _logit_gradient(compute, tile, targets, normalizers, gradient)
                if bias_gradient is not None:
                    bias_gradient[tile.tokens] += d_logits.sum(0)
                d_logits = d_logits.to(hidden.dtype)
                if hidden_gradient is not None:
                    _add_product(hidden_gradient[tile.rows], d_logits, compute.weight[tile.tokens])
                if weight_gradient is not None:
                    _add_product(weight_gradient[tile.tokens], d_logits.T, hidden[tile.rows])
                del d_logits  # before the next tile is computed
        return (
            None if hidden_gradient is None else hidden_gradient.to(hidden.dtype),
            None if weight_gradient is None else weight_gradient.to(weight.dtype),
            None if bias_gradient is None else bias_gradient.to(bias.dtype),
            None,
            None,
            None,
        )


def _logit_gradient(compute: _Logits, tile: _Tile, targets: Tensor, normalizers: Tensor, gradient: Tensor) -> Tensor:
    """[rows, tokens] gradient of a tile of hidden @ weight.T + bias."""
    logits = compute(tile)
    slope = None if compute.softcap is None else 1 - (logits / compute.softcap) ** 2
    d_logits = logits.sub_(normalizers[tile.rows, None]).exp_().neg_()
    here, inside = _within(targets, tile)
    d_logits[torch.arange(len(inside), device=inside.device), inside] += here
    d_logits *= gradient[tile.rows, None]
    if slope is not None:
        d_logits *= slope
    if compute.scale != 1.0:
        d_logits *= compute.scale
    return d_logits
