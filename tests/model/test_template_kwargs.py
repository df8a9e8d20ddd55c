"""Arguments of a chat template: prompts are rendered as transformers' `apply_chat_template(..., **kwargs)` does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLE
from encoded import OneByOne
from template_styles import EMPTY, PLAIN, parts, reasoning
from test_chat_templates import ONE, SEVERAL, SYSTEM, answer, made, rendered

from kto_cli.common.errors import BadFlag
from kto_cli.common.template_kwargs import GIVEN_ANYWAY, check_template_kwargs, read_template_kwargs
from kto_cli.model.load import load_tokenizer
from kto_cli.model.tokens.cached import store_name
from kto_cli.model.tokens.store import VERSION

SWITCH = "{% if enable_thinking is defined and enable_thinking is false %}" + EMPTY + "{% endif %}"
THINKS = "{% if enable_thinking | default(false) %}<think>\n{% else %}" + EMPTY + "{% endif %}"
ANSWER = "<think>\n{{ r }}\n</think>\n\n{{ c }}"
STYLES = {
    "qwen3": reasoning(ANSWER, SWITCH),
    "qwen3.5": reasoning(ANSWER, THINKS),
    "date and effort": "{{ bos_token }}{{ effort | default('low') }}" + reasoning(ANSWER, SWITCH),
    "parts only": parts(reasoning(ANSWER, SWITCH).replace("{% set c = m['content'] %}", "{% set c = 'no' %}")),
}
GIVEN: dict[str, dict[str, Any]] = {
    "none": {},
    "off": {"enable_thinking": False},
    "on": {"enable_thinking": True},
    "two": {"effort": "hoch", "enable_thinking": False},
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "date and effort"])
def test_ids_are_those_of_transformers(name: str, given: str):
    """Prompts by `apply_chat_template` with the same arguments; the answer makes the text that the template writes of
    the whole chat where that begins with the prompt."""
    kwargs = GIVEN[given]
    encoder = OneByOne(made(STYLES[name], "<|im_end|>"), max_length=900, template_kwargs=kwargs)
    for prompt in (ONE, SEVERAL, SYSTEM):
        expected = rendered(encoder, prompt, generation=True, **kwargs)
        assert list(encoder.prompt(prompt)) == expected
        completion, _ = encoder.completion(answer(PLAIN))
        whole = rendered(encoder, (*prompt, *answer(PLAIN)), generation=False, **kwargs)
        assert [*expected, *completion] == whole[: len(expected) + len(completion)]


def test_an_argument_changes_prompt_and_completion():
    """Off: the prompt closes the reasoning, so that the answer begins at once; else the model closes it itself."""
    off, usual = (
        OneByOne(made(STYLES["qwen3"], "<|im_end|>"), max_length=900, template_kwargs=given)
        for given in ({"enable_thinking": False}, None)
    )
    decode = off.tokenizer.decode
    assert decode(off.prompt(ONE)) == decode(usual.prompt(ONE)) + EMPTY
    assert decode(off.completion(answer(PLAIN))[0]) == f"{PLAIN}<|im_end|>"
    assert decode(usual.completion(answer(PLAIN))[0]) == f"{EMPTY}{PLAIN}<|im_end|>"


def test_the_slow_way_takes_them_too():
    """A template that only `apply_chat_template` renders."""
    encoder = OneByOne(made(STYLES["qwen3"], "<|im_end|>"), max_length=900, template_kwargs=GIVEN["off"])
    fast = encoder.prompt(SEVERAL)
    assert encoder._template._compiled is not None
    encoder._template._compiled = {}
    assert encoder.prompt(SEVERAL) == fast


def test_a_template_of_parts_takes_them():
    template = parts("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    template += "{% if add_generation_prompt %}" + SWITCH + "{% endif %}"
    encoder = OneByOne(made(template, "<|im_end|>"), max_length=900, template_kwargs=GIVEN["off"])
    assert list(encoder.prompt(ONE)) == rendered(encoder, ONE, generation=True, **GIVEN["off"])


# --- names that are not used, or not free -------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "used"),
    [
        ("{% if x is not defined %}{% set x = true %}{% endif %}{{ x }}", True),
        ("{% set x = x | default(false) %}{{ x }}", True),
        ("{% if tools %}{{ x.y }}{% endif %}", True),
        ("{% macro f() %}{{ x }}{% endmacro %}{{ f() }}", True),
        ("{% generation %}{{ x }}{% endgeneration %}", True),
        ("{% set x = 1 %}{{ x }}", False),
        ("{# x #}x {{ 'x' }}{{ messages[0].x }}", False),
        ("{% macro f(x) %}{{ x }}{% endmacro %}{{ f(1) }}", False),
    ],
)
def test_a_name_that_the_template_does_not_read_is_a_warning(template: str, used: bool):
    """By the names the template takes from outside, not by its text."""
    everything = template + STYLES["qwen3"]
    encoder = OneByOne(
        made(everything, "<|im_end|>"), max_length=900, template_kwargs={"x": {"y": 1}, "enable_thinking": False}
    )
    warned = [] if used else ["The chat template does not use x, given by --chat-template-kwargs."]
    assert encoder.warnings() == warned


def test_one_of_several_templates_that_reads_it_is_enough():
    tokenizer = made(STYLES["qwen3"], "<|im_end|>")
    tokenizer.chat_template = {"default": STYLES["qwen3"], "tool_use": "{{ x }}" + STYLES["qwen3"]}
    assert OneByOne(tokenizer, max_length=900, template_kwargs={"x": 1}).warnings() == []


@pytest.mark.parametrize("name", sorted(GIVEN_ANYWAY))
def test_names_that_a_template_is_given_anyway_are_refused(name: str):
    with pytest.raises(BadFlag, match=f"cannot set {name}"):
        check_template_kwargs({name: 1})


def test_special_tokens_of_the_tokenizer_are_refused():
    tokenizer = made(STYLES["qwen3"], "<|im_end|>")
    tokenizer._set_model_specific_special_tokens({"image_token": "<image>"})
    assert "image_token" in tokenizer.special_tokens_map
    with pytest.raises(BadFlag, match="cannot set image_token"):
        OneByOne(tokenizer, max_length=900, template_kwargs={"image_token": "x"})


@pytest.mark.parametrize("text", ["{enable_thinking: false}", "[1]", "false", "", "{", "[" * 100_000])
def test_a_text_that_is_no_json_object_is_refused(text: str):
    with pytest.raises(BadFlag, match="is not a JSON object"):
        read_template_kwargs(text)


@pytest.mark.parametrize(
    "found", ["x", [1], {1: 2}, {"a b": 1}, {"a": float("nan")}, {"a": {1, 2}}, {"a": {1: 2}}, {"a": (1,)}]
)
def test_what_json_cannot_hold_is_refused(found: Any):
    with pytest.raises(BadFlag, match="--chat-template-kwargs"):
        check_template_kwargs(found)


# --- the token store ----------------------------------------------------------------------------


def name_with(kwargs: dict[str, Any] | None) -> tuple[str, OneByOne]:
    tokenizer, _ = load_tokenizer(SAMPLE / "model", chat_template=None, trust_remote_code=False)
    encoder = OneByOne(tokenizer, max_length=64, template_kwargs=kwargs)
    return store_name("rows", "train.parquet", encoder, Path(SAMPLE / "model")), encoder


def test_a_store_is_named_by_the_arguments_whatever_their_order():
    one, _ = name_with({"a": 1, "b": {"x": 1, "y": "é"}})
    other, _ = name_with({"b": {"y": "é", "x": 1}, "a": 1})
    assert one == other
    names = [name_with(kwargs)[0] for kwargs in (None, {"a": 1}, {"a": 2}, {"a": True}, {"a": "1"}, {"b": 1})]
    assert len(set(names)) == 6


def test_a_store_without_arguments_keeps_its_name():
    """As they were named before there were any: nobody's rows are tokenized again."""
    from kto_cli.model.identity import tokenizer_identity

    for kwargs in (None, {}):
        name, encoder = name_with(kwargs)
        identity = tokenizer_identity(SAMPLE / "model", encoder.tokenizer)
        parts = [VERSION, "rows", "train.parquet", identity, "None", encoder.ends, 64]
        assert name == hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
