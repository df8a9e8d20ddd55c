"""The losses in 110 decimal digits, straight from their formulas; imports the standard library alone.

A batch is a dictionary of lists over its rows. l is `logps`, q the log-ratio, s = +1 / -1 the label, T a length. What
is not differentiated (the reference point) is computed first and handed on; each derivative is written out by hand.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import Any

decimal.getcontext().prec = 110

Case = dict[str, Any]
Numbers = list[Decimal]


def exact(values: list[float]) -> Numbers:
    """The float64 numbers as they are, without rounding."""
    return [Decimal(value) for value in values]


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def softplus(x: Decimal) -> Decimal:
    """log(1 + e^x), which is -logsigmoid(-x)."""
    return (1 + x.exp()).ln()


def power_value(u: Decimal, parameters: dict[str, Decimal]) -> tuple[Decimal, Decimal]:
    """Minus Kahneman and Tversky's value u * (u^2 + eps^2)^((a - 1) / 2), times lam on the side of losses (u < 0)."""
    a, lam, eps = parameters["alpha"], parameters["loss_aversion"], parameters["epsilon"]
    square = u * u + eps * eps
    side = lam if u < 0 else Decimal(1)
    slope = (a * u * u + eps * eps) * square ** ((a - 3) / 2)
    return -side * u * square ** ((a - 1) / 2), -side * slope


VALUES: dict[str, Callable[[Decimal, dict[str, Decimal]], tuple[Decimal, Decimal]]] = {
    "logistic": lambda u, _: (sigmoid(-u), -sigmoid(u) * sigmoid(-u)),
    "concave": lambda u, _: (softplus(-u), -sigmoid(-u)),
    "linear": lambda u, _: (-u, Decimal(-1)),
    "kahneman-tversky": power_value,
}
"""L(u) and L'(u)."""


class Pair:
    """A pair holds l, q and T of its desirable row (w) and of its undesirable one (l)."""

    def __init__(self, case: Case, logps: Numbers, winner: int, loser: int):
        references = exact(case["reference_logps"])
        self.winner, self.loser = winner, loser
        self.logp_w, self.logp_l = logps[winner], logps[loser]
        self.q_w, self.q_l = logps[winner] - references[winner], logps[loser] - references[loser]
        self.t_w, self.t_l = Decimal(case["lengths"][winner]), Decimal(case["lengths"][loser])


Slopes = tuple[Decimal, Decimal, Decimal]
"""The loss of a pair, its derivative by the log-prob of the desirable row and by that of the undesirable one."""


def dpo(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    margin, smoothing = p["beta"] * (pair.q_w - pair.q_l), p["label_smoothing"]
    loss = (1 - smoothing) * softplus(-margin) + smoothing * softplus(margin)
    slope = p["beta"] * (smoothing * sigmoid(margin) - (1 - smoothing) * sigmoid(-margin))
    return loss, slope, -slope


def ipo(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    distance = pair.q_w / pair.t_w - pair.q_l / pair.t_l - 1 / (2 * p["tau"])
    return distance**2, 2 * distance / pair.t_w, -2 * distance / pair.t_l


def slic(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    hinge = p["delta"] - pair.logp_w + pair.logp_l
    active = Decimal(1 if hinge > 0 else 0)
    return max(Decimal(0), hinge) - p["lam"] * pair.logp_w, -active - p["lam"], active


def simpo(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    margin = p["beta"] * (pair.logp_w / pair.t_w - pair.logp_l / pair.t_l) - p["gamma"]
    slope = -p["beta"] * sigmoid(-margin)
    return softplus(-margin), slope / pair.t_w, -slope / pair.t_l


def orpo(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    mean_w, mean_l = pair.logp_w / pair.t_w, pair.logp_l / pair.t_l
    share_w, share_l = mean_w.exp(), mean_l.exp()
    ratio = (share_w / (1 - share_w)).ln() - (share_l / (1 - share_l)).ln()
    slope = -p["lam"] * sigmoid(-ratio)
    loss = -mean_w + p["lam"] * softplus(-ratio)
    return loss, (slope / (1 - share_w) - 1) / pair.t_w, -slope / (1 - share_l) / pair.t_l


def apo_zero(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    r_w, r_l, beta = p["beta"] * pair.q_w, p["beta"] * pair.q_l, p["beta"]
    return sigmoid(-r_w) + sigmoid(r_l), -beta * sigmoid(r_w) * sigmoid(-r_w), beta * sigmoid(r_l) * sigmoid(-r_l)


def apo_down(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    r_w, beta = p["beta"] * pair.q_w, p["beta"]
    margin = beta * (pair.q_w - pair.q_l)
    fall = beta * sigmoid(margin) * sigmoid(-margin)
    return sigmoid(r_w) + sigmoid(-margin), beta * sigmoid(r_w) * sigmoid(-r_w) - fall, fall


def nca(pair: Pair, p: dict[str, Decimal]) -> Slopes:
    r_w, r_l, beta = p["beta"] * pair.q_w, p["beta"] * pair.q_l, p["beta"]
    loss = softplus(-r_w) + softplus(r_w) / 2 + softplus(r_l) / 2
    return loss, beta * (sigmoid(r_w) / 2 - sigmoid(-r_w)), beta * sigmoid(r_l) / 2


PAIR_LOSSES = {
    "dpo": dpo,
    "ipo": ipo,
    "slic": slic,
    "simpo": simpo,
    "orpo": orpo,
    "apo-zero": apo_zero,
    "apo-down": apo_down,
    "nca": nca,
}


def log_ratios(case: Case, logps: Numbers, references: str = "reference_logps", lengths: str = "lengths") -> Numbers:
    """q of each row; l / T where the run has no reference."""
    if case["reference"] == "none":
        return [logp / length for logp, length in zip(logps, case[lengths], strict=True)]
    return [logp - reference for logp, reference in zip(logps, exact(case[references]), strict=True)]


def context(case: Case) -> dict[str, Any]:
    """The reference point z of the batch (one a row for opposite-class), nats."""
    point, own = case["point"], log_ratios(case, exact(case["logps"]))
    if point == "mismatched":
        ratios = log_ratios(case, exact(case["mismatched_logps"]), "mismatched_reference_logps", "mismatched_lengths")
        mean = sum(ratios) / Decimal(len(ratios))
        return {"z": mean if case["reference"] == "none" else max(Decimal(0), mean), "mean": mean}
    if point == "zero":
        return {"z": Decimal(0)}
    if point == "mean-reward":
        total, count = Decimal(case["state"]["sum"]) + sum(own), case["state"]["count"] + len(own)
        return {"z": total / count, "sum": total, "count": count}
    if point == "opposite-class":
        return {"z": [class_mean(own, case["desirable"], not desirable) for desirable in case["desirable"]]}
    return {}


def class_mean(ratios: Numbers, desirable: list[bool], wanted: bool) -> Decimal:
    """max(0, mean log-ratio of one class); 0 where the batch has no row of it."""
    chosen = [ratio for ratio, label in zip(ratios, desirable, strict=True) if label is wanted]
    return max(Decimal(0), sum(chosen) / Decimal(len(chosen))) if chosen else Decimal(0)


def row_terms(case: Case, logps: Numbers, points: dict[str, Any]) -> list[tuple[Decimal, Decimal]]:
    """w * L(u) with u = beta * s * (q - z), and its derivative by l, of each row."""
    p, terms = {name: Decimal(number) for name, number in case["parameters"].items()}, []
    for index, (ratio, desirable) in enumerate(zip(log_ratios(case, logps), case["desirable"], strict=True)):
        z = points["z"][index] if isinstance(points["z"], list) else points["z"]
        sign, weight = (1, p["lambda_d"]) if desirable else (-1, p["lambda_u"])
        loss, slope = VALUES[case["value"]](p["beta"] * sign * (ratio - z), p)
        tokens = case["lengths"][index] if case["reference"] == "none" else 1
        terms.append((weight * loss, weight * p["beta"] * sign * slope / tokens))
    return terms


def pairs(case: Case, logps: Numbers) -> list[Pair]:
    """The pairs of the batch in order of their desirable rows."""
    rows = zip(case["desirable"], case["partners"], strict=True)
    return [
        Pair(case, logps, row, partner) for row, (desirable, partner) in enumerate(rows) if desirable and partner >= 0
    ]


def token_mean(case: Case, logps: Numbers, rows: list[int]) -> tuple[Decimal, dict[int, Decimal]]:
    """The mean token NLL of some rows and its derivatives; 0 without any row."""
    tokens = sum(case["lengths"][row] for row in rows)
    if not tokens:
        return Decimal(0), {}
    return -sum((logps[row] for row in rows), Decimal(0)) / tokens, {row: Decimal(-1) / tokens for row in rows}


def evaluate(case: Case, logps: Numbers, points: dict[str, Any]) -> tuple[Numbers, Decimal, Numbers]:
    """The losses of the units, their mean, and the mean's derivative by each row's l, for a fixed context."""
    gradients = [Decimal(0)] * len(logps)
    supervised = [row for row, desirable in enumerate(case["desirable"]) if desirable or case["loss"] == "csft"]
    nll, slopes = token_mean(case, logps, supervised)
    share = Decimal(1)
    if case["loss"] in ("sft", "csft"):
        units, mean = [-logps[row] for row in supervised], Decimal(0)
    elif case["loss"] in PAIR_LOSSES:
        p, units = {name: Decimal(number) for name, number in case["parameters"].items()}, []
        found = pairs(case, logps)
        for pair in found:
            loss, slope_w, slope_l = PAIR_LOSSES[case["loss"]](pair, p)
            units.append(loss)
            gradients[pair.winner], gradients[pair.loser] = slope_w / len(found), slope_l / len(found)
        mean, share = sum(units, Decimal(0)) / len(units), Decimal(case["parameters"].get("sft_weight", 0))
    else:
        terms = row_terms(case, logps, points)
        units, gradients = [loss for loss, _ in terms], [slope / len(terms) for _, slope in terms]
        mean, share = sum(units, Decimal(0)) / len(units), Decimal(case["parameters"].get("sft_weight", 0))
    for row, slope in slopes.items():
        gradients[row] += share * slope
    return units, mean + share * nll, gradients
