"""What a step and a validation set say: rewards per class, margin, KL, AUC, each of the latter with an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.losses import kto_losses, reference_point, saturation, signs_and_weights
from kto_cli.core.statistics.auc import (
    auc,
    length_adjusted_auc,
    rank_scores,
    ranked_auc,
    similar_length_auc,
    similar_length_pairs,
)
from kto_cli.core.statistics.intervals import RESAMPLES, clustered_error, draws, numbered, percentiles, wilson

SATURATED_BELOW = 0.01
"""A row is saturated when its gradient weight is under this share of its maximum (Prop. 4.1)."""
ROW_BUDGET = 10_000_000
"""Rows that a bootstrap may draw in all: more rows than 10,000 are resampled less often, but at least 100 times."""


class Scores(NamedTuple):
    """What a model says of a set of rows."""

    log_ratios: Tensor
    """[rows] nats: own completions."""
    mismatched_log_ratios: Tensor
    """[rows] nats: the mismatched pairs."""
    desirable: Tensor
    """[rows] bool."""
    lengths: Tensor
    """[rows] completion tokens."""
    prompt_ids: Sequence[str]
    pair_ids: Sequence[str | None]

    def take(self, rows: Sequence[int]) -> Scores:
        """Some of the rows, in this order."""
        chosen = torch.tensor(rows, dtype=torch.int64)
        return Scores(
            self.log_ratios[chosen],
            self.mismatched_log_ratios[chosen],
            self.desirable[chosen],
            self.lengths[chosen],
            [self.prompt_ids[row] for row in rows],
            [self.pair_ids[row] for row in rows],
        )


def class_means(values: Tensor, desirable: Tensor) -> tuple[float, float]:
    """Mean over desirable rows and over undesirable rows; NaN for a class with no rows."""
    return values[desirable].mean().item(), values[~desirable].mean().item()


def step_metrics(
    log_ratios: Tensor,
    mismatched: Tensor,
    desirable: Tensor,
    *,
    beta: float,
    lambda_d: float,
    lambda_u: float,
) -> dict[str, float]:
    """What is shown and recorded of one effective batch; all from its per-row values, shape [rows].

    Keys: loss; z_ref, z_ref_mean (before the clamp), z_ref_se in nats, z_ref_pairs; reward_desirable,
    reward_undesirable, margin (beta * nats); saturated (share of rows).
    """
    point = reference_point(mismatched)
    signs, weights = signs_and_weights(desirable, lambda_d=lambda_d, lambda_u=lambda_u, dtype=log_ratios.dtype)
    parts = kto_losses(log_ratios, signs, weights, point.value, beta=beta)
    reward_desirable, reward_undesirable = class_means(parts.rewards, desirable)
    share = (saturation(log_ratios, signs, point.value, beta=beta) < SATURATED_BELOW).float().mean()
    return {
        "loss": parts.losses.mean().item(),
        "z_ref": point.value.item(),
        "z_ref_mean": point.mean,
        "z_ref_se": point.standard_error,
        "z_ref_pairs": point.pairs,
        "reward_desirable": reward_desirable,
        "reward_undesirable": reward_undesirable,
        "margin": reward_desirable - reward_undesirable,
        "saturated": share.item(),
    }


def validation_metrics(
    scores: Scores, *, beta: float, lambda_d: float, lambda_u: float, seed: int = 0
) -> dict[str, object]:
    """Everything `kto eval` says of validation rows as a whole, each estimate with its 90 % interval.

    The intervals are percentiles of a bootstrap over prompts, seeded. Of the AUCs, `auc_length` is that of completion
    length alone, in the direction that predicts the label (`auc_length_direction`); `auc_length_matched` counts only
    pairs of like length, so length can say next to nothing there; `auc_length_adjusted` uses all pairs and takes out
    what a line in log length explains (`length_adjusted_auc`).

    `kl` is the mean log-ratio of the mismatched pairs in nats, before the clamp that makes it z_ref: KTO's estimate of
    KL(policy || reference). Its completions are the data's, not the policy's own, so it may be negative.

    Returns:
        `rows`, `desirable`, `undesirable`, `prompts`, `resamples` (of the bootstrap); `NAME` and `NAME_interval` for
        the names in `estimator`; accuracy_wilson and (rows in pairs) paired_accuracy_wilson; z_ref_se (pairs taken for
        independent), kl_se (by prompts); log_ratio_per_token_desirable / _undesirable (nats).
    """
    desirable, mismatched = scores.desirable, scores.mismatched_log_ratios.double()
    clusters, cluster_count = numbered(scores.prompt_ids)
    counts = (int(desirable.sum()), int((~desirable).sum()))
    estimate = estimator(scores, beta=beta, lambda_d=lambda_d, lambda_u=lambda_u)
    resamples = resamples_for(len(desirable))
    parts = [estimate(drawn) for drawn in draws(clusters, cluster_count, resamples, seed)]
    result: dict[str, object] = {
        "rows": len(desirable),
        "desirable": counts[0],
        "undesirable": counts[1],
        "prompts": cluster_count,
        "resamples": resamples,
        "z_ref_se": reference_point(mismatched).standard_error,
        "kl_se": clustered_error(mismatched, clusters, cluster_count),
        "auc_length_direction": length_direction(scores),
    }
    for name, value in estimate(torch.ones(1, len(desirable), dtype=torch.float64)).items():
        result[name] = value.item()
        result[f"{name}_interval"] = percentiles(torch.cat([part[name] for part in parts]))
    pairs = len(pair_outcomes(scores)[1])
    for name, trials in (("accuracy", len(desirable)), ("paired_accuracy", pairs)):
        if name in result:
            result[f"{name}_wilson"] = wilson(float(result[name]) * trials, trials)  # type: ignore[arg-type]
    per_token = class_means(scores.log_ratios.double() / scores.lengths, desirable)
    result["log_ratio_per_token_desirable"], result["log_ratio_per_token_undesirable"] = per_token
    return result


def length_direction(scores: Scores) -> str:
    """Which length goes with desirable, "longer" or "shorter"."""
    return "longer" if auc(-scores.lengths.double(), scores.desirable) < 0.5 else "shorter"


def estimator(
    scores: Scores, *, beta: float, lambda_d: float, lambda_u: float
) -> Callable[[Tensor], dict[str, Tensor]]:
    """Every estimate of many resamples at once, as a function of weights [draws, rows], how often a row is in a draw.

    What is sorted is sorted here, once for all resamples.

    Returns:
        That function, which returns [draws] each: loss, z_ref, kl, reward_desirable, reward_undesirable, margin,
        accuracy, auc, auc_length, auc_length_matched, auc_length_adjusted and (rows in pairs) paired_accuracy; NaN in a
        draw without a class.
    """
    desirable, lengths, log_ratios = scores.desirable, scores.lengths.double(), scores.log_ratios.double()
    mismatched = scores.mismatched_log_ratios.double()
    by_length = rank_scores(lengths if length_direction(scores) == "longer" else -lengths, desirable)
    by_ratio, alike = rank_scores(log_ratios, desirable), similar_length_pairs(log_ratios, lengths, desirable)
    winners, pairs = pair_outcomes(scores)

    def estimate(weights: Tensor) -> dict[str, Tensor]:
        found = _means(log_ratios, mismatched, desirable, weights, beta=beta, lambda_d=lambda_d, lambda_u=lambda_u)
        found["auc"] = ranked_auc(by_ratio, weights)
        found["auc_length"] = ranked_auc(by_length, weights)
        found["auc_length_matched"] = similar_length_auc(alike, weights)
        found["auc_length_adjusted"] = length_adjusted_auc(log_ratios, lengths, desirable, weights)
        if len(pairs):
            pair_weights = weights[:, pairs]
            found["paired_accuracy"] = (pair_weights * winners).sum(1) / pair_weights.sum(1)
        return found

    return estimate


def _means(
    log_ratios: Tensor,
    mismatched: Tensor,
    desirable: Tensor,
    weights: Tensor,
    *,
    beta: float,
    lambda_d: float,
    lambda_u: float,
) -> dict[str, Tensor]:
    """Statistics that are weighted means over rows: [rows], weights [draws, rows] -> [draws]."""
    kl = (weights @ mismatched) / weights.sum(1)
    z_ref = kl.clamp(min=0)
    signs, row_weights = signs_and_weights(desirable, lambda_d=lambda_d, lambda_u=lambda_u, dtype=torch.float64)
    losses = kto_losses(log_ratios, signs, row_weights, z_ref[:, None], beta=beta).losses
    correct = ((signs * (log_ratios - z_ref[:, None])).sign() + 1) / 2
    of_desirable, of_undesirable = weights * desirable, weights * ~desirable
    reward_desirable = beta * (of_desirable @ log_ratios) / of_desirable.sum(1)
    reward_undesirable = beta * (of_undesirable @ log_ratios) / of_undesirable.sum(1)
    return {
        "loss": (weights * losses).sum(1) / weights.sum(1),
        "z_ref": z_ref,
        "kl": kl,
        "reward_desirable": reward_desirable,
        "reward_undesirable": reward_undesirable,
        "margin": reward_desirable - reward_undesirable,
        "accuracy": (weights * correct).sum(1) / weights.sum(1),
    }


def pair_outcomes(scores: Scores) -> tuple[Tensor, Tensor]:
    """For rows that came in pairs: [pairs] of 1 / 0.5 / 0 (desirable one rewarded more) and its row's index."""
    log_ratios = scores.log_ratios.double()
    sides: dict[str, dict[bool, int]] = {}
    for row, (pair, label) in enumerate(zip(scores.pair_ids, scores.desirable.tolist(), strict=True)):
        if pair is not None:
            sides.setdefault(pair, {})[label] = row
    whole = [(side[True], side[False]) for side in sides.values() if len(side) == 2]
    up = torch.tensor([first for first, _ in whole], dtype=torch.int64)
    down = torch.tensor([second for _, second in whole], dtype=torch.int64)
    return ((log_ratios[up] - log_ratios[down]).sign() + 1) / 2, up


def resamples_for(rows: int) -> int:
    """How often to resample so many rows."""
    return min(RESAMPLES, max(100, ROW_BUDGET // max(1, rows)))
