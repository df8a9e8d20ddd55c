"""Records of Argilla 2, as `dataset.records.to_json` writes them.

    {"fields": {"prompt": ..., "response": ...}, "responses": {QUESTION: [{"value": ..., "user_id": ...}]}}

Fields are columns, and so is each question with the value that its raters gave
(https://docs.argilla.io/latest/how_to_guides/import_export).
"""

from __future__ import annotations

from typing import Any

from kto_cli.data.formats.records import RowFault
from kto_cli.data.products import rating_columns
from kto_cli.data.products.rating_columns import Parts
from kto_cli.data.products.traced_calls import opened


def parts(values: dict[str, Any]) -> Parts:
    """A record and the responses to its questions; drafts and discarded ones do not count."""
    fields, responses = opened(values.get("fields")), opened(values.get("responses"))
    if not isinstance(fields, dict):
        raise RowFault("missing_field", "no fields")
    ratings = {}
    for question, given in responses.items() if isinstance(responses, dict) else ():
        several = [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, dict)]
        counted = [each.get("value") for each in several if each.get("status", "submitted") == "submitted"]
        ratings[str(question)] = counted
    return Parts({str(name): opened(value) for name, value in fields.items()}, ratings)


SOURCE = rating_columns.source(
    "argilla",
    parts,
    needed=("fields", "responses"),
    step="Export the records: dataset.records.to_json(PATH).",
    about="records of Argilla with the responses of people",
    patterns=("*.json", "*.json.gz", "*.jsonl*"),
    example=(
        '{"fields": {"prompt": "Any tea?", "response": "Green and black."}, "responses": {"good": [{"value": true, '
        '"user_id": "u"}]}}',
        '{"fields": {"prompt": "Where do I park?", "response": "Outside."}, "responses": {"good": [{"value": false, '
        '"user_id": "u"}]}}',
    ),
)
