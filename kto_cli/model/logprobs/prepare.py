"""Data, tokenizer, model and scorer of a run, as precompute, train and eval need them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import torch

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadData, BadModel
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.common.words import plural
from kto_cli.core.rows import TokenSequence
from kto_cli.data.dataset import TRAIN, VALIDATION, DataDir, load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.model.distributed.processes import refuse_uneven_rounds, shards, to_devices
from kto_cli.model.lengths import greatest_length
from kto_cli.model.load import (
    ModelSource,
    end_ids,
    load_model,
    load_tokenizer,
    open_source,
)
from kto_cli.model.logprobs.micro_batch_size import default_token_budget
from kto_cli.model.precision import Precision, choose_precision, emulates_bfloat16
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.cached import tokenized_rows
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.store import EncodedRows


@dataclass
class Prepared:
    """Data, tokenizer and model, loaded and tokenized."""

    data: DataDir
    source: ModelSource
    tokenizer: Any
    own_template: bool
    """The tokenizer's chat template is the model's or the user's, not our fallback."""
    model: Any
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


def warn_if_built_in(config: ModelConfig, screen: Screen) -> None:
    """Warns that the built-in model is only a demo."""
    if config.model is None:
        screen.warn(
            "No --model given: using the built-in tiny model, which is only a demo. "
            "Use your own with --model FOLDER_OR_HUB_ID."
        )


def prepare(config: ModelConfig, accelerator: Any, screen: Screen, *, needs_train: bool = True) -> Prepared:
    """Loads data, tokenizer and model, and encodes the rows.

    Raises:
        BadInput, BadData, BadModel: see what each part asks for.
    """
    data = load_data_dir(find_data_dir(config.data))
    if not data.sealed:
        screen.note(f"{data.folder} is of an earlier kto: its rows match their checksums, its counts have none.")
    with screen.progress("reading the model's files", None):
        source = open_source(config.model, in_4bit=config.load_in_4bit)
    tokenizer, fallback = load_tokenizer(
        source.folder, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
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
    in_4bit = precision.compute if config.load_in_4bit else None
    with screen.progress("loading the model", None):
        model = load_model(
            source.folder, trust_remote_code=config.trust_remote_code, dtype=precision.weights, in_4bit=in_4bit
        )
    max_length = greatest_length(config.max_length, model.config)
    date = datetime.date.fromisoformat(config.template_date) if config.template_date else None
    encoder = Encoder(
        tokenizer,
        max_length=max_length,
        end_ids=end_ids(model),
        date=date,
        template_kwargs=config.chat_template_kwargs,
    )
    cache = cache_folder(config)
    loaded, chats = [], 0
    for file, what in ((TRAIN, "training"), (VALIDATION, "validation")):
        wanted = needs_train or file != TRAIN
        rows = EncodedRows()
        if wanted:
            rows, report = tokenized_rows(cache, data, file, encoder, source.folder, accelerator, screen)
            for sentence in report.notes(what):
                screen.note(sentence)
            refuse_unknown_tokens(rows, tokenizer, model)
            chats += report.chats
        loaded.append(rows)
    if encoder.template_kwargs:
        given = spelled_kwargs(encoder.template_kwargs)
        screen.note(f"The chat template is given {given}: inference must pass the same.")
    for sentence in encoder.warnings():
        screen.warn(sentence)
    for sentence in encoder.notes() if chats and not fallback else ():
        screen.note(sentence)
    return Prepared(
        data=data,
        source=source,
        tokenizer=tokenizer,
        own_template=not fallback,
        model=model,
        precision=precision,
        max_length=max_length,
        token_budget=config.micro_batch_tokens
        or default_token_budget(model, config, precision, accelerator.device, cards=shards(accelerator.num_processes)),
        train=loaded[0],
        validation=loaded[1],
        template_date=encoder.date.isoformat() if encoder.date else None,
    )


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


def class_counts(rows: EncodedRows) -> tuple[int, int]:
    """(desirable, undesirable) rows.

    Raises:
        BadData: a class is empty.
    """
    desirable = int(rows.labels.sum())
    if not rows or desirable in (0, len(rows)):
        which = "training rows" if not rows else "desirable rows" if not desirable else "undesirable rows"
        raise BadData(
            f"There are no {which} left to train on ({plural(len(rows), 'row')} in all); KTO needs both kinds.",
            "Add rows, or raise --max-length.",
        )
    return desirable, len(rows) - desirable


def make_scorer(prepared: Prepared, accelerator: Any, screen: Screen, *, sharded: bool = False) -> CompletionScorer:
    """The model as a scorer on its device, after its fast paths were compared with the model's own logits.

    Args:
        sharded: over all processes if the launch uses FSDP; such a model cannot generate.
    """
    scorer = CompletionScorer(prepared.model, prepared.dtype)
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
