"""A make-believe accelerator on the CPU: what only a GPU would show, without one.

A PrivateUse1 back end in Python. Its tensors wrap CPU tensors, and every operation on them goes through `_run`, which

- counts it, as a GPU would launch a kernel for it (views cost nothing);
- refuses operands of both devices;
- records where the host waits for the device: numbers and tensors read back, sizes that depend on values, and copies to
  the device that are not `non_blocking`.

The backward pass runs in a thread of its own, as on CUDA. Autocast lowers matrix products. Importing this module
registers the back end for the rest of the process, so only subprocesses import it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "second"
_VIEWS = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand", "lift_fresh", "narrow",
    "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten",
    "unsqueeze", "view",
}  # fmt: skip
_WAITS = {"_local_scalar_dense", "_unique2", "equal", "is_nonzero", "masked_select", "nonzero", "unique_consecutive"}
"""Operations whose result the host needs before it can go on."""
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class MixedDevices(Exception):
    """An operation got tensors of both devices; CUDA would refuse it."""


@dataclass
class Record:
    """What a piece of code did with the device."""

    operations: Counter[str] = field(default_factory=Counter)
    """Kernels by name."""
    waits: list[str] = field(default_factory=list)
    """What the host waited for, and where."""
    transfers: list[str] = field(default_factory=list)
    """Copies to the device that the host did not wait for."""


_record = Record()


@contextmanager
def recording() -> Iterator[Record]:
    """A record of what happens inside, in all threads."""
    global _record
    before, _record = _record, Record()
    try:
        with _Factories():
            yield _record
    finally:
        _record = before


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, *_: Any) -> Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, *_: Any) -> None:
        pass

    def synchronize(self, *_: Any) -> None:
        _waits("synchronize")


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)


class OnDevice(Tensor):
    """A tensor of the device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Creation on the device and transfers to it, which have no tensor of the device among their operands."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _names_device(kwargs) or any(isinstance(leaf, OnDevice) for leaf in _tensors((args, kwargs))):
            return _run(operator, args, kwargs)
        return operator(*args, **kwargs)


def inner(value: Any) -> Any:
    """Nested values with CPU tensors in the place of the device's."""
    return _mapped(lambda leaf: leaf.inner if isinstance(leaf, OnDevice) else leaf, value)


def on_device(value: Any) -> Any:
    """Nested values with tensors of the device in the place of the CPU's."""
    return _mapped(lambda leaf: leaf if isinstance(leaf, OnDevice) else OnDevice(leaf), value)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Nested values with each tensor replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(function, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_mapped(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among nested values."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def kernel(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of CPU tensors as one operation of the device."""

    def run(*args: Any) -> Any:
        _record.operations[name] += 1
        return on_device(function(*inner(args)))

    return run


def _run(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operator._schema.name.split("::")[1]
    leaves = list(_tensors((args, kwargs)))
    from_device = any(isinstance(leaf, OnDevice) for leaf in leaves)
    if name in ("_to_copy", "to") and "device" in kwargs:
        to_device = _names_device(kwargs)
        if to_device != from_device:
            _transfer(name, to_device, bool(kwargs.get("non_blocking")))
        result = operator(*inner(args), **inner({**kwargs, "device": torch.device("cpu")}))
        _record.operations[name] += to_device and from_device
        return on_device(result) if to_device else result
    if name == "copy_":
        to_device, source = isinstance(args[0], OnDevice), isinstance(args[1], OnDevice)
        if to_device != source:
            _transfer(name, to_device, bool(args[2] if len(args) > 2 else kwargs.get("non_blocking")))
    elif from_device:
        _refuse_mixed(name, args, leaves)
    if name in _WAITS:
        _waits(name)
    if _names_device(kwargs):
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": False} if "pin_memory" in kwargs else {})}
    result = on_device(operator(*inner(args), **inner(kwargs)))
    if name not in _VIEWS:
        _record.operations[name] += 1
    return return_and_correct_aliasing(operator, args, kwargs, result) if from_device else result


def _refuse_mixed(name: str, args: Any, leaves: list[Tensor]) -> None:
    """Scalars of the CPU may meet tensors of the device, and so may indices, which are then copied and waited for."""
    indices = [index for index in args[1] if index is not None] if name in _INDEXING else []
    for index in indices:
        if not isinstance(index, OnDevice):
            _waits(f"{name} by an index of the CPU")
        if index.dtype == torch.bool:
            _waits(f"{name} by a mask")
    for leaf in leaves:
        if not isinstance(leaf, OnDevice) and leaf.dim() and all(leaf is not index for index in indices):
            raise MixedDevices(f"{name} of both devices, the CPU's of shape {tuple(leaf.shape)}, at {_here()}")


def _names_device(kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == NAME


def _transfer(name: str, to_device: bool, non_blocking: bool) -> None:
    if to_device and non_blocking:
        _record.transfers.append(_here())
    else:
        _waits(f"{name} {'to the device' if to_device else 'to the host'}")


def _waits(what: str) -> None:
    _record.waits.append(f"{what} at {_here()}")


def _here() -> str:
    """The line of kto, transformers or an optimizer that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None and not re.search("kto_cli/|transformers/|torch/optim/", frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return "a place outside of kto"
    file = re.split("site-packages/|kto_cli/", frame.f_code.co_filename)[-1]
    return f"{file}:{frame.f_lineno} {frame.f_code.co_name}"


# --- what the dispatcher itself needs: memory, copies, autocast -----------------------------------------------------

_aten = torch.library.Library("aten", "IMPL")


def _empty(size: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return OnDevice(torch.empty(size, dtype=dtype or torch.get_default_dtype()))


def _empty_strided(size: Any, stride: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype or torch.get_default_dtype()))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if isinstance(source, OnDevice) != isinstance(target, OnDevice):
        _transfer("copy", isinstance(target, OnDevice), non_blocking)
    inner(target).copy_(inner(source))
    return target


_aten.impl("empty.memory_format", _empty, "PrivateUse1")
_aten.impl("empty_strided", _empty_strided, "PrivateUse1")
_aten.impl("_copy_from", _copy_from, "PrivateUse1")

_others = torch.library.Library("_", "IMPL")
_others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_autocast_key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _lowered(operator: Any) -> Callable[..., Any]:
    """The operator in autocast's type, as CUDA computes matrix products and attention."""

    def cast(leaf: Tensor) -> Tensor:
        lower = leaf.dtype == torch.float32 and leaf.device.type == NAME
        return leaf.to(torch.get_autocast_dtype(NAME)) if lower else leaf

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_autocast_key):
            args, kwargs = _mapped(cast, (args, kwargs))
            return operator(*args, **kwargs)

    return run


for _name in ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention"):
    _aten.impl(_name, _lowered(getattr(torch.ops.aten, _name).default), "AutocastPrivateUse1")
