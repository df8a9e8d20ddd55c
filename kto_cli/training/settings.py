"""Settings of a training run: options resolved, defaults filled in, reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kto_cli.common.config_file import read_config_file, train_config, typed_settings
from kto_cli.common.errors import BadInput
from kto_cli.common.model_config import AUTO_TOKENS
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import plural
from kto_cli.core.loss_kinds import LossKind, LossSettings, kind_of
from kto_cli.core.plan import batch_sizes, pairs_in_batch, steps_in_epoch
from kto_cli.core.weights import Weights, choose_weights, lambda_interval
from kto_cli.model.logprobs.prepare import Prepared, class_counts
from kto_cli.training.after import settings_after
from kto_cli.training.hints import hint_at_zero_point
from kto_cli.training.loss_flags import loss_kind, loss_settings, loss_words, setting_in_force
from kto_cli.training.run.run_dir import RunDir, read_settings
from kto_cli.training.trackers import refuse_missing_trackers
from kto_cli.training.units import units_in

MAY_DIFFER = ("data", "model", "reference", "out", "cache", "micro_batch_tokens", "track")
"""Settings that may change when a run is resumed: paths (contents are compared by hash), memory, trackers."""


@dataclass(frozen=True)
class RunSettings:
    """A `TrainConfig` with its open settings filled in."""

    config: TrainConfig
    weights: Weights
    learning_rate: float
    total_steps: int
    save_every: int
    eval_every: int

    @property
    def loss(self) -> LossSettings:
        """The numbers of the loss."""
        return loss_settings(self.config, lambda_d=self.weights.lambda_d, lambda_u=self.weights.lambda_u)

    def reference_step(self, done: int) -> int:
        """The step whose policy is the reference of the step behind `done` others; 0: the model given as it.

        After step N the next step reads the new reference; with --humanline the one after that.
        """
        every, behind = self.config.sync_every, max(0, done - self.config.humanline)
        return 0 if every is None else behind - behind % every

    @property
    def steps_moved(self) -> int:
        """Steps that compare with a reference that has moved."""
        every = self.config.sync_every
        return 0 if every is None else max(0, self.total_steps - every - self.config.humanline)

    @property
    def kind(self) -> LossKind:
        """The loss."""
        return kind_of(self.config.loss)


def resolve_options(
    flags: Mapping[str, Any], *, config_file: str | None, resume: bool
) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The config of a run, and the kto_config.json of the run it resumes, if any.

    Raises:
        BadInput: unknown keys or values; resuming a finished run, or with other settings (they are named); a tracker
            that is not installed. BadFlag: settings that do not go together, or that the loss has no use for.
    """
    where = f"The config file {config_file}" if config_file else "The command line"
    given = dict(read_config_file(Path(config_file))) if config_file else {}
    given = typed_settings({**given, **flags}, where=where)
    directory = RunDir(Path(given.get("out", TrainConfig.out)))
    if given.get("after") and not (resume and directory.started):
        given = settings_after(given) | given
    config = TrainConfig(**given)
    stored = None
    if resume and directory.started:
        config, stored = _resumed(config, given, directory)
    loss_kind(config)  # settings that do nothing are reported before anything heavy is loaded
    refuse_missing_trackers(config.trackers)
    return config, stored


def _resumed(config: TrainConfig, given: Mapping[str, Any], directory: RunDir) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of the earlier run with the `given` values that may differ, and its kto_config.json."""
    if directory.finished:
        raise BadInput(
            f"{directory.folder} holds a finished run; there is nothing to resume.",
            f"Evaluate it with `kto eval {directory.folder}`.",
        )
    stored = read_settings(directory)
    earlier = train_config(stored["train"], where=str(directory.config))
    kept = [name for name in given if name not in MAY_DIFFER]
    both = {name: (setting_in_force(earlier, name), setting_in_force(config, name)) for name in kept}
    differing = [f"{name} ({before!r}, now {now!r})" for name, (before, now) in both.items() if before != now]
    if differing:
        raise BadInput(
            f"{directory.folder} was started with other settings: {', '.join(differing)}.",
            "Resume without them, or start a new run with --out.",
        )
    resumed = replace(earlier, **{name: getattr(config, name) for name in given if name in MAY_DIFFER})
    if resumed.micro_batch_tokens == AUTO_TOKENS:  # the same micro-batches give the same bits
        resumed = replace(resumed, micro_batch_tokens=stored["chosen"]["micro_batch_tokens"])
    if earlier.chat_template and directory.chat_template.is_file():
        resumed = replace(resumed, chat_template=str(directory.chat_template))
    return resumed, stored


def run_settings(config: TrainConfig, prepared: Prepared, screen: Screen) -> RunSettings:
    """Fills in what the config leaves open, and reports it.

    Raises:
        BadData: the training rows are not of both classes.
    """
    kind = loss_kind(config)
    counts = class_counts(prepared.train, kind.classes)
    weights = run_weights(config, kind, *counts)
    settings = fill_defaults(config, weights, rows=len(prepared.train), parameters=prepared.model.num_parameters())
    _report(screen, settings, *counts)
    hint_at_zero_point(settings.loss, prepared, screen)
    return settings


def run_weights(config: TrainConfig, kind: LossKind, desirable: int, undesirable: int) -> Weights:
    """lambda_D and lambda_U: chosen for the class counts where the loss weights its classes, else as given, or 1."""
    if kind.weighted:
        return choose_weights(desirable, undesirable, lambda_d=config.lambda_d, lambda_u=config.lambda_u)
    given_d, given_u = (1.0 if given is None else given for given in (config.lambda_d, config.lambda_u))
    return Weights(given_d, given_u, given_d * desirable / (given_u * undesirable) if undesirable else math.inf)


def fill_defaults(config: TrainConfig, weights: Weights, *, rows: int, parameters: int) -> RunSettings:
    """Defaults for what the config leaves open, from the number of rows and the model's size."""
    kind = loss_kind(config)
    total = config.epochs * steps_in_epoch(*units_in(rows, config.batch_size, kind))
    total = min(total, config.max_steps or total)
    return RunSettings(
        config=config,
        weights=weights,
        learning_rate=config.learning_rate
        or kind.rate * default_learning_rate(parameters, built_in=config.model is None, adapters=config.adapters),
        total_steps=total,
        save_every=config.save_every or min(200, max(1, math.ceil(total / 5))),
        eval_every=config.eval_every or max(1, math.ceil(total / 10)),
    )


def default_learning_rate(parameters: int, *, built_in: bool, adapters: bool) -> float:
    """Learning rate by model size: 5e-6 from a billion parameters on, more for smaller ones.

    5e-6 is the advice of the paper's later version (v5, as reported) for AdamW at 3B and 8B; the first version's runs
    had RMSprop at 5e-7. The built-in model of one million was tried from 3e-4 to 1e-3: 5e-4 learns in one epoch and
    stays fluent.
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


def _report(screen: Screen, settings: RunSettings, desirable: int, undesirable: int) -> None:
    """Prints the class weights, steps and learning rate."""
    config, kind = settings.config, settings.kind
    if (
        config.loss != "kto"
        or config.value
        or config.reference_point
        or config.sft_weight
        or config.humanline
        or not settings.loss.reference
    ):
        screen.note(f"Loss: {loss_words(settings.loss)}")
    if kind.weighted:
        _report_weights(screen, settings, desirable, undesirable)
    chosen = "default of the built-in model" if config.model is None else "default by model size"
    factor = "" if kind.rate == 1 else f", x {kind.rate:g} for {config.loss}"
    rate = "given" if config.learning_rate else chosen + factor
    rows = step_rows(desirable + undesirable, config.batch_size, paired=kind.unit == "pair")
    screen.note(
        f"{plural(settings.total_steps, 'step')} of {rows}; "
        f"learning rate {settings.learning_rate:.2g} ({rate}); "
        f"checkpoint every {plural(settings.save_every, 'step')}; "
        f"validation every {plural(settings.eval_every, 'step')}"
    )


def _report_weights(screen: Screen, settings: RunSettings, desirable: int, undesirable: int) -> None:
    config, weights = settings.config, settings.weights
    how = "auto" if config.lambda_d is None and config.lambda_u is None else "given"
    ranges = [
        f"{name} {low:.3g}-{high:.3g} with {other} 1"
        for (name, (low, high)), other in zip(
            lambda_interval(desirable, undesirable).items(), ("lambda_u", "lambda_d"), strict=True
        )
    ]
    outside = "" if weights.inside else " These weights are outside it."
    screen.note(
        f"Class weights ({how}): lambda_d {weights.lambda_d:.4g}, lambda_u {weights.lambda_u:.4g}. Recommended for "
        f"{desirable:,} desirable and {undesirable:,} undesirable rows (Eq. 8): {' or '.join(ranges)}.{outside}"
    )


def step_rows(rows: int, batch_size: int, *, paired: bool = False) -> str:
    """Rows of each step of an epoch, in words."""
    sizes = [2 * pairs for pairs in batch_sizes(rows // 2, pairs_in_batch(batch_size))] if paired else []
    sizes = sizes or batch_sizes(rows, batch_size)
    if min(sizes) == batch_size:
        return plural(batch_size, "row")
    either = f"{min(sizes):,} or " if min(sizes) < max(sizes) else ""
    return f"{either}{plural(max(sizes), 'row')} (at most {batch_size:,}, all steps alike)"
