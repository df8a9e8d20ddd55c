"""What raters wrote beside their ratings lies in remarks.jsonl, by the id and origin of its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_feedback import Recorder, binarize, both_splits, lines_of

from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import MANIFEST, REMARKS

Said = dict[str, Any]


def open_webui(k: int, thumb: bool) -> Said:
    messages = {
        "a": {"id": "a", "parentId": None, "role": "user", "content": f"Q{k}"},
        "b": {"id": "b", "parentId": "a", "role": "assistant", "content": f"A{k}"},
    }
    data = {"rating": 1 if thumb else -1, "reason": "accurate_information", "comment": f"é {k}", "tags": ["shop"]}
    return {
        **{"type": "rating", "data": data, "meta": {"message_id": "b", "chat_id": f"c{k}"}},
        "snapshot": {"chat": {"chat": {"history": {"messages": messages}}}},
    }


def librechat(k: int, thumb: bool) -> Said:
    rating = {"rating": "thumbsUp" if thumb else "thumbsDown", "tag": "accurate_reliable", "text": f"é {k}"}
    asked = {"messageId": f"a{k}", "parentMessageId": None, "isCreatedByUser": True, "text": f"Q{k}"}
    answered = {"messageId": f"b{k}", "parentMessageId": f"a{k}", "isCreatedByUser": False, "text": f"A{k}"}
    both = [asked, {**answered, "feedback": rating}]
    return {"several": [{**each, "conversationId": f"c{k}"} for each in both]}


def langfuse(k: int, thumb: bool) -> Said:
    score = {"name": "thumb", "value": int(thumb), "data_type": "BOOLEAN", "comment": f"é {k}"}
    return {"input": f"Q{k}", "output": f"A{k}", "scores": [score]}


def langsmith(k: int, thumb: bool) -> Said:
    stats = {"thumb": {"n": 1, "avg": float(thumb), "comments": [f"é {k}"]}}
    return {"inputs": {"question": f"Q{k}"}, "outputs": {"output": f"A{k}"}, "feedback_stats": stats}


def mlflow(k: int, thumb: bool) -> Said:
    given = [{"assessment_name": "thumb", "feedback": {"value": thumb}, "rationale": f"é {k}"}]
    return {"request": f"Q{k}", "response": f"A{k}", "assessments": given}


def phoenix(k: int, thumb: bool) -> Said:
    given = [{"name": "thumb", "result": {"score": int(thumb), "explanation": f"é {k}"}}]
    span = {"context.span_id": f"s{k}", "attributes.input.value": f"Q{k}", "attributes.output.value": f"A{k}"}
    return {**span, "annotations": given}


def dify(k: int, thumb: bool) -> Said:
    texts = {"conversation_id": f"c{k}", "user_query": f"Q{k}", "ai_response": f"A{k}"}
    return {**texts, "feedback_rating_raw": "like" if thumb else "dislike", "feedback_comment": f"é {k}"}


RATED = {"thumb": ["é {}"]}
SHAPES: dict[str, tuple[Any, Said]] = {
    "open-webui": (open_webui, {"reason": "accurate_information", "comment": "é {}", "tags": ["shop"]}),
    "librechat": (librechat, {"reason": "accurate_reliable", "comment": "é {}"}),
    "langfuse": (langfuse, {"comments": RATED}),
    "langsmith": (langsmith, {"comments": RATED}),
    "mlflow": (mlflow, {"comments": RATED}),
    "phoenix": (phoenix, {"comments": RATED}),
    "dify": (dify, {"comment": "é {}"}),
}


def written(path: Path, records: list[Said]) -> Path:
    lines = [each for record in records for each in record.get("several", [record])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("source", SHAPES)
def test_each_remark_is_joined_to_its_row_by_the_id(source, workers, tmp_path):
    make, said = SHAPES[source]
    path = written(tmp_path / "rows.jsonl", [make(k, k % 2 == 0) for k in range(12)])
    result = binarize(f"{source}:{path}", out=tmp_path / "out", validation=0, workers=workers)
    rows = {row["id"]: row for row in both_splits(tmp_path / "out")}
    lines = lines_of(tmp_path / "out" / REMARKS)
    assert {line["id"] for line in lines} == set(rows)
    assert len(lines) == 12
    for line in lines:
        row = rows[line["id"]]
        k = row["completion"][0]["content"].removeprefix("A")
        assert line == {"id": row["id"], "origin": row["origin"], **json.loads(json.dumps(said).replace("{}", k))}
    assert REMARKS in result["files"]
    assert REMARKS in json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]


def test_without_remarks_there_is_no_file_and_an_earlier_one_goes(tmp_path):
    records = [mlflow(k, k % 2 == 0) for k in range(6)]
    binarize(f"mlflow:{written(tmp_path / 'rows.jsonl', records)}", out=tmp_path / "out")
    assert (tmp_path / "out" / REMARKS).exists()
    for record in records:
        record["assessments"][0]["rationale"] = " "
    binarize(f"mlflow:{written(tmp_path / 'rows.jsonl', records)}", out=tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / REMARKS).exists()


def test_half_a_surrogate_pair_in_a_comment_is_no_crash(tmp_path):
    records = [mlflow(k, k % 2 == 0) for k in range(6)]
    records[0]["assessments"][0]["rationale"] = "half \ud83d"
    binarize(f"mlflow:{written(tmp_path / 'rows.jsonl', records)}", out=tmp_path / "out")
    assert len(lines_of(tmp_path / "out" / REMARKS)) == 6


REASONS = ("accurate_information", "too_long", "accurate_information", "dont_like_the_style")
FIELDS = {"open-webui": "data.reason", "librechat": "feedback.tag"}


@pytest.mark.parametrize("source", FIELDS)
def test_rules_about_reasons_decide_instead_of_the_thumbs(source, tmp_path):
    records = [SHAPES[source][0](k, True) for k in range(12)]
    for k, record in enumerate(records):
        if source == "librechat":
            record["several"][1]["feedback"]["tag"] = REASONS[k % 4]
        else:
            record["data"]["reason"] = REASONS[k % 4]
    path, screen = written(tmp_path / "rows.jsonl", records), Recorder()
    good, bad = (f'{FIELDS[source]} == "{reason}"' for reason in REASONS[:2])
    result = binarize(
        f"{source}:{path}", out=tmp_path / "out", validation=0.0, desirable=good, undesirable=bad, screen=screen
    )
    assert (result["desirable"], result["undesirable"]) == (6, 3)
    assert result["dropped_reasons"] == {"matches_neither": 3}
    assert "The rules decide instead of the thumbs." in screen.notes
    with pytest.raises(BadInput, match="has no reason that a rule can name"):
        binarize(f"{source}:{path}", out=tmp_path / "more", desirable='reason == "x"', undesirable="else")
