"""Tables in TRL's columns: every way a row can fail has its reason, files of every kind, whole and broken."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from binarizing import Given, binarize, bot, user, write_lines
from binarizing import read as read_up_to_labels

from kto_cli.common.errors import BadInput
from kto_cli.data.formats.records import Output, Pair, root
from kto_cli.data.readers.jsonl import line_records
from kto_cli.data.registry import source

ASK = "\n\nHuman: Hi\n\nAssistant:"
GOOD = {"chosen": f"{ASK} Hello!", "rejected": f"{ASK} Go away."}


def read(path: Path, *, text: bool = False) -> Given:
    return read_up_to_labels(path.with_name("spool"), path, text=text)


def reasons(path: Path, *, text: bool = False) -> list[tuple[str, int]]:
    return [(reject.reason, reject.rows) for reject in read(path, text=text).rejects]


# --- labels -----------------------------------------------------------------------------------


def labelled(folder: Path, *labels: object) -> Path:
    return write_lines(folder / "a.jsonl", *({"prompt": "Q", "completion": "A", "label": label} for label in labels))


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (True, True),
        (False, False),
        ("true", True),
        (" False ", False),
        ("TRUE", True),
        (1, True),
        (0, False),
        (1.0, True),
        ("1", True),
        ("0", False),
        ("1.0", True),
    ],
)
def test_accepted_labels(tmp_path, value, label):
    given = read(labelled(tmp_path, value))
    assert (given.labels, given.rejects) == ([label], [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "label_missing"),
        (float("nan"), "label_missing"),
        ("", "label_missing"),
        (" ", "label_missing"),
        ("yes", "label_not_accepted"),
        ("thumbs_up", "label_not_accepted"),
        ([1], "label_not_accepted"),
        ("nan", "label_missing"),
        ("N/A", "label_missing"),
        ("None", "label_missing"),
        ("-", "label_missing"),
        ("1e0", "label_not_accepted"),
        ({}, "label_missing"),
        ({"value": 1}, "label_not_accepted"),
        (-1, "label_not_binary"),
        (0.5, "label_not_binary"),
        ("-1", "label_not_binary"),
        (10**400, "label_not_accepted"),
    ],
)
def test_rejected_labels(tmp_path, value, reason):
    (reject,) = read(labelled(tmp_path, value)).rejects
    assert (reject.origin, reject.reason, reject.rows) == ("a.jsonl:1", reason, 1)
    assert reject.detail


def test_stars_make_every_number_of_the_column_unusable(tmp_path):
    given = read(labelled(tmp_path, 5, 1, "1", 0, True, 4.0))
    assert given.labels == [-1, -1, -1, -1, 1, -1]
    assert [reject.origin for reject in given.rejects] == [f"a.jsonl:{number}" for number in (1, 2, 3, 4, 6)]
    for reject in given.rejects:
        assert reject.reason == "label_not_binary"
        assert "numbers other than 1 and 0 (5, 4)" in reject.detail


def test_numbers_are_labels_where_a_file_has_no_others_and_it_is_said(tmp_path):
    given = read(labelled(tmp_path, 1, "0", True, 0.0))
    assert given.labels == [1, 0, 1, 0]
    assert (
        "Labels 1 and 0 are read as desirable and undesirable (3 rows; the column has no other numbers)." in given.notes
    )


# --- tables -----------------------------------------------------------------------------------


def test_text_prompts_become_user_turns_unless_text_is_asked_for(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "Q", "completion": " A ", "label": True, "stars": 3})
    feedback = read(path)
    assert feedback.items == [Output((user("Q"),), (bot(" A "),), True, "a.jsonl:1", "Q")]
    assert any("each text prompt is read as one user turn" in note for note in feedback.notes)
    assert "Columns ignored: stars." in feedback.notes
    assert read(path, text=True).items == [Output("Q", " A ", True, "a.jsonl:1", "Q")]


def test_paired_chat_in_all_its_spellings_is_one_thing(tmp_path):
    prompt = [{"role": "system", "content": "S"}, user("Q")]
    path = write_lines(
        tmp_path / "a.jsonl",
        {"prompt": prompt, "chosen": "A", "rejected": "B"},
        {"prompt": prompt, "chosen": [bot("A")], "rejected": [bot("B")]},
        {"prompt": prompt, "chosen": [*prompt, bot("A")], "rejected": [*prompt, bot("B")]},
        {"chosen": [*prompt, bot("A")], "rejected": [*prompt, bot("B")]},
    )
    found = [(item.prompt, item.chosen, item.rejected) for item in read(path).items if isinstance(item, Pair)]
    assert found == [(tuple(prompt), (bot("A"),), (bot("B"),))] * 4


def test_text_prompt_with_whole_conversations_as_answers(tmp_path):
    """The form of ultrafeedback_binarized: a text prompt that the chats repeat."""
    row = {
        "prompt": "Q",
        "chosen": [user("Q"), bot("A")],
        "rejected": [user("Q"), bot("B")],
        "messages": [],
        "label": 1,
    }
    (item,) = read(write_lines(tmp_path / "a.jsonl", row)).items
    assert isinstance(item, Pair)
    assert (item.prompt, item.chosen, item.rejected) == ((user("Q"),), (bot("A"),), (bot("B"),))


def test_messages_and_label(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"messages": [user("Q"), bot("A")], "label": False}, 3]))
    feedback = read(path)
    assert feedback.items == [Output((user("Q"),), (bot("A"),), False, "a.json:item 1", "Q")]
    assert [(reject.origin, reject.reason) for reject in feedback.rejects] == [("a.json:item 2", "not_an_object")]


P = [user("Q")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": None, "completion": "A", "label": True}, "missing_field"),
        ({"prompt": "Q", "completion": None, "label": True}, "missing_field"),
        ({"prompt": "Q", "completion": "A"}, "label_missing"),
        ({"prompt": "Q", "completion": "A", "label": "yes"}, "label_not_accepted"),
        ({"prompt": "Q", "completion": "A", "label": 3}, "label_not_binary"),
        ({"prompt": 3, "completion": "A", "label": True}, "not_messages"),
        ({"prompt": ["Q"], "completion": "A", "label": True}, "not_messages"),
        ({"prompt": [{"role": "user"}], "completion": "A", "label": True}, "not_text"),
        ({"prompt": " ", "completion": "A", "label": True}, "empty_prompt"),
        ({"prompt": "Q", "completion": "\n", "label": True}, "empty_answer"),
        ({"prompt": "Q", "completion": [], "label": True}, "empty_answer"),
        ({"prompt": "Q", "completion": [bot(" ")], "label": True}, "empty_answer"),
        ({"prompt": "Q", "completion": [user("A")], "label": True}, "answer_not_one_turn"),
        ({"prompt": "Q", "completion": [bot("A"), bot("B")], "label": True}, "answer_not_one_turn"),
        ({"prompt": [], "completion": "A", "label": True}, "roles_do_not_alternate"),
        ({"prompt": [bot("Q")], "completion": "A", "label": True}, "roles_do_not_alternate"),
        ({"prompt": [user("Q"), bot("A")], "completion": "A", "label": True}, "roles_do_not_alternate"),
        (
            {"prompt": [*P, {"role": "system", "content": "S"}], "completion": "A", "label": True},
            "roles_do_not_alternate",
        ),
        (
            {"prompt": [{"role": "tool", "content": "S"}, *P], "completion": "A", "label": True},
            "roles_do_not_alternate",
        ),
        ({"prompt": [user(""), *P], "completion": "A", "label": True}, "empty_turn"),
        ({"prompt": "Q\udc80", "completion": "A", "label": True}, "bad_text"),
        ({"messages": [], "label": True}, "roles_do_not_alternate"),
    ],
)
def test_every_fault_of_an_unpaired_row_has_its_reason(tmp_path, row, reason):
    whole = {"prompt": "Q", "completion": "A", "label": True}
    assert reasons(write_lines(tmp_path / "a.jsonl", whole, row)) == [(reason, 1)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q", "chosen": "A"}, "missing_field"),
        ({"chosen": "A", "rejected": "B"}, "missing_field"),
        ({"chosen": [*P, bot("A")]}, "missing_field"),
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "answers_identical"),
        ({"chosen": [*P, bot("A")], "rejected": [user("R"), bot("B")]}, "prompts_differ"),
        ({"chosen": [*P, bot("A")], "rejected": [*P, bot("A"), user("R"), bot("B")]}, "prompts_differ"),
        ("not json", "not_json"),
        ("3", "not_an_object"),
    ],
)
def test_every_fault_of_a_paired_row_counts_two(tmp_path, row, reason):
    whole = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    assert reasons(write_lines(tmp_path / "a.jsonl", whole, row)) == [(reason, 2)]


def test_plain_text_refuses_chats_by_row(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        {"prompt": "Q", "completion": "A", "label": True},
        {"prompt": [user("Q")], "completion": "A", "label": True},
        {"prompt": "Q", "completion": [bot("A")], "label": True},
    )
    assert reasons(path, text=True) == [("not_text", 1), ("not_text", 1)]
    assert reasons(path) == []


def test_group_is_the_conversation_up_to_its_first_user_turn():
    assert root((user("Hi"), bot("Yes?"), user("More"))) == root((user("Hi"),)) == "Hi"
    assert root(({"role": "system", "content": "S"}, user("Hi"))) != root((user("Hi"),))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"question": "Q", "answer": "A"},
            "columns question, answer. kto needs paired rows (prompt, chosen, rejected)",
        ),
        (
            {"prompt": "Q", "completion": "A", "label": 1, "chosen": "A", "rejected": "B"},
            "both paired and unpaired",
        ),
        ({"chosen": "A", "rejected": "B"}, "Add a column prompt"),
        (GOOD, "Run: kto binarize hh-rlhf --from"),
    ],
)
def test_wrong_columns_are_named(tmp_path, columns, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        read(write_lines(tmp_path / "a.jsonl", columns))


# --- files, whole and broken ------------------------------------------------------------------


def test_csv_with_quoted_line_ends_gives_true_line_numbers(tmp_path):
    path = tmp_path / "a.csv"
    text = 'prompt,completion,label,note\r\n"Q\n1",A1,TRUE,x\r\n\r\nQ2,"A ""2""",false,x\r\nQ3,A3\r\nQ4,,1,x\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    feedback = read(path)
    assert feedback.items == [
        Output((user("Q\n1"),), (bot("A1"),), True, "a.csv:2", "Q\n1"),
        Output((user("Q2"),), (bot('A "2"'),), False, "a.csv:5", "Q2"),
    ]
    found = [(reject.origin, reject.reason) for reject in feedback.rejects]
    assert found == [("a.csv:6", "label_missing"), ("a.csv:7", "missing_field")]


def test_csv_of_other_spreadsheets(tmp_path):
    (tmp_path / "a.csv").write_text("prompt;completion;label\nQ, and more;A;1\n")
    (tmp_path / "b.tsv").write_text("prompt\tcompletion\tlabel\nQ, and more\tA\t1\n")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b'prompt,completion,label\n"Q, and more",A,1\n'))
    for name in ("a.csv", "b.tsv", "c.csv.gz"):
        (item,) = read(tmp_path / name).items
        assert item.prompt == (user("Q, and more"),)


def test_csv_with_a_huge_cell_and_broken_quotes(tmp_path):
    long = "x" * 300_000
    path = tmp_path / "a.csv"
    path.write_text(f'prompt,completion,label\nQ,{long},true\n"Q"x,A,true\nQ2,A,false\n')
    feedback = read(path)
    assert [item.origin for item in feedback.items if isinstance(item, Output)] == ["a.csv:2", "a.csv:4"]
    assert [(reject.origin, reject.reason) for reject in feedback.rejects] == [("a.csv:3", "bad_csv")]


def test_bytes_that_are_not_utf8_hurt_their_row_alone(tmp_path):
    rows = b'{"prompt":"caf\xe9","completion":"A","label":true}\n{"prompt":"Q","completion":"A","label":true}\n'
    (tmp_path / "a.jsonl").write_bytes(rows)
    (tmp_path / "a.csv").write_bytes(b"prompt,completion,label,caf\xe9\ncaf\xe9,A,true,x\nQ,A,true,x\n")
    for name in ("a.jsonl", "a.csv"):
        feedback = read(tmp_path / name)
        assert [item.group for item in feedback.items] == ["Q"]
        assert [reject.reason for reject in feedback.rejects] == ["bad_text"]


def test_bom_and_crlf_in_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt":"Q","completion":"A","label":true}\r\n\r\n{"prompt":"Q\xe2\x80\xa8R"}\r\n')
    assert [record.origin for record in line_records(path, "a")] == ["a:1", "a:3"]
    assert len(read(path).items) == 1


def parquet_of(path: Path, rows: list[dict]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_parquet_rows(tmp_path):
    rows = [
        {"prompt": [user("Q")], "completion": [bot("A")], "label": True, "extra": 1},
        {"prompt": [user("Q")], "completion": None, "label": True, "extra": 2},
        {"prompt": [user("Q")], "completion": [bot("B")], "label": None, "extra": 3},
    ]
    feedback = read(parquet_of(tmp_path / "a.parquet", rows))
    assert feedback.items == [Output((user("Q"),), (bot("A"),), True, "a.parquet:row 1", "Q")]
    assert [reject.reason for reject in feedback.rejects] == ["missing_field", "label_missing"]


def broken(name: str, data: bytes):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


ROW = b'{"prompt":"Q","completion":"A","label":true}\n'


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "a.csv", "a.csv does not exist"),
        (lambda folder: folder, "is a folder, not a file"),
        (broken("a.jsonl", b""), "a.jsonl is empty"),
        (broken("a.csv", b""), "a.csv is empty"),
        (broken("a.parquet", b""), "a.parquet is empty"),
        (broken("a.json", b"[]"), "a.json is empty"),
        (broken("a.csv", b"prompt,completion,label\n"), "a.csv has no rows"),
        (broken("a.jsonl", b"hello\nthere\n"), "line 1: Expecting value"),
        (broken("a.json", b"[1, 2"), "is not JSON"),
        (broken("a.json", b"[1, 2]"), "JSON int instead of an object"),
        (broken("a.jsonl", b"[" * 100_000), "line 1"),
        (broken("a.jsonl.gz", gzip.compress(ROW * 99)[:-12]), "truncated or damaged gzip"),
        (broken("a.jsonl", ROW.decode().encode("utf-16")), "is UTF-16"),
        (broken("a.parquet", b"PAR1 not really"), "cannot be read as Parquet"),
        (broken("a.txt", ROW), "is a text file. Save its rows as JSONL or CSV"),
        (broken("a.out", ROW), "has the suffix .out, which kto does not read"),
        (broken("a", ROW), "no suffix that tells its format"),
        (broken("a.csv", b'prompt,completion,label\nQ,"A,true\nQ,A,true\n'), "line 2 is never closed"),
        (broken("a.csv", b"prompt,prompt,label\nQ,A,true\n"), "more than one column prompt"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path, make, says):
    with pytest.raises(BadInput, match=re.escape(says)) as error:
        read(make(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["shp", "oasst", "ultrafeedback", "alpaca-eval", "halos", "llama-factory"])
def test_a_file_of_another_source_is_told_by_its_columns(tmp_path, name):
    """Each source's own example, given without its name."""
    lines = source(name).example
    path = tmp_path / ("f.json" if lines[0].startswith("[") else "f.jsonl")
    path.write_text("\n".join(lines))
    with pytest.raises(BadInput, match=f"look like those of {name}: kto binarize {name}:FILE"):
        binarize(path, tmp_path / "out")
