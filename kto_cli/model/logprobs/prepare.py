"""Data, tokenizer, model and scorer of a run, as precompute, train and eval need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import plural
from kto_cli.core.loss_kinds import Classes
from kto_cli.core.rows import TokenSequence
from kto_cli.data.dataset import DataDir, load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.model import lora
from kto_cli.model.distributed.processes import refuse_uneven_rounds, shards, to_devices
from kto_cli.model.identity import plain
from kto_cli.model.lengths import greatest_length
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.encoding import RowEncoding, encode_rows
from kto_cli.model.logprobs.micro_batch_size import default_token_budget
from kto_cli.model.precision import Precision, choose_precision, emulates_bfloat16
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.source import Loaded, ModelSource, load_source, open_source
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.validation_rows import ValidationRows


@dataclass
class Prepared:
    """Data, tokenizer and model, loaded and tokenized."""

    data: DataDir
    source: ModelSource
    """Of `model`."""
    reference: ModelSource
    """Whose log-probs are the reference's: `source`, unless --reference names another model."""
    tokenizer: Any
    """The reference's."""
    served_tokenizer: Any
    """That of the trained model: with control texts its chat template writes the desirable one."""
    own_template: bool
    """The tokenizer's chat template is the model's or the user's, not our fallback."""
    model: Any
    adapted: Any
    """peft's model around it, where it has adapters; else None."""
    precision: Precision
    max_length: int
    token_budget: int
    """Tokens, padding included, of a micro-batch."""
    train: EncodedRows
    validated: ValidationRows
    template_date: str | None
    """The date that the chat template writes, YYYY-MM-DD; None if it writes none."""

    @property
    def validation(self) -> EncodedRows:
        """Validation rows as the trained model is asked."""
        return self.validated.served

    @property
    def reference_rows(self) -> EncodedRows:
        """Rows as the reference is asked: those trained on, then the validation rows."""
        return self.train + self.validated.reference

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrix products."""
        return self.precision.compute

    def below(self, config: TrainConfig) -> ModelSource:
        """The model that the adapters which a run saves belong on."""
        return self.source.below if config.continue_adapter and self.source.below else self.source


KTO_NEEDS = "; KTO needs both kinds."


def warn_if_built_in(config: ModelConfig, screen: Screen) -> None:
    """Warns that the built-in model is only a demo."""
    if config.model is None:
        screen.warn(
            "No --model given: using the built-in tiny model, which is only a demo. "
            "Use your own with --model FOLDER_OR_HUB_ID."
        )


def prepare(
    config: ModelConfig,
    accelerator: Any,
    screen: Screen,
    *,
    needs_train: bool = True,
    merged: bool = False,
    control: tuple[str, str] | None = None,
) -> Prepared:
    """Loads data, tokenizer and model, and encodes the rows.

    Args:
        merged: the adapters of the model, if it has some, are merged into its weights.
        control: texts at the end of the prompts of desirable and of undesirable rows.

    Raises:
        BadInput, BadData, BadModel: see what each part asks for.
    """
    data = load_data_dir(find_data_dir(config.data))
    if not data.sealed:
        screen.note(f"{data.folder} is of an earlier kto: its rows match their checksums, its counts have none.")
    with screen.progress("reading the model's files", None):
        source, reference = _opened(config, merged)
    tokenizer, fallback = load_tokenizer(
        source.tokenizer_folder, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    if fallback:
        screen.note(
            "The model has no chat template: using hh-rlhf's turn markers (Human: / Assistant:). "
            "Set another one with --chat-template FILE."
        )
    precision = choose_precision(config.dtype, accelerator.device)
    if emulates_bfloat16(accelerator.device):
        full = precision.compute == torch.float32
        how = "computing in float32" if full else f"--dtype {precision.name} is emulated, slower than float32"
        screen.note(f"This GPU has no bfloat16 arithmetic: {how}.")
    with screen.progress("loading the model", None):
        model, adapted = load_with(config, source, precision)
    max_length = greatest_length(config.max_length, model.config)
    encoding = RowEncoding(config, data, source.tokenizer_folder, model, max_length, accelerator, screen)
    rows = encode_rows(encoding, tokenizer, needs_train=needs_train, fallback=fallback, control=control)
    return Prepared(
        data=data,
        source=source,
        reference=reference,
        tokenizer=rows.tokenizer,
        served_tokenizer=rows.served_tokenizer,
        own_template=not fallback,
        model=model,
        adapted=adapted,
        precision=precision,
        max_length=max_length,
        token_budget=config.micro_batch_tokens
        or default_token_budget(
            model, sized(config, source, model), precision, accelerator.device, cards=shards(accelerator.num_processes)
        ),
        train=rows.train,
        validated=rows.validated,
        template_date=rows.date.isoformat() if rows.date else None,
    )


def _opened(config: ModelConfig, merged: bool) -> tuple[ModelSource, ModelSource]:
    """The model and its reference, which is the same where it has the same content.

    Raises:
        BadInput: --continue-adapter without an adapter.
    """
    source = open_source(config.model, in_4bit=config.load_in_4bit, merged=merged)
    if not isinstance(config, TrainConfig):
        return source, source
    if config.continue_adapter and not source.adapters:
        raise BadInput(
            f"--continue-adapter goes on training an adapter, and {source.name} is a whole model.",
            "Give the adapter's folder with --model, or new adapters with --lora-r 16.",
        )
    if config.reference_model is None:
        return source, source
    reference = open_source(config.reference_model, in_4bit=config.load_in_4bit)
    return source, source if plain(reference.fingerprint) == plain(source.fingerprint) else reference


def load_with(config: ModelConfig, source: ModelSource, precision: Precision) -> Loaded:
    """A model as a command's settings say."""
    return load_source(
        source,
        trust_remote_code=config.trust_remote_code,
        dtype=precision.weights,
        compute=precision.compute,
        in_4bit=config.load_in_4bit,
        learns=isinstance(config, TrainConfig) and config.continue_adapter,
    )


def sized(config: ModelConfig, source: ModelSource, model: Any) -> ModelConfig:
    """Settings that say the size of the adapters to train, also where they are there already."""
    if isinstance(config, TrainConfig) and config.continue_adapter:
        return lora.as_new(config, source.folder, model)
    return config


def class_counts(rows: EncodedRows, needs: Classes = "both") -> tuple[int, int]:
    """(desirable, undesirable) rows.

    Args:
        needs: the classes that the loss needs rows of.

    Raises:
        BadData: one of them is empty.
    """
    desirable = int(rows.labels.sum())
    undesirable = len(rows) - desirable
    count = plural(len(rows), "row")
    if not rows or (not desirable and needs != "any"):
        what = "desirable rows" if rows else "training rows"
        raise BadData(
            f"There are no {what} left to train on ({count} in all)" + (KTO_NEEDS if needs == "both" else "."),
            "Add rows, or raise --max-length.",
        )
    if needs == "both" and not undesirable:
        raise BadData(
            f"There are no undesirable rows left to train on ({count} in all){KTO_NEEDS}",
            "Train on the desirable ones with --loss sft, or add undesirable rows, or raise --max-length.",
        )
    return desirable, undesirable


def make_scorer(
    prepared: Prepared, accelerator: Any, screen: Screen, *, model: Any = None, sharded: bool = False
) -> CompletionScorer:
    """The model as a scorer on its device, after its fast paths were compared with the model's own logits.

    Args:
        model: another one, of the same tokens.
        sharded: over all processes if the launch uses FSDP; such a model cannot generate.
    """
    scorer = CompletionScorer(prepared.model if model is None else model, prepared.dtype)
    scorer = to_devices(scorer, accelerator) if sharded else scorer.to(accelerator.device)
    rows = prepared.train + prepared.validation
    if not rows:
        return scorer
    checked = scorer.trust_or_fall_back(check_sequences(rows))
    if scorer.plain:
        screen.warn(
            f"kto cannot use this model's output head directly (log-probs differ by {checked.difference:.1e} nats per "
            "token): using the model's own logits, one sequence at a time. Correct, but slow."
        )
    elif checked.unpacked:
        screen.note(f"Using padded batches: this model cannot be packed, because {checked.unpacked}.")
    else:
        attention = f" Attention: {checked.attention}." if checked.attention else ""
        screen.note(f"Using packed batches (no padding, shared prefixes computed once).{attention}")
    refuse_uneven_rounds(scorer)
    return scorer


def check_sequences(rows: EncodedRows) -> list[TokenSequence]:
    """Sequences for the start-up check: two short ones, one that shares the first's prompt, and the longest of all.

    The longest, an own or a mismatched one, exceeds the attention window, if the model has one that any exceeds.
    """
    order = rows.own.lengths.argsort(kind="stable")[:2].tolist()
    first, second, longest = order[0], order[-1], int(rows.sequences.lengths.argmax())
    return [rows.own[first], rows.own[second], rows.mismatched[first], rows.sequences[longest]]
