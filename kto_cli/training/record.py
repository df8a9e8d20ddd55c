"""What kto_config.json records of a run, and what of it must be the same when the run is resumed or repeated."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kto_cli import __version__
from kto_cli.common.errors import BadInput
from kto_cli.common.files import text_hash, weights_sha256
from kto_cli.common.read import read_yaml
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.plan import VERSION as PLAN_VERSION
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.model import lora
from kto_cli.model.distributed.processes import launch_kind
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.source import ModelSource
from kto_cli.training.settings import RunSettings

COMPUTING = ("torch", "transformers", "peft")
"""Libraries whose code computes a step; another version gives other bits."""


def describe(settings: RunSettings, prepared: Prepared, processes: int) -> dict[str, Any]:
    """Contents of kto_config.json: settings as given, as chosen, and the data and model they apply to."""
    from importlib.metadata import version

    return {
        "train": asdict(settings.config),
        "chosen": {
            "loss": settings.loss._asdict(),
            "lambda_d": settings.weights.lambda_d,
            "lambda_u": settings.weights.lambda_u,
            "learning_rate": settings.learning_rate,
            "total_steps": settings.total_steps,
            "max_length": prepared.max_length,
            "dtype": prepared.precision.name,
            "micro_batch_tokens": prepared.token_budget,
            "processes": processes,
            "launch": launch_kind(processes),
            "plan": PLAN_VERSION,
        },
        "data": {
            "folder": str(prepared.data.folder.resolve()),
            "fingerprint": prepared.data.fingerprint,
            "train_rows": len(prepared.train),
            "validation_rows": len(prepared.validation),
            **({"new": str(find_data_dir(settings.config.data).resolve())} if settings.config.after else {}),
        },
        **_described_models(settings.config, prepared),
        "chat_template": text_hash(json.dumps(prepared.tokenizer.chat_template, sort_keys=True)),
        "versions": {
            "kto": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in ("transformers", "accelerate", "peft")},
        },
    }


def _described_models(config: TrainConfig, prepared: Prepared) -> dict[str, Any]:
    """The reference; where they are others, the model that training starts from and the one below saved adapters."""
    source, reference = prepared.source, prepared.reference
    found: dict[str, Any] = {"reference": _described_model(reference)}
    if reference.adapters:
        found["reference_adapter"] = {
            "path": str(reference.folder.resolve()),
            "sha256": weights_sha256(reference.folder / lora.WEIGHTS),
        }
    if source is not reference:
        found["start"] = _described_model(source)
    below = prepared.below(config)
    if config.adapters and not config.merge and below is not reference:
        found["base"] = _described_model(below)
    return found


def _described_model(source: ModelSource) -> dict[str, Any]:
    merged = {"merged": True} if source.merged else {}
    return {
        "name": source.name,
        "folder": str(source.folder.resolve()),
        "fingerprint": source.fingerprint,
        **merged,
    }


def refuse_other_inputs(stored: dict[str, Any], now: dict[str, Any], screen: Screen) -> None:
    """Resuming needs the same rows and the same reference, by content.

    Raises:
        BadInput: names what differs.
    """
    if stored["chosen"].get("plan", 1) != PLAN_VERSION:
        raise BadInput(
            "This run was started by an earlier kto, whose steps took the rows in another order: some would be trained "
            "twice and others never.",
            "Resume it with that version, or start a new run with --out.",
        )
    parts = {
        "data": "rows",
        "reference": "weights of the reference model",
        "start": "weights of the model it starts from",
    }
    for part, what in parts.items():
        before, found = stored.get(part, {}), now.get(part, {})
        if before.get("fingerprint") != found.get("fingerprint"):
            folder = found.get("folder", now["reference"]["folder"])
            raise BadInput(
                f"The {what} in {folder} are not those this run was started with.",
                "Restore them, or start a new run with --out.",
            )
    if stored.get("chat_template", now["chat_template"]) != now["chat_template"]:
        raise BadInput(
            "The chat template is not the one this run was started with.",
            "Restore it, or start a new run with --out.",
        )
    names = [name for name, value in now["chosen"].items() if stored["chosen"].get(name, value) != value]
    names += [
        f"{name} ({stored['versions'].get(name)}, now {value})"
        for name, value in now["versions"].items()
        if name in COMPUTING and stored["versions"].get(name, value) != value
    ]
    if names:
        screen.warn(
            f"Changed since the run was started: {', '.join(names)}. "
            "The result will be equal up to rounding, not bit for bit."
        )


def refuse_if_not_repeated(
    config_file: str, described: Mapping[str, Any], given: Collection[str], screen: Screen
) -> None:
    """A kto_config.json as --config repeats its run: with the same rows and models by content, unless they were `given`
    on the command line, which is a warning.

    Raises:
        BadInput: the dataset or a model is not that of the run.
    """
    run = read_yaml(Path(config_file), "the config file")
    parts = {"data": ("dataset", "data"), "reference": ("reference model", "model"), "start": ("model", "model")}
    for name, (what, flag) in parts.items():
        part, now = run.get(name), described.get(name, {})
        before = part.get("fingerprint") if isinstance(part, dict) else None
        if before in (None, now.get("fingerprint")):
            continue
        words = f"The {what} {now.get('folder', '')} is not the one of {config_file}: its content differs"
        if flag in given or name in given:
            screen.warn(f"{words}, so this run is not the same.")
            continue
        raise BadInput(f"{words}.", f"Restore it, or name another one with --{flag}, which is another run.")
