"""Files of an exported folder: a checkpoint's weights, tokenizer and configs; nothing of the run or the machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from kto_cli.common.read import read_json
from kto_cli.evaluation.export.origin import Origin
from kto_cli.model import lora
from kto_cli.model.distributed.gathering import round_weights
from kto_cli.model.folder import INDEX, weights_files
from kto_cli.model.load import load_tokenizer
from kto_cli.model.source import ModelSource, load_source
from kto_cli.model.stored_dtypes import StoredDtypes, stored_dtypes
from kto_cli.training.run.model_folder import GENERATION, ModelWriter, belonging_files

TEMPLATES = ("chat_template*", "additional_chat_templates/*")
LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
"""Files of a base model that go with every model made from it."""
NAMES = ("_name_or_path", "name_or_path")
"""Keys of configs with the folder that something was loaded from."""


def write_files(
    folder: Path, source: ModelSource, origin: Origin, *, merge: bool, dtype: str, trust_remote_code: bool
) -> None:
    """Writes all files but the card.

    Raises:
        BadModel, BadInput: the model cannot be loaded, to be merged. DiskFull: no space left.
    """
    if merge:
        _write_merged(folder, source, dtype, trust_remote_code)
    elif source.below is None:
        _copy_whole(folder, source.folder)
    else:
        _copy_adapter(folder, source, origin)
    if origin.folder is not None:
        _copy(folder, _matching(origin.folder, LEGAL), origin.folder)
    for path in folder.glob("*.json"):
        _without_paths(path)


def _write_merged(folder: Path, source: ModelSource, dtype: str, trust_remote_code: bool) -> None:
    """A whole model; weights are merged in float32, then rounded at random, so that no small change is lost."""
    tokenizer, _ = load_tokenizer(source.tokenizer_folder, chat_template=None, trust_remote_code=trust_remote_code)
    stored = stored_dtypes(source.base) if dtype == "stored" else StoredDtypes(getattr(torch, dtype), {})
    model = load_source(source, trust_remote_code=trust_remote_code, dtype=torch.float32, compute=torch.float32).model
    round_weights(dict(model.named_parameters()), stored.of, 0)
    ModelWriter(source.base, tokenizer, stored).write_finished(folder, model)


def _copy_whole(folder: Path, source: Path) -> None:
    configs = [path for name in ("config.json", GENERATION, INDEX) if (path := source / name).is_file()]
    _copy(folder, [*weights_files(source), *configs, *belonging_files(source), *_matching(source, TEMPLATES)], source)


def _copy_adapter(folder: Path, source: ModelSource, origin: Origin) -> None:
    """The adapter as it is, its base under its public name, and what a server needs beside it."""
    own, tokenizer = source.folder, source.tokenizer_folder
    _copy(folder, [own / lora.WEIGHTS], own)
    _copy(folder, [*belonging_files(tokenizer), *_matching(tokenizer, TEMPLATES)], tokenizer)
    _copy(folder, _matching(source.base, [GENERATION]), source.base)
    config = read_json(own / lora.CONFIG, "the adapter's config", constants=True)
    _write_json(folder / lora.CONFIG, {**config, "base_model_name_or_path": origin.name})


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _copy(folder: Path, paths: Iterable[Path], source: Path) -> None:
    for path in paths:
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _without_paths(path: Path) -> None:
    """Removes the names of folders on this machine from a config."""
    config = read_json(path, "a config of the model", constants=True)
    if isinstance(config, dict) and any(_is_path(config.get(name)) for name in NAMES):
        _write_json(path, {name: value for name, value in config.items() if name not in NAMES})


def _is_path(value: Any) -> bool:
    """Whether a text is a path of some machine, not a Hub id."""
    if not isinstance(value, str):
        return False
    return PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith((".", "~"))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """As transformers writes configs: Infinity stays."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
