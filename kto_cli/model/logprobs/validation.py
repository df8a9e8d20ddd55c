"""Scores of validation rows: the bridge from an engine and a reference to core.metrics."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch

from kto_cli.core.statistics.auc import auc, weighted_auc
from kto_cli.core.statistics.intervals import draws, numbered, percentiles
from kto_cli.core.statistics.metrics import Scores, class_means
from kto_cli.model.logprobs.forward import Engine, References
from kto_cli.model.tokens.store import EncodedRows

GLANCE_ROWS = 256
"""Rows looked at during training; the end of a run and `kto eval` use all."""
GLANCE_RESAMPLES = 400
"""Of the AUC's interval in a look: some milliseconds, and its edges move by about 0.005 from seed to seed."""


def glance_rows(count: int, seed: int) -> list[int]:
    """The validation rows that are looked at during training: the same ones all run long."""
    return sorted(Random(f"kto glance {seed}").sample(range(count), min(count, GLANCE_ROWS)))


def score_rows(
    engine: Engine,
    rows: EncodedRows,
    references: References,
    *,
    tick: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Log-ratios of rows and of their mismatched pairs; equal on all processes."""
    logps = engine.log_probs(rows.sequences, done=lambda positions, _: tick(len(positions)))
    own, mismatched = logps[: len(rows)], logps[len(rows) :]
    return Scores(
        log_ratios=own - references.own,
        mismatched_log_ratios=mismatched - references.mismatched,
        desirable=torch.from_numpy(rows.labels),
        lengths=torch.from_numpy(rows.own.completion_lengths),
        prompt_ids=rows.prompt_ids,
        pair_ids=rows.pair_ids,
    )


def glance(scores: Scores, metrics: dict[str, float], *, beta: float) -> dict[str, Any]:
    """The few validation numbers shown during training; the AUC with its 90 % interval, a bootstrap over prompts."""
    up, down = class_means(beta * scores.log_ratios, scores.desirable)
    clusters, count = numbered(scores.prompt_ids)
    areas = [
        weighted_auc(scores.log_ratios, scores.desirable, drawn)
        for drawn in draws(clusters, count, GLANCE_RESAMPLES, seed=0)
    ]
    return {
        "rows": len(scores.desirable),
        "loss": metrics["loss"],
        "z_ref": metrics["z_ref"],
        "reward_desirable": up,
        "reward_undesirable": down,
        "margin": up - down,
        "auc": auc(scores.log_ratios, scores.desirable),
        "auc_interval": percentiles(torch.cat(areas)),
    }
