"""Comparisons: two answers to one prompt, in both orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from kto_cli.data.texts import Text, spelled

Vote = Literal["model", "baseline", "tie"]
"""Who a judge is for, in one order of showing the two."""
SCORES: dict[Vote, float] = {"model": 1.0, "tie": 0.5, "baseline": 0.0}


class JudgeQuestion(NamedTuple):
    """Two answers in the order they are shown: A, then B."""

    prompt: Text
    first: str
    second: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """The texts that identify the question."""
        return spelled(self.prompt), self.first, self.second


@dataclass(frozen=True)
class Comparison:
    """A model's answer to a prompt and the baseline's: the desirable completion of the data, or another model's."""

    id: str
    prompt: Text
    model: str
    baseline: str

    @property
    def identical(self) -> bool:
        """Whether both answers are equal: a tie, without asking."""
        return self.model == self.baseline

    def questions(self) -> tuple[JudgeQuestion, JudgeQuestion]:
        """The model's answer first, then the baseline's: a judge that favours a position favours each once."""
        return JudgeQuestion(self.prompt, self.model, self.baseline), JudgeQuestion(
            self.prompt, self.baseline, self.model
        )


class Verdicts(NamedTuple):
    """The two verdicts on one comparison."""

    id: str
    model_first: Vote | None
    """The vote with the model's answer shown first; None: unreadable."""
    baseline_first: Vote | None

    @property
    def readable(self) -> bool:
        """Whether both orders have a vote: one alone would count the judge's position bias."""
        return self.model_first is not None and self.baseline_first is not None

    @property
    def scores(self) -> tuple[float | None, float | None]:
        """1 for the model, 0 for the baseline, a half for a tie; in the form of core/statistics/win_rates.py."""
        return (
            None if self.model_first is None else SCORES[self.model_first],
            None if self.baseline_first is None else SCORES[self.baseline_first],
        )
