"""Gradient weights of the value functions (Proposition 4.1): |dL/du|, how much a row at margin u moves the policy."""

from __future__ import annotations

import math

import torch

from kto_cli.core.halos import slopes
from kto_cli.core.value_functions import VALUE_FUNCTIONS

MARGINS = (-40.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 40.0)


def gradient_weights() -> dict[str, list[float]]:
    """|dL/du| at each of `MARGINS`, by the name of the value function."""
    at = torch.tensor(MARGINS, dtype=torch.float64)
    return {name: slopes(value, at).abs().tolist() for name, value in VALUE_FUNCTIONS.items()}


def tail(name: str, side: int, at: float = 300.0) -> tuple[float, float]:
    """How the gradient weight falls far from the reference point: (-d log|dL/du| / d|u|, d log|dL/du| / d log|u|).

    The first is 1 where it vanishes as e^-|u|, the second p where it falls as |u|^p; both are 0 where it stays.
    """
    ends = torch.tensor([side * at, side * 1.1 * at], dtype=torch.float64)
    near, far = slopes(VALUE_FUNCTIONS[name], ends).abs().log().tolist()
    return (near - far) / (0.1 * at), (far - near) / math.log(1.1)


def tail_words(name: str, side: int) -> str:
    """The tail's law in a few characters."""
    rate, power = tail(name, side)
    if rate > 0.5:
        return f"e^-{rate:.2g}|u|".replace("-1|", "-|")
    return "constant" if abs(power) < 1e-6 else f"|u|^{power:.2f}"
