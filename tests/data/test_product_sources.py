"""Exports of products with thumbs on messages, against a parser of the test's own that walks the same trees."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_feedback import binarize, both_splits, lines_of, table

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.records import Dropped, Output, Pair, Reject, Result
from kto_cli.data.formats.source import RawFile
from kto_cli.data.products import chat_ui, librechat, open_webui, openai_preference
from kto_cli.data.readers.jsonl import Record

CONFIG = BinarizeConfig(("x",))
Tree = list[dict[str, Any]]
"""Messages: id, parent (index or None), role, text, thumb (1, -1, 0)."""


def tree(draw: Random, name: str) -> Tree:
    """A conversation with branches: answers tried again, questions asked in another way; some answers rated."""
    messages: Tree = []
    for number in range(draw.randint(2, 9)):
        asked = [index for index, each in enumerate(messages) if each["role"] == "user"]
        answers = [index for index, each in enumerate(messages) if each["role"] == "assistant"]
        if asked and (draw.random() < 0.6 or number == 1):
            parent, role = draw.choice(asked), "assistant"
        else:
            parent, role = (draw.choice(answers) if answers else None), "user"
        thumb = draw.choice((1, -1, 0)) if role == "assistant" else 0
        text = f"{name} {role} {number}" + draw.choice(("", "\nmore", " {}", "  end "))
        messages.append({"id": f"{name}-{number}", "parent": parent, "role": role, "text": text, "thumb": thumb})
    return messages


def expected(trees: list[Tree]) -> list[tuple[Any, ...]]:
    """(prompt, answer, label) of every rated answer, by walking up from it."""
    rows = []
    for messages in trees:
        for message in messages:
            if message["thumb"]:
                prompt, at = [], message["parent"]
                while at is not None:
                    prompt.append((messages[at]["role"], messages[at]["text"]))
                    at = messages[at]["parent"]
                rows.append((tuple(reversed(prompt)), message["text"], message["thumb"] == 1))
    return sorted(rows)


def parent_id(messages: Tree, message: dict[str, Any]) -> str | None:
    return None if message["parent"] is None else messages[message["parent"]]["id"]


def path_to(messages: Tree, message: dict[str, Any]) -> list[str]:
    """Ids of the messages before one, the first of them first."""
    above = parent_id(messages, message)
    return [] if above is None else [*path_to(messages, messages[message["parent"]]), above]


def as_open_webui(trees: list[Tree], draw: Random) -> list[Any]:
    """One item a thumb, each with the whole chat."""
    records = []
    for messages in trees:
        history = {
            message["id"]: {
                **{"id": message["id"], "parentId": parent_id(messages, message), "childrenIds": []},
                **{"role": message["role"], "content": message["text"]},
            }
            for message in messages
        }
        chat = {"id": "", "title": "t", "history": {"messages": history, "currentId": messages[-1]["id"]}}
        for message in messages:
            if message["thumb"]:
                meta = {"chat_id": messages[0]["id"], "message_id": message["id"], "message_index": 1}
                data = {"rating": message["thumb"], "reason": "", "comment": "good", "tags": ["x"]}
                snapshot = {"chat": {"id": messages[0]["id"], "chat": chat}}
                records.append({"id": "f", "type": "rating", "data": data, "meta": meta, "snapshot": snapshot})
    return records


def as_chat_ui(trees: list[Tree], draw: Random) -> list[Any]:
    """One document a conversation."""
    return [
        {
            "_id": {"$oid": messages[0]["id"]},
            "messages": [
                {
                    **{"id": message["id"], "from": message["role"], "content": message["text"], "children": []},
                    **{"ancestors": path_to(messages, message), "createdAt": {"$date": "2026-01-01"}},
                    **({"score": message["thumb"]} if message["role"] == "assistant" else {}),
                }
                for message in messages
            ],
        }
        for messages in trees
    ]


def as_librechat(trees: list[Tree], draw: Random) -> list[Any]:
    """One document a message, in any order; texts as text or as parts."""
    zeros = "00000000-0000-0000-0000-000000000000"
    records = []
    for messages in trees:
        for message in messages:
            parts = draw.random() < 0.5 and message["role"] == "assistant"
            rating = {1: {"rating": "thumbsUp", "tag": "x"}, -1: {"rating": "thumbsDown", "text": "bad"}, 0: None}
            records.append(
                {
                    **{"messageId": message["id"], "conversationId": messages[0]["id"], "sender": "GPT-4"},
                    **{"parentMessageId": parent_id(messages, message) or zeros, "endpoint": "openAI"},
                    **{"isCreatedByUser": message["role"] == "user", "text": "" if parts else message["text"]},
                    **({"content": [{"type": "text", "text": message["text"]}]} if parts else {}),
                    **({"feedback": rating[message["thumb"]]} if rating[message["thumb"]] else {}),
                }
            )
    draw.shuffle(records)
    return records


SHAPES = {"open-webui": as_open_webui, "chat-ui": as_chat_ui, "librechat": as_librechat}


@pytest.mark.parametrize("source", SHAPES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_each_thumb_is_a_row_behind_its_own_thread(source, seed):
    """Texts, labels and their number; and all of a conversation is on one side of the split."""
    draw = Random(seed)
    trees = [tree(draw, f"c{number}") for number in range(8)]
    for k, thumb in enumerate((1, -1, 1, -1)):  # so that every file has both labels
        asked = {"id": f"{k}a", "parent": None, "role": "user", "text": f"q{k}", "thumb": 0}
        trees.append([asked, {"id": f"{k}b", "parent": 0, "role": "assistant", "text": f"a{k}", "thumb": thumb}])
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name, "export.json"), Path(name, "out")
        path.write_text(json.dumps(SHAPES[source](trees, draw)), encoding="utf-8")
        binarize(f"{source}:{path}", out=out, validation=0.4, seed=seed % 5)
        rows = both_splits(out)
        found = []
        for row in rows:
            prompt = tuple((turn["role"], turn["content"]) for turn in row["prompt"])
            found.append((prompt, row["completion"][0]["content"], row["label"]))
        lines = lines_of(out / "rejects.jsonl")
        assert not [line for line in lines if line["kind"] == "rejected"]
        split = [line for line in lines if line["reason"].endswith("_validation")]
        dropped = sum(line["rows"] for line in split)  # a conversation whose first question was edited, on both sides
        assert not Counter(found) - Counter(expected(trees))
        assert len(found) + dropped == len(expected(trees))
        sides = [
            {row["prompt"][0]["content"].split()[0] for row in table(out / f"{split}.parquet")}
            for split in ("train", "validation")
        ]
        assert not sides[0] & sides[1]


def results(source: Any, values: dict[str, Any]) -> list[Result]:
    return list(source.SOURCE.parse(Record("f:1", values), RawFile(Path("f"), "f"), CONFIG))


def webui(messages: dict[str, Any], rated: str, **params: Any) -> dict[str, Any]:
    chat = {"history": {"messages": messages}, "params": params}
    return {"data": {"rating": 1}, "meta": {"message_id": rated}, "snapshot": {"chat": {"chat": chat}}}


ASKED = {"id": "a", "parentId": None, "role": "user", "content": "Q"}
ANSWERED = {"id": "b", "parentId": "a", "role": "assistant", "content": "A"}


def test_open_webui_gives_the_chats_own_system_prompt():
    [row] = results(open_webui, webui({"a": ASKED, "b": ANSWERED}, "b", system="You are Shop."))
    assert isinstance(row, Output)
    assert [turn["content"] for turn in row.prompt] == ["You are Shop.", "Q"]
    [row] = results(open_webui, webui({"a": ASKED, "b": ANSWERED}, "b", system=" "))
    assert isinstance(row, Output)
    assert len(row.prompt) == 1


def test_open_webui_reads_a_snapshot_without_a_tree():
    record = webui({}, "b")
    record["snapshot"]["chat"]["chat"]["messages"] = [ASKED, ANSWERED, {**ASKED, "id": "c"}]
    [row] = results(open_webui, record)
    assert isinstance(row, Output)
    assert row.completion[0]["content"] == "A"


@pytest.mark.parametrize(
    ("messages", "rated", "reason"),
    [
        ({"b": ANSWERED}, "b", "thread_broken"),
        ({"a": {**ASKED, "parentId": "b"}, "b": ANSWERED}, "b", "thread_broken"),
        ({"a": ASKED, "b": ANSWERED}, "c", "rated_message_missing"),
        ({"a": ASKED, "b": ANSWERED}, "a", "rated_message_missing"),
        ({"a": ASKED, "b": {**ANSWERED, "files": [{"type": "image"}]}}, "b", "media_not_accepted"),
        ({"a": ASKED, "b": {**ANSWERED, "content": " "}}, "b", "empty_answer"),
        ({"b": {**ANSWERED, "parentId": None}}, "b", "roles_do_not_alternate"),
    ],
)
def test_open_webui_rejects_what_it_cannot_place(messages, rated, reason):
    [reject] = results(open_webui, webui(messages, rated))
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.rows) == (reason, 1)
    assert reject.raw


def test_a_thumb_on_an_earlier_answer_is_not_one_on_the_last():
    turns = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    messages = [{"id": str(k), "from": role, "content": text} for k, (role, text) in enumerate(turns)]
    messages[1]["score"], messages[3]["score"] = -1, 1
    one, other = results(chat_ui, {"_id": "c", "messages": messages})
    assert isinstance(one, Output)
    assert isinstance(other, Output)
    assert (one.completion[0]["content"], one.label, len(one.prompt)) == ("A1", False, 1)
    assert (other.completion[0]["content"], other.label, len(other.prompt)) == ("A2", True, 3)
    assert one.group == other.group
    del messages[1]["score"], messages[3]["score"]
    [nothing] = results(chat_ui, {"_id": "c", "messages": messages})
    assert isinstance(nothing, Dropped)
    assert nothing.reason == "no_label"


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"feedback": {"rating": "thumbsSideways"}}, ["rating_not_accepted"]),
        ({"parentMessageId": "gone"}, ["thread_broken"]),
        ({"messageId": "a"}, ["duplicate_id"]),
        ({"content": [{"type": "tool_call", "tool_call": {}}]}, ["tools_not_accepted"]),
    ],
)
def test_librechat_rejects_what_it_cannot_read(change, reasons):
    messages = [
        {"messageId": "a", "conversationId": "c", "parentMessageId": "0", "isCreatedByUser": True, "text": "Q"},
        {"messageId": "b", "conversationId": "c", "parentMessageId": "a", "isCreatedByUser": False, "text": "A"},
    ]
    messages[1] |= {"feedback": {"rating": "thumbsUp"}, **change}
    found = results(librechat, {"conversationId": "c", "messages": messages})
    assert [each.reason for each in found if isinstance(each, (Reject, Dropped))] == reasons


@pytest.mark.parametrize("source", ["open-webui", "chat-ui", "librechat", "openai-preference"])
def test_a_file_of_something_else_is_refused_by_its_columns(source, kto, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Q", "completion": "A", "label": true}\n')
    ran = kto("binarize", f"{source}:{path}", "--out", tmp_path / "out")
    assert ran.code == 1
    assert f"not a file of {source}" in " ".join(ran.err.split())


@pytest.mark.parametrize("source", ["open-webui", "librechat"])
def test_a_file_without_its_name_is_recognized(source, kto, tmp_path):
    draw = Random(1)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(SHAPES[source]([tree(draw, "c")], draw)))
    ran = kto("binarize", path, "--out", tmp_path / "out")
    assert ran.code == 1
    assert f"kto binarize {source}:" in " ".join(ran.err.split())


# --- what the products' own code says -------------------------------------------------------------


def thought(text: str, *, kind: str = "reasoning") -> str:
    """A block as Open WebUI writes it into the text of an answer."""
    quoted = "\n".join(f"> {line}" for line in text.split("\n"))
    return f'<details type="{kind}" done="true" duration="2">\n<summary>Thought</summary>\n{quoted}\n</details>\n'


def test_open_webui_keeps_reasoning_out_of_the_text():
    """An earlier answer without its reasoning is what Open WebUI sends to the model; other details are text."""
    last = {"id": "d", "parentId": "c", "role": "assistant", "content": "<details type='x'>A2</details>"}
    tree_ = {
        "a": ASKED,
        "b": {**ANSWERED, "content": thought("First &lt;this&gt;.\nThen that.") + "A1"},
        "c": {**ASKED, "id": "c", "parentId": "b", "content": '<details type="reasoning">mine</details>'},
        "d": last,
    }
    [row] = results(open_webui, webui(tree_, "d"))
    assert isinstance(row, Output)
    assert [turn["content"] for turn in row.prompt] == ["Q", "A1", '<details type="reasoning">mine</details>']
    assert row.completion[0]["content"] == "<details type='x'>A2</details>"
    message = open_webui.opened_blocks(tree_["b"])
    assert (message["content"], message["reasoning_content"]) == ("A1", "First <this>.\nThen that.")


@pytest.mark.parametrize("kind", ["tool_calls", "code_interpreter"])
def test_open_webui_rejects_answers_that_used_tools(kind):
    [reject] = results(open_webui, webui({"a": ASKED, "b": {**ANSWERED, "content": thought("x", kind=kind)}}, "b"))
    assert isinstance(reject, Reject)
    assert reject.reason == "tools_not_accepted"


def test_a_rated_error_message_is_no_answer():
    [reject] = results(open_webui, webui({"a": ASKED, "b": {**ANSWERED, "error": {"content": "429"}}}, "b"))
    assert isinstance(reject, Reject)
    assert reject.reason == "answer_is_error"


def ui_chat(*messages: tuple[str, str], **more: Any) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [{"from": role, "content": text} for role, text in messages]
    return {"messages": [*listed[:-1], {**listed[-1], "score": 1}], **more}


def test_chat_ui_gives_the_conversations_own_system_prompt():
    [row] = results(chat_ui, ui_chat(("system", ""), ("user", "Q"), ("assistant", "A"), preprompt="You are Shop."))
    assert isinstance(row, Output)
    assert [turn["content"] for turn in row.prompt] == ["You are Shop.", "Q"]
    [row] = results(chat_ui, ui_chat(("system", "Own."), ("user", "Q"), ("assistant", "A"), preprompt="You are Shop."))
    assert isinstance(row, Output)
    assert [turn["content"] for turn in row.prompt] == ["Own.", "Q"]


def test_chat_ui_in_parquet_does_not_join_an_answer_with_its_second_try(tmp_path):
    """Its own export has lists without ancestors."""
    import pyarrow as pa
    from pyarrow import parquet

    chats = [ui_chat(("system", ""), ("user", f"Q{k}"), ("assistant", f"A{k}")) for k in range(4)]
    chats += [ui_chat(("user", "Q"), ("assistant", "first"), ("assistant", "second"))]
    for number, chat in enumerate(chats):
        chat["messages"][-1]["score"] = number % 2 * 2 - 1
    parquet.write_table(pa.Table.from_pylist([{"title": "t", **chat} for chat in chats]), tmp_path / "c.parquet")
    result = binarize(f"chat-ui:{tmp_path}", out=tmp_path / "out", validation=0.0)
    assert result["rejected"] == {"thread_unclear": 1}
    assert {row["completion"][0]["content"]: row["label"] for row in both_splits(tmp_path / "out")} == {
        f"A{k}": k % 2 == 1 for k in range(4)
    }


def test_chat_ui_rejects_answers_that_used_tools():
    chat = ui_chat(("user", "Q"), ("assistant", "A"))
    chat["messages"][1]["updates"] = [{"type": "status"}, {"type": "tool", "subtype": "call"}]
    [reject] = results(chat_ui, chat)
    assert isinstance(reject, Reject)
    assert reject.reason == "tools_not_accepted"


@pytest.mark.parametrize(
    ("change", "reason"), [({"error": True}, "answer_is_error"), ({"quotes": ["x"]}, "quotes_not_accepted")]
)
def test_librechat_rejects_what_the_model_did_not_say_or_read(change, reason):
    messages = [
        {"messageId": "a", "conversationId": "c", "parentMessageId": "0", "isCreatedByUser": True, "text": "Q"},
        {"messageId": "b", "conversationId": "c", "parentMessageId": "a", "isCreatedByUser": False, "text": "A"},
    ]
    messages[0 if "quotes" in change else 1] |= change
    messages[1]["feedback"] = {"rating": "thumbsUp"}
    [reject] = results(librechat, {"conversationId": "c", "messages": messages})
    assert isinstance(reject, Reject)
    assert reject.reason == reason


def test_objects_written_as_json_text_are_read(tmp_path):
    """As the tables of the products' databases have them."""
    record = {key: json.dumps(value) for key, value in webui({"a": ASKED, "b": ANSWERED}, "b").items()}
    [row] = results(open_webui, record)
    assert isinstance(row, Output)
    assert [chat_ui.label_of({"score": score}) for score in ("1", -1.0, "0", "")] == [True, False, None, None]
    assert librechat.label_of({"feedback": json.dumps({"rating": "thumbsDown"})}) is False
    sides = {"preferred_output": [ANSWERED], "non_preferred_output": [{**ANSWERED, "content": "B"}]}
    [pair] = results(openai_preference, {"input": json.dumps({"messages": [ASKED]}), **sides})
    assert isinstance(pair, Pair)
    [reject] = results(open_webui, {**record, "meta": "no json"})
    assert isinstance(reject, Reject)
    assert reject.reason == "missing_field"


def test_ids_that_are_no_texts_are_no_crash():
    messages = [{"id": ["u"], "from": "user", "content": "Q"}]
    rated = {"id": "2", "from": "assistant", "content": "A", "score": 1, "ancestors": [["u"]]}
    [reject] = results(chat_ui, {"messages": [*messages, rated]})
    assert isinstance(reject, Reject)
    assert reject.reason == "thread_broken"


# --- flat exports -------------------------------------------------------------------------------


def flat(source: str, path: Path, text: str, out: Path) -> tuple[dict[str, bool], dict[str, Any]]:
    """Answers with their labels, and the result of the run."""
    path.write_text(text, encoding="utf-8")
    result = binarize(f"{source}:{path}", out=out, validation=0.0)
    return {row["completion"][0]["content"]: row["label"] for row in both_splits(out)}, result


def test_dify_gives_whole_answers_of_csv_and_of_json(tmp_path):
    """The cut answer is rejected, whatever its rating; the rows of the JSON lie in a list of one object."""
    answers = [("Green.", "like"), ("Who knows.", "dislike"), ("x" * 500 + "...", "like"), ("Maybe.", "")]
    rows = [
        {"conversation_id": f"c{k}", "user_query": f"Q{k}", "ai_response": answer, "feedback_rating_raw": rating}
        for k, (answer, rating) in enumerate(answers)
    ]
    whole = json.dumps({"export_info": {"total_records": 4}, "feedback_data": rows})
    table_ = "".join(",".join(row.values()) + "\n" for row in [dict(zip(rows[0], rows[0], strict=True)), *rows])
    for name, text in (("f.json", whole), ("f.csv", table_)):
        found, result = flat("dify", tmp_path / name, text, tmp_path / f"{name}-out")
        assert found == {"Green.": True, "Who knows.": False}
        assert result["rejected"] == {"answer_cut": 1}
        assert result["dropped_reasons"] == {"matches_neither": 1}


def test_gradio_rates_the_answer_that_was_flagged(tmp_path):
    chat = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    conversation = [{"role": role, "content": text} for role, text in chat]
    flags = [(1, "A1", "Like"), (3, "A2", "Dislike"), (3, "A1", "Like"), (9, "A1", "Like"), (0, "Q1", "Like")]
    rows = [{"conversation": conversation, "index": i, "value": v, "flag": flag} for i, v, flag in flags]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    found, result = flat("gradio", tmp_path / "log.jsonl", text, tmp_path / "out")
    assert found == {"A1": True, "A2": False}
    assert result["rejected"] == {"rated_message_missing": 3}


def test_anything_llm_says_what_its_csv_has_lost(kto, tmp_path):
    rows = "prompt,response,rating\nQ1,A1,GOOD\nQ2,A2,BAD\nQ3,A3,--\n"
    found, result = flat("anything-llm", tmp_path / "chats.csv", rows, tmp_path / "out")
    assert found == {"A1": True, "A2": False}
    assert result["dropped_reasons"] == {"matches_neither": 1}
    said = " ".join(kto("binarize", f"anything-llm:{tmp_path / 'chats.csv'}", "--check").err.split())
    assert "has lost the newlines" in said
