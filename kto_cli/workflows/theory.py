"""`kto theory`: the KTO paper's definitions and theorems, computed, and where the paper is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.files import finite, make_folder, replacing
from kto_cli.common.screen import Screen
from kto_cli.core.halos import SIZES, Check, check, random_units, shape
from kto_cli.core.theory.comparison import WORLDS, Outcome, answer, compare
from kto_cli.core.theory.constructions import ALIKE, CONSTRUCTIONS, WITHOUT
from kto_cli.core.theory.gradients import MARGINS, gradient_weights, tail_words
from kto_cli.core.theory.theorems import FOUR_THIRDS, contradiction, equivalence, majority
from kto_cli.workflows.theory_figure import FIGURE, write_figure

RESULT = "theory.json"
SHOWN = ("kto", "dpo", "bco", "sft")
"""Losses with a column in 80 characters; theory.json has the others too."""


def run(out: str | None, screen: Screen) -> dict[str, Any]:
    """Computes everything, prints tables, and writes the files into the folder `out` if there is one.

    Returns:
        `halos`, `gradient_weights`, `theorem_4_3_v1`, `theorem_4_3_v5`, `theorem_4_2`, `worlds`, `seconds`; `out`.

    Raises:
        BadInput: `out` cannot be written. DiskFull: no space left.
    """
    began = time.perf_counter()
    if out is not None:
        make_folder(Path(out))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: threads only wait for each other
    try:
        found = {
            "halos": _halos(screen),
            "gradient_weights": _gradients(screen),
            **_theorems(screen),
            "worlds": _worlds(screen),
        }
    finally:
        torch.set_num_threads(threads)
    found |= {"seconds": time.perf_counter() - began, "out": out}
    if out is not None:
        write_figure(Path(out))
        with replacing(Path(out) / RESULT) as temporary:
            temporary.write_text(json.dumps(finite(found), indent=1) + "\n", encoding="utf-8")
    files = f"{Path(out) / RESULT} and {FIGURE} beside it" if out else "Figure 2 of the paper: kto theory --out DIR"
    screen.say(f"{found['seconds']:.1f} s.   {files}")
    return found


def _halos(screen: Screen) -> list[dict[str, Any]]:
    units = random_units()
    checked = [(one, check(one, units), shape(one.value)) for one in CONSTRUCTIONS]
    screen.table(
        "Definition 3.4: is this construction a human-aware loss?",
        ["loss, of which units", "v rises", "v concave", "t falls", "= loss", "meets"],
        [
            [
                one.words,
                found.never_falls,
                True if found.is_concave else f"no: {found.bend:.2f}",
                found.slope < 0,
                found.is_the_loss,
                _met(found),
            ]
            for one, found, _ in checked
        ],
    )
    screen.say(
        "v: the value function, concave where z > 0 (else: by how much its slope rises there). t: the affine function, "
        "which v5 of the paper lets rise. = loss: t(v) is the loss, on 500 random units. PPO-Clip fails as the paper "
        "writes it, and passes with the signed ratio as its reward. "
        f"{'; '.join(f'{name}: as {other}' for name, other in ALIKE.items())}. Without a construction here: "
        f"{', '.join(WITHOUT)}; that none exists is not shown."
    )
    screen.table(
        "Loss aversion: a loss against a gain of the same size z",
        ["loss, of which units", "v in losses", *(f"ratio at {size:g}" for size in SIZES)],
        [
            [one.words, form.losses, *(f"{ratio:.2f}" for ratio in form.aversion)]
            for one, found, form in checked
            if found.meets
        ],
    )
    return [
        {"loss": one.loss, "units": one.case, "construction": one.formula}
        | found._asdict()
        | {"meets": found.meets, "meets_v5": found.meets_v5, "losses": form.losses, "aversion": list(form.aversion)}
        for one, found, form in checked
    ]


def _met(found: Check) -> str:
    if found.meets:
        return "yes"
    return "in v5" if found.meets_v5 else "no"


def _gradients(screen: Screen) -> dict[str, Any]:
    weights = gradient_weights()
    screen.table(
        "Proposition 4.1: gradient weight of a row, |dL/du|, by its margin u",
        ["u", *weights],
        [
            ["to -infinity", *(tail_words(name, -1) for name in weights)],
            *([f"{margin:g}", *(f"{weights[name][at]:.2g}" for name in weights)] for at, margin in enumerate(MARGINS)),
            ["to infinity", *(tail_words(name, 1) for name in weights)],
        ],
    )
    screen.say(
        "u < 0: ranked wrong. The logistic one learns neither from rows it has right nor from those hopelessly wrong, "
        "an undesirable row with a very high reward included: its loss is then largest and its gradient 0."
    )
    tails = {name: [tail_words(name, side) for side in (-1, 1)] for name in weights}
    return {"margins": list(MARGINS), "weights": weights, "tails": tails}


def _theorems(screen: Screen) -> dict[str, Any]:
    first, second, third = contradiction(), majority(), equivalence()
    pair = "{:.3f} / {:.3f}".format
    screen.table(
        "Theorems 4.3 and 4.2",
        ["", "computed"],
        [
            ["4.3 (v1): two people disagree on one prompt", ""],
            ["KTO, equal weights: largest |gradient| of 100 policies", f"{first.equal:.1g}"],
            [f"KTO, lambda_U {FOUR_THIRDS}: |gradient| from ... to", "{:.1g} to {:.1g}".format(*first.unequal)],
            ["  log-mass of both answers, a unit step down it", f"{first.pushed:+.2f}"],
            ["DPO's loss at the reference / with no mass on either", pair(*first.dpo)],
            ["  the answer's expected value to one of the two", "{:.2f} / {:.2f}".format(*first.worth)],
            ["4.3 (v5): 60 % prefer a, reference 0.3 / 0.7, beta 1", ""],
            ["DPO's a / b, in closed form", pair(*second.dpo_closed)],
            ["DPO's a / b, by descent", pair(*second.dpo)],
            ["KTO's a / b, by descent, 1000 steps", pair(*second.kto)],
            ["4.2: rewards that differ by h(x)", ""],
            ["largest difference of the optimal policies", f"{third.policy:.1g}"],
            ["largest difference of Bradley-Terry preferences", f"{third.preferences:.1g}"],
            ["differences of human values, from ... to", "{:.2f} to {:.2f}".format(*third.values)],
        ],
    )
    screen.say(
        "v1's 4.3 holds for equal weights and both rows in one step (--group-prompts). DPO's gradient at the reference "
        "is 0 too: its worst case is that its minimum is not unique."
    )
    return {
        "theorem_4_3_v1": first._asdict(),
        "theorem_4_3_v5": second._asdict(),
        "theorem_4_2": third._asdict(),
    }


def _worlds(screen: Screen) -> list[dict[str, Any]]:
    outcomes = compare()
    shown = [name for name in outcomes[0].gains if name in SHOWN]
    screen.table(
        "KTO or DPO? Value gained in random worlds (0: reference, 1: best)",
        ["condition", *shown, "kto - dpo, 90 %"],
        [_world(outcome, shown) for outcome in outcomes],
    )
    apart = max(abs(one.gains["kto"] - one.gains["apo-zero-unpaired"]) for one in outcomes)
    screen.say(
        f"{WORLDS} worlds of 6 answers each, beta 0.1, Kahneman-Tversky people; DPO's pairs are KTO's rows. "
        f"apo-zero-unpaired (z = 0) is within {apart:.3f} of kto. {answer(outcomes)}"
    )
    return [
        {"condition": one.condition._asdict(), "gains": one.gains, "difference": one.difference}
        | {"interval": list(one.interval), "better": one.better}
        for one in outcomes
    ]


def _world(outcome: Outcome, shown: list[str]) -> list[str]:
    gains = [f"{outcome.gains[name]:.2f}" for name in shown]
    low, high = outcome.interval
    return [outcome.condition.words, *gains, f"{low:+.2f} to {high:+.2f}"]
