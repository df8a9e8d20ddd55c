"""Whether sigmoid(reward - beta * z_ref) can be read as the chance that a row is desirable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import BLOCK, RESAMPLES, wilson

BINS = 10


def calibration(probabilities: Tensor, desirable: Tensor, *, bins: int = BINS, seed: int = 0) -> dict[str, Any]:
    """Said chances against what happened, in bins of (nearly) as many rows each.

    sigmoid(beta * (log_ratio - z_ref)) is the value KTO gives a desirable row (Eq. 7). It is a probability only by
    analogy, in two respects. The reference is its prior, and that prior is 1/2: before training all log-ratios and
    z_ref are 0, so every row gets 1/2 whatever share of rows is desirable. And the loss is linear in it, no proper
    scoring rule: trained for long, it goes to 0 and 1 wherever it can (Prop. 4.1), beyond what the data says.

    Bins end at the deciles of the probabilities; equal probabilities share a bin, so there may be fewer.
    Expected calibration error: mean over rows of |mean said - share desirable| of the row's bin (Naeini et al.
    2015; Guo et al. 2017, arXiv 1706.04599; equal-mass bins: Nixon et al. 2019, arXiv 1904.01685). It is above 0 by
    chance even where the chances are exactly right, hence `ece_by_chance`: what 95 % of labels drawn from the
    probabilities themselves stay below (consistency resampling, Bröcker and Smith 2007).

    Said 0.2, 0.2, 0.8, 0.8 of rows F, T, T, T in two bins: |0.2 - 0.5| and |0.8 - 1|, ECE 0.25; Brier score
    (0.04 + 0.64 + 0.04 + 0.04) / 4 = 0.19; always saying the share 3/4 has 0.1875.

    Args:
        probabilities: [rows] in [0, 1]. desirable: [rows] bool.

    Returns:
        desirable_share, mean_said, ece, ece_by_chance, brier, brier_of_share; bins: a list of low, high, rows,
        said (mean), desirable (share), desirable_wilson.
    """
    said, labels = probabilities.double(), desirable.double()
    edges = torch.quantile(said, torch.linspace(0, 1, bins + 1, dtype=torch.float64))[1:-1]
    places = torch.searchsorted(edges, said)
    members = torch.nn.functional.one_hot(places, bins).double()
    share = labels.mean().item()
    return {
        "desirable_share": share,
        "mean_said": said.mean().item(),
        "ece": _error(said - labels, members).item(),
        "ece_by_chance": _by_chance(said, members, seed),
        "brier": (said - labels).square().mean().item(),
        "brier_of_share": share * (1 - share),
        "bins": [_bin(said[places == place], labels[places == place]) for place in places.unique().tolist()],
    }


def _error(excess: Tensor, members: Tensor) -> Tensor:
    """[..., rows] said minus happened, [rows, bins] membership -> [...] expected calibration error."""
    return (excess @ members).abs().sum(-1) / excess.shape[-1]


def _by_chance(said: Tensor, members: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    block = max(1, BLOCK // len(said))
    found = []
    for start in range(0, RESAMPLES, block):
        drawn = torch.rand(min(block, RESAMPLES - start), len(said), dtype=torch.float64, generator=generator) < said
        found.append(_error(said - drawn.double(), members))
    return torch.quantile(torch.cat(found), 0.95).item()


def _bin(said: Tensor, labels: Tensor) -> dict[str, Any]:
    rows = len(said)
    return {
        "low": said.min().item(),
        "high": said.max().item(),
        "rows": rows,
        "said": said.mean().item(),
        "desirable": labels.mean().item(),
        "desirable_wilson": wilson(labels.sum().item(), rows),
    }
