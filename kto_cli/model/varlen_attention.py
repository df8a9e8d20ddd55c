"""Attention over a packed batch by one variable-length call a layer, however many segments it has (varlen_plan.py).

Keys and values are gathered before the call and, in the backward pass, a second time, so copies live within one layer's
pass. The gradient of the gather is a gather too: each token sums its copies, in float32, without atomics or a sort.
Where long shared spans are read in place, two calls are merged by their log-sum-exps as in tree_attention.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kto_cli.model.varlen_kernels import EFFICIENT, FLASH, REFERENCE, Attended, Kernel
from kto_cli.model.varlen_plan import Call, Gather, Plan, make_call

_SUM, _MAX = 0, 2
"""Modes of an embedding bag."""


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, kernel: Kernel, scaling: float | None = None
) -> Tensor:
    """Attention of every token of a packed batch over its path to the root.

    Args:
        query: [tokens, heads, width]; heads is a multiple of key heads.
        key, value: [sources, key heads, width]. Sources: the tokens, after those of a batch that is continued.

    Returns:
        [tokens, heads, width].
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    result: Tensor = _VarlenAttention.apply(query, key, value, plan, kernel, scale)  # type: ignore[no-untyped-call]
    return result


class _VarlenAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, kernel: Kernel, scale: float
    ) -> Tensor:
        found = [kernel.forward(*part, scale) for part in _parts(query, key, value, plan)]
        output, total, *state = found[0]
        if plan.queries is not None:
            output, total = _merged([each[0] for each in found], [each[1] for each in found], plan.queries)
        ctx.save_for_backward(query, key, value, output, total, *state)
        ctx.plan, ctx.kernel, ctx.scale = plan, kernel, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, output, total, *state = ctx.saved_tensors
        plan, kernel = ctx.plan, ctx.kernel
        results = [(gradient, output, total)]
        if plan.queries is not None:
            below = plan.queries.tokens[len(query) :]
            results.append((*(part.index_select(0, below) for part in results[0][:2]), total.index_select(1, below)))
        found = [
            kernel.backward(d_output, Attended(q, k, v, its_output, its_total, tuple(state)), call, ctx.scale)
            for (d_output, its_output, its_total), (q, k, v, call) in zip(
                results, _parts(query, key, value, plan), strict=True
            )
        ]
        gathers = plan.queries, plan.keys, plan.keys
        sums = [_summed(parts, gather) for parts, gather in zip(zip(*found, strict=True), gathers, strict=True)]
        return *sums, None, None, None


def _parts(query: Tensor, key: Tensor, value: Tensor, plan: Plan) -> list[tuple[Tensor, Tensor, Tensor, Call]]:
    """Queries, gathered keys and values of each call."""
    if plan.keys is None:
        return [(query, key, value, plan.own)]
    keys, values = (part.index_select(0, plan.keys.tokens) for part in (key, value))
    if plan.shared is None or plan.queries is None:
        return [(query, keys, values, plan.own)]
    own, below = len(keys) - plan.shared_keys, query.index_select(0, plan.queries.tokens[len(query) :])
    return [(query, keys[:own], values[:own], plan.own), (below, keys[own:], values[own:], plan.shared)]


def _merged(outputs: list[Tensor], totals: list[Tensor], queries: Gather) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of each token over all calls: outputs weighted by exp(their log-sum-exp - the total)."""
    each = torch.cat(totals, 1).T.contiguous()
    highest = _bag(each, queries, _MAX)
    shares = (each - highest.index_select(0, queries.tokens)).exp_()
    sums = _bag(shares, queries, _SUM)
    weights = shares / sums.index_select(0, queries.tokens)
    output = _bag(torch.cat(outputs) * weights[..., None], queries, _SUM)
    return output.to(outputs[0].dtype), (highest + sums.log()).T.contiguous()


def _summed(parts: tuple[Tensor, ...], gather: Gather | None) -> Tensor:
    """The gradient of a gather from those of its parts."""
    copies = parts[0] if len(parts) == 1 else torch.cat(parts)
    return copies if gather is None else _bag(copies, gather, _SUM)


def _bag(copies: Tensor, gather: Gather, mode: int) -> Tensor:
    """[copies, ...] -> [tokens, ...]: the sum or the largest of each token's copies."""
    flat = copies.reshape(len(copies), -1)
    bags: Tensor = torch.ops.aten._embedding_bag_forward_only(
        flat, gather.order, gather.starts, False, mode, False, None, True
    )[0]
    return bags.view(-1, *copies.shape[1:])


# --- which kernel ---------------------------------------------------------------------------------------------------


def kernel_for(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Kernel | None:
    """The kernel for a layer's operands, [1, heads, tokens, width], after it was tried for their sizes; else None."""
    choose = KERNELS.get(query.device.type)
    if choose is None or key.shape[-1] != value.shape[-1]:
        return None
    kernel = choose(query)
    if kernel is None:
        return None
    # int: torch.compile(dynamic=True) takes these for variable, and the trial is a constant for it.
    sizes = int(query.shape[1]), int(key.shape[1]), int(query.shape[-1])
    return kernel if _works(kernel, query.device, query.dtype, *sizes, window is not None) else None


def _on_cuda(query: Tensor) -> Kernel | None:
    width, half = query.shape[-1], query.dtype in (torch.bfloat16, torch.float16)
    if half and torch.cuda.get_device_capability(query.device) >= (8, 0):
        return FLASH if width % 8 == 0 and width <= 256 else None
    return EFFICIENT if query.dtype in (torch.float32, torch.float16) else None


KERNELS: dict[str, Callable[[Tensor], Kernel | None]] = {"cuda": _on_cuda}
"""Type of device -> the kernel to try for a query."""


@torch.compiler.assume_constant_result
@functools.cache
def _works(
    kernel: Kernel, device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int, windowed: bool
) -> bool:
    """Whether a kernel gives the reference's output and gradients on three short sequences, the last of 70 queries."""
    queries, keys, window = (1, 3, 70), (1, 9, 200), 16 if windowed else None
    calls = [make_call(queries, keys, causal=True, window=window)]
    calls += [make_call(queries, keys, causal=False)] if kernel.merges else []
    operands = [
        torch.arange(count * tokens * width).mul(step).sin().view(tokens, count, width).to(dtype)
        for tokens, count, step in (
            (sum(queries), heads, 1.7),
            (sum(keys), key_heads, 2.3),
            (sum(keys), key_heads, 2.9),
            (sum(queries), heads, 3.1),
        )
    ]
    try:
        with torch.autocast(device.type, enabled=False):  # whoever asks first may compute in bfloat16
            return all(_agrees(kernel, device, call, operands) for call in calls)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AttributeError, TypeError):
        return False


def _agrees(kernel: Kernel, device: torch.device, call: Call, operands: list[Tensor]) -> bool:
    """Whether a kernel gives on its device what the reference gives on the CPU, up to rounding of their type."""
    mine = _results(kernel, call.to(device), *(part.to(device) for part in operands))
    others = _results(REFERENCE, call, *operands)
    near = 5e-2 if operands[0].element_size() == 2 else 5e-3  # a wrong mask is off by about 1
    return all(
        some.shape == its.shape
        and bool((some.cpu().float() - its.float()).abs().max() <= near * its.float().abs().max())
        for some, its in zip(mine, others if kernel.merges else others[:4], strict=True)
    )


def _results(kernel: Kernel, call: Call, query: Tensor, key: Tensor, value: Tensor, gradient: Tensor) -> list[Tensor]:
    """Output, gradients, and the log-sum-exps of a kernel whose calls can be merged."""
    scale = query.shape[-1] ** -0.5
    output, total, *state = kernel.forward(query, key, value, call, scale)
    gradients = kernel.backward(gradient, Attended(query, key, value, output, total, tuple(state)), call, scale)
    return [output, *gradients, *([total] if kernel.merges else [])]
