"""Writes the oracle's JSON files, one a loss: `python tests/core/loss_oracle/make_cases.py`, then `from_trl.py`.

Nothing of kto_cli is used. All numbers are computed in 110 digits by `oracle_formulas.py` and rounded once to float64:
they are the same on every machine. Each gradient is checked against a central difference of 1e-30 nats with the
context held fixed. A case has the inputs over the rows of one effective batch, the context (what is not
differentiated), the losses of the units (rows, or pairs in order of their desirable rows), their mean, and the
gradient of the mean by each row's log-prob.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from oracle_batches import Case, pair_cases, row_cases
from oracle_formulas import VALUES, context, evaluate, exact

FOLDER = Path(__file__).parent
STEP = Decimal("1e-30")
POINTS = ("mismatched", "zero", "mean-reward", "opposite-class")
POWER = {"alpha": 0.88, "loss_aversion": 2.25, "epsilon": 1e-3}
"""Kahneman and Tversky's exponent and loss aversion; epsilon, in units of u, keeps the slope at 0 finite."""


def beta_of(rng: random.Random) -> float:
    return rng.choice((0.05, 0.1, 0.25, 0.5))


def weights_of(rng: random.Random) -> dict[str, float]:
    return {"lambda_d": rng.choice((1.0, 1.33, 0.75)), "lambda_u": rng.choice((1.0, 1.5, 0.8))}


def row_loss(
    loss: str = "kto", value: str | None = "logistic", point: str | None = "mismatched", *, reference: str = "model"
) -> tuple[Case, Callable[[random.Random], dict[str, float]]]:
    """What is fixed in all cases of a loss of single rows, and how its parameters are drawn."""

    def parameters(rng: random.Random) -> dict[str, float]:
        if value is None:
            return {}
        weights = {"lambda_d": 1.0, "lambda_u": 1.0} if loss == "bco" else weights_of(rng)
        beta = rng.choice((1.0, 1.5, 2.0)) if reference == "none" else beta_of(rng)
        return {"beta": beta} | weights | (POWER if value == "kahneman-tversky" else {})

    return {"loss": loss, "value": value, "point": point, "reference": reference}, parameters


PAIR_PARAMETERS: dict[str, Callable[[random.Random], dict[str, float]]] = {
    "dpo": lambda rng: {"beta": beta_of(rng), "label_smoothing": rng.choice((0.0, 0.1, 0.2))},
    "ipo": lambda rng: {"tau": rng.choice((0.1, 0.05, 0.5, 2.0))},
    "slic": lambda rng: {"delta": rng.choice((1.0, 0.5, 4.0)), "lam": rng.choice((0.1, 1.0))},
    "simpo": lambda rng: {"beta": rng.choice((2.0, 10.0)), "gamma": rng.choice((1.0, 3.0))},
    "orpo": lambda rng: {"lam": rng.choice((0.1, 1.0))},
    "apo-zero": lambda rng: {"beta": beta_of(rng)},
    "apo-down": lambda rng: {"beta": beta_of(rng)},
    "nca": lambda rng: {"beta": beta_of(rng)},
}
MAY_BE_ZERO = {"dpo": "label_smoothing", "slic": "lam", "simpo": "gamma", "orpo": "lam"}


def with_sft(parameters: Callable[[random.Random], dict[str, float]]) -> Callable[[random.Random], dict[str, float]]:
    return lambda rng: parameters(rng) | {"sft_weight": rng.choice((0.1, 1.0, 2.5))}


def inputs() -> dict[str, list[Case]]:
    """All cases without their results, by file name."""
    made: dict[str, list[Case]] = {}
    for value in VALUES:
        for point in POINTS:
            made[f"kto-{value}-{point}"] = rows(*row_loss("kto", value, point))
        made[f"kto-{value}-no-reference"] = rows(*row_loss("kto", value, reference="none"))
    made["apo-zero-unpaired"] = rows(*row_loss("apo-zero-unpaired", "logistic", "zero"))
    made["bco"] = rows(*row_loss("bco", "concave", "mean-reward"))
    made["sft"], made["csft"] = (rows(*row_loss(loss, None, None)) for loss in ("sft", "csft"))
    fixed, parameters = row_loss()
    made["kto-sft-weight"] = rows(fixed, with_sft(parameters))
    for loss, drawn in PAIR_PARAMETERS.items():
        made[loss] = list(pair_cases(pair_loss(loss), drawn, MAY_BE_ZERO.get(loss)))
    made["dpo-sft-weight"] = list(pair_cases(pair_loss("dpo"), with_sft(PAIR_PARAMETERS["dpo"]), "sft_weight"))
    return made


def pair_loss(loss: str) -> Case:
    return {"loss": loss, "value": None, "point": None, "reference": "model"}


def rows(fixed: Case, parameters: Callable[[random.Random], dict[str, float]]) -> list[Case]:
    """The cases of a loss of single rows that it is defined for."""
    return [case for case in row_cases(fixed, parameters) if fits(case)]


def fits(case: Case) -> bool:
    """False for a case that says nothing new of this loss: a batch without a unit, a parameter that it has not."""
    has_unit = case["loss"] != "sft" or any(case["desirable"])
    changed = {"lambda_d_zero": "lambda_d", "lambda_u_zero": "lambda_u", "sft_weight_zero": "sft_weight"}
    weighted = case["name"] not in changed or changed[case["name"]] in case["parameters"]
    return has_unit and weighted and not (case["loss"] == "bco" and case["name"].startswith("lambda"))


def check_gradients(case: Case, points: dict[str, Any], gradients: Iterable[Decimal]) -> None:
    """Each derivative against the central difference; at the kink of a value function the side of gains (u >= 0)."""
    logps = exact(case["logps"])
    for row, expected in enumerate(gradients):
        sign = 1 if case["desirable"][row] else -1
        moved = [[*logps[:row], logps[row] + move * STEP, *logps[row + 1 :]] for move in (1, 0, -1)]
        up, here, down = (evaluate(case, values, points)[1] for values in moved)
        found = (up - down) / (2 * STEP)
        if case["value"] == "kahneman-tversky" and abs((up - here) - (here - down)) > STEP * Decimal("1e-20"):
            found = sign * ((up if sign > 0 else down) - here) / STEP
        tolerance = Decimal("1e-20") * abs(expected) + Decimal("1e-60")
        assert abs(found - expected) <= tolerance, (case["name"], case["loss"], row, found, expected)


def rounded(value: Any) -> Any:
    """float64 of each number, once."""
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return value if isinstance(value, int) else float(value)


def solved(case: Case, *, check: bool = False) -> Case:
    """The case with its results."""
    points = context(case)
    units, mean, gradients = evaluate(case, exact(case["logps"]), points)
    if check:
        check_gradients(case, points, gradients)
    return case | {
        "context": {name: rounded(value) for name, value in points.items()},
        "unit_losses": rounded(units),
        "mean_loss": float(mean),
        "gradients": rounded(gradients),
    }


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    """One line a case, so that a change of one case is a change of one line."""
    head = "".join(f"{json.dumps(key)}:{json.dumps(value)},\n" for key, value in content.items() if key != "cases")
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in content["cases"])
    (folder / f"{name}.json").write_text(f'{{{head}"cases":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    for name, cases in inputs().items():
        write(FOLDER, name, {"cases": [solved(case, check=True) for case in cases]})
