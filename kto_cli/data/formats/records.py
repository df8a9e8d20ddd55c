"""Result types that all sources share, and the checks of texts and chats.

All counts are in rows: one answer with its label. A pair is two rows, so an unusable pair counts as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kto_cli.data.texts import Message, Text, without_tools

VALIDATION = "validation"
ROLES = ("system", "user", "assistant", "tool")
FOLLOWERS = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}
"""Role -> roles of the next message."""


@dataclass(frozen=True)
class Pair:
    """Pair of answers to one prompt: two rows, `chosen` desirable and `rejected` undesirable."""

    prompt: Text
    chosen: Text
    rejected: Text
    origin: str
    """FILE:LINE, for people."""
    group: str
    """Conversation, named by its root: rows of one conversation stay in one split."""
    split: str | None = None
    """`validation` for rows of the source's official validation or test split."""
    rejected_origin: str | None = None
    """Origin of `rejected`, if it differs."""
    rows = 2


@dataclass(frozen=True)
class Output:
    """Answer with its label: one row."""

    prompt: Text
    completion: Text
    label: bool
    origin: str
    group: str
    split: str | None = None
    remark: str | None = None
    """JSON of what the rater wrote beside the rating."""
    rows = 1


@dataclass(frozen=True)
class Scored:
    """Answer with a score: one row, labelled later by a threshold."""

    prompt: Text
    completion: Text
    score: float
    origin: str
    group: str
    split: str | None = None
    by_label: bool = False
    """The score comes from a label column: 1 and 0 are labels if the source has no other numbers there."""
    remark: str | None = None
    """As of `Output`."""
    rows = 1


@dataclass(frozen=True)
class Ranked:
    """Answers to one prompt, best first: one row each."""

    prompt: Text
    answers: tuple[Text, ...]
    origins: tuple[str, ...]
    """One per answer."""
    group: str
    split: str | None = None

    @property
    def rows(self) -> int:
        """Number of answers."""
        return len(self.answers)


@dataclass(frozen=True)
class Reject:
    """Faulty input that cannot be used, with the reason and its original text."""

    origin: str
    reason: str
    """A stable snake_case id; rows are counted by it."""
    detail: str
    """Explanation for this input."""
    rows: int
    raw: str


@dataclass(frozen=True)
class Dropped:
    """Well-formed input without usable feedback, with the reason: no label, a tie."""

    origin: str
    reason: str
    detail: str
    rows: int


Result = Pair | Ranked | Scored | Output | Reject | Dropped
"""What a record can give."""


class RowFault(Exception):
    """Fault of one record; becomes a `Reject`, never an error for the user."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def message(role: str, content: str) -> Message:
    """Chat message; no hash depends on the order of its keys."""
    return {"role": role, "content": content}


def check_text(text: Any, what: str) -> str:
    """`text` unchanged, if it is text that can be encoded as UTF-8.

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
    """Checks a chat prompt: an optional system message, then user and assistant in turn, ending with user.

    Results of tools (`tool`) stand behind the assistant that called them, and may end the prompt.

    Raises:
        RowFault: `role_not_accepted`, `roles_do_not_alternate` or `empty_turn`.
    """
    roles = [message["role"] for message in messages]
    for role in roles:
        if role not in ROLES:
            raise RowFault("role_not_accepted", f"role {role!r} is not one of {', '.join(ROLES)}")
    turns = roles[1:] if roles[:1] == ["system"] else roles
    in_order = all(next_role in FOLLOWERS.get(role, ()) for role, next_role in pairwise(turns))
    if turns[:1] != ["user"] or not in_order or turns[-1] == "assistant":
        wanted = "an optional system message, then user and assistant in turn, ending with user"
        raise RowFault("roles_do_not_alternate", f"the prompt's roles are {spell(roles)}, not {wanted}")
    for number, turn in enumerate(messages, start=1):
        if not turn["content"].strip() and turn["role"] != "tool" and "tool_calls" not in turn:
            raise RowFault("empty_turn", f"message {number} of the prompt ({turn['role']}) is empty")
    for turn, following in pairwise(messages):
        if following["role"] == "tool" and turn["role"] == "assistant" and "tool_calls" not in turn:
            raise RowFault("roles_do_not_alternate", "the prompt has the result of a tool that was not called")


def spell(roles: Sequence[str]) -> str:
    """Roles as text; of more than eight, the first three and the last four."""
    shown = list(roles) if len(roles) <= 8 else [*roles[:3], "...", *roles[-4:]]
    return ", ".join(shown) or "none"


def root(prompt: Text, user_turns: int = 1) -> str:
    """Root of a conversation: the prompt up to its first user turn (or the first few); a text prompt is its own root.

    Rows of one conversation at different depths share it, so the answer of an early turn, which is part of a later
    turn's prompt, is never in the other split.
    """
    if isinstance(prompt, str):
        return prompt
    opening = []
    for turn in without_tools(prompt):
        opening.append(turn["content"])
        user_turns -= turn["role"] == "user"
        if not user_turns:
            break
    return "\n\n".join(opening)
