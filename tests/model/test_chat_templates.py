"""Styles of chat templates: what is trained is the generation prompt's ids and what the model must write behind it."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from encoded import OneByOne, encode_rows
from shared import shared
from template_styles import PLAIN, STYLES, THOUGHT, Style

from kto_cli.common import files
from kto_cli.common.errors import BadData, BadModel
from kto_cli.data.dataset import Row
from kto_cli.model.load import load_tokenizer
from kto_cli.model.tokens.chat_template import TemplateRefuses

Messages = tuple[dict[str, str], ...]
MARKS = re.compile(r"<\|[^|<>\s]+\|>|</?s>|<(?:start|end)_of_\w+>")
ONE: Messages = ({"role": "user", "content": "What is 2 and 3?"},)
SEVERAL: Messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, *ONE)
SYSTEM: Messages = ({"role": "system", "content": "Be brief."}, *ONE)


def made(template: str, eos: str) -> Any:
    """The built-in tokenizer with a template, and the special tokens that it writes."""
    tokenizer, _ = load_tokenizer(files.sample_data() / "model", chat_template=None, trust_remote_code=False)
    tokenizer.add_tokens(sorted({*MARKS.findall(template), eos}), special_tokens=True)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.eos_token, tokenizer.chat_template = eos, template
    return tokenizer


@pytest.fixture(scope="module")
def encoders() -> dict[str, OneByOne]:
    return {name: OneByOne(made(style.template, style.eos), max_length=900) for name, style in STYLES.items()}


def rendered(encoder: OneByOne, chat: Messages, *, generation: bool, **kwargs: Any) -> list[int]:
    """What transformers gives, contents as parts where the template reads nothing else."""
    read: list[Any] = [dict(message) for message in chat]
    if "p['type']" in encoder.tokenizer.chat_template:
        read = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in read]
    ids = encoder.tokenizer.apply_chat_template(read, add_generation_prompt=generation, return_dict=False, **kwargs)
    return list(ids)


def answer(text: str) -> Messages:
    return ({"role": "assistant", "content": text},)


@pytest.mark.parametrize("prompt", [ONE, SEVERAL, SYSTEM], ids=["one", "several", "system"])
@pytest.mark.parametrize("name", STYLES)
def test_prompt_and_completion_are_those_of_inference(encoders: dict[str, OneByOne], name: str, prompt: Messages):
    style, encoder = STYLES[name], encoders[name]
    if prompt is SYSTEM and style.system == "refused":
        with pytest.raises(TemplateRefuses, match="System role not supported"):
            encoder.prompt(prompt)
        return
    ids = encoder.prompt(prompt)
    assert list(ids) == rendered(encoder, prompt, generation=True)
    assert ("system" in encoder.left_out) == (style.system == "left out")
    for text, written in ((PLAIN, style.plain), (THOUGHT, style.thought)):
        encoder.check([prompt], [answer(text)])
        if written is None:
            with pytest.raises(TemplateRefuses, match="the reasoning"):
                encoder.completion(answer(text))
            continue
        completion, named = encoder.completion(answer(text))
        assert not named
        assert encoder.tokenizer.decode(list(completion)) == written
        assert completion[-1] == encoder.tokenizer.eos_token_id
        assert completion.count(completion[-1]) == 1


FRAMED_APART = {
    "deepseek r1",
    "smollm3, not thinking",
    "nemotron",
    "a space that the chat lacks",
    "chatml whose end is no end of generation",
    "glm4",
    "alpaca",
    "falcon",
}
"""The whole chat shows the answer behind another text than the prompt, or without its end."""


@pytest.mark.parametrize("text", [PLAIN, THOUGHT, "  It is 5.\n\n", "\n\nIt", "世界 🙂", "<b>5</b>", "x" * 300])
@pytest.mark.parametrize("name", sorted(set(STYLES) - FRAMED_APART))
def test_ids_are_those_of_the_whole_chat(encoders: dict[str, OneByOne], name: str, text: str):
    """Where the last token of the prompt would join the first of the answer, the text is the same, the ids are not: at
    inference the prompt ends there."""
    style, encoder = STYLES[name], encoders[name]
    if text == THOUGHT and style.thought is None:
        return
    prompt, whole = list(encoder.prompt(SEVERAL)), rendered(encoder, (*SEVERAL, *answer(text)), generation=False)
    ours = prompt + list(encoder.completion(answer(text))[0])
    if whole[: len(prompt)] == prompt:
        assert ours == whole[: len(ours)]
    decode = encoder.tokenizer.decode
    assert decode(whole).startswith(decode(ours))


@pytest.mark.parametrize("name", ["harmony", "chatml without generation prompt", "qwen3", "gemma"])
def test_a_special_name_in_an_answer_is_text_and_the_scaffold_is_not(encoders: dict[str, OneByOne], name: str):
    """Only the answer's own <eos> is spelled out; ids of the scaffold are those of the plain answer."""
    encoder = encoders[name]
    eos = encoder.tokenizer.eos_token
    plain, _ = encoder.completion(answer("I say."))
    ids, named = encoder.completion(answer(f"I say{eos}."))
    assert named
    special = set(encoder.tokenizer.all_special_ids) | set(encoder.tokenizer.added_tokens_decoder)
    assert [one for one in ids if one in special] == [one for one in plain if one in special]
    assert encoder.tokenizer.decode(list(ids)) == encoder.tokenizer.decode(list(plain)).replace("say.", f"say{eos}.")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1/0 }}", "division by zero"),
        ("{{ 'a' + 1 }}", "concatenate str"),
        ("{% for x in 5 %}{% endfor %}", "not iterable"),
        ("{% include 'x' %}", "cannot be used"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{% for i in range(10**9) %}x{% endfor %}", "[Rr]ange"),
        ("{% if %}", "cannot be used"),
        ("hello", "leaves out what the user says"),
        ("{{ messages | length }}", "leaves out what the user says"),
        ("{% for m in messages %}{{ m['from'] }}: {{ m['value'] }}{% endfor %}", "leaves out what the user says"),
        ("{{ messages[0]['content'] }}", "leaves out what"),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", "what the model answers"),
        (
            "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}AI:{% endif %}",
            "generation prompt ends with 'AI:'",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template: str, said: str):
    with pytest.raises(BadModel, match=said) as caught:
        OneByOne(made(template, "</s>"), max_length=100)
    assert "\n" not in str(caught.value.what)


def rows_of(prompts: list[Messages]) -> list[Row]:
    return [
        Row(f"id {n}", f"p{n}", None, "test", f"rows.jsonl:{n + 1}", prompt, answer(f"{PLAIN} {n}"), label=n % 2 == 0)
        for n, prompt in enumerate(prompts)
    ]


def test_rows_that_a_template_refuses_are_dropped_counted_and_named():
    """Row 3 of 6 has a system message. The others stay, with the partners they had."""
    style: Style = STYLES["gemma"]
    prompts: list[Messages] = [({"role": "user", "content": f"Is it {n}?"},) for n in range(6)]
    prompts[2] = (SYSTEM[0], *prompts[2])
    encoded, report = encode_rows(rows_of(prompts), OneByOne(made(style.template, style.eos), max_length=200))
    assert [row.id for row in encoded] == ["id 0", "id 1", "id 3", "id 4", "id 5"]
    (note,) = report.notes("training")
    assert note.startswith("1 of 6 training rows dropped")
    assert "System role not supported" in note
    assert "rows.jsonl:3" in note
    assert len(encoded) + sum(report.dropped.values()) == report.rows == report.chats == 6
    with pytest.raises(BadModel, match="System role not supported"):
        encode_rows(
            rows_of([(SYSTEM[0], *one) for one in prompts[3:]]),
            OneByOne(made(style.template, style.eos), max_length=200),
        )


def with_thoughts(*numbers: int, count: int = 6) -> list[Row]:
    """Rows of which some have an answer that the template cannot write."""
    rows = rows_of([({"role": "user", "content": f"Is it {n}?"},) for n in range(count)])
    for n in numbers:
        rows[n] = Row(
            f"id {n}", f"p{n}", None, "test", f"rows.jsonl:{n + 1}", rows[n].prompt, answer(THOUGHT), label=False
        )
    return rows


def test_a_refused_completion_is_lent_to_no_row():
    """The row that it would have been lent to gets the next one, the others keep theirs."""
    style = STYLES["qwen3.5, not thinking"]
    encoder = OneByOne(made(style.template, style.eos), max_length=200)
    encoded, report = encode_rows(with_thoughts(1), encoder)
    assert [row.id for row in encoded] == ["id 0", "id 2", "id 3", "id 4", "id 5"]
    assert list(report.dropped.values()) == [1]
    rows = with_thoughts(1)
    without, _ = encode_rows([*rows[:1], *rows[2:]], encoder)
    assert [row.mismatched.completion for row in encoded] == [row.mismatched.completion for row in without]


def test_rows_of_which_none_is_left_are_met_with_the_reasons():
    style = STYLES["qwen3.5, not thinking"]
    encoder = OneByOne(made(style.template, style.eos), max_length=200)
    with pytest.raises(BadData, match=r"None of the 4 rows .*: 3 rows; no row with another.*: 1 row\)\. Give"):
        encode_rows(with_thoughts(1, 2, 3, count=4), encoder)
    small = OneByOne(made(style.template, style.eos), max_length=8)
    with pytest.raises(BadData, match=r"the prompt leaves no room.*: 3 rows; .*: 1 row\)\. Raise --max-length"):
        encode_rows(with_thoughts(1, count=4), small)


def test_system_messages_that_a_template_leaves_out_are_counted():
    style = STYLES["system left out"]
    prompts: list[Messages] = [(*(SYSTEM[:1] if n < 2 else ()), {"role": "user", "content": f"{n}?"}) for n in range(5)]
    _, report = encode_rows(rows_of(prompts), OneByOne(made(style.template, style.eos), max_length=200))
    assert report.notes("training") == [
        "2 of 5 training rows are trained without their system message: the chat template leaves it out"
    ]


def test_an_answer_written_otherwise_behind_other_prompts_is_refused():
    """This template drops the end of an answer in chats of several turns: rows of one turn do not show it."""
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
        "{% if loop.index < 3 %}<|end|>{% else %}!{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    encoder = OneByOne(made(template, "<|end|>"), max_length=100)
    encoder.check([ONE], [answer(PLAIN)])
    with pytest.raises(BadModel, match="behind the roles user, assistant, user"):
        encoder.check([SEVERAL], [answer(PLAIN)])


def test_the_date_is_fixed_and_said():
    style, day = STYLES["llama3.2, date"], datetime.date(2025, 2, 3)
    encoder = OneByOne(made(style.template, style.eos), max_length=200, date=day)
    assert "Today Date: 03 Feb 2025" in encoder.tokenizer.decode(list(encoder.prompt(ONE)))
    assert encoder.date == day
    assert any("2025-02-03" in note for note in encoder.notes())
    assert OneByOne(made(style.template, style.eos), max_length=200).date == datetime.date.today()
    assert OneByOne(made(STYLES["chatml"].template, "<|im_end|>"), max_length=200).date is None


def test_what_a_template_needs_is_said(encoders: dict[str, OneByOne]):
    expected = {
        "harmony": "<|channel|>final<|message|>",
        "chatml without generation prompt": "has no generation prompt",
        "deepseek r1": "opens reasoning ('<think>')",
        "chatml whose end is no end of generation": "with <|endoftext|>: the chat template writes '<|im_end|>'",
        "smolvlm, parts only": "list of parts",
    }
    for name, part in expected.items():
        assert any(part in note for note in encoders[name].notes()), name
    assert encoders["chatml"].notes() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("llama2", "[INST] Hi [/INST] Five. "), ("prompt with a last space", "USER: Hi\nASSISTANT: Five.")],
)
def test_sentencepiece_shows_one_space_between_prompt_and_answer(name: str, text: str):
    """Tokenized alone, an answer would get a space of SentencePiece's own behind the prompt's."""
    tokenizer, _ = load_tokenizer(shared("data", "models", "stories260K"), chat_template=None, trust_remote_code=False)
    tokenizer.chat_template = STYLES[name].template
    encoder = OneByOne(tokenizer, max_length=200)
    ids = encoder.prompt(({"role": "user", "content": "Hi"},)) + encoder.completion(answer("Five."))[0]
    assert tokenizer.decode(list(ids), skip_special_tokens=True).rstrip() == text.rstrip()
    assert ids[-1] == tokenizer.eos_token_id
