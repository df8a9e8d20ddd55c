"""The inputs of the oracle's cases: small batches with pairs, single rows and extreme numbers, from a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

Case = dict[str, Any]


def logps_for(rng: random.Random, ratio: float, length: int) -> tuple[float, float]:
    """(log-prob, reference log-prob) with about that log-ratio, both below 0."""
    base = -length * rng.uniform(0.3, 2.5) - 0.01
    policy, reference = (base, base - ratio) if ratio > 0 else (base + ratio, base)
    return round(policy, 4), round(reference, 4)


def shuffled(rng: random.Random, pairs: int, desirable: int, undesirable: int) -> tuple[list[bool], list[int]]:
    """Labels and partners of some pairs and single rows in a random order."""
    members = [(True, pair) for pair in range(pairs)] + [(False, pair) for pair in range(pairs)]
    members += [(True, -1)] * desirable + [(False, -1)] * undesirable
    rng.shuffle(members)
    partners = [members.index((not label, pair)) if pair >= 0 else -1 for label, pair in members]
    return [label for label, _ in members], partners


def batch(rng: random.Random, pairs: int, desirable: int = 0, undesirable: int = 0, *, spread: float = 6) -> Case:
    """A batch with log-ratios of that standard deviation and completions of 1 to 40 tokens."""
    labels, partners = shuffled(rng, pairs, desirable, undesirable)
    lengths, mismatched_lengths = ([rng.randint(1, 40) for _ in labels] for _ in range(2))
    own = [logps_for(rng, rng.gauss(0, spread), length) for length in lengths]
    other = [logps_for(rng, rng.gauss(1, spread), length) for length in mismatched_lengths]
    return {
        "logps": [policy for policy, _ in own],
        "reference_logps": [reference for _, reference in own],
        "mismatched_logps": [policy for policy, _ in other],
        "mismatched_reference_logps": [reference for _, reference in other],
        "desirable": labels,
        "lengths": lengths,
        "mismatched_lengths": mismatched_lengths,
        "partners": partners,
        "state": {"sum": round(rng.gauss(0, 40), 3), "count": rng.randint(1, 60)},
    }


def with_ratios(
    case: Case, rng: random.Random, ratio: Callable[[bool], float], mismatched: float | None = None
) -> Case:
    """The batch with the log-ratio that each label asks for and one for all mismatched completions."""
    own = [
        logps_for(rng, ratio(label), length) for label, length in zip(case["desirable"], case["lengths"], strict=True)
    ]
    case |= {"logps": [policy for policy, _ in own], "reference_logps": [reference for _, reference in own]}
    if mismatched is not None:
        other = [logps_for(rng, mismatched, length) for length in case["mismatched_lengths"]]
        case["mismatched_logps"] = [policy for policy, _ in other]
        case["mismatched_reference_logps"] = [reference for _, reference in other]
    return case


def per_token(case: Case, mean: Callable[[bool], float], mismatched: float | None = None) -> Case:
    """The batch with the log-prob per token that each label asks for."""
    rows = zip(case["desirable"], case["lengths"], strict=True)
    case["logps"] = [round(mean(label) * length, 6) for label, length in rows]
    if mismatched is not None:
        case["mismatched_logps"] = [round(mismatched * length, 6) for length in case["mismatched_lengths"]]
    return case


def at(case: Case, u: float, beta: float) -> Case:
    """The batch with beta * s * (q - z) = u for each row, whatever the reference point; z is about 2 nats or 0."""
    rng, distance = random.Random(str(u)), u / beta
    if case["reference"] == "none":
        return per_token(case, lambda label: -100 + distance if label else -100 - distance, -100)
    if case["point"] == "opposite-class":
        return with_ratios(case, rng, lambda label: max(0.0, distance) if label else max(0.0, -distance))
    z = 0.0 if case["point"] == "zero" else 2.0
    case["state"] = {"sum": 2.0 * 20, "count": 20}
    return with_ratios(case, rng, lambda label: z + distance if label else z - distance, 2.0)


def equal(case: Case) -> Case:
    """The batch with the policy at the reference."""
    return case | {
        "logps": case["reference_logps"],
        "mismatched_logps": case["mismatched_reference_logps"],
        "state": {"sum": 0.0, "count": 0},
    }


def ones(case: Case) -> Case:
    """The batch with completions of one token."""
    short = {"lengths": [1] * len(case["lengths"]), "mismatched_lengths": [1] * len(case["lengths"])}
    return case | short


def scaled(case: Case, factor: int) -> Case:
    """The batch with completions so many times as long, the log-ratios unchanged."""
    case = dict(case)
    for policy, reference, lengths in (
        ("logps", "reference_logps", "lengths"),
        ("mismatched_logps", "mismatched_reference_logps", "mismatched_lengths"),
    ):
        shift = [-1.25 * (factor - 1) * length for length in case[lengths]]
        case[policy] = [round(logp + move, 4) for logp, move in zip(case[policy], shift, strict=True)]
        case[reference] = [round(logp + move, 4) for logp, move in zip(case[reference], shift, strict=True)]
        case[lengths] = [length * factor for length in case[lengths]]
    return case


def row_cases(fixed: Case, parameters: Callable[[random.Random], dict[str, float]]) -> Iterable[Case]:
    """Named inputs for a loss of single rows. Both classes are there unless the name says otherwise."""
    rng = random.Random("rows")

    def named(name: str, case: Case, **changed: float) -> Case:
        drawn = parameters(rng)
        drawn |= {key: value for key, value in changed.items() if key in drawn}
        return {"name": name, **fixed, "parameters": drawn, **case}

    def extreme(name: str, u: float) -> Case:
        case = named(name, batch(rng, 1, 1, 1), beta=0.5)
        return at(case, u, case["parameters"].get("beta", 1.0))

    for number in range(7):
        yield named(f"random_{number}", batch(rng, number % 3, 1 + number % 2, 2 - number % 2))
    yield named("one_desirable_row", batch(rng, 0, 1))
    yield named("one_undesirable_row", batch(rng, 0, 0, 1))
    yield named("all_desirable", batch(rng, 0, 4))
    yield named("all_undesirable", batch(rng, 0, 0, 4))
    for u in (21, -21, 40, -40, 100, -100, 1e-3, -1e-3):
        yield extreme(f"u_{u:g}", u)
    yield named("one_token", ones(batch(rng, 1, 1, 1, spread=1)))
    yield named("equal_logps", equal(batch(rng, 1, 1)))
    yield named("mean_below_zero", with_ratios(batch(rng, 1, 0, 1), rng, lambda _: rng.uniform(-5, 0), -3.0))
    yield named("lambda_d_zero", batch(rng, 1, 1, 1), lambda_d=0.0)
    yield named("lambda_u_zero", batch(rng, 1, 1, 1), lambda_u=0.0)
    yield named("first_step", batch(rng, 1, 1) | {"state": {"sum": 0.0, "count": 0}})
    yield named("late_step", batch(rng, 1, 0, 1) | {"state": {"sum": -1234567.875, "count": 2000000}})
    yield named("long_completions", scaled(batch(rng, 1, 1), 100))
    yield named("sft_weight_zero", batch(rng, 1, 1), sft_weight=0.0)


def pair_cases(
    fixed: Case, parameters: Callable[[random.Random], dict[str, float]], zero: str | None
) -> Iterable[Case]:
    """Named inputs for a loss of pairs; `zero` is a parameter that may be 0."""
    rng = random.Random("pairs")

    def named(name: str, case: Case, **changed: float) -> Case:
        drawn = parameters(rng)
        drawn |= {key: value for key, value in changed.items() if key in drawn}
        return {"name": name, **fixed, "parameters": drawn, **case}

    for number in range(8):
        yield named(f"random_{number}", batch(rng, 1 + number % 3, number % 2, number // 2 % 2))
    yield named("one_pair", batch(rng, 1))
    yield named("rows_without_partner", batch(rng, 1, 2, 2))
    yield named("more_desirable_rows", batch(rng, 2, 2))
    for u in (21, -21, 40, -40, 100, -100):
        side = 1 if u > 0 else -1
        ratios = with_ratios(batch(rng, 1, 0, 1), rng, lambda label, u=u: u if label else -u)
        yield named(f"ratios_{u:g}", ratios, beta=1.0)
        tokens = per_token(batch(rng, 2), lambda label, u=u, side=side: -0.5 if label is (side > 0) else -0.5 - abs(u))
        yield named(f"per_token_{u:g}", tokens, beta=1.0)
    yield named("near_certain", per_token(batch(rng, 1), lambda label: -0.01 if label else -0.02))
    yield named("one_token", ones(batch(rng, 2, 1, spread=1)))
    yield named("equal_logps", equal(batch(rng, 2)))
    both = batch(rng, 1)
    same = {name: [both[name][0]] * 2 for name in ("logps", "reference_logps", "lengths")}
    yield named("equal_answers", both | same)
    yield named("one_equal_ratio", with_ratios(batch(rng, 1), rng, lambda _: 3.0))
    yield named("long_completions", scaled(batch(rng, 2), 100))
    if zero:
        yield named(f"{zero}_zero", batch(rng, 2), **{zero: 0.0})
