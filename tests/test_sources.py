"""Sources: every way a line can fail has its reason, and nothing that is whole is changed."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kto_cli.errors import BadInput
from kto_cli.sources import hh_rlhf, hub, table
from kto_cli.sources.labels import other_numbers, read_label
from kto_cli.sources.lines import json_line_records
from kto_cli.sources.records import Output, Pair, Reject, RowFault, root
from kto_cli.sources.select import default_name, is_hub_id, parse_hh, read_source

ROOT = Path(__file__).resolve().parents[1]


def real_hh() -> Path:
    """The real harmless-base/test file, where this machine has it."""
    shared = Path(os.environ.get("KTO_SHARED_DATA") or ROOT.parent / "shared" / "data")
    path = shared / "hh-rlhf" / "harmless-base_test.jsonl.gz"
    if not path.is_file():
        pytest.skip("no real hh-rlhf file here (set KTO_SHARED_DATA)")
    return path


def write_lines(path: Path, *rows: object) -> Path:
    """A JSONL file; texts are written as they are, anything else as JSON."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- hh-rlhf: one pair ------------------------------------------------------------------------

ASK = "\n\nHuman: Hi\n\nAssistant:"
GOOD = {"chosen": f"{ASK} Hello!", "rejected": f"{ASK} Go away."}


def test_turns_keep_text_that_only_looks_like_a_marker():
    answer = "He said Human: no.\nAssistant: one line end is no marker.  Two spaces stay."
    before, messages = hh_rlhf.turns(f"\n\nHuman:  Hi \n\n\n\nAssistant: {answer}\n")
    assert before == ""
    assert messages == (user(" Hi"), bot(answer))


def test_pair_has_roles_as_written_and_its_first_turn_as_group():
    deep = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Tell me.\n\nAssistant:"
    pair = hh_rlhf.parse_pair({"chosen": f"{deep} A", "rejected": f"{deep} B"}, "f:1")
    assert pair.prompt == (user("Hi"), bot("Yes?"), user("Tell me."))
    assert (pair.chosen, pair.rejected, pair.group) == ((bot("A"),), (bot("B"),), "Hi")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"chosen": f"{ASK} A"}, "missing_field"),
        ({"chosen": f"{ASK} A", "rejected": None}, "missing_field"),
        ({"chosen": f"{ASK} A", "rejected": 3}, "not_text"),
        ({"chosen": f"{ASK} A", "rejected": f"{ASK} \ud800"}, "bad_text"),
        ({"chosen": f"{ASK} A", "rejected": "\n\nHuman: Ho\n\nAssistant: B"}, "prompts_differ"),
        (
            {"chosen": f"{ASK} A\n\nAssistant: B", "rejected": f"{ASK} A\n\nAssistant: C"},
            "roles_do_not_alternate",
        ),
        ({"chosen": f"{ASK} A\n\nHuman: B", "rejected": f"{ASK} A\n\nHuman: C"}, "roles_do_not_alternate"),
        ({"chosen": f"Note: {ASK} A", "rejected": f"{ASK} B"}, "roles_do_not_alternate"),
        ({"chosen": "A", "rejected": "B"}, "roles_do_not_alternate"),
        ({"chosen": "\n\nAssistant: A", "rejected": "\n\nAssistant: B"}, "roles_do_not_alternate"),
        ({"chosen": f"{ASK} ", "rejected": f"{ASK} B"}, "empty_answer"),
        ({"chosen": "\n\nHuman: \n\nAssistant: A", "rejected": "\n\nHuman: \n\nAssistant: B"}, "empty_turn"),
        ({"chosen": f"{ASK} A", "rejected": f"{ASK} A \n"}, "answers_identical"),
    ],
)
def test_every_fault_of_a_pair_has_its_reason(values, reason):
    with pytest.raises(RowFault) as fault:
        hh_rlhf.parse_pair(values, "f:1")
    assert fault.value.reason == reason
    assert fault.value.detail


def test_detail_names_all_that_is_wrong():
    with pytest.raises(RowFault) as fault:
        hh_rlhf.parse_pair({"chosen": f"{ASK} A\n\nAssistant: B", "rejected": f"{ASK} C"}, "f:1")
    assert fault.value.reason == "prompts_differ"
    assert "also roles_do_not_alternate: turn 3 of 3 of chosen is the assistant's" in fault.value.detail


# --- hh-rlhf: files ---------------------------------------------------------------------------


def test_bad_lines_count_two_rows_and_keep_their_line_number(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", GOOD, "", "{broken", "[1]", {"chosen": "x"}, GOOD)
    feedback = parse_hh(path, (), {})
    assert [item.origin for item in feedback.items] == ["a.jsonl:1", "a.jsonl:6"]
    assert [(reject.origin, reject.reason, reject.rows) for reject in feedback.rejects] == [
        ("a.jsonl:3", "not_json", 2),
        ("a.jsonl:4", "not_an_object", 2),
        ("a.jsonl:5", "missing_field", 2),
    ]
    assert feedback.rejects[0].raw == "{broken"
    assert (feedback.rows_in, feedback.lines_in) == (10, 5)


def hub_layout(folder: Path) -> Path:
    for subset in ("harmless-base", "helpful-base"):
        write_lines(folder / subset / "train.jsonl", GOOD)
        write_lines(folder / subset / "test.jsonl", GOOD)
    write_lines(folder / "helpful-online" / "test.jsonl", GOOD)
    write_lines(folder / "red-team-attempts" / "red_team_attempts.jsonl", {"transcript": "x"})
    write_lines(folder / ".cache" / "huggingface" / "x.jsonl", GOOD)
    return folder


def test_folder_gives_subsets_and_the_official_split(tmp_path):
    files = hh_rlhf.raw_files(hub_layout(tmp_path))
    assert [(file.name, file.subset, file.split) for file in files] == [
        ("harmless-base/test.jsonl", "harmless-base", "held_out"),
        ("harmless-base/train.jsonl", "harmless-base", None),
        ("helpful-base/test.jsonl", "helpful-base", "held_out"),
        ("helpful-base/train.jsonl", "helpful-base", None),
        # a test file without a train file beside it is what there is to learn from
        ("helpful-online/test.jsonl", "helpful-online", None),
    ]
    assert {file.subset for file in hh_rlhf.raw_files(tmp_path, ["helpful-base"])} == {"helpful-base"}
    assert any("red-team-attempts skipped" in note for note in parse_hh(tmp_path, (), {}).notes)


@pytest.mark.parametrize(
    ("make", "subsets", "says"),
    [
        (lambda folder: folder / "none", (), "does not exist"),
        (lambda folder: folder, (), "holds no .jsonl"),
        (hub_layout, ("harmful",), "no subset harmful. It has: harmless-base"),
        (lambda folder: hub_layout(folder) / "red-team-attempts", (), "holds no .jsonl"),
        (lambda folder: write_lines(folder / "a.jsonl", GOOD), ("a",), "is one file"),
        (lambda folder: write_lines(folder / "a.jsonl", "x", "y"), (), "No line of"),
        (lambda folder: write_lines(folder / "a.jsonl", ""), (), "is empty"),
    ],
)
def test_places_without_pairs_are_refused(tmp_path, make, subsets, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        parse_hh(make(tmp_path), subsets, {})


def test_real_file_is_accounted_for_and_parsed_as_a_second_parser_does():
    """2,312 pairs: 5 with differing prompts, 4 more with faulty roles, 4 with an empty answer.

    The second parser walks over paragraphs; the first splits by a regular expression.
    """
    path = real_hh()
    feedback = parse_hh(path, (), {})
    assert feedback.lines_in == 2312
    reasons = Counter(reject.reason for reject in feedback.rejects)
    assert reasons == {"prompts_differ": 5, "roles_do_not_alternate": 4, "empty_answer": 4}
    assert sum("roles_do_not_alternate" in reject.reason + reject.detail for reject in feedback.rejects) == 9
    by_origin = {item.origin: item for item in feedback.items}
    checked = 0
    for number, line in enumerate(gzip.decompress(path.read_bytes()).decode().split("\n"), start=1):
        item = by_origin.get(f"{path.name}:{number}")
        if item is None:
            continue
        values = json.loads(line)
        assert isinstance(item, Pair)
        assert second_parser(values["chosen"]) == [*item.prompt, *item.chosen]
        assert second_parser(values["rejected"]) == [*item.prompt, *item.rejected]
        checked += 1
    assert checked == 2299


def second_parser(text: str) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for paragraph in text.split("\n\n"):
        for name, role in (("Human:", "user"), ("Assistant:", "assistant")):
            if paragraph.startswith(name) and (turns or paragraph != text):
                turns.append({"role": role, "content": paragraph[len(name) :].removeprefix(" ")})
                break
        else:
            if turns:
                turns[-1]["content"] += "\n\n" + paragraph
    return [{**turn, "content": turn["content"].rstrip()} for turn in turns]


# --- labels -----------------------------------------------------------------------------------


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
def test_accepted_labels(value, label):
    assert read_label(value, ()) is label


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
        ("nan", "label_not_accepted"),
        ("1e0", "label_not_accepted"),
        ({}, "label_not_accepted"),
        (-1, "label_not_binary"),
        (0.5, "label_not_binary"),
        ("-1", "label_not_binary"),
        (10**400, "label_not_binary"),
    ],
)
def test_rejected_labels(value, reason):
    with pytest.raises(RowFault) as fault:
        read_label(value, other_numbers([value]))
    assert fault.value.reason == reason


def test_stars_make_every_number_of_the_column_unusable():
    labels = [5, 1, "1", 0, True, 4.0]
    others = other_numbers(labels)
    assert others == ("5", "4.0")
    for label in (5, 1, "1", 0):
        with pytest.raises(RowFault, match="numbers other than 1 and 0") as fault:
            read_label(label, others)
        assert fault.value.reason == "label_not_binary"
    assert read_label(True, others) is True


# --- tables -----------------------------------------------------------------------------------


def read(path: Path, *, as_text: bool = False):
    return table.read_file(path, as_text=as_text)


def reasons(path: Path, *, as_text: bool = False) -> list[tuple[str, int]]:
    return [(reject.reason, reject.rows) for reject in read(path, as_text=as_text).rejects]


def test_text_prompts_become_user_turns_unless_text_is_asked_for(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "Q", "completion": " A ", "label": True, "stars": 3})
    feedback = read(path)
    assert feedback.items == [Output((user("Q"),), (bot(" A "),), True, "a.jsonl:1", "Q")]
    assert any("read as one user turn" in note for note in feedback.notes)
    assert "Columns ignored: stars." in feedback.notes
    assert read(path, as_text=True).items == [Output("Q", " A ", True, "a.jsonl:1", "Q")]


def test_turn_markers_inside_a_text_prompt_are_warned_of(tmp_path):
    row = {"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": "A", "rejected": "B"}
    feedback = read(write_lines(tmp_path / "a.jsonl", row))
    assert "1 prompts hold turn markers of hh-rlhf" in feedback.warnings[0]


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
        ({"prompt": [user("Q"), user("R")], "completion": "A", "label": True}, "roles_do_not_alternate"),
        (
            {"prompt": [*P, {"role": "system", "content": "S"}], "completion": "A", "label": True},
            "roles_do_not_alternate",
        ),
        (
            {"prompt": [{"role": "tool", "content": "S"}, *P], "completion": "A", "label": True},
            "role_not_accepted",
        ),
        ({"prompt": [{"role": "system", "content": ""}, *P], "completion": "A", "label": True}, "empty_turn"),
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
    assert reasons(path, as_text=True) == [("not_text", 1), ("not_text", 1)]
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
    assert found == [("a.csv:6", "wrong_cell_count"), ("a.csv:7", "missing_field")]


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
    assert [item.origin for item in feedback.items] == ["a.csv:2", "a.csv:4"]
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
    assert [record.origin for record in json_line_records(path, "a")] == ["a:1", "a:3"]
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
        (broken("a.csv", b"prompt,completion,label\n"), "a.csv has the right columns and no rows"),
        (broken("a.jsonl", b"hello\nthere\n"), "line 1: Expecting value"),
        (broken("a.json", b"[1, 2"), "is not JSON"),
        (broken("a.json", b"[1, 2]"), "JSON int instead of an object"),
        (broken("a.jsonl", b"[" * 100_000), "line 1"),
        (broken("a.jsonl.gz", gzip.compress(ROW * 99)[:-12]), "truncated or damaged gzip"),
        (broken("a.jsonl", ROW.decode().encode("utf-16")), "is UTF-16"),
        (broken("a.parquet", b"PAR1 not really"), "cannot be read as Parquet"),
        (broken("a.txt", ROW), "no suffix that tells its format"),
        (broken("a.csv", b'prompt,completion,label\nQ,"A,true\nQ,A,true\n'), "line 2 is never closed"),
        (broken("a.csv", b"prompt,prompt,label\nQ,A,true\n"), "more than one column prompt"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path, make, says):
    with pytest.raises(BadInput, match=re.escape(says)) as error:
        read(make(tmp_path))
    assert "\n" not in str(error.value)


# --- the Hub ----------------------------------------------------------------------------------


def test_a_dataset_of_the_hub_goes_the_same_way(tmp_path, monkeypatch):
    """`datasets` reads a local folder as it reads a Hub id."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    parquet_of(
        folder / "train.parquet",
        [{"prompt": "Q", "completion": "A", "label": True, "more": 1}, {"prompt": "Q"}],
    )
    feedback = table.read_hub(str(folder), as_text=False)
    assert feedback.items == [Output((user("Q"),), (bot("A"),), True, f"{folder}:row 1", "Q")]
    assert [(reject.origin, reject.reason) for reject in feedback.rejects] == [(f"{folder}:row 2", "label_missing")]


def test_offline_is_known_without_asking(monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda endpoint: pytest.fail("asked"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.why_unreachable() == "HF_HUB_OFFLINE is set"
    with pytest.raises(hub.Unreachable):
        hub.snapshot("Anthropic/hh-rlhf-that-no-cache-has", ["harmless-base"])
    with pytest.raises(BadInput, match="the Hub cannot be reached"):
        hub.table_rows("owner/name", ["prompt"])


def test_an_address_that_does_not_answer_is_offline_quickly():
    assert not hub.answers("http://127.0.0.1:9", seconds=2)
    assert not hub.answers("nonsense", seconds=2)


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (404, True), (429, True), (403, False), (503, False)])
def test_a_wall_or_a_hub_that_is_down_is_offline(status, reachable):
    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.answers(f"http://127.0.0.1:{server.server_port}") is reachable


def test_what_names_a_source():
    assert is_hub_id("owner/name")
    assert is_hub_id("owner/v1.5")
    assert not any(map(is_hub_id, ("a/b/c", "./x", "x", "owner/a.csv", "a.csv", "owner/")))
    names = ("hh-rlhf", "Anthropic/hh-rlhf", "logs/thumbs.csv.gz", "a.parquet", "owner/v1.5")
    assert [default_name(name) for name in names] == ["hh-rlhf", "hh-rlhf", "thumbs", "a", "v1.5"]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("nothing", {}, "no known source"),
        ("missing.csv", {}, "missing.csv does not exist"),
        ("a/b/c", {}, "does not exist"),
        ("hh-rlhf", {"as_text": True}, "--text does not go with hh-rlhf"),
        ("missing.csv", {"from_path": "x"}, "--from goes with hh-rlhf only"),
        ("missing.csv", {"subsets": ("x",)}, "--subset goes with hh-rlhf only"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, source, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=re.escape(says)):
        read_source(source, **{"from_path": None, "subsets": (), "as_text": False, **options})


def test_importing_the_sources_imports_nothing_heavy():
    code = (
        "import sys, kto_cli.workflows.binarize, kto_cli.sources.select, kto_cli.data_dir\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_rejects_are_never_items(tmp_path):
    feedback = read(write_lines(tmp_path / "a.jsonl", "x", {"prompt": "Q", "completion": "A", "label": True}))
    assert not any(isinstance(item, Reject) for item in feedback.items)
