"""Logs of a product: rows of CSV, JSONL, JSON or Parquet, with columns named by options.

    --prompt-column and --completion-column, or --messages-column     see columns.py for columns found by name
    --system-column                                                   a system message before the prompt
    --desirable RULE --undesirable RULE                               see rules.py for the language
    or --label-column, or --score-column with --threshold
    --conversation-column                                             rows of one conversation stay in one split

Messages are a list of {role, content} or its JSON; the last message is the answer. A rule may be `else`: all rows for
which the other rule is false. With --other-column a row has two answers, and the rules decide whether that of
--completion-column is the better one.

Dropped     no_label, no_score     an empty cell
            matches_neither        both rules are false or unknown
Rejected    matches_both           both rules are true
            rule_not_applicable    a cell that cannot be compared: `stars <= 2` for "n/a"
            label_not_accepted     not true, false or a number
            score_not_a_number     such as "4,5", or infinite
            two_system_messages    the chat has another system message than the system column
            columns_unclear        a JSON object with several columns that may be the prompt, the answer or the label
            answer_cut             an answer of Dify's export that ends in "...", which writes 500 characters of each
            and those of rows.py for texts
"""

from __future__ import annotations

from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.cell_text import turns_of
from kto_cli.data.formats.labels import is_blank, is_missing
from kto_cli.data.formats.records import (
    Dropped,
    Output,
    Pair,
    Result,
    RowFault,
    Scored,
    Text,
    check_text,
    root,
)
from kto_cli.data.formats.rows import answer_of, chat_and_answer, offering, prompt_of, shared_prompt, with_system
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.formats.tool_calls import tools_json
from kto_cli.data.log.cell_path import NotApplicable, cell_of
from kto_cli.data.log.columns import notes, parts_of_prompt, resolve_columns, with_known_columns
from kto_cli.data.log.labels import NoFeedback, Values, label_or_score
from kto_cli.data.readers.jsonl import Record

DIFY_ANSWER, DIFY_RATING, DIFY_LENGTH = "ai_response", "feedback_rating_raw", 500
"""Columns of Dify's export of feedback, and how many characters of an answer it writes before three points."""


def rows(record: Record, raw_file: RawFile, config: BinarizeConfig) -> int:
    """Two for a log with two answers per row, else one."""
    return 1 if config.other_column is None else 2


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Feedback of one record, or the reason to drop it; RowFault if it is faulty."""
    try:
        return [row(record.values or {}, record.origin, raw_file, config)]
    except NoFeedback as nothing:
        return [Dropped(record.origin, nothing.reason, nothing.detail, rows(record, raw_file, config))]


def row(values: Values, origin: str, raw_file: RawFile, given: BinarizeConfig) -> Result:
    """Feedback of one row.

    Raises:
        NoFeedback: no label or score.
        RowFault: a faulty cell.
    """
    try:
        config = with_known_columns(tuple(values), "the row", given)
    except BadInput as error:
        raise RowFault("columns_unclear", error.what) from error
    label = label_or_score(values, config)
    prompt, [completion, *others] = texts(values, config)
    if config.completion_column == DIFY_ANSWER and DIFY_RATING in values:
        refuse_cut(values[DIFY_ANSWER])
    group = conversation(values, config) or root(prompt)
    for other in others:
        if other == completion:
            what = f"{config.completion_column} and {config.other_column} are the same; one text would be in both"
            raise RowFault("answers_identical", f"{what} classes")
        better, worse = (completion, other) if label is True else (other, completion)
        return Pair(prompt, better, worse, origin, group, raw_file.split)
    if isinstance(label, bool):
        return Output(prompt, completion, label, origin, group, raw_file.split)
    by_label = config.score_column is None
    return Scored(prompt, completion, label, origin, group, raw_file.split, by_label)


def text_cell(values: Values, name: str | None) -> Any:
    """Cell with a text or messages; None if it is missing (NaN included: null in a table of numbers)."""
    if name is None:
        return None
    cell = cell_of(values, name)
    if isinstance(cell, NotApplicable):
        raise RowFault("missing_field", cell.detail)
    return None if cell != cell else cell


def texts(values: Values, config: BinarizeConfig) -> tuple[Text, list[Text]]:
    """Prompt and answers: one, or two with --other-column."""
    system, tools = system_message(values, config), tools_json(text_cell(values, config.tools_column), "tools")
    if config.messages_column is None:
        names = [name for name in (config.completion_column, config.other_column) if name is not None]
        given, answers = turns_of(prompt_cell(values, config), [text_cell(values, name) for name in names])
        if given is None and config.prompt_column is None and config.other_column is not None:
            given = shared_prompt(answers[0], answers[1], names)
        prompt = offering(tools, with_system(prompt_of(given, config.text), system))
        return prompt, [answer_of(answer, prompt, name) for name, answer in zip(names, answers, strict=True)]
    cell = text_cell(values, config.messages_column)
    if is_blank(cell):
        raise RowFault("missing_field", f"no {config.messages_column}")
    prompt, completion = chat_and_answer(cell, config.messages_column, values, config.text)
    return offering(tools, with_system(prompt, system)), [completion]


def prompt_cell(values: Values, config: BinarizeConfig) -> Any:
    """Prompt as it stands in its column; of several columns, their texts, each followed by a blank line."""
    parts = parts_of_prompt(config.prompt_column or "prompt", [*values])
    if len(parts) == 1:
        return text_cell(values, parts[0])
    found = [(name, cell) for name in parts if not is_blank(cell := text_cell(values, name))]
    return "\n\n".join(check_text(cell, name) for name, cell in found) or None


def refuse_cut(answer: Any) -> None:
    """Rejects an answer that Dify's export has cut off."""
    if isinstance(answer, str) and answer.endswith("...") and len(answer) > DIFY_LENGTH:
        what = f"{DIFY_ANSWER} ends in '...': Dify exports {DIFY_LENGTH} characters of an answer"
        raise RowFault("answer_cut", f"{what}; take whole answers from its database or its API of messages")


def system_message(values: Values, config: BinarizeConfig) -> str | None:
    """System message of the row, if its column has one."""
    cell = text_cell(values, config.system_column)
    return None if is_blank(cell) else check_text(cell, config.system_column or "")


def conversation(values: Values, config: BinarizeConfig) -> str | None:
    """Name of the row's conversation, if it has one."""
    if config.conversation_column is None:
        return None
    cell = cell_of(values, config.conversation_column)
    if is_missing(cell) or isinstance(cell, NotApplicable):
        return None
    if isinstance(cell, float) and cell.is_integer():
        # many tables store a column of integers with missing values as floats
        cell = int(cell)
    return check_text(f"conversation {cell}", config.conversation_column)


SOURCE = Source(
    name="log",
    about="a product's own feedback: any CSV, JSONL or Parquet, its columns named by options",
    gives="labels or scores, by rules or columns; pairs with --other-column",
    read=read,
    rows=rows,
    licence="yours",
    patterns=("*.csv*", "*.tsv*", "*.xls[xm]", "*.jsonl*", "*.ndjson*", "*.json*", "*.parquet"),
    options=(
        "--prompt-column",
        "--completion-column",
        "--other-column",
        "--messages-column",
        "--system-column",
        "--tools-column",
        "--desirable",
        "--undesirable",
        "--label-column",
        "--score-column",
        "--conversation-column",
        "--threshold",
        "--margin",
        "--text",
    ),
    check=notes,
    resolve_options=resolve_columns,
    example=(
        "question,answer,resolved,stars",
        "How do I reset my password?,Open Settings and choose Reset.,true,5",
        "Where is my parcel?,I do not know.,false,1",
    ),
)
