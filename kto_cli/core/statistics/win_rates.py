"""Win rate of a model's answers against a baseline's, both orders counted, with measures of what could bias a judge.

A comparison has two votes, one per order of the answers (1: model, 0.5: tie, 0: baseline). A mean above 0.5 is a win,
below 0.5 a loss, else a tie. Two equal votes thus decide, two contradicting votes are a tie, and a vote beside a tie
decides alone. A judge that always prefers the first answer gives ties only: a win rate of exactly 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.statistics.auc import SIMILAR_WORDS
from kto_cli.core.statistics.intervals import (
    RESAMPLES,
    mean_interval,
    percentiles,
    resample_weights,
    wilson,
)
from kto_cli.core.statistics.shares import FEWEST_COMPARED

_STEPS = 60
"""Upper limit on the steps of Newton's method."""
_INTERCEPT_PRECISION = 1e-6
"""Precision of the prior on the intercept: almost flat, but keeps it finite where every comparison is won."""


class JudgedComparison(NamedTuple):
    """One comparison: the vote in each order (None: unreadable), and the lengths of both answers."""

    id: str
    model_first: float | None
    """Vote with the model's answer shown first: 1 for the model, 0.5 for a tie, 0 for the baseline."""
    baseline_first: float | None
    model_words: int
    baseline_words: int
    model_characters: int
    baseline_characters: int

    @property
    def outcome(self) -> float | None:
        """1 win, 0.5 tie, 0 loss; None unless both votes are readable."""
        if self.model_first is None or self.baseline_first is None:
            return None
        total = self.model_first + self.baseline_first
        return 0.5 if total == 1 else float(total > 1)


def judged(id: str, votes: tuple[float | None, float | None], model: str, baseline: str) -> JudgedComparison:
    """A comparison from its votes (model first, baseline first) and both answers; white space separates words."""
    return JudgedComparison(id, *votes, len(model.split()), len(baseline.split()), len(model), len(baseline))


def rate(outcomes: Sequence[float]) -> dict[str, Any]:
    """Win rate, (wins + ties / 2) / comparisons, with its interval and counts.

    Returns:
        win_rate (NaN without comparisons), interval (Wilson, 90 %; ties count as half successes), comparisons,
        wins, ties, losses (counts).
    """
    count, total = len(outcomes), math.fsum(outcomes)
    wins, losses = outcomes.count(1.0), outcomes.count(0.0)
    return {
        "win_rate": total / count if count else math.nan,
        "interval": wilson(total, count),
        "comparisons": count,
        "wins": wins,
        "ties": count - wins - losses,
        "losses": losses,
    }


def win_rates(comparisons: Sequence[JudgedComparison], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """The model's win rate, and whether the order or the length of the answers could explain it.

    Returns:
        the keys of `rate`, over comparisons with two readable votes;
        unreadable: number of other comparisons;
        consistency: share of comparisons whose two votes are equal;
        position_bias: see `position_bias`; length: see `lengths`;
        by_length: `rate` where the model's answer is `shorter`, `like` (of similar length) or `longer` in words;
        length_controlled: see `length_controlled`.
    """
    readable = [one for one in comparisons if one.outcome is not None]
    outcomes = _outcomes(readable)
    same = sum(one.model_first == one.baseline_first for one in readable)
    groups = {name: [one for one in readable if relation(one) == name] for name in ("shorter", "like", "longer")}
    return {
        **rate(outcomes),
        "unreadable": len(comparisons) - len(readable),
        "consistency": same / len(readable) if readable else math.nan,
        "position_bias": position_bias(readable),
        "length": lengths(readable),
        "by_length": {name: rate(_outcomes(group)) for name, group in groups.items()},
        "length_controlled": length_controlled(readable, resamples=resamples, seed=seed),
    }


def _outcomes(comparisons: Sequence[JudgedComparison]) -> list[float]:
    return [outcome for one in comparisons if (outcome := one.outcome) is not None]


def position_bias(comparisons: Sequence[JudgedComparison]) -> dict[str, Any]:
    """Share of votes for the answer shown first, a tie counting half for each; 0.5 means no bias.

    Each answer is shown first once, so quality cancels. The interval is Wilson's with a comparison, not a vote, as one
    trial (the two votes of a comparison are not independent): rather too wide than too narrow.
    """
    shares = [
        (one.model_first + 1 - one.baseline_first) / 2
        for one in comparisons
        if one.model_first is not None and one.baseline_first is not None
    ]
    total = math.fsum(shares)
    return {"first": total / len(shares) if shares else math.nan, "interval": wilson(total, len(shares))}


def lengths(comparisons: Sequence[JudgedComparison]) -> dict[str, float]:
    """Mean words and characters per answer, of model and baseline; NaN without comparisons."""
    sizes = {
        "model_words": [one.model_words for one in comparisons],
        "baseline_words": [one.baseline_words for one in comparisons],
        "model_characters": [one.model_characters for one in comparisons],
        "baseline_characters": [one.baseline_characters for one in comparisons],
    }
    return {name: sum(values) / len(values) if values else math.nan for name, values in sizes.items()}


def relation(comparison: JudgedComparison) -> str:
    """Whether the model's answer is "shorter" than the baseline's, of similar length ("like") or "longer", in words."""
    short, long = sorted((comparison.model_words, comparison.baseline_words))
    if long <= SIMILAR_WORDS * short:
        return "like"
    return "shorter" if comparison.model_words < comparison.baseline_words else "longer"


def length_controlled(
    comparisons: Sequence[JudgedComparison], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Win rate to expect if all answers were as long as the baseline's: a logistic regression of the outcome on the
    difference in length, read off at no difference (after Dubois et al. 2024, arXiv 2404.04475, without the terms for
    model and prompt).

        P(win) = sigmoid(a + b tanh(d / sd)), d the difference in words, sd the root of its mean square

    As in the paper, tanh dampens large differences. b has a standard normal prior, which keeps b finite where length
    alone separates wins from losses. The interval is a bootstrap over comparisons; it is a point if all outcomes agree.

    Returns:
        win_rate, interval (90 %), slope b; NaN without comparisons.
    """
    if not comparisons:
        return {"win_rate": math.nan, "interval": [math.nan, math.nan], "slope": math.nan}
    outcomes = torch.tensor(_outcomes(comparisons), dtype=torch.float64)
    differences = torch.tensor([one.model_words - one.baseline_words for one in comparisons], dtype=torch.float64)
    clusters, count = torch.arange(len(comparisons)), len(comparisons)
    whole = _fit(outcomes, differences, torch.ones(1, count, dtype=torch.float64))
    parts = [_fit(outcomes, differences, drawn)[:, 0] for drawn in resample_weights(clusters, count, resamples, seed)]
    return {
        "win_rate": whole[0, 0].sigmoid().item(),
        "interval": percentiles(torch.cat(parts).sigmoid()),
        "slope": whole[0, 1].item(),
    }


def _fit(outcomes: Tensor, differences: Tensor, weights: Tensor) -> Tensor:
    """[resamples, 2] intercepts and slopes by Newton's method, for weights [resamples, comparisons]; outcomes
    [comparisons] may be 0.5. The inputs lie between -1 and 1, so full steps from 0 converge."""
    spread = (differences.square() @ weights.T / weights.sum(1)).sqrt().clamp(min=1e-9)
    inputs = torch.tanh(differences / spread[:, None])  # [resamples, comparisons]
    solution = torch.zeros(len(weights), 2, dtype=torch.float64)
    prior = torch.tensor([_INTERCEPT_PRECISION, 1.0], dtype=torch.float64)
    for _ in range(_STEPS):
        share = torch.sigmoid(solution[:, :1] + solution[:, 1:] * inputs)
        error, curve = weights * (share - outcomes), weights * share * (1 - share)
        slope = torch.stack([error.sum(1), (error * inputs).sum(1)], 1) + prior * solution
        cross = (curve * inputs).sum(1)
        first, second = curve.sum(1) + prior[0], (curve * inputs.square()).sum(1) + prior[1]
        determinant = first * second - cross.square()
        step = (
            torch.stack([second * slope[:, 0] - cross * slope[:, 1], first * slope[:, 1] - cross * slope[:, 0]], 1)
            / determinant[:, None]
        )
        solution = solution - step
        if step.abs().max() < 1e-10:
            break
    return solution


def compare_rates(
    first: Sequence[JudgedComparison], second: Sequence[JudgedComparison], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Difference of two checkpoints' win rates against the same baseline, over the comparisons (by id) that are
    readable for both; the bootstrap is paired, so the difficulty of a prompt cancels.

    Returns:
        comparisons (count), first, second, difference (second - first), interval (90 %), verdict: "first" or "second"
        (is better) if 0 lies outside the interval of `FEWEST_COMPARED` or more, else "unclear".
    """
    others = {one.id: one.outcome for one in second}
    pairs = [
        (one.outcome, other) for one in first if one.outcome is not None and (other := others.get(one.id)) is not None
    ]
    if not pairs:
        empty = {"comparisons": 0, "first": math.nan, "second": math.nan, "difference": math.nan}
        return {**empty, "interval": [math.nan, math.nan], "verdict": "unclear"}
    values = torch.tensor(pairs, dtype=torch.float64)
    before, after = values.mean(0).tolist()
    changes, clusters = values[:, 1] - values[:, 0], torch.arange(len(pairs))
    parts = [drawn @ changes / len(pairs) for drawn in resample_weights(clusters, len(pairs), resamples, seed)]
    low, high = mean_interval(after - before, torch.cat(parts), len(pairs))
    enough = len(pairs) >= FEWEST_COMPARED
    return {
        "comparisons": len(pairs),
        "first": before,
        "second": after,
        "difference": after - before,
        "interval": [low, high],
        "verdict": "second" if enough and low > 0 else "first" if enough and high < 0 else "unclear",
    }
