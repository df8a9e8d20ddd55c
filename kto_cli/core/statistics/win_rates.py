"""Of two sides' answers, how often is ours the better one? Both orders together, with what could bias a judge beside.

A duel's score is the mean of its two ballots, one for each order (1 ours, a half for a tie, 0 theirs): above a half it
is a win, below a loss, else a tie. Two agreeing ballots thus decide, two contradicting ones are a tie, and one ballot
with one tie goes to who has the ballot. A judge that always names the first gives ties alone: a rate of exactly a half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import RESAMPLES, draws, percentiles, wilson

LIKE_LENGTH = 0.8
"""The shorter answer has at least so much of the longer one's words: a fifth apart at most."""
_STEPS = 60
_FAINT = 1e-6
"""Precision of the prior on the intercept: none, but where all duels are won it stays finite."""


class Judged(NamedTuple):
    """One duel: what was said in each order (None: unreadable), and how long both answers are."""

    id: str
    ours_first: float | None
    """1: ours is better, 0.5: a tie, 0: theirs is."""
    theirs_first: float | None
    ours_words: int
    theirs_words: int
    ours_characters: int
    theirs_characters: int

    @property
    def outcome(self) -> float | None:
        """1 win, 0.5 tie, 0 loss; None unless both orders can be read."""
        if self.ours_first is None or self.theirs_first is None:
            return None
        total = self.ours_first + self.theirs_first
        return 0.5 if total == 1 else float(total > 1)


def judged(id: str, scores: tuple[float | None, float | None], ours: str, theirs: str) -> Judged:
    """A duel from its scores (ours first, theirs first) and the answers' texts; a word is what white space parts."""
    return Judged(id, *scores, len(ours.split()), len(theirs.split()), len(ours), len(theirs))


def rate(outcomes: Sequence[float]) -> dict[str, Any]:
    """(wins + ties / 2) / duels, and what it is made of.

    Returns:
        win_rate (NaN without duels), interval (Wilson, 90 %; ties count as half successes), duels, wins, ties, losses.
    """
    count, total = len(outcomes), math.fsum(outcomes)
    wins, losses = outcomes.count(1.0), outcomes.count(0.0)
    return {
        "win_rate": total / count if count else math.nan,
        "interval": wilson(total, count),
        "duels": count,
        "wins": wins,
        "ties": count - wins - losses,
        "losses": losses,
    }


def win_rates(duels: Sequence[Judged], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """The win rate of ours, and whether place or length could be behind it.

    Returns:
        what `rate` gives of the duels that could be read in both orders;
        unreadable: the others;
        consistency: share of duels whose two orders have the same ballot;
        position_bias: see `position_bias`; length: see `lengths`;
        by_length: `rate` where ours is `shorter`, `like` (within a fifth) or `longer` in words;
        length_controlled: see `length_controlled`.
    """
    readable = [duel for duel in duels if duel.outcome is not None]
    outcomes = _outcomes(readable)
    same = sum(duel.ours_first == duel.theirs_first for duel in readable)
    groups = {name: [duel for duel in readable if relation(duel) == name] for name in ("shorter", "like", "longer")}
    return {
        **rate(outcomes),
        "unreadable": len(duels) - len(readable),
        "consistency": same / len(readable) if readable else math.nan,
        "position_bias": position_bias(readable),
        "length": lengths(readable),
        "by_length": {name: rate(_outcomes(group)) for name, group in groups.items()},
        "length_controlled": length_controlled(readable, resamples=resamples, seed=seed),
    }


def _outcomes(duels: Sequence[Judged]) -> list[float]:
    return [outcome for duel in duels if (outcome := duel.outcome) is not None]


def position_bias(duels: Sequence[Judged]) -> dict[str, Any]:
    """The share of ballots for the answer shown first, a tie a half to each; 0.5 is none.

    Each answer is shown first once, so what is better cancels. The interval is Wilson's with a duel, not a ballot, as
    its trial (a duel's two ballots are not independent): rather too wide than too narrow.
    """
    shares = [
        (duel.ours_first + 1 - duel.theirs_first) / 2
        for duel in duels
        if duel.ours_first is not None and duel.theirs_first is not None
    ]
    total = math.fsum(shares)
    return {"first": total / len(shares) if shares else math.nan, "interval": wilson(total, len(shares))}


def lengths(duels: Sequence[Judged]) -> dict[str, float]:
    """Mean words and characters of an answer, of both sides; NaN without duels."""
    names = ("ours_words", "theirs_words", "ours_characters", "theirs_characters")
    return {name: sum(getattr(duel, name) for duel in duels) / len(duels) if duels else math.nan for name in names}


def relation(duel: Judged) -> str:
    """Whether ours is "shorter" than theirs, of "like" length or "longer", in words."""
    short, long = sorted((duel.ours_words, duel.theirs_words))
    if short >= LIKE_LENGTH * long:
        return "like"
    return "shorter" if duel.ours_words < duel.theirs_words else "longer"


def length_controlled(duels: Sequence[Judged], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """The win rate to expect of answers as long as theirs: a logistic regression of the outcome on the difference in
    length, at no difference (the idea of Dubois et al. 2024, arXiv 2404.04475, without its terms for model and prompt).

        P(win) = sigmoid(a + b tanh(d / sd)), d the difference in words, sd the root of its mean square

    tanh, as there: twice as many words more do not count twice. b has a standard normal prior, which keeps it finite
    where length alone tells wins from losses. The interval is a bootstrap over duels, and a point if all agree.

    Returns:
        win_rate, interval (90 %), slope b; NaN without duels.
    """
    if not duels:
        return {"win_rate": math.nan, "interval": [math.nan, math.nan], "slope": math.nan}
    outcomes = torch.tensor(_outcomes(duels), dtype=torch.float64)
    differences = torch.tensor([duel.ours_words - duel.theirs_words for duel in duels], dtype=torch.float64)
    places, count = torch.arange(len(duels)), len(duels)
    whole = _fit(outcomes, differences, torch.ones(1, count, dtype=torch.float64))
    parts = [_fit(outcomes, differences, drawn)[:, 0] for drawn in draws(places, count, resamples, seed)]
    return {
        "win_rate": whole[0, 0].sigmoid().item(),
        "interval": percentiles(torch.cat(parts).sigmoid()),
        "slope": whole[0, 1].item(),
    }


def _fit(outcomes: Tensor, differences: Tensor, weights: Tensor) -> Tensor:
    """[resamples, 2] intercepts and slopes by Newton's method, for weights [resamples, duels]; outcomes [duels] may be
    halves. The inputs lie within -1 and 1, so from 0 it needs no shortened steps."""
    spread = (differences.square() @ weights.T / weights.sum(1)).sqrt().clamp(min=1e-9)
    inputs = torch.tanh(differences / spread[:, None])  # [resamples, duels]
    solution = torch.zeros(len(weights), 2, dtype=torch.float64)
    prior = torch.tensor([_FAINT, 1.0], dtype=torch.float64)
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
    first: Sequence[Judged], second: Sequence[Judged], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Is the second of two checkpoints' win rates higher? Over the duels (by id) that could be read for both, each
    against the same other side; a paired bootstrap, so how hard a prompt is cancels.

    Returns:
        duels, first, second, difference (second - first), interval (90 %), verdict: "first" or "second" (is better) if
        0 lies outside the interval, else "unclear".
    """
    others = {duel.id: duel.outcome for duel in second}
    pairs = [
        (duel.outcome, other)
        for duel in first
        if duel.outcome is not None and (other := others.get(duel.id)) is not None
    ]
    if not pairs:
        empty = {"duels": 0, "first": math.nan, "second": math.nan, "difference": math.nan}
        return {**empty, "interval": [math.nan, math.nan], "verdict": "unclear"}
    values = torch.tensor(pairs, dtype=torch.float64)
    before, after = values.mean(0).tolist()
    changes, places = values[:, 1] - values[:, 0], torch.arange(len(pairs))
    parts = [drawn @ changes / len(pairs) for drawn in draws(places, len(pairs), resamples, seed)]
    low, high = percentiles(torch.cat(parts))
    return {
        "duels": len(pairs),
        "first": before,
        "second": after,
        "difference": after - before,
        "interval": [low, high],
        "verdict": "second" if low > 0 else "first" if high < 0 else "unclear",
    }
