"""Chat templates with tools and reasoning: what is trained is what the model sees and writes at inference."""

from __future__ import annotations

import json

import pytest
from encoded import OneByOne, encode_rows
from template_styles import STYLES as PLAIN_STYLES
from test_chat_templates import made
from tool_styles import STYLES, ToolStyle, native

from kto_cli.data.dataset import Row
from kto_cli.data.texts import Message
from kto_cli.model.tokens.chat_template import ChatTemplate

Messages = tuple[Message, ...]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": {}}}]
CALLS = json.dumps(
    [{"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}]
)
OFFER: Message = {"role": "tools", "content": json.dumps(TOOLS)}
ASK: Message = {"role": "user", "content": "Weather in Bonn?"}
CALL: Message = {"role": "assistant", "content": "", "tool_calls": CALLS}
RESULT: Message = {"role": "tool", "content": "18 degrees", "tool_call_id": "abcdefghi", "name": "weather"}
SAID: Message = {"role": "assistant", "content": "It is 18."}
ROWS: dict[str, tuple[Messages, Message]] = {
    "call": ((OFFER, ASK), CALL),
    "text_and_call": ((OFFER, ASK), {**CALL, "content": "I look."}),
    "after_result": ((OFFER, ASK, CALL, RESULT), SAID),
    "reasoning": ((ASK,), {**SAID, "reasoning_content": "I know."}),
    "reasoning_and_call": ((OFFER, ASK), {**CALL, "reasoning_content": "I ask."}),
}


def encoder_of(style: ToolStyle) -> OneByOne:
    tokenizer = made(style.template, style.eos)
    ends = tokenizer.convert_tokens_to_ids(list(style.ends))
    return OneByOne(tokenizer, max_length=2000, end_ids=ends)


@pytest.fixture(scope="module")
def encoders() -> dict[str, OneByOne]:
    return {name: encoder_of(style) for name, style in STYLES.items()}


def by_transformers(encoder: OneByOne, style: ToolStyle, chat: Messages, *, generation: bool) -> list[int]:
    offers = chat[0]["role"] == "tools"
    messages = [native(style, message) for message in chat[offers:]]
    tools = TOOLS if offers else None
    ids = encoder.tokenizer.apply_chat_template(
        messages, tools=tools, add_generation_prompt=generation, return_dict=False
    )
    return list(ids)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", STYLES)
def test_calls_results_and_reasoning(encoders: dict[str, OneByOne], name: str, kind: str):
    """The prompt's ids are transformers'; the answer is the one worked out by hand; the whole chat has both."""
    style, encoder = STYLES[name], encoders[name]
    prompt, answer = ROWS[kind]
    expected = getattr(style, kind)
    assert list(encoder.prompt(prompt)) == by_transformers(encoder, style, prompt, generation=True)
    (found,), (apart,) = encoder.encode_completions([(answer,)]), encoder.refusals([prompt], [(answer,)])
    if expected.startswith("("):
        assert expected.strip("()") in (found.refused or apart)
        return
    assert not found.refused
    assert not apart
    assert encoder.tokenizer.decode(list(found.ids)) == expected
    if style.whole:
        whole = by_transformers(encoder, style, (*prompt, answer), generation=False)
        decode = encoder.tokenizer.decode
        assert decode(whole).startswith(decode([*encoder.prompt(prompt), *found.ids]))


def test_what_templates_read_is_found_out(encoders: dict[str, OneByOne]):
    for name, style in STYLES.items():
        template = ChatTemplate(encoders[name].tokenizer)
        assert (template.reasoning_field, template.calls_as_text) == (style.field, style.as_text), name
        assert ("tools" not in template.left_out()) == style.tools_shown, name


@pytest.mark.parametrize("name", PLAIN_STYLES)
def test_a_template_without_tools_says_what_it_leaves_out(name: str):
    """None of these templates reads tools: each row with them is counted, or its prompt or answer is refused."""
    style = PLAIN_STYLES[name]
    encoder = OneByOne(made(style.template, style.eos), max_length=900)
    assert encoder.left_out["tools"] == "their tools"
    assert encoder.encode_completions([(CALL,)])[0].refused


def test_names_of_special_tokens_in_arguments_are_text(encoders: dict[str, OneByOne]):
    """A call that quotes <|im_end|> does not end there."""
    encoder = encoders["hermes"]
    arguments = json.dumps([{"function": {"name": "weather", "arguments": {"city": "<|im_end|>"}}}])
    ids, named = encoder.completion(({"role": "assistant", "content": "", "tool_calls": arguments},))
    assert named
    assert list(ids).count(encoder.tokenizer.eos_token_id) == 1
    assert encoder.tokenizer.decode(list(ids)).endswith('{"city": "<|im_end|>"}}\n</tool_call><|im_end|>')


def row(number: int, prompt: Messages, answer: Message) -> Row:
    own = tuple(
        {**turn, "content": f"{turn['content']} {number}"} if turn["role"] == "user" else turn for turn in prompt
    )
    kept = (answer | {"content": f"{answer['content']} {number}"} if answer["content"] else answer,)
    return Row(f"id {number}", f"p{number}", None, "test", f"rows.jsonl:{number + 1}", own, kept, label=number % 2 == 0)


def test_rows_are_dropped_one_by_one_and_counted():
    """Of deepseek r1's rows those behind results cannot be written; of hermes' those with reasoning."""
    for name, kind in (("deepseek r1, arguments as text", "after_result"), ("hermes", "reasoning")):
        rows = [row(n, *ROWS[kind if n == 2 else "call"]) for n in range(6)]
        rows.append(row(6, (ASK,), SAID))
        encoded, report = encode_rows(rows, encoder_of(STYLES[name]))
        assert sum(report.dropped.values()) >= 1
        assert "id 2" not in [one.id for one in encoded]
        assert any("rows.jsonl:3" in note for note in report.notes("training"))
        assert len(encoded) + sum(report.dropped.values()) == report.rows == 7


def test_rows_whose_tools_are_left_out_are_counted():
    style = STYLES["chatml without tools"]
    rows = [row(n, (OFFER, ASK) if n < 2 else (OFFER, ASK, CALL, RESULT), SAID) for n in range(5)]
    _, report = encode_rows(rows, encoder_of(style))
    assert report.left_out == {"their tools": 5, "their calls of tools": 3}


def test_a_prompt_that_is_too_long_keeps_its_tools(encoders: dict[str, OneByOne]):
    encoder = OneByOne(encoders["hermes"].tokenizer, max_length=len(encoders["hermes"].prompt((OFFER, ASK))) + 20)
    long = (OFFER, {"role": "user", "content": "Hello " * 200}, {"role": "assistant", "content": "Hi."}, ASK)
    assert encoder.fitted(long, [0] * 10) == encoder.prompt((OFFER, ASK))


def test_reasoning_of_earlier_turns_is_the_templates_to_show(encoders: dict[str, OneByOne]):
    chat = (ASK, {**SAID, "reasoning_content": "I know."}, ASK)
    for name in ("qwen3", "hermes", "harmony"):
        ids = encoders[name].prompt(chat)
        assert list(ids) == by_transformers(encoders[name], STYLES[name], chat, generation=True) or name == "hermes"
        assert ("I know." in encoders[name].tokenizer.decode(list(ids))) == (name == "qwen3")


def test_a_template_of_its_own_for_tools_is_taken_as_transformers_takes_it():
    """Prompts that offer tools have the template `tool_use`, and an answer that it writes otherwise is refused."""
    hermes = STYLES["hermes"]
    tokenizer = made(hermes.template, hermes.eos)
    for answer, fits in (("", True), ("Action: ", False)):
        own = hermes.template.replace("{{ m.content }}{% for c", answer + "{{ m.content }}{% for c")
        tokenizer.chat_template = {"default": hermes.template, "tool_use": own.replace("<|im_start|>system", "[TOOLS]")}
        encoder = OneByOne(tokenizer, max_length=2000)
        for prompt, said in ROWS.values():
            assert list(encoder.prompt(prompt)) == by_transformers(encoder, hermes, prompt, generation=True)
            if "reasoning_content" not in said:
                assert (encoder.refusals([prompt], [(said,)]) == [""]) == (fits or prompt[0]["role"] != "tools")
        assert "[TOOLS]" in encoder.tokenizer.decode(list(encoder.prompt((OFFER, ASK))))
        assert "[TOOLS]" not in encoder.tokenizer.decode(list(encoder.prompt((ASK,))))
