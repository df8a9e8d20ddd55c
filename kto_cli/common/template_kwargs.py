"""Arguments of a chat template besides the messages, such as enable_thinking: read from a flag, checked, spelled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kto_cli.common.errors import BadFlag
from kto_cli.common.read import parse_json

FLAG = "--chat-template-kwargs"
EXAMPLE = "'{\"enable_thinking\": false}'"
GIVEN_ANYWAY = frozenset(
    (
        # what a rendering is given
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("additional_special_tokens", "strftime_now", "raise_exception"),
        # parameters of transformers' apply_chat_template
        *(
            "conversation",
            "conversations",
            "chat_template",
            "tokenize",
            "padding",
            "truncation",
            "max_length",
            "return_tensors",
        ),
        *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens"),
    )
)
"""Names that are no arguments of a template's own."""


def read_template_kwargs(text: str) -> dict[str, Any]:
    """The arguments of the flag's JSON text.

    Raises:
        BadFlag: it is not a JSON object.
    """
    try:
        found = parse_json(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadFlag(f"{FLAG} {text[:80]} is not a JSON object.", f"Write it as {EXAMPLE}.")
    return found


def check_template_kwargs(found: object) -> None:
    """Checks arguments, from a flag, a config file or Python.

    Raises:
        BadFlag: they are no mapping of names to JSON values, or a name is one that every template is given.
    """
    if not isinstance(found, Mapping):
        raise BadFlag(f"{FLAG} are {str(found)[:80]!r}.", "They must be a mapping, such as {enable_thinking: false}.")
    for name, value in found.items():
        if name in GIVEN_ANYWAY:
            raise BadFlag(f"{FLAG} cannot set {name}: kto gives it to every chat template.", "Leave it out.")
        if not isinstance(name, str) or not name.isidentifier():
            raise BadFlag(f"{FLAG} has the name {name!r}.", "It must be one that a chat template can read.")
        try:
            same = parse_json(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise BadFlag(f"{FLAG}: {name} is {str(value)[:80]}.", "It must be a value that JSON can hold.")


def spelled_kwargs(kwargs: Mapping[str, Any]) -> str:
    """The arguments as JSON, the same text whatever their order."""
    return json.dumps(kwargs, sort_keys=True, ensure_ascii=False)
