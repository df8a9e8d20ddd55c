"""Control texts of conditional SFT: at the end of the prompt in training, and in the saved template alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLE
from encoded import OneByOne, encode_rows, stored_rows
from template_styles import STYLES
from test_chat_templates import ONE, SEVERAL, answer, made

from kto_cli.data.dataset import Row
from kto_cli.model.load import load_tokenizer
from kto_cli.model.tokens.cached import store_name
from kto_cli.model.tokens.chat_template import ChatTemplate, TemplateRefuses
from kto_cli.model.tokens.control_text import ControlTexts, control_text_of, with_control_text
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.validation_rows import ValidationRows


def built_in() -> Any:
    return load_tokenizer(SAMPLE / "model", chat_template=None, trust_remote_code=False)[0]


CONTROL = ControlTexts("<|good|>", "<|bad|>")
TEXTS = [CONTROL.good, " Good: ", 'a "quote", \\n, {{ braces }} {% and %} 世界 🙂\n']


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", STYLES)
def test_the_saved_template_gives_the_tokens_of_training(name: str, text: str):
    """Whatever the template ends with; chats without a generation prompt stay as they were."""
    style = STYLES[name]
    tokenizer = made(style.template, style.eos)
    encoder, plain = OneByOne(tokenizer, max_length=900, control=(text, "<|bad|>")), ChatTemplate(tokenizer)
    for ending in ("", "\n", "\n\n", "  ", "\r\n"):
        saved = made(style.template, style.eos)
        saved.chat_template = style.template + ending
        before = ChatTemplate(saved).render([ONE, SEVERAL], generation=False)
        trained = OneByOne(saved, max_length=900, control=(text, "<|bad|>"))
        expected = [trained.prompt(chat) for chat in (ONE, SEVERAL)]
        completion = trained.encode_completions([answer("It is 5.")])
        saved.chat_template = with_control_text(saved.chat_template, text)
        read = OneByOne(saved, max_length=900)
        assert [read.prompt(chat) for chat in (ONE, SEVERAL)] == expected
        assert read.encode_completions([answer("It is 5.")]) == completion
        assert control_text_of(saved.chat_template) == text
        assert ChatTemplate(saved).render([ONE, SEVERAL], generation=False) == before
    (rendered,) = plain.render([ONE], generation=True)
    assert tokenizer.decode(list(encoder.prompt(ONE))) == rendered + text


def rows() -> list[Row]:
    """Two prompts with an answer of each label, and a long chat that must be shortened; one prompt is plain text."""
    long = ({"role": "user", "content": "word " * 120}, {"role": "assistant", "content": "Yes?"}, *ONE)
    prompts: list[Any] = [ONE, ONE, SEVERAL, SEVERAL, long, "Once upon a time"]
    return [
        Row(f"{number}", repr(prompt), None, "test", f"test:{number}", prompt, completion, number % 2 == 0)
        for number, prompt in enumerate(prompts)
        for completion in [f"It is {number}." if isinstance(prompt, str) else answer(f"It is {number}.")]
    ]


def test_each_row_ends_its_prompt_with_the_text_of_its_label():
    """The mismatched completion stands behind the row's own text too; completions and their number of tokens are those
    without control texts, which therefore have no loss."""
    tokenizer = built_in()
    plain, _ = encode_rows(rows(), Encoder(tokenizer, max_length=90))
    found, report = encode_rows(rows(), Encoder(tokenizer, max_length=90, control=CONTROL))
    assert report.shortened_prompts == 1
    assert len(found) == len(plain) == 6
    for before, row in zip(plain, found, strict=True):
        assert row.mismatched.prompt == row.own.prompt
        text = tokenizer.decode(list(row.own.prompt))
        assert text == tokenizer.decode(list(before.own.prompt)) + CONTROL.of(row.label)
        assert (row.own.completion, row.mismatched.completion) == (before.own.completion, before.mismatched.completion)


def test_an_answer_behind_the_text_is_tokenized_as_it_is_met():
    """Prompt, text and answer are the tokens of the whole text, unless the text's end merges with the answer."""
    tokenizer = built_in()
    encoder = OneByOne(tokenizer, max_length=200, control=CONTROL)
    ids = encoder.prompt(ONE) + encoder.completion(answer("It is 5."))[0]
    (rendered,) = ChatTemplate(tokenizer).render([ONE], generation=True)
    whole = tokenizer(f"{rendered}{CONTROL.good}It is 5.", add_special_tokens=False).input_ids
    assert list(ids[: len(whole)]) == whole


def test_control_texts_name_the_store():
    tokenizer = built_in()
    names = {
        store_name("data", "train.parquet", Encoder(tokenizer, max_length=90, control=control), Path(SAMPLE / "model"))
        for control in (None, CONTROL, ("<|good|>", "<|worse|>"), ("", ""))
    }
    assert len(names) == 3, "none and two empty ones are the same"


def test_a_prompt_that_the_template_refuses_stays_refused():
    style = next(style for style in STYLES.values() if style.system == "refused")
    encoder = OneByOne(made(style.template, style.eos), max_length=90, control=CONTROL)
    with pytest.raises(TemplateRefuses):
        encoder.prompt(({"role": "system", "content": "Be brief."}, *ONE))


def test_rows_that_are_read_at_other_lengths_are_left_out():
    """A completion that is cut earlier behind the text would be compared with a longer one."""
    tokenizer = built_in()
    texts = [(ONE, "It is 5."), (ONE, "It is five, " * 20), (SEVERAL, "Well."), (SEVERAL, "No, " * 30)]
    made = [
        Row(f"{number}", repr(prompt), None, "test", f"test:{number}", prompt, answer(text), number % 2 == 0)
        for number, (prompt, text) in enumerate(texts)
    ]

    def read(most: int, control: tuple[str, str] | None) -> EncodedRows:
        return stored_rows(made, Encoder(tokenizer, max_length=most, control=control))[0]

    served, own = read(70, (CONTROL.good, CONTROL.good)), read(70, CONTROL)
    longer = len(served[0].own.prompt) - len(read(70, None)[0].own.prompt)
    for most, left in ((70, 2), (70 - longer, 0)):
        found, count = ValidationRows.matched(served, read(most, None), own)
        assert (count, len(found)) == (left, 4 - left)
        for part in (found.reference, found.own):
            assert part.ids == found.served.ids
        assert found.take([1]).own.ids == [found.served.ids[1]]
        assert found.read_otherwise.tolist() == [at for at, label in enumerate(found.served.labels) if not label]
        assert len(found.sequences) == 2 * len(found) + len(found.read_otherwise)
