"""Attention of one layer over a packed batch: the first way that can follow the layer.

varlen_attention     one call a layer, on GPUs
tree_attention       one call a segment and one a shared span, without copies, on CPUs
segment_attention    one call a segment behind a copy of its prefix: soft caps, other devices, fall-back
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.model.packed_pass import CURRENT, PackedPass
from kto_cli.model.segment_attention import Attend, segment_attention
from kto_cli.model.tree_attention import supports, tree_attention
from kto_cli.model.varlen_attention import kernel_for, varlen_attention
from kto_cli.model.varlen_kernels import Kernel

BY_TREE, BY_SEGMENT = "tree", "segment"
"""Names of `tree_attention` and `segment_attention` among the ways of layers; others are those of kernels."""


class _Layer(NamedTuple):
    """One attention layer: its module, and what it asks of attention."""

    module: Any
    scaling: float | None
    window: int | None
    softcap: float | None


class CannotPack(Exception):
    """The model's attention needs something that packed batches do not support; the message names it."""


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
    packed: PackedPass | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [1, heads, tokens, width] -> ([1, tokens, heads, width], None).

    Raises:
        CannotPack: the model uses a mask, a bias or another input that packed attention does not support.
    """
    _check_supported(module, attention_mask, dropout, others)
    layer, operands = _Layer(module, scaling, sliding_window, softcap), (query, key, value)
    return (_by_context(layer, operands) if packed is None else _attend(layer, operands, packed)), None


@torch.compiler.disable
def _by_context(layer: _Layer, operands: tuple[Tensor, ...]) -> Tensor:
    current = CURRENT.get()
    assert current is not None, "packed attention runs inside PackedAttention only"
    return _attend(layer, operands, current)


def _attend(layer: _Layer, operands: tuple[Tensor, ...], current: PackedPass) -> Tensor:
    """[1, tokens, heads, width] of one layer, whose keys and values are stored if a later batch continues this one."""
    query, key, value = operands = tuple(_autocast(part) for part in operands)
    kernel = kernel_for(query, key, value, layer.window) if current.fast and layer.softcap is None else None
    if kernel is None:
        output = _by_parts(layer, operands, current)
    else:
        run = _by_kernel if kernel.compiles else _by_uncompiled_kernel
        output = run(kernel, layer, operands, current)
    if current.past is not None and not current.layout.continues:
        layer.module.packed_keys_and_values = key.detach(), value.detach()
    return output


def _by_kernel(kernel: Kernel, layer: _Layer, operands: tuple[Tensor, ...], current: PackedPass) -> Tensor:
    if not torch.compiler.is_compiling():
        current.ways.append(kernel.name)
    query, key, value = (part[0].transpose(0, 1) for part in operands)
    if current.layout.continues:
        before = (part[0].transpose(0, 1) for part in layer.module.packed_keys_and_values)
        key, value = (torch.cat(parts) for parts in zip(before, (key, value), strict=True))
    plan = current.plan(layer.window, kernel.merges)
    return varlen_attention(query, key, value, plan, kernel, layer.scaling)[None]


_by_uncompiled_kernel = torch.compiler.disable(_by_kernel)


@torch.compiler.disable
def _by_parts(layer: _Layer, operands: tuple[Tensor, ...], current: PackedPass) -> Tensor:
    """Segment by segment: what these loops do differs from batch to batch, so they are not compiled."""
    layout, (module, scaling, window, softcap) = current.layout, layer
    before = module.packed_keys_and_values if layout.continues else None
    query, key, value = operands
    whole = window is None or layout.longest <= window
    if current.fast and whole and softcap is None and supports(query, key, value):
        current.ways.append(BY_TREE)
        return tree_attention(query, key, value, layout, before, scaling).transpose(1, 2)
    current.ways.append(BY_SEGMENT)
    return segment_attention(query, key, value, layout, before, Attend(scaling, window, softcap, current.masks))


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
