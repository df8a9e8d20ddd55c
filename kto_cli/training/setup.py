"""A run made ready: reference log-probs, adapters, optimizer, processes."""

from __future__ import annotations

import contextlib
from typing import Any

from kto_cli.common.model_config import AUTO_TOKENS
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import readable
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.model import base_weights, lora
from kto_cli.model.determinism import require_determinism
from kto_cli.model.distributed.processes import wrap
from kto_cli.model.folder import read_config
from kto_cli.model.layers import checkpoint_layers, compile_layers
from kto_cli.model.logprobs.needed import Needed
from kto_cli.model.logprobs.prepare import Prepared, check_sequences, make_scorer
from kto_cli.model.logprobs.reference import CacheUse, ReferenceLogps, reference_logps
from kto_cli.model.logprobs.reference_model import logps_of_other_reference
from kto_cli.model.precision import keep_float32_gradients
from kto_cli.model.rounded_weights import rounded_weights
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.stored_dtypes import stored_dtypes
from kto_cli.model.text_part import freeze_other_parts, left_out
from kto_cli.training.humanline_step import HumanlineEngine
from kto_cli.training.loop import Counters, Run
from kto_cli.training.memory import choose_token_budget
from kto_cli.training.offline_ppo_step import OfflinePPOEngine, add_value_head
from kto_cli.training.optimizer import make_optimizer
from kto_cli.training.planned import needed_by
from kto_cli.training.run.model_folder import ModelWriter
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.settings import RunSettings
from kto_cli.training.step import TrainingEngine
from kto_cli.training.synced_reference import synced_reference


def set_up(
    prepared: Prepared,
    settings: RunSettings,
    directory: RunDir,
    accelerator: Any,
    screen: Screen,
    *,
    what: str = "",
) -> Run:
    """A run with its reference log-probs computed or cached, adapters added, and model and optimizer wrapped.

    The micro-batch size is tried last (`--micro-batch-tokens auto`), with the model as it will be trained.

    `what` names its rows on the screen, where they are not those of a run, and all of the reference is needed.
    """
    config = settings.config
    needed = Needed.by(settings.loss) if what else needed_by(prepared.train, settings)
    if lost := left_out(prepared.model, read_config(prepared.source.base).get("architectures") or ()):
        screen.warn(lost)
    if frozen := freeze_other_parts(prepared.model):
        screen.note(f"Only the model's text part is trained; the other {frozen:,} parameters (images, sound) stay.")
    rows = prepared.reference_rows
    other = None
    if prepared.reference is not prepared.source:  # before the policy is on its device
        other = logps_of_other_reference(prepared, rows, config, accelerator, screen, needed)
    model = _adapted(prepared, config, screen) if config.adapters else prepared.model
    writer = ModelWriter(prepared.source.base, prepared.served_tokenizer, stored_dtypes(prepared.source.base))
    if accelerator.is_main_process:
        writer.try_out(model)
    scorer = make_scorer(prepared, accelerator, screen, sharded=True)
    require_determinism(scorer, check_sequences(prepared.train + prepared.validation)[:3], screen)
    references, use = other or _own_logps(prepared, model, scorer, config, accelerator, screen, needed)
    screen.note(f"Reference log-probs ({what or needed.words}): {use.computed:,} computed, {use.cached:,} cached")
    count = len(prepared.train)
    return Run(
        settings=settings,
        rows=prepared.train,
        references=references.take(slice(count)),
        validation=prepared.validated,
        validation_references=references.without_tokens().take(slice(count, None)),
        engine=_engine(prepared, settings, model, scorer, writer, accelerator, screen),
        model=model,
        writer=writer,
        directory=directory,
        screen=screen,
        counters=Counters(),
        synced=synced_reference(model, settings, screen),
        starts_at_reference=other is None,
    )


def _engine(
    prepared: Prepared,
    settings: RunSettings,
    model: Any,
    scorer: CompletionScorer,
    writer: ModelWriter,
    accelerator: Any,
    screen: Screen,
) -> TrainingEngine:
    """Layers changed as asked for, micro-batch size, optimizer, and accelerate's wrapping."""
    config = settings.config
    _change_layers(scorer, config, screen)
    keep_float32_gradients(scorer)
    token_budget = _token_budget(prepared, scorer, config, accelerator, screen)
    optimizer = make_optimizer(
        config.optimizer, scorer.parameters(), learning_rate=settings.learning_rate, device=accelerator.device
    )
    if settings.kind.per_token:
        add_value_head(scorer, optimizer, seed=config.seed)
    wrapped, optimizer = wrap(accelerator, scorer, optimizer)
    rounded = rounded_weights(model, prepared.precision.compute, writer.stored, config.seed)
    if rounded.parts:
        screen.note("Products in bfloat16 take weights rounded at random, so that changes below its spacing count")
    return engine_for(settings.loss)(
        accelerator,
        wrapped,
        optimizer,
        token_budget=token_budget,
        max_grad_norm=config.max_grad_norm,
        rounded=rounded,
    )


def engine_for(settings: LossSettings) -> type[TrainingEngine]:
    """The kind of engine that a loss needs."""
    if settings.kind.per_token:
        return OfflinePPOEngine
    return HumanlineEngine if settings.humanline else TrainingEngine


def _token_budget(
    prepared: Prepared, scorer: CompletionScorer, config: TrainConfig, accelerator: Any, screen: Screen
) -> int:
    """Tokens of a micro-batch, tried if asked for."""
    if config.micro_batch_tokens != AUTO_TOKENS:
        return prepared.token_budget
    token_budget = choose_token_budget(scorer, prepared.train, accelerator, config.optimizer)
    screen.note(f"Micro-batches of {token_budget:,} tokens (larger ones were not faster, or did not fit)")
    return token_budget


def _own_logps(
    prepared: Prepared,
    model: Any,
    scorer: CompletionScorer,
    config: TrainConfig,
    accelerator: Any,
    screen: Screen,
    needed: Needed,
) -> tuple[ReferenceLogps, CacheUse]:
    """Log-probs of the model as it starts; an adapter that goes on learning has not been changed yet, also where the
    run is resumed."""
    rows = prepared.reference_rows
    with contextlib.nullcontext() if config.continue_adapter else lora.as_reference(model):
        return reference_logps(prepared, rows, lambda: scorer, config, accelerator, screen, needed)


def _change_layers(scorer: Any, config: TrainConfig, screen: Screen) -> None:
    if config.compile:
        compile_layers(scorer)
        screen.note("Compiling the layers in the first step (about a minute)")
    if config.gradient_checkpointing == "on":
        checkpoint_layers(scorer)
        screen.note("Gradient checkpointing: activations are recomputed in the backward pass")


def _adapted(prepared: Prepared, config: TrainConfig, screen: Screen) -> Any:
    """The policy: new adapters on the model it starts from, in place, or the adapter of that model."""
    source, precision = prepared.source, prepared.precision
    if config.continue_adapter:
        model = prepared.adapted
        lora.name_base(model, prepared.below(config).location)
    else:
        model = lora.add_adapters(prepared.adapted or prepared.model, config, base=source.location)
    learning, total = lora.trainable_parameters(model)
    screen.note(f"Trainable parameters: {learning:,} of {total:,} ({learning / total:.2%})")
    if precision.compute != precision.weights:
        dora = any(getattr(options, "use_dora", False) for options in model.peft_config.values())
        saved = base_weights.narrow_base(model, precision.compute, exactly=config.merge or dora)
        screen.note(f"Frozen linear layers are held in bfloat16, as they are multiplied: {readable(saved)} less memory")
    return model
