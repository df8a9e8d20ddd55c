"""A checkpoint in slices: each process writes its rows of every tensor to a safetensors file of its own.

state-00000-of-00002.safetensors holds tensors named as in the model ("model.<name>") and in the optimizer
("optimizer.<parameter>.<moment>"); its metadata has the first row of each slice in the full tensor. Any number of
processes can read any rows back, whatever number wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.common import files
from kto_cli.common.read import open_tensors

PATTERN = "state-*-of-*.safetensors"


class Slice(NamedTuple):
    """Some rows (entries along the first dimension) of a tensor."""

    values: Tensor
    first_row: int = 0


class _Stored(NamedTuple):
    file: Any
    first_row: int
    rows: int


def slice_file(folder: Path, process: int, processes: int) -> Path:
    """The file of a process's slices."""
    return folder / f"state-{process:05d}-of-{processes:05d}.safetensors"


def write_slices(path: Path, slices: Mapping[str, Slice]) -> str:
    """Writes one process's slices; empty ones are skipped.

    Returns:
        The file's SHA-256.

    Raises:
        DiskFull: no space left.
    """
    from safetensors.torch import save_file

    kept = {name: part for name, part in slices.items() if part.values.numel()}
    with files.saying_disk_full(path):
        save_file(
            {name: part.values.detach().cpu().contiguous() for name, part in kept.items()},
            path,
            metadata={name: str(part.first_row) for name, part in kept.items()},
        )
        files.sync_file(path)
    return files.file_sha256(path)


class Slices:
    """A checkpoint in slices, read by rows."""

    def __init__(self, folder: Path) -> None:
        self._parts: dict[str, list[_Stored]] = {}
        for path in sorted(folder.glob(PATTERN)):
            file = open_tensors(path, "a slice of a checkpoint")
            for name, first in (file.metadata() or {}).items():
                shape = file.get_slice(name).get_shape()
                self._parts.setdefault(name, []).append(_Stored(file, int(first), shape[0] if shape else 1))

    def names(self, prefix: str) -> list[str]:
        """Names of tensors with this prefix, without it."""
        return [name.removeprefix(prefix) for name in self._parts if name.startswith(prefix)]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a full tensor, joined from the slices that have them."""
        found = []
        for part in sorted(self._parts[name], key=lambda part: part.first_row):
            low, high = max(start, part.first_row), min(stop, part.first_row + part.rows)
            stored = part.file.get_slice(name)
            if not stored.get_shape():
                return part.file.get_tensor(name)
            if low < high:
                found.append(stored[low - part.first_row : high - part.first_row])
        return torch.cat(found) if found else part.file.get_slice(name)[0:0]
