"""Variable-length attention kernels: torch's flash and memory-efficient ones on GPUs, and a plain reference.

They are the operators below `scaled_dot_product_attention`, which itself takes no variable lengths. Causal attention is
aligned at the lower right: the last query of a sequence sees its last key. All take [tokens, heads, width].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.model.determinism import required_if_preferred
from kto_cli.model.varlen_plan import Call


class Attended(NamedTuple):
    """What a backward pass reads: the operands of a call and its results."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    total: Tensor
    """Log-sum-exps."""
    state: tuple[Tensor, ...]
    """What else the kernel's forward pass returned."""


class Kernel(NamedTuple):
    """A variable-length attention kernel; heads of queries are a multiple of those of keys and values."""

    name: str
    forward: Callable[[Tensor, Tensor, Tensor, Call, float], tuple[Tensor, ...]]
    """(query, key, value, call, scale) -> (output, log-sum-exps, what else `backward` needs)."""
    backward: Callable[[Tensor, Attended, Call, float], tuple[Tensor, Tensor, Tensor]]
    """(gradient, attended, call, scale) -> gradients of the operands."""
    merges: bool
    """Log-sum-exps are [heads, tokens], so that two calls can be merged."""
    compiles: bool
    """torch.compile can trace it."""


# --- flash attention: bfloat16 and float16, grouped heads as they are ---------------------------------------------


def _flash_options(call: Call, scale: float) -> dict[str, Any]:
    # A window of n keys is the token itself and n - 1 before it.
    window = {} if call.window is None else {"window_size_left": call.window - 1, "window_size_right": 0}
    return {"scale": scale, **window}


def _flash_lengths(call: Call) -> tuple[Tensor, Tensor, int, int]:
    # With one query a sequence the kernel regroups the heads and returns log-sum-exps of another shape.
    return call.query_starts, call.key_starts, max(2, call.longest_query), call.longest_key


def _flash_forward(query: Tensor, key: Tensor, value: Tensor, call: Call, scale: float) -> tuple[Tensor, ...]:
    found = torch.ops.aten._flash_attention_forward(
        query, key, value, *_flash_lengths(call), 0.0, call.causal, False, **_flash_options(call, scale)
    )
    return found[:4]


def _flash_backward(gradient: Tensor, attended: Attended, call: Call, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, state = attended
    with required_if_preferred():
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
            gradient, *tensors, *_flash_lengths(call), 0.0, call.causal, *state, **_flash_options(call, scale)
        )
    return found


FLASH = Kernel("flash", _flash_forward, _flash_backward, merges=True, compiles=True)

# --- memory-efficient attention: float32, and half precision before Ampere; heads are repeated --------------------

_LOWER_RIGHT = 2
"""Its causal mask that is aligned at the lower right."""


def _efficient_options(call: Call, scale: float) -> dict[str, Any]:
    return {"scale": scale, **({} if call.window is None else {"window_size": call.window})}


def _repeated(heads: Tensor, groups: int) -> Tensor:
    return (heads if groups == 1 else heads.repeat_interleave(groups, 1))[None]


def _efficient_forward(query: Tensor, key: Tensor, value: Tensor, call: Call, scale: float) -> tuple[Tensor, ...]:
    groups = query.shape[1] // key.shape[1]
    output, total, *state = torch.ops.aten._efficient_attention_forward(
        query[None],
        _repeated(key, groups),
        _repeated(value, groups),
        None,
        call.query_starts,
        call.key_starts,
        call.longest_query,
        call.longest_key,
        0.0,
        _LOWER_RIGHT,
        True,
        **_efficient_options(call, scale),
    )
    return output[0], total, *state[:2]


def _efficient_backward(
    gradient: Tensor, attended: Attended, call: Call, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value, output, total, state = attended
    groups = query.shape[1] // key.shape[1]
    with required_if_preferred():
        d_query, d_key, d_value, _ = torch.ops.aten._efficient_attention_backward(
            gradient[None],
            query[None],
            _repeated(key, groups),
            _repeated(value, groups),
            None,
            output[None],
            call.query_starts,
            call.key_starts,
            call.longest_query,
            call.longest_key,
            total,
            0.0,
            *state,
            _LOWER_RIGHT,
            False,
            **_efficient_options(call, scale),
        )
    d_key, d_value = (part[0].unflatten(1, (-1, groups)).sum(2) for part in (d_key, d_value))
    return d_query[0], d_key, d_value


# torch's shape function of its backward pass lacks an argument (2.13), so it cannot be traced.
EFFICIENT = Kernel("memory-efficient", _efficient_forward, _efficient_backward, merges=False, compiles=False)

# --- the reference, a sequence at a time on any device -------------------------------------------------------------


def _sequences(call: Call) -> Iterator[tuple[slice, slice]]:
    starts = zip(call.query_starts.tolist(), call.key_starts.tolist(), strict=True)
    for before, after in itertools.pairwise(starts):
        yield slice(before[0], after[0]), slice(before[1], after[1])


def _scores(query: Tensor, key: Tensor, call: Call, scale: float) -> Tensor:
    """[key heads, groups, queries, keys] scores of one sequence, -inf where a query does not see a key."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = torch.einsum("qhgw,khw->hgqk", query.to(exact).unflatten(1, (key.shape[1], -1)), key.to(exact)) * scale
    if not call.causal:
        return scores
    queries, keys = scores.shape[2:]
    sees = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    if call.window is not None:
        sees = sees.triu(keys - queries - call.window + 1)
    return scores.masked_fill(~sees, float("-inf"))


def _reference_forward(query: Tensor, key: Tensor, value: Tensor, call: Call, scale: float) -> tuple[Tensor, ...]:
    outputs, totals = [], []
    for queries, keys in _sequences(call):
        scores = _scores(query[queries], key[keys], call, scale)
        totals.append(scores.logsumexp(-1).flatten(0, 1))
        weights = scores.softmax(-1)
        outputs.append(torch.einsum("hgqk,khw->qhgw", weights, value[keys].to(weights.dtype)).flatten(1, 2))
    return torch.cat(outputs).to(query.dtype), torch.cat(totals, 1)


def _reference_backward(
    gradient: Tensor, attended: Attended, call: Call, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttention, arXiv 2205.14135, algorithm 4."""
    query, key, value, output, total, _ = attended
    found = []
    for queries, keys in _sequences(call):
        scores = _scores(query[queries], key[keys], call, scale)
        sizes = scores.shape[:2]
        weights = (scores - total[:, queries].unflatten(0, sizes)[..., None]).exp()
        d_output, its, q = (part[queries].to(scores.dtype).unflatten(1, sizes) for part in (gradient, output, query))
        k, v = (part[keys].to(scores.dtype) for part in (key, value))
        d_weights = torch.einsum("qhgw,khw->hgqk", d_output, v)
        d_scores = weights * (d_weights - (d_output * its).sum(-1).permute(1, 2, 0)[..., None]) * scale
        found.append(
            (
                torch.einsum("hgqk,khw->qhgw", d_scores, k).flatten(1, 2),
                torch.einsum("hgqk,qhgw->khw", d_scores, q),
                torch.einsum("hgqk,qhgw->khw", weights, d_output),
            )
        )
    d_query, d_key, d_value = (torch.cat(parts).to(query.dtype) for parts in zip(*found, strict=True))
    return d_query, d_key, d_value


REFERENCE = Kernel("reference", _reference_forward, _reference_backward, merges=True, compiles=False)
