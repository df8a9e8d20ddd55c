"""Sampling as a pure function of (seed, prompt, position): no generator whose state depends on what else is computed.

A token is drawn by the Gumbel-max trick (Gumbel 1954; Maddison, Tarlow and Minka 2014): argmax of log p(v) + G(v) with
independent Gumbel noise G has exactly the distribution p. The noise is a hash of (seed and prompt, position, v), as in
counter-based generators (Salmon et al. 2011), so a prompt's answer is the same in any batch, order and engine, up to
rounding of the logits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

_32_BITS = 0xFFFFFFFF
_64_BITS = 0xFFFFFFFFFFFFFFFF


def position_seed(prompt_seed: int, position: int) -> int:
    """32 bits for the token at an absolute position (prompt tokens counted), as a signed integer.

    The finalizer of splitmix64 (Steele, Lea and Flood 2014) on the two combined; Python integers, masked to 64 bits.
    """
    mixed = (prompt_seed + (position + 1) * 0x9E3779B97F4A7C15) & _64_BITS
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
    low = (mixed ^ (mixed >> 31)) & _32_BITS
    return low - (1 << 32) if low >> 31 else low


def seeds_tensor(prompt_seeds: Sequence[int], positions: Sequence[int]) -> Tensor:
    """[rows] int32 seeds of the tokens that come next."""
    pairs = zip(prompt_seeds, positions, strict=True)
    return torch.tensor([position_seed(seed, position) for seed, position in pairs], dtype=torch.int32)


def _mixed(values: Tensor) -> Tensor:
    """A bijection of 32-bit integers, held in int64, that flips every output bit with chance one half when an input bit
    flips (the finalizer of MurmurHash3, Appleby 2008). Products keep their low 32 bits through wrap-around."""
    values = values ^ (values >> 16)
    values = (values * 0x85EBCA6B) & _32_BITS
    values = values ^ (values >> 13)
    values = (values * 0xC2B2AE35) & _32_BITS
    return values ^ (values >> 16)


@functools.lru_cache(maxsize=8)
def _vocabulary(size: int, device: torch.device) -> Tensor:
    """[size] hashes of the token ids; kept, because they are the same at every step."""
    return _mixed(torch.arange(1, size + 1, dtype=torch.int64, device=device))


def gumbel(seeds: Tensor, vocabulary: int) -> Tensor:
    """[rows, vocabulary] standard Gumbel noise, float32, from -2.9 to 22.9.

    -log(E) of E = -log(1 - u) with u = (hash + 1/2) / 2^32: the largest noise, which decides, comes from the smallest
    u, where float32 is finest.

    Args:
        seeds: [rows] int32.
    """
    rows = (seeds.to(torch.int64) & _32_BITS).unsqueeze(-1)
    hashes = _mixed(_mixed(_vocabulary(vocabulary, seeds.device) ^ rows) ^ rows)
    uniform = ((hashes.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """The scores [rows, vocabulary] with -inf for tokens outside the smallest set that holds `top_p` of the mass; the
    likeliest always stays."""
    if top_p >= 1:
        return scores
    ordered, places = scores.sort(dim=-1, descending=True, stable=True)
    shares = ordered.softmax(-1)
    before = shares.cumsum(-1) - shares
    outside = before >= top_p
    outside[..., 0] = False
    return scores.masked_fill(torch.zeros_like(outside).scatter(-1, places, outside), float("-inf"))


def perturbed(logits: Tensor, seeds: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """[rows, vocabulary] float32 whose argmax is the token drawn; the logits themselves at temperature 0.

    Args:
        logits: [rows, vocabulary].
        seeds: [rows] int32, from `seeds_tensor`.
    """
    if temperature == 0:
        return logits.float()
    kept = nucleus(logits.float() / temperature, top_p)
    return kept + gumbel(seeds.to(logits.device), logits.shape[-1])
