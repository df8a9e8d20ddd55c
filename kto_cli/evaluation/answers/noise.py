"""Sampling as a pure function of (seed, prompt, position): no generator whose state depends on what else is computed.

A token is drawn by the Gumbel-max trick (Gumbel 1954; Maddison, Tarlow and Minka 2014): argmax of log p(v) + G(v) with
independent Gumbel noise G has exactly the distribution p. The noise is a hash of (seed and prompt, position, v), as in
counter-based generators (Salmon et al. 2011), so a prompt's answer is the same in any batch, order and engine, up to
rounding of the logits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_32_BITS = 0xFFFFFFFF
_64_BITS = 0xFFFFFFFFFFFFFFFF
CANDIDATES = 1024
"""Likeliest tokens that are looked at before the whole vocabulary."""
ROUNDING = 1e-3
"""More than sums of shares are off by: over 150,000 tokens torch's float32 softmax on a CPU sums up to 1 + 6.5e-5."""


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
    """A bijection of 32-bit integers, in place, that flips each output bit with chance one half when an input bit flips
    (the finalizer of MurmurHash3, Appleby 2008). Products wrap around; `>>` copies the sign, which the mask removes."""
    values ^= (values >> 16) & 0xFFFF
    values *= 0x85EBCA6B - (1 << 32)
    values ^= (values >> 13) & 0x7FFFF
    values *= 0xC2B2AE35 - (1 << 32)
    values ^= (values >> 16) & 0xFFFF
    return values


@functools.lru_cache(maxsize=8)
def _vocabulary(size: int, device: torch.device) -> Tensor:
    """[size] int32 hashes of the token ids; kept, because they are the same at every step."""
    return _mixed(torch.arange(1, size + 1, dtype=torch.int32, device=device))


def gumbel(seeds: Tensor, vocabulary: int, ids: Tensor | None = None) -> Tensor:
    """[rows, tokens] standard Gumbel noise, float32, from -2.9 to 22.9.

    -log(E) of E = -log(1 - u) with u = (hash + 1/2) / 2^32: the largest noise, which decides, comes from the smallest
    u, where float32 is finest.

    Args:
        seeds: [rows] int32. ids: [rows, tokens]; None: the whole vocabulary.
    """
    tokens = _vocabulary(vocabulary, seeds.device)
    if ids is not None:
        tokens = tokens[ids]
    rows = seeds.unsqueeze(-1)
    hashes = _mixed(_mixed(tokens ^ rows).bitwise_xor_(rows))
    uniform = hashes.view(torch.uint32).float().add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """The scores [rows, vocabulary] with -inf for tokens outside the smallest set that holds `top_p` of the mass; the
    likeliest always stays. Of equal scores the lower token comes first."""
    if top_p >= 1:
        return scores
    ordered, places = scores.sort(dim=-1, descending=True, stable=True)
    shares = ordered.softmax(-1)
    before = _before(shares)
    outside = before >= top_p
    outside[..., 0] = False
    return scores.masked_fill(torch.zeros_like(outside).scatter(-1, places, outside), float("-inf"))


def _before(shares: Tensor) -> Tensor:
    """Sums of the shares ahead of each token. On a GPU in integers, multiples of 2^-40: a cumulative sum of floats has
    no deterministic version there, warns, and would raise where determinism is required."""
    if shares.device.type == "cpu":
        return shares.cumsum(-1) - shares
    return _before_in_integers(shares)


def _before_in_integers(shares: Tensor) -> Tensor:
    units = shares.double().mul_(2.0**40).long()
    return (units.cumsum(-1) - units).double().mul_(2.0**-40).float()


class _Likeliest(NamedTuple):
    """The likeliest tokens of each row."""

    ids: Tensor
    """[rows, CANDIDATES]."""
    inside: Tensor
    """[rows, CANDIDATES] in the nucleus, however shares are rounded."""
    edge: Tensor
    """[rows, CANDIDATES] in the nucleus or just outside of it: rounding decides."""
    scores: Tensor


def _likeliest(scores: Tensor, top_p: float) -> _Likeliest:
    """The candidates, in the order of `nucleus`."""
    ids = scores.topk(CANDIDATES, dim=-1, sorted=False).indices.sort(-1).values
    ordered, places = scores.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    shares = (ordered - scores.logsumexp(-1, keepdim=True)).exp_()
    before = _before(shares)
    inside = before < top_p - ROUNDING
    inside[..., 0] = True
    return _Likeliest(ids.gather(-1, places), inside, (before < top_p + ROUNDING) & ~inside, ordered)


def _drawn_from_likeliest(scores: Tensor, seeds: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """[rows, vocabulary] as `perturbed`, and [rows] whether that row's argmax is certain.

    It is if the candidates hold the whole nucleus (the last one, and so all tokens that are as likely, lies outside),
    and no token at its edge would win.
    """
    few = _likeliest(scores, top_p)
    noisy = gumbel(seeds, scores.shape[-1], few.ids).add_(few.scores)
    inside, edge = (noisy.where(part, float("-inf")) for part in (few.inside, few.edge))
    last = few.scores[..., -1:]
    certain = ~((few.inside | few.edge) & (few.scores == last)).any(-1) & (inside.amax(-1) > edge.amax(-1))
    return torch.full_like(scores, float("-inf")).scatter_(-1, few.ids, inside), certain


def perturbed(logits: Tensor, seeds: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """[rows, vocabulary] float32 whose argmax is the token drawn; the logits themselves at temperature 0.

    Sorting the vocabulary takes most of the time of a draw, and the nucleus is mostly a few hundred tokens. So noise is
    drawn for the likeliest tokens alone; rows where those do not decide for certain are sorted. The draw is the same.

    Args:
        logits: [rows, vocabulary].
        seeds: [rows] int32, from `seeds_tensor`.
    """
    if temperature == 0:
        return logits.float()
    scores, seeds, vocabulary = logits.float() / temperature, seeds.to(logits.device), logits.shape[-1]
    if top_p >= 1 or vocabulary <= CANDIDATES:
        return gumbel(seeds, vocabulary).add_(nucleus(scores, top_p))
    drawn, certain = _drawn_from_likeliest(scores, seeds, top_p)
    rest = (~certain).nonzero()[:, 0]
    if len(rest):
        drawn[rest] = gumbel(seeds[rest], vocabulary).add_(nucleus(scores[rest], top_p))
    return drawn
