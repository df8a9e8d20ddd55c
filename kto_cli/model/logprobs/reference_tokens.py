"""The reference's log-probs of single completion tokens: from the cache, else computed and stored."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy
import torch
from torch import Tensor

from kto_cli.common.errors import BadInput, Diverged
from kto_cli.common.phase import STORED
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.ragged import Ragged
from kto_cli.model.distributed.start import freed_memory_returned
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.out_of_memory import within_memory
from kto_cli.model.logprobs.reference_cache import ReferenceCache, TokenCache
from kto_cli.model.logprobs.segments import Segments
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.store import Sequences


def reference_token_logps(
    wanted: Sequences,
    cache: TokenCache,
    sums: ReferenceCache,
    scorer: Callable[[], CompletionScorer],
    accelerator: Any,
    screen: Screen,
    *,
    token_budget: int,
) -> tuple[Ragged, int]:
    """(log-probs of the completion tokens of sequences, float32; how many distinct sequences were computed).

    Args:
        sums: gets the sum of what is computed, where it has none, so that no sequence is scored twice.
        scorer: as of `reference_logps`.

    Raises:
        Diverged: a log-prob that is not a number. OutOfMemory: not even a row fits.
    """
    with freed_memory_returned(accelerator.device):
        keys, first, inverse = numpy.unique(wanted.keys, return_index=True, return_inverse=True)
        lengths = wanted.completion_lengths[first]
    empty = Ragged.of(torch.zeros(0), torch.from_numpy(lengths))

    # One process reads for all, as with the sums.
    def stored() -> Ragged:
        values = torch.zeros(int(lengths.sum()), dtype=torch.float32)
        if accelerator.is_main_process:
            values = torch.from_numpy(cache.read(keys, lengths))
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()
        return empty._replace(values=values)

    def missing(found: Ragged) -> Tensor:
        return found.values[found.starts[:-1]].isnan().nonzero()[:, 0]

    found = stored()
    warn_of_damage(cache, screen)
    lacking = missing(found)
    if len(lacking):
        distributed = DistributedScorer(accelerator, scorer(), token_budget=token_budget)
        sequences = wanted.take(first)

        def compute() -> Ragged:
            return _compute(keys, sequences, missing(stored()), distributed, cache, sums, screen)

        longest = int(sequences.lengths[lacking.numpy()].max())
        computed = within_memory(distributed, compute, what="the reference pass", longest=longest, say=screen.warn)
        found = stored()
        found = found._replace(values=torch.where(found.values.isnan(), computed.values.float(), found.values))
    return found.take(inverse.tolist()), len(lacking)


def _compute(
    keys: Any,
    sequences: Sequences,
    missing: Tensor,
    scorer: DistributedScorer,
    cache: TokenCache,
    sums: ReferenceCache,
    screen: Screen,
) -> Ragged:
    """Scores what is missing, each micro-batch stored as soon as it is known; zeros for what is not missing."""

    def store(positions: list[int], logps: Ragged) -> None:
        if not logps.values.isfinite().all():
            raise Diverged(
                "The reference model gives a log-prob that is not a finite number.",
                "Check the model, or use --dtype float32.",
            )
        each = logps.values.float().numpy()
        parts = (each[start:stop] for start, stop in pairwise(logps.starts.tolist()))
        names, counts = keys[positions].tolist(), logps.lengths.tolist()
        sums.append(list(zip(names, logps.sums().tolist(), counts, strict=True)))
        cache.append(list(zip(names, parts, strict=True)))
        screen.tick(len(positions))

    batches = scorer.repeatable_batches(sequences, missing)
    accelerator = scorer.accelerator
    mine = sum(map(len, batches[accelerator.process_index :: accelerator.num_processes]))
    with screen.progress("reference log-probs of tokens", mine, keeps=STORED):
        return scorer.token_log_probs(sequences, batches=batches, done=store)


def warn_of_damage(cache: Segments, screen: Screen) -> None:
    """Names the files that were found truncated or damaged."""
    for name in cache.fixed:
        screen.warn(
            f"The reference cache had a truncated or damaged file ({cache.folder / name}); "
            "its values are computed again."
        )


def refuse_other_sums(tokens: Ragged, sums: Tensor, cache: ReferenceCache, *, exact: bool) -> None:
    """Compares log-probs of tokens with those stored as sums, maybe of another pass.

    Two passes of one model differ by rounding alone: in float32 by 0.001 nats a token, in 16 bits by some hundredths of
    a nat in either direction (as `CompletionScorer` allows).

    Args:
        sums: [rows]. exact: they are computed in float32, not in 16 bits.

    Raises:
        BadInput: they differ by more.
    """
    lengths = tokens.lengths.double()
    differences = (tokens.sums() - sums.double()).abs()
    wrong = ~(differences <= (1e-3 * lengths if exact else 0.25 * lengths.sqrt()))
    if wrong.any():
        raise BadInput(
            "The reference log-probs of single tokens do not add up to the stored sums for "
            f"{plural(int(wrong.sum()), 'row')} (off by {differences.max():.3g} nats at most).",
            f"Remove {cache.folder}, and the next run computes both again.",
        )
