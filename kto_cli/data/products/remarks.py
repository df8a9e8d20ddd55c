"""What raters wrote beside their ratings: a reason, a comment, tags; as JSON, for remarks.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from kto_cli.data.formats.labels import is_blank
from kto_cli.data.formats.records import Output, Result, Scored


def remark(**given: Any) -> str | None:
    """JSON of the given fields that say something; None if none does."""
    said = {name: value for name, value in given.items() if not is_blank(value) and value not in ([], {})}
    return json.dumps(said, default=str) if said else None


def comments(given: Iterable[tuple[str, Any]]) -> str | None:
    """Remark of the comments on each rating: (its name, comment or comments)."""
    found: dict[str, list[Any]] = {}
    for name, value in given:
        for each in value if isinstance(value, list) else [value]:
            if not is_blank(each) and each not in ([], {}):
                found.setdefault(name, []).append(each)
    return remark(comments=found)


def with_remark(result: Result, said: str | None) -> Result:
    """A result with a remark, if it is a row."""
    return replace(result, remark=said) if said and isinstance(result, (Output, Scored)) else result


def field_of(value: Any, name: str) -> Any:
    """A field of an object; None of anything else."""
    return value.get(name) if isinstance(value, Mapping) else None
