"""What a judge is asked about: two answers to one prompt, in both orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from kto_cli.data.dataset import Text, spelled

Ballot = Literal["ours", "theirs", "tie"]
"""Who a judge is for, in one order of showing the two."""
SCORES: dict[Ballot, float] = {"ours": 1.0, "tie": 0.5, "theirs": 0.0}


class Question(NamedTuple):
    """Two answers in the order they are shown: A, then B."""

    prompt: Text
    first: str
    second: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """What names the question."""
        return spelled(self.prompt), self.first, self.second


@dataclass(frozen=True)
class Duel:
    """An answer of ours and one it is measured against: the SFT target, or another checkpoint's."""

    id: str
    prompt: Text
    ours: str
    theirs: str

    @property
    def identical(self) -> bool:
        """The same answer twice: a tie, and nothing to ask."""
        return self.ours == self.theirs

    def questions(self) -> tuple[Question, Question]:
        """Ours shown first, theirs shown first. A judge that favours a place favours each side once."""
        return Question(self.prompt, self.ours, self.theirs), Question(self.prompt, self.theirs, self.ours)


class Verdicts(NamedTuple):
    """What a judge said of one duel."""

    id: str
    ours_first: Ballot | None
    """The ballot with ours shown first; None: unreadable."""
    theirs_first: Ballot | None

    @property
    def readable(self) -> bool:
        """Both orders were answered: one alone would let the judge's liking for a place count."""
        return self.ours_first is not None and self.theirs_first is not None

    @property
    def scores(self) -> tuple[float | None, float | None]:
        """1 for ours, 0 for theirs, a half for a tie; as core.win_rates takes them."""
        return (
            None if self.ours_first is None else SCORES[self.ours_first],
            None if self.theirs_first is None else SCORES[self.theirs_first],
        )
