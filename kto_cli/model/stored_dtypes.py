"""The dtypes that a model's weights have on disk, which the model trained from it has again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.common.read import open_tensors
from kto_cli.model.folder import weights_files

_NAMES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class StoredDtypes(NamedTuple):
    """Dtypes of stored weights."""

    main: torch.dtype
    """That of most of them."""
    others: Mapping[str, torch.dtype]
    """Those that have another one, by name."""

    def of(self, name: str, tensor: Tensor) -> torch.dtype:
        """The dtype in which a weight is stored; one that is held in less than float32 stays as it is."""
        return self.others.get(name, self.main) if tensor.dtype == torch.float32 else tensor.dtype

    def name_for(self, model: Any) -> str:
        """The dtype that most of a model's weights will be stored in, such as bfloat16."""
        sizes: Counter[torch.dtype] = Counter()
        for name, tensor in model.named_parameters():
            sizes[self.of(name, tensor)] += tensor.numel()
        return str(sizes.most_common(1)[0][0]).removeprefix("torch.")

    def bytes_of(self, model: Any) -> int:
        """Bytes of a model's weights as they will be stored; memory that several share counts once."""
        return sum(each.numel() * self.of(name, each).itemsize for name, each in model.named_parameters())


def stored_dtypes(folder: Path) -> StoredDtypes:
    """The dtypes in the safetensors files of a model folder; float32 where they name none that kto writes."""
    found: dict[str, torch.dtype] = {}
    sizes: Counter[torch.dtype] = Counter()
    for path in weights_files(folder):
        with open_tensors(path, "the model's weights") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                part = file.get_slice(name)
                if (dtype := _NAMES.get(part.get_dtype())) is not None:
                    found[name] = dtype
                    sizes[dtype] += torch.Size(part.get_shape()).numel()
    main = sizes.most_common(1)[0][0] if sizes else torch.float32
    return StoredDtypes(main, {name: dtype for name, dtype in found.items() if dtype != main})
