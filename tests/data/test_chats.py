"""Chats and messages as they occur: brought into turns, every change counted, what cannot be read rejected by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from binarizing import binarize

from kto_cli.data.formats import chats
from kto_cli.data.formats.chats import answer_turn, branch, prompt_chat, whole_chat, with_rated
from kto_cli.data.formats.counts import counting
from kto_cli.data.formats.messages import as_messages, read_turns
from kto_cli.data.formats.records import RowFault

USER, BOT = {"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "Until six."}


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def reason(call: Any, *args: Any) -> str:
    with pytest.raises(RowFault) as fault:
        call(*args)
    return fault.value.reason


def short(value: Any) -> str:
    """Messages as `u:Hi a:Hello`."""
    turns = read_turns(value, "the chat")
    return " ".join(f"{turn.role[0]}:{turn.content}" for turn in turns)


@pytest.mark.parametrize(
    "turn",
    [
        said("Human", "Hi"),
        {"from": "human", "value": "Hi"},
        {"from": "user", "content": "Hi"},
        {"sender": "User", "text": "Hi"},
        {"isCreatedByUser": True, "text": "Hi", "sender": "User"},
        {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Hi"]}},
        {"type": "human", "content": "Hi"},
        {"type": "human", "data": {"content": "Hi", "additional_kwargs": {}}},
        {"type": "constructor", "id": ["langchain", "schema", "HumanMessage"], "kwargs": {"content": "Hi"}},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"role": "user", "parts": [{"text": "H"}, {"text": "i"}]},
        said("user", [{"type": "text", "text": "Hi", "image_url": None}]),
        said("user", [{"type": "text", "text": {"value": "Hi", "annotations": []}}]),
        said("user", ["H", "i"]),
        said(" USER ", {"type": "text", "text": "Hi"}),
        said("user", "Hi", tool_calls=[], function_call=None, images=[], reasoning_content=""),
    ],
)
def test_one_message_in_many_spellings(turn):
    assert short([turn]) == "u:Hi"


@pytest.mark.parametrize("role", ["assistant", "ai", "gpt", "bot", "model", "ChatGPT"])
def test_roles_of_assistants(role):
    assert short([said(role, "Hi")]) == "a:Hi"


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (said("assistant", "", additional_kwargs={"tool_calls": [{"id": "1"}]}), "tools_not_accepted"),
        (said("user", "Look", images=["a.png"]), "media_not_accepted"),
        (said("user", "Look", attachments=[{"name": "a.pdf"}]), "media_not_accepted"),
        (said("user", [{"type": "image_url", "image_url": {"url": "x"}}]), "media_not_accepted"),
        (said("user", [{"type": "text", "text": "Look"}, {"type": "image"}]), "media_not_accepted"),
        (said("user", [{"type": "input_audio", "input_audio": {}}]), "media_not_accepted"),
        (said("user", [{"inline_data": {"mime_type": "image/png"}}]), "media_not_accepted"),
        (said("user", [{"type": "citation", "cites": 1}]), "part_not_accepted"),
        (said("assistant", "Hm", refusal="I cannot."), "part_not_accepted"),
        (said("user", [5]), "not_text"),
        (said("user", None), "not_text"),
        (said("user", 5), "not_text"),
        ({"content": "Hi"}, "not_text"),
        (said("narrator", "Hi"), "role_not_accepted"),
    ],
)
def test_what_kto_cannot_read_is_rejected_by_name(turn, why):
    assert reason(read_turns, [turn], "the chat") == why


def test_a_refusal_is_what_the_answer_says():
    assert short([said("assistant", None, refusal="I cannot.")]) == "a:I cannot."
    assert short([said("assistant", [{"type": "refusal", "refusal": "I cannot."}])]) == "a:I cannot."


def test_other_fields_are_counted_by_name():
    with counting() as counts:
        assert (
            short([said("user", "Hi", name="Ann", id=3, note=""), said("assistant", "Hello", weight=1)])
            == "u:Hi a:Hello"
        )
    assert dict(counts.notes) == {"chats whose message fields id, name, weight are left out": 1}


def parts(*messages: dict[str, Any], rated: str | None = None) -> tuple[str, list[str]]:
    """Prompt and answer of a chat in short, and the changes that were counted."""
    with counting() as counts:
        prompt, answer = whole_chat(read_turns(messages, "the chat"), "the chat", rated, is_labelled=True)
    changes = [name for name in vars(chats) if name.isupper() and counts.notes[getattr(chats, name)]]
    text = " ".join(f"{turn['role'][0]}:{turn['content']}" for turn in prompt)
    return f"{text} > {answer['content']}", sorted(changes)


HI, MORE, THANKS = said("user", "Hi"), said("user", "Any tea?"), said("user", "Thanks")
GREET, GREEN, BLACK = said("assistant", "Hello"), said("assistant", "Green"), said("assistant", "Black")
SYSTEM = said("system", "Be nice")


@pytest.mark.parametrize(
    ("messages", "expected", "changes"),
    [
        ([HI, GREEN], "u:Hi > Green", []),
        ([SYSTEM, HI, GREEN], "s:Be nice u:Hi > Green", []),
        ([said("system", ""), HI, GREEN], "u:Hi > Green", ["NO_SYSTEM"]),
        ([SYSTEM, said("developer", "Be brief"), HI, GREEN], "s:Be nice\n\nBe brief u:Hi > Green", ["JOINED"]),
        ([GREET, MORE, GREEN], "u:Any tea? > Green", ["GREETING"]),
        ([SYSTEM, GREET, GREET, MORE, GREEN], "s:Be nice u:Any tea? > Green", ["GREETING"]),
        ([HI, MORE, GREEN], "u:Hi\n\nAny tea? > Green", ["JOINED"]),
        ([HI, GREEN, THANKS], "u:Hi > Green", ["LAST_WORD"]),
        ([MORE, GREEN, BLACK], "u:Any tea? > Green\n\nBlack", ["JOINED"]),
        ([HI, GREET, MORE, GREEN], "u:Hi a:Hello u:Any tea? > Green", ["SEVERAL"]),
        ([GREET, HI, MORE, GREEN, THANKS], "u:Hi\n\nAny tea? > Green", ["GREETING", "JOINED", "LAST_WORD"]),
        (
            [HI, said("assistant", "Hm", thinking_blocks=[{"data": "Zz"}]), MORE, GREEN],
            "u:Hi a:Hm u:Any tea? > Green",
            ["SEVERAL"],
        ),
    ],
)
def test_chats_as_they_happen(messages, expected, changes):
    assert parts(*messages) == (expected, changes)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([HI], "answer_not_one_turn"),
        ([], "roles_do_not_alternate"),
        ([GREEN], "roles_do_not_alternate"),
        ([GREEN, HI], "roles_do_not_alternate"),
        ([SYSTEM, GREEN], "roles_do_not_alternate"),
        ([HI, GREEN, SYSTEM, MORE, GREEN], "roles_do_not_alternate"),
        ([HI, said("assistant", " ")], "empty_answer"),
        ([said("user", " "), GREEN], "empty_turn"),
        ([HI, said("user", ""), GREEN], "empty_turn"),
        ([HI, said("tool", "18"), GREEN], "roles_do_not_alternate"),
        ([HI, GREEN, said("tool", "18"), BLACK], "roles_do_not_alternate"),
        ([HI, said("assistant", "", tool_calls=[{"name": "f"}]), GREEN], "call_without_result"),
    ],
)
def test_nonsense_is_refused(messages, why):
    assert reason(whole_chat, read_turns(messages, "the chat"), "the chat") == why


def test_the_rated_message_is_the_answer():
    numbered = [{**turn, "id": f"m{n}"} for n, turn in enumerate((MORE, GREEN, THANKS, said("assistant", "Bye")), 1)]
    assert parts(*numbered, rated="m2") == ("u:Any tea? > Green", ["LAST_WORD"])
    assert parts(*numbered, rated="m4") == ("u:Any tea? a:Green u:Thanks > Bye", [])
    assert parts(*numbered) == ("u:Any tea? a:Green u:Thanks > Bye", ["SEVERAL"])
    for wrong in ("m1", "m9"):
        assert reason(whole_chat, read_turns(numbered, "the chat"), "the chat", wrong) == "rated_message_missing"


@pytest.mark.parametrize("rating", [{"annotation": {"rating": 1}}, {"score": -1}, {"feedback": {"rating": "thumbsUp"}}])
def test_a_message_with_a_rating_of_its_own_is_the_answer(rating):
    assert parts(MORE, {**GREEN, **rating}, THANKS, BLACK) == ("u:Any tea? > Green", ["LAST_WORD"])
    both = read_turns([MORE, {**GREEN, **rating}, THANKS, {**BLACK, **rating}], "the chat")
    assert reason(whole_chat, both, "the chat") == "rated_message_unclear"


def test_the_place_and_text_that_gradio_gives():
    turns = read_turns([MORE, GREEN, THANKS, BLACK], "the chat")
    for values in ({"index": 1, "value": "Green"}, {"index": "1", "value": " Green\n"}):
        prompt, answer = whole_chat(with_rated(turns, values), "the chat")
        assert (len(prompt), answer["content"]) == (1, "Green")
    for values in (
        {"index": 1, "value": "Black"},
        {"index": 0, "value": "Any tea?"},
        {"index": 9, "value": "Green"},
        {},
    ):
        assert with_rated(turns, values) is turns


def test_a_score_of_a_model_is_no_rating():
    assert parts(MORE, {**GREEN, "score": 0.4}, THANKS, {**BLACK, "score": 0.9})[0].endswith("> Black")


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ([MORE], [GREEN], "Green"),
        ([MORE], [GREEN, THANKS], "Green"),
        ([MORE], [MORE, GREEN], "Green"),
        ([HI, MORE], [HI, MORE, GREEN, THANKS], "Green"),
        ([GREET, HI, GREET, MORE], [GREET, HI, GREET, MORE, GREEN], "Green"),
    ],
)
def test_answers_in_messages(prompt, answer, expected):
    asked = prompt_chat(read_turns(prompt, "the prompt"))
    assert answer_turn(read_turns(answer, "completion"), asked, "completion")["content"] == expected


@pytest.mark.parametrize("answer", [[HI, GREEN], [GREEN, BLACK], [GREEN, THANKS, BLACK], [THANKS], [MORE]])
def test_answers_of_several_turns_are_refused(answer):
    asked = as_messages(read_turns([MORE], "the prompt"))
    assert reason(answer_turn, read_turns(answer, "completion"), asked, "completion") == "answer_not_one_turn"


def test_a_tree_is_read_down_to_its_leaf():
    tree = {"a": {"parentId": None, **MORE}, "b": {"parentId": "a", **GREEN}, "c": {"parentId": "a", **BLACK}}
    assert short(branch(tree, "c")) == "u:Any tea? a:Black"


def test_a_tree_without_a_way_to_its_root_is_no_chat():
    """Cut short it would be another prompt than the one that was answered; a circle has no first message."""
    for tree in ({"a": {"parentId": "a", **MORE}}, {"a": {"parentId": "gone", **MORE}}):
        assert reason(branch, tree, "a") == "thread_broken"


def test_two_whole_chats_need_no_prompt(tmp_path):
    """Votes over two conversations: what they share before the answers is the prompt."""
    rows = [
        {"winner": winner, "a": [MORE, GREEN, THANKS], "b": [{"from": "human", "value": "Any tea?"}, BLACK]}
        for winner in ("a", "b", "a", "b", "tie")
    ]
    rows.append({"winner": "a", "a": [MORE, GREEN], "b": [HI, BLACK]})
    path = tmp_path / "arena.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {**rows[0], "a": [HI, GREET], "b": [HI, BLACK]}])))
    result = binarize(
        f"log:{path}",
        tmp_path / "out",
        completion_column="a",
        other_column="b",
        desirable='winner == "a"',
        undesirable='winner == "b"',
        validation=0,
    )
    assert (result["desirable"], result["undesirable"]) == (5, 5)
    assert result["rejected"] == {"prompts_differ": 2}
    assert result["dropped_reasons"] == {"matches_neither": 2}
    assert result["decisions"] == {chats.LAST_WORD: 4}


def test_changes_of_a_rejected_chat_are_not_counted(tmp_path):
    rows = [
        {"messages": [GREET, MORE, said("assistant", "")], "label": True},
        {"messages": [GREET, GREET, MORE, GREEN], "label": True},
        {"messages": [HI, BLACK], "label": False},
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    result = binarize(str(path), tmp_path / "out", validation=0)
    assert result["rejected"] == {"empty_answer": 1}
    assert result["decisions"] == {chats.GREETING: 1}
