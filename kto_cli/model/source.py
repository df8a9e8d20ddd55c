"""A model as it is named, opened and loaded: a whole one, or an adapter on another one, itself perhaps adapted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.common.errors import BadInput, BadModel
from kto_cli.model import base_weights, lora
from kto_cli.model.distributed.gathering import round_weights
from kto_cli.model.folder import check_folder
from kto_cli.model.identity import adapted_fingerprint, fingerprint, plain
from kto_cli.model.load import load_model
from kto_cli.model.locate import locate_model
from kto_cli.model.written_files import check_files, run_settings_of

FOUR_BIT, MERGED = "-nf4", "-merged"
"""What the fingerprint of a model's 4-bit version ends with, and that of a model with its adapters merged."""


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine, not loaded yet."""

    name: str
    """Name given by the user: a path, a Hub id, or "built-in"."""
    folder: Path
    """The folder of that name: of a whole model, or of an adapter."""
    fingerprint: str
    """Hash of all that decides the model's numbers (identity.py)."""
    below: ModelSource | None = None
    """The model that the folder's adapter belongs on."""
    merged: bool = False
    """Its adapters are merged into the weights when it is loaded."""

    @property
    def on_hub(self) -> bool:
        """Whether `name` is a Hub id."""
        return self.name != "built-in" and not Path(self.name).expanduser().is_dir()

    @property
    def location(self) -> str:
        """What an adapter's config names it by: a Hub id, or a path that holds in any working directory."""
        return self.name if self.on_hub else str(self.folder.resolve())

    @property
    def base(self) -> Path:
        """Folder of the whole model below all adapters; its own without any."""
        return self.folder if self.below is None else self.below.base

    @property
    def adapters(self) -> tuple[Path, ...]:
        """Folders of its adapters, in the order they are added."""
        return () if self.below is None else (*self.below.adapters, self.folder)

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of its tokenizer: beside the adapter, or where a bare adapter has none, that of the model below."""
        own = self.below is None or (self.folder / "tokenizer_config.json").is_file()
        return self.folder if own or self.below is None else self.below.tokenizer_folder

    @property
    def words(self) -> str:
        """Its name; of an adapter with those of the models below."""
        return self.name if self.below is None else f"{self.name} (adapter on {self.below.words})"


def open_source(name: str | None, *, in_4bit: bool = False, merged: bool = False) -> ModelSource:
    """Locates, checks and fingerprints a model; its 4-bit version and the merged one have fingerprints of their own.

    Args:
        merged: merge the adapters, where the model has some.

    Raises:
        BadModel: there is no such model, or a file of it is missing or damaged; of an adapter also: the model below is
            not there, or no longer the one that the adapter was trained on.
    """
    name, folder = locate_model(name)
    if not lora.is_adapter(folder):
        check_folder(folder, in_4bit=in_4bit)
        return ModelSource(name, folder, fingerprint(folder) + (FOUR_BIT if in_4bit else ""))
    check_files(folder)
    if not (folder / lora.WEIGHTS).is_file():
        raise BadModel(f"{folder} holds no {lora.WEIGHTS}.", "Save the adapter as safetensors.")
    below = _open_below(folder, in_4bit=in_4bit)
    own = adapted_fingerprint(below.fingerprint, folder) + (MERGED if merged else "")
    return ModelSource(name, folder, own, below, merged)


def _open_below(folder: Path, *, in_4bit: bool) -> ModelSource:
    """The model that the adapter in `folder` belongs on."""
    named = lora.base_of(folder)
    if Path(named).expanduser().resolve() == folder.resolve():
        raise BadModel(f"{folder / lora.CONFIG} names its own folder as base model.", "Name the model it belongs on.")
    try:
        below = open_source(named, in_4bit=in_4bit)
    except (BadModel, BadInput) as error:
        raise BadModel(
            f"The adapter in {folder} belongs on {named}, which cannot be opened: {error.what}", error.next_step
        ) from error
    expected = trained_on(folder)
    if expected is not None and plain(expected) != plain(below.fingerprint):
        raise BadModel(
            f"{named} is not what the adapter in {folder} was trained on: its weights or its config have changed "
            "since (their SHA-256 differs).",
            "Restore them, or train the adapter again.",
        )
    return below


def trained_on(folder: Path) -> str | None:
    """Fingerprint of the model that a run trained the adapter in `folder` on; None for an adapter of others."""
    settings = run_settings_of(folder)
    part = settings.get("base", settings.get("reference"))
    found = part.get("fingerprint") if isinstance(part, dict) else None
    return found if isinstance(found, str) else None


def locate_base(folder: Path, *, weights: bool = True) -> Path:
    """Folder of the whole model below the adapters of `folder`; nothing is read of it.

    Raises:
        BadModel: it is not there.
    """
    return (
        folder if not lora.is_adapter(folder) else locate_base(located_below(folder, weights=weights), weights=weights)
    )


def locate_tokenizer(folder: Path) -> Path:
    """Folder of the tokenizer, as `ModelSource.tokenizer_folder`; nothing is read of the models.

    Raises:
        BadModel: the model below an adapter is not there.
    """
    if not lora.is_adapter(folder) or (folder / "tokenizer_config.json").is_file():
        return folder
    return locate_tokenizer(located_below(folder, weights=False))


def located_below(folder: Path, *, weights: bool = True) -> Path:
    """Folder of what the adapter in `folder` belongs on; nothing is read of it.

    Raises:
        BadModel: it is not there.
    """
    below = locate_model(lora.base_of(folder), weights=weights)[1]
    if below.resolve() == folder.resolve():
        raise BadModel(f"{folder / lora.CONFIG} names its own folder as base model.", "Name the model it belongs on.")
    return below


class Loaded(NamedTuple):
    """A model in memory."""

    model: Any
    """Of transformers, in evaluation mode; adapters that were not merged are in its layers."""
    adapted: Any
    """peft's model around it; None without adapters."""


def load_source(
    source: ModelSource,
    *,
    trust_remote_code: bool,
    dtype: torch.dtype,
    compute: torch.dtype,
    in_4bit: bool = False,
    learns: bool = False,
) -> Loaded:
    """Loads a model and its adapters, in their order; nothing of it learns, unless it is whole or merged.

    Args:
        dtype: of the weights. compute: of matrix products.
        learns: the last adapter learns.

    Raises:
        BadModel, BadInput: as `load_model` and `lora.attach`.
    """
    model = load_model(
        source.base, trust_remote_code=trust_remote_code, dtype=dtype, in_4bit=compute if in_4bit else None
    )
    adapted = None
    for folder in source.adapters:
        adapted = lora.attach(adapted or model, folder, learns=learns and folder == source.folder)
    if adapted is None or not source.merged:
        return Loaded(model, adapted)
    model = base_weights.merged(adapted, partial(_round, compute=compute)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return Loaded(model, None)


def _round(name: str, weight: Tensor, *, compute: torch.dtype) -> None:
    """Products in bfloat16 would round a merged weight to the nearest number of 16 bits, which is mostly the weight
    without the adapter; rounded at random the adapter stays, on average (core.rounding)."""
    if compute != torch.float32:
        round_weights({name: weight}, lambda *_: compute, seed=0)
