"""Traces of MLflow with their assessments, as `mlflow.search_traces` returns them, saved as JSON lines or Parquet.

    {"request": {...} | text, "response": {...} | text,
     "assessments": [{"assessment_name" | "name", "feedback": {"value": ...}}]}

Each assessment's name is a rating; where people gave it, judges and code do not count
(https://mlflow.org/docs/latest/genai/assessments/feedback). Traces of a conversation share
the tag or metadata `mlflow.trace.session`.
"""

from __future__ import annotations

from typing import Any

from kto_cli.data.products import rating_columns
from kto_cli.data.products.rating_columns import UNRATED, Parts
from kto_cli.data.products.remarks import comments
from kto_cli.data.products.traced_calls import answer_in, opened, prompt_in, tools_in

SESSION = "mlflow.trace.session"


def parts(values: dict[str, Any]) -> Parts:
    """A trace and its feedback; expectations and assessments that were replaced do not count."""
    given: dict[str, list[tuple[bool, Any]]] = {}
    said: list[tuple[str, Any]] = []
    assessments = opened(values.get("assessments"))
    for each in assessments if isinstance(assessments, list) else ():
        feedback = each.get("feedback") if isinstance(each, dict) and each.get("valid", True) is not False else None
        if isinstance(feedback, dict):
            name = str(each.get("assessment_name") or each.get("name") or "feedback")
            source = opened(each.get("source"))
            kind = source.get("source_type") if isinstance(source, dict) else None
            by_person = str(kind or "HUMAN").upper() == "HUMAN"
            given.setdefault(name, []).append((by_person, opened(feedback.get("value"))))
            said.append((name, each.get("rationale")))
    if not given:
        return UNRATED
    texts = {
        "prompt": prompt_in(values.get("request"), "request"),
        "completion": answer_in(values.get("response"), "response"),
        **tools_in(values.get("request")),
    }
    for holder in ("trace_metadata", "request_metadata", "tags"):
        found = opened(values.get(holder))
        if isinstance(found, dict) and found.get(SESSION):
            texts["conversation_id"] = found[SESSION]
    return Parts(texts, {name: rating_columns.of_people(found) for name, found in given.items()}, comments(said))


SOURCE = rating_columns.source(
    "mlflow",
    parts,
    needed=("request", "response", "assessments"),
    step="Save mlflow.search_traces(...) with to_json(PATH, orient='records', lines=True).",
    about="traces of MLflow with their assessments",
    patterns=("*.jsonl*", "*.json", "*.parquet"),
    example=(
        '{"request": {"messages": [{"role": "user", "content": "Any tea?"}]}, "response": "Green and black.", '
        '"assessments": [{"assessment_name": "thumb", "feedback": {"value": true}}]}',
        '{"request": {"question": "Where do I park?"}, "response": "Outside.", "assessments": [{"assessment_name": '
        '"thumb", "feedback": {"value": false}}]}',
    ),
)
