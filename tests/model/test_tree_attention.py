"""Attention over prefix trees against a softmax over each token's own path, in float64."""

from __future__ import annotations

import pytest
import torch
from paths import HEADS, conversations, heads, naive, operands

from kto_cli.core.batches import continuation, pack
from kto_cli.core.rows import TokenSequence
from kto_cli.model.segment_attention import Attend, segment_attention
from kto_cli.model.tree_attention import supports, tree_attention

has_kernel = supports(*operands(pack(conversations(0))[0], 0))
needs_kernel = pytest.mark.skipif(not has_kernel, reason="this torch's CPU kernel does not group heads")


@needs_kernel
@pytest.mark.parametrize("seed", range(25))
def test_it_is_the_softmax_over_each_path(seed: int):
    """Output and all three gradients, to rounding of float64."""
    batch, _ = pack(conversations(seed))
    ours, theirs = ([part.requires_grad_() for part in operands(batch, seed)] for _ in range(2))
    found, expected = tree_attention(*ours, batch.layout), naive(*theirs, batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = heads(batch.input_ids.numel(), HEADS, 99)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-11, atol=1e-12)


@needs_kernel
@pytest.mark.parametrize("seed", range(10))
def test_a_continuation_reads_the_batch_before(seed: int):
    some = conversations(seed)
    first, prompts = pack(some)
    _, key, value = operands(first, seed)
    batch = continuation(
        [TokenSequence(row.prompt, other.completion) for row, other in zip(some, reversed(some), strict=True)], prompts
    )
    own = operands(batch, seed + 100)
    found = tree_attention(*own, batch.layout, (key, value))
    torch.testing.assert_close(found, naive(*own, batch, (key, value)), rtol=1e-12, atol=1e-12)


@needs_kernel
@pytest.mark.slow
def test_its_gradient_is_the_numeric_one():
    batch, _ = pack(conversations(3))
    some = [part.requires_grad_() for part in operands(batch, 1)]
    assert torch.autograd.gradcheck(lambda *parts: tree_attention(*parts, batch.layout, None, 0.5), some)


@needs_kernel
def test_bfloat16_is_computed_in_float32():
    """Output and gradients are those of the same numbers in float32, rounded once."""
    batch, _ = pack(conversations(5))
    low = [part.requires_grad_() for part in operands(batch, 1, torch.bfloat16)]
    high = [part.detach().float().requires_grad_() for part in low]
    found, exact = (tree_attention(*some, batch.layout) for some in (low, high))
    assert torch.equal(found, exact.bfloat16())
    torch.testing.assert_close(exact.double(), naive(*[part.double() for part in low], batch), rtol=0, atol=1e-5)
    gradient = heads(batch.input_ids.numel(), HEADS, 99).bfloat16()
    for mine, theirs in zip(
        torch.autograd.grad(found, low, gradient), torch.autograd.grad(exact, high, gradient.float()), strict=True
    ):
        torch.testing.assert_close(mine.float(), theirs, rtol=2**-7, atol=1e-2)


@pytest.mark.parametrize("window", [None, 4])
def test_the_walk_over_segments_agrees(window: int | None):
    """What other devices, soft caps and cut windows take; with a window, a token sees the last 4 of its path."""
    batch, _ = pack(conversations(7))
    some = operands(batch, 1)
    attend = Attend(None, window, None, {})
    found = segment_attention(*some, batch.layout, None, attend).transpose(1, 2)
    expected = naive(*some, batch, window=window)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_this_torch_has_the_kernel():
    """Else everything above would still be right, by the walk, and slower in silence."""
    assert has_kernel
