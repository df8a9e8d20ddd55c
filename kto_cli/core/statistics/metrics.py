"""Metrics of a step and of the validation rows: rewards per class, margin, KL, AUC, the latter with intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.losses import LossSettings, kto_losses, reference_point, saturation, signs_and_weights
from kto_cli.core.statistics.auc import (
    auc,
    length_adjusted_auc,
    rank_scores,
    ranked_auc,
    similar_length_auc,
    similar_length_pairs,
)
from kto_cli.core.statistics.intervals import (
    RESAMPLES,
    cluster_numbers,
    clustered_error,
    percentiles,
    resample_weights,
    wilson,
)

SATURATED_BELOW = 0.01
"""Share of its maximum gradient weight below which a row is saturated (Prop. 4.1)."""
ROW_BUDGET = 10_000_000
"""Rows drawn by a whole bootstrap at most: above 10,000 rows there are fewer resamples, but at least 100."""


class Scores(NamedTuple):
    """Log-ratios of a set of rows, with what their statistics need besides."""

    log_ratios: Tensor
    """[rows] nats: own completions."""
    mismatched_log_ratios: Tensor
    """[rows] nats: mismatched completions."""
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
    settings: LossSettings,
    prompts: Sequence[Hashable],
) -> dict[str, float]:
    """Metrics of one effective batch, as shown and recorded, from its per-row values of shape [rows].

    Args:
        prompts: [pairs] equal values mark mismatched pairs of one prompt, which are not independent.

    Returns:
        loss; z_ref, z_ref_mean (before the clamp), z_ref_se (standard error of that mean, clustered by prompt; NaN for
        fewer than two prompts) in nats, z_ref_pairs; reward_desirable, reward_undesirable, margin (beta * nats);
        saturated (share of rows).
    """
    point = reference_point(mismatched)
    signs, weights = signs_and_weights(desirable, settings, dtype=log_ratios.dtype)
    parts = kto_losses(log_ratios, signs, weights, point.value, beta=settings.beta)
    reward_desirable, reward_undesirable = class_means(parts.rewards, desirable)
    share = (saturation(log_ratios, signs, point.value, beta=settings.beta) < SATURATED_BELOW).float().mean()
    return {
        "loss": parts.losses.mean().item(),
        "z_ref": point.value.item(),
        "z_ref_mean": point.mean,
        "z_ref_se": clustered_error(mismatched, *cluster_numbers(prompts)),
        "z_ref_pairs": point.pairs,
        "reward_desirable": reward_desirable,
        "reward_undesirable": reward_undesirable,
        "margin": reward_desirable - reward_undesirable,
        "saturated": share.item(),
    }


def validation_metrics(scores: Scores, settings: LossSettings, *, seed: int = 0) -> dict[str, object]:
    """Metrics of the validation rows as a whole, each estimate with its 90 % interval.

    The intervals are percentiles of a bootstrap over prompts, seeded. Of the AUCs, `auc_length` is that of completion
    length alone, in the direction that predicts the label (`auc_length_direction`); `auc_length_matched` counts only
    pairs of similar length, so length predicts next to nothing there; `auc_length_adjusted` uses all pairs and removes
    what a line in log length explains (`length_adjusted_auc`).

    `kl` is the mean log-ratio of the mismatched completions in nats, before the clamp that makes it z_ref: an estimate
    of KL(policy || reference). Its completions are from the data, not sampled from the policy, so it may be negative.

    Returns:
        `rows`, `desirable`, `undesirable`, `prompts`, `resamples` (of the bootstrap); `NAME` and `NAME_interval` for
        the names in `estimator`; accuracy_wilson and (rows in pairs) paired_accuracy_wilson; z_ref_se and
        kl_se (one number: both are of the mean before the clamp, clustered by prompt); log_ratio_per_token_desirable
        and _undesirable (nats).
    """
    desirable, mismatched = scores.desirable, scores.mismatched_log_ratios.double()
    clusters, cluster_count = cluster_numbers(scores.prompt_ids)
    counts = (int(desirable.sum()), int((~desirable).sum()))
    estimate = estimator(scores, settings)
    resamples = resamples_for(len(desirable))
    parts = [estimate(drawn) for drawn in resample_weights(clusters, cluster_count, resamples, seed)]
    result: dict[str, object] = {
        "rows": len(desirable),
        "desirable": counts[0],
        "undesirable": counts[1],
        "prompts": cluster_count,
        "resamples": resamples,
        "z_ref_se": clustered_error(mismatched, clusters, cluster_count),
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
    """Whether desirable completions are "longer" or "shorter"."""
    return "longer" if auc(-scores.lengths.double(), scores.desirable) < 0.5 else "shorter"


def estimator(scores: Scores, settings: LossSettings) -> Callable[[Tensor], dict[str, Tensor]]:
    """Function that computes all estimates of many resamples at once from weights [draws, rows], the count of each row.

    Sorting is done here, once for all resamples.

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
        found = _means(log_ratios, mismatched, desirable, weights, settings)
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
    settings: LossSettings,
) -> dict[str, Tensor]:
    """Weighted means over rows: [rows], weights [draws, rows] -> [draws]."""
    beta = settings.beta
    kl = (weights @ mismatched) / weights.sum(1)
    z_ref = kl.clamp(min=0)
    signs, row_weights = signs_and_weights(desirable, settings, dtype=torch.float64)
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
    """Pairs: [pairs] of 1 / 0.5 / 0 (the desirable row has the higher reward), and the desirable row's index."""
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
    """Number of bootstrap resamples for so many rows."""
    return min(RESAMPLES, max(100, ROW_BUDGET // max(1, rows)))
