"""Files named as JSON, or as a table, that are something else: one line says what they are and what to do."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from kto_cli.common.errors import BadInput
from kto_cli.data.readers.any_file import columns, layout_notes, parsed, records

ROWS = [{"question": f"Is {n} open?", "answer": 'Yes, {until} "six".', "good": n % 2 == 0} for n in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
LISTS = [list(row.values()) for row in ROWS]
TABLE = "question,answer,good\n" + "".join(f"Is {n} open?,Yes,{n}\n" for n in range(4))
PANDAS = 'to_json("rows.jsonl", orient="records", lines=True)'
EACH = "jq -c '.[]' f.json > rows.jsonl"

KINDS = {
    "pandas' columns": (
        "f.json",
        json.dumps({key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]}),
        PANDAS,
    ),
    "lists as columns": ("f.json", json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}, indent=1), PANDAS),
    "pandas' table in parts": (
        "f.json",
        json.dumps({"columns": [*ROWS[0]], "index": [0, 1, 2, 3], "data": LISTS}),
        PANDAS,
    ),
    "rows by number": ("f.json", json.dumps({str(n): row for n, row in enumerate(ROWS)}), EACH),
    "rows by id": ("f.json", json.dumps({f"id-{n}": row for n, row in enumerate(ROWS)}, indent=1), EACH),
    "lists in an array": ("f.json", json.dumps(LISTS), "or as CSV with a header"),
    "lists in lines": ("f.jsonl", "\n".join(map(json.dumps, LISTS)), "or as CSV with a header"),
    "lists of objects": ("f.jsonl", "\n".join(json.dumps([row]) for row in ROWS), "jq -c '.[]' f.jsonl"),
    "encoded twice": ("f.jsonl", "\n".join(json.dumps(json.dumps(row)) for row in ROWS), "jq -c 'fromjson' f.jsonl"),
    "CSV named JSONL": ("f.jsonl", TABLE, "question, answer, good). Name it .csv"),
    "TSV named JSON": ("f.json", TABLE.replace(",", "\t"), "question, answer, good). Name it .csv"),
    "JSONL named CSV": ("f.csv", LINES, "holds JSON, not a table. Name it .jsonl"),
    "JSONL named TSV": ("f.tsv", LINES, "holds JSON, not a table. Name it .jsonl"),
    "an array named CSV": ("f.csv", json.dumps(ROWS, indent=1), "holds JSON, not a table"),
    "a comment first": ("f.json", "// exported\n" + json.dumps(ROWS, indent=1), "line 1: a comment stands there"),
    "a comment within": ("f.json", json.dumps(ROWS, indent=1).replace('"Is 2', '// here\n"Is 2'), "item 3: a comment"),
    "a comma after the last item": ("f.json", json.dumps(ROWS)[:-1] + ",]", "Remove the comma"),
    "a comma after the last field": ("f.json", json.dumps(ROWS, indent=1).replace("\n }", ",\n }"), "Remove the comma"),
    "Python's lines": ("f.jsonl", "\n".join(map(repr, ROWS)), "line 1: written as Python prints it"),
    "Python's list": ("f.json", repr(ROWS), "Write it with json.dumps"),
    "Python's constants": ("f.json", json.dumps(ROWS).replace("true", "True"), "None, True, False"),
    "names without quotes": ("f.json", json.dumps(ROWS).replace('"answer"', "answer"), "JSON.stringify"),
    "a stream of events": (
        "f.jsonl",
        LINES.replace("{", "data: {", 1).replace("\n{", "\n\ndata: {"),
        "sed -n 's/^[^{]*{/{/p'",
    ),
    "a log with JSON": (
        "f.jsonl",
        "".join(f"INFO 12:0{n} {line}\n" for n, line in enumerate(LINES.splitlines())),
        "'INFO 12:00'",
    ),
}


def read(path):
    found = columns(path, "", ["question"])
    return found, [parsed(record).values for record in records(path, path.name, None)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_named_with_what_to_do(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    name, text, step = KINDS[kind]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        read(path.relative_to(tmp_path))
    assert step in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
@pytest.mark.parametrize("kind", [kind for kind, (_, _, step) in KINDS.items() if step.startswith("jq")])
def test_the_command_gives_the_rows(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    name, text, _ = KINDS[kind]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        read((tmp_path / name).relative_to(tmp_path))
    command = refused.value.next_step
    subprocess.run(command[command.index("jq") :], shell=True, check=True)
    assert read(tmp_path / "rows.jsonl")[1] == ROWS


ROW = {"prompt": "Hi", "answer": "Hello.", "label": True}
ONE_ROW = {
    "comments within": ROW | {"feedback": {"comments": [{"text": "fine", "by": "a"}]}},
    "feedback in a list": ROW | {"ratings": [{"score": 1}], "data": {"note": "x"}},
    "messages as fields": {
        "input": {"role": "user", "content": "Hi"},
        "output": {"role": "assistant", "content": "Ho"},
    },
    "messages of three": {key: {"role": key, "content": "Hi"} for key in ("system", "user", "assistant")},
    "tools within": ROW | {"request": {"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "f"}]}},
    "two objects": {"input": {"text": "Hi", "lang": "en"}, "output": {"text": "Ho", "lang": "en"}},
    "votes by person": ROW | {"votes": {"ann": {"up": 1}, "bob": {"up": 0}}},
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("kind", ONE_ROW)
def test_one_object_stays_one_row(tmp_path, kind, indent):
    path = tmp_path / "f.json"
    path.write_text(json.dumps(ONE_ROW[kind], indent=indent), encoding="utf-8")
    assert read(path) == ([*ONE_ROW[kind]], [ONE_ROW[kind]])


WRAPPED = {
    "two levels": ({"data": {"items": ROWS}}, "data.items", ""),
    "beside others": (
        {"ok": 1, "data": {"total": 4, "items": ROWS}},
        "data.items",
        "; left out beside it: ok, data.total",
    ),
    "any name alone": ({"export_of_may": {"rows": ROWS}}, "export_of_may.rows", ""),
    "upper case": ({"Data": ROWS, "page": 1}, "Data", "; left out beside it: page"),
    "three levels": ({"body": {"data": {"items": ROWS}}}, "body.data.items", ""),
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("kind", WRAPPED)
def test_rows_in_an_object_are_found_with_a_note(tmp_path, kind, indent):
    path = tmp_path / "f.json"
    content, way, beside = WRAPPED[kind]
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    assert read(path)[1] == ROWS
    assert layout_notes(path) == [f"The rows are the list {way!r} of the file{beside}."]
