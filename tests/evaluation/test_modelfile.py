"""The chat template in Ollama's notation: it writes the same chats, or none is written."""

from __future__ import annotations

import pytest
from conftest import SAMPLE
from template_styles import STYLES
from transformers import AutoTokenizer

from kto_cli.evaluation.export.modelfile import go_template, literal, modelfile

OTHER_FORMS = ("harmony", "smolvlm, parts only")
"""Styles that are not of the common form."""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SAMPLE / "model")


def styled(tokenizer, name):
    tokenizer.chat_template = STYLES[name].template
    return tokenizer


CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "A fern."},
    {"role": "user", "content": "Thanks?"},
]


@pytest.mark.parametrize("name", STYLES)
def test_a_translation_writes_the_same_chats(tokenizer, name):
    found = go_template(styled(tokenizer, name), {})
    if name in OTHER_FORMS:
        assert found is None
        return
    for chat in (*([CHAT] if "system" in found.turns else []), CHAT[1:], CHAT[1:2]):
        expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert expected.endswith(found.render(chat)), "up to the start token, which llama.cpp writes"
        assert len(expected) - len(found.render(chat)) <= len(tokenizer.bos_token)


def test_the_text_is_what_it_renders(tokenizer):
    """A small reader of the notation that is written, run on the text itself."""
    found = go_template(styled(tokenizer, "chatml"), {})
    text = found.text()
    for branch in ('{{ if eq .Role "system" }}', '{{ else if eq .Role "user" }}', '{{ else if eq .Role "assistant" }}'):
        assert text.count(branch) == 1
    assert text.count("{{ .Content }}") == 3
    assert text.count("{{ end }}") == 2 + bool(found.opening)
    assert text.endswith(literal(found.generation))
    assert modelfile("./m.gguf", None, found).count('"""') == 2


def test_text_that_means_something_in_a_template_is_quoted():
    assert literal('a "b" c') == '{{ "a \\x22b\\x22 c" }}'
    assert literal("{{ x") == '{{ "{{ x" }}'
    assert literal("<|im_start|>user\n") == "<|im_start|>user\n"
