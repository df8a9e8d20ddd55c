"""Attention over packed batches, in the place of a model's own.

Transformers lets a model's attention be replaced by name. This one follows a `PackedLayout`: there is no mask over the
whole batch, and nothing is computed between tokens that do not see each other. It also stores the prompts' keys and
values, so that a later batch can continue them. On a CPU it is `tree_attention`; layers with a soft cap, or with a
window that cuts a path, and other devices take one scaled-dot-product call a segment, behind a copy of its prefix.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kto_cli.core.batches import Prompt
from kto_cli.core.prefix_tree import PackedLayout, Span
from kto_cli.model.tree_attention import supports, tree_attention

NAME = "kto_packed"
"""Name of this attention in transformers."""
_KNOWN_LAYERS = ("full_attention", "sliding_attention")


class CannotPack(Exception):
    """The model's attention needs something that packed batches do not support; the message names it."""


@dataclass
class Past:
    """Keys, values and outputs of a packed batch's prompts, for its continuation; no gradient flows through them."""

    prompt_ends: Tensor
    """[prompts] index of the last token of each prompt in the packed batch."""
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Attention module -> keys and values, [1, heads, tokens, width]."""
    outputs: Tensor | None = None
    """[prompts, hidden] output of the body at `prompt_ends`."""

    @classmethod
    def of(cls, prompts: dict[tuple[int, ...], Prompt], device: torch.device) -> Past:
        """For a packed batch with these prompts, the second result of `pack`."""
        return cls(torch.tensor([prompt.last for prompt in prompts.values()], device=device))


class _PackedPass(NamedTuple):
    """State of one packed forward pass, read by the model's attention modules."""

    layout: PackedLayout
    past: Past | None
    masks: dict[tuple[Any, ...], Tensor]
    """Masks by shape, shared by all layers."""
    calls: list[int]
    """One entry per attention layer that ran."""


_PASS: ContextVar[_PackedPass | None] = ContextVar("packed attention", default=None)


class PackedAttention:
    """Switches a model to packed attention during a forward pass."""

    def __init__(self, model: Any) -> None:
        from transformers import AttentionInterface
        from transformers.modeling_utils import PreTrainedModel

        AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
        modules = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
        self._configs = list({id(module.config): module.config for module in modules}.values())
        self._replaceable = all(module._can_set_attn_implementation() for module in modules)
        self._layers = model.config.get_text_config().num_hidden_layers
        self.calls = 0
        """Layers that used packed attention in the last pass."""

    def refusal(self) -> str | None:
        """Why this kind of model cannot be packed, or None."""
        if not self._replaceable:
            return "its layers do not use transformers' attention interface"
        config = self._configs[0].get_text_config()
        kinds = sorted(set(getattr(config, "layer_types", None) or ()) - set(_KNOWN_LAYERS))
        if kinds:
            return f"it has {', '.join(kinds)} layers"
        if getattr(config, "attention_chunk_size", None):
            return "it attends in chunks"
        return None

    @property
    def reaches_all_layers(self) -> bool:
        """Whether every layer used packed attention in the last pass."""
        return self.calls == self._layers

    @contextlib.contextmanager
    def __call__(self, layout: PackedLayout, past: Past | None = None) -> Iterator[None]:
        """Context manager in which the model reads a packed batch with this layout."""
        before = [config._attn_implementation for config in self._configs]
        current = _PackedPass(layout, past, {}, [])
        token = _PASS.set(current)
        try:
            for config in self._configs:
                config._attn_implementation_internal = NAME
            yield
        finally:
            _PASS.reset(token)
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = name
            self.calls = len(current.calls)

    def recompute_contexts(self) -> tuple[contextlib.AbstractContextManager[None], Any]:
        """For torch.utils.checkpoint: restores this pass's state when a layer is computed a second time."""
        current = _PASS.get()
        if current is None:
            return contextlib.nullcontext(), contextlib.nullcontext()
        return contextlib.nullcontext(), self(current.layout)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [1, heads, tokens, width] -> ([1, tokens, heads, width], None).

    Raises:
        CannotPack: the model uses a mask, a bias or another input that packed attention does not support.
    """
    current = _PASS.get()
    assert current is not None, "packed attention runs inside PackedAttention only"
    _check_supported(module, attention_mask, dropout, others)
    current.calls.append(1)
    layout, past = current.layout, current.past
    if past is not None and not layout.continues:
        past.layers[id(module)] = key.detach(), value.detach()
    before = past.layers[id(module)] if layout.continues and past is not None else None
    whole = sliding_window is None or layout.longest <= sliding_window
    if whole and softcap is None and supports(query, key, value):
        query, key, value = (_autocast(part) for part in (query, key, value))
        before = None if before is None else (_autocast(before[0]), _autocast(before[1]))
        return tree_attention(query, key, value, layout, before, scaling).transpose(1, 2), None
    attend = _Attend(scaling, sliding_window, softcap, current.masks)
    return _walk(query, key, value, layout, before, attend), None


def _walk(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackedLayout,
    before: tuple[Tensor, Tensor] | None,
    attend: _Attend,
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


def _autocast(part: Tensor) -> Tensor:
    """In autocast's type where that is on, as scaled_dot_product_attention takes it."""
    kind = part.device.type
    return part.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else part


def _check_supported(module: Any, mask: Tensor | None, dropout: float, others: dict[str, Any]) -> None:
    tensors = [name for name, value in others.items() if isinstance(value, Tensor) and name not in _HARMLESS]
    if mask is not None or dropout or not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise CannotPack("its attention is not plain causal attention")
    if tensors:
        raise CannotPack(f"its attention takes {', '.join(tensors)}")


_HARMLESS = ("position_ids", "cache_position")


def _repeat(heads: Tensor, groups: int) -> Tensor:
    """[1, heads, tokens, width] -> [1, heads * groups, tokens, width], each head `groups` times in a row."""
    if groups == 1:
        return heads
    batch, count, tokens, width = heads.shape
    return heads[:, :, None].expand(batch, count, groups, tokens, width).reshape(batch, count * groups, tokens, width)


class _Attend(NamedTuple):
    """Attention of one segment, with the layer's scaling, window and soft cap."""

    scaling: float | None
    window: int | None
    softcap: float | None
    masks: dict[tuple[Any, ...], Tensor]

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
