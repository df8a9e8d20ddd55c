"""Reference log-probs of rows and of their mismatched completions: from the cache, else computed and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import Diverged
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.phase import STORED
from kto_cli.common.screen import Screen
from kto_cli.core.ragged import Ragged
from kto_cli.model.distributed.start import freed_memory_returned
from kto_cli.model.identity import numbers_identity
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.needed import EVERYTHING, Needed
from kto_cli.model.logprobs.out_of_memory import within_memory
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.logprobs.reference_cache import ReferenceCache, TokenCache
from kto_cli.model.logprobs.reference_tokens import reference_token_logps, refuse_other_sums, warn_of_damage
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.store import EncodedRows, Sequences


class ReferenceLogps(NamedTuple):
    """Log-probs of the reference model, nats."""

    own: Tensor
    """[rows] of the rows' own completions."""
    mismatched: Tensor
    """[rows] of their mismatched completions; NaN where they are not needed."""
    tokens: Ragged | None = None
    """Of the single tokens of the rows' own completions, float32; None where the loss does not read them."""
    mismatched_tokens: Ragged | None = None
    """The same of their mismatched completions."""

    def take(self, rows: Sequence[int] | slice) -> ReferenceLogps:
        """Those of some rows, in this order."""
        tokens = (None if part is None else part.take(rows) for part in self[2:])
        return ReferenceLogps(self.own[rows], self.mismatched[rows], *tokens)

    def without_tokens(self) -> ReferenceLogps:
        """The sums alone."""
        return ReferenceLogps(self.own, self.mismatched)

    def summed_from_tokens(self) -> ReferenceLogps:
        """With sums that are exactly those of the tokens, where there are some."""
        own, mismatched = (
            sums if tokens is None else tokens.sums() for sums, tokens in zip(self[:2], self[2:], strict=True)
        )
        return self._replace(own=own, mismatched=mismatched)


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
    needed: Needed = EVERYTHING,
) -> tuple[ReferenceLogps, CacheUse]:
    """Reference log-probs of rows and of what else is needed: from the cache, else computed and stored.

    `scorer` gives one with the reference's weights; it is asked for if anything is missing. Each process computes and
    stores its share.

    Args:
        rows: the first of them are the training rows, all others validation rows.

    Raises:
        Diverged: the reference gives a log-prob that is not a number. OutOfMemory: not even a row fits.
    """
    cache = open_cache(prepared, config)
    trained = len(prepared.train)
    every = needed.sequences(rows, trained)
    with freed_memory_returned(accelerator.device):
        keys, first, inverse = numpy.unique(every.keys, return_index=True, return_inverse=True)
    tokens, scored = None, 0
    if needed.tokens:
        caches, read = (open_token_cache(prepared, config), cache), needed.read_by_tokens(prepared.train)
        budget = prepared.token_budget
        tokens, scored = reference_token_logps(read, *caches, scorer, accelerator, screen, token_budget=budget)

    def stored() -> Tensor:
        return _stored_for_all(cache, keys, every.completion_lengths[first], accelerator)

    with freed_memory_returned(accelerator.device):
        values = stored()
    warn_of_damage(cache, screen)
    missing = values.isnan().nonzero()[:, 0]
    if len(missing):
        distributed = DistributedScorer(accelerator, scorer(), token_budget=prepared.token_budget)
        sequences = every.take(first)

        def compute() -> Tensor:  # a second time if memory ran out: what was stored until then is not missing any more
            return _compute(keys, sequences, stored().isnan().nonzero()[:, 0], distributed, cache, screen)

        longest = int(sequences.lengths[missing.numpy()].max())
        computed = within_memory(distributed, compute, what="the reference pass", longest=longest, say=screen.warn)
        # what is stored counts, so that a resumed run reads the same: another process may have stored it first
        values = stored()
        values = torch.where(values.isnan(), computed, values)
    computed_of_all = len(missing) + scored
    use = CacheUse(len(keys), computed_of_all, len(keys) - computed_of_all)
    found = _placed(values[torch.from_numpy(inverse)], needed, len(rows), trained)
    if tokens is None:
        return found, use
    read_rows = torch.from_numpy(needed.trained(trained))
    sums = torch.cat([found.own[read_rows], found.mismatched[read_rows]])[: len(tokens.lengths)]
    refuse_other_sums(tokens, sums, cache, exact=prepared.precision.compute == torch.float32)
    return _with_tokens(found, tokens, read_rows, trained), use


def _placed(logps: Tensor, needed: Needed, count: int, trained: int) -> ReferenceLogps:
    """Log-probs of `needed.sequences` as those of all rows, NaN where none are needed."""
    own, mismatched = needed.places(count, trained)
    found = []
    for places, values in zip((own, mismatched), logps.split([len(own), len(mismatched)]), strict=True):
        found.append(torch.full((count,), torch.nan, dtype=logps.dtype))
        found[-1][torch.from_numpy(places)] = values
    return ReferenceLogps(found[0], found[1])


def _with_tokens(found: ReferenceLogps, tokens: Ragged, rows: Tensor, trained: int) -> ReferenceLogps:
    """With the tokens of some training rows' own completions and, if there are more, of their mismatched ones."""
    own, others = tokens.take(slice(len(rows))), tokens.take(slice(len(rows), None))
    mismatched = _spread(others, rows, trained) if len(others.lengths) else None
    return found._replace(tokens=_spread(own, rows, trained), mismatched_tokens=mismatched)


def _spread(tokens: Ragged, rows: Tensor, count: int) -> Ragged:
    """Tokens of some rows, ascending, as those of `count`, of which the others have none."""
    lengths = torch.zeros(count, dtype=torch.int64)
    lengths[rows] = tokens.lengths
    return Ragged.of(tokens.values, lengths)


def _stored_for_all(cache: ReferenceCache, keys: NDArray[Any], lengths: NDArray[Any], accelerator: Any) -> Tensor:
    """[keys] stored log-probs, NaN for the missing ones. One process reads for all: they must agree on what is missing,
    whoever else writes to this cache meanwhile."""
    values = torch.zeros(len(keys), dtype=torch.float64)
    if accelerator.is_main_process:
        values = stored_logps(cache, keys, lengths)
    if accelerator.num_processes > 1:
        values = accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()
    return values


def open_cache(prepared: Prepared, config: ModelConfig) -> ReferenceCache:
    """The cache of this reference model's log-probs in this dtype."""
    return ReferenceCache(cache_folder(config), numbers=_numbers(prepared))


def open_token_cache(prepared: Prepared, config: ModelConfig) -> TokenCache:
    """The same of single tokens."""
    return TokenCache(cache_folder(config), numbers=_numbers(prepared))


def _numbers(prepared: Prepared) -> str:
    """Name of this reference model's log-probs in this dtype."""
    precision = prepared.precision
    dtype = str(precision.compute) if precision.weights == torch.float32 else precision.name
    return numbers_identity(prepared.reference.fingerprint, dtype)


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
    batches = scorer.repeatable_batches(sequences, missing)
    accelerator = scorer.accelerator
    mine = sum(map(len, batches[accelerator.process_index :: accelerator.num_processes]))
    with screen.progress("reference log-probs", mine, keeps=STORED):
        return scorer.log_probs(sequences, batches=batches, done=store).double()
