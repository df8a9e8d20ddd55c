"""Tools, calls of them and reasoning: read in every spelling, kept as they are, written and read again unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from binarizing import binarize
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.common.errors import BadInput
from kto_cli.data.arrow_chats import chat_type, from_arrow, texts_alone, to_arrow
from kto_cli.data.dataset import TRAIN, load_data_dir
from kto_cli.data.formats.chats import whole_chat
from kto_cli.data.formats.counts import counting
from kto_cli.data.formats.message_names import DEVELOPER
from kto_cli.data.formats.message_parts import UNREAD
from kto_cli.data.formats.messages import UNWRAPPED, read_turns
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.rows import OFFERED, answer_of, chat_and_answer, offering, prompt_of
from kto_cli.data.formats.tool_calls import NULLS, calls_json, tools_json
from kto_cli.data.log.format import with_system
from kto_cli.data.pipeline.to_rows import REASONING_DROPPED, REASONING_KEPT
from kto_cli.data.reasoning import split_reasoning
from kto_cli.data.texts import EXTRAS, Message, api_messages, joined, spelled, tools_of, with_tools, without_tools

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Weather of a city.", "parameters": CITY}
TOOLS = [{"type": "function", "function": FUNCTION}]
BONN = {"name": "weather", "arguments": {"city": "Bonn"}}
USER, ANSWER = {"role": "user", "content": "Weather in Bonn?"}, {"role": "assistant", "content": "18 degrees."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": BONN}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "18"}


def reason(call: Any, *args: Any) -> str:
    with pytest.raises(RowFault) as fault:
        call(*args)
    return fault.value.reason


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": BONN}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([{"function": BONN}])},
        {"role": "assistant", "content": None, "function_call": BONN},
        {"role": "assistant", "content": [{"type": "tool_use", "name": "weather", "input": {"city": "Bonn"}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Bonn"}}}]},
        {"role": "assistant", "content": [{"type": "tool-call", "toolName": "weather", "args": {"city": "Bonn"}}]},
        {"type": "ai", "content": "", "tool_calls": [{"name": "weather", "args": {"city": "Bonn"}}]},
        {"type": "ai", "content": "", "additional_kwargs": {"tool_calls": [{"function": BONN}]}},
        {"type": "function_call", "name": "weather", "arguments": '{"city": "Bonn"}'},
        {"from": "function_call", "value": json.dumps(BONN)},
        {"from": "function_call", "value": json.dumps([BONN])},
        {"role": "tool_calls", "content": json.dumps([BONN])},
    ],
)
def test_one_call_in_many_spellings(message: dict[str, Any]):
    (turn,) = read_turns([message], "the chat")
    assert (turn.role, turn.content) == ("assistant", "")
    assert [call["function"] for call in json.loads(turn.calls)] == [BONN]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "18"},
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": [{"type": "text", "text": "18"}]},
        {"type": "tool", "tool_call_id": "c1", "name": "weather", "content": "18"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "name": "weather", "content": "18"}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "weather", "response": 18}}]},
        {"type": "function_call_output", "call_id": "c1", "name": "weather", "output": "18"},
        {
            "role": "tool",
            "content": [{"type": "tool-result", "toolCallId": "c1", "toolName": "weather", "result": "18"}],
        },
    ],
)
def test_one_result_in_many_spellings(message: dict[str, Any]):
    (turn,) = read_turns([message], "the chat")
    assert (turn.role, turn.content, turn.call_id, turn.name) == ("tool", "18", "c1", "weather")


@pytest.mark.parametrize(
    "tools",
    [
        TOOLS,
        json.dumps(TOOLS),
        [json.dumps(TOOLS[0])],
        [FUNCTION],
        TOOLS[0],
        [{"name": "weather", "description": "Weather of a city.", "input_schema": CITY}],
        [{"functionDeclarations": [FUNCTION]}],
        [{"type": "function", **FUNCTION}],
    ],
)
def test_tools_in_many_spellings(tools: Any):
    assert json.loads(tools_json(tools, "tools")) == TOOLS


def test_no_tools():
    assert {tools_json(value, "tools") for value in (None, "", "[]", [], {}, " ", "null")} == {""}


@pytest.mark.parametrize("tools", ["hammer", [5], [{"type": "web_search"}], [{"function": {}}], "[{", {"a": 1}, 5])
def test_what_is_no_tool_rejects_the_row(tools: Any):
    assert reason(tools_json, tools, "tools") == "tools_not_accepted"


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"arguments": {}}},
        {"name": "f", "arguments": "not json"},
        {"name": "f", "arguments": [1]},
        {"name": "f", "arguments": {}, "output": "18"},
        {"tool_call": {"name": "f", "args": {}, "output": "18"}},
        "f",
    ],
)
def test_broken_calls_reject_the_row(call: Any):
    assert reason(calls_json, [call], "the chat") == "tools_not_accepted"


def test_nulls_that_a_table_adds_are_left_out_and_said():
    """datasets and Parquet give every call the arguments of all others, as null."""
    with counting() as counts:
        found = calls_json([{"function": {"name": "f", "arguments": {"city": "Bonn", "hour": None}}}], "the chat")
    assert json.loads(found)[0]["function"]["arguments"] == {"city": "Bonn"}
    assert counts.notes[NULLS] == 1
    assert json.loads(calls_json([{"name": "f", "arguments": '{"hour": null}'}], "it"))[0]["function"]["arguments"] == {
        "hour": None
    }


def chat(*messages: dict[str, Any]) -> tuple[tuple[Message, ...], Message]:
    return whole_chat(read_turns(messages, "the chat"), "the chat")


def test_an_answer_may_be_a_call_and_follow_results():
    prompt, answer = chat(USER, CALL)
    assert prompt == (USER,)
    assert (answer["content"], json.loads(answer["tool_calls"])[0]["function"]) == ("", BONN)
    prompt, answer = chat(USER, CALL, RESULT, ANSWER)
    assert [turn["role"] for turn in prompt] == ["user", "assistant", "tool"]
    assert (prompt[2]["tool_call_id"], answer) == ("c1", ANSWER)
    two = {**CALL, "tool_calls": CALL["tool_calls"] * 2}
    prompt, _ = chat(USER, two, RESULT, RESULT, ANSWER, USER, ANSWER)
    assert [turn["role"] for turn in prompt] == ["user", "assistant", "tool", "tool", "assistant", "user"]


def test_items_of_a_response_are_one_answer():
    """OpenAI's responses: reasoning, a text and a call are items of their own."""
    items = [
        {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "I ask."}]},
        {"type": "reasoning", "id": "r2", "summary": [], "encrypted_content": "Zz"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", **BONN},
    ]
    _, answer = chat(USER, *items)
    assert (answer["reasoning_content"], answer["content"]) == ("I ask.", "Let me see.")
    assert json.loads(answer["tool_calls"])[0]["id"] == "c1"
    (alone,) = answer_of(items, (USER,), "output")
    assert alone == answer
    assert reason(answer_of, [ANSWER, ANSWER], (USER,), "output") == "answer_not_one_turn"


def test_a_call_has_the_id_that_its_result_names():
    item = {"type": "function_call", "id": "item 1", "call_id": "c1", **BONN}
    prompt, _ = chat(USER, item, {"type": "function_call_output", "call_id": "c1", "output": "18"}, ANSWER)
    assert json.loads(prompt[1]["tool_calls"])[0]["id"] == prompt[2]["tool_call_id"] == "c1"


@pytest.mark.parametrize("as_text", [False, True])
def test_a_request_has_its_system_message_and_tools_beside_its_messages(as_text: bool):
    """A logged request, as the prompt or with the answer as a whole chat; a column may offer the same tools again."""
    request = {"model": "m", "system": [{"type": "text", "text": "Be brief."}], "tools": TOOLS, "messages": [USER]}
    spelling: Any = json.dumps(request) if as_text else request
    prompt = prompt_of(spelling, False)
    assert json.loads(tools_of(prompt)) == TOOLS
    assert [turn["role"] for turn in prompt] == ["tools", "system", "user"]
    assert chat_and_answer({**request, "messages": [USER, ANSWER]}, "chat", {}, False) == (prompt, (ANSWER,))
    assert offering(tools_of(prompt), prompt) == prompt == with_system(prompt, "Be brief.")
    assert with_system((prompt[0], prompt[2]), "Be brief.") == prompt
    assert reason(offering, tools_json([{**FUNCTION, "name": "other"}], "tools"), prompt) == "tools_not_accepted"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "step-start"}, ""),
        ({"type": "text", "text": "18 degrees."}, ""),
        ({"type": "reasoning", "text": "I look."}, "I look."),
        ({"type": "tool-invocation", "toolInvocation": {"toolName": "weather"}}, "tools_not_accepted"),
        ({"type": "tool-weather", "input": {}, "output": "18"}, "tools_not_accepted"),
        ({"type": "file", "url": "a.png"}, "media_not_accepted"),
    ],
)
def test_parts_beside_a_content_are_read_too(part: dict[str, Any], found: str):
    """Vercel's messages have their text twice; calls, results and reasoning are in the parts alone."""
    message = {**ANSWER, "parts": [part, {"type": "text", "text": ANSWER["content"]}]}
    if found.endswith("accepted"):
        assert reason(chat, USER, message) == found
        return
    _, answer = chat(USER, message)
    assert (answer["content"], answer.get("reasoning_content", "")) == (ANSWER["content"], found)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([USER, CALL, ANSWER], "call_without_result"),
        ([USER, ANSWER, RESULT, ANSWER], "roles_do_not_alternate"),
        ([RESULT, USER, ANSWER], "roles_do_not_alternate"),
        ([{**USER, "tool_calls": CALL["tool_calls"]}, ANSWER], "tools_not_accepted"),
        ([USER, {**ANSWER, "invalid_tool_calls": [{"name": "f"}]}], "tools_not_accepted"),
    ],
)
def test_calls_out_of_place(messages: list[dict[str, Any]], why: str):
    assert reason(chat, *messages) == why


def test_what_is_read_otherwise_is_said():
    with counting() as counts:
        prompt, _ = chat(
            {"role": "developer", "content": "Be brief."}, USER, CALL, {**RESULT, "content": WRAPPED}, ANSWER
        )
    assert prompt[0] == {"role": "system", "content": "Be brief."}
    assert prompt[3]["content"] == "18"
    assert {DEVELOPER, UNWRAPPED} <= set(counts.notes)


WRAPPED = "<tool_response>\n18\n</tool_response>"


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "I read 18."},
        {"reasoning": "I read 18.", "reasoning_details": [{"type": "reasoning.text", "text": "I read 18."}]},
        {"thinking": "I read 18."},
        {"thinking_blocks": [{"type": "thinking", "thinking": "I read 18.", "signature": "Zz"}]},
        {"content": [{"type": "thinking", "thinking": "I read 18."}, {"type": "text", "text": "18 degrees."}]},
        {"content": [{"type": "reasoning", "summary": [{"text": "I read 18."}]}, {"text": "18 degrees."}]},
        {"additional_kwargs": {"reasoning_content": "I read 18."}},
    ],
)
def test_reasoning_in_many_spellings(fields: dict[str, Any]):
    _, answer = chat(USER, {**ANSWER, **fields})
    assert answer == {**ANSWER, "reasoning_content": "I read 18."}


@pytest.mark.parametrize(
    "fields",
    [
        {"content": [{"type": "redacted_thinking", "data": "Zz"}, "18 degrees."]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "Zz"}]},
    ],
)
def test_reasoning_that_nobody_can_read_is_left_out_and_said(fields: dict[str, Any]):
    with counting() as counts:
        _, answer = chat(USER, {**ANSWER, **fields})
    assert answer == ANSWER
    assert counts.notes[UNREAD] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nwhy\n</think>\n\nIt is.", ("why", "It is.")),
        ("\n<think>why</think>It is.", ("why", "It is.")),
        ("why</think>It is.", ("why", "It is.")),
        ("[THINK]why[/THINK]It is.", ("why", "It is.")),
        ("<|START_THINKING|>why<|END_THINKING|>It is.", ("why", "It is.")),
        ("<think>\n\n</think>\n\nIt is.", ("", "It is.")),
        ("<think>why, cut", ("", "<think>why, cut")),
        ("It is <think>.", ("", "It is <think>.")),
        ("<b>It</b> is.", ("", "<b>It</b> is.")),
        ("It is.", ("", "It is.")),
    ],
)
def test_reasoning_in_the_text(text: str, expected: tuple[str, str]):
    assert split_reasoning(text) == expected


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def rows(count: int = 8) -> list[dict[str, Any]]:
    """Rows in TRL's columns: a call, an answer to its result, reasoning, and a plain one in turn."""
    made = []
    for number in range(count):
        user = {"role": "user", "content": f"Weather in city {number}?"}
        thought = {**ANSWER, "content": f"{number} degrees.", "reasoning_content": "I read it."}
        prompt, answer = [
            ([user], CALL),
            ([user, CALL, RESULT], {**ANSWER, "content": f"It is {number}."}),
            ([user], thought),
            ([user], {**ANSWER, "content": f"About {number}."}),
        ][number % 4]
        made.append({"tools": TOOLS, "prompt": prompt, "completion": [answer], "label": number % 8 < 4})
    return made


def test_a_dataset_has_tools_calls_and_reasoning(tmp_path: Path):
    result = binarize(write(tmp_path / "rows.jsonl", rows()), tmp_path / "out", validation=0)
    assert (result["desirable"], result["undesirable"]) == (4, 4)
    assert result["decisions"] == {REASONING_KEPT: 2, OFFERED: 8}
    schema = parquet.read_schema(tmp_path / "out" / TRAIN)
    assert schema.field("tools").type == "string"
    assert {field.name for field in schema.field("prompt").type.value_type} == {"role", "content", *EXTRAS}
    train = {row.origin: row for row in load_data_dir(tmp_path / "out").train}
    for number, written in enumerate(rows(), 1):
        row = train[f"rows.jsonl:{number}"]
        assert json.loads(tools_of(row.prompt)) == TOOLS
        assert [turn["role"] for turn in without_tools(row.prompt)] == [turn["role"] for turn in written["prompt"]]
        answer = written["completion"][0]
        assert row.completion[0]["content"] == (answer["content"] or "")
        assert row.completion[0].get("reasoning_content") == answer.get("reasoning_content")
        assert ("tool_calls" in row.completion[0]) == ("tool_calls" in answer)
    assert len({row.prompt_id for row in train.values()}) == 8


def test_the_same_messages_with_other_tools_are_another_prompt(tmp_path: Path):
    plain = [{"prompt": [USER], "completion": [{**ANSWER, "content": f"{n}"}], "label": n % 2 == 0} for n in range(4)]
    made = [{**row, "tools": TOOLS} if n < 2 else row for n, row in enumerate(plain)]
    binarize(write(tmp_path / "a.jsonl", made), tmp_path / "out", validation=0)
    train = load_data_dir(tmp_path / "out").train
    assert len({row.prompt_id for row in train}) == 2
    assert sorted(tools_of(row.prompt) != "" for row in train) == [False, False, True, True]


def test_a_dataset_without_them_has_the_columns_it_always_had(tmp_path: Path):
    plain = [{"prompt": f"{n}?", "completion": f"{n}.", "label": n % 2 == 0, "tools": []} for n in range(4)]
    binarize(write(tmp_path / "a.jsonl", plain), tmp_path / "out", validation=0)
    schema = parquet.read_schema(tmp_path / "out" / TRAIN)
    assert "tools" not in schema.names
    assert schema.field("prompt").type == chat_type(has_more=False)


def test_reasoning_dropped_is_gone_from_prompts_and_answers(tmp_path: Path):
    earlier = [USER, {**ANSWER, "reasoning_content": "I read 18."}, {"role": "user", "content": "And Rome?"}]
    made = [
        {"prompt": earlier, "completion": "<think>\nSouth\n</think>\n\n25 degrees.", "label": True},
        {"prompt": earlier, "completion": [{**ANSWER, "content": "Cold.", "reasoning": "North"}], "label": False},
        {"prompt": "Hi", "completion": "<think>\nHm\n</think>\n\n", "label": True},
        {"prompt": "Bye", "completion": "Bye.", "label": True},
    ]
    source = write(tmp_path / "a.jsonl", made)
    result = binarize(source, tmp_path / "out", validation=0, reasoning="drop")
    assert result["rejected"] == {"empty_answer": 1}
    assert result["decisions"][REASONING_DROPPED] == 2
    train = {row.origin: row for row in load_data_dir(tmp_path / "out").train}
    assert [joined(train[f"a.jsonl:{n}"].completion) for n in (1, 2, 4)] == ["25 degrees.", "Cold.", "Bye."]
    assert "read 18" not in spelled(train["a.jsonl:1"].prompt)
    kept = binarize(source, tmp_path / "kept", validation=0)
    assert kept["decisions"][REASONING_KEPT] == 3
    train = {row.origin: row for row in load_data_dir(tmp_path / "kept").train}
    assert "South" in joined(train["a.jsonl:1"].completion)


def test_a_log_finds_its_tools_and_a_column_of_other_tools_is_ignored(tmp_path: Path):
    """A column `tools` is taken where its cells are lists of tools; --tools-column takes another one."""
    made = [{"messages": [*row["prompt"], *row["completion"]], "good": row["label"], "tools": TOOLS} for row in rows()]
    result = binarize(f"log:{write(tmp_path / 'a.jsonl', made)}", tmp_path / "a", label_column="good", validation=0)
    assert result["desirable"] == 4
    assert all(tools_of(row.prompt) for row in load_data_dir(tmp_path / "a").train)
    made = [{**row, "tools": "hammer"} for row in made]
    binarize(f"log:{write(tmp_path / 'b.jsonl', made)}", tmp_path / "b", label_column="good", validation=0)
    assert not any(tools_of(row.prompt) for row in load_data_dir(tmp_path / "b").train)
    made = [{**row, "offered": json.dumps(TOOLS)} for row in made]
    source = f"log:{write(tmp_path / 'c.jsonl', made)}"
    binarize(source, tmp_path / "c", label_column="good", validation=0, tools_column="offered")
    assert all(tools_of(row.prompt) for row in load_data_dir(tmp_path / "c").train)


def test_exports_hold_them_or_say_why_not(tmp_path: Path):
    """LLaMA-Factory's file, read again as a source, gives the same rows, but for the ids of calls."""
    some = [row for row in rows() if "reasoning_content" not in row["completion"][0]]
    source = write(tmp_path / "rows.jsonl", some)
    binarize(source, tmp_path / "out", validation=0, formats=("trl", "llama-factory"))
    (first, *_) = map(json.loads, (tmp_path / "out/trl/train.jsonl").read_text().splitlines())
    assert json.loads(first["tools"]) == TOOLS
    binarize(f"llama-factory:{tmp_path / 'out/llama-factory'}", tmp_path / "again", validation=0)

    def seen(folder: Path) -> list[Any]:
        return sorted(
            json.dumps(
                [
                    row.prompt[0],
                    [_without_ids(turn) for turn in api_messages(row.prompt)],
                    row.label,
                    joined(row.completion),
                ]
            )
            for row in load_data_dir(folder).train
        )

    assert seen(tmp_path / "again") == seen(tmp_path / "out")
    with pytest.raises(BadInput, match=r"has tools or reasoning, which halos cannot hold.*--format halos"):
        binarize(source, tmp_path / "halos", validation=0, formats=("halos",))
    with pytest.raises(BadInput, match="reasoning in a field of its own; llama-factory has no place"):
        binarize(write(tmp_path / "r.jsonl", rows()), tmp_path / "no", validation=0, formats=("llama-factory",))


def _without_ids(turn: dict[str, Any]) -> dict[str, Any]:
    calls = [call["function"] for call in turn.get("tool_calls", [])]
    return {"role": turn["role"], "content": turn["content"], "calls": calls}


WORDS = st.text(st.sampled_from("ab+\n1 é"), max_size=4)
TURNS = st.builds(
    lambda role, content, more: {"role": role, "content": content} | more,
    st.sampled_from(["user", "assistant", "tool"]),
    WORDS,
    st.dictionaries(st.sampled_from(EXTRAS), WORDS.filter(bool), max_size=3).map(
        lambda found: {
            name: json.dumps([{"function": {"name": value}}]) if name == "tool_calls" else value
            for name, value in found.items()
        }
    ),
)
CHATS = st.builds(with_tools, st.sampled_from(["", "[1]", "[2]"]), st.lists(TURNS, min_size=1, max_size=3).map(tuple))


@given(CHATS | WORDS, CHATS | WORDS)
@settings(max_examples=300, deadline=None)
def test_different_chats_are_spelled_differently(one, other):
    assert (spelled(one) == spelled(other)) == (one == other)


@given(st.lists(CHATS, max_size=5))
@settings(max_examples=60, deadline=None)
def test_chats_come_back_from_arrow(some):
    chats, tools, has_more = to_arrow(some)
    assert from_arrow(chats, tools) == some
    assert has_more == any(len(turn) > 2 or turn["role"] == "tools" for chat in some for turn in chat)
    assert from_arrow(chats.slice(1), tools.slice(1)) == some[1:]
    plain = [tuple({"role": turn["role"], "content": turn["content"]} for turn in without_tools(chat)) for chat in some]
    assert from_arrow(texts_alone(chats)) == plain
