"""What precompute, train and eval share: rows in tokens, a model, and the reference's log-probs from the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadData
from kto_cli.common.screen import Screen, stdout_kept_free
from kto_cli.common.train_config import ModelConfig
from kto_cli.core.rows import TokenSequence
from kto_cli.data.dataset import TRAIN, VALIDATION, DataDir, find_data_dir, load_data_dir
from kto_cli.model.distributed.processes import joined_as_for_ddp, place, refuse_uneven_rounds, refuse_unproven
from kto_cli.model.load import (
    ModelSource,
    collecting_later,
    context_length,
    end_ids,
    greatest_length,
    load_model,
    load_tokenizer,
    open_source,
)
from kto_cli.model.logprobs.micro_batch_size import default_token_budget, keep_freed_memory
from kto_cli.model.precision import Precision, choose_precision
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.cached import tokenized_rows
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.store import EncodedRows


@dataclass
class Prepared:
    """Everything a scoring or training loop needs."""

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

    @property
    def dtype(self) -> torch.dtype:
        """What matrices are multiplied in."""
        return self.precision.compute


@collecting_later()
def start_accelerator() -> Any:
    """The processes of this launch; one when nothing was launched.

    Raises:
        BadInput: the launch asks for something that would not give one process's numbers, or was never tried.
    """
    refuse_unproven(os.environ)
    with stdout_kept_free():  # an installed DeepSpeed is imported with it, and prints
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    if not torch.cuda.is_available():
        keep_freed_memory()
    # The same numbers on every run: needed to resume bit for bit, and free on a CPU.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # Without a GPU accelerate joins the other processes (gloo) only when told to use the CPU.
    cpu = several and not torch.accelerator.is_available()
    # Precision and accumulation are ours (scorer, engine): a launcher's settings for them would count twice.
    with joined_as_for_ddp():
        return Accelerator(
            cpu=cpu,
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )


def say_if_built_in(config: ModelConfig, screen: Screen) -> None:
    """Nobody should take the built-in model for more than it is."""
    if config.model is None:
        screen.warn(
            "No --model given: using the built-in tiny model, which can only show how KTO works. "
            "Give your own with --model FOLDER_OR_HUB_ID."
        )


def prepare(config: ModelConfig, accelerator: Any, screen: Screen, *, needs_train: bool = True) -> Prepared:
    """Loads data, tokenizer and model, and encodes the rows.

    Raises:
        BadInput, BadData, BadModel: see what each part asks for.
    """
    data = load_data_dir(find_data_dir(config.data))
    source = open_source(config.model, in_4bit=config.load_in_4bit)
    tokenizer, fallback = load_tokenizer(
        source.folder, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    if fallback:
        screen.note(
            "The model has no chat template: using hh-rlhf's turn markers (Human: / Assistant:). "
            "Give its own with --chat-template FILE."
        )
    precision = choose_precision(config.dtype, accelerator.device)
    in_4bit = precision.compute if config.load_in_4bit else None
    model = load_model(
        source.folder, trust_remote_code=config.trust_remote_code, dtype=precision.weights, in_4bit=in_4bit
    )
    max_length = greatest_length(config.max_length, context_length(model.config))
    encoder = Encoder(tokenizer, max_length=max_length, end_ids=end_ids(model))
    cache = cache_folder(config)
    kept = []
    for file, what in ((TRAIN, "training"), (VALIDATION, "validation")):
        wanted = needs_train or file != TRAIN
        rows = EncodedRows()
        if wanted:
            rows, report = tokenized_rows(cache, data, file, encoder, source.folder, accelerator, screen)
            for sentence in report.notes(what):
                screen.note(sentence)
        kept.append(rows)
    return Prepared(
        data=data,
        source=source,
        tokenizer=tokenizer,
        own_template=not fallback,
        model=model,
        precision=precision,
        max_length=max_length,
        token_budget=config.micro_batch_tokens or default_token_budget(model.config, accelerator.device),
        train=kept[0],
        validation=kept[1],
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
            f"There are no {which} left to train on ({len(rows):,} rows fit); KTO needs both kinds.",
            "Add rows, or raise --max-length.",
        )
    return desirable, len(rows) - desirable


def make_scorer(prepared: Prepared, accelerator: Any, screen: Screen, *, spread: bool = False) -> CompletionScorer:
    """The model as a scorer on its device, its fast ways compared with the model's own logits first.

    With `spread`, over all processes where FSDP is asked for; such a model cannot generate.
    """
    whole = CompletionScorer(prepared.model, prepared.dtype)
    scorer = place(whole, accelerator) if spread else whole.to(accelerator.device)
    rows = prepared.train or prepared.validation
    if not rows:
        return scorer
    checked = scorer.trust_or_fall_back(check_sequences(rows))
    if scorer.plain:
        screen.warn(
            f"This model's head is not one kto can read directly (log-probs differ by {checked.difference:.1e} nats a "
            "token): using the model's own logits, one sequence at a time. Correct, but slow."
        )
    elif checked.unpacked:
        screen.note(f"Micro-batches are padded: this model cannot be packed, because {checked.unpacked}.")
    else:
        screen.note("Micro-batches are packed: no padding, and rows that share a prompt compute it once.")
    refuse_uneven_rounds(scorer)
    return scorer


def check_sequences(rows: EncodedRows) -> list[TokenSequence]:
    """Two short ones, one that shares its prompt with the first, and the longest, which reaches beyond any window."""
    order = rows.own.lengths.argsort(kind="stable").tolist()
    first, second, longest = order[0], order[min(1, len(order) - 1)], order[-1]
    return [rows.own[first], rows.own[second], rows.mismatched[first], rows.own[longest]]
