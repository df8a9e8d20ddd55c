"""Token sequences and the rows made of them."""

from __future__ import annotations

from typing import NamedTuple


class TokenSequence(NamedTuple):
    """A prompt and a completion in token ids, joined at a token boundary."""

    prompt: tuple[int, ...]
    """At least one token: the first completion token is predicted from it."""
    completion: tuple[int, ...]
    """At least one token; ends with end-of-sequence unless it was cut."""

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.completion)


class EncodedRow(NamedTuple):
    """A row in tokens, with the mismatched pair that belongs to it."""

    id: str
    label: bool
    """True is desirable."""
    own: TokenSequence
    mismatched: TokenSequence
    """The row's prompt with the completion of a row that has another prompt."""
    prompt_id: str
    pair_id: str | None = None
