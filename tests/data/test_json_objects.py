"""JSON files as people have them: one object over several lines, objects one after the other, a list in an object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kto_cli.common.errors import BadInput
from kto_cli.data.readers import json_array
from kto_cli.data.readers.any_file import columns, layout_notes, parsed, records

ROWS = [{"question": f"Is {n} open?", "answer": 'Yes, {until} "six".', "good": n % 2 == 0} for n in range(6)]


def values(path: Path) -> list[object]:
    return [parsed(record).values for record in records(path, path.name, None)]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


ONE = "JSON that is not one object a line is read object by object."
LAYOUTS = {
    "lines": ("\n".join(map(json.dumps, ROWS)), None),
    "lines-with-space": ("\n\n" + "\n\n".join(map(json.dumps, ROWS)) + "\n", None),
    "glued": ("".join(map(json.dumps, ROWS)), ONE),
    "commas": (",\n".join(map(json.dumps, ROWS)), ONE),
    "pretty": ("\n".join(json.dumps(row, indent=2) for row in ROWS), ONE),
    "wrapped": (
        json.dumps({"exported": [1], "data": ROWS, "n": {"a": [{}]}}, indent=1),
        "The rows are the list 'data'",
    ),
    "wrapped-in-a-line": (json.dumps({"rows": ROWS, "empty": []}), "The rows are the list 'rows'"),
    "array": (json.dumps(ROWS, indent=2), None),
}


@pytest.mark.parametrize("block", [7, 2**20])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_in_every_layout(tmp_path, monkeypatch, layout, suffix, block):
    monkeypatch.setattr(json_array, "BLOCK", block)
    text, note = LAYOUTS[layout]
    path = written(tmp_path / f"f{suffix}", text)
    assert values(path) == ROWS
    assert columns(path, "", ()) == ["question", "answer", "good"]
    assert [each[: len(note or "")] for each in layout_notes(path)] == ([note] if note else [])


def test_what_is_beside_the_rows_is_named(tmp_path):
    path = written(tmp_path / "f.json", LAYOUTS["wrapped"][0])
    assert layout_notes(path) == ["The rows are the list 'data' of the file; left out beside it: exported, n."]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}], "label": True},
        {"instruction": "Hi", "completions": [{"response": "a"}]},
        {"data": {"rating": 1}, "items": []},
        {"train": "the Orient Express", "label": 1},
    ],
)
def test_one_row_is_not_taken_for_a_wrapper(tmp_path, row):
    assert values(written(tmp_path / "a.jsonl", json.dumps(row))) == [row]
    assert values(written(tmp_path / "b.json", json.dumps(row, indent=2))) == [row]


def test_several_lists_are_asked_about(tmp_path):
    path = written(tmp_path / "f.json", json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(BadInput, match="in several lists: train, test"):
        values(path)


@pytest.mark.parametrize("text", ['{"a": 1}{"a": ', '{\n"a": 1}\n{"a" 1}', '{"a": 1}, {"a": 2} x'])
def test_damage_is_one_line(tmp_path, text):
    path = written(tmp_path / "f.json", text)
    with pytest.raises(BadInput, match=r"is not JSON in item [23]"):
        values(path)


@pytest.mark.parametrize("first", ["{broken", '{"a": "b', '{"question": "x",', '{"a": ', "[1"])
def test_a_broken_first_line_of_lines_is_a_reject(tmp_path, first):
    path = written(tmp_path / "f.jsonl", "\n".join([first, *map(json.dumps, ROWS)]))
    assert values(path) == [None, *ROWS]
