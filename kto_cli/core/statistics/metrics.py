"""Metrics of a step and of the validation rows: rewards per class, margin, KL, AUC, the latter with intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.losses import signs_and_weights
from kto_cli.core.objectives import Context, Values, batch_loss, context, gradient_shares
from kto_cli.core.statistics.equal_length import margin_at_equal_length
from kto_cli.core.statistics.estimates import Estimator, length_direction, resamples_for
from kto_cli.core.statistics.intervals import cluster_numbers, clustered_error, filled, resample_weights, wilson
from kto_cli.core.statistics.permutation import chance_of_auc, least_chance
from kto_cli.core.statistics.scores import Scores
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
    *,
    values: Values | None = None,
    given: Context | None = None,
    measured: dict[str, float] | None = None,
) -> dict[str, float]:
    """Metrics of one effective batch, as shown and recorded, from its per-row values of shape [rows].

    Args:
        mismatched: [pairs]; none where the loss does not read them.
        prompts: [pairs] equal values mark mismatched pairs of one prompt, which are not independent.
        values: log-probs, lengths and pairs; losses of log-ratios alone do without.
        given: the step's reference point; else that of these rows.
        measured: what was measured of single tokens; the loss among it, where sums do not define that.

    Returns:
        loss; reward_desirable, reward_undesirable, margin (beta * nats; nats where the loss has no beta). With a
        reference point z_ref, z_ref_mean (before the clamp) in nats; from mismatched pairs z_ref_se (standard error of
        that mean, clustered by prompt; NaN for fewer than two prompts) and z_ref_pairs. Where the gradient of a unit
        has a largest value, saturated (share of units). Of `values` logp_per_token_desirable and _undesirable (nats),
        and of pairs paired_accuracy. What a loss leaves undefined is absent.
    """
    kind = settings.kind
    if values is None:
        signs, weights = signs_and_weights(desirable, settings, dtype=log_ratios.dtype)
        ones, none = torch.ones_like(log_ratios), torch.zeros(0, dtype=torch.int64)
        values = Values(log_ratios, 0 * ones, signs, weights, ones, none, none)
        per_token: dict[str, float] = {}
    else:
        per_token = logps_per_token(values)
    given = given or context(settings, values, mismatched)
    measured = measured or {}
    found = {} if "loss" in measured else {"loss": batch_loss(settings, values, given).item()}
    if kind.is_unpaired and settings.point != "zero":
        found |= {"z_ref": given.point.mean().item(), "z_ref_mean": given.mean}
        if settings.point == "mismatched":
            found |= {
                "z_ref_se": clustered_error(mismatched, *cluster_numbers(prompts)),
                "z_ref_pairs": mismatched.numel(),
            }
    rewards = settings.beta * log_ratios
    for name, members in zip(("desirable", "undesirable"), (desirable, ~desirable), strict=True):
        if kind.classes == "both" or members.any():
            found[f"reward_{name}"] = rewards[members].mean().item()
    if kind.classes == "both" and not kind.control:  # behind texts of their own both classes shall rise
        found["margin"] = found["reward_desirable"] - found["reward_undesirable"]
    shares = gradient_shares(settings, values, given)
    if shares is not None:
        found["saturated"] = (shares < SATURATED_BELOW).float().mean().item()
    if len(values.winners):
        wins = (log_ratios[values.winners] - log_ratios[values.losers]).sign()
        found["paired_accuracy"] = ((wins + 1) / 2).mean().item()
    return found | per_token | measured


def logps_per_token(values: Values) -> dict[str, float]:
    """Log-prob of a token of each class that is there, all its tokens alike."""
    sides = {"desirable": values.signs > 0, "undesirable": values.signs < 0}
    return {
        f"logp_per_token_{name}": (values.logps[side].sum() / values.lengths[side].sum()).item()
        for name, side in sides.items()
        if side.any()
    }


def validation_loss(scores: Scores, settings: LossSettings) -> dict[str, float]:
    """`loss` and `z_ref` of validation rows, where the loss defines them, without intervals."""
    found = Estimator(scores, settings).of_loss(torch.ones(1, len(scores.desirable), dtype=torch.float64))
    return {name: found[name].item() for name in ("loss", "z_ref") if name in found}


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
