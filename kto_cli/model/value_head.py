"""The value head of offline PPO: what reward is to come, from the hidden state that predicts a token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MAX_GRAD_NORM = 0.1
"""Its gradient is clipped to this norm, apart from the model's; as in the authors' code."""


class ValueHead(nn.Module):
    """Three linear layers with ReLU, in float32; reads hidden states without changing what computes them."""

    def __init__(self, hidden: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """[predicted, hidden] -> [predicted]; no gradient reaches the hidden states."""
        weight: Any = self.layers[0].weight
        values: Tensor = self.layers(hidden.detach().to(weight.dtype))
        return values[:, 0]
