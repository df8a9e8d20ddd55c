"""Flags of commands that read a product's own log."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

_log = partial(typer.Option, rich_help_panel="Your own log")


class LogFlags:
    """Columns of a log, and the rules that turn them into labels."""

    desirable: Annotated[
        str | None, _log(metavar="RULE", help="Rule for desirable rows, such as 'resolved == true' or 'stars >= 4'.")
    ]
    undesirable: Annotated[
        str | None,
        _log(metavar="RULE", help="Rule such as 'stars <= 2', or else: all rows for which the other rule is false."),
    ]
    label_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column with true / false or 1 / 0, instead of rules.")
    ]
    score_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column with numbers, instead of rules; needs --threshold.")
    ]
    prompt_column: Annotated[
        str | None,
        _log(metavar="COLUMN", help="Column with the prompt (several: a+b). Default: found by common names."),
    ]
    completion_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column with the answer. Default: found by common names.")
    ]
    messages_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column with a whole chat, whose last message is the answer.")
    ]
    system_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column with the system message. Default: found by common names.")
    ]
    tools_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column with the tools that a prompt offers. Default: tools.")
    ]
    conversation_column: Annotated[
        str | None, _log(metavar="COLUMN", help="Column whose rows with the same value stay in one split.")
    ]
    other_column: Annotated[
        str | None,
        _log(metavar="COLUMN", help="Column with a second answer; the rules decide whether the first is better."),
    ]
