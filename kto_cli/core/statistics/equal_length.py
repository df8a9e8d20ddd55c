"""Margin between answers of equal length: what separates the classes beyond their lengths."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import clustered_error
from kto_cli.core.statistics.robust import within_fences
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.shares import student

MOST_BENDS, ROWS_PER_BEND = 6, 15
"""Bends of the curve that describes how log-ratios go with length: enough for a favourite length, few enough for a bend
to have rows to be seen in."""


class EqualLength(NamedTuple):
    """In nats."""

    margin: float
    interval: list[float]
    """90 %, clustered by prompt."""


def margin_at_equal_length(scores: Scores, clusters: Tensor, count: int) -> EqualLength:
    """Difference of the classes' log-ratios after a curve in log length, the same for both, has been taken out.

    Least squares: log-ratio = curve(log length) + margin * desirable + noise, the curve piecewise linear with bends at
    quantiles of the lengths, outliers moved in to Tukey's fences. The margin is 0 if log-ratios depend on length alone,
    whatever the shape of that dependence, and uncertain where length tells the label, for then no two answers of one
    length have different labels.

    Args:
        clusters: [rows] number of each row's prompt, below `count`.

    Returns:
        NaN where a class has no rows, length tells the label exactly, or too few rows are left to measure the noise.
    """
    unknown = EqualLength(math.nan, [math.nan, math.nan])
    labels, rows = scores.desirable.double(), len(scores.desirable)
    if not 0 < labels.sum() < rows or not scores.log_ratios.isfinite().all():
        return unknown
    curve = _curve(scores.lengths.double().clamp(min=1).log(), rows)
    freedom = rows - curve.shape[1] - 1
    # Both without what length explains: their regression is that of the whole equation (Frisch and Waugh 1933).
    label, value = (_residual(each, curve) for each in (labels, within_fences(scores.log_ratios.double())))
    unexplained = (label @ label).item()
    if freedom < 1 or unexplained < 1e-6 * rows:
        return unknown
    margin = ((label @ value) / unexplained).item()
    noise = value - margin * label
    error = max(
        math.sqrt((noise @ noise).item() / freedom / unexplained),
        clustered_error(label * noise * rows / unexplained, clusters, count),
    )
    reach = student(freedom) * error
    return EqualLength(margin, [margin - reach, margin + reach])


def _curve(logs: Tensor, rows: int) -> Tensor:
    """[rows, terms]: 1, log length, and a bend at each of some quantiles of it."""
    bends = min(MOST_BENDS, rows // ROWS_PER_BEND)
    shares = torch.arange(1, bends + 1, dtype=torch.float64) / (bends + 1)
    inner = [bend for bend in torch.quantile(logs, shares).unique() if logs.min() < bend < logs.max()] if bends else []
    terms = [torch.ones_like(logs), *([logs - logs.mean()] if logs.min() < logs.max() else [])]
    return torch.stack([*terms, *((logs - bend).clamp(min=0) for bend in inner)], dim=1)


def _residual(values: Tensor, curve: Tensor) -> Tensor:
    """[rows] what the terms of the curve do not explain."""
    explained: Tensor = curve @ torch.linalg.lstsq(curve, values[:, None], driver="gelsd").solution[:, 0]
    return values - explained
