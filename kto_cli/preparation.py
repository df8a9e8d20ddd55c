"""What precompute, train and eval share: rows in tokens, a model, and the reference's log-probs from the cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kto_cli.config import ModelConfig
from kto_cli.core.plan import micro_batches
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.data_dir import DataDir, find_data_dir, load_data_dir
from kto_cli.display import Screen
from kto_cli.encoding import Encoder, encode_rows
from kto_cli.engine import Engine, References
from kto_cli.errors import BadData, BadInput, Diverged
from kto_cli.models import ModelSource, context_length, load_model, load_tokenizer, open_source
from kto_cli.precision import Precision, choose_precision
from kto_cli.reference import ReferenceCache, default_cache, sequence_key
from kto_cli.scoring import CompletionScorer


@dataclass
class CacheUse:
    """How many distinct sequences were needed, and where their log-probs came from."""

    sequences: int = 0
    computed: int = 0
    cached: int = 0


@dataclass
class Prepared:
    """Everything a scoring or training loop needs."""

    data: DataDir
    source: ModelSource
    tokenizer: Any
    model: Any
    precision: Precision
    max_length: int
    token_budget: int
    """Tokens, padding included, of a micro-batch."""
    train: list[EncodedRow]
    held_out: list[EncodedRow]

    @property
    def dtype(self) -> torch.dtype:
        """What matrices are multiplied in."""
        return self.precision.compute


def start_accelerator() -> Any:
    """The processes of this launch; one when nothing was launched."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    # The same numbers on every run: needed to resume bit for bit, and free on a CPU.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # Without a GPU accelerate joins the other processes (gloo) only when told to use the CPU.
    cpu = several and not torch.accelerator.is_available()
    # Precision and accumulation are ours (scorer, engine): a launcher's settings for them would count twice.
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
    source = open_source(config.model)
    tokenizer, fallback = load_tokenizer(
        source.folder, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    if fallback:
        screen.note(
            "The model has no chat template: using hh-rlhf's turn markers (Human: / Assistant:). "
            "Give its own with --chat-template FILE."
        )
    precision = choose_precision(config.dtype, accelerator.device)
    model = load_model(source.folder, trust_remote_code=config.trust_remote_code, dtype=precision.weights)
    max_length = _max_length(config.max_length, context_length(model.config))
    encoder = Encoder(tokenizer, max_length=max_length, end_ids=_end_ids(model))
    train = _encode(data.train, encoder, "training", screen) if needs_train else []
    held_out = _encode(data.held_out, encoder, "held-out", screen)
    return Prepared(
        data=data,
        source=source,
        tokenizer=tokenizer,
        model=model,
        precision=precision,
        max_length=max_length,
        token_budget=config.micro_batch_tokens or (2048 if accelerator.device.type == "cpu" else 16384),
        train=train,
        held_out=held_out,
    )


def _max_length(asked: int | None, context: int | None) -> int:
    if asked is not None and context is not None and asked > context:
        raise BadInput(
            f"--max-length {asked} is more than the {context} tokens this model takes.",
            f"Use {context} or less.",
        )
    return asked or min(1024, context or 1024)


def _end_ids(model: Any) -> list[int]:
    ends = getattr(model.generation_config, "eos_token_id", None) or model.config.eos_token_id or []
    return [ends] if isinstance(ends, int) else list(ends)


def _encode(rows: Sequence[Any], encoder: Encoder, what: str, screen: Screen) -> list[EncodedRow]:
    if not rows:
        return []
    with screen.progress(f"tokenizing {what} rows", len(rows)):
        encoded, report = encode_rows(rows, encoder, tick=screen.tick)
    for sentence in report.notes(what):
        screen.note(sentence)
    return encoded


def class_counts(rows: Sequence[EncodedRow]) -> tuple[int, int]:
    """(desirable, undesirable) rows.

    Raises:
        BadData: a class is empty.
    """
    desirable = sum(row.label for row in rows)
    if not rows or desirable in (0, len(rows)):
        which = "training rows" if not rows else "desirable rows" if not desirable else "undesirable rows"
        raise BadData(
            f"There are no {which} left to train on ({len(rows):,} rows fit); KTO needs both kinds.",
            "Add rows, or raise --max-length.",
        )
    return desirable, len(rows) - desirable


def make_scorer(prepared: Prepared, accelerator: Any, screen: Screen) -> CompletionScorer:
    """The model as a scorer on its device, its fast path compared with the model's own logits first."""
    scorer = CompletionScorer(prepared.model, prepared.dtype).to(accelerator.device)
    rows = prepared.train or prepared.held_out
    if rows:
        shortest = sorted(rows, key=lambda row: row.own.length)[:2]
        difference = scorer.trust_or_fall_back([row.own for row in shortest])
        if scorer.plain:
            screen.warn(
                f"This model's head is not one kto can read directly (log-probs differ by {difference:.1e} nats a "
                "token): using the model's own logits, one sequence at a time. Correct, but slow."
            )
    return scorer


def reference_logps(
    prepared: Prepared,
    rows: Sequence[EncodedRow],
    scorer: CompletionScorer,
    config: ModelConfig,
    accelerator: Any,
    screen: Screen,
) -> tuple[References, CacheUse]:
    """The reference's log-probs of rows and of their mismatched pairs: from the cache, else computed and stored.

    `scorer` holds the reference's weights. Each process computes and stores its share.

    Raises:
        Diverged: the reference gives a log-prob that is not a number.
    """
    from accelerate.utils import broadcast_object_list

    sequences = [row.own for row in rows] + [row.mismatched for row in rows]
    precision = prepared.precision
    by_key = {sequence_key(sequence): sequence for sequence in sequences}
    cache = ReferenceCache(
        Path(config.cache) if config.cache else default_cache(),
        fingerprint=prepared.source.fingerprint,
        dtype=str(prepared.dtype) if precision.weights == torch.float32 else precision.name,
    )
    # One process reads for all: they must agree on what is missing, whoever else writes to this cache meanwhile.
    found = _sound(cache.read(by_key), by_key) if accelerator.is_main_process else {}
    (found,) = broadcast_object_list([found])
    for name in cache.mended:
        screen.warn(
            f"The reference cache had a torn or damaged part ({cache.folder / name}); "
            "it is removed, and what it held is computed again."
        )
    missing = [(key, sequence) for key, sequence in by_key.items() if key not in found]
    use = CacheUse(len(by_key), len(missing), len(by_key) - len(missing))
    if missing:
        found |= _compute(missing, scorer, cache, prepared.token_budget, accelerator, screen)
    values = torch.tensor([found[sequence_key(sequence)][0] for sequence in sequences], dtype=torch.float32)
    return References(values[: len(rows)], values[len(rows) :]), use


def _sound(found: dict[bytes, tuple[float, int]], by_key: dict[bytes, TokenSequence]) -> dict[bytes, tuple[float, int]]:
    """Drops stored values whose token count is not the sequence's."""
    return {key: value for key, value in found.items() if value[1] == len(by_key[key].completion)}


def _compute(
    missing: list[tuple[bytes, TokenSequence]],
    scorer: CompletionScorer,
    cache: ReferenceCache,
    token_budget: int,
    accelerator: Any,
    screen: Screen,
) -> dict[bytes, tuple[float, int]]:
    """Scores what is missing, a micro-batch at a time, each stored as soon as it is known.

    Micro-batches are cut from the sequences in an order of their own (longest first, then by key), so an
    interrupted pass goes on with the very batches it would have had, and ends with the same bits.
    """
    missing = sorted(missing, key=lambda item: (-item[1].length, item[0]))
    batches = micro_batches([sequence.length for _, sequence in missing], token_budget)
    values = torch.zeros(len(missing), dtype=torch.float64)
    share = batches[accelerator.process_index :: accelerator.num_processes]
    with screen.progress("reference log-probs", sum(map(len, share))):
        for positions in share:
            logps = scorer.score([missing[position][1] for position in positions]).double().cpu()
            if not logps.isfinite().all():
                raise Diverged(
                    "The reference model gives a log-prob that is not a finite number.",
                    "Check the model, or use --dtype float32.",
                )
            values[positions] = logps
            cache.append([(missing[p][0], float(values[p]), len(missing[p][1].completion)) for p in positions])
            screen.tick(len(positions))
    if accelerator.num_processes > 1:
        values = accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()
    return {
        key: (value, len(sequence.completion)) for (key, sequence), value in zip(missing, values.tolist(), strict=True)
    }


def scoring_engine(scorer: Any, prepared: Prepared, accelerator: Any) -> Engine:
    """An engine that only scores."""
    return Engine(accelerator, scorer, None, token_budget=prepared.token_budget, max_grad_norm=0.0)
