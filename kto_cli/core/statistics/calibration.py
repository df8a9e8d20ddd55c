"""Calibration: whether sigmoid(reward - beta * z_ref) can be read as the probability that a row is desirable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import BLOCK, RESAMPLES, wilson

BINS = 10


def calibration(probabilities: Tensor, desirable: Tensor, *, bins: int = BINS, seed: int = 0) -> dict[str, Any]:
    """Predicted probabilities against labels, in bins of (nearly) equally many rows.

    sigmoid(beta * (log_ratio - z_ref)) is the value KTO gives a desirable row (Eq. 7). It resembles a probability, with
    two limits. The prior is the reference's, and it is 1/2: before training all log-ratios and z_ref are 0, so every
    row gets 1/2 whatever the share of desirable rows. And the loss is linear in the value, not a proper scoring rule:
    long training pushes it to 0 and 1 wherever it can (Prop. 4.1), beyond what the data support.

    Bins end at the deciles of the probabilities; equal probabilities share a bin, so there may be fewer.
    Expected calibration error: mean over rows of |mean predicted - share desirable| of the row's bin (Naeini et al.
    2015; Guo et al. 2017, arXiv 1706.04599; equal-mass bins: Nixon et al. 2019, arXiv 1904.01685). It is above 0 by
    chance even for exact probabilities, hence `ece_by_chance`: the 95th percentile of the error when labels are drawn
    from the probabilities themselves (consistency resampling, Bröcker and Smith 2007).

    Predicted 0.2, 0.2, 0.8, 0.8 for rows F, T, T, T in two bins: |0.2 - 0.5| and |0.8 - 1|, ECE 0.25; Brier score
    (0.04 + 0.64 + 0.04 + 0.04) / 4 = 0.19; predicting the share 3/4 for every row scores 0.1875.

    Args:
        probabilities: [rows] in [0, 1]. desirable: [rows] bool.

    Returns:
        desirable_share, mean_predicted, ece, ece_by_chance, brier, brier_of_share; bins: a list of low, high, rows,
        predicted (mean), desirable (share), desirable_wilson.
    """
    predicted, labels = probabilities.double(), desirable.double()
    edges = torch.quantile(predicted, torch.linspace(0, 1, bins + 1, dtype=torch.float64))[1:-1]
    numbers = torch.searchsorted(edges, predicted)
    members = torch.nn.functional.one_hot(numbers, bins).double()
    share = labels.mean().item()
    return {
        "desirable_share": share,
        "mean_predicted": predicted.mean().item(),
        "ece": _calibration_error(predicted - labels, members).item(),
        "ece_by_chance": _error_by_chance(predicted, members, seed),
        "brier": (predicted - labels).square().mean().item(),
        "brier_of_share": share * (1 - share),
        "bins": [_bin(predicted[numbers == one], labels[numbers == one]) for one in numbers.unique().tolist()],
    }


def _calibration_error(excess: Tensor, members: Tensor) -> Tensor:
    """[..., rows] predicted minus label, [rows, bins] membership -> [...] expected calibration error."""
    return (excess @ members).abs().sum(-1) / excess.shape[-1]


def _error_by_chance(predicted: Tensor, members: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    block = max(1, BLOCK // len(predicted))
    errors = []
    for start in range(0, RESAMPLES, block):
        uniform = torch.rand(min(block, RESAMPLES - start), len(predicted), dtype=torch.float64, generator=generator)
        errors.append(_calibration_error(predicted - (uniform < predicted).double(), members))
    return torch.quantile(torch.cat(errors), 0.95).item()


def _bin(predicted: Tensor, labels: Tensor) -> dict[str, Any]:
    rows = len(predicted)
    return {
        "low": predicted.min().item(),
        "high": predicted.max().item(),
        "rows": rows,
        "predicted": predicted.mean().item(),
        "desirable": labels.mean().item(),
        "desirable_wilson": wilson(labels.sum().item(), rows),
    }
