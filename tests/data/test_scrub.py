"""--scrub: what is replaced of 300 lines, that no file of a dataset holds what was replaced, that no text is slow."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from binarizing import Recorder, binarize
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from scrub_lines import LINES, NAMES

from kto_cli.data.audit.found import ABOUT
from kto_cli.data.audit.private_data import KINDS
from kto_cli.data.audit.scrub import Finds, Named, also_finding, scrub, scrub_json, scrub_raw

PAGE = REPOSITORY / "docs" / "feedback.md"


def scores() -> dict[str, tuple[int, int, int]]:
    """By finding: values of the 300 lines that are replaced, values that are not, and other texts that are."""
    right, missed, wrong = Counter(), Counter(), Counter()
    for line in LINES:
        finds = Finds()
        clean = scrub(line.text, finds)
        asked, found = Counter(kind for kind, _ in line.values), Counter(finds.kinds)
        gone = Counter(kind for kind, value in line.values if value not in clean)
        for kind in asked | found:
            hits = min(asked[kind], found[kind], gone[kind])
            right[kind] += hits
            missed[kind] += asked[kind] - hits
            wrong[kind] += found[kind] - hits
    return {kind: (right[kind], missed[kind], wrong[kind]) for kind in asked_kinds()}


def asked_kinds() -> list[str]:
    return [ABOUT[kind.bit].name for kind in KINDS]


def test_the_table_of_the_page_is_what_is_replaced_of_the_lines():
    """`emails | 39 of 39 | 39 of 39`: right of what is replaced (precision), replaced of what is there (recall)."""
    assert len(LINES) == 300
    assert len({line.text for line in LINES}) == 300
    rows = re.findall(
        r"^\| `(\w+)` \| `<[A-Z]+>` \|[^|]*\| (\d+) of (\d+) \| (\d+) of (\d+) \|$", PAGE.read_text(), re.M
    )
    stated = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    expected = {
        kind: (right, right + wrong, right, right + missed) for kind, (right, missed, wrong) in scores().items()
    }
    assert stated == expected
    assert all(right / (right + missed) > 0.9 < right / (right + wrong) for right, missed, wrong in scores().values())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ABOUT[kind.bit].name)
def test_the_placeholder_of_each_kind_stands_in_the_place(kind):
    name = ABOUT[kind.bit].name
    line = next(line for line in LINES if [each for each, _ in line.values] == [name])
    (_, value), finds = line.values[0], Finds()
    assert scrub(line.text, finds) == line.text.replace(value, kind.placeholder)
    assert (finds.kinds, finds.values) == ([name], {value: kind.placeholder})


@given(st.text(st.sampled_from("ab.@+-_ 0123456789():/\\n<>EMAILkeytoken="), max_size=80))
@settings(max_examples=300, deadline=None)
def test_scrubbed_text_stays_as_it_is(text):
    once = scrub(text, Finds())
    assert scrub(once, Finds()) == once


@pytest.mark.parametrize(
    "name", ["api_key=", "X-Api-Key: ", "ApiKey ", "Access-Key: ", "PassWord=", "TOKEN=", "AUTHORIZATION: BEARER "]
)
def test_a_value_that_is_called_a_key_is_replaced_however_the_word_is_written(name):
    assert scrub(f"It has {name}{NAMES['mixed']} now", Finds()) == f"It has {name}<KEY> now"


def test_an_address_with_a_word_right_behind_it_is_replaced():
    assert scrub(f"Ask {MAIL}A1 or {MAIL}.", Finds()) == "Ask <EMAIL> or <EMAIL>."
    version = "node@18.2.0 kto@1.2.rc1 A@B.T"
    assert scrub(version, Finds()) == version


def test_values_in_json_keep_it_json():
    raw = json.dumps({"a": ["x\nmaria.keller@gmx.de"], "phone_number": "0170 8234567", "n": int(NAMES["visa"]), "b": 7})
    clean = json.loads(scrub_raw(raw, Finds()))
    assert clean == {"a": ["x\n<EMAIL>"], "phone_number": "<PHONE>", "n": "<CARD>", "b": 7}
    assert scrub_json({"maria.keller@gmx.de": True}, Finds()) == {"<EMAIL>": True}
    assert scrub_raw('{"mail": "maria.keller\\u0040gmx.de"', Finds()) == '{"mail": "<EMAIL>"'
    untouched = '{"a":  1}'
    assert scrub_raw(untouched, Finds()) is untouched


HOSTILE = {
    "at signs": "a@" * 500_000,
    "a host of many labels": "a@" + "example." * 125_000 + "-a",
    "a long run": "a" * 1_000_000,
    "digits": "1" * 1_000_000,
    "spaced digits": "1 " * 500_000,
    "plus signs": "+1 " * 330_000,
    "called digits": "call 1234567 " * 77_000,
    "brackets": "call (0" * 140_000,
    "account starts": "DE12 " * 200_000,
    "headers of a key": "-----BEGIN PRIVATE KEY-----\n" + "a:  \n" * 200_000,
    "keys without end": "-----BEGIN PRIVATE KEY-----\n" * 35_000,
    "a token without end": "eyJ" + "a" * 1_000_000,
    "token starts": "eyJaaaaaaaaa." * 77_000,
    "logins without end": "://a:" * 200_000,
    "secrets": "token = " * 125_000,
    "a value without end": "token = " + "a" * 1_000_000,
    "numbers and points": "1." * 500_000,
    "colons": "2001:" * 200_000,
    "escapes": "\\u0040" * 166_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_line_of_a_megabyte_takes_less_than_a_second(text):
    """Of CPU time, the best of three runs: other programs may run on the machine."""
    assert 900_000 < len(text) < 1_100_000
    taken = []
    for _ in range(3):
        start = time.process_time()
        scrub_raw(text, Finds())
        taken.append(time.process_time() - start)
        if taken[-1] < 1:
            break
    assert min(taken) < 1


# --- datasets -----------------------------------------------------------------------------------

MAIL, PHONE, KEY, BANK = "maria.keller@gmx.de", "0170 8234567", NAMES["skproj"], NAMES["de2"]
RULES = {"desirable": 'thumb == "up"', "undesirable": 'thumb == "down"'}


def chat(*turns: tuple[str, str], **more: object) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def log_with_values(folder: Path) -> Path:
    """A log with values in every part of rows and of rejects."""
    call_of_tool = {"name": "send", "arguments": {"to": MAIL, "iban": BANK, "lines": f"Hi\n{MAIL}"}}
    rows = [
        chat(("system", f"You serve {MAIL}."), ("user", "Who am I?"), ("assistant", "A customer."), thumb="up"),
        chat(
            ("user", f"my phone is {PHONE}"),
            ("assistant", f"{PHONE}, right?"),
            ("user", "yes"),
            ("assistant", "Noted."),
            thumb="down",
        ),
        chat(("user", f"key {KEY}"), ("assistant", f"Keep {KEY} safe."), thumb="up", conversation_id=MAIL),
        {
            "messages": [
                {"role": "user", "content": "Send it."},
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": f"They are {MAIL}.",
                    "tool_calls": [{"type": "function", "function": call_of_tool}],
                },
                {"role": "tool", "content": json.dumps({"sent": MAIL})},
                {"role": "assistant", "content": "Sent."},
            ],
            "tools": [
                {"type": "function", "function": {"name": "send", "description": f"Ask {MAIL}", "parameters": {}}}
            ],
            "thumb": "down",
        },
        chat(("user", "Dropped?"), ("assistant", "Yes."), thumb=f"ask {MAIL}, call {PHONE}"),
        chat(("user", f"Rejected? {MAIL}"), ("user", f"call {PHONE}"), thumb="up", phone=PHONE),
        chat(("user", "How is the weather?"), ("assistant", "Fine."), thumb="up", conversation_id=MAIL),
    ]
    path = folder / f"log of {MAIL}.jsonl"
    lines = [json.dumps(row) for row in rows]
    escaped = MAIL.replace("@", "\\u0040")
    lines += [f'{{"messages": "{mail}", oops' for mail in (MAIL, escaped)] + [f'"{KEY}"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def texts_of(folder: Path) -> dict[str, str]:
    """Every file of a folder as text, tables as the text of their cells; escapes of JSON are resolved."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            found[path.name] = json.dumps(parquet.read_table(path).to_pylist(), ensure_ascii=False)
        elif path.is_file():
            found[path.name] = path.read_bytes().decode("utf-8").replace("\\u0040", "@").replace("\\\\u0040", "@")
    return found


@pytest.mark.parametrize("formats", [(), ("trl",)], ids=["kto's files", "other tools' files"])
def test_no_file_holds_what_was_replaced(tmp_path, formats):
    log = log_with_values(tmp_path)
    options = {**RULES, "messages_column": "messages", "validation": 0.0, "formats": formats}
    found = binarize(f"log:{log}", tmp_path / "clean", scrub=True, **options)
    texts = texts_of(tmp_path / "clean")
    assert {"train.parquet", "rejects.jsonl", "findings.jsonl", "manifest.json", "README.md"} <= set(texts)
    values = (MAIL, PHONE, KEY, BANK, MAIL[:12], KEY[:16])
    assert [(name, value) for name, text in texts.items() for value in values if value in text] == []
    raw = binarize(f"log:{log}", tmp_path / "raw", **options)
    there = " ".join(texts_of(tmp_path / "raw").values())
    assert all(value in there for value in values), "the grep would see them"
    assert (found["desirable"], found["undesirable"]) == (raw["desirable"], raw["undesirable"]) == (3, 2)
    assert found["rejected"] == raw["rejected"]
    manifest = json.loads((tmp_path / "clean" / "manifest.json").read_text())
    assert manifest["scrubbed"] == found["scrubbed"]
    assert found["scrubbed"]["secret_keys"] == {"values": 2, "rows": 1}
    assert found["scrubbed"]["phone_numbers"] == {"values": 1, "rows": 1}, "said again is not found again"
    assert found["scrubbed"]["bank_accounts"] == {"values": 1, "rows": 1}


def test_rows_with_something_replaced_are_listed_and_the_doctor_finds_nothing_more(tmp_path):
    log = log_with_values(tmp_path)
    options = {**RULES, "messages_column": "messages", "validation": 0.0}
    found = binarize(f"log:{log}", tmp_path / "clean", scrub=True, **options)
    lines = [json.loads(line) for line in (tmp_path / "clean" / "findings.jsonl").read_text().splitlines()]
    assert [line["origin"].rpartition(":")[2] for line in lines if line["finding"] == "scrubbed"] == [
        "1",
        "2",
        "3",
        "4",
    ]
    kinds = {*asked_kinds()}
    assert not kinds & {each["finding"] for each in found["findings"]}
    unasked = binarize(f"log:{log}", tmp_path / "raw", **options)
    rows = {each["finding"]: each["rows"] for each in unasked["findings"] if each["finding"] in kinds}
    assert rows == {"emails": 2, "secret_keys": 1, "bank_accounts": 1}, "reported without being asked, by kind"
    assert "scrubbed" not in unasked


def test_conversations_are_told_by_what_is_replaced(tmp_path):
    """Rules and columns are read before: two conversations named by addresses do not become one."""
    names = [f"anna.berg{n}@posten.no" for n in range(10)]
    rows = [
        {
            "prompt": f"Q{n}",
            "completion": f"A{n}",
            "thumb": ["up", "down"][n // 10 % 2],
            "conversation_id": names[n % 10],
        }
        for n in range(40)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, scrubbed = (
        binarize(f"log:{path}", tmp_path / str(on), scrub=on, validation=0.2, **RULES) for on in (False, True)
    )
    assert plain["dropped_reasons"]["conversation_validation"] > 0
    for name in ("validation", "dropped_reasons", "splits"):
        assert scrubbed[name] == plain[name]


@pytest.mark.slow
def test_several_processes_replace_the_same(tmp_path):
    rows = [
        {"prompt": f"P{n}", "completion": f"A{n} {MAIL} " * (n % 3) or "None.", "label": n % 2 > 0} for n in range(1500)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = (binarize(path, tmp_path / str(workers), scrub=True, workers=workers) for workers in (1, 2))
    assert one["scrubbed"] == two["scrubbed"] == {"emails": {"values": 1500, "rows": 1000}}
    assert one["files"]["train.parquet"] == two["files"]["train.parquet"]


def test_two_answers_that_differ_in_what_is_replaced_alone_are_no_pair(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [
        {"prompt": "Mail?", "chosen": "It is anna.berg@posten.no.", "rejected": "It is li.wei88@qq.com."},
        {"prompt": "Tea?", "chosen": "Green.", "rejected": "Ask li.wei88@qq.com."},
        {"prompt": "Cake?", "chosen": "Yes.", "rejected": "No."},
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    found = binarize(path, tmp_path / "out", scrub=True, validation=0.0)
    assert (found["desirable"], found["undesirable"], found["rejected"]) == (2, 2, {"answers_identical": 2})


def test_remarks_are_scrubbed(tmp_path):
    chats = [
        {
            "id": str(number),
            "type": "rating",
            "data": {"rating": rating, "reason": "other", "comment": f"tell {MAIL}", "model_id": "m"},
            "meta": {"message_id": f"a{number}"},
            "snapshot": {
                "chat": {
                    "chat": {
                        "history": {
                            "messages": {
                                f"q{number}": {
                                    "id": f"q{number}",
                                    "role": "user",
                                    "content": f"Q{number}",
                                    "parentId": None,
                                },
                                f"a{number}": {
                                    "id": f"a{number}",
                                    "role": "assistant",
                                    "content": f"A{number}",
                                    "parentId": f"q{number}",
                                    "done": True,
                                },
                            },
                            "currentId": f"a{number}",
                        }
                    }
                }
            },
        }
        for number, rating in enumerate((1, -1))
    ]
    path = tmp_path / "feedback.json"
    path.write_text(json.dumps(chats))
    binarize(f"open-webui:{path}", tmp_path / "out", scrub=True, validation=0.0)
    remarks = [json.loads(line) for line in (tmp_path / "out" / "remarks.jsonl").read_text().splitlines()]
    assert [remark["comment"] for remark in remarks] == ["tell <EMAIL>"] * 2


def test_finders_see_what_forms_leave(tmp_path):
    """A model's or a package's: their kinds become placeholders, counted by kind."""
    seen: list[str] = []

    def names(text: str) -> list[Named]:
        seen.append(text)
        placeholder = [Named(match.span(), "private_email") for match in re.finditer("<EMAIL>", text)]
        return [Named(match.span(), "private_person") for match in re.finditer("Maria Keller", text)] + placeholder

    with also_finding(names):
        finds = Finds()
        assert scrub(f"I am Maria Keller, {MAIL}", finds) == "I am <PERSON>, <EMAIL>"
    assert seen == ["I am Maria Keller, <EMAIL>"]
    assert finds.kinds == ["emails", "private_person"]
    assert scrub("I am Maria Keller", Finds()) == "I am Maria Keller"


def test_what_was_replaced_is_shown(tmp_path):
    screen = Recorder()
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"P{n}", "completion": f"A{n} {MAIL}", "label": n > 0} for n in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = binarize(path, tmp_path / "out", screen, scrub=True, validation=0.0)
    assert found["scrubbed"] == {"emails": {"values": 2, "rows": 2}}
