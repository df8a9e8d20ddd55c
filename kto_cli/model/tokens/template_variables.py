"""Variables that a chat template reads, and given arguments that it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kto_cli.common.errors import BadFlag
from kto_cli.common.template_kwargs import FLAG


def unused_kwargs(tokenizer: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """The names that none of the tokenizer's templates reads; empty if a template cannot be parsed, which rendering
    reports.

    Raises:
        BadFlag: a name is one of the tokenizer's special tokens, which templates are given.
    """
    for name in kwargs:
        if name in tokenizer.special_tokens_map:
            raise BadFlag(f"{FLAG} cannot set {name}: it is a special token of the tokenizer.", "Leave it out.")
    template = tokenizer.chat_template
    sources = list(template.values()) if isinstance(template, dict) else [str(template)]
    try:
        read = set().union(*map(_variables, sources)) if kwargs else set()
    except Exception:  # noqa: BLE001 - a template is a program of the model's
        return []
    return [name for name in kwargs if name not in read]


def _variables(source: str) -> set[str]:
    """Names that a template takes from outside."""
    from jinja2 import meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return meta.find_undeclared_variables(_compile_jinja_template(source).environment.parse(source))
