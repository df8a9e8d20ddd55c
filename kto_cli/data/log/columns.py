"""Columns of a log: named by options, otherwise found by well-known names, with a note.

    prompt        prompt, question, query, instruction, input, request, user_query, user_message, user_input
    answer        completion, answer, response, output, reply, model_response, model_output, assistant_message
    whole chat    messages, conversation, chat
    label         label, desirable, feedback, thumbs, thumbs_up, liked
    conversation  conversation_id

A column is found by its name only if the file has no other name of the same line; a label only if there are no rules,
label column or score column. A score is never found by its name: its threshold is a decision.
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
"""One of the two rules may be this word: all rows for which the other rule is false."""

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
CONTENT = {
    "prompt_column": "prompt",
    "completion_column": "answer",
    "other_column": "other answer",
    "messages_column": "whole chat",
    "label_column": "label",
    "score_column": "score",
    "conversation_column": "conversation",
}


def option_of(field: str) -> str:
    """Option of a field of the configuration."""
    return "--" + field.replace("_", "-")


def column_names(columns: Sequence[str]) -> str:
    """Column names for a message, at most twenty."""
    shown = [printable(column) if column.isprintable() else ascii(column) for column in columns[:20]]
    return (", ".join(shown) or "none") + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


@lru_cache(maxsize=8)
def rules_of(config: BinarizeConfig) -> tuple[Rule | None, Rule | None]:
    """(--desirable, --undesirable), compiled; None for `else` and for no rule.

    Raises:
        BadInput: a rule cannot be parsed.
    """
    given = (("--desirable", config.desirable), ("--undesirable", config.undesirable))
    return tuple(  # type: ignore[return-value]
        None if text is None or is_else(text) else compile_rule(text, option) for option, text in given
    )


def is_else(text: str | None) -> bool:
    """Whether a rule is `else`."""
    return text is not None and text.strip().lower() == ELSE


def check_options(config: BinarizeConfig) -> None:
    """Rejects options that exclude each other, and rules that cannot be parsed.

    Raises:
        BadInput: with the options.
    """
    for given, lacking in (("desirable", "undesirable"), ("undesirable", "desirable")):
        if getattr(config, given) is not None and getattr(config, lacking) is None:
            step = (
                f"Give {option_of(lacking)} RULE, or {option_of(lacking)} else for all rows that the rule is false of."
            )
            raise BadInput(f"{option_of(given)} says nothing of the other rows.", step)
    if is_else(config.desirable) and is_else(config.undesirable):
        raise BadInput("--desirable and --undesirable are both else.", "Give a rule for one of them.")
    fields = ("desirable", "label_column", "score_column")
    if len(given_signals := [field for field in fields if getattr(config, field) is not None]) > 1:
        raise BadInput(
            f"{' and '.join(map(option_of, given_signals))} both say what is desirable.", "Give one of them."
        )
    for field in ("prompt_column", "completion_column", "other_column"):
        if config.messages_column is not None and getattr(config, field) is not None:
            raise BadInput(
                f"--messages-column has the whole chat, and {option_of(field)} is given too.", "Leave one out."
            )
    if config.other_column is not None and (config.completion_column is None or config.desirable is None):
        step = "Give --completion-column and two rules: --desirable for where its answer is the better of the two."
        raise BadInput("--other-column needs to know which of two answers is the better.", step)
    rules_of(config)


def check_known(columns: Sequence[str], shown: str, config: BinarizeConfig) -> None:
    """Rejects a column name that the file `shown` does not have.

    Raises:
        BadInput: with the nearest name and all columns.
    """
    named = [(option_of(field), getattr(config, field)) for field in CONTENT if getattr(config, field) is not None]
    for option, rule in zip(("--desirable", "--undesirable"), rules_of(config), strict=True):
        named += [(option, column) for column in rule.columns] if rule else []
    folded = {column.casefold(): column for column in columns}
    for option, name in named:
        ends = [index for index, character in enumerate(name) if character == "."]
        if name in columns or any(name[:end] in columns for end in ends):
            continue
        near = [folded[name.casefold()]] if name.casefold() in folded else get_close_matches(name, columns, n=1)
        hint = f"; did you mean {column_names(near)!r}?" if near else "."
        raise BadInput(
            f"{shown} has no column {column_names([name])!r} ({option}){hint}", f"It has: {column_names(columns)}."
        )


def column_of(field: str, columns: Sequence[str], shown: str, config: BinarizeConfig) -> str | None:
    """Column of a field: named by its option, otherwise the only column with a well-known name, otherwise None.

    Raises:
        BadInput: several columns have a well-known name.
    """
    named: str | None = getattr(config, field)
    if named is not None:
        return named
    found = [name for name in KNOWN[field] if name in columns]
    if len(found) > 1:
        what = f"{shown} has several columns that may be the {CONTENT[field]}: {', '.join(found)}."
        raise BadInput(what, f"Name one with {option_of(field)}.")
    return found[0] if found else None


@lru_cache(maxsize=256)
def with_known_columns(columns: tuple[str, ...], shown: str, config: BinarizeConfig) -> BinarizeConfig:
    """Configuration with the columns found by their names; others stay None.

    Raises:
        BadInput: several columns have a well-known name.
    """
    fields: dict[str, str | None] = {"conversation_column": column_of("conversation_column", columns, shown, config)}
    if config.desirable is None and config.score_column is None:
        fields["label_column"] = column_of("label_column", columns, shown, config)
    if config.messages_column is None:
        prompt = column_of("prompt_column", columns, shown, config)
        completion = column_of("completion_column", columns, shown, config)
        open_to_chat = config.prompt_column is None and config.completion_column is None
        chat = column_of("messages_column", columns, shown, config) if open_to_chat else None
        if chat and prompt and completion:
            what = f"{shown} has a whole chat ({chat}) and also a prompt and an answer ({prompt}, {completion})."
            raise BadInput(what, "Name what to read: --messages-column, or --prompt-column and --completion-column.")
        texts = {"messages_column": chat} if chat else {"prompt_column": prompt, "completion_column": completion}
        fields.update(texts)
    return replace(config, **fields)  # type: ignore[arg-type]


def resolve_columns(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> BinarizeConfig:
    """Configuration for one file, with the names of all columns it needs.

    Raises:
        BadInput: options exclude each other, or a column is missing or ambiguous.
    """
    shown = printable(str(raw_file.path))
    check_options(config)
    check_known(columns, shown, config)
    resolved = with_known_columns(tuple(columns), shown, config)
    needed = () if resolved.messages_column else ("prompt_column", "completion_column")
    for field in needed:
        if getattr(resolved, field) is None:
            what = f"{shown} has no column with a name that says it is the {CONTENT[field]}."
            raise BadInput(what, f"Name it with {option_of(field)}. It has: {column_names(columns)}.")
    if resolved.desirable is None and resolved.label_column is None and resolved.score_column is None:
        step = "Give rules (--desirable, --undesirable), --label-column or --score-column."
        raise BadInput(f"Nothing says which rows of {shown} are desirable.", f"{step} It has: {column_names(columns)}.")
    return resolved


def notes(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Note on the columns found by their names.

    Raises:
        BadInput: see `resolve_columns`.
    """
    resolved = resolve_columns(columns, raw_file, config)
    found = [field for field in CONTENT if getattr(resolved, field) != getattr(config, field)]
    names = [f"{CONTENT[field]} from {getattr(resolved, field)}" for field in found]
    return [f"Columns taken by their names: {', '.join(names)}."] if names else []
