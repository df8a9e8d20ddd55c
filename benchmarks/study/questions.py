"""Conditions of the small tables: what each question compares.

Where nothing else is said, a condition is KTO from the model after SFT, at the rate that the family's trials chose.
"""

from __future__ import annotations

from typing import Any

from benchmarks.study.trials import Condition

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
LIKELIHOOD_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
LOSSES = ("kto", "dpo", "bco", "apo-zero-unpaired", "ppo-offline", "slic", "csft", "sft")
SHARES = (0.5, 0.25, 0.1, 0.05, 0.01)
FLIPPED = (0.1, 0.2, 0.3, 0.4)
MOVING = ("mean-reward", "opposite-class")
KTO, DPO = "family / kto, SFT first", "family / dpo, SFT first"
ONES = {"lambda_d": 1.0, "lambda_u": 1.0}


def family() -> list[Condition]:
    """Which loss earns most, with and without SFT first?"""
    found = []
    for start, said in (("base", "no SFT"), ("sft", "SFT first")):
        for loss in LOSSES:
            if start == "base" or loss != "sft":
                rates = LIKELIHOOD_RATES if loss in ("sft", "csft") else RATES
                against = "" if loss == "kto" else f"family / kto, {said}"
                found.append(condition("family", f"{loss}, {said}", against, rates=rates, start=start, loss=loss))
    return found


def imbalance() -> list[Condition]:
    """How few rows of one class are enough, and do Eq. 8's weights help?"""
    found = []
    for scarce in ("desirable", "undesirable"):
        for share in SHARES:
            variant = f"{scarce}={share:g}"
            name = f"{share:.0%} of {scarce}"
            found.append(condition("imbalance", f"{name}, Eq. 8", KTO, variant=variant))
            against = f"imbalance / {name}, Eq. 8"
            found.append(condition("imbalance", f"{name}, weights 1", against, variant=variant, **ONES))
    return [*found, condition("imbalance", "all pairs, dpo", KTO, rate_of=DPO, loss="dpo")]


def one_y() -> list[Condition]:
    """Are two answers to a prompt worth more than one?"""
    half, two = "prompts=0.5", "two answers to half the prompts"
    return [
        condition("one-y", "one answer to each prompt", f"one-y / {two}", variant="one-y"),
        condition("one-y", two, KTO, variant=half),
        condition("one-y", f"{two}, dpo", f"one-y / {two}", variant=half, rate_of=DPO, loss="dpo"),
    ]


def ablation() -> list[Condition]:
    """What do the value function, the reference point and the reference do?

    The point zero with the logistic value is the family's apo-zero-unpaired. With the linear value no point has a
    gradient.
    """
    found = [condition("ablation", f"logistic, {point}", KTO, reference_point=point) for point in MOVING]
    for value in ("concave", "linear", "kahneman-tversky"):
        found.append(condition("ablation", f"{value}, mismatched", KTO, rates=RATES, value=value))
    for point in MOVING:
        name, rate_of = f"concave, {point}", "ablation / concave, mismatched"
        found.append(condition("ablation", name, KTO, rate_of=rate_of, value="concave", reference_point=point))
    found.append(condition("ablation", "no reference, beta 1", KTO, rates=RATES, reference="none", beta=1.0))
    return [*found, condition("ablation", "SFT term, weight 0.3", KTO, sft_weight=0.3)]


def noise() -> list[Condition]:
    """Which loss bears wrong labels?"""
    found = []
    for share in FLIPPED:
        found += _three("noise", f"{share:.0%} flipped", f"flipped={share:g}")
    for flips in (0, 1):
        found += _three("noise", f"three judges, {flips} of them contradict", f"judges={flips}/3")
    return found


def _three(table: str, name: str, variant: str) -> list[Condition]:
    found = [condition(table, f"{name}, kto", KTO, variant=variant)]
    for loss in ("dpo", "bco"):
        rate_of = f"family / {loss}, SFT first"
        found.append(
            condition(table, f"{name}, {loss}", f"{table} / {name}, kto", variant=variant, rate_of=rate_of, loss=loss)
        )
    return found


def settings() -> list[Condition]:
    """Do beta, the batch and the weights of the classes matter, and does `auto` land well?

    A ratio is lambda_d n_d / (lambda_u n_u): v1 allows 1 to 4/3, v5 1 to 3/2; `auto` takes the nearest of v1's to 1:1.
    """
    found = [condition("settings", f"beta {beta:g}", KTO, beta=beta) for beta in (0.01, 0.03, 0.3, 1.0)]
    found += [condition("settings", f"batch {batch}", KTO, batch_size=batch) for batch in (8, 64)]
    ratios = {"1": 1.0, "4/3": 4 / 3, "3/2": 1.5, "2": 2.0}
    for variant, data, share, auto in (
        ("undesirable=0.25", "a quarter of the undesirable", 0.25, "4/3"),
        ("longer", "undesirable longer", 1.0, "1"),
    ):
        first = f"{data}, ratio {auto}, as auto"
        found.append(condition("settings", first, KTO, variant=variant))
        for name, ratio in ratios.items():
            if name != auto:
                d, u = max(1.0, ratio * share), max(1.0, 1 / (ratio * share))
                weights = {"lambda_d": round(d, 4), "lambda_u": round(u, 4)}
                found.append(
                    condition("settings", f"{data}, ratio {name}", f"settings / {first}", variant=variant, **weights)
                )
    return found


def moving() -> list[Condition]:
    """Does a reference that moves earn more, with or without bounds on the log-ratio of a token?"""
    copied, humanline = "the policy every 4 steps", "humanline, every step"
    mixed: dict[str, Any] = {"sync_reference_every": 4, "sync_mix": 0.6}
    late: dict[str, Any] = {"humanline": True, "sync_reference_every": 4}
    return [
        condition("moving", copied, KTO, rates=RATES, sync_reference_every=4),
        condition("moving", "0.6 of the policy every 4 steps", KTO, rate_of=f"moving / {copied}", **mixed),
        condition("moving", humanline, KTO, rates=RATES, humanline=True),
        condition("moving", "humanline, every 4 steps", KTO, rate_of=f"moving / {humanline}", **late),
    ]


def condition(table: str, name: str, against: str, *, rates: tuple[float, ...] = (), rate_of: str = KTO,
              variant: str = "pairs", start: str = "sft", **given: Any) -> Condition:  # fmt: skip
    """A condition with its settings of `kto train`."""
    return Condition(table, name, tuple(given.items()), rates, "" if rates else rate_of, variant, start, against)


QUESTIONS = {
    "family": family,
    "imbalance": imbalance,
    "one-y": one_y,
    "ablation": ablation,
    "noise": noise,
    "settings": settings,
    "moving": moving,
}
