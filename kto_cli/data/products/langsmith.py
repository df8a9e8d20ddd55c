"""Runs of LangSmith, as its bulk export (Parquet) and its SDK (JSON lines) write them.

    {"inputs": {"messages": [...]}, "outputs": {"choices": [{"message": {...}}]},
     "feedback_stats": {KEY: {"avg": 1.0, "n": 1}}}

Each key of `feedback_stats` is a rating, its value the average of the feedback
(https://docs.langchain.com/langsmith/data-export). Runs of a conversation share `thread_id`, `session_id` or
`conversation_id` in `extra.metadata`.
"""

from __future__ import annotations

from typing import Any

from kto_cli.data.products import rating_columns
from kto_cli.data.products.rating_columns import UNRATED, Parts
from kto_cli.data.products.remarks import comments, field_of
from kto_cli.data.products.traced_calls import answer_in, opened, prompt_in, tools_in

THREADS = ("thread_id", "session_id", "conversation_id")


def parts(values: dict[str, Any]) -> Parts:
    """A run and its feedback."""
    stats = opened(values.get("feedback_stats"))
    ratings = {
        str(key): [found.get("avg") if isinstance(found := opened(stat), dict) else found]
        for key, stat in (stats.items() if isinstance(stats, dict) else ())
    }
    if not ratings:
        return UNRATED
    texts = {"prompt": prompt_in(values.get("inputs")), "completion": answer_in(values.get("outputs"))}
    extra = opened(values.get("extra"))
    texts |= tools_in(values.get("inputs"), opened(extra.get("invocation_params")) if isinstance(extra, dict) else None)
    metadata = opened(extra.get("metadata")) if isinstance(extra, dict) else None
    if isinstance(metadata, dict):
        texts["conversation_id"] = next((metadata[name] for name in THREADS if metadata.get(name)), None)
    said = [(str(key), field_of(opened(stat), "comments")) for key, stat in stats.items()]
    return Parts(texts, ratings, comments(said))


SOURCE = rating_columns.source(
    "langsmith",
    parts,
    needed=("inputs", "outputs", "feedback_stats"),
    step="Export runs with their feedback_stats.",
    about="runs of LangSmith with their feedback",
    patterns=("*.parquet", "*.jsonl*", "*.json"),
    example=(
        '{"inputs": {"messages": [{"role": "user", "content": "Any tea?"}]}, "outputs": {"choices": [{"message": '
        '{"role": "assistant", "content": "Green and black."}}]}, "feedback_stats": {"thumb": {"n": 1, "avg": 1.0}}}',
        '{"inputs": {"question": "Where do I park?"}, "outputs": {"output": "Outside."}, "feedback_stats": {"thumb": '
        '{"n": 1, "avg": 0.0}}}',
    ),
)
