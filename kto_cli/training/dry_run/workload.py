"""The tokens a run will compute, counted from the lengths of its rows before it starts."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.objectives import needs_mismatched, needs_own_first
from kto_cli.model.logprobs.needed import Needed
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.logprobs.reference import open_cache, open_token_cache, stored_logps
from kto_cli.model.logprobs.validation import QUICK_ROWS
from kto_cli.model.tokens.store import EncodedRows, Sequences
from kto_cli.training.dry_run import estimate
from kto_cli.training.dry_run.estimate import TokenWork, forward_tokens
from kto_cli.training.planned import repeated_batches
from kto_cli.training.settings import RunSettings


def step_tokens(rows: EncodedRows, settings: RunSettings, token_budget: int, *, packed: bool) -> tuple[int, int]:
    """Tokens that a step over these rows computes: (forward and backward, forward only)."""
    return estimate.step_tokens(
        rows.own,
        rows.mismatched if needs_mismatched(settings.loss) else (),
        token_budget=token_budget,
        packed=packed,
        own_first=settings.kind.per_token or needs_own_first(settings.loss),
    )


def row_tokens(rows: EncodedRows, settings: RunSettings) -> NDArray[numpy.int64]:
    """[rows] tokens of a row and, where the loss reads it, of its mismatched completion behind its prompt."""
    return rows.own.lengths + (rows.mismatched.lengths if needs_mismatched(settings.loss) else 0)


def planned_work(
    prepared: Prepared, settings: RunSettings, missing: Sequences, of_tokens: Sequences, *, packed: bool
) -> TokenWork:
    """The tokens that the whole run computes.

    Args:
        missing, of_tokens: as `missing_sequences` and `missing_tokens` give them; the latter's sums come with them.
    """
    scored = {key.tobytes() for key in of_tokens.keys}
    rest = missing.take(numpy.array([at for at, key in enumerate(missing.keys) if key.tobytes() not in scored], "i8"))
    validation, budget = prepared.validated, prepared.token_budget
    own = mismatched = compared = 0
    for times, batch in repeated_batches(prepared.train, settings):
        rows = prepared.train.take(batch)
        both = step_tokens(rows, settings, budget, packed=packed)
        own, mismatched = own + times * both[0], mismatched + times * both[1]
        if settings.steps_moved:
            read = rows.sequences if needs_mismatched(settings.loss) else rows.own
            compared += times * forward_tokens(read, token_budget=budget, packed=packed)
    looks = -(-settings.total_steps // settings.eval_every) if len(validation) else 0
    share = min(1.0, QUICK_ROWS / max(1, len(validation)))
    return TokenWork(
        own=own,
        mismatched=mismatched,
        reference=sum(forward_tokens(some, token_budget=budget, packed=packed) for some in (rest, of_tokens)),
        validation=int(forward_tokens(validation.sequences, token_budget=budget, packed=packed) * (1 + looks * share)),
        moved=compared * settings.steps_moved // settings.total_steps,
    )


def missing_sequences(prepared: Prepared, needed: Needed, config: TrainConfig) -> Sequences:
    """The distinct sequences that are needed and that the reference cache lacks."""
    both = needed.sequences(prepared.reference_rows, len(prepared.train))
    keys, first = numpy.unique(both.keys, return_index=True)
    stored = stored_logps(open_cache(prepared, config), keys, both.completion_lengths[first])
    return both.take(first[stored.isnan().numpy()])


def missing_tokens(prepared: Prepared, needed: Needed, config: TrainConfig) -> Sequences:
    """The distinct completions whose single tokens' log-probs are needed and that the cache lacks."""
    read = needed.read_by_tokens(prepared.train)
    if not needed.tokens:
        return read.take(numpy.zeros(0, "i8"))
    keys, first = numpy.unique(read.keys, return_index=True)
    lengths = read.completion_lengths[first]
    stored = open_token_cache(prepared, config).read(keys, lengths)
    return read.take(first[numpy.isnan(stored[numpy.cumsum(lengths) - lengths])])


def run_tokens(prepared: Prepared, settings: RunSettings) -> int:
    """Of all rows and mismatched pairs of all steps, as metrics.jsonl counts them."""
    tokens = row_tokens(prepared.train, settings)
    return sum(times * int(tokens[batch].sum()) for times, batch in repeated_batches(prepared.train, settings))


def unique_prompt_tokens(rows: EncodedRows) -> int:
    """Tokens of the prompts when rows that share one count it once."""
    first = numpy.unique(rows.prompts, return_index=True)[1]
    return int(rows.own.prompt_lengths[first].sum())
