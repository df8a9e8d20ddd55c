"""Rounding to 16 bits at random: one of the two neighbours, the value on average, the same whatever the parts."""

from __future__ import annotations

import pytest
import torch

from kto_cli.core.rounding import rounded_at_random

BOTH = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def some(count: int, scale: float, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))


@BOTH
def test_what_the_dtype_holds_stays(dtype):
    """Every finite number of the dtype, zeros and infinities of both signs."""
    bits = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    held = bits[~bits.isnan()].float()
    assert torch.equal(rounded_at_random(held, dtype, seed=3).float(), held)


@BOTH
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6], ids=str)
def test_a_value_becomes_one_of_its_neighbours(dtype, scale):
    """The nearest number of the dtype, or the next one on the value's other side; 1e-6 is below float16's normal
    numbers, whose spacing is 2**-24 there."""
    values = some(20_000, scale)
    found = rounded_at_random(values, dtype, seed=1)
    distance = (found.double() - values.double()).abs()
    spacing = (values.abs().double() * 2.0 ** (-7 if dtype == torch.bfloat16 else -10)).clamp(
        min=2.0**-24 if dtype == torch.float16 else 0
    )
    assert (distance < spacing).all()
    assert (found != values.to(dtype)).float().mean() > 0.2, "not only the nearest"


@BOTH
def test_the_mean_is_the_value(dtype):
    """0.3 of the way from 1 to its next number: of 100,000 copies 30 % go up, to within 4 standard errors (0.6 %)."""
    step = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-10
    for sign in (1, -1):
        found = rounded_at_random(torch.full((100_000,), sign * (1 + 0.3 * step)), dtype, seed=7).float()
        assert set(found.tolist()) == {sign * 1.0, sign * (1 + step)}
        assert (found.abs() > 1).float().mean().item() == pytest.approx(0.3, abs=0.006)


def test_small_changes_survive():
    """Weights of a bfloat16 model after changes of 1 % of their spacing: to the nearest all go back, here the sum of
    changes stays (within 4 standard errors)."""
    start = some(200_000, 0.02).bfloat16().float()
    change = 2.0**-15 * start.abs()
    assert torch.equal((start + change).bfloat16().float(), start)
    kept = (rounded_at_random(start + change, torch.bfloat16, seed=0).float() - start).sum() / change.sum()
    assert kept.item() == pytest.approx(1, abs=0.1)


def test_parts_are_rounded_as_the_whole(monkeypatch):
    """Shards of processes, and chunks of memory."""
    values = some(1000, 0.02).view(100, 10)
    whole = rounded_at_random(values, torch.bfloat16, seed=5)
    parts = [rounded_at_random(values[:33], torch.bfloat16, seed=5)]
    parts += [rounded_at_random(values[33:], torch.bfloat16, seed=5, first=330)]
    assert torch.equal(torch.cat(parts), whole)
    monkeypatch.setattr("kto_cli.core.rounding._CHUNK", 7)
    assert torch.equal(rounded_at_random(values, torch.bfloat16, seed=5), whole)
    assert not torch.equal(rounded_at_random(values, torch.bfloat16, seed=6), whole)
