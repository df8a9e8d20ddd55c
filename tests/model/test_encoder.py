"""Rows to tokens, with real tokenizers: what is trained on is what is met at inference."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from encoded import OneByOne, encode_rows
from shared import shared

from kto_cli.common import files
from kto_cli.common.errors import BadData, BadModel
from kto_cli.data.dataset import Row
from kto_cli.model.load import load_tokenizer
from kto_cli.model.tokens.encoder import LEAST_COMPLETION
from kto_cli.model.tokens.text_tokens import bos_prefix

FOLDERS: dict[str, Callable[[], Path]] = {
    "built-in": lambda: files.sample_data() / "model",
    "cardputer": lambda: shared("data", "models", "cardputer-chat-3m"),
    "stories260K": lambda: shared("data", "models", "stories260K"),
    "gpt2": lambda: shared("data", "models", "tokenizers", "gpt2"),
}
Messages = tuple[dict[str, str], ...]
TEXTS = ["Sure! It's 5 pm.", " two  spaces, a tab\tand\n\nlines ", "Grüße, 世界 🙂", "a", "\n\nHuman: not a turn"]


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


PROMPTS: list[Messages] = [
    (user("What time is it?"),),
    (system("Be kind."), user("Hi"), bot("Hello! How are you?"), user("Fine, and you?")),
]


@pytest.fixture(params=FOLDERS, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return load_tokenizer(FOLDERS[request.param](), chat_template=None, trust_remote_code=False)[0]


@pytest.fixture
def built_in() -> Any:
    return load_tokenizer(FOLDERS["built-in"](), chat_template=None, trust_remote_code=False)[0]


def inference_ids(tokenizer: Any, messages: Messages, *, generation: bool) -> tuple[int, ...]:
    """What transformers itself gives a chat model."""
    return tuple(
        tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=generation, tokenize=True, return_dict=False
        )
    )


def row(number: int, prompt: Any, completion: Any, label: bool = True) -> Row:
    return Row(
        id=f"row {number}",
        prompt_id=json.dumps(prompt),
        pair_id=None,
        source="test",
        origin=f"test:{number}",
        prompt=prompt,
        completion=completion if isinstance(completion, str | tuple) else (completion,),
        label=label,
    )


# --- prompts and completions --------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_ids_are_those_of_inference(tokenizer: Any, prompt: Messages):
    ids = OneByOne(tokenizer, max_length=500).prompt(prompt)
    assert ids == inference_ids(tokenizer, prompt, generation=True)


@pytest.mark.parametrize("answer", TEXTS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_row_decodes_to_the_rendered_chat(tokenizer: Any, prompt: Messages, answer: str):
    """Word for word, less the space that stories260K's tokenizer shows of its own after a special token."""
    encoder = OneByOne(tokenizer, max_length=500)
    completion, _ = encoder.completion((bot(answer),))
    decoded = tokenizer.decode(list(encoder.prompt(prompt) + completion), skip_special_tokens=False)
    rendered = tokenizer.apply_chat_template([*prompt, bot(answer)], tokenize=False)
    assert re.sub(r"(</?s>) ", r"\1", decoded) == rendered


@pytest.mark.parametrize("answer", TEXTS)
def test_one_end_and_one_start(tokenizer: Any, answer: str):
    encoder = OneByOne(tokenizer, max_length=500)
    completion, named = encoder.completion((bot(answer),))
    prompt = encoder.prompt(PROMPTS[0])
    assert not named
    assert completion[-1] == tokenizer.eos_token_id
    assert completion.count(tokenizer.eos_token_id) == 1
    assert tokenizer.bos_token_id not in completion[:-1]
    starts = tokenizer.apply_chat_template(list(PROMPTS[0]), tokenize=False).startswith(tokenizer.bos_token)
    assert prompt.count(tokenizer.bos_token_id) == starts
    assert not starts or prompt[0] == tokenizer.bos_token_id


def test_completion_ids_are_the_usual_tokenization(tokenizer: Any):
    """Tokenized behind the prompt, not as a text of its own: the whole chat in one go gives the same ids."""
    encoder = OneByOne(tokenizer, max_length=500)
    whole = inference_ids(tokenizer, (*PROMPTS[0], bot(TEXTS[0])), generation=False)
    assert encoder.prompt(PROMPTS[0]) + encoder.completion((bot(TEXTS[0]),))[0] == whole


def test_end_of_turn_is_the_templates(built_in: Any):
    """A template that closes turns with another token than EOS: that one ends the completion where the model's
    generation settings name it as an end, else EOS does."""
    turn_end = built_in.convert_tokens_to_ids("<|user|>")
    built_in.chat_template = (
        "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}<|user|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    for ends, last in (([turn_end], turn_end), ([], built_in.eos_token_id)):
        encoder = OneByOne(built_in, max_length=500, end_ids=ends)
        assert encoder.completion((bot("Yes"),))[0][-1] == last
        assert encoder.prompt(PROMPTS[1]) == inference_ids(built_in, PROMPTS[1], generation=True)


def test_a_tokenizer_without_end_is_refused(built_in: Any):
    built_in.eos_token = None
    with pytest.raises(BadModel, match="no end-of-sequence token"):
        OneByOne(built_in, max_length=500)


def test_a_template_of_one_turn_renders_prompts_of_one_turn(built_in: Any):
    """That it refuses longer chats matters to longer chats alone."""
    built_in.chat_template = (
        "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    encoder = OneByOne(built_in, max_length=64)
    assert built_in.decode(encoder.prompt((user("Hi"),))) == "<|user|>Hi<|end|><|assistant|>"
    assert built_in.decode(encoder.completion((bot("Yes"),))[0]) == "Yes<|end|>"
    with pytest.raises(BadModel, match="one turn only"):
        encoder.prompt((user("Hi"), bot("Yes"), user("And?")))


def test_a_role_the_template_does_not_know(built_in: Any):
    encoder = OneByOne(built_in, max_length=500)
    with pytest.raises(BadModel, match="Unknown role: tool"):
        encoder.prompt(({"role": "tool", "content": "5"}, user("Hi")))


# --- text prompts -------------------------------------------------------------------------------


def test_text_prompt_starts_as_the_tokenizer_starts_texts(tokenizer: Any):
    ids = OneByOne(tokenizer, max_length=500).prompt("Once upon a time")
    assert ids == tuple(tokenizer("Once upon a time").input_ids)


def test_text_prompt_that_writes_its_bos_has_it_once(tokenizer: Any):
    ids = OneByOne(tokenizer, max_length=500).prompt(f"{tokenizer.bos_token}Once upon a time")
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_bos_prefix():
    """Of these only stories260K puts a BOS before a text by itself."""
    found = {}
    for name in FOLDERS:
        tokenizer, _ = load_tokenizer(FOLDERS[name](), chat_template=None, trust_remote_code=False)
        found[name] = bos_prefix(tokenizer)
    assert found == {"built-in": [], "cardputer": [], "stories260K": [1], "gpt2": []}


@pytest.mark.parametrize("answer", [" the end.", "The end"])
def test_text_row_decodes_to_prompt_and_completion(tokenizer: Any, answer: str):
    encoder = OneByOne(tokenizer, max_length=500)
    ids = encoder.prompt("Once upon a time:") + encoder.completion(answer)[0]
    assert tokenizer.decode(list(ids[:-1]), skip_special_tokens=True).strip() == "Once upon a time:" + answer
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1


# --- completions that hold special text ---------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("which", ["eos_token", "bos_token"])
def test_special_text_in_a_completion_is_plain_text(tokenizer: Any, which: str, chat: bool):
    name, encoder = getattr(tokenizer, which), OneByOne(tokenizer, max_length=500)
    text = f"I say {name} now"
    ids, named = encoder.completion((bot(text),) if chat else text)
    assert named
    assert ids[-1] == tokenizer.eos_token_id
    assert not set(ids[:-1]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(list(ids[:-1])).strip() == text
    plain, _ = encoder.completion((bot("I say yes"),))
    assert tokenizer.decode(list(plain[:-1])).strip() == "I say yes", "the tokenizer is as it was"


def test_special_text_known_to_the_tokenizer_file_alone_is_plain_text(built_in: Any):
    """Llama 3's <|start_header_id|> and <|eot_id|> are like that: special in tokenizer.json, named nowhere else."""
    built_in.add_tokens(["<|eot_id|>"], special_tokens=True)
    assert "<|eot_id|>" not in built_in.all_special_tokens
    ids, named = OneByOne(built_in, max_length=500).completion((bot("I say <|eot_id|> now"),))
    assert built_in.convert_tokens_to_ids("<|eot_id|>") not in ids
    assert named


# --- what does not fit --------------------------------------------------------------------------

LONG: Messages = (
    system("Be kind."),
    user("First question, with words?"),
    bot("First answer, with words."),
    user("Second question?"),
    bot("Second answer."),
    user("Third question?"),
)


def length_of(tokenizer: Any, messages: Messages) -> int:
    return len(inference_ids(tokenizer, messages, generation=True))


@pytest.mark.parametrize(("dropped", "kept"), [(0, LONG), (1, (LONG[0], *LONG[3:])), (2, (LONG[0], LONG[5]))])
def test_oldest_whole_turns_go_first(tokenizer: Any, dropped: int, kept: Messages):
    """Just enough room for what is kept: nothing more is dropped; system and last user turn always stay."""
    completion = tuple(range(10, 15))
    encoder = OneByOne(tokenizer, max_length=length_of(tokenizer, kept) + len(completion))
    assert encoder.fitted(LONG, completion) == inference_ids(tokenizer, kept, generation=True)
    if dropped < 2:
        tighter = OneByOne(tokenizer, max_length=encoder.max_length - 1)
        assert len(tighter.fitted(LONG, completion)) < length_of(tokenizer, kept)


def test_the_last_user_turn_stays_even_without_room(tokenizer: Any):
    ids = OneByOne(tokenizer, max_length=3).fitted(LONG, (7, 8, 9))
    assert ids == inference_ids(tokenizer, (LONG[0], LONG[5]), generation=True)


def test_a_conversation_without_system_message_starts_with_a_user_turn(built_in: Any):
    turns = LONG[1:]
    encoder = OneByOne(built_in, max_length=length_of(built_in, turns))
    assert encoder.fitted(turns, (7,)) == inference_ids(built_in, turns[2:], generation=True)


def test_the_callers_rows_are_left_as_they_are(built_in: Any):
    before = json.dumps(LONG)
    rows = [row(0, LONG, bot("yes")), row(1, PROMPTS[0], bot("no"))]
    encode_rows(rows, OneByOne(built_in, max_length=length_of(built_in, LONG[5:]) + 30))
    assert json.dumps(LONG) == before


def some_rows() -> list[Row]:
    """Four prompts of one turn, answers of very different lengths."""
    answers = ["Yes.", "No, never.", "word " * 60, "Perhaps."]
    return [row(number, (user(f"Question {number}?"),), bot(answer)) for number, answer in enumerate(answers)]


def test_cut_completion_has_no_end(tokenizer: Any):
    rows = some_rows()
    room = 20
    longest = max(length_of(tokenizer, each.prompt) for each in rows)
    encoder = OneByOne(tokenizer, max_length=longest + room)
    encoded, report = encode_rows(rows, encoder)
    whole = encoder.completion(rows[2].completion)[0]
    assert len(whole) > 40
    cut = encoded[2].own
    assert cut.completion == whole[: encoder.max_length - len(cut.prompt)]
    assert tokenizer.eos_token_id not in cut.completion
    assert all(encoded[place].own.completion[-1] == tokenizer.eos_token_id for place in (0, 1, 3))
    assert report.truncated_completions == 1
    borrowers = sum(len(each.mismatched.completion) > LEAST_COMPLETION for each in encoded)
    assert report.truncated_mismatched == borrowers >= 1
    assert (report.shortened_prompts, report.special_text, sum(report.dropped.values())) == (0, 0, 0)


def test_mismatched_pair_is_own_prompt_and_partners_completion(tokenizer: Any):
    rows = some_rows()
    encoder = OneByOne(tokenizer, max_length=500)
    encoded, _ = encode_rows(rows, encoder)
    completions = {encoder.completion(each.completion)[0]: number for number, each in enumerate(rows)}
    for number, each in enumerate(encoded):
        assert each.own.prompt == each.mismatched.prompt == encoder.prompt(rows[number].prompt)
        assert completions[each.own.completion] == number
        assert completions[each.mismatched.completion] != number
        assert (each.id, each.label, each.prompt_id) == (rows[number].id, True, rows[number].prompt_id)


def test_partners_do_not_depend_on_what_fits(built_in: Any):
    """A row that is left out may still lend its completion, so cached values stay valid when --max-length changes."""
    rows = [*some_rows(), row(9, (user("very long " * 60),), bot("An answer that only this row has."))]
    wide, _ = encode_rows(rows, OneByOne(built_in, max_length=500))
    narrow, report = encode_rows(rows, OneByOne(built_in, max_length=80))
    assert report.dropped == {"the prompt leaves no room for the completion": 1}
    assert [each.id for each in narrow] == [each.id for each in wide[:4]]
    for small, large in zip(narrow, wide, strict=False):
        size = len(small.mismatched.completion)
        assert small.mismatched.completion == large.mismatched.completion[:size]


@pytest.mark.parametrize(("room", "fits"), [(LEAST_COMPLETION, True), (LEAST_COMPLETION - 1, False)])
def test_a_row_with_too_little_room_is_dropped_and_counted(built_in: Any, room: int, fits: bool):
    """The long answer needs at least 16 tokens of room; short ones fit where they are whole."""
    rows = some_rows()
    limit = length_of(built_in, rows[2].prompt) + room
    encoded, report = encode_rows(rows, OneByOne(built_in, max_length=limit))
    assert [each.id for each in encoded] == [each.id for each in rows if fits or each is not rows[2]]
    reason = "the prompt leaves no room for the completion"
    assert report.dropped == ({} if fits else {reason: 1})
    assert len(encoded) + sum(report.dropped.values()) == report.rows == 4
    assert any(reason in note and "1 of 4" in note for note in report.notes("training")) is not fits


def test_a_short_completion_must_fit_whole(built_in: Any):
    """ "Yes." is 2 to 4 tokens with its end: with that much room it stays, with one token less it goes."""
    rows = [
        row(0, (user("word " * 30),), bot("Yes.")),
        row(1, (user("b"),), bot("No.")),
        row(2, (user("c"),), bot(".")),
    ]
    needed = length_of(built_in, rows[0].prompt) + len(
        OneByOne(built_in, max_length=9).completion(rows[0].completion)[0]
    )
    for limit, count in ((needed, 3), (needed - 1, 2)):
        assert len(encode_rows(rows, OneByOne(built_in, max_length=limit))[0]) == count


def test_shortened_prompts_are_counted(built_in: Any):
    rows = [row(0, LONG, bot("Yes.")), row(1, PROMPTS[0], bot("No."))]
    encoded, report = encode_rows(rows, OneByOne(built_in, max_length=length_of(built_in, LONG) + 2))
    assert report.shortened_prompts == 1
    assert len(encoded[0].own.prompt) < length_of(built_in, LONG)
    assert encoded[0].mismatched.prompt == encoded[0].own.prompt
    assert report.notes("training") == ["1 of 2 training prompts lost their oldest turns to fit"]


def test_text_prompts_are_never_shortened(built_in: Any):
    rows = [row(0, "word " * 200, " yes."), row(1, "b", " no."), row(2, "c", " perhaps.")]
    encoded, report = encode_rows(rows, OneByOne(built_in, max_length=100))
    assert [each.id for each in encoded] == ["row 1", "row 2"]
    assert sum(report.dropped.values()) == 1


def test_an_empty_prompt_is_dropped_where_nothing_comes_before_it(built_in: Any):
    """Without BOS there is no token to predict the completion's first token from."""
    encoded, report = encode_rows([row(0, "", "yes"), row(1, "b", "no")], OneByOne(built_in, max_length=50))
    assert [each.id for each in encoded] == ["row 1"]
    assert report.dropped == {"the prompt has no tokens": 1}


def test_no_row_fits(built_in: Any):
    with pytest.raises(BadData, match="None of the 4 rows fits into 3 tokens"):
        encode_rows(some_rows(), OneByOne(built_in, max_length=3))


def test_one_prompt_only(built_in: Any):
    rows: Sequence[Row] = [row(number, PROMPTS[0], bot(f"Answer {number}")) for number in range(3)]
    with pytest.raises(BadData, match="all 3 rows have the same prompt"):
        encode_rows(rows, OneByOne(built_in, max_length=50))


def test_special_text_is_counted(built_in: Any):
    rows = [row(0, PROMPTS[0], bot("a <|end|> b")), row(1, PROMPTS[1], bot("plain"))]
    _, report = encode_rows(rows, OneByOne(built_in, max_length=200))
    assert report.special_text == 1
    assert "1 of 2 training completions contain the name of a special token" in report.notes("training")[0]
