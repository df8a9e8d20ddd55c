"""Spans of Arize Phoenix and the annotations on them, two tables that its client gives.

    spans...         context.span_id, attributes.llm.input_messages, attributes.llm.output_messages
                     (or attributes.input.value, attributes.output.value)
    annotations...   span_id, annotation_name | name, annotator_kind, result.label, result.score

The names are those of `get_spans_dataframe` and `get_span_annotations_dataframe`, saved as JSON lines or Parquet; parts
of a name may be nested objects (https://arize.com/docs/phoenix). Each annotation is a rating by its name: its label,
else its score. Where people annotated, models do not count. All annotations are in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kto_cli.data.formats.fields import need_columns
from kto_cli.data.formats.labels import is_blank
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log.cell_path import NotApplicable, cell_of
from kto_cli.data.products import rating_columns
from kto_cli.data.products.files_beside import Beside, files_beside, is_of, rated_files, values_in
from kto_cli.data.products.rating_columns import UNRATED, Parts
from kto_cli.data.products.remarks import comments
from kto_cli.data.products.traced_calls import answer_in, opened, prompt_in, tools_in
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.texts import TOOLS

PATTERNS = ("*.jsonl*", "*.json", "*.json.gz", "*.parquet", "*.csv*", "*.xls[xm]")
ANNOTATIONS = "annotations"
IDS = ("context.span_id", "span_id")


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The file itself, or a folder's files without those of annotations.

    Raises:
        BadInput: nothing is there.
    """
    return rated_files(path, subsets, PATTERNS, "phoenix", lambda below: not is_of(below, ANNOTATIONS))


@lru_cache(maxsize=1)
def annotations_of(files: Beside) -> dict[str, list[dict[str, Any]]]:
    """Annotations by the span they are on, read once.

    Raises:
        BadInput: a file cannot be read.
    """
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for values in values_in(files):
        if span := field(values, *IDS):
            found[str(span)].append(values)
    return found


def field(values: dict[str, Any], *names: str) -> Any:
    """The first of some fields that is there, nested or with dots in its name."""
    cells = (cell_of(values, name) for name in names)
    return next((cell for cell in cells if not is_blank(cell) and not isinstance(cell, NotApplicable)), None)


def records(raw_file: RawFile) -> Iterator[Record]:
    """Spans with their annotations.

    Raises:
        BadInput: a file cannot be read or is no table of spans, or there are no annotations.
    """
    annotations: dict[str, list[dict[str, Any]]] | None = None
    for record in map(any_file.parsed, any_file.records(raw_file.path, raw_file.name, None)):
        if record.values is None or ANNOTATIONS in record.values:  # joined by whoever wrote the file
            yield record
            continue
        if field(record.values, *IDS) is None:
            need_columns(
                raw_file.name, list(record.values), IDS[:1], "phoenix", "Give the table of get_spans_dataframe."
            )
        if annotations is None:
            annotations = annotations_of(files_beside(raw_file.path, "spans", ANNOTATIONS))
        own = annotations.get(str(field(record.values, *IDS)), [])
        yield Record(record.origin, {**record.values, ANNOTATIONS: own}, record.raw)


def parts(values: dict[str, Any]) -> Parts:
    """A span and its annotations."""
    given: dict[str, list[tuple[bool, Any]]] = defaultdict(list)
    said: list[tuple[str, Any]] = []
    annotations = opened(values.get(ANNOTATIONS))
    for each in annotations if isinstance(annotations, list) else ():
        if not isinstance(each, dict):
            continue
        by_person = str(field(each, "annotator_kind") or "HUMAN").upper() == "HUMAN"
        value = field(each, "result.label", "label", "result.score", "score")
        name = str(field(each, "annotation_name", "name") or "annotation")
        given[name].append((by_person, value))
        said.append((name, field(each, "result.explanation", "explanation")))
    if not given:
        return UNRATED
    texts = {
        "prompt": prompt_in(messages(values, "input"), "input"),
        "completion": answer_in(messages(values, "output"), "output"),
        "conversation_id": field(values, "attributes.session.id"),
        **tools_in({TOOLS: tools(values)}, field(values, "attributes.input.value")),
    }
    return Parts(texts, {name: rating_columns.of_people(found) for name, found in given.items()}, comments(said))


def tools(values: dict[str, Any]) -> list[Any] | None:
    """Tools of a span: their JSON schemas."""
    listed = opened(field(values, "attributes.llm.tools"))
    found = [
        schema
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and (schema := field(each, "tool.json_schema", "json_schema")) is not None
    ]
    return found or None


def messages(values: dict[str, Any], side: str) -> Any:
    """Messages of a side (`input`, `output`), else its value; a message's fields may begin with `message.`."""
    found = opened(field(values, f"attributes.llm.{side}_messages"))
    if not isinstance(found, list):
        return field(values, f"attributes.{side}.value")
    unwrapped = [each.get("message", each) if isinstance(each, dict) else each for each in found]
    chat = [
        {name.removeprefix("message."): value for name, value in each.items()} if isinstance(each, dict) else each
        for each in unwrapped
    ]
    return chat[0] if side == "output" and len(chat) == 1 else chat


SOURCE = rating_columns.source(
    "phoenix",
    parts,
    needed=(),
    step="",
    records=records,
    about="spans of Arize Phoenix with the annotations on them",
    patterns=PATTERNS,
    raw_files=raw_files,
    example=(
        '{"context.span_id": "s1", "attributes.input.value": "Any tea?", "attributes.output.value": "Green.", '
        '"annotations": [{"name": "thumb", "result": {"score": 1}}]}',
        '{"context.span_id": "s2", "attributes.input.value": "Open?", "attributes.output.value": "Who knows.", '
        '"annotations": [{"name": "thumb", "result": {"score": 0}}]}',
    ),
)
