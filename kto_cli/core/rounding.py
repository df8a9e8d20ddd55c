"""Weights rounded to 16 bits at random, so that changes smaller than their spacing stay on average.

A training step moves most weights by less than two bfloat16 neighbours are apart. Rounding to the nearest one puts
almost all of them back where they were; rounding up with the probability of how far up a value is keeps the sum.

Which values are rounded up is a hash of a seed and their indices: it does not change from step to step, nor with the
parts of a tensor. A weight that moves goes over to its other neighbour once, when its own threshold is passed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CHUNK, _GPU_CHUNK = 1 << 18, 1 << 24
"""Values rounded at once: on a CPU they stay in its cache, on a GPU what is held beside them is small."""


@torch.no_grad()
def rounded_at_random(values: Tensor, dtype: torch.dtype, *, seed: int, first: int = 0) -> Tensor:
    """float32 values in a 16-bit dtype: each one of its two neighbours there, and on average itself.

    Args:
        first: index of the first value in the whole tensor: the parts of a tensor are rounded as the whole would be.

    Returns:
        The same shape. The same values, seed and indices give the same result; what the dtype holds stays as it is.
    """
    if dtype == torch.bfloat16:
        held = values.detach().clone(memory_format=torch.contiguous_format)
        round_and_keep_rest(held, seed=seed, first=first)
        return held.to(dtype)
    flat = values.detach().contiguous().view(-1)
    found = torch.empty(flat.shape, dtype=dtype, device=flat.device)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        found[start : start + _CHUNK] = _rounded(part, dtype, _hash(len(part), _offset(seed, first + start, part)))
    return found.view(values.shape)


@torch.no_grad()
def round_and_keep_rest(weights: Tensor, *, seed: int, first: int = 0) -> None:
    """float32 weights rounded to bfloat16 at random, in place; the lower 16 bits hold what was rounded away.

    bfloat16 is the upper half of float32. The lower half becomes 0, whether the value was rounded up, and the rest's
    upper 14 bits: less than half of bfloat16's spacing, so that `to(torch.bfloat16)` gives the rounded value.
    `put_rest_back` undoes it. The lowest 2 of a weight's 24 significant bits are lost (to the nearest).
    """
    _in_parts(_encode, weights, seed, first)


@torch.no_grad()
def put_rest_back(weights: Tensor) -> None:
    """Undoes `round_and_keep_rest`, in place."""
    _in_parts(_decode, weights, 0, 0)


def _in_parts(change: Callable[[Tensor, Tensor], None], weights: Tensor, seed: int, first: int) -> None:
    """Calls `change` with the bits of parts of the weights, and the number that their hashes count from."""
    bits = weights.detach().view(-1).view(torch.int32)
    chunk = _GPU_CHUNK if bits.is_cuda else _CHUNK
    for start in range(0, len(bits), chunk):
        part, offset = bits[start : start + chunk], _offset(seed, first + start, bits)
        (_fused(change) if bits.is_cuda else change)(part, offset)


def _encode(bits: Tensor, offset: Tensor) -> None:
    kept = (bits + 2) & ~3
    rest = kept & 0xFFFF
    up = (rest + _hash(len(bits), offset)) >> 16
    bits.copy_((kept & ~0xFFFF) + up * 0x14000 + (rest >> 2))  # bit 16: the next number up; bit 14: that it is


def _decode(bits: Tensor, offset: Tensor) -> None:
    up, rest = (bits >> 14) & 1, (bits & 0x3FFF) << 2
    bits.copy_((bits & ~0xFFFF) - up * 0x10000 + rest)


def _hash(count: int, offset: Tensor) -> Tensor:
    """[count] int32 in [0, 65536): hashes of the numbers from `offset` on (lowbias32, C. Wellons 2018)."""
    mixed = torch.arange(count, dtype=torch.int32, device=offset.device) + offset
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32))):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return (mixed ^ _shifted(mixed, 16)) & 0xFFFF


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted right as unsigned numbers."""
    return (values >> bits) & ((1 << (32 - bits)) - 1)


def _offset(seed: int, first: int, like: Tensor) -> Tensor:
    """[] int32: where the numbers of a seed begin, SplitMix64 of it, and `first` further on."""
    mixed = (seed + 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & ((1 << 64) - 1)
    value = ((mixed ^ (mixed >> 31)) + first) & ((1 << 32) - 1)
    return torch.tensor(value - (1 << 32) if value >= 1 << 31 else value, dtype=torch.int32, device=like.device)


_FUSED: dict[Callable[[Tensor, Tensor], None], Callable[[Tensor, Tensor], None]] = {}


def _fused(change: Callable[[Tensor, Tensor], None]) -> Callable[[Tensor, Tensor], None]:
    """One kernel in place of twenty, which would read and write the weights twenty times; as it is, without Triton."""
    if change not in _FUSED:
        compiled = torch.compile(change, dynamic=True)

        def run(bits: Tensor, offset: Tensor) -> None:
            try:
                compiled(bits, offset)
            except Exception:  # noqa: BLE001  (no compiler here: it fails before it runs)
                _FUSED[change] = change
                change(bits, offset)

        _FUSED[change] = run
    return _FUSED[change]


def _rounded(values: Tensor, dtype: torch.dtype, uniform: Tensor) -> Tensor:
    nearest = values.to(dtype)
    away = values.abs() > nearest.float().abs()
    # Bits of floating-point numbers of one sign are in the order of their magnitudes.
    bits = nearest.view(torch.int16)
    other = (bits + torch.where(away, 1, -1).to(torch.int16)).view(dtype)
    share = (values - nearest.float()) / (other.float() - nearest.float())  # of the way to the other neighbour
    return torch.where((values != nearest.float()) & (uniform < share * 65536), other, nearest)
