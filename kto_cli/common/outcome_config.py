"""Settings of `kto outcome`: those of reading feedback, and what is compared. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from kto_cli.common.binarize_config import THRESHOLDS, BinarizeConfig
from kto_cli.common.errors import BadFlag

RESULT = "outcome.json"


@dataclass(frozen=True)
class OutcomeConfig(BinarizeConfig):
    """Settings of `kto outcome`: shares of desirable answers by version."""

    sources: tuple[str, ...] = ()
    """As of binarize; a file alone is a log."""
    out: str | None = None
    """Folder for outcome.json; default: none is written."""
    by: str | None = None
    """The column with the version."""
    before_after: str | None = None
    """The day from which on answers are those after, YYYY-MM-DD; needs `time_column`."""
    time_column: str | None = None
    """The column with the time of an answer."""
    user: str | None = None
    """The column with the user who rated."""
    mix: str | None = None
    """The column with the kind of prompt, for a difference at one mix of prompts."""
    baseline: str | None = None
    """The version that others are compared with; default: the first in the log."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise BadFlag("No log is given.", "Give a file, as in kto outcome tickets.csv --by model.")
        if (self.by is None) == (self.before_after is None):
            what = "Versions are told by --by COLUMN, or by --before-after DATE with --time-column COLUMN."
            raise BadFlag(what, "Give one of the two.")
        if (self.before_after is None) != (self.time_column is None):
            raise BadFlag("--before-after DATE and --time-column COLUMN go together.", "Give both or neither.")
        if self.before_after is not None:
            day_of_flag(self.before_after)
            if self.baseline is not None:
                raise BadFlag("--baseline goes with --by: before comes first.", "Remove --baseline.")
        if self.threshold in THRESHOLDS:
            raise BadFlag(f"--threshold {self.threshold} depends on the rows compared.", "Give a number.")

    @property
    def beside(self) -> tuple[tuple[str, str], ...]:
        named = (
            ("--by", self.by),
            ("--time-column", self.time_column),
            ("--user", self.user),
            ("--mix", self.mix),
        )
        return tuple((flag, name) for flag, name in named if name is not None)


def day_of_flag(text: str) -> date:
    """The day of --before-after.

    Raises:
        BadFlag: not a date.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadFlag(f"--before-after {text} is no date.", "Write it as 2026-11-02.") from None
