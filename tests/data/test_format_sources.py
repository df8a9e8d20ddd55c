"""The sources trl, halos and llama-factory: what each record gives, every fault by its reason, every row counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_feedback import FORMS, Made, Recorder, binarize, made
from made_feedback import write as write_made
from shared import shared

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats import halos, llama_factory, trl, ultrafeedback
from kto_cli.data.formats.llama_factory_info import INFO
from kto_cli.data.formats.records import VALIDATION, Dropped, Output, Pair, Reject, Result, Scored
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import UNPARSED, Record, parsed

CHAT = BinarizeConfig(("x",))
TEXT = BinarizeConfig(("x",), text=True)
FILE = RawFile(Path("f.jsonl"), "f.jsonl")
SOURCES = (trl.SOURCE, halos.SOURCE, llama_factory.SOURCE)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def one(source: Source, values: Any, config: BinarizeConfig = CHAT, file: RawFile = FILE) -> Result:
    """The one result of a record."""
    results = list(source.parse(Record("f:1", values), file, config))
    assert len(results) == 1
    return results[0]


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# --- trl --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [user("Q")], "chosen": "A", "rejected": [bot("B")]},
        {"prompt": [user("Q")], "chosen": [user("Q"), bot("A")], "rejected": [bot("B")]},
        {"prompt": None, "chosen": [user("Q"), bot("A")], "rejected": [user("Q"), bot("B")]},
        {"chosen": [user("Q"), bot("A")], "rejected": [user("Q"), bot("B")], "score": 3},
    ],
)
def test_trl_pairs_in_every_spelling_are_the_same_pair(values):
    assert one(trl.SOURCE, values) == Pair((user("Q"),), (bot("A"),), (bot("B"),), "f:1", "Q")


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Q", "completion": "A", "label": True},
        {"prompt": [user("Q")], "completion": [bot("A")], "label": " TRUE "},
        {"messages": [user("Q"), bot("A")], "label": True},
        {"prompt": "Q", "completion": "A", "label": True, "chosen": None},
    ],
)
def test_trl_outputs_in_every_spelling_are_the_same_output(values):
    assert one(trl.SOURCE, values) == Output((user("Q"),), (bot("A"),), True, "f:1", "Q")


def test_trl_texts_stay_texts_where_asked():
    values = {"prompt": " Q ", "completion": " A", "label": False}
    assert one(trl.SOURCE, values, TEXT) == Output(" Q ", " A", False, "f:1", " Q ")
    result = one(trl.SOURCE, {"prompt": [user("Q")], "completion": "A", "label": False}, TEXT)
    assert isinstance(result, Reject)
    assert result.reason == "not_text"


@pytest.mark.parametrize(
    ("label", "score"),
    [(1, 1.0), (0, 0.0), (-1, -1.0), ("1", 1.0), (" 0.0 ", 0.0), (4.5, 4.5), ("+3", 3.0)],
)
def test_trl_leaves_a_number_to_the_whole_column(label, score):
    result = one(trl.SOURCE, {"prompt": "Q", "completion": "A", "label": label})
    assert result == Scored((user("Q"),), (bot("A"),), score, "f:1", "Q", None, by_label=True)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (None, "label_missing"),
        (float("nan"), "label_missing"),
        (" ", "label_missing"),
        ("yes", "label_not_accepted"),
        ("１", "label_not_accepted"),
        ([True], "label_not_accepted"),
        ({"value": True}, "label_not_accepted"),
        (10**400, "label_not_accepted"),
        (float("inf"), "label_not_accepted"),
        ("NaN", "label_missing"),
    ],
)
def test_labels_that_say_nothing_are_rejected_by_every_source(label, reason):
    rows = {
        "trl": {"prompt": "Q", "completion": "A", "label": label},
        "halos": {"type": "binary_feedback", "prompt": [user("Q")], "output": [bot("A")], "label": label},
        "llama-factory": {"instruction": "Q", "output": "A", "kto_tag": label},
    }
    for source in SOURCES:
        result = one(source, rows[source.name])
        assert isinstance(result, Reject)
        assert (result.reason, result.rows, result.origin) == (reason, 1, "f:1")
        assert repr(json.loads(result.raw)) == repr(rows[source.name])  # NaN equals nothing


@pytest.mark.parametrize(
    ("values", "reason", "rows"),
    [
        ({"completion": "A", "label": True}, "missing_field", 1),
        ({"prompt": "Q", "label": True}, "missing_field", 1),
        ({"prompt": "Q", "completion": 3, "label": True}, "not_messages", 1),
        ({"prompt": " ", "completion": "A", "label": True}, "empty_prompt", 1),
        ({"prompt": "Q", "completion": "\n", "label": True}, "empty_answer", 1),
        ({"prompt": "Q", "completion": "\ud800", "label": True}, "bad_text", 1),
        ({"prompt": "Q", "completion": [bot("A"), bot("B")], "label": True}, "answer_not_one_turn", 1),
        ({"prompt": [bot("Q")], "completion": "A", "label": True}, "roles_do_not_alternate", 1),
        ({"prompt": [{"role": "tool", "content": "Q"}], "completion": "A", "label": True}, "roles_do_not_alternate", 1),
        ({"messages": [], "label": True}, "roles_do_not_alternate", 1),
        ({"prompt": "Q", "chosen": "A"}, "missing_field", 2),
        ({"prompt": "Q", "rejected": "A"}, "missing_field", 2),
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "answers_identical", 2),
        ({"chosen": "A", "rejected": "B"}, "missing_field", 2),
        ({"chosen": [user("Q"), bot("A")], "rejected": [user("R"), bot("B")]}, "prompts_differ", 2),
    ],
)
def test_every_fault_of_a_trl_row_has_its_reason_and_counts_its_rows(values, reason, rows):
    result = one(trl.SOURCE, values)
    assert isinstance(result, Reject)
    assert (result.reason, result.rows) == (reason, rows)
    assert result.detail


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_broken_lines_count_what_they_were_meant_as(source):
    answers = ("output_A", "output_B") if source is halos.SOURCE else ("chosen", "rejected")
    for raw, rows in (("{broken", 1), (f'{{"{answers[0]}": 1, "', 2), (f'{{"{answers[1]}": 1, "', 2)):
        (result,) = source.parse(Record("f:1", None, raw, "not_json", "why"), FILE, CHAT)
        assert result == Reject("f:1", "not_json", "why", rows, raw)


def test_lines_that_nobody_parsed_yet_are_parsed():
    assert parsed(Record("f:1", None, '{"a": 1}', UNPARSED)).values == {"a": 1}
    for raw, reason in (("{broken", "not_json"), ("[1]", "not_an_object"), ("[" * 100_000, "not_json")):
        record = parsed(Record("f:1", None, raw, UNPARSED))
        assert (record.values, record.reason, record.raw) == (None, reason, raw)
        assert record.detail
    for known in (Record("f:1", {"a": 1}, "{"), Record("f:1", None, "{}", "line_too_long", "64 MiB")):
        assert parsed(known) is known


def test_the_openai_formatting_is_chat_too(tmp_path):
    entry = {"file_name": "a.json", "formatting": "openai", "columns": {"messages": "messages", "kto_tag": "good"}}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    row = {"messages": [user("Q"), {**bot("A"), "tool_calls": []}], "good": True}
    write(tmp_path / "a.json", [row])
    write(tmp_path / INFO, {"mine": {**entry, "tags": tags}})
    (file,) = llama_factory.raw_files(tmp_path)
    assert one(llama_factory.SOURCE, row, CHAT, file) == Output((user("Q"),), (bot("A"),), True, "f:1", "Q")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_faults_that_a_reader_found_go_on_as_they_are(source):
    (result,) = source.parse(Record("f:3", None, '["a"]', "wrong_cell_count", "1 cell, not 3"), FILE, CHAT)
    assert result == Reject("f:3", "wrong_cell_count", "1 cell, not 3", 1, '["a"]')


def test_trl_split_is_the_file_s():
    file = RawFile(Path("test.jsonl"), "test.jsonl", "", VALIDATION)
    for values in (
        {"prompt": "Q", "completion": "A", "label": True},
        {"prompt": "Q", "completion": "A", "label": 1},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
    ):
        result = one(trl.SOURCE, values, CHAT, file)
        assert isinstance(result, (Output, Scored, Pair))
        assert result.split == VALIDATION


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"a": 1}, "has the columns a"),
        ({"prompt": "Q", "completion": "A"}, "kto needs paired rows"),
        ({"prompt": "Q", "completion": "A", "label": 1, "chosen": "A", "rejected": "B"}, "both paired and unpaired"),
        ({"chosen": "A", "rejected": "B"}, "Add a column prompt"),
        ({"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "B"}, "Run: kto binarize hh-rlhf"),
    ],
)
def test_trl_refuses_wrong_columns(tmp_path, row, says):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=says):
        trl.check(list(row), RawFile(path, path.name), CHAT)


def test_trl_notes_name_ignored_columns_and_how_text_prompts_are_read(tmp_path):
    row = {"prompt": "Q", "completion": "A", "label": True, "user": 3}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    ignored, prompts = trl.check(list(row), RawFile(path, path.name), CHAT)
    assert ignored == "Columns ignored: user."
    assert "one user turn" in prompts
    assert trl.check(list(row), RawFile(path, path.name), TEXT) == [ignored]


# --- halos ------------------------------------------------------------------------------------


def binary(**extra: Any) -> dict[str, Any]:
    """As train/label.py writes it."""
    values = {"prompt_id": "7", "prompt": [user("Q")], "output": [bot("A")], "label": 1, "reward": 0.5}
    return {**values, "type": "binary_feedback", **extra}


def pairwise(label: Any, reward_a: Any, reward_b: Any, **extra: Any) -> dict[str, Any]:
    values = {"prompt_id": "7", "prompt": [user("Q")], "output_A": [bot("A")], "output_B": [bot("B")]}
    rewards = {"label": label, "reward_A": reward_a, "reward_B": reward_b, "reward_difference": 1.0}
    return {**values, **rewards, "type": "pairwise_feedback", **extra}


def test_halos_binary_labels():
    assert one(halos.SOURCE, binary(label=True)) == Output((user("Q"),), (bot("A"),), True, "f:1", "Q")
    for label in (0, 1, 2):
        result = one(halos.SOURCE, binary(label=label))
        assert result == Scored((user("Q"),), (bot("A"),), float(label), "f:1", "Q", None, by_label=True)


def scalar(reward: Any, **extra: Any) -> dict[str, Any]:
    """As train/label.py writes it with --feedback_type scalar: no label."""
    values = {"prompt_id": "7", "prompt": [user("Q")], "output": [bot("A")], "reward": reward}
    return {**values, "type": "scalar_feedback", **extra}


@given(
    st.floats(-5, 5), st.floats(-5, 5), st.booleans(), st.sampled_from(["train", "test", None]), st.sampled_from([1, 0])
)
@settings(max_examples=60, deadline=None)
def test_halos_pairs_prefer_what_the_authors_code_prefers(reward_a, reward_b, as_bool, split, wrong):
    """label.py: label = int(reward_A > reward_B); get_feedback: label 1 prefers A, else B."""
    label = int(reward_a > reward_b)
    values = pairwise(bool(label) if as_bool else label, reward_a, reward_b)
    if split:
        values["split"] = split
    result = one(halos.SOURCE, values)
    if reward_a == reward_b:
        assert result == Dropped("f:1", "tie", "both outputs have the same reward", 2)
        return
    better, worse = (bot("A"), bot("B")) if label == 1 else (bot("B"), bot("A"))
    assert result == Pair((user("Q"),), (better,), (worse,), "f:1", "Q", VALIDATION if split == "test" else None)
    contradicted = one(halos.SOURCE, values | {"label": 1 - label})
    assert isinstance(contradicted, Reject)
    assert (contradicted.reason, contradicted.rows) == ("label_contradicts_rewards", 2)


def test_halos_pairs_without_rewards_go_by_the_label():
    result = one(halos.SOURCE, pairwise("0", None, None))
    assert isinstance(result, Pair)
    assert (result.chosen, result.rejected) == ((bot("B"),), (bot("A"),))


@pytest.mark.parametrize(
    ("values", "reason", "rows"),
    [
        (scalar("high"), "score_not_accepted", 1),
        (scalar(float("inf")), "score_not_accepted", 1),
        (scalar(True), "score_not_accepted", 1),
        (scalar(10**400), "score_not_accepted", 1),
        (scalar(1, output=None), "missing_field", 1),
        (scalar(1, output=[]), "empty_answer", 1),
        (scalar(1, prompt=None), "missing_field", 1),
        (binary(type="samples"), "type_not_accepted", 1),
        (binary(type=None), "type_not_accepted", 1),
        (binary(type=["binary_feedback"]), "type_not_accepted", 1),
        (pairwise(1, 2, 1, type="ranked"), "type_not_accepted", 2),
        (binary(output=None), "missing_field", 1),
        (binary(prompt=None), "missing_field", 1),
        (binary(output=[]), "empty_answer", 1),
        (binary(prompt=[user("Q"), bot("A")]), "roles_do_not_alternate", 1),
        (pairwise(2, 2, 1), "label_not_binary", 2),
        (pairwise(-1, 1, 2), "label_not_binary", 2),
        (pairwise(None, 2, 1), "label_missing", 2),
        (pairwise(1, 10**400, 1, output_B=None), "missing_field", 2),
        (pairwise(0, 10**400, 1), "label_contradicts_rewards", 2),
        (pairwise(1, 2, 1, output_B=[bot("A")]), "answers_identical", 2),
    ],
)
def test_every_fault_of_a_halos_row_has_its_reason(values, reason, rows):
    result = one(halos.SOURCE, values)
    assert isinstance(result, Reject)
    assert (result.reason, result.rows) == (reason, rows)


@pytest.mark.parametrize(("reward", "score"), [(1, 1.0), (-0.25, -0.25), ("7.5", 7.5), (0, 0.0)])
def test_halos_rewards_are_scores_and_never_labels(reward, score):
    """A reward of 1 is no label: `--threshold` decides what it is, as label.py's --threshold does."""
    result = one(halos.SOURCE, scalar(reward))
    assert result == Scored((user("Q"),), (bot("A"),), score, "f:1", "Q")
    assert isinstance(result, Scored)
    assert not result.by_label
    validation = one(halos.SOURCE, scalar(reward, split="test"))
    assert isinstance(validation, Scored)
    assert validation.split == VALIDATION


@pytest.mark.parametrize("reward", [None, float("nan"), " "])
def test_halos_rewards_that_are_missing_say_nothing(reward):
    assert one(halos.SOURCE, scalar(reward)) == Dropped("f:1", "no_score", "it has no reward", 1)


def test_halos_of_earlier_versions_has_texts():
    values = {"type": "binary_feedback", "instruction": "Q", "output": "A", "label": True}
    assert one(halos.SOURCE, values) == Output((user("Q"),), (bot("A"),), True, "f:1", "Q")
    assert one(halos.SOURCE, values, TEXT) == Output("Q", "A", True, "f:1", "Q")


def test_halos_columns():
    assert halos.check(list(binary()), FILE, CHAT) == []
    assert halos.check(list(pairwise(1, 2, 1)), FILE, CHAT) == []
    assert halos.check(list(scalar(1)), FILE, CHAT) == []
    for missing in ({"type"}, {"prompt"}, {"label", "reward"}, {"output"}):
        with pytest.raises(BadInput, match=r"label\.py writes it"):
            halos.check([name for name in binary() if name not in missing], FILE, CHAT)


# --- llama-factory ----------------------------------------------------------------------------


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


@pytest.mark.parametrize(
    ("values", "prompt"),
    [
        ({"conversations": [human("Q"), gpt("A")], "kto_tag": True}, (user("Q"),)),
        ({"messages": [user("Q"), bot("A")], "label": True}, (user("Q"),)),
        ({"conversations": [human("Q"), gpt("A")], "kto_tag": True, "system": "S"}, (system("S"), user("Q"))),
        ({"conversations": [human("Q"), gpt("A")], "kto_tag": True, "system": ""}, (user("Q"),)),
        (
            {"conversations": [{"from": "system", "value": "S"}, human("Q"), gpt("A")], "kto_tag": True, "system": "T"},
            (system("S"), user("Q")),
        ),
        (
            {"conversations": [{"from": "system", "value": ""}, human("Q"), gpt("A")], "kto_tag": True},
            (user("Q"),),
        ),
        (
            {"conversations": [human("P"), gpt("O"), human("Q"), gpt("A")], "kto_tag": True, "tools": "[]"},
            (user("P"), bot("O"), user("Q")),
        ),
        ({"instruction": "Q", "input": "", "output": "A", "kto_tag": True}, (user("Q"),)),
        ({"instruction": "Q", "input": "I", "output": "A", "kto_tag": True}, (user("Q\nI"),)),
        ({"instruction": "", "input": "I", "output": "A", "kto_tag": True}, (user("I"),)),
        (
            {"instruction": "Q", "history": [["P", "O"]], "system": "S", "output": "A", "kto_tag": True},
            (system("S"), user("P"), bot("O"), user("Q")),
        ),
    ],
)
def test_llama_factory_tagged_rows(values, prompt):
    group = next(turn["content"] for turn in prompt if turn["role"] == "user")
    group = f"S\n\n{group}" if prompt[0]["role"] == "system" else group
    assert one(llama_factory.SOURCE, values) == Output(prompt, (bot("A"),), True, "f:1", group)


@pytest.mark.parametrize(
    "values",
    [
        {"conversations": [human("Q")], "chosen": gpt("A"), "rejected": gpt("B")},
        {"messages": [user("Q")], "chosen": bot("A"), "rejected": [bot("B")]},
        {"instruction": "Q", "input": "", "chosen": "A", "rejected": "B"},
    ],
)
def test_llama_factory_pairs(values):
    assert one(llama_factory.SOURCE, values) == Pair((user("Q"),), (bot("A"),), (bot("B"),), "f:1", "Q")


def test_llama_factory_texts_stay_texts_where_asked():
    values = {"instruction": "Q", "input": "I", "output": "A", "kto_tag": "false"}
    assert one(llama_factory.SOURCE, values, TEXT) == Output("Q\nI", "A", False, "f:1", "Q\nI")


@pytest.mark.parametrize(
    ("values", "reason", "rows"),
    [
        ({"conversations": [human("Q"), gpt("A")]}, "label_missing", 1),
        ({"conversations": None, "kto_tag": True}, "missing_field", 1),
        ({"conversations": "Q", "kto_tag": True}, "not_messages", 1),
        ({"conversations": [human("Q"), {"from": "gpt"}], "kto_tag": True}, "not_text", 1),
        (
            {"conversations": [human("Q"), {"from": "function_call", "value": "A"}], "kto_tag": 1},
            "tools_not_accepted",
            1,
        ),
        (
            {"conversations": [human("Q"), {"from": "observation", "value": "x"}, gpt("A")], "kto_tag": True},
            "roles_do_not_alternate",
            1,
        ),
        ({"messages": [{"role": "tool", "content": "Q"}, bot("A")], "label": True}, "roles_do_not_alternate", 1),
        ({"conversations": [gpt("A"), human("R")], "kto_tag": True}, "roles_do_not_alternate", 1),
        ({"conversations": [human("Q"), human("A")], "kto_tag": True}, "answer_not_one_turn", 1),
        ({"conversations": [human("Q"), gpt(" ")], "kto_tag": True}, "empty_answer", 1),
        (
            {"conversations": [human("Q"), gpt("A")], "kto_tag": True, "tools": '[{"type": "f"}]'},
            "tools_not_accepted",
            1,
        ),
        ({"conversations": [human("Q"), gpt("A")], "kto_tag": True, "images": ["a.png"]}, "media_not_accepted", 1),
        ({"messages": [user("Q"), {**bot("A"), "tool_calls": [{"id": 1}]}], "label": True}, "tools_not_accepted", 1),
        ({"conversations": [human("Q")], "chosen": gpt("A"), "rejected": None}, "missing_field", 2),
        (
            {"conversations": [human("Q"), gpt("A")], "chosen": gpt("A"), "rejected": gpt("B")},
            "roles_do_not_alternate",
            2,
        ),
        ({"instruction": " ", "output": "A", "kto_tag": True}, "empty_prompt", 1),
        ({"instruction": None, "output": "A", "kto_tag": True}, "missing_field", 1),
        ({"instruction": "Q", "output": None, "kto_tag": True}, "missing_field", 1),
        ({"instruction": "Q", "history": [["P"]], "output": "A", "kto_tag": True}, "not_messages", 1),
        ({"instruction": "Q", "history": "P", "output": "A", "kto_tag": True}, "not_messages", 1),
        ({"other": 1}, "missing_field", 1),
    ],
)
def test_every_fault_of_a_llama_factory_row_has_its_reason(values, reason, rows):
    result = one(llama_factory.SOURCE, values)
    assert isinstance(result, Reject)
    assert (result.reason, result.rows) == (reason, rows)


RENAMED = {
    "file_name": "sub/a.json",
    "formatting": "sharegpt",
    "columns": {"messages": "talk", "kto_tag": "liked", "system": "setting"},
    "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "customer", "assistant_tag": "agent"},
}


def said(who: str, says: str) -> dict[str, str]:
    return {"who": who, "says": says}


def test_dataset_info_beside_the_file_or_in_its_place_renames_columns(tmp_path):
    row = {"talk": [said("customer", "Q"), said("agent", "A")], "liked": False, "setting": "S", "kto_tag": True}
    path = write(tmp_path / "sub" / "a.json", [row])
    info = write(tmp_path / INFO, {"mine": RENAMED, "hub": {"hf_hub_url": "a/b", "ranking": True}, "sft": {}})
    expected = Output((system("S"), user("Q")), (bot("A"),), False, "f:1", "S\n\nQ")
    first = {**row, "talk": [said("system", "S"), *row["talk"]], "setting": None}
    for place in (tmp_path, info):
        (file,) = llama_factory.raw_files(place)
        assert file == RawFile(path, "sub/a.json", "mine")
        assert one(llama_factory.SOURCE, row, CHAT, file) == expected
        assert one(llama_factory.SOURCE, first, CHAT, file) == expected  # a tag that is not named has its default
        described, ignored = llama_factory.check(list(row), file, CHAT)
        assert INFO in described
        assert ignored == "Columns ignored: kto_tag."
    write(tmp_path / "sub" / INFO, {"mine": {**RENAMED, "file_name": "a.json"}})
    (file,) = llama_factory.raw_files(path)
    assert one(llama_factory.SOURCE, row, CHAT, file) == expected
    with pytest.raises(BadInput, match=f"and not liked, which {INFO} names"):
        llama_factory.check(["talk", "kto_tag"], file, CHAT)


def test_columns_that_dataset_info_does_not_name_are_not_read(tmp_path):
    """As LLaMA-Factory does: with `columns`, what they leave out is not there."""
    row = {"instruction": "Q", "input": "I", "output": "A", "kto_tag": True, "system": "S"}
    write(tmp_path / "a.json", [row])
    columns = {"prompt": "instruction", "response": "output", "kto_tag": "kto_tag"}
    write(tmp_path / INFO, {"mine": {"file_name": "a.json", "columns": columns}})
    (file,) = llama_factory.raw_files(tmp_path)
    assert one(llama_factory.SOURCE, row, CHAT, file) == Output((user("Q"),), (bot("A"),), True, "f:1", "Q")


def test_subsets_are_entries_of_dataset_info(tmp_path):
    columns = {"prompt": "instruction", "chosen": "good", "rejected": "bad"}
    for name in ("train", "validation", "other"):
        write(tmp_path / f"{name}.json", [{"instruction": "Q", "good": "A", "bad": "B"}])
    entries = {
        name: {"file_name": f"{name}.json", "ranking": True, "columns": columns}
        for name in ("train", "validation", "other")
    }
    write(tmp_path / INFO, entries)
    files = llama_factory.raw_files(tmp_path)
    assert [(file.subset, file.split) for file in files] == [
        ("train", None),
        ("validation", VALIDATION),
        ("other", None),
    ]
    (file,) = llama_factory.raw_files(tmp_path, ["other"])
    result = one(llama_factory.SOURCE, {"instruction": "Q", "good": "A", "bad": "B"}, CHAT, file)
    assert result == Pair((user("Q"),), (bot("A"),), (bot("B"),), "f:1", "Q")
    broken = list(llama_factory.SOURCE.parse(Record("f:1", None, '{"good": ', "not_json", "why"), file, CHAT))
    assert [(reject.reason, reject.rows) for reject in broken] == [("not_json", 2)]


@pytest.mark.parametrize(
    ("info", "subsets", "says"),
    [
        ({"a": {"file_name": "a.json"}}, (), "describes no feedback"),
        ({"a": RENAMED}, ("b",), "no feedback called b. It has: a"),
        ({"a": RENAMED}, (), "is missing"),
        ({"a": RENAMED | {"file_name": "../x.json"}}, (), "outside of its folder"),
        ({"a": RENAMED | {"file_name": None}}, (), "is not named"),
        ({"a": RENAMED | {"file_name": "a.json"}, "b": RENAMED | {"file_name": "a.json"}}, (), "as both a and b"),
        ({"a": RENAMED | {"file_name": "a.json", "tags": {"role_tag": 3}}}, (), "are not names of columns"),
        (["a"], (), "does not map names"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(tmp_path, info, subsets, says):
    write(tmp_path / INFO, info)
    write(tmp_path / "a.json", [])

    def opened() -> list[list[str]]:
        files = llama_factory.raw_files(tmp_path, subsets)
        return [llama_factory.check(["talk", "liked", "setting"], file, CHAT) for file in files]

    with pytest.raises(BadInput, match=says):
        opened()


def test_one_file_described_in_two_ways_has_to_be_chosen(tmp_path):
    path = write(tmp_path / "a.json", [])
    other = {"file_name": "a.json", "columns": {"prompt": "q", "response": "a", "kto_tag": "liked"}}
    write(tmp_path / INFO, {"one": RENAMED | {"file_name": "a.json"}, "two": other})
    with pytest.raises(BadInput, match=r"in several ways \(one, two\)"):
        llama_factory.check(["q", "a", "liked"], RawFile(path, "a.json"), CHAT)
    (file,) = llama_factory.raw_files(tmp_path, ["two"])
    assert one(llama_factory.SOURCE, {"q": "Q", "a": "A", "liked": True}, CHAT, file) == Output(
        (user("Q"),), (bot("A"),), True, "f:1", "Q"
    )


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["text"], "has the columns text"),
        (["instruction", "input", "output"], "has the columns instruction"),
        (["instruction", "kto_tag"], "not response"),
        (["conversations", "chosen"], "not rejected"),
        (["conversations", "kto_tag", "chosen", "rejected"], "both pairs and tagged"),
    ],
)
def test_llama_factory_refuses_wrong_columns(columns, says):
    with pytest.raises(BadInput, match=says):
        llama_factory.check(columns, FILE, CHAT)


def test_places_without_files_are_refused(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        llama_factory.raw_files(tmp_path / "none")
    with pytest.raises(BadInput, match=r"has no \.json"):
        llama_factory.raw_files(tmp_path)
    with pytest.raises(BadInput, match="--subset"):
        llama_factory.raw_files(write(tmp_path / "a.json", []), ["a"])
    assert [file.name for file in llama_factory.raw_files(tmp_path)] == ["a.json"]


def real_results(name: str) -> tuple[list[dict[str, Any]], Sequence[Result]]:
    """The rows of a real file as JSON, and what the source makes of them."""
    path = shared("data", "llama-factory", name)
    (file,) = llama_factory.raw_files(path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert llama_factory.check(list(rows[0]), file, CHAT) == []
    records = [Record(f"{file.name}:item {number}", row) for number, row in enumerate(rows, start=1)]
    return rows, [result for record in records for result in llama_factory.SOURCE.parse(record, file, CHAT)]


def test_real_kto_file_row_by_row():
    """300 rows, half of them desirable, 77 of several turns; each compared with its own JSON."""
    rows, results = real_results("kto_en_demo.json")
    outputs = [result for result in results if isinstance(result, Output)]
    assert len(outputs) == len(results) == len(rows) == 300
    assert Counter(output.label for output in outputs) == {True: 150, False: 150}
    assert sum(len(output.prompt) > 1 for output in outputs) == 77
    for row, output in zip(rows, outputs, strict=True):
        assert [*output.prompt, *output.completion] == row["messages"]
        assert output.label is row["label"]


def test_real_ranking_file_row_by_row():
    """300 pairs, 80 of them with a system prompt."""
    rows, results = real_results("dpo_en_demo.json")
    pairs = [result for result in results if isinstance(result, Pair)]
    assert len(pairs) == len(results) == len(rows) == 300
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for row, pair in zip(rows, pairs, strict=True):
        told = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        assert list(pair.prompt) == told
        assert pair.chosen == (bot(row["chosen"]["value"]),)
        assert pair.rejected == (bot(row["rejected"]["value"]),)
    assert sum(pair.prompt[0]["role"] == "system" for pair in pairs) == 80


# --- all three --------------------------------------------------------------------------------

LEAF = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text("aQ \n\ud800", max_size=3)
ROLE = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", None, 3])
TURN = st.fixed_dictionaries({}, optional={"role": ROLE, "from": ROLE, "content": LEAF, "value": LEAF})
CELL = LEAF | st.lists(TURN | LEAF, max_size=4) | TURN | st.just([user("Q")]) | st.just([bot("A")])
NAMES = {name for source in (trl.SOURCE, halos.SOURCE) for name in source.wanted or ()} | {
    *("conversations", "instruction", "input", "output", "history", "system", "tools", "kto_tag")
}
ROWS = st.dictionaries(st.sampled_from(sorted(NAMES)), CELL) | st.fixed_dictionaries(
    {"type": st.sampled_from(["binary_feedback", "pairwise_feedback", "x"]), "prompt": CELL, "label": LEAF},
    optional={"output": CELL, "output_A": CELL, "output_B": CELL, "reward_A": LEAF, "reward_B": LEAF},
)


@given(ROWS, st.sampled_from([CHAT, TEXT]))
@settings(max_examples=400, deadline=None)
def test_any_row_gives_one_result_that_counts_it_and_never_raises(values, config):
    for source in SOURCES:
        result = one(source, values, config)
        assert result.rows in (1, 2)
        if isinstance(result, (Reject, Dropped)):
            assert result.reason.isidentifier()
            assert result.detail
            continue
        texts = json.dumps(values)
        for part in ("prompt", "completion", "chosen", "rejected"):
            said = getattr(result, part, ())
            for text in [said] if isinstance(said, str) else [turn["content"] for turn in said]:
                for line in text.split("\n"):  # alpaca joins two texts by a line end
                    assert json.dumps(line)[1:-1] in texts
        if isinstance(result, Output):
            labels = [values.get("label"), values.get("kto_tag")]
            assert result.label in [label for label in labels if isinstance(label, bool)]


@pytest.mark.parametrize("source", FORMS)
def test_columns_that_no_format_reads_are_named(tmp_path, source):
    """Nothing that is read is dropped in silence: the same note for every format."""
    records = [one.record for one in made(source, [])]
    written = write_made(tmp_path, source, [Made({**record, "surprise": "x"}, 0) for record in records])
    screen = Recorder()
    binarize(written, out=tmp_path / "out", screen=screen, **FORMS[source].options)
    ignored = [note for note in screen.notes if note.startswith("Columns ignored:")]
    assert len(ignored) == 1
    assert "surprise" in ignored[0]


def test_the_system_prompts_of_ultrafeedback_are_counted(tmp_path):
    lines = [
        {"instruction": f"Q{n}", "completions": [{"response": str(n + k), "overall_score": k, **more} for k in (1, 9)]}
        for n, more in enumerate(({}, {"custom_system_prompt": "Be nice"}, {"custom_system_prompt": "Be true"}))
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    result = binarize(f"ultrafeedback:{path}", out=tmp_path / "out", validation=0)
    assert result["decisions"] == {ultrafeedback.SYSTEM_LEFT_OUT: 2}
