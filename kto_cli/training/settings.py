"""The settings of a training run: resolved, filled in, said, described, and compared with those it was begun with."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kto_cli import __version__
from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import AUTO_TOKENS, TrainConfig, read_config_file, train_config
from kto_cli.core.losses import LossSettings
from kto_cli.core.plan import steps_in_epoch
from kto_cli.core.weights import Weights, choose_weights, lambda_interval
from kto_cli.model.distributed.processes import how_spread
from kto_cli.model.logprobs.prepare import Prepared, class_counts
from kto_cli.training.run.run_dir import RunDir, read_settings
from kto_cli.training.trackers import refuse_missing_trackers

MAY_DIFFER = ("data", "model", "out", "cache", "micro_batch_tokens", "track")
"""What a resumed run may be given anew: places (their contents are compared by hash), memory, and who else is told."""


@dataclass(frozen=True)
class RunSettings:
    """A `TrainConfig` with everything that was left to us filled in."""

    config: TrainConfig
    weights: Weights
    learning_rate: float
    total_steps: int
    save_every: int
    eval_every: int

    @property
    def loss(self) -> LossSettings:
        """The numbers of the loss."""
        return LossSettings(self.config.beta, self.weights.lambda_d, self.weights.lambda_u)


def resolve(
    flags: Mapping[str, Any], *, config_file: str | None, resume: bool
) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The config of this run, and, if it goes on with one, that run's kto_config.json.

    Raises:
        BadInput: unknown keys or values; resuming a finished run, or with other settings (they are named); a tracker
            that is not installed.
    """
    where = f"The config file {config_file}" if config_file else "The command line"
    given = dict(read_config_file(Path(config_file))) if config_file else {}
    given |= flags
    config = train_config(given, where=where)
    directory = RunDir(Path(config.out))
    stored = None
    if resume and directory.started:
        config, stored = _resumed(config, given, directory)
    refuse_missing_trackers(config.trackers)
    return config, stored


def _resumed(config: TrainConfig, given: Mapping[str, Any], directory: RunDir) -> tuple[TrainConfig, dict[str, Any]]:
    """The config the run was begun with, with those `given` values that may differ, and its kto_config.json."""
    if directory.finished:
        raise BadInput(
            f"{directory.folder} holds a finished run; there is nothing to resume.",
            f"Look at it with `kto eval {directory.folder}`.",
        )
    stored = read_settings(directory)
    earlier = train_config(stored["train"], where=str(directory.config))
    differing = [
        f"{name} ({getattr(earlier, name)!r}, now {getattr(config, name)!r})"
        for name in given
        if name not in MAY_DIFFER and getattr(earlier, name) != getattr(config, name)
    ]
    if differing:
        raise BadInput(
            f"{directory.folder} was begun with other settings: {', '.join(differing)}.",
            "Resume without them, or start a new run with --out.",
        )
    resumed = replace(earlier, **{name: getattr(config, name) for name in given if name in MAY_DIFFER})
    if resumed.micro_batch_tokens == AUTO_TOKENS:  # the same micro-batches give the same bits
        resumed = replace(resumed, micro_batch_tokens=stored["chosen"]["micro_batch_tokens"])
    return resumed, stored


def settle(config: TrainConfig, prepared: Prepared, screen: Screen) -> RunSettings:
    """Chooses what the config leaves open, and says it.

    Raises:
        BadData: the training rows are not of both classes.
    """
    counts = class_counts(prepared.train)
    weights = choose_weights(*counts, lambda_d=config.lambda_d, lambda_u=config.lambda_u)
    settings = fill_in(config, weights, rows=len(prepared.train), parameters=prepared.model.num_parameters())
    _say(screen, settings, *counts)
    return settings


def fill_in(config: TrainConfig, weights: Weights, *, rows: int, parameters: int) -> RunSettings:
    """Chooses what the config leaves open, from the number of rows and the model's size."""
    total = config.epochs * steps_in_epoch(rows, config.batch_size)
    total = min(total, config.max_steps or total)
    return RunSettings(
        config=config,
        weights=weights,
        learning_rate=config.learning_rate
        or default_learning_rate(parameters, built_in=config.model is None, adapters=config.lora_r is not None),
        total_steps=total,
        save_every=config.save_every or min(200, max(1, math.ceil(total / 5))),
        eval_every=config.eval_every or max(1, math.ceil(total / 10)),
    )


def default_learning_rate(parameters: int, *, built_in: bool, adapters: bool) -> float:
    """5e-6 from a billion parameters on (the paper's at 7B and 8B); more for smaller models, which need it.

    The built-in model of one million was tried from 3e-4 to 1e-3: 5e-4 learns in one epoch and stays fluent.
    LoRA adapters take ten times the rate of all weights. On the built-in model 1e-3 to 5e-3 was tried: at 3e-3 they do
    in one epoch what all weights do, at 5e-3 both rewards fall.
    """
    factor = 10 if adapters else 1
    if built_in:
        return 3e-3 if adapters else 5e-4
    for size, rate in ((1e9, 5e-6), (1e8, 1e-5), (1e7, 3e-5)):
        if parameters >= size:
            return factor * rate
    return factor * 5e-5


def _say(screen: Screen, settings: RunSettings, desirable: int, undesirable: int) -> None:
    """What was chosen or given, in two sentences."""
    config, weights = settings.config, settings.weights
    interval = lambda_interval(desirable, undesirable)
    ranges = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in interval.items()]
    how = "chosen" if config.lambda_d is None and config.lambda_u is None else "given"
    place = "inside" if weights.inside else "outside"
    screen.note(
        f"{desirable:,} desirable and {undesirable:,} undesirable rows; "
        f"weights {how}: lambda_d {weights.lambda_d:.4g}, lambda_u {weights.lambda_u:.4g}, "
        f"{place} Eq. 8's range ({' or '.join(ranges)}, the other being 1)"
    )
    chosen = "chosen for the built-in model" if config.model is None else "chosen by model size"
    rate = "given" if config.learning_rate else chosen
    screen.note(
        f"{settings.total_steps:,} {'step' if settings.total_steps == 1 else 'steps'} of {config.batch_size} rows; "
        f"learning rate {settings.learning_rate:.2g} ({rate}); "
        f"checkpoint every {settings.save_every} steps; validation rows every {settings.eval_every}"
    )


def describe(settings: RunSettings, prepared: Prepared, processes: int) -> dict[str, Any]:
    """What goes into kto_config.json: settings as given, as chosen, and what they were applied to."""
    from importlib.metadata import version

    return {
        "train": asdict(settings.config),
        "chosen": {
            "lambda_d": settings.weights.lambda_d,
            "lambda_u": settings.weights.lambda_u,
            "learning_rate": settings.learning_rate,
            "total_steps": settings.total_steps,
            "max_length": prepared.max_length,
            "dtype": prepared.precision.name,
            "micro_batch_tokens": prepared.token_budget,
            "processes": processes,
            "spread": how_spread(processes),
        },
        "data": {
            "folder": str(prepared.data.folder.resolve()),
            "fingerprint": prepared.data.fingerprint,
            "train_rows": len(prepared.train),
            "validation_rows": len(prepared.validation),
        },
        "reference": {
            "name": prepared.source.name,
            "folder": str(prepared.source.folder.resolve()),
            "fingerprint": prepared.source.fingerprint,
        },
        "versions": {
            "kto": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in ("transformers", "accelerate", "peft")},
        },
    }


def refuse_other_inputs(stored: dict[str, Any], now: dict[str, Any], screen: Screen) -> None:
    """Resuming needs the same rows and the same reference, by content.

    Raises:
        BadInput: names what differs.
    """
    for part, what in (("data", "rows"), ("reference", "reference model")):
        if stored[part]["fingerprint"] != now[part]["fingerprint"]:
            raise BadInput(
                f"The {what} in {now[part]['folder']} are not those this run was begun with.",
                "Put them back, or start a new run with --out.",
            )
    names = [name for name, value in now["chosen"].items() if stored["chosen"].get(name, value) != value]
    if names:
        screen.warn(
            f"Differs from when the run was begun: {', '.join(names)}. "
            "The result will be equal to rounding, not bit for bit."
        )
