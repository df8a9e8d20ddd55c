"""Every case of the oracle through the product: context, losses of the units, mean and gradients."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from make_cases import FOLDER
from torch import Tensor

from kto_cli.core.loss_kinds import LOSSES, LossSettings
from kto_cli.core.objectives import (
    Context,
    RunningMean,
    Values,
    batch_loss,
    coefficients,
    context,
    needs_mismatched,
    part_of_loss,
    unit_losses,
)

Case = dict[str, Any]
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
PARAMETERS = {
    "ipo": {"tau": "ipo_tau"},
    "slic": {"delta": "slic_delta", "lam": "slic_lambda"},
    "simpo": {"gamma": "simpo_gamma"},
    "orpo": {"lam": "orpo_lambda"},
}
"""The oracle's names of parameters, where the product has another."""
CLOSE = {torch.float64: (1e-10, 1e-100), torch.float32: (1e-3, 1e-30)}
"""Relative and absolute tolerance: a gradient of 4e-18, at u = 40, is a gradient all the same."""


def cases(name: str) -> list[Case]:
    return json.loads((FOLDER / f"{name}.json").read_text())["cases"]


def settings_of(case: Case) -> LossSettings:
    names = PARAMETERS.get(case["loss"], {})
    numbers = {names.get(name, name): number for name, number in case["parameters"].items()}
    given = {name: number for name, number in numbers.items() if name in LossSettings._fields}
    shape = {"value": case["value"], "point": case["point"]} if case["value"] else {}
    return LossSettings(**{"beta": 1.0, **given, **shape}, loss=case["loss"], reference=case["reference"] != "none")


def trained(case: Case) -> Case:
    """The rows that the run's plan has: for a loss of one class that class alone."""
    if LOSSES[case["loss"]].classes != "desirable":
        return case
    rows = [row for row, label in enumerate(case["desirable"]) if label]
    inputs = ("logps", "reference_logps", "desirable", "lengths", "gradients")
    return case | {key: [case[key][row] for row in rows] for key in inputs} | {"partners": [-1] * len(rows)}


def values_of(case: Case, settings: LossSettings, dtype: torch.dtype) -> Values:
    def column(key: str) -> Tensor:
        return torch.tensor(case[key], dtype=dtype)

    desirable = torch.tensor(case["desirable"])
    up, down = torch.ones(len(desirable), dtype=dtype), -torch.ones(len(desirable), dtype=dtype)
    winners = [row for row, label in enumerate(case["desirable"]) if label and case["partners"][row] >= 0]
    losers = [case["partners"][row] for row in winners]
    return Values(
        logps=column("logps").requires_grad_(),
        references=column("reference_logps"),
        signs=torch.where(desirable, up, down),
        weights=torch.where(desirable, settings.lambda_d * up, settings.lambda_u * up),
        lengths=column("lengths"),
        winners=torch.tensor(winners, dtype=torch.int64),
        losers=torch.tensor(losers, dtype=torch.int64),
    )


def context_of(case: Case, settings: LossSettings, values: Values) -> Context:
    mismatched = None
    if needs_mismatched(settings):
        policy, reference, lengths = (
            torch.tensor(case[f"mismatched_{key}"], dtype=values.logps.dtype)
            for key in ("logps", "reference_logps", "lengths")
        )
        policy.requires_grad_()
        mismatched = policy - reference if settings.reference else policy / lengths
    return context(settings, values, mismatched, RunningMean(case["state"]["sum"], case["state"]["count"]))


def close(found: Tensor, expected: Any, case: Case, what: str) -> None:
    relative, absolute = CLOSE[found.dtype]
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        found.detach().double(),
        wanted,
        rtol=relative,
        atol=absolute,
        msg=lambda text: f"{case['name']}, {what}: {text}",
    )


@pytest.mark.parametrize("name", NAMES)
def test_product_agrees(name: str):
    for case in map(trained, cases(name)):
        settings = settings_of(case)
        values = values_of(case, settings, torch.float64)
        given = context_of(case, settings, values)
        losses, mean = unit_losses(settings, values, given), batch_loss(settings, values, given)
        (gradient,) = torch.autograd.grad(mean, values.logps)
        assert not given.point.requires_grad
        close(losses, case["unit_losses"], case, "losses")
        close(mean, case["mean_loss"], case, "mean")
        close(gradient, case["gradients"], case, "gradient")
        close(coefficients(settings, values, given), case["gradients"], case, "coefficients")
        if "z" in case["context"]:
            close(given.point, case["context"]["z"], case, "z")


@pytest.mark.parametrize("name", NAMES)
def test_float32_keeps_the_gradient(name: str):
    """At u = +-21 the difference of sigmoid(u) from 1 is below float32's rounding, its derivative is not 0."""
    for case in map(trained, cases(name)):
        settings = settings_of(case)
        values = values_of(case, settings, torch.float32)
        given = context_of(case, settings, values)
        close(coefficients(settings, values, given), case["gradients"], case, "gradient")


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_add_up(name: str):
    """Micro-batches of one row, or of one pair."""
    for case in map(trained, cases(name)):
        settings = settings_of(case)
        values = values_of(case, settings, torch.float64)
        given = context_of(case, settings, values)
        pairs = list(zip(values.winners.tolist(), values.losers.tolist(), strict=True))
        whole = pairs if LOSSES[case["loss"]].unit == "pair" else []
        single = set(range(len(values.logps))) - {row for pair in whole for row in pair}
        parts = []
        for rows in [*whole, *((row,) for row in sorted(single))]:
            one, other = torch.zeros(len(rows) // 2, dtype=torch.int64), torch.ones(len(rows) // 2, dtype=torch.int64)
            part = values.take(torch.tensor(rows), (one, other))
            parts.append(part_of_loss(settings, part, given.of(torch.tensor(rows))))
        (gradient,) = torch.autograd.grad(torch.stack(parts).sum(), values.logps)
        close(torch.stack(parts).sum(), case["mean_loss"], case, "mean")
        close(gradient, case["gradients"], case, "gradient")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("mean-reward") or name == "bco"])
def test_running_mean_after_the_step(name: str):
    for case in cases(name):
        settings = settings_of(case)
        running = context_of(case, settings, values_of(case, settings, torch.float64)).running
        assert running.rows == case["context"]["count"]
        assert running.total == pytest.approx(case["context"]["sum"], rel=1e-12)
