"""Report of the rows that were shortened, truncated or dropped while they were tokenized."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class EncodingReport:
    """Rows that were shortened, truncated or dropped to fit; all fields count rows."""

    rows: int = 0
    shortened_prompts: int = 0
    """Rows whose prompt lost its oldest turns."""
    truncated_completions: int = 0
    """Rows whose completion lost its end and its end-of-turn token."""
    truncated_mismatched: int = 0
    """Rows whose mismatched completion was truncated to fit behind their prompt."""
    special_text: int = 0
    """Rows whose completion contains the name of a special token, which is encoded as plain text."""
    chats: int = 0
    """Rows that are chats."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What the chat template leaves out of prompts -> rows."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> origins of the first rows."""

    def notes(self, what: str) -> list[str]:
        """One sentence per count above 0; `what` names the rows."""
        facts = (
            (self.shortened_prompts, "prompts lost their oldest turns to fit"),
            (self.truncated_completions, "completions were truncated to fit (no end-of-turn token)"),
            (self.truncated_mismatched, "mismatched completions were truncated to fit"),
            (self.special_text, "completions contain the name of a special token; it is encoded as plain text"),
        )
        sentences = [f"{count:,} of {self.rows:,} {what} {fact}" for count, fact in facts if count]
        sentences += [
            f"{count:,} of {self.rows:,} {what} rows are trained without {part}: the chat template leaves it out"
            for part, count in self.left_out.items()
        ]
        return sentences + [
            f"{count:,} of {self.rows:,} {what} rows dropped: {why}{self._which(why, count)}"
            for why, count in self.dropped.items()
        ]

    def _which(self, why: str, count: int) -> str:
        shown = self.examples.get(why, [])
        more = f" and {count - len(shown):,} more" if count > len(shown) else ""
        return f" ({', '.join(shown)}{more})" if shown else ""
