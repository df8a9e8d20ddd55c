"""A step of every loss, packed, against one padded row at a time in float64 on the same device."""

from __future__ import annotations

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.equality import LIMITS, weights, with_weights
from benchmarks.gpu.models import TINY, Way, make_engine, rows_of, step_with_gradient
from kto_cli.core.loss_kinds import LOSSES, POINTS, VALUES, LossSettings
from kto_cli.model.logprobs.reference import ReferenceLogps

EXACT = Way(torch.float64, budget=1, packed=False)
WAYS = {
    "float32": Way(torch.float32),
    "float32, micro-batches of 300": Way(torch.float32, budget=300),
    "bfloat16": Way(),
}


def run() -> None:
    """All losses by name, then kto's grid of value functions and reference points."""
    values = weights()[1]
    rows = rows_of(8 if TINY else 16, 1, prompt=40, completion=35)
    exact = make_engine(with_weights(values, torch.float64), EXACT, rows).engine
    tokens = exact.token_log_probs([row.own for row in rows])
    noise = torch.Generator().manual_seed(6)
    references = ReferenceLogps(
        *(
            exact.log_probs([getattr(row, which) for row in rows]) + 4 * torch.randn(len(rows), generator=noise) - 1
            for which in ("own", "mismatched")
        ),
        tokens._replace(values=tokens.values + torch.randn(len(tokens.values), generator=noise)),
    )
    settings = {
        name: LossSettings(beta=kind.beta or 1.0, loss=name, value=kind.value, point=kind.point)
        for name, kind in LOSSES.items()
    }
    settings |= {
        f"kto, {value}, {point}": LossSettings(beta=0.1, value=value, point=point)
        for value in VALUES
        for point in POINTS
    }
    for name, loss in settings.items():
        with check(f"step: {name}") as found:
            alone = make_engine(with_weights(values, torch.float64), EXACT, rows, loss).engine
            right = step_with_gradient(alone, rows, references, loss)[1].double()
            found["norm"] = right.norm().item()
            for way_name, way in WAYS.items():
                engine = make_engine(with_weights(values, torch.float32), way, rows, loss).engine
                gradient = step_with_gradient(engine, rows, references, loss)[1].double()
                found[way_name] = ((gradient - right).norm() / right.norm()).item()
            found["ok"] = all(found[way_name] < LIMITS[way.dtype] for way_name, way in WAYS.items())
