"""Names of columns: those that logs give prompts, answers and labels, and names that mean the opposite of good.

    prompt        prompt, question, query, instruction, input, request, user_query, user_message, user_input
    answer        completion, answer, response, output, reply, model_response, model_output, assistant_message
    system        system, system_prompt, system_message
    tools         tools, functions (if their cells are lists of tools)
    whole chat    messages, conversation, chat
    label         label, desirable, feedback, thumbs, thumbs_up, liked
    conversation  conversation_id

`User Message`, `userMessage` and `USER-MESSAGE` are user_message. A score is never found by its name: its threshold is
a decision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kto_cli.data.formats.labels import NUMBER

KNOWN: dict[str, tuple[str, ...]] = {
    "prompt_column": (
        *("prompt", "question", "query", "instruction", "input", "request"),
        *("user_query", "user_message", "user_input"),
    ),
    "completion_column": (
        *("completion", "answer", "response", "output", "reply"),
        *("model_response", "model_output", "assistant_message"),
    ),
    "system_column": ("system", "system_prompt", "system_message"),
    "tools_column": ("tools", "functions"),
    "messages_column": ("messages", "conversation", "chat"),
    "label_column": ("label", "desirable", "feedback", "thumbs", "thumbs_up", "liked"),
    "conversation_column": ("conversation_id",),
}
ALPACA = ["instruction", "input"]
"""Two known names that one prompt may have: what is asked, and of what."""
OPPOSITES = {
    **{"up": "down", "like": "dislike", "likes": "dislikes", "liked": "disliked", "upvote": "downvote"},
    **{"upvotes": "downvotes", "upvoted": "downvoted", "positive": "negative", "good": "bad", "helpful": "unhelpful"},
    **{"correct": "incorrect", "accepted": "rejected", "thumbsup": "thumbsdown", "satisfied": "dissatisfied"},
}
"""Words of two columns that a row may have both empty."""
NEGATIVE = frozenset(
    [
        *OPPOSITES.values(),
        *("wrong", "error", "errors", "fail", "failed", "failure", "hallucination", "hallucinations"),
        *("hallucinated", "toxic", "toxicity", "unsafe", "harmful", "harm", "harmfulness", "spam"),
        *("flagged", "complaint", "complaints", "complained", "escalated", "reported", "refused"),
        *("refusal", "abusive", "abuse", "offensive", "broken", "poor", "useless", "irrelevant"),
        *("misleading", "unfaithful", "biased", "dispreferred", "undesirable", "inaccurate"),
        *("bug", "problem", "hate", "unanswered", "unresolved", "fault", "faulty", "dissatisfaction"),
    ]
)
"""Words by which 1, true or a high score is bad."""
POSITIVE = frozenset([*OPPOSITES, "resolved", "fixed", "solved", "free", "ok", "avoided", "quality", "safe"])
NEGATIONS = frozenset(["not", "no", "non", "isnt", "without"])
SHOWN = 20
"""Column names in a message."""


def plain(name: str) -> str:
    """A name in lower case, its words joined by underscores."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", words).strip("_").casefold()


def known(field: str, columns: Sequence[str]) -> list[str]:
    """Columns with a well-known name of a field, in the order of KNOWN; an exact name precedes its variants."""
    names = {name: [column for column in columns if plain(column) == name] for name in KNOWN[field]}
    return [column for name, found in names.items() for column in ([name] if name in found else found)]


def opposite_of(column: str, columns: Sequence[str]) -> str | None:
    """Column whose name is the opposite: thumbs_down of thumbs_up, or thumbs_up of thumbs_down."""
    words = plain(column).split("_")
    pairs = {**OPPOSITES, **{bad: good for good, bad in OPPOSITES.items()}}
    for index, word in enumerate(words):
        if word in pairs:
            opposite = "_".join([*words[:index], pairs[word], *words[index + 1 :]])
            return next((each for each in columns if plain(each) == opposite), None)
    return None


def is_negative(column: str) -> bool:
    """Whether a name says that its true, 1 or high values are bad answers."""
    words = set(plain(column).split("_"))
    return bool(words & NEGATIVE and not words & POSITIVE) != bool(words & NEGATIONS)


def look_like_data(columns: Sequence[str]) -> bool:
    """Whether column names look like the cells of a first row: a sentence, a number."""
    return any(
        len(name) > 60 or name[-1:] in ".?!" or len(name.split()) > 6 or NUMBER.fullmatch(name) is not None
        for name in columns
    )
