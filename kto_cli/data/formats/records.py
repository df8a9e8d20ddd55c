"""The record types that all sources share, and the checks that make a text or a chat one of them.

The unit of every count is the ROW: one output with its label. A paired line holds two rows, so a
paired line that cannot be used counts as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""
Text = str | tuple[Message, ...]
"""A prompt or a completion: plain text, or chat messages."""

VALIDATION = "validation"
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; two rows, `chosen` desirable and `rejected` undesirable."""

    prompt: Text
    chosen: Text
    rejected: Text
    origin: str
    """FILE:LINE, for people."""
    group: str
    """What must not be split between train and validation: the root of the conversation."""
    split: str | None = None
    """`validation` where the source says so (its official test split)."""
    rejected_origin: str | None = None
    """Where `rejected` is, if not where `chosen` is."""
    rows = 2


@dataclass(frozen=True)
class Output:
    """One answer and its label; one row."""

    prompt: Text
    completion: Text
    label: bool
    origin: str
    group: str
    split: str | None = None
    rows = 1


@dataclass(frozen=True)
class Scored:
    """One answer and a number that says how good it is; one row, labelled once the cut is known."""

    prompt: Text
    completion: Text
    score: float
    origin: str
    group: str
    split: str | None = None
    by_label: bool = False
    """The score is a number of a label column: 1 and 0 are labels there, if the source has no other numbers."""
    rows = 1


@dataclass(frozen=True)
class Ranked:
    """Answers to one prompt from best to worst; a row each."""

    prompt: Text
    answers: tuple[Text, ...]
    origins: tuple[str, ...]
    """One for each answer."""
    group: str
    split: str | None = None

    @property
    def rows(self) -> int:
        """Rows read."""
        return len(self.answers)


@dataclass(frozen=True)
class Reject:
    """Input that cannot be used, as it was, and why."""

    origin: str
    reason: str
    """A stable snake_case id, counted."""
    detail: str
    """The reason in words, for this very input."""
    rows: int
    raw: str


@dataclass(frozen=True)
class Dropped:
    """Well-formed input that is no feedback by the source's rules, and why: no label, too close a vote."""

    origin: str
    reason: str
    detail: str
    rows: int


Result = Pair | Ranked | Scored | Output | Reject | Dropped
"""What a source makes of its input."""


class RowFault(Exception):
    """One row cannot be used; becomes a `Reject`, never reaches the user as an error."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def message(role: str, content: str) -> Message:
    """A chat message; the order of the keys is part of no hash."""
    return {"role": role, "content": content}


def check_text(text: Any, what: str) -> str:
    """`text` itself, if it is a text that can be written as UTF-8.

    Raises:
        RowFault: `not_text`, or `bad_text` for bytes that were not UTF-8 and lone surrogates.
    """
    if not isinstance(text, str):
        raise RowFault("not_text", f"{what} is {type(text).__name__}, not text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        fault = f"{what} has bytes that are not UTF-8, or half a surrogate pair, at character {error.start}"
        raise RowFault("bad_text", fault) from error
    return text


def check_chat(messages: Sequence[Message]) -> None:
    """Checks a prompt: an optional system message, then user and assistant in turn, ending with user.

    Raises:
        RowFault: `role_not_accepted`, `roles_do_not_alternate` or `empty_turn`.
    """
    roles = [message["role"] for message in messages]
    for role in roles:
        if role not in ROLES:
            raise RowFault("role_not_accepted", f"role {role!r} is not one of {', '.join(ROLES)}")
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[index % 2] for index in range(len(turns))]
    if turns != expected or len(turns) % 2 == 0:
        wanted = "an optional system message, then user and assistant in turn, ending with user"
        raise RowFault("roles_do_not_alternate", f"the prompt's roles are {spell(roles)}, not {wanted}")
    for number, turn in enumerate(messages, start=1):
        if not turn["content"].strip():
            raise RowFault("empty_turn", f"message {number} of the prompt ({turn['role']}) is empty")


def spell(roles: Sequence[str]) -> str:
    """Roles in short, the middle of a long conversation left out."""
    shown = list(roles) if len(roles) <= 8 else [*roles[:3], "...", *roles[-4:]]
    return ", ".join(shown) or "none"


def root(prompt: Text) -> str:
    """The group of a prompt: the conversation up to its first user turn; plain text is its own root.

    Rows of one conversation at different depths share it, so the answer of a shallow row, which is
    part of a deeper row's prompt, never crosses from train to validation.
    """
    if isinstance(prompt, str):
        return prompt
    opening = []
    for turn in prompt:
        opening.append(turn["content"])
        if turn["role"] == "user":
            break
    return "\n\n".join(opening)
