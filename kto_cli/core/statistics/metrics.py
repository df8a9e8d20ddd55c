"""Metrics of a step and of the validation rows: rewards per class, margin, KL, AUC, the latter with intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from kto_cli.core.losses import LossSettings, kto_losses, reference_point, saturation, signs_and_weights
from kto_cli.core.statistics.equal_length import margin_at_equal_length
from kto_cli.core.statistics.estimates import Estimator, length_direction, resamples_for
from kto_cli.core.statistics.intervals import cluster_numbers, clustered_error, filled, resample_weights, wilson
from kto_cli.core.statistics.permutation import chance_of_auc, least_chance
from kto_cli.core.statistics.scores import Scores, class_means
from kto_cli.core.statistics.shares import Share

SATURATED_BELOW = 0.01
"""Share of its maximum gradient weight below which a row is saturated (Prop. 4.1)."""
LOST_PER_TOKEN = 0.5
"""Nats a token that a desirable completion lost (and a nat in all) for its row to be counted among `lost_rows`."""


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

    The intervals are of a bootstrap over prompts, seeded, that holds for few prompts (`intervals.py`). Of the AUCs,
    `auc_length` is that of completion length alone, in the direction that predicts the label (`auc_length_direction`);
    `auc_length_matched` counts only pairs of similar length; `auc_length_adjusted` uses all pairs and removes what a
    line in log length explains. What the verdict is made of is in nats, so that it does not depend on beta.

    Returns:
        `rows`, `desirable`, `undesirable`, `prompts`, `resamples` (of the bootstrap), `not_finite` (rows whose
        log-ratio is no finite number); `NAME` and `NAME_interval` for the names in `Estimator`; accuracy_wilson and
        (rows in pairs) paired_accuracy_wilson; z_ref_se and kl_se (one number, clustered by prompt); auc_p and
        auc_least_p (`_chance`, `permutation.py`); margin_equal_length with its interval (nats, `equal_length.py`);
        completion_tokens (mean); lost_rows, desirable rows that lost much (`LOST_PER_TOKEN`).
    """
    desirable, ratios = scores.desirable, scores.log_ratios.double()
    clusters, cluster_count = cluster_numbers(scores.prompt_ids)
    counts = (int(desirable.sum()), int((~desirable).sum()))
    estimate = Estimator(scores, settings)
    resamples = resamples_for(len(desirable))
    whole = estimate(torch.ones(1, len(desirable), dtype=torch.float64))
    blocks = resample_weights(clusters, cluster_count, resamples, seed)
    drawn = dict(zip(whole, filled((list(estimate(some).values()) for some in blocks), resamples), strict=True))
    error = clustered_error(scores.mismatched_log_ratios, clusters, cluster_count)
    equal = margin_at_equal_length(scores, clusters, cluster_count)
    result: dict[str, object] = {
        "rows": len(desirable),
        "desirable": counts[0],
        "undesirable": counts[1],
        "prompts": cluster_count,
        "resamples": resamples,
        "not_finite": int((~ratios.isfinite() | ~scores.mismatched_log_ratios.isfinite()).sum()),
        "completion_tokens": scores.lengths.double().mean().item(),
        "lost_rows": int((desirable & (ratios < -1) & (ratios / scores.lengths < -LOST_PER_TOKEN)).sum()),
        "z_ref_se": error,
        "kl_se": error,
        "auc_length_direction": length_direction(scores),
        "auc_least_p": least_chance(desirable, clusters),
        "margin_equal_length": equal.margin,
        "margin_equal_length_interval": equal.interval,
    }
    for name, value in whole.items():
        result[name] = value.item()
        result[f"{name}_interval"] = estimate.interval(name, value.item(), drawn[name])
    result["auc_p"] = _chance(
        estimate.share("auc", whole["auc"].item(), drawn["auc"]), ratios, desirable, clusters, seed
    )
    for name, trials in (("accuracy", len(desirable)), ("paired_accuracy", len(estimate.pairs))):
        if name in result:
            result[f"{name}_wilson"] = wilson(float(result[name]) * trials, trials)  # type: ignore[arg-type]
    return result


def _chance(area: Share, ratios: Tensor, desirable: Tensor, clusters: Tensor, seed: int) -> float:
    """One-sided p of the AUC, the larger of two: the permutation test is exact for few rows where both classes vary
    alike, the interval holds for many rows where one varies more. NaN where a class has no rows.
    """
    permuted = chance_of_auc(ratios, desirable, clusters, seed=seed)
    return permuted if math.isnan(permuted) else max(permuted, area.chance())
