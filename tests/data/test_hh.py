"""hh-rlhf: every way a pair can fail has its reason, nothing whole is changed, and its folders tell the split."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from binarizing import Given, bot, read, user, write_lines
from shared import shared

from kto_cli.common.errors import BadInput
from kto_cli.data.formats import hh_rlhf
from kto_cli.data.formats.listing import raw_files
from kto_cli.data.formats.records import Pair, RowFault

ASK = "\n\nHuman: Hi\n\nAssistant:"
GOOD = {"chosen": f"{ASK} Hello!", "rejected": f"{ASK} Go away."}


def read_hh(folder: Path, place: Path, subsets: tuple[str, ...] = ()) -> Given:
    return read(folder / "spool", f"hh-rlhf:{place}", subsets=subsets)


# --- one pair ---------------------------------------------------------------------------------


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
    assert "also roles_do_not_alternate: turn 3 of 3 in chosen is the assistant's" in fault.value.detail


# --- files ------------------------------------------------------------------------------------


def test_bad_lines_count_two_rows_and_keep_their_line_number(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", GOOD, "", "{broken", "[1]", {"chosen": "x"}, GOOD)
    given = read_hh(tmp_path, path)
    assert [item.origin for item in given.items if isinstance(item, Pair)] == ["a.jsonl:1", "a.jsonl:6"]
    assert [(reject.origin, reject.reason, reject.rows) for reject in given.rejects] == [
        ("a.jsonl:3", "not_json", 2),
        ("a.jsonl:4", "not_an_object", 2),
        ("a.jsonl:5", "missing_field", 2),
    ]
    assert given.rejects[0].raw == "{broken"
    assert (given.rows_in, given.lines_in) == (10, 5)
    assert given.labels == [1, 0, 1, 0]


def hub_layout(folder: Path) -> Path:
    for subset in ("harmless-base", "helpful-base"):
        write_lines(folder / subset / "train.jsonl", GOOD)
        write_lines(folder / subset / "test.jsonl", GOOD)
    write_lines(folder / "helpful-online" / "test.jsonl", GOOD)
    write_lines(folder / "red-team-attempts" / "red_team_attempts.jsonl", {"transcript": "x"})
    write_lines(folder / ".cache" / "huggingface" / "x.jsonl", GOOD)
    return folder


def test_folder_gives_subsets_and_the_official_split(tmp_path):
    files = raw_files(hub_layout(tmp_path / "hh"), hh_rlhf.SOURCE)
    assert [(file.name, file.subset, file.split) for file in files] == [
        ("harmless-base/test.jsonl", "harmless-base", "validation"),
        ("harmless-base/train.jsonl", "harmless-base", None),
        ("helpful-base/test.jsonl", "helpful-base", "validation"),
        ("helpful-base/train.jsonl", "helpful-base", None),
        # a test file without a train file beside it is what there is to learn from
        ("helpful-online/test.jsonl", "helpful-online", None),
    ]
    assert {file.subset for file in raw_files(tmp_path / "hh", hh_rlhf.SOURCE, ["helpful-base"])} == {"helpful-base"}
    given = read_hh(tmp_path, tmp_path / "hh")
    assert "Skipping red-team-attempts: no feedback in it." in given.notes
    assert given.lines_in == 5


@pytest.mark.parametrize(
    ("make", "subsets", "says"),
    [
        (lambda folder: folder / "none", (), "does not exist"),
        (lambda folder: folder, (), "holds no file of hh-rlhf (*.jsonl"),
        (hub_layout, ("harmful",), "no subset harmful. It has: harmless-base"),
        (lambda folder: hub_layout(folder) / "red-team-attempts", (), "it has no column chosen or rejected"),
        (lambda folder: write_lines(folder / "a.jsonl", GOOD), ("a",), "is one file"),
        (lambda folder: write_lines(folder / "a.jsonl", "x", "y"), (), "No line of"),
        (lambda folder: write_lines(folder / "a.jsonl", ""), (), "is empty"),
    ],
)
def test_places_without_pairs_are_refused(tmp_path, make, subsets, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        read_hh(tmp_path, make(tmp_path), subsets)


def test_real_file_is_accounted_for_and_parsed_as_a_second_parser_does(tmp_path):
    """2,312 pairs: 5 with differing prompts, 4 more with faulty roles, 4 with an empty answer.

    The second parser walks over paragraphs; the first splits by a regular expression.
    """
    path = shared("data", "hh-rlhf", "harmless-base_test.jsonl.gz")
    given = read_hh(tmp_path, path)
    assert (given.lines_in, given.rows_in) == (2312, 4624)
    reasons = Counter(reject.reason for reject in given.rejects)
    assert reasons == {"prompts_differ": 5, "roles_do_not_alternate": 4, "empty_answer": 4}
    assert sum("roles_do_not_alternate" in reject.reason + reject.detail for reject in given.rejects) == 9
    by_origin = {item.origin: item for item in given.items if isinstance(item, Pair)}
    checked = 0
    for number, line in enumerate(gzip.decompress(path.read_bytes()).decode().split("\n"), start=1):
        item = by_origin.get(f"{path.name}:{number}")
        if item is None:
            continue
        values = json.loads(line)
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
