"""Data, tokenizer, model and scorer of a run, as precompute, train and eval need them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import torch

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadData, BadInput, BadModel
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import plural
from kto_cli.core.loss_kinds import Classes
from kto_cli.core.rows import TokenSequence
from kto_cli.data.dataset import TRAIN, VALIDATION, DataDir, load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.model import lora
from kto_cli.model.distributed.processes import refuse_uneven_rounds, shards, to_devices
from kto_cli.model.identity import plain
from kto_cli.model.lengths import greatest_length
from kto_cli.model.load import end_ids, load_tokenizer
from kto_cli.model.logprobs.micro_batch_size import default_token_budget
from kto_cli.model.precision import Precision, choose_precision, emulates_bfloat16
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.source import Loaded, ModelSource, load_source, open_source
from kto_cli.model.tokens.cached import tokenized_rows
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.encoding_report import EncodingReport
from kto_cli.model.tokens.pair_ids import crowded_notes
from kto_cli.model.tokens.store import EncodedRows


@dataclass
class Prepared:
    """Data, tokenizer and model, loaded and tokenized."""

    data: DataDir
    source: ModelSource
    """Of `model`."""
    reference: ModelSource
    """Whose log-probs are the reference's: `source`, unless --reference names another model."""
    tokenizer: Any
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
    validation: EncodedRows
    template_date: str | None
    """The date that the chat template writes, YYYY-MM-DD; None if it writes none."""

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
    config: ModelConfig, accelerator: Any, screen: Screen, *, needs_train: bool = True, merged: bool = False
) -> Prepared:
    """Loads data, tokenizer and model, and encodes the rows.

    Args:
        merged: the adapters of the model, if it has some, are merged into its weights.

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
    date = datetime.date.fromisoformat(config.template_date) if config.template_date else None
    encoder = Encoder(
        tokenizer,
        max_length=max_length,
        end_ids=end_ids(model),
        date=date,
        template_kwargs=config.chat_template_kwargs,
    )
    loaded, chats = [], 0
    for file, what in ((TRAIN, "training"), (VALIDATION, "validation")):
        rows = EncodedRows()
        if needs_train or file != TRAIN:
            rows, report = tokenized_rows(
                cache_folder(config), data, file, encoder, source.tokenizer_folder, accelerator, screen
            )
            _say_of_rows(rows, report, what, screen)
            refuse_unknown_tokens(rows, tokenizer, model)
            chats += report.chats
        loaded.append(rows)
    _say_of_template(encoder, screen, chats=bool(chats) and not fallback)
    return Prepared(
        data=data,
        source=source,
        reference=reference,
        tokenizer=tokenizer,
        own_template=not fallback,
        model=model,
        adapted=adapted,
        precision=precision,
        max_length=max_length,
        token_budget=config.micro_batch_tokens
        or default_token_budget(
            model, sized(config, source, model), precision, accelerator.device, cards=shards(accelerator.num_processes)
        ),
        train=loaded[0],
        validation=loaded[1],
        template_date=encoder.date.isoformat() if encoder.date else None,
    )


def _say_of_rows(rows: EncodedRows, report: EncodingReport, what: str, screen: Screen) -> None:
    """What became of a split's rows."""
    for sentence in report.notes(what):
        screen.note(sentence)
    for sentence in crowded_notes(rows, what):
        screen.warn(sentence)


def _say_of_template(encoder: Encoder, screen: Screen, *, chats: bool) -> None:
    """What the chat template is given, warns of and, where there are `chats`, does."""
    if encoder.template_kwargs:
        given = spelled_kwargs(encoder.template_kwargs)
        screen.note(f"The chat template is given {given}: inference must pass the same.")
    for sentence in encoder.warnings():
        screen.warn(sentence)
    for sentence in encoder.notes() if chats else ():
        screen.note(sentence)


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


def refuse_unknown_tokens(rows: EncodedRows, tokenizer: Any, model: Any) -> None:
    """Rows may use no token that the model has no embedding of, as when tokens were added to the tokenizer alone.

    Raises:
        BadModel: some do; names the tokens.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= known:
        return
    unknown = [{token for token in (*row.own.prompt, *row.own.completion) if token >= known} for row in rows]
    if count := sum(map(bool, unknown)):
        names = tokenizer.convert_ids_to_tokens(sorted(set().union(*unknown))[:5])
        raise BadModel(
            f"The tokenizer has {len(tokenizer):,} tokens and the model embeddings of {known:,}: "
            f"{plural(count, 'row')} with tokens that the model does not know ({', '.join(names)}).",
            "Give a model that was resized to its tokenizer (resize_token_embeddings), or the tokenizer it was trained "
            "with.",
        )


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
