"""What a step and a held-out set say: rewards per class, margin, saturation, AUC, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.losses import kto_losses, reference_point, saturation, signs_and_weights

SATURATED_BELOW = 0.01
"""A row is saturated when its gradient weight is under this share of its maximum (Prop. 4.1)."""
LIKE_LENGTH = 1.2
"""Two completions are of like length when the longer has at most this many times the shorter's tokens."""
RESAMPLES = 1000
LEVEL = 0.90
BLOCK = 1 << 18
"""Numbers of a bootstrap held at once (2 MiB), of draws times rows as of pairs: memory does not grow with rows."""
_PAIR_BUDGET = 1e10
"""Pair comparisons a bootstrap may cost; the number of resamples falls (never below 100) to stay within."""


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


def auc(scores: Tensor, desirable: Tensor) -> float:
    """ROC-AUC: the chance that a desirable row scores above an undesirable one; ties count one half.

    Mann-Whitney U over mid-ranks. NaN where a class has no rows.
    """
    positives = int(desirable.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts.double() - 1) / 2)[inverse]
    return ((ranks[desirable].sum() - positives * (positives + 1) / 2) / (positives * negatives)).item()


def held_out_metrics(
    scores: Scores, *, beta: float, lambda_d: float, lambda_u: float, seed: int = 0
) -> dict[str, object]:
    """Everything `kto eval` says of held-out rows, each estimate with its 90 % interval.

    The intervals are percentiles of a bootstrap over prompts (rows of one prompt are drawn together,
    since they are not independent), seeded. `auc_length` is the AUC of completion length alone, in the
    direction that predicts the label (`auc_length_direction`); `auc_length_matched` counts only pairs
    of like length, so length can say next to nothing there.

    Returns:
        `rows`, `desirable`, `undesirable`, `prompts`; `NAME` and `NAME_interval` for loss, z_ref,
        reward_desirable, reward_undesirable, margin, accuracy, auc, auc_length, auc_length_matched and
        (rows in pairs) paired_accuracy; z_ref_se; log_ratio_per_token_desirable / _undesirable (nats).
    """
    desirable, lengths = scores.desirable, scores.lengths.double()
    log_ratios, mismatched = scores.log_ratios.double(), scores.mismatched_log_ratios.double()
    clusters, cluster_count = _numbered(scores.prompt_ids)
    shorter = auc(-lengths, desirable)
    direction = "longer" if shorter < 0.5 else "shorter"
    by_length = lengths if direction == "longer" else -lengths
    counts = (int(desirable.sum()), int((~desirable).sum()))
    ones = torch.ones(1, len(desirable), dtype=torch.float64)

    def statistics(weights: Tensor) -> dict[str, Tensor]:
        """[draws, rows] row weights -> each statistic, [draws]."""
        found = _means(log_ratios, mismatched, desirable, weights, beta=beta, lambda_d=lambda_d, lambda_u=lambda_u)
        found |= _pair_statistics(log_ratios, by_length, lengths, desirable, weights)
        winners, pairs = _pair_outcomes(log_ratios, desirable, scores.pair_ids)
        if len(pairs):
            pair_weights = weights[:, pairs]
            found["paired_accuracy"] = (pair_weights * winners).sum(1) / pair_weights.sum(1)
        return found

    estimates = statistics(ones)
    parts = [statistics(draws) for draws in _draws(clusters, cluster_count, _resamples(counts), seed)]
    result: dict[str, object] = {
        "rows": len(desirable),
        "desirable": counts[0],
        "undesirable": counts[1],
        "prompts": cluster_count,
        "z_ref_se": reference_point(mismatched).standard_error,
        "auc_length_direction": direction,
    }
    for name, value in estimates.items():
        result[name] = value.item()
        result[f"{name}_interval"] = _interval(torch.cat([part[name] for part in parts]))
    per_token = class_means(log_ratios / lengths, desirable)
    result["log_ratio_per_token_desirable"], result["log_ratio_per_token_undesirable"] = per_token
    return result


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
    z_ref = ((weights @ mismatched) / weights.sum(1)).clamp(min=0)
    signs, row_weights = signs_and_weights(desirable, lambda_d=lambda_d, lambda_u=lambda_u, dtype=torch.float64)
    losses = kto_losses(log_ratios, signs, row_weights, z_ref[:, None], beta=beta).losses
    correct = ((signs * (log_ratios - z_ref[:, None])).sign() + 1) / 2
    of_desirable, of_undesirable = weights * desirable, weights * ~desirable
    reward_desirable = beta * (of_desirable @ log_ratios) / of_desirable.sum(1)
    reward_undesirable = beta * (of_undesirable @ log_ratios) / of_undesirable.sum(1)
    return {
        "loss": (weights * losses).sum(1) / weights.sum(1),
        "z_ref": z_ref,
        "reward_desirable": reward_desirable,
        "reward_undesirable": reward_undesirable,
        "margin": reward_desirable - reward_undesirable,
        "accuracy": (weights * correct).sum(1) / weights.sum(1),
    }


def _pair_statistics(
    log_ratios: Tensor,
    by_length: Tensor,
    lengths: Tensor,
    desirable: Tensor,
    weights: Tensor,
) -> dict[str, Tensor]:
    """The three AUCs as weighted sums over (desirable, undesirable) pairs, a block of pairs at a time."""
    up, down = weights[:, desirable].float(), weights[:, ~desirable].float()
    names = ("auc", "auc_length", "auc_length_matched")
    wins, totals = (torch.zeros(len(names), len(weights), dtype=torch.float64) for _ in range(2))
    block = max(1, BLOCK // max(1, down.shape[1]))
    for start in range(0, up.shape[1], block):
        part = slice(start, start + block)
        left = up[:, part]
        better = _wins(log_ratios[desirable][part], log_ratios[~desirable])
        longer = _wins(by_length[desirable][part], by_length[~desirable])
        like = _like_length(lengths[desirable][part], lengths[~desirable])
        for index, won in enumerate((better, longer, better * like)):
            wins[index] += ((left @ won) * down).sum(1).double()
        totals[2] += ((left @ like) * down).sum(1).double()
    totals[:2] = up.sum(1).double() * down.sum(1).double()
    return dict(zip(names, wins / totals, strict=True))


def _wins(upper: Tensor, lower: Tensor) -> Tensor:
    """[u], [l] -> [u, l]: 1 where the first is larger, one half where they tie."""
    return ((upper[:, None] - lower).sign() + 1).float() / 2


def _like_length(upper: Tensor, lower: Tensor) -> Tensor:
    """[u], [l] token counts -> [u, l] float: 1 where they are of like length."""
    return (torch.maximum(upper[:, None], lower) <= LIKE_LENGTH * torch.minimum(upper[:, None], lower)).float()


def _pair_outcomes(log_ratios: Tensor, desirable: Tensor, pair_ids: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """For rows that came in pairs: [pairs] of 1 / 0.5 / 0 (desirable one rewarded more) and its row's index."""
    sides: dict[str, dict[bool, int]] = {}
    for row, (pair, label) in enumerate(zip(pair_ids, desirable.tolist(), strict=True)):
        if pair is not None:
            sides.setdefault(pair, {})[label] = row
    whole = [(side[True], side[False]) for side in sides.values() if len(side) == 2]
    up = torch.tensor([first for first, _ in whole], dtype=torch.int64)
    down = torch.tensor([second for _, second in whole], dtype=torch.int64)
    return ((log_ratios[up] - log_ratios[down]).sign() + 1) / 2, up


def _numbered(names: Sequence[str]) -> tuple[Tensor, int]:
    """Names as numbers 0 .. count-1, in order of first appearance."""
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(name, len(numbers)) for name in names]
    return torch.tensor(indices), len(numbers)


def _resamples(counts: tuple[int, int]) -> int:
    return int(min(RESAMPLES, max(100, _PAIR_BUDGET / max(1, counts[0] * counts[1]))))


def _draws(clusters: Tensor, count: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """[some resamples, rows] at a time: how often each row is in each resample of the prompts."""
    generator = torch.Generator().manual_seed(seed)
    block = max(1, BLOCK // len(clusters))
    for start in range(0, resamples, block):
        some = min(block, resamples - start)
        drawn = torch.randint(count, (some, count), generator=generator)
        times = torch.zeros(some, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        yield times[:, clusters]


def _interval(values: Tensor) -> list[float]:
    """The central 90 % of the resamples; those without one of the classes say nothing."""
    known = values[values.isfinite()]
    if not len(known):
        return [math.nan, math.nan]
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=known.dtype)
    return torch.quantile(known, edges).tolist()
