"""SplitAdamW against float32 and float64 AdamW, and every optimizer's state through a checkpoint file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import TrainConfig
from kto_cli.core import optimizers
from kto_cli.core.optimizers import SplitAdamW, join_halves, split_halves
from kto_cli.model.distributed.gathering import flat_optimizer_state, put_moments
from kto_cli.model.precision import keep_float32_gradients
from kto_cli.training.optimizer import make_optimizer

SIZE = 500


def start() -> torch.Tensor:
    """Weights that bfloat16 holds exactly, of the size they have in a language model."""
    return (0.02 * torch.randn(SIZE, generator=torch.Generator().manual_seed(0))).bfloat16()


def after(make: Callable[..., Any], dtype: torch.dtype, updates: int = 2000) -> tuple[torch.Tensor, Any]:
    """The weights after `updates` of 1e-6 at most each along noisy gradients, and the optimizer."""
    parameter = torch.nn.Parameter(start().to(dtype, copy=True))
    optimizer = make([parameter], lr=1e-6, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    drift = torch.randn(SIZE, generator=generator)
    for number in range(updates):
        scale = 1e-4 if number < updates // 2 else 1e-5  # smaller later: the second moment must be able to shrink
        gradient = scale * (torch.randn(SIZE, generator=generator) + 0.5 * drift)
        parameter.grad = gradient.bfloat16().to(dtype)
        optimizer.step()
    return parameter.detach(), optimizer


def test_halves_hold_every_float32():
    """join(split(x)) is x bit for bit, ties, denormals and signed zeros included; the upper half is the nearest."""
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-35, 35, (100_000,), generator=generator)
    usual = torch.randn(100_000, generator=generator) * 10.0**exponents
    ties = torch.tensor([1 + 2**-8, -1 - 2**-8, 1 + 3 * 2**-8, 0.0, -0.0, 1e-45, -1e-45])
    whole = torch.cat([usual, ties])
    upper, lower = torch.empty_like(whole, dtype=torch.bfloat16), torch.empty_like(whole, dtype=torch.int16)
    split_halves(whole, upper, lower)
    assert torch.equal(join_halves(upper, lower).view(torch.int32), whole.view(torch.int32))
    assert torch.equal(upper[: len(usual)], usual.bfloat16())


def test_tiny_updates_are_kept():
    """2,000 updates of 1e-6: AdamW on bfloat16 weights stays where it was (it misses 99 % of the way), SplitAdamW ends
    at the bfloat16 numbers nearest to float64 AdamW's weights, with the whole ones within 0.2 % of the way."""
    exact, _ = after(torch.optim.AdamW, torch.float64)
    way = (exact - start().double()).norm()
    lost, _ = after(torch.optim.AdamW, torch.bfloat16)
    assert (lost.double() - exact).norm() > 0.9 * way
    kept, optimizer = after(SplitAdamW, torch.bfloat16)
    (state,) = optimizer.state.values()
    assert (join_halves(kept, state["low_bits"]).double() - exact).norm() < 2e-3 * way
    assert (kept == exact.bfloat16()).float().mean() > 0.99


def test_chunks_change_nothing(monkeypatch):
    """Cut in pieces of 64 numbers, with an odd last one: the same bits."""
    whole, _ = after(SplitAdamW, torch.bfloat16, updates=50)
    monkeypatch.setattr(optimizers, "CHUNK_ELEMENTS", 64)
    cut, _ = after(SplitAdamW, torch.bfloat16, updates=50)
    assert torch.equal(whole, cut)


def test_split_adamw_wants_bfloat16():
    with pytest.raises(ValueError, match=r"bfloat16 parameters, not torch\.float32"):
        SplitAdamW([torch.zeros(2)])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("adamw", torch.float32),
        ("adamw", torch.bfloat16),
        ("adamw-8bit", torch.float32),
        ("paged-adamw-8bit", torch.float32),
        ("rmsprop", torch.float32),
    ],
)
def test_state_goes_through_a_file_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path):
    """Saved after 3 of 6 updates, loaded into a new optimizer: the weights of 6 updates without a break."""
    if "8bit" in name:
        pytest.importorskip("bitsandbytes")
    from safetensors.torch import load_file, save_file

    def begin(weights: torch.Tensor) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(weights.clone())
        return parameter, make_optimizer(name, [parameter], learning_rate=1e-3, device=torch.device("cpu"))

    def go_on(parameter: Any, optimizer: Any, steps: range) -> None:
        for step in steps:
            parameter.grad = torch.randn(8192, generator=torch.Generator().manual_seed(step)).to(dtype)
            optimizer.step()

    unbroken, optimizer = begin(torch.ones(8192, dtype=dtype))
    go_on(unbroken, optimizer, range(6))
    stopped, optimizer = begin(torch.ones(8192, dtype=dtype))
    go_on(stopped, optimizer, range(3))
    save_file(flat_optimizer_state(optimizer), tmp_path / "optimizer.safetensors")
    resumed, optimizer = begin(stopped.detach())
    stored = load_file(tmp_path / "optimizer.safetensors")
    put_moments(optimizer, list(stored), lambda name, *_: stored[name])
    go_on(resumed, optimizer, range(3, 6))
    assert torch.equal(resumed, unbroken)


def test_gradients_add_up_in_float32():
    """256 + 1 is 256 in bfloat16: of 257 gradients of 1, one would be lost."""
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    keep_float32_gradients(layer)
    for _ in range(257):
        layer(torch.ones(1, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad.item() == 257


def test_missing_bitsandbytes_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(BadInput, match=r"pip install .*\[bitsandbytes\]"):
        make_optimizer("adamw-8bit", [torch.zeros(1)], learning_rate=1e-3, device=torch.device("cpu"))


@pytest.mark.parametrize("name", ["adamw-8bit", "rmsprop"])
def test_other_optimizers_do_not_go_with_bfloat16_weights(name: str):
    with pytest.raises(BadInput, match="too small for bfloat16 weights"):
        TrainConfig(dtype="bfloat16-pure", optimizer=name)


def test_rmsprop_as_written():
    """w - rate * g / (sqrt(v) + 1e-8), v a running mean of g^2 with weight 0.01 for the last."""
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = make_optimizer("rmsprop", [weight], learning_rate=0.1, device=torch.device("cpu"))
    expected, mean = weight.detach().double().clone(), torch.zeros(2).double()
    for gradient in ([3.0, -4.0], [1.0, 0.5]):
        weight.grad = torch.tensor(gradient)
        mean = 0.99 * mean + 0.01 * torch.tensor(gradient).double() ** 2
        expected -= 0.1 * torch.tensor(gradient).double() / (mean.sqrt() + 1e-8)
        optimizer.step()
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=0)


def test_nothing_is_copied_between_host_and_device():
    """Each copy from the host would make it wait for the device, once a chunk. The meta device stands in for one: its
    tensors have no numbers, and the update of one chunk is left out, for torch has it on real devices alone."""
    parameter = torch.nn.Parameter(torch.zeros(40, dtype=torch.bfloat16, device="meta"))
    optimizer = SplitAdamW([parameter])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "CHUNK_ELEMENTS", 8)
        patch.setattr(optimizers, "adamw", lambda *tensors, **_: devices.update(t[0].device.type for t in tensors if t))
        devices: set[str] = set()
        parameter.grad = torch.zeros_like(parameter)
        with HostCopies() as copies:
            optimizer.step()
    assert devices == {"meta"}
    assert copies.count == 0


class HostCopies(TorchDispatchMode):
    """Counts operations that read tensors of one device and write one of another."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kinds = {each.device.type for each in tree_leaves((args, result)) if isinstance(each, torch.Tensor)}
        self.count += len(kinds) > 1
        return result
