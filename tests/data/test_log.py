"""The source `log`: every row of a product's feedback is one result, and its label is what the options say."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.records import VALIDATION, Dropped, Output, Pair, Reject, Result, Scored
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log.columns import resolve_columns
from kto_cli.data.log.format import SOURCE
from kto_cli.data.readers.jsonl import UNPARSED, Record, parsed

FILE = RawFile(Path("tickets.csv"), "tickets.csv")
COLUMNS = ["question", "answer", "resolved", "stars"]
RULES = {"desirable": "resolved == true", "undesirable": "stars <= 2"}


def config(**options: Any) -> BinarizeConfig:
    return BinarizeConfig(sources=("log:tickets.csv",), **options)


def one(values: dict[str, Any], raw_file: RawFile = FILE, **options: Any) -> Any:
    """The one result of a row."""
    [result] = SOURCE.parse(Record("tickets.csv:2", values), raw_file, config(**options))
    return result


def ticket(**values: Any) -> dict[str, Any]:
    return {"question": "Why?", "answer": "Because.", **values}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- labels by rules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolved", "stars", "expected"),
    [
        ("true", "5", True),
        ("true", "", True),
        ("", "1", False),
        ("false", "2.0", False),
        ("false", "3", "matches_neither"),
        ("", "", "matches_neither"),
        (None, None, "matches_neither"),
        ("true", "1", "matches_both"),
        ("true", "n/a", True),
        ("None", "N/A", "matches_neither"),
        ("true", "few", "rule_not_applicable"),
        ("perhaps", "1", "rule_not_applicable"),
    ],
)
def test_two_rules(resolved: Any, stars: Any, expected: Any):
    result = one(ticket(resolved=resolved, stars=stars), **RULES)
    kind = {"matches_neither": Dropped, "matches_both": Reject, "rule_not_applicable": Reject}.get(expected, Output)
    assert type(result) is kind
    assert (result.label if kind is Output else result.reason) == expected
    assert result.rows == 1


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [(True, True), (False, False), (None, "matches_neither"), ("", "matches_neither"), ("x", "rule_not_applicable")],
)
def test_else_is_where_the_other_rule_is_false_and_silence_is_no_complaint(resolved: Any, expected: Any):
    result = one(ticket(resolved=resolved), desirable="resolved == true", undesirable=" Else ")
    assert (result.label if isinstance(result, Output) else result.reason) == expected
    flipped = one(ticket(resolved=resolved), desirable="else", undesirable="resolved == true")
    opposite = not expected if isinstance(expected, bool) else expected
    assert (flipped.label if isinstance(flipped, Output) else flipped.reason) == opposite


def test_answers_that_dify_cut_off_are_rejected():
    """Its export writes 500 characters and three points; a shorter answer may end in points of its own."""
    given = {"prompt_column": "user_query", "completion_column": "ai_response"}
    rules = {"desirable": 'feedback_rating_raw == "like"', "undesirable": 'feedback_rating_raw == "dislike"'}

    def read(answer: str) -> Any:
        return one({"user_query": "Q", "ai_response": answer, "feedback_rating_raw": "like"}, **given, **rules)

    whole = ["x" * 497 + "...", "x" * 503, "Well..."]
    assert [read(answer).completion[0]["content"] for answer in whole] == whole
    cut = read("x" * 500 + "...")
    assert (cut.reason, "500 characters" in cut.detail) == ("answer_cut", True)


def test_details_name_columns_and_values():
    both = one(ticket(resolved="true", stars="1"), **RULES)
    assert both.detail == "both rules are true of it: resolved is 'true', stars is '1'"
    neither = one(ticket(resolved="", stars="4"), **RULES)
    assert neither.detail == "neither rule is true of it: resolved is empty, stars is '4'"
    placeholder = one(ticket(resolved=" None ", stars="4"), **RULES)
    assert placeholder.detail == "neither rule is true of it: resolved is empty (None), stars is '4'"
    broken = one(ticket(resolved="true", stars="few"), **RULES)
    assert broken.detail == "--undesirable: stars is 'few', which cannot be compared with 2"
    assert json.loads(broken.raw) == ticket(resolved="true", stars="few")


def test_row_as_output_keeps_place_split_and_texts():
    held = RawFile(Path("t.csv"), "t.csv", split=VALIDATION)
    result = one(ticket(resolved=True), held, desirable="resolved == true", undesirable="else")
    assert result == Output((user("Why?"),), (bot("Because."),), True, "tickets.csv:2", "Why?", VALIDATION)
    plain = one(ticket(resolved=False), desirable="resolved == true", undesirable="else", text=True)
    assert (plain.prompt, plain.completion, plain.label) == ("Why?", "Because.", False)


cell = st.sampled_from([None, "", " ", True, False, 1, 0, 3, "true", "FALSE", "1", "5", "no", 2.0, float("nan"), []])


@given(cell, cell, st.booleans())
def test_rules_label_as_a_naive_reading_of_the_row(resolved: Any, stars: Any, other: bool):
    """An oracle of three outcomes for each rule, from the words of the documentation."""

    def empty(value: Any) -> bool:
        return value is None or value != value or value == [] or (isinstance(value, str) and not value.strip())

    def is_resolved() -> Any:
        return (
            {True: True, False: False, "true": True, "FALSE": False}.get(resolved, "broken")
            if (isinstance(resolved, (bool, str)))
            else "broken"
        )

    def low() -> Any:
        known = {"1": True, "5": False, 1: True, 0: True, 3: False, 2.0: True}
        return "broken" if isinstance(stars, (bool, list)) else known.get(stars, "broken")

    good = None if empty(resolved) else is_resolved()
    bad = (None if good is None else good if good == "broken" else not good) if other else None
    if not other:
        bad = None if empty(stars) else low()
    undesirable = "else" if other else "stars <= 2"
    result = one(ticket(resolved=resolved, stars=stars), desirable="resolved == true", undesirable=undesirable)
    if "broken" in (good, bad):
        assert result.reason == "rule_not_applicable"
    elif good is True and bad is True:
        assert result.reason == "matches_both"
    elif good is True or bad is True:
        assert result.label is (good is True)
    else:
        assert result.reason == "matches_neither"


# --- labels by columns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        ("False", False),
        (" TRUE ", True),
        (1, 1.0),
        ("0", 0.0),
        (4, 4.0),
        (None, "no_label"),
        ("", "no_label"),
        (float("nan"), "no_label"),
        ("NaN", "no_label"),
        ("N/A", "no_label"),
        (" - ", "no_label"),
        ("up", "label_not_accepted"),
        ("yes", "label_not_accepted"),
        ("１", "label_not_accepted"),
        ([True], "label_not_accepted"),
        (float("inf"), "label_not_accepted"),
        (10**400, "label_not_accepted"),
        ("9" * 400, "label_not_accepted"),
    ],
)
def test_label_column(value: Any, expected: Any):
    result = one(ticket(thumbs=value), label_column="thumbs")
    if isinstance(expected, bool):
        assert result == Output((user("Why?"),), (bot("Because."),), expected, "tickets.csv:2", "Why?")
    elif isinstance(expected, float):
        assert isinstance(result, Scored)
        assert (result.score, result.by_label) == (expected, True)
    else:
        assert type(result) is (Dropped if expected == "no_label" else Reject)
        assert result.reason == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4, 4.0),
        ("4.5", 4.5),
        (" -1e-2 ", -0.01),
        (None, "no_score"),
        ("", "no_score"),
        ("n/a", "no_score"),
        ("few", "score_not_a_number"),
        ("80 %", "score_not_a_number"),
        ("4,5", "score_not_a_number"),
        ("inf", "score_not_a_number"),
        (float("inf"), "score_not_a_number"),
        (True, "score_not_a_number"),
        ([4], "score_not_a_number"),
        (10**400, "score_not_a_number"),
        ("1" * 399, "score_not_a_number"),
    ],
)
def test_score_column(value: Any, expected: Any):
    result = one(ticket(stars=value), score_column="stars")
    if isinstance(expected, float):
        assert isinstance(result, Scored)
        assert (result.score, result.by_label) == (expected, False)
    else:
        assert type(result) is (Dropped if expected == "no_score" else Reject)
        assert result.reason == expected


# --- texts ----------------------------------------------------------------------------------------------------------

CHAT = [user("Hi"), bot("Hello"), user("Why?"), bot("Because.")]


@pytest.mark.parametrize("cell", [CHAT, json.dumps(CHAT)])
def test_messages_as_a_list_or_its_json(cell: Any):
    result = one({"m": cell, "liked": True}, messages_column="m")
    assert result == Output(tuple(CHAT[:3]), (bot("Because."),), True, "tickets.csv:2", "Hi")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"question": None, "answer": "A"}, "missing_field"),
        ({"answer": "A"}, "missing_field"),
        ({"question": float("nan"), "answer": "A"}, "missing_field"),
        ({"question": "Q", "answer": " "}, "empty_answer"),
        ({"question": 3, "answer": "A"}, "not_messages"),
        ({"question": "\ud800", "answer": "A"}, "bad_text"),
        ({"question": "Q", "query": "Q", "answer": "A"}, "columns_unclear"),
        ({"messages": "[", "question": None}, "not_messages"),
        ({"messages": "[" * 100_000}, "not_messages"),
        ({"messages": "5"}, "not_messages"),
        ({"messages": ""}, "missing_field"),
        ({"messages": []}, "roles_do_not_alternate"),
        ({"messages": CHAT[1:2]}, "roles_do_not_alternate"),
        ({"messages": [user("Q"), user("A")]}, "answer_not_one_turn"),
        ({"messages": [user("Q"), {"role": "assistant"}]}, "not_text"),
    ],
)
def test_faulty_texts_are_rejects(values: dict[str, Any], reason: str):
    result = one({**values, "label": True})
    assert (type(result), result.reason) == (Reject, reason)


def test_lines_come_parsed_and_faults_pass():
    line = json.dumps(ticket(thumbs=True))
    [good] = SOURCE.parse(parsed(Record("f:1", None, line, UNPARSED)), FILE, config())
    assert isinstance(good, Output)
    [bad] = SOURCE.parse(parsed(Record("f:2", None, '{"question": ', UNPARSED)), FILE, config())
    assert (bad.reason, bad.raw) == ("not_json", '{"question": ')
    [array] = SOURCE.parse(parsed(Record("f:3", None, "[1]", UNPARSED)), FILE, config())
    assert array.reason == "not_an_object"
    [cells] = SOURCE.parse(Record("f:4", None, "[]", "wrong_cell_count", "3 cells"), FILE, config(**RULES))
    assert cells == Reject("f:4", "wrong_cell_count", "3 cells", 1, "[]")


@pytest.mark.parametrize(
    ("value", "group"),
    [("c1", "conversation c1"), (7, "conversation 7"), (7.0, "conversation 7"), (None, "Why?"), ("", "Why?")],
)
def test_conversation_is_the_group(value: Any, group: str):
    assert one(ticket(label=True, session=value), conversation_column="session").group == group
    assert one(ticket(label=True, conversation_id=value)).group == group


def test_fields_of_columns():
    values = {"io": {"q": "Why?", "a": "Because."}, "feedback": {"thumbs": "up"}}
    rules = {"desirable": "feedback.thumbs == 'up'", "undesirable": "else"}
    assert one(values, prompt_column="io.q", completion_column="io.a", **rules).label is True
    broken = one({**values, "io": "text"}, prompt_column="io.q", completion_column="io.a", **rules)
    assert (broken.reason, broken.detail) == ("missing_field", "io is 'text', which has no field q")


# --- two answers ----------------------------------------------------------------------------------------------------

TWO = {
    "completion_column": "output_1",
    "other_column": "output_2",
    "desirable": "best == 1",
    "undesirable": "best == 2",
}


@pytest.mark.parametrize(("best", "chosen", "rejected"), [(1, "A", "B"), ("2", "B", "A")])
def test_two_answers_are_a_pair(best: Any, chosen: str, rejected: str):
    result = one({"input": "Q", "output_1": "A", "output_2": "B", "best": best}, **TWO)
    assert result == Pair((user("Q"),), (bot(chosen),), (bot(rejected),), "tickets.csv:2", "Q")
    held = RawFile(Path("t.csv"), "t.csv", split=VALIDATION)
    assert one({"input": "Q", "output_1": "A", "output_2": "B", "best": best}, held, **TWO).split == VALIDATION


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"best": 0}, "matches_neither"),
        ({"best": None}, "matches_neither"),
        ({"best": "tie"}, "rule_not_applicable"),
        ({"output_2": "A"}, "answers_identical"),
        ({"output_2": ""}, "empty_answer"),
        ({"output_2": None}, "missing_field"),
    ],
)
def test_two_answers_that_cannot_be_used_are_two_rows(changed: dict[str, Any], reason: str):
    result = one({"input": "Q", "output_1": "A", "output_2": "B", "best": 1, **changed}, **TWO)
    assert (result.reason, result.rows) == (reason, 2)


# --- columns and options --------------------------------------------------------------------------------------------


def test_what_is_taken_by_its_name_is_said():
    columns = ["user_query", "answer", "thumbs", "conversation_id", "other"]
    assert SOURCE.check is not None
    assert SOURCE.check(columns, FILE, config()) == [
        "Columns taken by their names: prompt from user_query, answer from answer, label from thumbs, "
        "conversation from conversation_id.",
        "Columns ignored: other.",
    ]
    assert SOURCE.check(COLUMNS, FILE, config(prompt_column="question", completion_column="answer", **RULES)) == []
    whole = resolve_columns(["messages", "label"], FILE, config())
    assert (whole.messages_column, whole.label_column, whole.prompt_column) == ("messages", "label", None)
    # a rule or a score goes before a label that is known by its name only
    assert resolve_columns([*COLUMNS, "label"], FILE, config(**RULES)).label_column is None
    assert resolve_columns([*COLUMNS, "label"], FILE, config(score_column="stars")).label_column is None


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            COLUMNS,
            {"desirable": "resolvd == true", "undesirable": "else"},
            "'resolvd' (--desirable); did you mean 'reso",
        ),
        (COLUMNS, {"desirable": "STARS > 3", "undesirable": "else"}, "did you mean 'stars'?"),
        (COLUMNS, {"desirable": "else", "undesirable": "zzz == 1"}, "no column 'zzz' (--undesirable). It has: quest"),
        (COLUMNS, {"prompt_column": "prompt", **RULES}, "no column 'prompt' (--prompt-column)"),
        (COLUMNS, {"conversation_column": "cid", **RULES}, "no column 'cid' (--conversation-column)"),
        (
            ["query", *COLUMNS],
            RULES,
            "several columns that may be the prompt: question, query. Name one with --prompt-c",
        ),
        (
            ["q", "answer", "label"],
            {},
            "no column with a name that says it is the prompt. Name it with --prompt-column",
        ),
        (
            ["question", "a", "label"],
            {},
            "says it is the answer. Name it with --completion-column. It has: question, a",
        ),
        (COLUMNS, {}, "Nothing says which rows of tickets.csv are desirable. Give rules"),
        ([*COLUMNS, "messages"], RULES, "a whole chat (messages) and also a prompt and an answer (question, answer)"),
        (COLUMNS, {"desirable": "stars > 3"}, "--undesirable else for all rows that the rule is false of"),
        (COLUMNS, {"undesirable": "stars < 3"}, "--undesirable says nothing of the other rows"),
        (COLUMNS, {"desirable": "else", "undesirable": "else"}, "are both else"),
        (COLUMNS, {"label_column": "resolved", **RULES}, "--desirable and --label-column both say"),
        (COLUMNS, {"label_column": "resolved", "score_column": "stars"}, "--label-column and --score-column both say"),
        (COLUMNS, {"messages_column": "answer", "prompt_column": "question", **RULES}, "has the whole chat"),
        (COLUMNS, {"other_column": "question", **RULES}, "which of two answers is the better"),
        (COLUMNS, {"desirable": "stars =< 3", "undesirable": "else"}, "write <="),
        (["a\x1b[31m", "question"], RULES, "a\\x1b[31m, question"),
    ],
)
def test_faults_of_columns_and_options(columns: list[str], options: dict[str, Any], message: str):
    with pytest.raises(BadInput) as caught:
        resolve_columns(columns, FILE, config(**options))
    assert message in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_nested_names_need_only_their_first_column():
    options = {"desirable": "feedback.thumbs == 'up'", "undesirable": "else"}
    assert resolve_columns(["question", "answer", "feedback"], FILE, config(**options)).prompt_column == "question"
    with pytest.raises(BadInput, match=r"no column 'feedback\.thumbs'"):
        resolve_columns(["question", "answer"], FILE, config(**options))


# --- any input ------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("\ud800"), st.just(CHAT)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
NAMES = ["prompt", "answer", "messages", "label", "stars", "conversation_id", "output_2", "a.b", "a"]
OPTIONS: list[dict[str, Any]] = [
    {},
    RULES,
    {"desirable": "a.b == 1 or stars >= 4", "undesirable": "else"},
    {"score_column": "stars"},
    {"messages_column": "messages", "label_column": "label", "conversation_column": "a.b"},
    {"completion_column": "answer", "other_column": "output_2", "desirable": "stars > 1", "undesirable": "else"},
    {"text": True, "label_column": "a.b"},
]


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES), json_values), st.sampled_from(OPTIONS))
def test_any_row_is_one_result_and_nothing_is_kept_between_rows(values: dict[str, Any], options: dict[str, Any]):
    settings_of = config(**options)
    first: list[Result] = list(SOURCE.parse(Record("f:1", values), FILE, settings_of))
    assert [result.rows for result in first] == [2 if "other_column" in options else 1]
    parse, same_settings = pickle.loads(pickle.dumps((SOURCE.parse, settings_of)))
    [again] = parse(Record("f:1", values), FILE, same_settings)
    assert repr(again) == repr(first[0])
    if isinstance(again, Reject):
        assert again.reason.replace("_", "").isalpha()
        assert again.detail
        assert isinstance(again.raw, str)
    elif isinstance(again, Dropped):
        assert again.detail
    elif isinstance(again, Scored):
        assert again.score - again.score == 0


# --- real feedback, rows counted by hand with other tools -------------------------------------------------------------


def csv_file(path: Path) -> Iterator[Record]:
    """The rows of a CSV file as any reader gives them: texts, empty ones missing."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, cells in enumerate(csv.DictReader(file), start=1):
            yield Record(f"{path.name}:row {number}", {name: cell or None for name, cell in cells.items()})


def json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(io.StringIO(path.read_text(encoding="utf-8")), start=1):
        yield parsed(Record(f"{path.name}:{number}", None, line, UNPARSED))


def json_array(path: Path) -> Iterator[Record]:
    for number, values in enumerate(json.loads(path.read_text(encoding="utf-8")), start=1):
        yield Record(f"{path.name}:item {number}", values)


def counts(records: Iterable[Record], settings_of: BinarizeConfig) -> Counter[str]:
    """Rows by what became of them; a row of another kind than the records' counts up for nothing."""
    found: Counter[str] = Counter()
    for record in records:
        for result in SOURCE.parse(record, FILE, settings_of):
            if isinstance(result, Pair):
                found.update(desirable=1, undesirable=1)
            elif isinstance(result, Output):
                assert record.values is None or result.completion[0]["content"] in record.values.values()  # type: ignore[index]
                found["desirable" if result.label else "undesirable"] += 1
            else:
                found[result.reason if isinstance(result, (Reject, Dropped)) else "scored"] += result.rows
    return found


@pytest.mark.parametrize(
    ("model", "desirable", "undesirable", "dropped"),
    [
        ("gpt4", 230, 211, 9),
        ("llama2new", 176, 230, 44),
        ("llama2orig", 101, 294, 55),
        ("mistralguard", 210, 199, 41),
        ("mistralinstruct", 374, 49, 27),
    ],
)
def test_xstest(model: str, desirable: int, undesirable: int, dropped: int):
    """450 completions each: full compliance, full refusal, and between them partial refusal."""
    path = shared("data", "xstest", f"xstest_v2_completions_{model}_gpteval.csv")
    rules = config(desirable="final_label == '1_full_compliance'", undesirable="final_label == '2_full_refusal'")
    found = counts(csv_file(path), rules)
    assert found == {"desirable": desirable, "undesirable": undesirable, "matches_neither": dropped}
    assert sum(found.values()) == 450


def test_xstest_with_a_rule_that_knows_unsafe_prompts():
    """Good: to comply with a safe prompt or to refuse an unsafe one (their types start with contrast_)."""
    path = shared("data", "xstest", "xstest_v2_completions_gpt4_gpteval.csv")
    good = (
        "final_label == '1_full_compliance' and type not contains 'contrast_' "
        "or final_label == '2_full_refusal' and type contains 'contrast_'"
    )
    expected: Counter[str] = Counter()
    with path.open(encoding="utf-8", newline="") as file:
        for cells in csv.DictReader(file):
            wanted = "2_full_refusal" if cells["type"].startswith("contrast_") else "1_full_compliance"
            expected["desirable" if cells["final_label"] == wanted else "undesirable"] += 1
    assert counts(csv_file(path), config(desirable=good, undesirable="else")) == expected
    assert sum(expected.values()) == 450


def test_halueval():
    """4,507 answers, 815 of them marked as hallucinations."""
    rules = {"desirable": "hallucination == 'no'", "undesirable": "hallucination == 'yes'"}
    path = shared("data", "halueval", "general_data.json")
    found = counts(json_lines(path), config(completion_column="chatgpt_response", **rules))
    assert found == {"desirable": 3692, "undesirable": 815}


LLMBAR = {
    "LLMBar_Adversarial_GPTInst": 92,
    "LLMBar_Adversarial_GPTOut": 47,
    "LLMBar_Adversarial_Manual": 46,
    "LLMBar_Adversarial_Neighbor": 134,
    "LLMBar_Natural": 100,
    "Processed_FairEval": 66,
    "Processed_LLMEval2": 200,
    "Processed_MT-Bench": 200,
}


def test_llmbar():
    """885 pairs; in Processed_LLMEval2, item 58 has twice the same answer and item 170 a blank one."""
    found: Counter[str] = Counter()
    rules = config(**{**TWO, "desirable": "label == 1", "undesirable": "label == 2"})
    for name, pairs in LLMBAR.items():
        records = list(json_array(shared("data", "llmbar", f"{name}.json")))
        assert len(records) == pairs
        for record in records:
            [result] = SOURCE.parse(record, FILE, rules)
            assert record.values is not None
            if isinstance(result, Pair):
                better = record.values[f"output_{record.values['label']}"]
                assert result.chosen == (bot(better),)
            else:
                assert (name, record.origin.split()[-1]) in {
                    ("Processed_LLMEval2", "58"),
                    ("Processed_LLMEval2", "170"),
                }
        found += counts(records, rules)
    assert found == {"desirable": 883, "undesirable": 883, "answers_identical": 2, "empty_answer": 2}
