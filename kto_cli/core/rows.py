"""Token sequences, and rows of two of them: a completion and its mismatched one."""

from __future__ import annotations

from typing import NamedTuple


class TokenSequence(NamedTuple):
    """Prompt and completion as token ids, joined at a token boundary."""

    prompt: tuple[int, ...]
    """At least one token: the first completion token is predicted from it."""
    completion: tuple[int, ...]
    """At least one token; ends with the end-of-turn token unless it was truncated."""

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt) + len(self.completion)


class EncodedRow(NamedTuple):
    """A row as token ids, with its mismatched completion behind the same prompt."""

    id: str
    label: bool
    """True: desirable."""
    own: TokenSequence
    """The row's prompt and completion."""
    mismatched: TokenSequence
    """The row's prompt with the completion of a row that has another prompt."""
    prompt_id: str
    pair_id: str | None = None
