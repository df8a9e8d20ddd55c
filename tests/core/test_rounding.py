"""Rounding to 16 bits at random: one of the two neighbours, the value on average, the same whatever the parts."""

from __future__ import annotations

import pytest
import torch

from kto_cli.core import rounding
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


# --- rounded, with the rest kept ----------------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1 + 2.0**-23, -(2 - 2.0**-23), 2.0**-126, -(2.0**-149), 3.0e38]


def weights(count: int = 5_000) -> torch.Tensor:
    return torch.cat([torch.tensor(SPECIAL), some(count, 0.05)])


def test_a_rounded_weight_reads_as_bfloat16_rounds_it():
    """`to(bfloat16)` of what is kept is a neighbour of the value, and what is written of it."""
    values, held = weights(), weights()
    rounding.round_and_keep_rest(held, seed=7)
    assert torch.equal(held.to(torch.bfloat16), rounded_at_random(values, torch.bfloat16, seed=7))
    below, above = values.to(torch.bfloat16), held.to(torch.bfloat16)
    assert ((above.float() - values).abs() <= 2.0**-7 * values.abs() + 2.0**-133).all()
    assert (above != below).float().mean() > 0.2, "not only the nearest"


def test_the_rest_comes_back():
    """22 of 24 significant bits; a second time all of them, so that weights do not wander while nothing is learned."""
    values, held = weights(), weights()
    rounding.round_and_keep_rest(held, seed=7)
    rounding.put_rest_back(held)
    assert ((held - values).abs() <= 2.0**-22 * values.abs() + 2.0**-148).all()
    again = held.clone()
    rounding.round_and_keep_rest(again, seed=8)
    rounding.put_rest_back(again)
    assert torch.equal(again, held)


def test_what_bfloat16_holds_is_untouched():
    held = weights().to(torch.bfloat16).float()
    kept = held.clone()
    rounding.round_and_keep_rest(kept, seed=1)
    assert torch.equal(kept, held)


def test_a_weight_that_moves_goes_over_once():
    """From one neighbour to the next in a thousand steps, one seed: the rounded value never turns back."""
    path = torch.linspace(1.0, 1 + 2.0**-7, 1_000).repeat(50, 1).T  # [steps, weights]
    read = []
    for now in path:
        held = now.clone()
        rounding.round_and_keep_rest(held, seed=2)
        read.append(held.to(torch.bfloat16).float())
    seen = torch.stack(read)
    assert ((seen[1:] - seen[:-1]) >= 0).all()
    crossed = (seen == 1).float().mean(0)
    assert 0.4 < crossed.mean() < 0.6
    assert crossed.std() > 0.2, "each weight has its own threshold"


def test_parts_keep_the_rest_of_the_whole(monkeypatch):
    whole, parts = weights(), weights()
    rounding.round_and_keep_rest(whole, seed=3)
    monkeypatch.setattr(rounding, "_CHUNK", 100)
    rounding.round_and_keep_rest(parts[:777], seed=3)
    rounding.round_and_keep_rest(parts[777:], seed=3, first=777)
    assert torch.equal(parts, whole)


@pytest.mark.slow
def test_fused_it_gives_the_same_bits():
    """As on a GPU, where it is compiled into one kernel."""
    plain, fused = weights(), weights()
    bits, offset = fused.view(torch.int32), rounding._offset(5, 0, fused)
    rounding.round_and_keep_rest(plain, seed=5)
    rounding._fused(rounding._encode)(bits, offset)
    assert rounding._FUSED[rounding._encode] is not rounding._encode, "it compiled"
    assert torch.equal(fused, plain)
    rounding.put_rest_back(plain)
    rounding._fused(rounding._decode)(bits, offset)
    assert torch.equal(fused, plain)
