"""OpenAI's file of preferences for fine-tuning, which Together, Fireworks and Azure take as well: pairs of answers.

    {"input": {"messages": [...], "tools"?, ...}, "preferred_output": [message], "non_preferred_output": [message]}

https://platform.openai.com/docs/guides/direct-preference-optimization. Rejected: tools_not_accepted, and the reasons of
formats/rows.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.fields import need_columns, needed, pair
from kto_cli.data.formats.messages import offered_tools
from kto_cli.data.formats.records import Result, RowFault
from kto_cli.data.formats.rows import answer_of, offering, prompt_of
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.products.traced_calls import opened
from kto_cli.data.readers.jsonl import Record

INPUT, BETTER, WORSE = "input", "preferred_output", "non_preferred_output"


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file without preferences; has no notes.

    Raises:
        BadInput: columns are missing.
    """
    step = "Give lines of input, preferred_output and non_preferred_output."
    need_columns(raw_file.name, columns, (INPUT, BETTER, WORSE), "openai-preference", step)
    return []


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """The pair of one line."""
    values = record.values or {}
    given: Any = opened(needed(values, INPUT))
    tools = ""
    if isinstance(given, dict):
        tools = offered_tools(given)
        given = needed(given, "messages")
    elif not isinstance(given, list):
        raise RowFault("not_messages", "input is neither an object with messages nor a list of them")
    prompt = offering(tools, prompt_of(given, as_text=False))
    better, worse = (answer_of(needed(values, name), prompt, name) for name in (BETTER, WORSE))
    return [pair(prompt, better, worse, record.origin, None, raw_file.split)]


SOURCE = Source(
    name="openai-preference",
    about="OpenAI's preference file (also of Together, Fireworks, Azure): pairs of answers",
    gives="pairs",
    read=read,
    rows=2,
    has_texts=False,
    licence="yours",
    patterns=("*.jsonl*",),
    wanted=(INPUT, BETTER, WORSE),
    check=check,
    example=(
        '{"input": {"messages": [{"role": "user", "content": "Any tea?"}]}, "preferred_output": [{"role": "assistant", '
        '"content": "Green and black."}], "non_preferred_output": [{"role": "assistant", "content": "Tea?"}]}',
        '{"input": {"messages": [{"role": "user", "content": "Where do I park?"}]}, "preferred_output": [{"role": '
        '"assistant", "content": "Behind the shop."}], "non_preferred_output": [{"role": "assistant", "content": '
        '"Outside."}]}',
    ),
)
