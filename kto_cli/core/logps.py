"""Log-probabilities of completion tokens from hidden states, without ever holding [batch, time, vocab].

log p(token) = logit(token) - logsumexp(logits). The language-model head is applied only to the
positions that predict a completion token, a chunk of them at a time; the backward pass computes each
chunk's logits again instead of keeping them. Memory for logits is therefore one chunk,
whatever the batch, the lengths or the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 20
"""Most logits held at once on a CPU (4 MiB in float32: they stay in its cache)."""
GPU_CHUNK_ELEMENTS = 1 << 26
"""On a GPU (256 MiB in float32: large enough to keep it busy)."""


class Head(NamedTuple):
    """A language-model head: logits = softcap(scale * (hidden @ weight.T + bias))."""

    weight: Tensor
    """[vocab, hidden]."""
    bias: Tensor | None = None
    """[vocab]."""
    scale: float = 1.0
    """What logits are multiplied by (Cohere's logit_scale, the inverse of Granite's logits_scaling)."""
    softcap: float | None = None
    """cap * tanh(logits / cap), as in Gemma 2."""


def token_logps(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Log-probability of each target token, float32 (float64 for float64 input), in nats.

    Args:
        hidden: [predicted, hidden] outputs of the body at the positions that predict `targets`.
        targets: [predicted] token ids.

    Returns:
        [predicted]. Differentiable in `hidden`, `head.weight` and `head.bias`.
    """
    weight, bias = head.weight, head.bias
    return _ChunkedLogps.apply(hidden, weight, bias, targets, head.scale, head.softcap)


def sequence_logps(token_values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums token log-probs into their sequences: [predicted], [predicted] -> [count]."""
    return torch.zeros(count, dtype=token_values.dtype, device=token_values.device).index_add(0, rows, token_values)


def _chunks(targets: Tensor, vocab: int) -> range:
    elements = GPU_CHUNK_ELEMENTS if targets.is_cuda else CHUNK_ELEMENTS
    return range(0, len(targets), max(1, elements // vocab))


def _accumulator(tensor: Tensor) -> torch.dtype:
    """float32 at least, whatever the model's dtype."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    logits = torch.matmul(hidden, weight.T).to(_accumulator(hidden))
    if bias is not None:
        logits += bias
    if scale != 1.0:
        logits *= scale
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    return logits


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, without a temporary of total's size where the dtypes agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class _ChunkedLogps(torch.autograd.Function):
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
        values = torch.empty(len(targets), dtype=_accumulator(hidden), device=hidden.device)
        normalizers = torch.empty_like(values)
        with torch.autocast(hidden.device.type, enabled=False):
            cast = weight.to(hidden.dtype)
            chunks = _chunks(targets, len(weight))
            for start in chunks:
                part = slice(start, start + chunks.step)
                logits = _logits(hidden[part], cast, bias, scale, softcap)
                values[part] = logits.gather(-1, targets[part, None])[:, 0]
                highest = logits.amax(-1, keepdim=True)
                normalizers[part] = highest[:, 0] + logits.sub_(highest).exp_().sum(-1).log()
        values -= normalizers
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers)
        ctx.scale, ctx.softcap = scale, softcap
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers = ctx.saved_tensors
        (gradient,) = gradients
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        hidden_gradient = torch.empty_like(hidden) if wants_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=_accumulator(weight)) if wants_weight else None
        bias_gradient = torch.zeros_like(bias, dtype=_accumulator(bias)) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            cast = weight.to(hidden.dtype)
            chunks = _chunks(targets, len(weight))
            for start in chunks:
                part = slice(start, start + chunks.step)
                logits = _logits(hidden[part], cast, bias, ctx.scale, ctx.softcap)
                d_logits = (logits - normalizers[part, None]).exp_().neg_()
                d_logits[torch.arange(len(d_logits), device=targets.device), targets[part]] += 1
                d_logits *= gradient[part, None]
                if ctx.softcap is not None:
                    d_logits *= 1 - (logits / ctx.softcap) ** 2
                if ctx.scale != 1.0:
                    d_logits *= ctx.scale
                if bias_gradient is not None:
                    bias_gradient += d_logits.sum(0)
                d_logits = d_logits.to(hidden.dtype)
                if hidden_gradient is not None:
                    hidden_gradient[part] = d_logits @ cast
                if weight_gradient is not None:
                    _add_product(weight_gradient, d_logits.T, hidden[part])
        return (
            hidden_gradient,
            None if weight_gradient is None else weight_gradient.to(weight.dtype),
            None if bias_gradient is None else bias_gradient.to(bias.dtype),
            None,
            None,
            None,
        )
