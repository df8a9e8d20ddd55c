"""The oracle of the losses: its files are what its formulas give, and what TRL's functions give where TRL has one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from make_cases import FOLDER, check_gradients, inputs, solved
from oracle_formulas import context, evaluate, exact

Case = dict[str, Any]
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
INPUTS = inputs()
LEAST_CASES = 20
ROUNDING = 1e-14
"""TRL's functions in float64 against 110 digits, relative above 1."""
FLOAT32 = 1e-7
"""TRL's running mean of bco rounds each batch's mean to float32."""


def content(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_a_file_for_each_loss():
    assert sorted(INPUTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_numbers_are_those_of_the_formulas(name: str):
    committed = [{key: part for key, part in case.items() if key != "trl"} for case in content(name)["cases"]]
    assert len(committed) >= LEAST_CASES
    assert len({case["name"] for case in committed}) == len(committed)
    assert committed == [solved(case) for case in INPUTS[name]]


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_central_differences(name: str):
    """One random case and one at the far end of each file; make_cases.py checks them all when it writes."""
    for case in INPUTS[name][1:40:17]:
        points = context(case)
        check_gradients(case, points, evaluate(case, exact(case["logps"]), points)[2])


@pytest.mark.parametrize("name", [name for name in NAMES if "trl" in content(name)])
def test_trl_agrees(name: str):
    """TRL 0.24.0's numbers, written by from_trl.py; where it differs by definition, its file says how."""
    found = content(name)
    assert found["trl"]["version"] == "0.24.0"
    for case in found["cases"]:
        for key in ("unit_losses", "gradients"):
            near(case["trl"][key], case[key], ROUNDING)
        if "delta" in case["trl"]:
            near([case["trl"]["delta"]], [case["parameters"]["beta"] * case["context"]["z"]], FLOAT32)


def near(found: list[float], expected: list[float], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= tolerance * max(1.0, abs(other))
