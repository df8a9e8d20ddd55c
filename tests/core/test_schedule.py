"""The learning-rate schedule, at values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.plan import learning_rate_share


def shares(total: int, warmup: float, schedule: str) -> list[float]:
    return [learning_rate_share(step, total=total, warmup=warmup, schedule=schedule) for step in range(total)]


def test_linear_without_warmup():
    """Step k of 5: 1 - k / 5; step 5, which there is not, would be at 0."""
    assert shares(5, 0, "linear") == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


def test_cosine_without_warmup():
    """(1 + cos(pi k / 4)) / 2."""
    half = math.sqrt(0.5)
    assert shares(4, 0, "cosine") == pytest.approx([1, (1 + half) / 2, 0.5, (1 - half) / 2])


def test_warmup_as_steps_starts_above_zero():
    """3 warm-up steps rise by quarters; the peak is the first step after them, 1 - 0 / 4."""
    assert shares(7, 3, "linear") == pytest.approx([0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(("share", "steps"), [(0.1, 2), (0.25, 5), (0.12, 2), (0.13, 3)])
def test_warmup_as_a_share_is_so_many_steps(share: float, steps: int):
    assert shares(20, share, "linear") == shares(20, steps, "linear")


def test_one_means_one_step():
    assert shares(4, 1, "constant") == [0.5, 1, 1, 1]


def test_constant_stays():
    assert shares(6, 2, "constant") == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


@settings(deadline=None)
@given(
    total=st.integers(1, 300),
    warmup=st.one_of(st.floats(0, 0.99), st.integers(1, 400)),
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_rises_then_falls_within_bounds(total: int, warmup: float, schedule: str):
    values = shares(total, warmup, schedule)
    assert all(0 < value <= 1 for value in values)
    warm = round(warmup * total) if warmup < 1 else int(warmup)
    rising, falling = values[: warm + 1], values[warm:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if falling:
        assert falling[0] == 1
