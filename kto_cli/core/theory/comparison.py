"""KTO or DPO, when? What each loss gains in random worlds, condition by condition, with intervals over worlds."""

from __future__ import annotations

from typing import NamedTuple

import torch

from kto_cli.core.statistics.shares import student
from kto_cli.core.theory.optima import LOSSES, STEPS, optimum
from kto_cli.core.theory.worlds import CONDITIONS, Condition, best_gain, gain, make_worlds, together

WORLDS = 400
"""Of each condition."""


class Outcome(NamedTuple):
    """What the losses gain under one condition, as shares of what the best policies gain."""

    condition: Condition
    gains: dict[str, float]
    """By loss; 0 is the reference policy, 1 the most valued answer of each world."""
    difference: float
    """KTO's less DPO's, over the same worlds."""
    interval: tuple[float, float]
    """90 %, over worlds."""

    @property
    def better(self) -> str:
        """kto or dpo where the interval leaves 0 out, else a dash."""
        if self.interval[0] > 0:
            return "kto"
        return "dpo" if self.interval[1] < 0 else "-"


def compare(*, worlds: int = WORLDS, steps: int = STEPS, seed: int = 0) -> list[Outcome]:
    """The outcome under each of `CONDITIONS`."""
    every = together([make_worlds(condition, worlds, seed=seed) for condition in CONDITIONS])
    shape = (len(CONDITIONS), worlds)
    best = best_gain(every).reshape(shape).mean(1, keepdim=True)
    shares = {
        name: gain(every, optimum(loss, every, steps=steps).logps).reshape(shape) / best
        for name, loss in LOSSES.items()
    }
    differences = shares["kto"] - shares["dpo"]
    reach = differences.std(1) / worlds**0.5 * student(worlds - 1)
    return [
        Outcome(
            condition,
            {name: share[index].mean().item() for name, share in shares.items()},
            differences[index].mean().item(),
            _around(differences[index].mean(), reach[index]),
        )
        for index, condition in enumerate(CONDITIONS)
    ]


def _around(middle: torch.Tensor, reach: torch.Tensor) -> tuple[float, float]:
    return (middle - reach).item(), (middle + reach).item()


def answer(outcomes: list[Outcome]) -> str:
    """Where which of the two is better, in a sentence."""
    parts = []
    for name, words in (("kto", "KTO gains more"), ("dpo", "DPO gains more"), ("-", "Undecided")):
        found = [outcome.condition.words for outcome in outcomes if outcome.better == name]
        parts += [f"{words}: {'; '.join(found)}."] if found else []
    return " ".join(parts)
