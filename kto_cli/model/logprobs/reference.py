"""Reference log-probs of rows and of their mismatched completions: from the cache, else computed and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import Diverged
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.phase import STORED
from kto_cli.common.screen import Screen
from kto_cli.core.packing import missing_runs, padded_batches
from kto_cli.core.prefix_order import prefix_order
from kto_cli.model.distributed.start import freed_memory_returned
from kto_cli.model.identity import numbers_identity
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.out_of_memory import within_memory
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.logprobs.reference_cache import ReferenceCache
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.store import EncodedRows, Sequences


class ReferenceLogps(NamedTuple):
    """Log-probs of the reference model, nats."""

    own: Tensor
    """[rows] of the rows' own completions."""
    mismatched: Tensor
    """[rows] of their mismatched completions."""

    def take(self, rows: Sequence[int] | slice) -> ReferenceLogps:
        """Those of some rows, in this order."""
        return ReferenceLogps(self.own[rows], self.mismatched[rows])


@dataclass
class CacheUse:
    """Counts of distinct sequences: needed, computed, cached."""

    sequences: int = 0
    computed: int = 0
    cached: int = 0


def reference_logps(
    prepared: Prepared,
    rows: EncodedRows,
    scorer: Callable[[], CompletionScorer],
    config: ModelConfig,
    accelerator: Any,
    screen: Screen,
) -> tuple[ReferenceLogps, CacheUse]:
    """Reference log-probs of rows and of their mismatched completions: from the cache, else computed and stored.

    `scorer` gives one with the reference's weights; it is asked for if anything is missing. Each process computes and
    stores its share.

    Raises:
        Diverged: the reference gives a log-prob that is not a number. OutOfMemory: not even a row fits.
    """
    cache = open_cache(prepared, config)
    with freed_memory_returned(accelerator.device):
        keys, first, inverse = numpy.unique(rows.sequences.keys, return_index=True, return_inverse=True)

    # One process reads for all: they must agree on what is missing, whoever else writes to this cache meanwhile.
    def stored() -> Tensor:
        values = torch.zeros(len(keys), dtype=torch.float64)
        if accelerator.is_main_process:
            values = stored_logps(cache, keys, rows.sequences.completion_lengths[first])
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()
        return values

    with freed_memory_returned(accelerator.device):
        values = stored()
    for name in cache.fixed:
        screen.warn(
            f"The reference cache had a truncated or damaged file ({cache.folder / name}); "
            "its values are computed again."
        )
    missing = values.isnan().nonzero()[:, 0]
    if len(missing):
        distributed = DistributedScorer(accelerator, scorer(), token_budget=prepared.token_budget)
        sequences = rows.sequences.take(first)

        def compute() -> Tensor:  # a second time if memory ran out: what was stored until then is not missing any more
            return _compute(keys, sequences, stored().isnan().nonzero()[:, 0], distributed, cache, screen)

        longest = int(sequences.lengths[missing.numpy()].max())
        computed = within_memory(distributed, compute, what="the reference pass", longest=longest, say=screen.warn)
        # what is stored counts, so that a resumed run reads the same: another process may have stored it first
        values = stored()
        values = torch.where(values.isnan(), computed, values)
    both = values[torch.from_numpy(inverse)]
    use = CacheUse(len(keys), len(missing), len(keys) - len(missing))
    return ReferenceLogps(both[: len(rows)], both[len(rows) :]), use


def open_cache(prepared: Prepared, config: ModelConfig) -> ReferenceCache:
    """The cache of this reference model's log-probs in this dtype."""
    precision = prepared.precision
    dtype = str(precision.compute) if precision.weights == torch.float32 else precision.name
    return ReferenceCache(cache_folder(config), numbers=numbers_identity(prepared.reference.fingerprint, dtype))


def stored_logps(cache: ReferenceCache, keys: Any, completion_lengths: Any) -> torch.Tensor:
    """[sequences] what the cache holds, nats; NaN for what it lacks or holds with another token count."""
    logps, tokens = cache.read(keys)
    return torch.from_numpy(numpy.where(tokens == completion_lengths, logps, numpy.nan))


def _compute(
    keys: Any,
    sequences: Sequences,
    missing: torch.Tensor,
    scorer: DistributedScorer,
    cache: ReferenceCache,
    screen: Screen,
) -> torch.Tensor:
    """Scores what is missing, a micro-batch at a time, each stored as soon as it is known; [sequences] float64.

    Micro-batches depend on the sequences alone, so an interrupted pass is resumed with the same ones and ends with the
    same bits.

    Args:
        keys: [sequences] ascending. missing: indices.

    Returns:
        zeros for what is not missing.
    """

    def store(positions: list[int], logps: torch.Tensor) -> None:
        if not logps.isfinite().all():
            raise Diverged(
                "The reference model gives a log-prob that is not a finite number.",
                "Check the model, or use --dtype float32.",
            )
        counts = lengths[positions].tolist()
        cache.append(list(zip(keys[positions].tolist(), logps.tolist(), counts, strict=True)))
        screen.tick(len(positions))

    lengths = sequences.completion_lengths
    if scorer.packs:
        wanted = numpy.isin(numpy.arange(len(sequences)), missing.numpy()).tolist()
        batches = missing_runs(prefix_order(sequences), scorer.token_budget, wanted)
    else:
        parts = padded_batches((sequences.take(missing.numpy()).lengths - 1).tolist(), scorer.token_budget)
        batches = [missing[part].tolist() for part in parts]
    accelerator = scorer.accelerator
    mine = sum(map(len, batches[accelerator.process_index :: accelerator.num_processes]))
    with screen.progress("reference log-probs", mine, keeps=STORED):
        return scorer.log_probs(sequences, batches=batches, done=store).double()
