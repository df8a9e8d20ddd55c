"""Which columns of a product's log hold what: as the options say, or by names that are known well, and then it is said.

    prompt        prompt, question, query, instruction, input, request, user_query, user_message, user_input
    answer        completion, answer, response, output, reply, model_response, model_output, assistant_message
    whole chat    messages, conversation, chat
    label         label, desirable, feedback, thumbs, thumbs_up, liked
    conversation  conversation_id

A name is taken only if it is exactly one of these and the only one of its line that the file has; a label, only if no
rule, label or score is asked for. A score is never taken by its name: where good begins is a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log.rules import Rule, compile_rule
from kto_cli.data.readers.open_file import printable

ELSE = "else"
"""As one of the two rules: every row that the other is false of."""

KNOWN = {
    "prompt_column": (
        "prompt",
        "question",
        "query",
        "instruction",
        "input",
        "request",
        "user_query",
        "user_message",
        "user_input",
    ),
    "completion_column": (
        "completion",
        "answer",
        "response",
        "output",
        "reply",
        "model_response",
        "model_output",
        "assistant_message",
    ),
    "messages_column": ("messages", "conversation", "chat"),
    "label_column": ("label", "desirable", "feedback", "thumbs", "thumbs_up", "liked"),
    "conversation_column": ("conversation_id",),
}
WHAT = {
    "prompt_column": "prompt",
    "completion_column": "answer",
    "other_column": "other answer",
    "messages_column": "whole chat",
    "label_column": "label",
    "score_column": "score",
    "conversation_column": "conversation",
}


def flag(field: str) -> str:
    """The option of a field of the configuration."""
    return "--" + field.replace("_", "-")


def column_names(columns: Sequence[str]) -> str:
    """Columns for people, the first twenty."""
    shown = [printable(column) if column.isprintable() else ascii(column) for column in columns[:20]]
    return (", ".join(shown) or "none") + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


@lru_cache(maxsize=8)
def rules_of(config: BinarizeConfig) -> tuple[Rule | None, Rule | None]:
    """The rules that make a row desirable and undesirable; None for `else` (and for both, where there are none).

    Raises:
        BadInput: a rule that cannot be read.
    """
    given = (("--desirable", config.desirable), ("--undesirable", config.undesirable))
    return tuple(  # type: ignore[return-value]
        None if text is None or is_else(text) else compile_rule(text, option) for option, text in given
    )


def is_else(text: str | None) -> bool:
    """Whether a rule is `else`."""
    return text is not None and text.strip().lower() == ELSE


def check_options(config: BinarizeConfig) -> None:
    """Refuses options that do not go together, and rules that cannot be read.

    Raises:
        BadInput: naming the options.
    """
    for given, lacking in (("desirable", "undesirable"), ("undesirable", "desirable")):
        if getattr(config, given) is not None and getattr(config, lacking) is None:
            step = f"Give {flag(lacking)} RULE, or {flag(lacking)} else for all rows that the rule is false of."
            raise BadInput(f"{flag(given)} says nothing of the other rows.", step)
    if is_else(config.desirable) and is_else(config.undesirable):
        raise BadInput("--desirable and --undesirable are both else.", "Give a rule for one of them.")
    fields = ("desirable", "label_column", "score_column")
    if len(given_signals := [field for field in fields if getattr(config, field) is not None]) > 1:
        raise BadInput(f"{' and '.join(map(flag, given_signals))} both say what is desirable.", "Give one of them.")
    for field in ("prompt_column", "completion_column", "other_column"):
        if config.messages_column is not None and getattr(config, field) is not None:
            raise BadInput(f"--messages-column has the whole chat, and {flag(field)} is given too.", "Leave one out.")
    if config.other_column is not None and (config.completion_column is None or config.desirable is None):
        step = "Give --completion-column and two rules: --desirable for where its answer is the better of the two."
        raise BadInput("--other-column needs to know which of two answers is the better.", step)
    rules_of(config)


def check_known(columns: Sequence[str], shown: str, config: BinarizeConfig) -> None:
    """Refuses the name of a column that the file, called `shown`, does not have.

    Raises:
        BadInput: with the column that may be meant, and all there are.
    """
    named = [(flag(field), getattr(config, field)) for field in WHAT if getattr(config, field) is not None]
    for option, rule in zip(("--desirable", "--undesirable"), rules_of(config), strict=True):
        named += [(option, column) for column in rule.columns] if rule else []
    folded = {column.casefold(): column for column in columns}
    for option, name in named:
        ends = [place for place, character in enumerate(name) if character == "."]
        if name in columns or any(name[:end] in columns for end in ends):
            continue
        near = [folded[name.casefold()]] if name.casefold() in folded else get_close_matches(name, columns, n=1)
        hint = f"; did you mean {column_names(near)!r}?" if near else "."
        raise BadInput(
            f"{shown} has no column {column_names([name])!r} ({option}){hint}", f"It has: {column_names(columns)}."
        )


def only(field: str, columns: Sequence[str], shown: str, config: BinarizeConfig) -> str | None:
    """The column of a field: the one that is named, the only one that is known by its name, or None.

    Raises:
        BadInput: several are known.
    """
    named: str | None = getattr(config, field)
    if named is not None:
        return named
    found = [name for name in KNOWN[field] if name in columns]
    if len(found) > 1:
        what = f"{shown} has several columns that may be the {WHAT[field]}: {', '.join(found)}."
        raise BadInput(what, f"Name one with {flag(field)}.")
    return found[0] if found else None


@lru_cache(maxsize=256)
def filled(columns: tuple[str, ...], shown: str, config: BinarizeConfig) -> BinarizeConfig:
    """The configuration with the columns that are known by their names; what is not found stays None.

    Raises:
        BadInput: several columns may be the one.
    """
    fields: dict[str, str | None] = {"conversation_column": only("conversation_column", columns, shown, config)}
    if config.desirable is None and config.score_column is None:
        fields["label_column"] = only("label_column", columns, shown, config)
    if config.messages_column is None:
        prompt = only("prompt_column", columns, shown, config)
        completion = only("completion_column", columns, shown, config)
        open_to_chat = config.prompt_column is None and config.completion_column is None
        chat = only("messages_column", columns, shown, config) if open_to_chat else None
        if chat and prompt and completion:
            what = f"{shown} has a whole chat ({chat}) and also a prompt and an answer ({prompt}, {completion})."
            raise BadInput(what, "Name what to read: --messages-column, or --prompt-column and --completion-column.")
        texts = {"messages_column": chat} if chat else {"prompt_column": prompt, "completion_column": completion}
        fields.update(texts)
    return replace(config, **fields)  # type: ignore[arg-type]


def settled(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> BinarizeConfig:
    """The configuration for one file, every column it needs named.

    Raises:
        BadInput: options that do not go together, a column that is not there, cannot be told or is one of several.
    """
    shown = printable(str(raw_file.path))
    check_options(config)
    check_known(columns, shown, config)
    whole = filled(tuple(columns), shown, config)
    needed = () if whole.messages_column else ("prompt_column", "completion_column")
    for field in needed:
        if getattr(whole, field) is None:
            what = f"{shown} has no column with a name that says it is the {WHAT[field]}."
            raise BadInput(what, f"Name it with {flag(field)}. It has: {column_names(columns)}.")
    if whole.desirable is None and whole.label_column is None and whole.score_column is None:
        step = "Give rules (--desirable, --undesirable), --label-column or --score-column."
        raise BadInput(f"Nothing says which rows of {shown} are desirable.", f"{step} It has: {column_names(columns)}.")
    return whole


def notes(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """What was taken by its name, one line; as `Source.check`.

    Raises:
        BadInput: see `settled`.
    """
    whole = settled(columns, raw_file, config)
    taken = [field for field in WHAT if getattr(whole, field) != getattr(config, field)]
    spelled = [f"{WHAT[field]} from {getattr(whole, field)}" for field in taken]
    return [f"Columns taken by their names: {', '.join(spelled)}."] if spelled else []
