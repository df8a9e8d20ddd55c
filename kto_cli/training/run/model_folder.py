"""A Hugging Face model folder, written: weights, config, tokenizer, and what else belongs to the source model.

A finished model loads wherever its source did, so the folder also gets the source's files that transformers does not
write again: processor configs, vocabularies in the formats of other libraries, and the model's own code.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.errors import BadInput, BadModel, DiskFull, first_line
from kto_cli.common.files import saying_disk_full
from kto_cli.common.read import read_json
from kto_cli.model import lora
from kto_cli.model.stored_dtypes import StoredDtypes

BELONGING = (
    "*processor_config.json",
    "*tokenizer*",
    "token*",
    "vocab*",
    "merges*",
    "special_tokens*",
    "added_tokens*",
    "*.model",
    "*.tiktoken",
    "*.spm",
    "tekken.json",
)
"""Files of a source model that belong into a finished one as they are, unless transformers writes them. Not its
chat_template.json: beside the chat_template.jinja that is written, transformers refuses it."""
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class ModelWriter:
    """Writes the model folders of a run: those of its checkpoints and the finished one."""

    source: Path
    """Folder of the model that the run starts from."""
    tokenizer: Any
    stored: StoredDtypes
    """Dtypes of the source's weights."""

    def write(self, folder: Path, model: Any, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Writes a complete model folder; of a model with adapters an adapter folder.

        Args:
            weights: in place of the model's own, if those are sharded.
        """
        if lora.is_adapted(model):
            lora.save(folder, model, weights)
        else:
            with self._plain_generation(model):
                model.save_pretrained(folder, max_shard_size="50GB", state_dict=weights)
        self._write_tokenizer(folder)

    def write_finished(self, folder: Path, model: Any, weights: dict[str, torch.Tensor] | None = None) -> None:
        """`write`, with the weights in the dtypes of the source's: a bfloat16 model of 2 GB stays one of 2 GB."""
        if lora.is_adapted(model):
            self.write(folder, model, weights)
            return
        self.write(folder, model, self._as_stored(model.state_dict() if weights is None else weights))
        _set_dtype(folder / "config.json", self.stored.name_for(model))

    def _as_stored(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights in their stored dtypes; tied ones stay tied."""
        cast: dict[Any, torch.Tensor] = {}
        found = {}
        for name, tensor in weights.items():
            dtype = self.stored.of(name, tensor)
            key = tensor.data_ptr(), tensor.shape, dtype
            if key not in cast:
                cast[key] = tensor.to(dtype)
            found[name] = cast[key]
        return found

    def write_without_weights(self, folder: Path, model: Any) -> None:
        """Writes the model folder but its weights."""
        model.config.save_pretrained(folder)
        if not lora.is_adapted(model) and model.can_generate():
            with self._plain_generation(model):
                model.generation_config.save_pretrained(folder)
        self._write_tokenizer(folder)

    def try_out(self, model: Any) -> None:
        """Writes all but the weights to a temporary folder, so that what cannot be written is known before training.

        Raises:
            BadModel: says why.
        """
        try:
            with tempfile.TemporaryDirectory() as folder, saying_disk_full(Path(folder)):
                self.write_without_weights(Path(folder), model)
        except DiskFull:
            raise
        except Exception as error:
            raise BadModel(
                f"The model in {self.source} can be trained but not saved: {first_line(error)}.",
                "Correct that file of the model folder first.",
            ) from error

    @contextlib.contextmanager
    def _plain_generation(self, model: Any) -> Iterator[None]:
        """Generation settings that transformers always saves; `_write_tokenizer` replaces them by the source's file.

        The source's may contradict each other, as Vicuna's do, and transformers 5.17 would refuse to save them.
        """
        own = model.generation_config
        if own is not None and (self.source / GENERATION).is_file():
            model.generation_config = type(own)()
        try:
            yield
        finally:
            model.generation_config = own

    def _write_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer and copies what belongs to the source and is not there yet."""
        self.tokenizer.save_pretrained(folder)
        if (folder / GENERATION).is_file() and (self.source / GENERATION).is_file():
            shutil.copyfile(self.source / GENERATION, folder / GENERATION)
        for path in belonging_files(self.source):
            if not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)


def _set_dtype(path: Path, name: str) -> None:
    """Makes a config.json, and the configs in it, say the dtype that the weights have now."""
    config = read_json(path, "the config of the finished model", constants=True)
    for part in (config, *config.values()):
        if isinstance(part, dict) and "dtype" in part:
            part["dtype"] = name
    # As transformers writes it: Infinity stays (Mamba's time_step_limit has it).
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def belonging_files(source: Path) -> list[Path]:
    """A model folder's files that belong into any model trained from it, besides config and weights."""
    patterns = (*BELONGING, "*.py") if has_code(source) else BELONGING
    return sorted({path for pattern in patterns for path in source.glob(pattern) if path.is_file()})


def has_code(folder: Path) -> bool:
    """Whether a config in the folder names classes in Python files of the model's own."""
    return any("auto_map" in config for config in _configs(folder))


def _configs(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("*config.json"):
        try:
            config = read_json(path, "a config of the model", constants=True)
        except BadInput:
            continue  # what needs this file says so
        if isinstance(config, dict):
            yield config
