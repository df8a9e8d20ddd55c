"""What a model takes: bytes of tensors, of what is kept for a backward pass, of files, and what is free."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kto_cli.core.logps import GPU_TILE, TILE


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, memory that several share counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def learning(model: Any) -> list[Tensor]:
    """The parameters that have gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class SavedForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps from a forward pass for its backward pass; `most` is the largest count.

    Tensors that share memory count once. The count starts anew with the first tensor kept after a backward pass began:
    that is the next micro-batch. Weights, which are there anyway, do not count.
    """

    def __init__(self) -> None:
        super().__init__(self._keep, self._give_back)
        self.most = 0
        self._seen: set[int] = set()
        self._bytes = 0
        self._backward = False

    def _keep(self, tensor: Tensor) -> Tensor:
        if self._backward:
            self._seen, self._bytes, self._backward = set(), 0, False
        storage = tensor.untyped_storage()
        if not (tensor.is_leaf and tensor.requires_grad) and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._bytes += storage.nbytes()
            self.most = max(self.most, self._bytes)
        return tensor.detach()  # the tensor itself would keep its own graph alive

    def _give_back(self, tensor: Tensor) -> Tensor:
        self._backward = True
        return tensor


def logits_tile_bytes(model: Any) -> int:
    """Logits that are held at once, float32, and their gradient."""
    return 2 * 4 * (GPU_TILE if model.device.type == "cuda" else TILE)


def tokenizer_bytes(folder: Path) -> int:
    """The files beside the weights that a checkpoint holds too."""
    kept = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
    return sum(path.stat().st_size for pattern in kept for path in folder.glob(pattern) if path.is_file())


def free_memory(device: torch.device) -> int:
    """Bytes a process can still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
