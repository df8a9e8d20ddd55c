"""Exports whose ratings lie beside the texts, against a parser of the test's own, and every way they can be unclear."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_feedback import binarize, both_splits, lines_of

from kto_cli.data.dataset import load_data_dir
from kto_cli.data.formats.records import RowFault
from kto_cli.data.products import argilla, label_studio, langfuse, langsmith, mlflow
from kto_cli.data.products.rating_columns import row
from kto_cli.data.products.traced_calls import answer_in, prompt_in
from kto_cli.data.texts import calls_of, tools_of

QUESTION, ANSWER = "What about {}?", "As {} says:\n\nno. {}"
Made = tuple[str, str, bool | None]
"""Question, answer, thumb."""


def made(draw: Random) -> list[Made]:
    """Calls, some of them rated; at least one of each label."""
    thumbs = [True, False, None, *draw.choices((True, False, None), k=draw.randint(0, 12))]
    return [(QUESTION.format(place), ANSWER.format(place, "{}"), thumb) for place, thumb in enumerate(thumbs)]


def as_langsmith(question: str, answer: str, thumb: bool | None, draw: Random) -> dict[str, Any]:
    chat = [{"role": "user", "content": question}]
    said = {"role": "assistant", "content": answer}
    langchain = {"id": ["langchain", "schema", "messages", "HumanMessage"], "kwargs": {"content": question}, "lc": 1}
    inputs = draw.choice(
        (
            {"messages": chat},
            {"question": question},
            {"input": question},
            {"messages": [[{**langchain, **CONSTRUCTED}]]},
        )
    )
    outputs = draw.choice(
        (
            {"choices": [{"message": said, "index": 0}]},
            {"generations": [[{"text": answer}]]},
            {"generations": [{"text": answer, "message": {"type": "ai", "content": answer}}]},
            {"output": answer},
            said,
        )
    )
    stats = {} if thumb is None else {"user_score": {"n": 1, "avg": float(thumb)}}
    record = {"id": "r", "run_type": "llm", "inputs": inputs, "outputs": outputs, "feedback_stats": stats}
    if draw.random() < 0.3:  # tables hold them as JSON
        record |= {name: json.dumps(record[name]) for name in ("inputs", "outputs", "feedback_stats")}
    return record


CONSTRUCTED = {"type": "constructor"}


def as_argilla(question: str, answer: str, thumb: bool | None, draw: Random) -> dict[str, Any]:
    given = [] if thumb is None else [{"value": thumb, "user_id": str(k)} for k in range(draw.randint(1, 3))]
    given.append({"value": True, "user_id": "d", "status": "draft"})
    return {"id": "1", "fields": {"prompt": question, "response": answer}, "responses": {"thumb": given}}


def as_label_studio(question: str, answer: str, thumb: bool | None, draw: Random) -> dict[str, Any]:
    result = {"from_name": "thumb", "type": "choices", "value": {"choices": [str(thumb).lower()]}}
    annotations: list[dict[str, Any]] = [] if thumb is None else [{"id": 1, "result": [result]}]
    other = {**result, "value": {"choices": ["true"]}}
    annotations.append({"id": 2, "was_cancelled": True, "result": [other]})
    return {"id": 3, "data": {"prompt": question, "response": answer}, "annotations": annotations}


def as_mlflow(question: str, answer: str, thumb: bool | None, draw: Random) -> dict[str, Any]:
    request = draw.choice((question, {"messages": [{"role": "user", "content": question}]}, {"query": question}))
    assessments: list[dict[str, Any]] = [{"name": "expected", "expectation": {"value": "x"}}]
    if thumb is not None:
        name = draw.choice(("name", "assessment_name"))
        assessments.append({name: "thumb", "feedback": {"value": thumb}, "source": {"source_type": "HUMAN"}})
        assessments.append({name: "thumb", "feedback": {"value": not thumb}, "valid": False})
    record = {"request": request, "response": draw.choice((answer, {"choices": [{"message": {"content": answer}}]}))}
    if isinstance(record["response"], dict):
        record["response"]["choices"][0]["message"]["role"] = "assistant"
    return {**record, "assessments": json.dumps(assessments) if draw.random() < 0.3 else assessments}


def as_langfuse(question: str, answer: str, thumb: bool | None, draw: Random) -> dict[str, Any]:
    """A page's file."""
    scores = [{"name": "thumb", "value": int(thumb), "dataType": "BOOLEAN"}] if thumb is not None else []
    chat: Any = {"messages": [{"role": "user", "content": question}]}
    said: Any = {"role": "assistant", "content": answer}
    if draw.random() < 0.5:
        chat, said = json.dumps(chat), json.dumps(said)
    return {"id": "t", "input": chat, "output": said, "sessionId": None, "scores": scores}


def as_phoenix(question: str, answer: str, thumb: bool | None, draw: Random) -> dict[str, Any]:
    """Annotations in the span; what a model annotated does not count where a person did."""
    chat: dict[str, Any] = {
        "attributes.llm.input_messages": [{"message.role": "user", "message.content": question}],
        "attributes.llm.output_messages": [{"message": {"role": "assistant", "content": answer}}],
    }
    if draw.random() < 0.5:
        chat = {"attributes": {"input": {"value": question}, "output": {"value": answer}}}
    given = [] if thumb is None else [{"name": "thumb", "annotator_kind": "HUMAN", "result": {"score": int(thumb)}}]
    if given and draw.random() < 0.5:
        given.append({"name": "thumb", "annotator_kind": "LLM", "result": {"score": 1 - int(bool(thumb))}})
    return {"context": {"span_id": "s"}, **chat, "annotations": given}


SHAPES = {
    "langfuse": as_langfuse,
    "phoenix": as_phoenix,
    "langsmith": as_langsmith,
    "argilla": as_argilla,
    "label-studio": as_label_studio,
    "mlflow": as_mlflow,
}


@pytest.mark.parametrize("source", SHAPES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_each_rated_record_is_a_row(source, seed):
    """The only rating is the label; who did not rate, cancelled or withdrew is not counted."""
    draw = Random(seed)
    calls = made(draw)
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name, "export.jsonl"), Path(name, "out")
        lines = [json.dumps(SHAPES[source](*each, draw)) + "\n" for each in calls]
        path.write_text("".join(lines), encoding="utf-8")
        result = binarize(f"{source}:{path}", out=out, validation=0.0)
        found = [
            (row["prompt"][0]["content"], row["completion"][0]["content"], row["label"]) for row in both_splits(out)
        ]
        assert sorted(found) == sorted(each for each in calls if each[2] is not None)
        assert result["rows_in"] == len(calls)
        lost = lines_of(out / "rejects.jsonl")
        assert {line["reason"] for line in lost} == {"no_label"}
        assert len(lost) == sum(each[2] is None for each in calls)


@pytest.mark.parametrize(
    ("read", "record"),
    [
        (
            argilla.parts,
            {"fields": {"prompt": "Q"}, "responses": {"thumb": [{"value": "up"}, {"value": "down"}]}},
        ),
        (
            label_studio.parts,
            {
                "data": {"prompt": "Q"},
                "annotations": [
                    {"result": [{"from_name": "thumb", "value": {"choices": [choice]}}]} for choice in ("Good", "Bad")
                ],
            },
        ),
        (
            mlflow.parts,
            {
                "request": "Q",
                "response": "A",
                "assessments": [{"name": "thumb", "feedback": {"value": value}} for value in (True, False)],
            },
        ),
    ],
    ids=["argilla", "label-studio", "mlflow"],
)
def test_raters_who_disagree_give_no_row(read, record):
    with pytest.raises(RowFault, match="by different raters") as found:
        row(read(record))
    assert found.value.reason == "raters_disagree"


def test_several_choices_at_once_are_no_label():
    value = {"from_name": "thumb", "value": {"choices": ["Good", "Long"]}}
    with pytest.raises(RowFault) as found:
        label_studio.parts({"data": {}, "annotations": [{"result": [value]}]})
    assert found.value.reason == "label_not_accepted"


def test_runs_of_a_thread_stay_together():
    record = {"inputs": {"input": "Q"}, "outputs": {"output": "A"}, "feedback_stats": {"thumb": {"avg": 1}}}
    found = langsmith.parts({**record, "extra": {"metadata": {"session_id": "s7"}}})
    assert found.texts["conversation_id"] == "s7"


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"choices": [{"text": "A"}, {"text": "B"}]}, "answer_not_one_turn"),
        ({"generations": [[{"text": "A"}, {"text": "B"}]]}, "answer_not_one_turn"),
        ({"first": "A", "second": "B"}, "missing_field"),
        ({}, "missing_field"),
        (None, "missing_field"),
    ],
)
def test_an_output_that_is_no_one_answer_is_rejected(outputs, reason):
    with pytest.raises(RowFault) as found:
        answer_in(outputs)
    assert found.value.reason == reason


def test_a_single_field_is_the_text():
    assert prompt_in({"topic": "Q"}) == "Q"
    assert answer_in({"summary": "A"}) == "A"
    assert answer_in('{"role": "assistant", "content": "A"}') == [{"role": "assistant", "content": "A"}]


def export(path: Path, *stats: dict[str, Any]) -> Path:
    run = {"inputs": {"input": "Q"}, "outputs": {"output": "A"}}
    path.write_text("".join(json.dumps({**run, "feedback_stats": each}) + "\n" for each in stats))
    return path


def test_of_several_ratings_the_user_names_one(kto, tmp_path):
    path = export(tmp_path / "runs.jsonl", {"thumb": {"avg": 1}, "safe": {"avg": 1}}, {"thumb": {"avg": 0}})
    ran = kto("binarize", f"langsmith:{path}", "--out", tmp_path / "out")
    assert ran.code == 1
    said = " ".join(ran.err.split())
    assert "several ratings: thumb, safe." in said
    assert "--label-column" in said


def test_a_file_without_ratings_says_so(kto, tmp_path):
    ran = kto("binarize", f"langsmith:{export(tmp_path / 'runs.jsonl', {}, {})}", "--out", tmp_path / "out")
    assert ran.code == 1
    assert "has no ratings" in " ".join(ran.err.split())


def test_rules_are_proposed_for_words(kto, tmp_path):
    path = tmp_path / "records.json"
    records = [
        {"fields": {"prompt": "Q", "response": str(k)}, "responses": {"thumb": [{"value": value}]}}
        for k, value in enumerate(("up", "down"))
    ]
    path.write_text(json.dumps(records))
    ran = kto("binarize", f"argilla:{path}", "--out", tmp_path / "out")
    assert ran.code == 1
    said = " ".join((ran.out + ran.err).split())
    assert "thumb: up 1, down 1" in said
    assert """--desirable 'thumb == "up"' --undesirable 'thumb == "down"'""" in said


def blob_export(folder: Path, observations: list[dict[str, Any]], scores: list[dict[str, Any]]) -> Path:
    for name, rows in (("observations_v2", observations), ("scores", scores)):
        (folder / name).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "2026-01-01.jsonl").write_text(lines)
    return folder


def observation(name: str, trace: str, answer: str, kind: str = "GENERATION") -> dict[str, Any]:
    return {"id": name, "trace_id": trace, "type": kind, "session_id": "s", "input": f"Q {name}", "output": answer}


def test_langfuse_joins_scores_by_observation_and_by_trace(tmp_path):
    """A trace's score is that of its one generation, not of a span around it; of two it is unclear."""
    observations = [
        observation("o1", "t1", "A1"),
        observation("span", "t1", "A1", "SPAN"),
        observation("o2", "t2", "A2"),
        observation("o3", "t2", "A3"),
        observation("o4", "t3", "A4"),
        observation("o5", "t3", "A5"),
        observation("o6", "t4", "A6"),
    ]
    scores = [
        {"trace_id": "t1", "observation_id": None, "name": "thumb", "value": 1, "data_type": "BOOLEAN"},
        {"traceId": "t2", "observationId": "o3", "name": "thumb", "value": 0, "dataType": "BOOLEAN"},
        {"trace_id": "t3", "observation_id": None, "name": "thumb", "value": 1, "data_type": "BOOLEAN"},
        {"trace_id": "gone", "observation_id": "gone", "name": "thumb", "value": 1, "data_type": "BOOLEAN"},
    ]
    folder = blob_export(tmp_path / "export", observations, scores)
    result = binarize(f"langfuse:{folder}", out=tmp_path / "out", validation=0.0)
    rows = {row["completion"][0]["content"]: row["label"] for row in both_splits(tmp_path / "out")}
    assert rows == {"A1": True, "A3": False}
    assert result["dropped_reasons"] == {"no_label": 3}
    assert result["rejected"] == {"rated_message_unclear": 2}


def test_scores_are_read_again_when_they_change(tmp_path):
    """Within one process, as the Python API is used."""
    scores = [{"observation_id": f"o{k}", "name": "thumb", "value": k, "data_type": "BOOLEAN"} for k in (0, 1)]
    observations = [observation("o0", "t", "A0"), observation("o1", "t", "A1")]
    folder = blob_export(tmp_path / "export", observations, scores)
    labels = []
    for _ in range(2):
        binarize(f"langfuse:{folder}", out=tmp_path / "out", validation=0.0, overwrite=True)
        labels.append({row["completion"][0]["content"]: row["label"] for row in both_splits(tmp_path / "out")})
        path = folder / "scores/2026-01-01.jsonl"
        path.write_text(path.read_text().replace('"value": 0', '"value": 2').replace('"value": 1', '"value": 0'))
        path.write_text(path.read_text().replace('"value": 2', '"value": 1'))
    assert labels == [{"A0": False, "A1": True}, {"A0": True, "A1": False}]


def test_langfuse_reads_a_score_by_its_data_type():
    score = {"name": "x", "value": 1, "string_value": "True", "data_type": "BOOLEAN"}
    assert langfuse.value_of(score) is True
    assert langfuse.value_of({**score, "value": 0}) is False
    assert langfuse.value_of({**score, "value": 0.25, "data_type": "NUMERIC"}) == 0.25
    assert langfuse.value_of({**score, "string_value": "good", "data_type": "CATEGORICAL"}) == "good"


def test_langfuse_without_scores_is_refused(kto, tmp_path):
    folder = blob_export(tmp_path / "export", [observation("o1", "t1", "A1")], [])
    (folder / "scores" / "2026-01-01.jsonl").unlink()
    ran = kto("binarize", f"langfuse:{folder}", "--out", tmp_path / "out")
    assert ran.code == 1
    assert "no file of scores lies beside it" in " ".join(ran.err.split())


def test_langfuse_scores_of_a_page_are_columns(kto, tmp_path):
    path = tmp_path / "traces.csv"
    chat = '"[{""role"": ""user"", ""content"": ""Q""}]"'
    path.write_text(f"id,input,output,user-feedback\nt1,{chat},A,1\nt2,{chat},B,0\nt3,Q3,C,1\n")
    ran = kto("binarize", f"langfuse:{path}", "--out", tmp_path / "out")
    assert ran.code == 1
    assert "It has: prompt, completion, conversation_id, id, user-feedback" in " ".join(ran.err.split())
    binarize(f"langfuse:{path}", out=tmp_path / "out", label_column="user-feedback", validation=0.0)
    rows = {row["completion"][0]["content"]: row["label"] for row in both_splits(tmp_path / "out")}
    assert rows == {"A": True, "B": False, "C": True}


def test_phoenix_joins_annotations_by_span(kto, tmp_path):
    spans = [
        {"context.span_id": f"s{k}", "attributes.input.value": f"Q{k}", "attributes.output.value": f"A{k}"}
        for k in (1, 2, 3)
    ]
    marks = [
        {"span_id": "s1", "annotation_name": "ok", "result.label": "true"},
        {"span_id": "s3", "annotation_name": "ok", "result.label": "false"},
    ]
    for name, rows in (("spans", spans), ("annotations", marks)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = binarize(f"phoenix:{tmp_path}", out=tmp_path / "out", validation=0.0)
    assert {row["completion"][0]["content"]: row["label"] for row in both_splits(tmp_path / "out")} == {
        "A1": True,
        "A3": False,
    }
    assert result["dropped_reasons"] == {"no_label": 1}
    (tmp_path / "annotations.jsonl").unlink()
    ran = kto("binarize", f"phoenix:{tmp_path / 'spans.jsonl'}", "--out", tmp_path / "again")
    assert ran.code == 1
    assert "no file of annotations lies beside it" in " ".join(ran.err.split())


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
ASKED = [{"role": "user", "content": "Weather in Bonn?"}]
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
TRACED: dict[str, dict[str, Any]] = {
    "langfuse": {
        "input": {"messages": ASKED, "tools": [TOOL]},
        "output": CALLED,
        "scores": [{"name": "thumb", "value": 1, "data_type": "BOOLEAN"}],
    },
    "langsmith": {
        "inputs": {"messages": ASKED},
        "outputs": {"choices": [{"message": CALLED}]},
        "extra": {"invocation_params": {"tools": [TOOL]}},
        "feedback_stats": {"thumb": {"n": 1, "avg": 1.0}},
    },
    "mlflow": {
        "request": json.dumps({"messages": ASKED, "tools": [TOOL]}),
        "response": json.dumps({"choices": [{"message": CALLED}]}),
        "assessments": [{"assessment_name": "thumb", "feedback": {"value": True}}],
    },
    "phoenix": {
        "attributes.llm.tools": [{"tool.json_schema": json.dumps(TOOL)}],
        "attributes.llm.input_messages": [{"message.role": "user", "message.content": "Weather in Bonn?"}],
        "attributes.llm.output_messages": [
            {
                "message.role": "assistant",
                "message.tool_calls": [{"tool_call": {"function": {"name": "weather", "arguments": "{}"}}}],
            }
        ],
        "annotations": [{"name": "thumb", "result": {"score": 1}}],
    },
}


@pytest.mark.parametrize("name", TRACED)
def test_tools_and_calls_of_a_trace(name, tmp_path):
    """The prompt has the tools that the call offered; the answer is the call."""
    path = tmp_path / "traces.jsonl"
    bad = json.dumps(TRACED[name]).replace('"avg": 1.0', '"avg": 0.0').replace('"value": 1', '"value": 0')
    bad = bad.replace('"value": true', '"value": false').replace('"score": 1', '"score": 0').replace("Bonn", "Rome")
    path.write_text(f"{json.dumps(TRACED[name])}\n{bad}\n")
    result = binarize(f"{name}:{path}", out=tmp_path / "out", validation=0)
    assert (result["desirable"], result["undesirable"]) == (1, 1)
    for each in load_data_dir(tmp_path / "out").train:
        assert json.loads(tools_of(each.prompt)) == [TOOL]
        assert [call["function"] for call in calls_of(each.completion[0])] == [{"name": "weather", "arguments": {}}]


def judged(source: str, people: list[Any], models: list[Any]) -> dict[str, Any]:
    """Ratings of one record by people and by models, as a product keeps them."""
    if source == "mlflow":
        kinds = [("HUMAN", value) for value in people] + [("LLM_JUDGE", value) for value in models]
        given = [
            {"assessment_name": "thumb", "source": {"source_type": kind}, "feedback": {"value": value}}
            for kind, value in kinds
        ]
        return {"request": "Q", "response": "A", "assessments": given}
    kinds = [("ANNOTATION", value) for value in people] + [("EVAL", value) for value in models]
    scores = [{"name": "thumb", "source": kind, "data_type": "BOOLEAN", "value": value} for kind, value in kinds]
    return {"input": "Q", "output": "A", "scores": scores}


@pytest.mark.parametrize(("source", "read"), [("mlflow", mlflow.parts), ("langfuse", langfuse.parts)])
def test_where_people_rated_models_do_not_count(source, read):
    assert row(read(judged(source, [True], [False])))["thumb"] is True
    assert row(read(judged(source, [], [False])))["thumb"] is False
    assert row(read(judged(source, [None], [False])))["thumb"] in (False, None)
    with pytest.raises(RowFault, match="by different raters"):
        row(read(judged(source, [True, False], [True])))


def test_langfuse_reads_parquet_and_refuses_the_same_observations_twice(kto, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    folder = blob_export(tmp_path / "export", [observation(f"o{k}", f"t{k}", f"A{k}") for k in range(4)], [])
    scores = [
        {"trace_id": f"t{k}", "observation_id": None, "name": "thumb", "value": k % 2, "data_type": "BOOLEAN"}
        for k in range(4)
    ]
    (folder / "scores/2026-01-01.jsonl").unlink()
    parquet.write_table(pa.Table.from_pylist(scores), folder / "scores/2026-01-01.parquet")
    result = binarize(f"langfuse:{folder}", out=tmp_path / "out", validation=0.0)
    assert (result["desirable"], result["undesirable"]) == (2, 2)
    (folder / "observations").mkdir()
    (folder / "observations/1.jsonl").write_text((folder / "observations_v2/2026-01-01.jsonl").read_text())
    said = " ".join(kto("binarize", f"langfuse:{folder}", "--out", tmp_path / "more").err.split())
    assert "has all observations twice" in said
    assert "observations_v2" in said


def test_phoenix_refuses_a_file_of_something_else(kto, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Q", "completion": "A"}\n')
    said = " ".join(kto("binarize", f"phoenix:{tmp_path / 'rows.jsonl'}", "--out", tmp_path / "out").err.split())
    assert "rows.jsonl is not a file of phoenix" in said
