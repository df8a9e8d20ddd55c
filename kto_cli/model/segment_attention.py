"""Attention over a packed batch segment by segment, each behind a copy of its prefix.

What soft caps take, windows that cut a path where no other way can follow them, and devices without a kernel that was
tried (varlen_attention.py, tree_attention.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kto_cli.core.prefix_tree import PackedLayout, Span


class Attend(NamedTuple):
    """Attention of one segment, with the layer's scaling, window and soft cap."""

    scaling: float | None
    window: int | None
    softcap: float | None
    masks: dict[tuple[Any, ...], Tensor]
    """Masks by shape, shared by all layers of a pass."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, prefix: int) -> Tensor:
        """[1, heads, tokens, width] and [1, heads, prefix + tokens, width] -> [1, heads, tokens, width]."""
        seen = key.shape[2]
        windowed = self.window is not None and seen > self.window
        if self.softcap is not None:
            return self._capped(query, key, value, windowed)
        if not prefix and not windowed:
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scaling)
        mask = self._mask(query, key, windowed)
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scaling)

    def _capped(self, query: Tensor, key: Tensor, value: Tensor, windowed: bool) -> Tensor:
        """Gemma 2: scores = cap * tanh(scores / cap) before the softmax, which is taken in float32."""
        assert self.softcap is not None
        scale = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        scores = torch.tanh(query @ key.transpose(2, 3) * scale / self.softcap) * self.softcap
        scores = scores + self._mask(query, key, windowed)
        return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ value

    def _mask(self, query: Tensor, key: Tensor, windowed: bool) -> Tensor:
        """[tokens, prefix + tokens] of 0 and -inf: a token sees those up to itself, at most `window` of them."""
        tokens, seen = query.shape[2], key.shape[2]
        name = (tokens, seen, self.window if windowed else None, query.dtype)
        if name not in self.masks:
            ones = torch.ones(tokens, seen, dtype=torch.bool, device=query.device)
            sees = ones.tril(seen - tokens)
            if windowed:
                assert self.window is not None
                sees &= ones.triu(seen - tokens - self.window + 1)
            self.masks[name] = torch.zeros(tokens, seen, dtype=query.dtype, device=query.device).masked_fill_(
                ~sees, float("-inf")
            )
        return self.masks[name]


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackedLayout,
    before: tuple[Tensor, Tensor] | None,
    attend: Attend,
) -> Tensor:
    """Attention segment by segment, each behind a copy of its prefix: [1, tokens, heads, width]."""
    groups = query.shape[1] // key.shape[1]
    outputs = []
    for start, stop, prefix in layout.segments:
        pieces = [
            [part[:, :, span.start : span.stop] for part in ((before if span.past else None) or (key, value))]
            for span in (*prefix, Span(start, stop))
        ]
        keys, values = (_repeat(torch.cat(parts, dim=2), groups) for parts in zip(*pieces, strict=True))
        output = attend(query[:, :, start:stop], keys, values, keys.shape[2] - (stop - start))
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1)


def _repeat(heads: Tensor, groups: int) -> Tensor:
    """[1, heads, tokens, width] -> [1, heads * groups, tokens, width], each head `groups` times in a row."""
    if groups == 1:
        return heads
    batch, count, tokens, width = heads.shape
    return heads[:, :, None].expand(batch, count, groups, tokens, width).reshape(batch, count * groups, tokens, width)
