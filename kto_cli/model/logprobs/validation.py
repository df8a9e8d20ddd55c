"""Scores of validation rows, and the few metrics of them that are shown during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import torch

from kto_cli.core.statistics.auc import auc, auc_share, weighted_auc
from kto_cli.core.statistics.intervals import cluster_numbers, resample_weights
from kto_cli.core.statistics.scores import Scores, class_means
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.out_of_memory import within_memory
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.tokens.validation_rows import ValidationRows

QUICK_ROWS = 256
"""Most rows of a validation during training; the end of a run and `kto eval` use all."""
QUICK_RESAMPLES = 400
"""Bootstrap resamples of the AUC during training: some milliseconds; its edges vary by about 0.005 between seeds."""

SCORED = ("log_ratios", "mismatched_log_ratios", "logps")
"""Fields of `Scores` that a pass gives; the others are those of the rows."""


def quick_rows(count: int, seed: int) -> list[int]:
    """Indices of the validation rows that are scored during training: the same ones throughout a run."""
    return sorted(Random(f"kto glance {seed}").sample(range(count), min(count, QUICK_ROWS)))


def score_rows(
    scorer: DistributedScorer,
    rows: ValidationRows,
    references: ReferenceLogps,
    *,
    say: Callable[[str], None],
    tick: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Log-ratios of rows and of their mismatched completions, as they are served; equal on all processes.

    Args:
        say: told if memory ran out and smaller micro-batches are tried.

    Raises:
        OutOfMemory: not even a row fits.
    """
    seen: set[int] = set()
    sequences = rows.sequences

    def done(positions: list[int], _: Any) -> None:
        tick(len(set(positions) - seen))  # a pass that ran out of memory begins anew
        seen.update(positions)

    logps = within_memory(
        scorer,
        lambda: scorer.log_probs(sequences, done=done),
        what="the validation",
        longest=int(sequences.lengths.max()),
        say=say,
    )
    own, mismatched, others = logps.split([len(rows), len(rows), len(rows.read_otherwise)])
    as_read = own.clone()
    as_read[torch.from_numpy(rows.read_otherwise)] = others
    values = (own - references.own, mismatched - references.mismatched, as_read)
    return _scores_of(rows, **dict(zip(SCORED, values, strict=True)))


def stored_scores(scores: Scores) -> dict[str, list[float]]:
    """The numbers of scores, for a JSON file; `scores_again` reads them."""
    values = {name: getattr(scores, name) for name in SCORED}
    return {name: value.tolist() for name, value in values.items() if value is not None}


def scores_again(rows: ValidationRows, stored: Mapping[str, Any]) -> Scores:
    """Scores of the same rows from `stored_scores`, among others."""
    values = {name: torch.tensor(stored[name], dtype=torch.float64) for name in SCORED if name in stored}
    return _scores_of(rows, **values)


def _scores_of(rows: ValidationRows, **values: torch.Tensor) -> Scores:
    served = rows.served
    return Scores(
        desirable=torch.from_numpy(served.labels),
        lengths=torch.from_numpy(served.own.completion_lengths),
        prompt_ids=served.prompt_ids,
        pair_ids=served.pair_ids,
        **values,
    )


def quick_metrics(scores: Scores, metrics: dict[str, float], *, beta: float) -> dict[str, Any]:
    """The few validation metrics shown during training; the AUC with its 90 % interval, a bootstrap over prompts."""
    up, down = class_means(beta * scores.log_ratios, scores.desirable)
    clusters, count = cluster_numbers(scores.prompt_ids)
    areas = [
        weighted_auc(scores.log_ratios, scores.desirable, drawn)
        for drawn in resample_weights(clusters, count, QUICK_RESAMPLES, seed=0)
    ]
    area = auc(scores.log_ratios, scores.desirable)
    return {
        "rows": len(scores.desirable),
        **{name: metrics[name] for name in ("loss", "z_ref") if name in metrics},
        "reward_desirable": up,
        "reward_undesirable": down,
        "margin": up - down,
        "auc": area,
        "auc_interval": auc_share(area, torch.cat(areas), scores.desirable, clusters).interval(),
    }
