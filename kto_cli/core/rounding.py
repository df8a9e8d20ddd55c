"""Weights rounded to 16 bits at random, so that changes smaller than their spacing stay on average.

A training step moves most weights by less than two bfloat16 neighbours are apart. Rounding to the nearest one puts
almost all of them back where they were; rounding up with the probability of how far up a value is keeps the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 22
"""Values rounded at once: the random numbers take 8 bytes each."""


def rounded_at_random(values: Tensor, dtype: torch.dtype, *, seed: int, first: int = 0) -> Tensor:
    """float32 values in a 16-bit dtype: each one of its two neighbours there, and on average itself.

    Args:
        first: index of the first value in the whole tensor: the parts of a tensor are rounded as the whole would be.

    Returns:
        The same shape. The same values, seed and indices give the same result; what the dtype holds stays as it is.
    """
    flat = values.detach().contiguous().view(-1)
    found = torch.empty(flat.shape, dtype=dtype, device=flat.device)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        found[start : start + _CHUNK] = _rounded(part, dtype, _uniform(len(part), seed, first + start, flat.device))
    return found.view(values.shape)


def _rounded(values: Tensor, dtype: torch.dtype, uniform: Tensor) -> Tensor:
    nearest = values.to(dtype)
    away = values.abs() > nearest.float().abs()
    # Bits of floating-point numbers of one sign are in the order of their magnitudes.
    bits = nearest.view(torch.int16)
    other = (bits + torch.where(away, 1, -1).to(torch.int16)).view(dtype)
    share = (values - nearest.float()) / (other.float() - nearest.float())  # of the way to the other neighbour
    return torch.where((values != nearest.float()) & (uniform < share), other, nearest)


def _uniform(count: int, seed: int, first: int, device: torch.device) -> Tensor:
    """[count] numbers in [0, 1), each a hash (SplitMix64) of the seed and its index."""
    mixed = torch.arange(first, first + count, dtype=torch.int64, device=device) + _signed(seed * 0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return _shifted(mixed ^ _shifted(mixed, 31), 40).to(torch.float32) / (1 << 24)  # 24 bits: what float32 holds


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted right as unsigned numbers."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the lowest 64 bits of a number."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
