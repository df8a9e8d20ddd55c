"""Columns of a log: named by options, otherwise found by well-known names (`formats/column_names.py`), with a note.

A column is found by its name only if the file has no other name of the same kind; a label only if there are no rules,
label column or score column. `instruction` and `input` together are one prompt; `--prompt-column a+b` joins others.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.binarize_config import flag as option_of
from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.cell_text import holds_chat
from kto_cli.data.formats.chats import RATED_COLUMNS
from kto_cli.data.formats.column_names import ALPACA, SHOWN, known, look_like_data, plain
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.source import RawFile
from kto_cli.data.formats.tool_calls import tools_json
from kto_cli.data.log.cell_path import starts_of_parts
from kto_cli.data.log.check_labels import check_meaning, empty_paths, sample
from kto_cli.data.log.rule_lexer import ITEM_SYNTAX
from kto_cli.data.log.rules import Rule, compile_rule

ELSE = "else"
"""One of the two rules may be this word: all rows for which the other rule is false."""
CONTENT = {
    "system_column": "system message",
    "tools_column": "tools",
    "prompt_column": "prompt",
    "completion_column": "answer",
    "other_column": "other answer",
    "messages_column": "whole chat",
    "label_column": "label",
    "score_column": "score",
    "conversation_column": "conversation",
}


def column_names(columns: Sequence[str]) -> str:
    """Column names for a message, at most SHOWN."""
    shown = [printable(column) for column in columns[:SHOWN]]
    return (", ".join(shown) or "none") + (f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else "")


def it_has(columns: Sequence[str]) -> str:
    """Sentence that lists the columns, with a hint if they look like a row of data."""
    hint = " If that is a row of data, the file has no header: add one as its first line."
    return f"It has: {column_names(columns)}.{hint if look_like_data(columns) else ''}"


@lru_cache(maxsize=8)
def rules_of(config: BinarizeConfig) -> tuple[Rule | None, Rule | None]:
    """(--desirable, --undesirable), compiled; None for `else` and for no rule.

    Raises:
        BadInput: a rule cannot be parsed.
    """
    good, bad = (None if is_else(text) else text for text in (config.desirable, config.undesirable))
    return (
        None if good is None else compile_rule(good, "--desirable", bad or ""),
        None if bad is None else compile_rule(bad, "--undesirable", good or ""),
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
        if config.purpose == "sft" and lacking == "undesirable" and not is_else(config.desirable):
            continue
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
            what = f"--messages-column has the whole chat, and {option_of(field)} is given too."
            raise BadInput(what, "Leave one out.")
    if config.other_column is not None and (config.completion_column is None or config.desirable is None):
        step = "Give --completion-column and two rules: --desirable for where its answer is the better of the two."
        raise BadInput("--other-column needs to know which of two answers is the better.", step)
    for field in ("system_column", "tools_column"):
        if config.text and getattr(config, field) is not None:
            what = f"--text keeps plain text, which has no {CONTENT[field]}."
            raise BadInput(what, f"Remove --text or {option_of(field)}.")
    rules_of(config)


def base_of(name: str, columns: Sequence[str]) -> str | None:
    """Column that a name stands for: itself, or the one before a dot or bracket."""
    ends = [len(name), *reversed(starts_of_parts(name))]
    return next((name[:end] for end in ends if name[:end] in columns), None)


def parts_of_prompt(name: str, columns: Sequence[str]) -> list[str]:
    """Columns that are joined into the prompt: those of `a+b`, unless a column has that very name."""
    parts = [name] if name in columns else [part.strip() for part in name.split("+")]
    return parts if all(parts) else [name]


def columns_in(config: BinarizeConfig, columns: Sequence[str]) -> list[tuple[str, str]]:
    """(option, column) of every column that the options name."""
    named = []
    for field in CONTENT:
        if (name := getattr(config, field)) is not None:
            parts = parts_of_prompt(name, columns) if field == "prompt_column" else [name]
            named += [(option_of(field), part) for part in parts]
    for option, rule in zip(("--desirable", "--undesirable"), rules_of(config), strict=True):
        named += [(option, column) for column in rule.columns] if rule else []
    return [*named, *config.beside]


def check_known(columns: Sequence[str], shown: str, config: BinarizeConfig) -> None:
    """Rejects a column name that the file `shown` does not have.

    Raises:
        BadInput: with the nearest name and all columns.
    """
    folded = {column.casefold(): column for column in columns}
    for option, name in columns_in(config, columns):
        if base_of(name, columns) is None:
            if name.partition("[")[0] in columns:
                raise BadInput(
                    f"{column_names([name])!r} ({option}) is no path into a column.", f"{ITEM_SYNTAX.capitalize()}."
                )
            near = [folded[name.casefold()]] if name.casefold() in folded else get_close_matches(name, columns, n=1)
            hint = f"; did you mean {column_names(near)!r}?" if near else "."
            raise BadInput(f"{shown} has no column {column_names([name])!r} ({option}){hint}", it_has(columns))


def column_of(field: str, columns: Sequence[str], shown: str, config: BinarizeConfig) -> str | None:
    """Column of a field: named by its option, otherwise the only column with a well-known name, otherwise None.

    Raises:
        BadInput: several columns have a well-known name.
    """
    named: str | None = getattr(config, field)
    if named is not None:
        return named
    found = known(field, columns)
    if field == "prompt_column" and [plain(name) for name in found] == ALPACA:
        return "+".join(found)
    if len(found) > 1:
        what = f"{shown} has several columns that may be the {CONTENT[field]}: {', '.join(found)}."
        joined = f", or join them: {option_of(field)} {shlex.quote('+'.join(found))}"
        step = f"Name one with {option_of(field)}{joined if field == 'prompt_column' else ''}."
        raise BadInput(what, step)
    return found[0] if found else None


@lru_cache(maxsize=256)
def with_known_columns(columns: tuple[str, ...], shown: str, config: BinarizeConfig) -> BinarizeConfig:
    """Configuration with the columns found by their names; others stay None.

    Raises:
        BadInput: several columns have a well-known name.
    """
    fields: dict[str, str | None] = {"conversation_column": column_of("conversation_column", columns, shown, config)}
    if not config.text:
        fields["system_column"] = column_of("system_column", columns, shown, config)
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
        BadInput: options exclude each other, or a column is missing, ambiguous or not what it seems.
    """
    shown = printable(str(raw_file.path))
    check_options(config)
    check_known(columns, shown, config)
    resolved = with_known_columns(tuple(columns), shown, config)
    if not config.text and config.tools_column is None:
        resolved = replace(resolved, tools_column=tools_column(columns, raw_file))
    needed = () if resolved.messages_column else ("prompt_column", "completion_column")
    for field in needed:
        if field == "prompt_column" and resolved.prompt_column is None and holds_whole_chats(raw_file, resolved):
            continue
        if getattr(resolved, field) is None:
            what = f"{shown} has no column with a name that says it is the {CONTENT[field]}."
            raise BadInput(what, f"Name it with {option_of(field)}. {it_has(columns)}")
    if resolved.desirable is None and resolved.label_column is None and resolved.score_column is None:
        step = "Give rules (--desirable, --undesirable), --label-column or --score-column."
        raise BadInput(f"Nothing says which rows of {shown} are desirable.", f"{step} {it_has(columns)}")
    check_meaning(columns, raw_file, resolved)
    return resolved


def tools_column(columns: Sequence[str], raw_file: RawFile) -> str | None:
    """Column with a well-known name whose cells are lists of tools."""
    for name in known("tools_column", columns):
        try:
            found = [tools_json(cell, name) for cell in sample(name, raw_file)]
        except RowFault:
            continue
        if any(found):
            return name
    return None


def holds_whole_chats(raw_file: RawFile, config: BinarizeConfig) -> bool:
    """Whether the two answers are whole chats, which have the prompt in them."""
    if config.other_column is None or config.completion_column is None:
        return False
    cells = sample(config.completion_column, raw_file)
    return bool(cells) and all(isinstance(cell, (list, tuple)) or holds_chat(cell) for cell in cells)


def notes(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Notes on the columns found by their names, and on those that are not read.

    Raises:
        BadInput: see `resolve_columns`.
    """
    resolved = resolve_columns(columns, raw_file, config)
    found = [field for field in CONTENT if getattr(resolved, field) != getattr(config, field)]
    names = [f"{CONTENT[field]} from {getattr(resolved, field)}" for field in found]
    taken = [f"Columns taken by their names: {', '.join(names)}."] if names else []
    if resolved.prompt_column and len(parts := parts_of_prompt(resolved.prompt_column, columns)) > 1:
        taken.append(f"The prompt is {' and '.join(parts)}, joined by a blank line where both have text.")
    read = {base_of(name, columns) for _, name in columns_in(resolved, columns)}
    if resolved.messages_column:
        read |= {*RATED_COLUMNS, *(("index", "value") if {"index", "value"} <= set(columns) else ())}
    ignored = [column for column in columns if column not in read]
    taken += empty_paths([name for _, name in columns_in(resolved, columns) if name not in columns], raw_file)
    return [*taken, *([f"Columns ignored: {column_names(ignored)}."] if ignored else [])]
