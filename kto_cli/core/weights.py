"""Class weights lambda_D and lambda_U from class counts (arXiv 2402.01306v1, Eq. 8)."""

from __future__ import annotations

from typing import NamedTuple

LOWEST_RATIO = 1.0
HIGHEST_RATIO = 4 / 3
"""Eq. 8: lambda_D * n_D / (lambda_U * n_U) lies in [1, 4/3], one of the two weights being 1."""


class Weights(NamedTuple):
    """Weights of a desirable and an undesirable row, with the ratio of Eq. 8 that they give."""

    lambda_d: float
    lambda_u: float
    ratio: float

    @property
    def inside(self) -> bool:
        """Whether the ratio lies in the interval of Eq. 8 (up to rounding)."""
        return LOWEST_RATIO - 1e-9 <= self.ratio <= HIGHEST_RATIO + 1e-9


def lambda_interval(desirable: int, undesirable: int) -> dict[str, list[float]]:
    """The intervals of weights that Eq. 8 allows for these counts.

    Returns:
        `lambda_d`: [low, high] where lambda_u is 1; `lambda_u`: [low, high] where lambda_d is 1.

    Raises:
        ValueError: a class has no rows.
    """
    if desirable < 1 or undesirable < 1:
        raise ValueError("both classes need at least one row")
    scarcity = undesirable / desirable
    return {
        "lambda_d": [LOWEST_RATIO * scarcity, HIGHEST_RATIO * scarcity],
        "lambda_u": [1 / (HIGHEST_RATIO * scarcity), 1 / (LOWEST_RATIO * scarcity)],
    }


def choose_weights(
    desirable: int, undesirable: int, *, lambda_d: float | None = None, lambda_u: float | None = None
) -> Weights:
    """Fills in the weights that are None.

    Both None: 1 and 1 if the interval of Eq. 8 contains their ratio, else the smallest increase of one of them that
    reaches the interval. One None: it becomes 1, as the paper fixes one of the two at 1; the other stays as given,
    inside the interval or not (see `Weights.inside`).
    """
    if lambda_d is None and lambda_u is None:
        interval = lambda_interval(desirable, undesirable)
        lambda_d, lambda_u = max(1.0, interval["lambda_d"][0]), max(1.0, interval["lambda_u"][0])
    chosen_d = 1.0 if lambda_d is None else lambda_d
    chosen_u = 1.0 if lambda_u is None else lambda_u
    ratio = chosen_d * desirable / (chosen_u * undesirable) if chosen_u else float("inf")
    return Weights(chosen_d, chosen_u, ratio)
