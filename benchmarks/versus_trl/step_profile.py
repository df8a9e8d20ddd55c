"""Time of a step on a CPU by kind of operation, from torch's profiler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

LAYER_PRODUCTS, HEAD_PRODUCTS = "matrix products of the layers", "matrix products of the head"
ATTENTION, HEAD_SOFTMAX = "attention", "softmax of the head"
COPIES, OPTIMIZER = "copies, casts, zeros", "clipping and AdamW"
POINTWISE, OUTSIDE = "norms, activations, sums", "outside torch's operations"
KINDS = (LAYER_PRODUCTS, HEAD_PRODUCTS, ATTENTION, HEAD_SOFTMAX, POINTWISE, COPIES, OPTIMIZER, OUTSIDE)
"""Every operation belongs to one of them."""

_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn")
_COPIES = ("aten::copy_", "aten::fill_", "aten::zero_", "aten::cat", "aten::index_select", "aten::index", "aten::clone")
_OPTIMIZER = ("aten::_fused_adamw", "aten::linalg_vector_norm", "aten::_foreach")


def seconds_by_kind(step: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each of KINDS in one call of `step`; together its wall time, the profiler's own cost included."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        began = time.perf_counter()
        step()
        whole = time.perf_counter() - began
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in found.events():
        seconds[kind_of(event.name, _names_above(event))] += event.self_cpu_time_total / 1e6
    seconds[OUTSIDE] += whole - sum(seconds.values())
    return seconds


def kind_of(name: str, above: Iterator[str] | tuple[str, ...] = ()) -> str:
    """The kind of an operation inside others of these names."""
    in_head = any(each.startswith("_TiledLogps") for each in (name, *above))
    if name.startswith(_PRODUCTS):
        return HEAD_PRODUCTS if in_head else LAYER_PRODUCTS
    if in_head:
        return HEAD_SOFTMAX
    if "attention" in name.lower():
        return ATTENTION
    if name in _COPIES:
        return COPIES
    if name.startswith(_OPTIMIZER):
        return OPTIMIZER
    return POINTWISE if name.startswith("aten::") else OUTSIDE


def _names_above(event: Any) -> Iterator[str]:
    while (event := event.cpu_parent) is not None:
        yield event.name
