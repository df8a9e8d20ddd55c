"""Sharded weights and optimizer moments: gathered, and loaded back, full or in slices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kto_cli.common.files import text_hash
from kto_cli.core.rounding import rounded_at_random
from kto_cli.model.distributed import zero

ReadRows = Callable[[str, int, int], Tensor]
"""(name, first row, row after the last) -> those rows of a stored tensor; one without dimensions is read as it is."""


def is_dtensor(tensor: Any) -> bool:
    """Whether FSDP2 shards the tensor."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def full(tensor: Any) -> Any:
    """A sharded tensor gathered (all processes must call); any other as it is."""
    if zero.is_partitioned(tensor):
        return zero.full(tensor)
    return tensor.detach().full_tensor() if is_dtensor(tensor) else tensor


def local_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """This process's rows of a DTensor, and which of its rows is the first of them (split as by torch.chunk)."""
    sharded: Any = tensor
    rows, processes = tensor.shape[0], sharded.device_mesh.size()
    return sharded.to_local(), min(sharded.device_mesh.get_local_rank() * -(-rows // processes), rows)


def gathered_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor] | None:
    """The full state dict of a sharded model, on the CPU, for processes that `keep` it; None if it is not sharded.

    All processes must call. Tied weights stay tied.
    """
    state = model.state_dict(keep_vars=True)
    if not any(is_dtensor(tensor) or zero.is_partitioned(tensor) for tensor in state.values()):
        return None
    seen: dict[int, Tensor] = {}
    for tensor in state.values():
        if id(tensor) not in seen:
            gathered = full(tensor)
            seen[id(tensor)] = gathered.cpu() if keep else torch.empty(0)
    return {name: seen[id(tensor)] for name, tensor in state.items()} if keep else {}


def flat_optimizer_state(optimizer: Any) -> dict[str, Tensor]:
    """AdamW's state as named tensors, sharded as it is: "3.exp_avg" is parameter 3's first moment."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def gathered_moments(optimizer: Any, *, keep: bool) -> dict[str, Tensor]:
    """`flat_optimizer_state` with sharded tensors gathered on the CPU for processes that `keep` them; all must call."""
    if isinstance(optimizer, zero.ZeroOptimizer):
        return zero.gathered_moments(optimizer)
    found = {}
    for name, value in flat_optimizer_state(optimizer).items():
        gathered = full(value)
        found[name] = gathered.cpu() if keep else torch.empty(0)
    return found


@torch.no_grad()
def put_rows(target: Tensor, name: str, read: ReadRows) -> None:
    """Fills a tensor, sharded or not, with the one stored under `name`."""
    local, first = local_rows(target) if is_dtensor(target) else (target, 0)
    local.copy_(read(name, first, first + (len(local) if local.ndim else 1)))


def put_weights(tensors: Mapping[str, Tensor], read: ReadRows) -> None:
    """Fills tensors, by the names they are stored under; all processes must call."""
    if any(map(zero.is_partitioned, tensors.values())):
        once = {id(tensor): name for name, tensor in tensors.items()}
        zero.put_weights({name: tensors[name] for name in once.values()}, lambda name: read(name, 0, sys.maxsize))
        return
    for name, tensor in tensors.items():
        put_rows(tensor, name, read)


def rounding_seed(seed: int, name: str) -> int:
    """Which values of a weight are rounded up."""
    return int(text_hash(str(seed), name), 16)


@torch.no_grad()
def round_weights(tensors: Mapping[str, Tensor], dtype_of: Callable[[str, Tensor], torch.dtype], seed: int) -> None:
    """Rounds tensors, sharded or not, to the dtypes they will be stored in, at random (core.rounding); all processes
    must call. Sharding changes no bit."""
    for name, tensor in tensors.items():
        salt = rounding_seed(seed, name)
        dtype = dtype_of(name, tensor)
        if dtype == tensor.dtype:
            continue
        if zero.is_partitioned(tensor):
            rounded = {name: rounded_at_random(zero.full(tensor), dtype, seed=salt).to(tensor.dtype)}
            zero.put_weights({name: tensor}, rounded.__getitem__)
        else:
            local, row = local_rows(tensor) if is_dtensor(tensor) else (tensor, 0)
            before = row * tensor.shape[1:].numel()
            local.copy_(rounded_at_random(local, dtype, seed=salt, first=before))


def put_moments(optimizer: Any, names: list[str], read: ReadRows) -> None:
    """Gives an optimizer the state stored as in `flat_optimizer_state`, sharded as its parameters; all must call."""
    if isinstance(optimizer, zero.ZeroOptimizer):
        zero.put_moments(optimizer, lambda name: read(name, 0, sys.maxsize))
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for stored in names:
        index, name = stored.split(".", 1)
        parameter = parameters[int(index)]
        if name != "step" and is_dtensor(parameter):
            value = torch.zeros_like(parameter)
            put_rows(value, stored, read)
        else:
            value = read(stored, 0, sys.maxsize)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
