"""Adds TRL 0.24.0's results to the oracle's JSON files: `python tests/core/loss_oracle/from_trl.py PATH_OF_WHEEL`.

`pip download trl==0.24.0 --no-deps` gives the wheel. Its loss functions are read out of the wheel and called in float64
with our inputs; only their numbers are kept, under "trl". TRL 0.24.0 has no function for the other value functions and
reference points, for sft and csft, and none for the SFT term (its `rpo_alpha` is added outside of `dpo_loss`).
"""

from __future__ import annotations
import __future__

import ast
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from make_cases import FOLDER, write
from torch import Tensor
from torch.nn import functional

Case = dict[str, Any]
WHEEL = Path(sys.argv[1])
DEVICE = SimpleNamespace(device="cpu", use_distributed=False, gather_for_metrics=lambda values: values)
REVERSE_KL = {"f_divergence_type": "reverse_kl", "f_divergence_params": None, "reference_free": False}


@cache
def taken(module: str, name: str) -> Callable[..., Any]:
    """A function or class of a module of the wheel, without importing the module."""
    source = zipfile.ZipFile(WHEEL).read(f"trl/trainer/{module}.py").decode()
    found = [node for node in ast.walk(ast.parse(source)) if getattr(node, "name", None) == name]
    divergences = SimpleNamespace(ALPHA_DIVERGENCE="alpha", JS_DIVERGENCE="js")
    names = {"torch": torch, "F": functional, "dataclass": dataclass, "FDivergenceType": divergences}
    body = ast.Module([found[0]], [])
    exec(compile(body, module, "exec", __future__.annotations.compiler_flag), names)
    return names[name]


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def split(case: Case) -> tuple[Tensor, Tensor]:
    """The rows of both classes."""
    desirable = torch.tensor(case["desirable"])
    return desirable.nonzero()[:, 0], (~desirable).nonzero()[:, 0]


def paired(case: Case) -> tuple[Tensor, Tensor]:
    """The desirable and the undesirable row of each pair."""
    rows = [row for row, label in enumerate(case["desirable"]) if label and case["partners"][row] >= 0]
    return torch.tensor(rows), torch.tensor([case["partners"][row] for row in rows])


def in_rows(losses: Tensor, order: tuple[Tensor, Tensor]) -> Tensor:
    """Losses of the desirable rows and then of the undesirable ones, put into the order of the batch."""
    return losses[torch.argsort(torch.cat(order))]


def kto(case: Case, logps: Tensor, function: Callable[..., Any]) -> Tensor:
    p, order, references = case["parameters"], split(case), doubles(case["reference_logps"])
    trainer = SimpleNamespace(
        beta=p["beta"],
        desirable_weight=p["lambda_d"],
        undesirable_weight=p["lambda_u"],
        accelerator=DEVICE,
        calculate_KL=case["point"] == "mismatched",
        loss_type="kto" if case["point"] == "mismatched" else "apo_zero_unpaired",
    )
    kl = doubles(case["mismatched_logps"]), doubles(case["mismatched_reference_logps"])
    good, bad = order
    losses = function(trainer, logps[good], logps[bad], kl[0], references[good], references[bad], kl[1])[0]
    return in_rows(losses, order)


def bco(case: Case, logps: Tensor, function: Callable[..., Any]) -> Tensor:
    """With our mean-reward: TRL's own running mean is rounded to float32 (`delta_in_trl`)."""
    order, references, beta = split(case), doubles(case["reference_logps"]), case["parameters"]["beta"]
    moments = SimpleNamespace(mean=beta * doubles([case["context"]["z"]])[0])
    trainer = SimpleNamespace(beta=beta, running=moments, match_underlying_distribution=False)
    good, bad = order
    losses = function(trainer, logps[good], logps[bad], references[good], references[bad], None, None, do_train=False)
    return in_rows(losses[0], order)


def delta_in_trl(case: Case) -> float:
    """The mean that TRL's RunningMoments has after the step."""
    moments = taken("utils", "RunningMoments")(DEVICE)
    beta, state = case["parameters"]["beta"], case["state"]
    moments.count = state["count"] or moments.count
    moments.mean = beta * state["sum"] / state["count"] if state["count"] else 0.0
    moments.update(beta * (doubles(case["logps"]) - doubles(case["reference_logps"])))
    return moments.mean


def pairwise(kind: str, case: Case, logps: Tensor, function: Callable[..., Any]) -> Tensor:
    p, (good, bad), references = case["parameters"], paired(case), doubles(case["reference_logps"])
    if kind == "ipo":
        lengths = doubles(case["lengths"])
        logps, references = logps / lengths, references / lengths
    smoothing = p.get("label_smoothing", 0.0)
    trainer = SimpleNamespace(beta=p.get("beta", p.get("tau")), label_smoothing=smoothing, **REVERSE_KL)
    trainer.accelerator = DEVICE
    return function(trainer, logps[good], logps[bad], references[good], references[bad], loss_type=kind)[0]


def slic(case: Case, logps: Tensor, function: Callable[..., Any]) -> Tensor:
    """TRL's hinge has the margin 1 and no regularisation: delta * hinge(l / delta), and our - lam * l_w added."""
    p, (good, bad) = case["parameters"], paired(case)
    trainer = SimpleNamespace(beta=1 / p["delta"], alpha=0.0, loss_type="hinge", label_smoothing=0, accelerator=DEVICE)
    return p["delta"] * function(trainer, logps[good], logps[bad])[0] - p["lam"] * logps[good]


def simpo(case: Case, logps: Tensor, function: Callable[..., Any]) -> Tensor:
    p, (good, bad), means = case["parameters"], paired(case), logps / doubles(case["lengths"])
    trainer = SimpleNamespace(beta=p["beta"], alpha=0.0, loss_type="simpo", label_smoothing=0, accelerator=DEVICE)
    trainer.simpo_gamma = p["gamma"]
    return function(trainer, means[good], means[bad])[0]


def orpo(case: Case, logps: Tensor, function: Callable[..., Any]) -> Tensor:
    """TRL's odds ratio; its NLL covers the prompt too, ours does not, so ours is added."""
    p, (good, bad), means = case["parameters"], paired(case), logps / doubles(case["lengths"])
    trainer = SimpleNamespace(beta=p["lam"], accelerator=DEVICE)
    return -means[good] - function(trainer, means[good], means[bad])[0]


PEERS: dict[str, tuple[str, str, Callable[..., Tensor], str]] = {
    "kto-logistic-mismatched": ("kto_trainer", "kto_loss", kto, "loss_type kto"),
    "kto-logistic-zero": ("kto_trainer", "kto_loss", kto, "loss_type apo_zero_unpaired"),
    "apo-zero-unpaired": ("kto_trainer", "kto_loss", kto, "loss_type apo_zero_unpaired"),
    "bco": (
        "bco_trainer",
        "bco_loss",
        bco,
        "our delta; TRL rounds each batch's mean to float32 (trl.delta is TRL's own)",
    ),
    "dpo": ("dpo_trainer", "dpo_loss", partial(pairwise, "sigmoid"), "loss_type sigmoid"),
    "ipo": ("dpo_trainer", "dpo_loss", partial(pairwise, "ipo"), "loss_type ipo, log-probs per token as its caller's"),
    "apo-zero": ("dpo_trainer", "dpo_loss", partial(pairwise, "apo_zero"), "loss_type apo_zero"),
    "apo-down": ("dpo_trainer", "dpo_loss", partial(pairwise, "apo_down"), "loss_type apo_down"),
    "nca": ("dpo_trainer", "dpo_loss", partial(pairwise, "nca_pair"), "loss_type nca_pair"),
    "slic": (
        "cpo_trainer",
        "cpo_loss",
        slic,
        "differs: loss_type hinge has a margin of 1 and no - lam * l_w; both are brought to ours",
    ),
    "simpo": ("cpo_trainer", "cpo_loss", simpo, "loss_type simpo"),
    "orpo": (
        "orpo_trainer",
        "odds_ratio_loss",
        orpo,
        "differs: TRL's NLL covers the prompt too; the odds ratio is TRL's, the NLL ours",
    ),
}


def largest(found: list[float], expected: list[float]) -> float:
    """The largest difference, relative where a number is above 1."""
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, expected, strict=True))


def add(name: str) -> None:
    """TRL's results on the cases of one file."""
    module, function_name, call, note = PEERS[name]
    function = taken(module, function_name)
    cases, differences = json.loads((FOLDER / f"{name}.json").read_text())["cases"], {}
    for case in cases:
        logps = doubles(case["logps"]).requires_grad_()
        losses = call(case, logps, function)
        losses.mean().backward()
        assert logps.grad is not None
        case["trl"] = {"unit_losses": losses.tolist(), "gradients": logps.grad.tolist()}
        found = {key: largest(case["trl"][key], case[key]) for key in case["trl"]}
        if name == "bco":
            case["trl"]["delta"] = delta_in_trl(case)
            found["delta"] = largest([case["trl"]["delta"]], [case["parameters"]["beta"] * case["context"]["z"]])
        differences = {key: max(number, differences.get(key, 0.0)) for key, number in found.items()}
    about = {"version": "0.24.0", "function": function_name, "note": note, "largest_difference": differences}
    write(FOLDER, name, {"trl": about, "cases": cases})
    print(name, differences)


if __name__ == "__main__":
    for peer in PEERS:
        add(peer)
