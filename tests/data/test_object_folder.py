"""A folder of JSON files with one object each is one table, whatever single files of it are like."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from made_feedback import Recorder, binarize, both_splits, lines_of

from kto_cli.common.errors import BadInput
from kto_cli.data.formats.listing import raw_files
from kto_cli.data.registry import source


def write(folder: Path, count: int, **more: Any) -> None:
    """Files 0000.json and so on, one row each, over several lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        row = {"question": f"{folder.name} {number}?", "answer": f"It is {number}.", "ok": number % 2 == 0, **more}
        (folder / f"{number:04d}.json").write_text(json.dumps(row, indent=2))


def test_a_folder_of_500_objects_is_one_table_with_few_notes(tmp_path):
    write(tmp_path / "logs", 400)
    write(tmp_path / "logs" / "more", 100)
    screen = Recorder()
    result = binarize(f"log:{tmp_path / 'logs'}", out=tmp_path / "out", label_column="ok", screen=screen)
    assert result["rows_in"] == 500
    assert len(screen.notes) < 6
    assert screen.notes[0] == "Reading logs (400 files of one object each), more (100 files of one object each)."
    origins = {row["origin"] for row in both_splits(tmp_path / "out")}
    assert origins == {f"logs/{k:04d}.json" for k in range(400)} | {f"more/{k:04d}.json" for k in range(100)}


def test_a_field_that_one_file_lacks_is_empty_in_its_row(tmp_path):
    """Of one row each, no file can be asked for all columns."""
    write(tmp_path / "logs", 20)
    (tmp_path / "logs" / "a.json").write_text('{"question": "a?", "answer": "a"}')
    (tmp_path / "logs" / "b.json").write_text("{}")
    result = binarize(f"log:{tmp_path / 'logs'}", out=tmp_path / "out", label_column="ok", validation=0)
    assert (result["rows_in"], result["dropped_reasons"]) == (22, {"no_label": 2})


def test_empty_and_damaged_files_are_rejected_rows_with_their_names(tmp_path):
    write(tmp_path / "logs", 20)
    for name, text in (("cut.json", '{"question": "a", '), ("empty.json", ""), ("blank.json", "\n \n")):
        (tmp_path / "logs" / name).write_text(text)
    result = binarize(f"log:{tmp_path / 'logs'}", out=tmp_path / "out", label_column="ok", validation=0)
    assert result["rejected"] == {"not_json": 3}
    found = {line["origin"]: line["detail"] for line in lines_of(tmp_path / "out" / "rejects.jsonl")}
    assert sorted(found) == ["logs/blank.json", "logs/cut.json", "logs/empty.json"]
    assert found["logs/empty.json"] == "it is empty"


def test_other_files_of_the_folder_are_read_as_what_they_are(tmp_path):
    logs = tmp_path / "logs"
    write(logs, 20)
    row = {"question": "list?", "answer": "yes", "ok": True}
    (logs / "list.json").write_text(json.dumps([row]))
    (logs / "wrapped.json").write_text(json.dumps({"data": [row, {**row, "ok": False}], "page": 1}))
    (logs / "lines.json").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    (logs / "rows.csv").write_text("question,answer,ok\ncsv?,yes,true\n")
    (logs / "packed.json.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    result = binarize(f"log:{logs}", out=tmp_path / "out", label_column="ok", validation=0.0)
    assert result["rows_in"] == 20 + 1 + 2 + 2 + 1 + 1
    assert {row["origin"] for row in both_splits(tmp_path / "out")} > {
        *("list.json:item 1", "wrapped.json:item 2", "lines.json:2", "rows.csv:2", "logs/packed.json.gz"),
    }


def test_a_product_with_one_file_a_conversation(tmp_path):
    (tmp_path / "chats").mkdir()
    for number in range(6):
        chat = [{"from": "user", "content": f"Q{number}"}, {"from": "assistant", "content": f"A{number}"}]
        chat[1]["score"] = 1 if number % 2 else -1  # type: ignore[assignment]
        path = tmp_path / "chats" / f"{number}.json"
        path.write_text(json.dumps({"_id": f"c{number}", "messages": chat if number < 5 else []}))
    result = binarize(f"chat-ui:{tmp_path / 'chats'}", out=tmp_path / "out", validation=0.0)
    assert (result["rows_in"], result["dropped_reasons"]) == (6, {"no_label": 1})


def test_files_of_lists_are_no_such_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text('[{"question": "q"}]')
    assert [file.name for file in raw_files(tmp_path, source("log"))] == ["a.json", "b.json"]


def test_the_folder_alone_is_refused_with_the_command_for_it(tmp_path):
    write(tmp_path / "logs", 3)
    with pytest.raises(BadInput, match="kto binarize log:"):
        binarize(str(tmp_path / "logs"), out=tmp_path / "out")
