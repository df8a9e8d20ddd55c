"""Token log-probs from hidden states: values, gradients, and that [batch, time, vocab] never exists."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from pico import build, sequences
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kto_cli.core import logps
from kto_cli.core.batches import pad
from kto_cli.core.logps import Head, sequence_logps, token_logps
from kto_cli.model.scorer import CompletionScorer

COMBINATIONS = [(bias, scale, softcap) for bias in (False, True) for scale in (1.0, 0.3) for softcap in (None, 2.5)]


def made_up(
    bias: bool, count: int = 11, vocab: int = 17, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """hidden, targets (some repeated), weight, bias."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    targets = torch.randint(vocab, (count,), generator=generator)
    return noise(count, 6), targets, noise(vocab, 6), noise(vocab) if bias else None


def naive_logps(hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = head.scale * logits
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.stack([row.log_softmax(-1)[target] for row, target in zip(logits, targets, strict=True)])


def gradients(value: Tensor, inputs: Iterable[Tensor | None]) -> list[Tensor]:
    """Of a sum in which each token has its own factor."""
    factors = torch.linspace(-1, 2, len(value), dtype=value.dtype)
    return list(torch.autograd.grad((value * factors).sum(), [each for each in inputs if each is not None]))


@pytest.fixture(params=[(1, 1), (3, 5), (4, 17), (11, 17)], ids="{0[0]} x {0[1]}".format)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """11 rows and 17 tokens in tiles of one logit, in ragged ones, in some rows of all tokens, and at once."""
    rows, tokens = request.param
    monkeypatch.setattr(logps, "TILE", rows * tokens)
    monkeypatch.setattr(logps, "TILE_VOCABULARY", tokens)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize(("bias", "scale", "softcap"), COMBINATIONS)
def test_values_and_gradients_equal_the_naive_ones(bias: bool, scale: float, softcap: float | None):
    hidden, targets, weight, offset = made_up(bias)
    head = Head(weight, offset, scale, softcap)
    ours, naive = token_logps(hidden, targets, head), naive_logps(hidden, targets, head)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-12)
    inputs = (hidden, weight, offset)
    for mine, theirs in zip(gradients(ours, inputs), gradients(naive, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("bias", "scale", "softcap"), COMBINATIONS)
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, bias: bool, scale: float, softcap: float | None):
    """Against finite differences, in tiles of 2 rows x 3 tokens; the naive version shares no code, this no formula."""
    monkeypatch.setattr(logps, "TILE", 2 * 3)
    monkeypatch.setattr(logps, "TILE_VOCABULARY", 3)
    hidden, targets, weight, offset = made_up(bias, count=5, vocab=7)
    inputs = (hidden, weight) if offset is None else (hidden, weight, offset)

    def values(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return token_logps(hidden, targets, Head(weight, bias, scale, softcap))

    assert torch.autograd.gradcheck(values, inputs)


def test_frozen_head_gets_no_gradient():
    hidden, targets, weight, _ = made_up(False)
    token_logps(hidden, targets, Head(weight.detach())).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_inputs_are_left_as_they_are():
    hidden, targets, weight, offset = made_up(True)
    before = [each.detach().clone() for each in (hidden, weight, offset) if each is not None]
    token_logps(hidden, targets, Head(weight, offset, 0.5, 3.0)).sum().backward()
    for old, new in zip(before, (hidden, weight, offset), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)


def test_huge_logits_stay_finite():
    """Logits of +-3000: exp overflows in any float; the log-prob of the largest is 0, of the other -6000."""
    hidden, weight = torch.tensor([[3000.0], [3000.0]]), torch.tensor([[1.0], [-1.0]])
    assert token_logps(hidden, torch.tensor([0, 1]), Head(weight)).tolist() == [0.0, -6000.0]


def test_bfloat16_in_float32_out():
    """bfloat16 inputs are exact; only their product is rounded, to 2^-9 of a logit of at most about 8: 0.02."""
    hidden, targets, weight, offset = made_up(True, dtype=torch.bfloat16)
    head = Head(weight, offset)
    assert offset is not None
    exact_inputs = [each.detach().double().requires_grad_() for each in (hidden, weight, offset)]
    exact = naive_logps(exact_inputs[0], targets, Head(exact_inputs[1], exact_inputs[2]))
    found = token_logps(hidden, targets, head)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=0.03)
    pairs = zip(gradients(found, (hidden, weight, offset)), gradients(exact, exact_inputs), strict=True)
    for mine, theirs in pairs:
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.double(), theirs, rtol=0.02, atol=0.05)


def test_sequence_logps_adds_what_belongs_together():
    values, rows = torch.tensor([1.0, 2, 4, 8, 16]), torch.tensor([0, 2, 0, 2, 2])
    assert sequence_logps(values, rows, 4).tolist() == [5, 0, 26, 0]


# --- memory -------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Watches every tensor any operation gives, forward and backward, and keeps the largest element count."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.numel())
                self.operations += 1
        return output


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi"])
def test_no_tensor_is_as_large_as_the_logits(monkeypatch: pytest.MonkeyPatch, family: str):
    """Vocabulary 5,000, hidden 32: the head has 160,000 weights. 4 sequences of 65 tokens, the last of which predicts
    nothing, 41 of them completion: all logits are 4 * 64 * 5,000 = 1,280,000, those of the completions 820,000, a tile
    20,000. Nothing may be larger than the head. One sequence's own logits (64 * 5,000) are, so reading the model
    plainly must be seen."""
    batch, time, vocab, tile = 4, 64, 5000, 20_000
    monkeypatch.setattr(logps, "TILE", tile)
    model = build(family, vocab_size=vocab)
    padded = pad(sequences([(24, 41)] * batch, vocab=vocab))
    assert padded.input_ids.shape == (batch, time)
    largest_weight = max(parameter.numel() for parameter in model.parameters())
    assert largest_weight == 32 * vocab
    seen = {}
    for plain in (False, True):
        scorer = CompletionScorer(model)
        scorer.plain = plain
        with Largest() as watcher:
            scorer(*padded).sum().backward()
        assert watcher.operations > 100
        seen[plain] = watcher.elements
    assert seen[False] <= max(largest_weight, tile)
    assert seen[True] >= 63 * vocab


def test_tile_is_bounded_whatever_the_vocabulary(monkeypatch: pytest.MonkeyPatch):
    """Many predicted tokens: 3,000 x 50 logits in tiles of 1,000 never exist at once; the inputs are smaller still."""
    monkeypatch.setattr(logps, "TILE", 1000)
    hidden, targets, weight, offset = made_up(True, count=3000, vocab=50)
    with Largest() as watcher:
        token_logps(hidden, targets, Head(weight, offset, 0.5, 3.0)).sum().backward()
    assert watcher.elements == hidden.numel() == 18_000


def test_tokens_are_summed_in_float64():
    """8,000 log-probs of about -5: a float32 sum of -40,000 moves in steps of 0.004 and is off by hundredths; this one
    is that of the same values in float64, in whatever order they come."""
    values = -5 - torch.rand(8000, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(8000, dtype=torch.int64)
    exact = math.fsum(values.tolist())
    assert abs(values.flip(0).cumsum(0)[-1].item() - exact) > 1e-3
    for some in (values, values.flip(0)):
        assert sequence_logps(some, rows, 1).item() == pytest.approx(exact, abs=1e-9)


# --- logits in float32 from bfloat16 numbers ----------------------------------------------------


def test_float32_logits_are_chosen_by_what_torch_has_for_the_device(monkeypatch: pytest.MonkeyPatch):
    """torch has the product for CUDA alone, and none at all before 2.8; AMD's GPUs are "cuda" too."""
    asked = []

    def has_kernel(name: str, key: str) -> bool:
        asked.append((name, key))
        return key == "CUDA"

    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", has_kernel)
    monkeypatch.setattr(logps, "gives_float32", logps.gives_float32.__wrapped__)
    assert [logps.gives_float32(kind) for kind in ("cuda", "cpu", "mps")] == [True, False, False]
    assert asked[0] == ("aten::mm.dtype", "CUDA")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not logps.gives_float32("cuda")

    def no_such(*_: str) -> bool:
        raise RuntimeError("operator aten::mm.dtype does not exist")

    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", no_such)
    assert not logps.gives_float32("cuda")


def test_what_rounding_logits_costs(monkeypatch: pytest.MonkeyPatch):
    """140 tokens, logits of a standard deviation of 8 (the token's own about 30): rounded to bfloat16 a completion is
    off by tenths of a nat, with float32 logits by less than 0.001. A stand-in computes CUDA's product."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(140, 256, generator=generator).bfloat16()
    weight = (0.5 * torch.randn(1000, 256, generator=generator)).bfloat16()
    targets = (hidden.float() @ weight.float().T).argmax(-1)
    exact = token_logps(hidden.double(), targets, Head(weight.double()))

    def error() -> float:
        """Standard deviation of the completion's error in nats: each token's is random."""
        return float((token_logps(hidden, targets, Head(weight)).double() - exact).norm())

    rounded = error()
    plain_mm = torch.mm

    def in_float32(left: Tensor, right: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        return plain_mm(left, right) if out_dtype is None else plain_mm(left.to(out_dtype), right.to(out_dtype))

    monkeypatch.setattr(logps, "gives_float32", lambda kind: True)
    monkeypatch.setattr(torch, "mm", in_float32)
    assert 0.1 < rounded < 1
    assert error() < 1e-3
