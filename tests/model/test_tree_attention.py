"""Attention over prefix trees against a softmax over each token's own path, in float64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from kto_cli.core.batches import Batch, continuation, pack
from kto_cli.core.rows import TokenSequence
from kto_cli.model import attention
from kto_cli.model.tree_attention import supports, tree_attention

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def conversations(seed: int) -> list[TokenSequence]:
    """Up to 12 rows, each prompt new, repeated, or a continuation of another row; paths of up to 5 turns."""
    draw = random.Random(seed)

    def tokens() -> tuple[int, ...]:
        return tuple(draw.randint(1, 3) for _ in range(draw.randint(1, 7)))

    some = [TokenSequence(tokens(), tokens())]
    for _ in range(draw.randint(0, 11)):
        prompt, completion = draw.choice(some)
        root = draw.choice([(), prompt, prompt + completion])
        some.append(TokenSequence(root + tokens() if draw.random() < 0.7 or not root else root, tokens()))
    return some


def heads(tokens: int, count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, tokens, WIDTH, generator=generator, dtype=torch.float64).to(dtype)


def naive(query: Tensor, key: Tensor, value: Tensor, batch: Batch, past: tuple[Tensor, Tensor] | None) -> Tensor:
    """One token at a time: softmax over its path."""
    outputs = []
    for start, stop, prefix in batch.layout.segments:
        for token in range(start, stop):
            keys, values = [], []
            for span in prefix:
                for found, of in zip((keys, values), past if span.past else (key, value), strict=True):
                    found.append(of[:, :, span.start : span.stop])
            keys, values = (
                torch.cat([*found, of[:, :, start : token + 1]], 2).repeat_interleave(HEADS // KEY_HEADS, 1)
                for found, of in ((keys, key), (values, value))
            )
            weights = (query[:, :, token : token + 1] @ keys.transpose(2, 3) * WIDTH**-0.5).softmax(-1)
            outputs.append(weights @ values)
    return torch.cat(outputs, 2)


def operands(batch: Batch, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    tokens = batch.input_ids.numel()
    counts = (HEADS, KEY_HEADS, KEY_HEADS)
    return [heads(tokens, count, 3 * seed + index, dtype) for index, count in enumerate(counts)]


@pytest.mark.parametrize("seed", range(25))
def test_it_is_the_softmax_over_each_path(seed: int):
    """Output and all three gradients, to rounding of float64."""
    batch, _ = pack(conversations(seed))
    ours, theirs = ([part.requires_grad_() for part in operands(batch, seed)] for _ in range(2))
    found, expected = tree_attention(*ours, batch.layout), naive(*theirs, batch, None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = heads(batch.input_ids.numel(), HEADS, 99)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-11, atol=1e-12)


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


def test_its_gradient_is_the_numeric_one():
    batch, _ = pack(conversations(3))
    some = [part.requires_grad_() for part in operands(batch, 1)]
    assert torch.autograd.gradcheck(lambda *parts: tree_attention(*parts, batch.layout, None, 0.5), some)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_lower_precision(dtype: torch.dtype, near: float):
    """bfloat16 rounds a part's output once more than one softmax would: 2^-8 of values of about 1."""
    batch, _ = pack(conversations(5))
    some = operands(batch, 1, dtype)
    found = tree_attention(*some, batch.layout)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), naive(*[part.double() for part in some], batch, None), rtol=0, atol=near)


@pytest.mark.parametrize("window", [None, 4])
def test_the_walk_over_segments_agrees(window: int | None):
    """What other devices, soft caps and cut windows take; with a window, a token sees the last 4 of its path."""
    batch, _ = pack(conversations(7))
    some = operands(batch, 1)
    attend = attention._Attend(None, window, None, {})
    found = attention._walk(*some, batch.layout, None, attend).transpose(1, 2)
    expected = windowed(*some, batch, window) if window else tree_attention(*some, batch.layout)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def windowed(query: Tensor, key: Tensor, value: Tensor, batch: Batch, window: int) -> Tensor:
    """`naive` over the last tokens of each path."""
    outputs: list[Any] = []
    for start, stop, prefix in batch.layout.segments:
        before = [index for span in prefix for index in range(span.start, span.stop)]
        for token in range(start, stop):
            path = [*before, *range(start, token + 1)][-window:]
            keys, values = (of[:, :, path].repeat_interleave(HEADS // KEY_HEADS, 1) for of in (key, value))
            weights = (query[:, :, token : token + 1] @ keys.transpose(2, 3) * WIDTH**-0.5).softmax(-1)
            outputs.append(weights @ values)
    return torch.cat(outputs, 2)


def test_this_torch_has_the_kernel():
    """Else everything above would still be right, by the walk, and slower in silence."""
    assert supports(*operands(pack(conversations(0))[0], 0))
