"""Random worlds in which it is known what people want: prompts with a few answers, a crowd, and their comparisons.

A world is one prompt. Its answers have a utility for the majority of people and one for a minority that wants the
opposite; a person feels Kahneman and Tversky's value of an answer against what the reference policy gives on average.
People compare pairs of answers drawn from the reference. Noise flips a comparison; a cycle makes tastes intransitive.
The same comparisons are pairs for DPO and two labelled rows each for KTO.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.value_functions import kahneman_tversky

ANSWERS = 6


class Condition(NamedTuple):
    """How a world's comparisons come about."""

    noise: float = 0.0
    """Share of comparisons that are flipped."""
    contradiction: float = 0.0
    """Share of people who want the opposite of the others."""
    cycle: float = 0.0
    """Share of comparisons that follow a cycle (each answer over the next two) in place of utilities."""
    pairs: int = 40
    """Comparisons in the data."""

    @property
    def words(self) -> str:
        """What differs from a plain world."""
        parts = [f"{name} {value:.0%}" for name, value in zip(self._fields[:3], self[:3], strict=True) if value]
        parts += [f"{self.pairs} pairs"] if self.pairs != Condition().pairs else []
        return ", ".join(parts) or "plain, 40 pairs"


CONDITIONS = (
    Condition(),
    Condition(noise=0.1),
    Condition(noise=0.2),
    Condition(noise=0.4),
    Condition(contradiction=0.1),
    Condition(contradiction=0.2),
    Condition(contradiction=0.4),
    Condition(cycle=0.5),
    Condition(pairs=10),
    Condition(pairs=400),
    Condition(noise=0.2, pairs=400),
    Condition(contradiction=0.4, pairs=400),
)


class Worlds(NamedTuple):
    """Worlds of one or more conditions."""

    references: Tensor
    """[worlds, answers] log-probs of the reference."""
    values: Tensor
    """[worlds, answers] what an answer is worth to the crowd, the mean over people."""
    wins: Tensor
    """[worlds, answers, answers] how often the first was preferred to the second, as a share of the comparisons."""


def make_worlds(condition: Condition, count: int, *, seed: int = 0) -> Worlds:
    """Worlds of one condition. Their references and utilities depend on the seed alone, so conditions are paired."""
    source = torch.Generator().manual_seed(seed)
    references = torch.randn(count, ANSWERS, generator=source, dtype=torch.float64).log_softmax(1)
    utilities = torch.randn(count, ANSWERS, generator=source, dtype=torch.float64)
    shares = references.exp()
    sides = torch.stack([utilities, -utilities])
    felt = -kahneman_tversky(sides - (shares * sides).sum(2, keepdim=True))
    values = (1 - condition.contradiction) * felt[0] + condition.contradiction * felt[1]
    return Worlds(references, values, _comparisons(condition, shares, utilities, source))


def _comparisons(condition: Condition, shares: Tensor, utilities: Tensor, source: torch.Generator) -> Tensor:
    count, pairs = len(shares), condition.pairs
    first = torch.multinomial(shares, pairs, replacement=True, generator=source)
    others = shares[:, None].expand(count, pairs, ANSWERS).scatter(2, first[..., None], 0.0)
    second = torch.multinomial(others.reshape(-1, ANSWERS), 1, generator=source).reshape(count, pairs)

    def happens(share: float) -> Tensor:
        return torch.rand(count, pairs, generator=source, dtype=torch.float64) < share

    prefers = utilities.gather(1, first) > utilities.gather(1, second)
    prefers = prefers ^ happens(condition.contradiction)
    prefers = torch.where(happens(condition.cycle), (second - first) % ANSWERS <= ANSWERS // 2 - 1, prefers)
    prefers = prefers ^ happens(condition.noise)
    winner, loser = torch.where(prefers, first, second), torch.where(prefers, second, first)
    flat = torch.zeros(count, ANSWERS * ANSWERS, dtype=torch.float64)
    flat.scatter_add_(1, winner * ANSWERS + loser, torch.full_like(winner, 1 / pairs, dtype=torch.float64))
    return flat.reshape(count, ANSWERS, ANSWERS)


def together(parts: list[Worlds]) -> Worlds:
    """Worlds of several conditions, one after the other."""
    return Worlds(*(torch.cat(list(tensors)) for tensors in zip(*parts, strict=True)))


def gain(worlds: Worlds, logps: Tensor) -> Tensor:
    """[worlds] expected value of a policy to the crowd, less that of the reference."""
    return ((logps.exp() - worlds.references.exp()) * worlds.values).sum(1)


def best_gain(worlds: Worlds) -> Tensor:
    """[worlds] of the policy that always gives the most valued answer."""
    return worlds.values.max(1).values - (worlds.references.exp() * worlds.values).sum(1)
