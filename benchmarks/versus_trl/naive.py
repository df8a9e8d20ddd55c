"""A KTO step the first way that comes to mind, as the judge of kto's: one row at a time, full softmax, no cache.

Uses nothing of kto: models as transformers loads them, rows as token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NOISE = 0.3
"""How far the reference that is checked with lies from the policy, in standard deviations of each weight matrix. At
the first step of a run both are equal, and every implementation, right or wrong, gets a loss of one half. It is the
reference that is moved, since noise makes any text less likely: so z_ref is above its clamp."""


def disturb(model: Any) -> None:
    """Moves a model away from what it was, by seed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator) * (NOISE * parameter.std().item())
                parameter += noise.to(parameter.device)


def logp(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """Summed completion log-prob, nats: the softmax in float64 over all of the vocabulary."""
    ids = torch.tensor([[*prompt, *completion]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    targets = ids[0, len(prompt) :, None]
    return logits.double().log_softmax(-1).gather(-1, targets).sum()


def naive_step(policy: Any, reference: Any, rows: Sequence[dict[str, Any]], *, beta: float) -> dict[str, Any]:
    """The loss, z_ref, per-row log-ratios and gradient norm of an effective batch, both weights 1.

    Args:
        rows: `prompt`, `completion`, `mismatched` (token ids) and `label` of each.
    """

    def log_ratio(row: dict[str, Any], completion: str) -> Tensor:
        with torch.no_grad():
            fixed = logp(reference, row["prompt"], row[completion])
        return logp(policy, row["prompt"], row[completion]) - fixed

    with torch.no_grad():
        mismatched = torch.stack([log_ratio(row, "mismatched") for row in rows])
    z_ref = mismatched.mean().clamp(min=0)
    log_ratios, loss = [], 0.0
    for row in rows:
        ratio = log_ratio(row, "completion")
        sign = 1 if row["label"] else -1
        share = (1 - torch.sigmoid(beta * sign * (ratio - z_ref))) / len(rows)
        share.backward()
        log_ratios.append(ratio.item())
        loss += share.item()
    norms = [parameter.grad.double().norm() for parameter in policy.parameters() if parameter.grad is not None]
    return {
        "loss": loss,
        "z_ref": z_ref.item(),
        "log_ratios": log_ratios,
        "mismatched_log_ratios": mismatched.tolist(),
        "gradient_norm": torch.stack(norms).norm().item(),
    }
