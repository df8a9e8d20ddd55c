"""Tasks of Label Studio, exported as JSON: texts in `data`, people's choices in `annotations`.

    {"data": {"prompt": ..., "response": ...},
     "annotations": [{"result": [{"from_name": "thumb", "value": {"choices": ["Good"]}}]}]}

Each control (`from_name`) is a column: its choice, its rating, or its number
(https://labelstud.io/guide/export). JSON-MIN is flat; read it as a log.
"""

from __future__ import annotations

from typing import Any

from kto_cli.data.formats.records import RowFault
from kto_cli.data.products import rating_columns
from kto_cli.data.products.rating_columns import Parts
from kto_cli.data.products.traced_calls import opened


def parts(values: dict[str, Any]) -> Parts:
    """A task and what its annotators chose; cancelled annotations do not count."""
    data = values.get("data")
    if not isinstance(data, dict):
        raise RowFault("missing_field", "no data")
    given: dict[str, list[Any]] = {}
    annotations = values.get("annotations")
    for annotation in annotations if isinstance(annotations, list) else ():
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or ():
            if isinstance(result, dict) and isinstance(name := result.get("from_name"), str):
                given.setdefault(name, []).append(value_of(result.get("value"), name))
    return Parts({str(name): opened(value) for name, value in data.items()}, given)


def value_of(value: Any, name: str) -> Any:
    """The choice, rating, number or text of one control.

    Raises:
        RowFault: `label_not_accepted` for several choices at once.
    """
    if not isinstance(value, dict):
        return value
    if isinstance(choices := value.get("choices"), list):
        if len(choices) > 1:
            raise RowFault("label_not_accepted", f"{name} has {len(choices)} choices at once")
        return choices[0] if choices else None
    return next((value[kind] for kind in ("rating", "number", "text") if kind in value), None)


SOURCE = rating_columns.source(
    "label-studio",
    parts,
    needed=("data", "annotations"),
    step="Export as JSON; a JSON-MIN file is read as a log: kto binarize log:FILE",
    about="tasks of Label Studio with what people chose",
    patterns=("*.json", "*.json.gz", "*.jsonl*"),
    example=(
        '{"data": {"prompt": "Any tea?", "response": "Green and black."}, "annotations": [{"result": [{"from_name": '
        '"good", "type": "choices", "value": {"choices": ["true"]}}]}]}',
        '{"data": {"prompt": "Where do I park?", "response": "Outside."}, "annotations": [{"result": [{"from_name": '
        '"good", "type": "choices", "value": {"choices": ["false"]}}]}]}',
    ),
)
