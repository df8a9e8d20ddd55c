"""Human-aware losses (HALOs): a check of Definition 3.4 of arXiv 2402.01306 on given constructions.

A loss is one if t(v(r - z)) equals it up to a constant, where r is a reward that the policy implies, z a reference
point, v a value function that never falls and is concave on (0, inf), and t affine with a negative slope. v5 of the
paper allows either sign. The check verifies a construction, numerically; that none exists for a loss it cannot show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

END = 10.0
"""Values are looked at on (-END, END) in units of z, as far as the exponential of PPO-Clip stays below 1e5."""
STEP = 1e-3
TOLERANCE = 1e-9
"""Float64 rounds slopes of values of this size to about 1e-12."""


class Units(NamedTuple):
    """Random completions, each with a rival of the same prompt; each [units], nats."""

    logps: Tensor
    references: Tensor
    rival_logps: Tensor
    rival_references: Tensor
    lengths: Tensor
    rival_lengths: Tensor
    points: Tensor
    """z of the unpaired losses."""

    @property
    def ratios(self) -> Tensor:
        """log pi(y|x) - log pi_ref(y|x)."""
        return self.logps - self.references

    @property
    def rival_ratios(self) -> Tensor:
        """The rivals'."""
        return self.rival_logps - self.rival_references


class Construction(NamedTuple):
    """A loss written as t(v(r - z)), beside the loss by its own formula."""

    loss: str
    case: str
    """The units it holds for."""
    formula: str
    """v(z), and what r and z are."""
    objective: Callable[[Units], Tensor]
    reward: Callable[[Units], Tensor]
    reference_point: Callable[[Units], Tensor]
    value: Callable[[Tensor], Tensor]
    slope: float = -1.0
    """Of the affine t; its intercept is the constant."""

    @property
    def words(self) -> str:
        """Loss and units."""
        return f"{self.loss}, {self.case}"


class Check(NamedTuple):
    """What a construction meets, by how far it misses."""

    fall: float
    """The steepest fall of v: 0 if it never falls."""
    bend: float
    """The largest rise of the slope of v between two points of (0, inf): 0 if v is concave there."""
    slope: float
    """Of t."""
    spread: float
    """Range of loss - t(v(r - z)) over random units: 0 if the construction is the loss up to a constant."""

    @property
    def never_falls(self) -> bool:
        """Whether v is non-decreasing."""
        return self.fall <= TOLERANCE

    @property
    def is_concave(self) -> bool:
        """Whether v is concave in gains."""
        return self.bend <= TOLERANCE

    @property
    def is_the_loss(self) -> bool:
        """Whether the construction reproduces the loss."""
        return self.spread <= TOLERANCE

    @property
    def meets_v5(self) -> bool:
        """Whether the definition of v5 is met, which lets t rise."""
        return self.never_falls and self.is_concave and self.is_the_loss

    @property
    def meets(self) -> bool:
        """Whether Definition 3.4 is met as v1 has it."""
        return self.meets_v5 and self.slope < 0


def random_units(count: int = 500, *, seed: int = 0) -> Units:
    """Units whose log-ratios reach to both sides of every kink, in float64."""
    source = torch.Generator().manual_seed(seed)

    def normal(scale: float, center: float = 0.0) -> Tensor:
        return center + scale * torch.randn(count, generator=source, dtype=torch.float64)

    references, rivals = normal(6, -40), normal(6, -40)
    lengths, rival_lengths = (torch.randint(1, 30, (count,), generator=source).double() for _ in range(2))
    points = normal(2).clamp(min=0)
    return Units(references + normal(1.5), references, rivals + normal(1.5), rivals, lengths, rival_lengths, points)


def slopes(value: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """dv/dz at each point."""
    points = at.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(value(points).sum(), points)[0]


def check(construction: Construction, units: Units) -> Check:
    """Checks a construction on a grid of z and on random units."""
    steps = round(END / STEP)
    grid = torch.arange(-steps, steps + 1, dtype=torch.float64) * STEP
    found = slopes(construction.value, grid)
    gains = found[grid > 0]
    bend = (gains - gains.cummin(0).values).max().item()
    margins = construction.reward(units) - construction.reference_point(units)
    rest = construction.objective(units) - construction.slope * construction.value(margins)
    spread = (rest.max() - rest.min()).item()
    return Check(max(0.0, -found.min().item()), bend, construction.slope, spread)


class Shape(NamedTuple):
    """A value function in losses, and losses against gains of the same size."""

    losses: str
    """concave, convex, linear or neither on (-inf, 0)."""
    aversion: tuple[float, ...]
    """(v(0) - v(-z)) / (v(z) - v(0)) at each of `SIZES`: above 1 is loss aversion; infinite if gains are flat."""


SIZES = (1.0, 5.0)


def shape(value: Callable[[Tensor], Tensor]) -> Shape:
    """The shape of a value function."""
    grid = torch.arange(-END, 0, STEP, dtype=torch.float64)
    found = slopes(value, grid)
    rises = (found - found.cummin(0).values).max() > TOLERANCE
    falls = (found.cummax(0).values - found).max() > TOLERANCE
    name = {(False, False): "linear", (True, False): "convex", (False, True): "concave", (True, True): "neither"}
    sizes = torch.tensor(SIZES, dtype=torch.float64)
    middle = value(torch.zeros(1, dtype=torch.float64))
    aversion = (middle - value(-sizes)) / (value(sizes) - middle)
    return Shape(name[bool(rises), bool(falls)], tuple(aversion.tolist()))
