"""Draws that depend on seed, prompt and position alone, with exactly the distribution they should have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from kto_cli.evaluation.answers.noise import (
    CANDIDATES,
    _before_in_integers,
    gumbel,
    nucleus,
    perturbed,
    position_seed,
    seeds_tensor,
)
from kto_cli.evaluation.answers.records import prompt_seed

DRAWS = 40_000


def seeds(count: int, *, start: int = 0) -> torch.Tensor:
    return seeds_tensor([prompt_seed(0, [5, 6, 7])] * count, range(start, start + count))


def test_the_noise_is_gumbel():
    """Over positions and over the vocabulary, by Kolmogorov and Smirnov; and no value repeats more than by chance."""
    noise = gumbel(seeds(300), 400)
    assert noise.isfinite().all()
    for sample in (noise.flatten(), noise[:, 0], noise[0], noise[:, 399]):
        assert stats.kstest(sample.double().numpy(), "gumbel_r").pvalue > 1e-3


def test_noise_of_neighbouring_tokens_positions_and_prompts_is_independent():
    one = gumbel(seeds(DRAWS), 3)
    other = gumbel(seeds_tensor([prompt_seed(0, [5, 6, 8])] * DRAWS, range(DRAWS)), 3)
    moved = gumbel(seeds(DRAWS, start=1), 3)
    pairs = [(one[:, 0], one[:, 1]), (one[:, 0], other[:, 0]), (one[:, 0], moved[:, 0]), (one[:-1, 1], one[1:, 1])]
    for left, right in pairs[:2] + pairs[3:]:
        assert abs(stats.spearmanr(left.numpy(), right.numpy()).statistic) < 5 / math.sqrt(DRAWS)
    assert torch.equal(one[1:], moved[:-1]), "a position's noise is its own, wherever a batch begins"


def mixed(value: int) -> int:
    """MurmurHash3's finalizer in Python's integers."""
    value ^= value >> 16
    value = value * 0x85EBCA6B % 2**32
    value ^= value >> 13
    value = value * 0xC2B2AE35 % 2**32
    return value ^ value >> 16


def test_the_noise_is_the_hash_of_seed_and_token():
    """Wrap-around and signs of 32-bit arithmetic included: a stored answer is made again with the same bits."""
    some = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31), 123456789, -987654321], dtype=torch.int32)
    noise = gumbel(some, 300)
    for row, seed in enumerate(some.tolist()):
        for token in (0, 1, 17, 299):
            uniform = (mixed(mixed(mixed(token + 1) ^ seed % 2**32) ^ seed % 2**32) + 0.5) / 2**32
            expected = -math.log(-math.log1p(-min(uniform, 1 - 2**-24)))
            assert noise[row, token].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    ids = torch.randint(0, 300, (7, 20))
    assert torch.equal(gumbel(some, 300, ids), noise.gather(-1, ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("top_p", [1e-4, 0.5, 0.95, 0.9999])
@pytest.mark.parametrize("slope", [0.7, 1.3, 2.5])
def test_a_draw_from_the_likeliest_tokens_is_that_from_the_whole_vocabulary(slope, top_p, dtype):
    """Log-probs that fall with the log of the rank, as those of language: flat (the nucleus exceeds the candidates),
    usual and peaked ones. In bfloat16 many tokens are equally likely, also at the nucleus' edge."""
    rows, vocabulary = 60, 3 * CANDIDATES
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(vocabulary, generator=generator) for _ in range(rows)])
    logits = (-slope * torch.arange(1.0, vocabulary + 1).log()[order]).to(dtype)
    for start in range(5):
        some = seeds(rows, start=100 * start)
        plain = nucleus(logits.float() / 0.9, top_p) + gumbel(some, vocabulary)
        found = perturbed(logits, some, temperature=0.9, top_p=top_p)
        assert torch.equal(found.argmax(-1), plain.argmax(-1))


def test_shares_are_summed_in_integers_on_a_gpu():
    """Up to the 2^-40 that each share loses; torch has no deterministic cumulative sum of floats there."""
    shares = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
    exact = shares.double().cumsum(-1) - shares.double()
    assert (_before_in_integers(shares).double() - exact).abs().max() < 1e-7


@pytest.mark.parametrize(("top_p", "most"), [(0.95, 5), (1.0, 40)])
def test_a_draw_takes_few_operations_over_the_vocabulary(top_p, most):
    """Scores, their normalizer, the candidates; the noise of the whole vocabulary only without a nucleus. Sorting and
    hashing everything took 42 (33 at top-p 1), in 64-bit integers."""
    logits = -2.0 * torch.arange(1.0, 20 * CANDIDATES + 1).log().expand(4, -1).contiguous()
    wide: list[tuple[str, int]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **kwargs or {})
            some = found if isinstance(found, tuple | list) else [found]
            wide.extend(
                (str(func), one.element_size())
                for one in some
                if isinstance(one, torch.Tensor) and one.numel() == logits.numel()
            )
            return found

    perturbed(logits, seeds(4), temperature=0.7, top_p=top_p)
    with Watch():
        perturbed(logits, seeds(4), temperature=0.7, top_p=top_p)
    assert len(wide) <= most, wide
    assert max(size for _, size in wide) == 4, "no 64-bit integers"


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.95), (1.3, 0.6)])
def test_tokens_come_as_often_as_they_should(temperature, top_p):
    """Chi-square of 40,000 draws against a nucleus taken by hand, in float64."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0, -6.0])
    shares = (logits.double() / temperature).softmax(-1).tolist()
    kept, mass = {}, 0.0
    for token in sorted(range(8), key=lambda token: -shares[token]):
        if mass < top_p:
            kept[token] = shares[token]
            mass += shares[token]
    drawn = perturbed(logits.expand(DRAWS, 8), seeds(DRAWS), temperature=temperature, top_p=top_p).argmax(-1)
    counts = torch.bincount(drawn, minlength=8).tolist()
    assert sum(counts[token] for token in kept) == DRAWS, "nothing outside the nucleus"
    expected = [DRAWS * share / sum(kept.values()) for share in kept.values()]
    assert stats.chisquare([counts[token] for token in kept], expected).pvalue > 1e-3


def test_a_rare_token_is_rare():
    """A share of 4e-3 among 2,000 tokens: float32 noise must not cut its own tail."""
    logits = torch.zeros(1, 2000)
    logits[0, 17] = math.log(8.0)
    drawn = perturbed(logits.expand(5000, 2000), seeds(5000), temperature=1.0, top_p=1.0).argmax(-1)
    assert stats.binomtest(int((drawn == 17).sum()), 5000, 8 / 2007).pvalue > 1e-3
    assert len(set(drawn.tolist())) > 0.9 * 2000 * (1 - math.exp(-5000 / 2007)), "every token comes"


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 10_000)), min_size=1, max_size=6),
    vocabulary=st.integers(1, 50),
    order=st.randoms(use_true_random=False),
)
def test_a_draw_is_the_same_in_any_batch_and_order(rows, vocabulary, order):
    logits = torch.linspace(-1, 1, vocabulary).expand(len(rows), vocabulary)
    options = {"temperature": 0.7, "top_p": 0.9}
    together = perturbed(logits, seeds_tensor(*zip(*rows, strict=True)), **options)
    alone = [perturbed(logits[:1], seeds_tensor([seed], [position]), **options)[0] for seed, position in rows]
    assert torch.equal(together, torch.stack(alone))
    shuffled = list(range(len(rows)))
    order.shuffle(shuffled)
    again = perturbed(logits, seeds_tensor(*zip(*[rows[place] for place in shuffled], strict=True)), **options)
    assert torch.equal(again, together[shuffled])


def test_seeds_differ_by_seed_prompt_and_position():
    assert prompt_seed(0, [1, 23]) != prompt_seed(0, [12, 3])
    assert prompt_seed(0, [1]) != prompt_seed(1, [1])
    found = {position_seed(prompt_seed(0, [token]), position) for token in range(50) for position in range(100)}
    assert len(found) >= 4998, "32 bits: among 5,000 a chance of one in 350 for a pair"
    assert all(-(2**31) <= seed < 2**31 for seed in found)
    assert 0 <= prompt_seed(0, [1]) < 2**63


def test_the_nucleus_keeps_the_likeliest_and_what_reaches_the_share():
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.01, 1), (0.5, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 4)):
        assert nucleus(scores, top_p).isfinite().sum() == kept, top_p


def test_at_temperature_0_nothing_is_drawn():
    logits = torch.randn(3, 9)
    assert torch.equal(perturbed(logits, seeds(3), temperature=0.0, top_p=0.5), logits)
