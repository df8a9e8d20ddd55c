"""Engines: the same answers as one prompt at a time, whatever shares a batch; and which engine is taken."""

from __future__ import annotations

import threading
from dataclasses import asdict, make_dataclass
from pathlib import Path
from types import SimpleNamespace

import pico
import pytest
import torch
from conftest import SAMPLE
from shared import shared

from kto_cli.common.errors import BadInput, BadModel, OutOfMemory
from kto_cli.evaluation.answers import batching
from kto_cli.evaluation.answers.choose import choose
from kto_cli.evaluation.answers.continuous import Continuous
from kto_cli.evaluation.answers.noise import perturbed, seeds_tensor
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.probe import probe
from kto_cli.evaluation.answers.records import AnsweringModel, Decoding, Question, prompt_seed
from kto_cli.model.lengths import context_length
from kto_cli.model.load import load_model, load_tokenizer

END = 2
GREEDY, DRAWN = Decoding(12, temperature=0.0), Decoding(12, temperature=1.0, top_p=0.9)


class Words:
    """A tokenizer that shows ids."""

    def decode(self, ids, *, skip_special_tokens):
        assert skip_special_tokens
        return " ".join(map(str, ids)) + " "


def subject_of(model, *, context=pico.CONTEXT) -> AnsweringModel:
    return AnsweringModel("pico", Path("pico"), Words(), (END,), context, lambda: model)


def questions_of(*lengths: int) -> list[Question]:
    rows = pico.sequences([(length, 1) for length in lengths])
    return [Question(str(place), list(row.prompt), []) for place, row in enumerate(rows)]


QUESTIONS = questions_of(3, 25, 1, 6, 12, 40, 40)


def naive(model, question: Question, decoding: Decoding, room: int) -> list[int]:
    """One token at a time, no cache, no padding: the end token is not part of it."""
    made: list[int] = []
    while len(made) < room:
        ids = question.tokens + made
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[:, -1]
        seeds = seeds_tensor([prompt_seed(decoding.seed, question.tokens)], [len(ids)])
        scores = perturbed(logits, seeds, temperature=decoding.temperature, top_p=decoding.top_p)
        made.append(int(scores.argmax()))
        if made[-1] == END:
            return made[:-1]
    return made


def check(engine, model, questions, decoding, *, context=pico.CONTEXT) -> None:
    found = dict(engine.answers(questions, decoding))
    assert sorted(found) == list(range(len(questions)))
    for place, question in enumerate(questions):
        room = min(decoding.max_new_tokens, context - len(question.tokens))
        expected = naive(model, question, decoding, room)
        assert found[place].text == " ".join(map(str, expected)), place
        assert found[place].tokens == len(expected)
        assert found[place].ended == (len(expected) < room)


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neo", "opt", "bloom", "mistral", "gemma3"])
def test_padded_batches_answer_as_one_prompt_at_a_time(family, decoding):
    model = pico.build(family)
    check(Padded(subject_of(model)), model, QUESTIONS, decoding)


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_continuous_batching_answers_as_one_prompt_at_a_time(family, decoding):
    model = pico.build(family)
    before = model.config._attn_implementation
    check(Continuous(subject_of(model)), model, QUESTIONS, decoding)
    assert model.config._attn_implementation == before


def test_answers_end_by_themselves_or_are_cut(monkeypatch):
    """Among many drawn answers some of both, or the tests above show little."""
    model = pico.build("llama")
    answers = dict(Padded(subject_of(model)).answers(questions_of(*[5] * 40), Decoding(60, temperature=2.0, top_p=1.0)))
    assert {answer.ended for answer in answers.values()} == {True, False}


@pytest.mark.parametrize("engine", [Padded, Continuous])
def test_an_answer_stops_where_the_context_does(engine):
    """gpt2's positions are learned: one more would be an error. A prompt that fills the context leaves no room."""
    family = "gpt2" if engine is Padded else "llama"
    model = pico.build(family)
    questions = questions_of(120, 125, 127, 30, 128)
    found = dict(engine(subject_of(model)).answers(questions, GREEDY))
    check(engine(subject_of(model)), model, questions[:4], GREEDY)
    assert found[4] == ("", 0, False)
    assert [found[place].tokens for place in range(3)] == [8, 3, 1]


@pytest.mark.parametrize("budget", [1, 60, 150])
def test_any_batch_size_gives_the_same(budget):
    model = pico.build("gpt_neo")
    whole = dict(Padded(subject_of(model)).answers(QUESTIONS, DRAWN))
    assert dict(Padded(subject_of(model), tokens=budget).answers(QUESTIONS, DRAWN)) == whole
    assert dict(Padded(subject_of(model)).answers(QUESTIONS[2:4], DRAWN)) == {0: whole[2], 1: whole[3]}


def test_where_memory_is_short_batches_are_halved(monkeypatch):
    model = pico.build("llama")
    whole = dict(Padded(subject_of(model)).answers(QUESTIONS, DRAWN))
    real, sizes = model.generate, []

    def generate(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(**inputs)

    monkeypatch.setattr(model, "generate", generate, raising=False)
    assert dict(Padded(subject_of(model)).answers(QUESTIONS, DRAWN)) == whole
    assert max(sizes) == 7
    assert sorted(size for size in sizes if size <= 2) == [1, 2, 2, 2]


def test_the_models_own_generation_settings_are_put_away_and_back():
    model = pico.build("llama")
    plain = dict(Padded(subject_of(model)).answers(QUESTIONS, GREEDY))
    model.generation_config.repetition_penalty = 50.0
    own = model.generation_config
    for engine in (Padded, Continuous):
        assert dict(engine(subject_of(model)).answers(QUESTIONS, GREEDY)) == plain
        assert model.generation_config is own


def test_another_seed_gives_other_answers_and_the_same_seed_the_same():
    engine = Padded(subject_of(pico.build("llama")))
    first, second, again = (dict(engine.answers(QUESTIONS, Decoding(12, 1.0, 0.9, seed))) for seed in (0, 1, 0))
    assert first == again
    assert sum(first[place] != second[place] for place in first) >= 6


@pytest.mark.parametrize("family", ["gpt_neo", "mamba"])
def test_a_model_that_continuous_batching_cannot_run_falls_back_with_a_note(family):
    """GPT-Neo's own attention goes its way without an error: only its wrong draws tell."""
    said: list[str] = []
    model = pico.build(family)
    before = model.config._attn_implementation
    assert isinstance(choose("auto", subject_of(model), QUESTIONS, said.append), Padded)
    assert len(said) == 1
    assert "padded batches, because" in said[0]
    assert model.config._attn_implementation == before


def test_a_request_that_fails_is_an_error_and_no_empty_answer(monkeypatch):
    subject = subject_of(pico.build("llama"))

    def forward(**inputs):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(subject.model(), "forward", forward)
    with pytest.raises(BadModel, match="failed with pico: no kernel for this"):
        list(Continuous(subject).answers(QUESTIONS, GREEDY))
    assert subject.model().config._attn_implementation == "sdpa"


def test_too_little_memory_in_continuous_batching_is_said(monkeypatch):
    subject = subject_of(pico.build("llama"))

    def forward(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(subject.model(), "forward", forward)
    with pytest.raises(OutOfMemory, match="--engine padded"):
        list(Continuous(subject).answers(QUESTIONS, GREEDY))


def test_a_model_that_can_is_taken_and_said():
    said: list[str] = []
    assert isinstance(choose("auto", subject_of(pico.build("llama")), QUESTIONS, said.append), Continuous)
    assert "continuous batching" in said[0]


def test_who_stops_listening_stops_the_work():
    subject, before = subject_of(pico.build("llama")), threading.active_count()
    answers = Continuous(subject).answers(questions_of(*[5] * 40), Decoding(100, 1.0, 1.0))
    next(answers)
    assert threading.active_count() == before + 1
    answers.close()
    assert threading.active_count() == before


def test_wrong_draws_are_noticed(monkeypatch):
    """As if continuous batching read the position off by one."""
    subject = subject_of(pico.build("llama"))
    assert probe(subject, QUESTIONS) is None
    monkeypatch.setattr(
        "kto_cli.evaluation.answers.batching.seeds_tensor",
        lambda seeds, positions: seeds_tensor(seeds, [position + 1 for position in positions]),
    )
    assert "nats" in (probe(subject, QUESTIONS) or "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cap", [1.0, 50.0])
def test_a_soft_cap_that_continuous_batching_leaves_out_is_noticed(cap, dtype):
    """Gemma 2's attention scores are capped; transformers' continuous batching drops the cap. With the cap of 50 that
    its models have, a few short prompts of a small model differ by 4e-4 nats alone, and in bfloat16 rounding hides
    more."""
    model = pico.build("gemma2", attn_logit_softcapping=cap).to(dtype)
    assert "attention scores are capped" in (probe(subject_of(model), questions_of(1, 5, 9, 14, 23)) or "")


@pytest.mark.parametrize("lengths", [(1, 2, 3, 25), (1, 2, 3, 4)], ids=["long prompts", "long answers"])
def test_a_window_that_continuous_batching_leaves_out_is_noticed(lengths, monkeypatch):
    """Mistral's window is 8 tokens here; none of the short prompts of the probe is as long."""
    from transformers.generation.continuous_batching import input_outputs

    subject = subject_of(pico.build("mistral"))
    assert probe(subject, questions_of(*lengths), GREEDY) is None
    inner = input_outputs.build_attention_mask
    monkeypatch.setattr(
        input_outputs, "build_attention_mask", lambda *args, sliding_window=1, **more: inner(*args, **more)
    )
    assert "nats" in (probe(subject, questions_of(*lengths), GREEDY) or "")


@pytest.mark.parametrize("field", ["page_size", "block_size"])
def test_sizes_use_the_field_names_of_this_transformers(field, monkeypatch):
    """transformers 5.17 calls a page of the cache a block, and chooses no flash attention."""
    made = make_dataclass("ContinuousBatchingConfig", [(field, int), ("num_blocks", int), ("max_batch_tokens", int)])
    monkeypatch.setattr("transformers.ContinuousBatchingConfig", made)
    found = batching.sizes(pico.build("llama"), QUESTIONS, GREEDY)
    pages = [-(-(len(question.tokens) + 12) // 32) + 1 for question in QUESTIONS]
    assert asdict(found) == {field: 32, "num_blocks": sum(pages), "max_batch_tokens": 1024}


@pytest.mark.parametrize(("length", "count"), [(100, 200), (4_000, 200), (100_000, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mask_of_a_step_has_a_limit(length, count, dtype):
    """[tokens of a step, keys of all answers and of the step]: at 256 answers of 4,000 tokens and steps of 8,192 tokens
    it would be 34 GB in float32."""
    model = pico.build("llama").to(dtype)
    found = batching.sizes(model, [Question("", [5] * length, [])] * count, Decoding(64))
    keys = found.num_blocks * 32 + found.max_batch_tokens
    assert found.max_batch_tokens * keys * dtype.itemsize <= 256 * 2**20
    assert found.max_batch_tokens >= max(128, found.max_requests_per_batch)
    if length == 100:
        assert (found.max_requests_per_batch, found.max_batch_tokens) == (32, 1024)


def test_on_a_gpu_without_flash_attention_answers_come_from_padded_batches():
    said: list[str] = []
    gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, _supports_flash_attn=True)
    assert isinstance(choose("auto", subject_of(gpu), QUESTIONS, said.append), Padded)
    assert said == [
        "pico answers in padded batches, because without flash-attn (or in float32) continuous batching computes "
        "attention over all concurrent answers at once."
    ]


@pytest.mark.parametrize(
    ("installed", "dtype", "found"),
    [
        ((True, True), torch.bfloat16, "flash_attention_3"),
        ((False, True), torch.bfloat16, "flash_attention_2"),
        ((False, False), torch.bfloat16, None),
        ((True, True), torch.float32, None),
    ],
)
def test_flash_attention_is_used_where_it_is_installed_and_knows_the_dtype(installed, dtype, found, monkeypatch):
    for version, there in zip((3, 2), installed, strict=True):
        monkeypatch.setattr(f"transformers.utils.is_flash_attn_{version}_available", lambda there=there: there)
    gpu = SimpleNamespace(device=torch.device("cuda"), dtype=dtype, _supports_flash_attn=True)
    assert batching.flash_attention(gpu) == found
    assert batching.flash_attention(pico.build("llama").to(dtype)) is None


@pytest.mark.parametrize("family", ["gpt_neo", "mamba", "gemma2"])
def test_continuous_batching_by_name_says_in_one_line_why_it_does_not_work(family):
    with pytest.raises(BadModel, match=r"pico cannot answer with --engine continuous: .*Use --engine padded") as caught:
        choose("continuous", subject_of(pico.build(family)), QUESTIONS, lambda text: None)
    assert len(str(caught.value).splitlines()) == 1


def test_what_transformers_raises_is_no_traceback(monkeypatch):
    subject = subject_of(pico.build("llama"))

    def renamed(**settings):
        raise TypeError("ContinuousBatchingConfig.__init__() got an unexpected keyword argument")

    monkeypatch.setattr("transformers.ContinuousBatchingConfig", renamed)
    monkeypatch.setattr(batching.dataclasses, "fields", lambda made: [])
    with pytest.raises(BadModel, match=r"failed with pico: ContinuousBatchingConfig.* Use --engine padded"):
        list(Continuous(subject).answers(QUESTIONS, GREEDY))


def test_engines_by_name():
    subject = subject_of(pico.build("llama"))
    assert isinstance(choose("padded", subject, [], lambda text: None), Padded)
    assert isinstance(choose("continuous", subject, [], lambda text: None), Continuous)
    with pytest.raises(BadInput, match="no engine fast"):
        choose("fast", subject, [], lambda text: None)
    with pytest.raises(BadInput, match="cannot be reached"):
        choose("http://host/v1", subject, [], lambda text: None)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_decoding_is_checked(wrong):
    with pytest.raises(BadInput):
        Decoding(**wrong)


@pytest.mark.parametrize("place", ["built-in", "cardputer-chat-3m", "stories260K"])
def test_real_models_answer_in_batches_as_one_by_one(place):
    folder = SAMPLE / "model" if place == "built-in" else shared("data", "models", place)
    model = load_model(folder)
    tokenizer, _ = load_tokenizer(folder, chat_template=None, trust_remote_code=False)
    subject = AnsweringModel(
        place, folder, tokenizer, (tokenizer.eos_token_id,), context_length(model.config), lambda: model
    )
    texts = ["Once upon a time", "Hello! How are you today, my old friend? I hope", "No", "What is a dog? " * 8]
    questions = [Question(text, tokenizer(text).input_ids, []) for text in texts]
    decoding = Decoding(16, temperature=0.0)
    alone = {n: dict(Padded(subject).answers([question], decoding))[0] for n, question in enumerate(questions)}
    assert dict(Padded(subject).answers(questions, decoding)) == alone
    first = naive(model, questions[0], decoding, 16)
    assert alone[0].tokens == len([token for token in first if token != tokenizer.eos_token_id])
