"""Langfuse: the export to blob storage, whose scores lie in files of their own, and what its pages download.

    observations*/...  {"id", "trace_id", "type": "GENERATION", "session_id", "input", "output"}
    scores*/...        {"trace_id", "observation_id" | null, "name", "value", "string_value", "data_type"}
    a page's file      rows of input, output and scores, as a list or as columns by their names

Each score is a rating by its name: true or false for the data type BOOLEAN, the text for CATEGORICAL, else the number.
A score of a whole trace is one of its only generation. Where people gave a score, evaluators (`source` EVAL) do not
count. Chats in cells are read from their JSON. All scores of a folder are in memory
(https://langfuse.com/docs/api-and-data-platform/features/export-to-blob-storage).

Rejected    rated_message_unclear (a score of a trace with several generations)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.source import RawFile
from kto_cli.data.products import rating_columns
from kto_cli.data.products.files_beside import Beside, files_beside, is_of, rated_files, values_in
from kto_cli.data.products.rating_columns import UNRATED, Parts
from kto_cli.data.products.remarks import comments
from kto_cli.data.products.traced_calls import answer_in, opened, prompt_in, tools_in
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record

PATTERNS = ("*.jsonl*", "*.json", "*.json.gz", "*.parquet", "*.csv*", "*.xls[xm]")
TEXTS = ("input", "output", "scores", "session_id", "sessionId")
SCORES, UNCLEAR = "scores", "unclear"
"""Columns of an observation: its scores; that of a trace which are not said to be of it."""


class Scores(NamedTuple):
    """All scores of a folder."""

    of_observation: dict[str, list[dict[str, Any]]]
    of_trace: dict[str, list[dict[str, Any]]]


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The file itself, or the files of observations of a folder; of a folder without any, all its files.

    Raises:
        BadInput: nothing is there, or both exports of the same observations are.
    """
    found = rated_files(path, subsets, PATTERNS, "langfuse", lambda below: is_of(below, "observations"))
    folders = {file.path.parent.name for file in found}
    if path.is_dir() and folders >= {"observations", "observations_v2"}:
        what = f"{printable(str(path))} has all observations twice, in observations and in observations_v2."
        raise BadInput(what, f"Name one: kto binarize langfuse:{path / 'observations_v2'}")
    return found


@lru_cache(maxsize=1)
def scores_of(files: Beside) -> Scores:
    """All scores of some files, read once.

    Raises:
        BadInput: a file cannot be read.
    """
    found = Scores(defaultdict(list), defaultdict(list))
    for values in values_in(files):
        observation, trace = either(values, "observation_id"), either(values, "trace_id")
        if observation:
            found.of_observation[str(observation)].append(values)
        elif trace:
            found.of_trace[str(trace)].append(values)
    return found


def either(values: dict[str, Any], name: str) -> Any:
    """A field in snake or in camel case."""
    first, *rest = name.split("_")
    return values.get(name, values.get(first + "".join(part.capitalize() for part in rest)))


def records(raw_file: RawFile) -> Iterator[Record]:
    """Rows of a file; observations with their scores.

    Raises:
        BadInput: a file cannot be read, or observations are without scores.
    """
    if not is_of(raw_file.path, "observation"):
        yield from any_file.records(raw_file.path, raw_file.name, None)
        return
    scores = scores_of(files_beside(raw_file.path, "observations", "scores"))
    generations = generations_of(raw_file, scores.of_trace)
    for record in map(any_file.parsed, any_file.records(raw_file.path, raw_file.name, None)):
        if record.values is None:
            yield record
            continue
        own = scores.of_observation.get(str(record.values.get("id")), [])
        trace = str(either(record.values, "trace_id"))
        of_trace = scores.of_trace.get(trace, []) if is_generation(record) else []
        more = {UNCLEAR: len(of_trace)} if of_trace and generations[trace] > 1 else {}
        yield Record(record.origin, {**record.values, SCORES: [*own, *([] if more else of_trace)], **more}, record.raw)


def generations_of(raw_file: RawFile, traces: Collection[str]) -> Counter[str]:
    """How many calls of a model each of some traces has."""
    found: Counter[str] = Counter()
    for record in map(any_file.parsed, any_file.records(raw_file.path, raw_file.name, None)) if traces else ():
        trace = str(either(record.values or {}, "trace_id"))
        if trace in traces and is_generation(record):
            found[trace] += 1
    return found


def is_generation(record: Record) -> bool:
    """Whether an observation is a call of a model; those without a type are."""
    kind = (record.values or {}).get("type") or "GENERATION"
    return str(kind).upper() == "GENERATION"


def parts(values: dict[str, Any]) -> Parts:
    """An observation or trace and its scores."""
    given: dict[str, list[tuple[bool, Any]]] = {}
    said: list[tuple[str, Any]] = []
    listed = opened(values.get(SCORES))
    for score in listed if isinstance(listed, list) else ():
        if isinstance(score, dict) and isinstance(name := score.get("name"), str):
            by_person = str(score.get("source") or "").upper() != "EVAL"
            given.setdefault(name, []).append((by_person, value_of(score)))
            said.append((name, score.get("comment")))
    if isinstance(listed, dict):
        given = {
            str(name): [(True, each) for each in (value if isinstance(value, list) else [value])]
            for name, value in listed.items()
        }
    if not given and values.get(UNCLEAR):
        raise RowFault("rated_message_unclear", "a score is of its whole trace, which has several generations")
    if not given and isinstance(listed, list):
        return UNRATED
    texts = {
        "prompt": prompt_in(values.get("input"), "input"),
        "completion": answer_in(values.get("output"), "output"),
        "conversation_id": either(values, "session_id"),
        **tools_in(values.get("input"), either(values, "model_parameters")),
    }
    others = {name: value for name, value in values.items() if name not in (*TEXTS, *texts)} if listed is None else {}
    ratings = {name: rating_columns.of_people(found) for name, found in given.items()}
    return Parts({**texts, **others}, ratings, comments(said))


def value_of(score: dict[str, Any]) -> Any:
    """Value of a score by its data type."""
    kind, text = str(either(score, "data_type") or "").upper(), either(score, "string_value")
    if kind == "CATEGORICAL" or score.get("value") is None:
        return text
    value = score["value"]
    if kind == "BOOLEAN":
        return str(value).strip().lower() in ("1", "1.0", "true")
    return value


SOURCE = rating_columns.source(
    "langfuse",
    parts,
    needed=("input", "output"),
    step="Give observations (with the scores beside them), or a page's file with input and output.",
    records=records,
    about="Langfuse: observations with their scores, from blob storage or a page",
    patterns=PATTERNS,
    raw_files=raw_files,
    example=(
        '{"id": "t1", "input": {"messages": [{"role": "user", "content": "Any tea?"}]}, "output": {"role": '
        '"assistant", "content": "Green."}, "scores": [{"name": "thumb", "value": 1, "data_type": "BOOLEAN"}]}',
        '{"id": "t2", "input": "Where do I park?", "output": "Outside.", "scores": [{"name": "thumb", "value": 0, '
        '"data_type": "BOOLEAN"}]}',
    ),
)
