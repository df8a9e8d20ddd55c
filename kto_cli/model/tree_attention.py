"""Attention over a prefix tree without masks or copies: one call per segment and one per shared span.

A token attends to its segment causally and to each shared span on its way to the root as a whole. The parts are merged
by their log-sum-exp, which is exact: softmax over the union of keys is the mixture of the softmaxes over the parts,
weighted by their normalizers (the merge of FlashDecoding and cascade attention, arXiv 2501.01005, section 2.2). In the
backward pass each part's probabilities come from the merged log-sum-exp, so each part is one backward call as well
(FlashAttention, arXiv 2205.14135, algorithm 4). Keys and values are read where they are; grouped heads stay grouped.

bfloat16 operands are computed in float32 and each result is rounded once: torch's CPU kernel takes two to five times as
long for a backward pass in bfloat16.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.prefix_tree import PackedLayout


class _Part(NamedTuple):
    """One call: queries [start, stop) attend to keys [key_start, key_stop), causally if they are the same tokens."""

    start: int
    stop: int
    key_start: int
    key_stop: int
    past: bool
    causal: bool


def parts(layout: PackedLayout) -> list[_Part]:
    """The calls of a layout; each token's own segment comes first."""
    own = [_Part(start, stop, start, stop, past=False, causal=True) for start, stop, _ in layout.segments]
    return own + [
        _Part(start, stop, keys.start, keys.stop, past=keys.past, causal=False) for start, stop, keys in layout.shared
    ]


def tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackedLayout,
    past: tuple[Tensor, Tensor] | None = None,
    scaling: float | None = None,
) -> Tensor:
    """Attention of every token of a packed batch over its path to the root.

    Args:
        query: [1, heads, tokens, width]. key, value: [1, key heads, tokens, width]; heads is a multiple of key heads.
        past: keys and values of the batch that this one continues; no gradient flows into them.

    Returns:
        [1, heads, tokens, width].
    """
    result: Tensor = _TreeAttention.apply(query, key, value, layout, past, scaling)  # type: ignore[no-untyped-call]
    return result


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: PackedLayout,
        past: tuple[Tensor, Tensor] | None,
        scaling: float | None,
    ) -> Tensor:
        exact = torch.promote_types(query.dtype, torch.float32)
        output = torch.empty(query.shape, dtype=exact, device=query.device)
        total = torch.empty(query.shape[:3], dtype=exact, device=query.device)
        queries, *own = (part.to(exact) for part in (query, key, value))
        before = [part.to(exact) for part in past or ()]
        for part in parts(layout):
            keys, values = before if part.past else own
            some, its = _attend(
                queries[:, :, part.start : part.stop],
                keys[:, :, part.key_start : part.key_stop],
                values[:, :, part.key_start : part.key_stop],
                is_causal=part.causal,
                scale=scaling,
            )
            if part.causal:
                output[:, :, part.start : part.stop], total[:, :, part.start : part.stop] = some, its
            else:
                _merge(output[:, :, part.start : part.stop], total[:, :, part.start : part.stop], some, its)
        result = output.to(query.dtype)
        ctx.save_for_backward(query, key, value, result, total)
        ctx.layout, ctx.scaling = layout, scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *saved, total = ctx.saved_tensors
        dtype = saved[0].dtype
        query, key, value, output, gradient = (part.to(total.dtype) for part in (*saved, gradient))
        gradients = [torch.zeros_like(part) for part in (query, key, value)]
        for part in parts(ctx.layout):
            assert not part.past, "a continuation has no gradient"
            queries, keys = slice(part.start, part.stop), slice(part.key_start, part.key_stop)
            found = _attend_backward(
                gradient[:, :, queries],
                query[:, :, queries],
                key[:, :, keys],
                value[:, :, keys],
                output[:, :, queries],
                total[:, :, queries],
                0.0,
                part.causal,
                scale=ctx.scaling,
            )
            for sums, where, some in zip(gradients, (queries, keys, keys), found, strict=True):
                sums[:, :, where] += some
        return (*(sums.to(dtype) for sums in gradients), *[None] * 3)


def _merge(output: Tensor, total: Tensor, some: Tensor, its: Tensor) -> None:
    """Adds a part's output and log-sum-exp to those of the parts before it, in place."""
    merged = torch.logaddexp(total, its.to(total.dtype))
    output.mul_((total - merged).exp_()[..., None]).add_(some * (its - merged).exp_()[..., None])
    total.copy_(merged)


_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def supports(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `tree_attention` can take these: on a CPU, values as wide as keys, a torch whose kernel groups heads."""
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and _groups_heads()


@functools.cache
def _groups_heads() -> bool:
    """Whether this torch's CPU kernel takes more query heads than key heads, forward and backward."""
    with torch.autocast("cpu", enabled=False):  # whoever asks first may compute in bfloat16
        # A kernel that does not (torch 2.8) reads as many key heads as there are query heads: here it finds them. Its
        # backward pass would write beyond its own memory, so that is tried only after a right forward pass.
        query, key = torch.arange(8.0).reshape(1, 4, 2, 1).cos(), torch.arange(12.0).reshape(1, 4, 3, 1).sin()[:, :2]
        wide = key.repeat_interleave(2, 1)
        expected = torch.softmax(query @ wide.transpose(2, 3), -1) @ wide
        try:
            output, total = _attend(query, key, key)
            if not torch.allclose(output, expected, atol=1e-5):
                return False
            found = _attend_backward(output, query, key, key, output, total, 0.0, False)
        except (RuntimeError, NotImplementedError, AttributeError):
            return False
    return found[1].shape == key.shape
