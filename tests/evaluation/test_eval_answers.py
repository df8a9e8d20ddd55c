"""`kto eval`: answers of checkpoint, reference and others to validation prompts, through the command."""

from __future__ import annotations

import json
import shutil
import time
import weakref
from pathlib import Path
from typing import Any

import evaluated
import pytest
import torch
from conftest import Command, error_line, make_dataset, save_pico_llama, write_lines
from evaluated import FEW, SHORT, digest, part, place, runs, samples
from judge_server import Handler, serving
from pico import BUILDERS, build
from test_invariance import launch

from kto_cli.evaluation.answers import choose
from kto_cli.evaluation.report.evidence import gather
from kto_cli.model import source

__all__ = ["place", "runs"]
"""Fixtures."""
TWO = "torch.distributed.run --standalone --nproc_per_node 2"


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The models whose engine was opened, in order."""
    names, real = [], choose.choose

    def opening(wanted: str, subject: Any, *rest: Any) -> Any:
        names.append(subject.name)
        return real(wanted, subject, *rest)

    monkeypatch.setattr(choose, "choose", opening)
    return names


# --- the same answers --------------------------------------------------------------------------


def test_a_seed_gives_its_answers_and_nothing_is_generated_twice(kto: Command, place, opened, monkeypatch, tmp_path):
    first = kto("eval", "a", *FEW, "--json").json
    assert [Path(name).name for name in opened] == ["pico", "a"]
    assert {len(sample) for sample in first["samples"]} == {5}, "id, prompt, reference, policy, target"
    assert any(sample["policy"] != sample["reference"] for sample in first["samples"])
    files = [digest(place / f"a/eval/{name}") for name in ("samples.jsonl", "generations.json", "report.html")]
    again = kto("eval", "a", *FEW, "--json").json
    assert again == first
    assert len(opened) == 2, "every answer was known"
    assert [digest(place / f"a/eval/{name}") for name in ("samples.jsonl", "generations.json", "report.html")] == files

    other = kto("eval", "a", *SHORT, "--seed", 1, "--json").json["samples"]
    assert all(one["policy"] != two["policy"] for one, two in zip(first["samples"], other, strict=True))
    assert [one["target"] for one in first["samples"]] == [two["target"] for two in other]
    monkeypatch.setenv("KTO_CACHE", str(tmp_path / "fresh"))
    assert kto("eval", "a", *SHORT, "--json").json["samples"] == first["samples"], "padded: the same, made anew"


def test_temperature_0_is_the_models_own_greedy_answer(kto: Command, place):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = kto("eval", "a", *SHORT, "--temperature", 0, "--json").json["samples"]
    tokenizer = AutoTokenizer.from_pretrained("a")
    for name, folder in (("policy", "a"), ("reference", "pico")):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for sample in found:
            turns = [{"role": "user", "content": sample["prompt"]}]
            asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
            made = model.generate(**asked, max_new_tokens=8, do_sample=False)[0, asked["input_ids"].shape[1] :]
            assert sample[name] == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_no_answer_depends_on_the_prompts_beside_it(kto: Command, place, monkeypatch, tmp_path):
    """Beyond 64 tokens this model rotates the positions of a whole batch differently; answers end there."""
    rows = [{"prompt": "Why? " * (1 + 9 * (i % 2)) + str(i), "completion": f"{i}.", "label": i < 4} for i in range(8)]
    assert kto("binarize", write_lines(place / "rows.jsonl", rows), "--out", "uneven", "--validation", 0.5).code == 0
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "factor": 4.0, "rope_theta": 10000.0}
    rotation = {"rope_type": "longrope", "original_max_position_embeddings": 64, **factors}
    shutil.copytree("pico", "long")
    build("llama", vocab_size=2048, max_position_embeddings=256, rope_parameters=rotation).save_pretrained("long")
    words = ("eval", "long", "--data", "uneven", "--reference", "pico", "--engine", "padded", "--max-new-tokens", 100)
    several = kto(*words, "--samples", 4, "--json").json["samples"]
    assert len({len(sample["prompt"]) for sample in several}) == 2
    monkeypatch.setenv("KTO_CACHE", str(tmp_path / "fresh"))
    for count in (1, 2, 3):
        assert kto(*words, "--samples", count, "--json").json["samples"] == several[:count]
        shutil.rmtree(tmp_path / "fresh")


def test_fewer_prompts_are_the_first_of_more_and_more_than_there_are_is_all(kto: Command, place):
    every = kto("eval", "a", *SHORT, "--samples", 1000, "--json").json
    assert len(every["samples"]) == 8 == every["generations"]["prompts"]
    assert kto("eval", "a", *SHORT, "--samples", 3, "--json").json["samples"] == every["samples"][:3]


def test_without_samples_nothing_is_asked_and_earlier_answers_stay(kto: Command, place, opened):
    nothing = kto("eval", "b", "--samples", 0, "--json").json
    assert nothing["samples"] == []
    assert "generations" not in nothing
    assert opened == []
    assert samples("b") == []
    found = kto("eval", "a", *SHORT, "--json").json["samples"]
    kto("eval", "a", "--samples", 0)
    assert samples("a") == found
    assert gather(place / "a/eval", place / "a").part("generations.json")["prompts"] == 4


def test_an_adapter_with_more_tokens_is_refused_before_anything_is_asked(kto: Command, place, opened):
    from safetensors.torch import load_file, save_file

    shutil.copytree("lora", "more", ignore=shutil.ignore_patterns("kto_config.json", "metrics.jsonl", "steps", "eval"))
    file = Path("more/adapter_model.safetensors")
    save_file({**load_file(file), "base_model.model.model.embed_tokens.weight": torch.zeros(2050, 16)}, file)
    ran = kto("eval", "more", "--data", "set", *SHORT)
    assert "2,050 tokens, and its base model has 2,048" in error_line(ran)
    assert opened == []


# --- what is left from others ------------------------------------------------------------------


def test_answers_of_other_weights_or_other_data_are_not_shown(kto: Command, place):
    shutil.copytree("b", "plain", ignore=shutil.ignore_patterns("kto_config.json", "metrics.jsonl", "steps", "eval"))
    words = ("eval", "plain", "--data", "set", "--reference", "pico")
    assert kto(*words, *SHORT).code == 0
    evidence = gather(place / "plain/eval", None)
    assert evidence.samples
    assert evidence.part("generations.json")

    (place / "more").mkdir()
    other = make_dataset(place / "more", 30, validation=0.3)
    assert kto(*words[:2], "--data", other, "--reference", "pico", "--samples", 0).code == 0
    evidence = gather(place / "plain/eval", None)
    assert (evidence.samples, evidence.part("generations.json")) == ([], {}), "of other prompts"

    assert kto(*words, *SHORT).code == 0
    shutil.copy("a/model.safetensors", "plain/model.safetensors")
    assert kto(*words, "--samples", 0).code == 0
    evidence = gather(place / "plain/eval", None)
    assert (evidence.samples, evidence.part("generations.json")) == ([], {}), "of other weights"
    assert "No answers were sampled" in (place / "plain/eval/report.html").read_text()


# --- against others ----------------------------------------------------------------------------


def save_gpt2(folder: Path) -> Path:
    """Another architecture, whose tokens are bytes, without a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BUILDERS["gpt2"](
            vocab_size=len(tokenizer), bos_token_id=256, eos_token_id=256, n_positions=256, n_embd=16
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("other", ["b", "lora", "a/steps/step-000002", "bytes"])
def test_another_checkpoint_answers_too(kto: Command, place, opened, other):
    if other == "bytes":
        save_gpt2(place / "bytes")
    ran = kto("eval", "a", *SHORT, "--against", other)
    assert ran.code == 0, ran.err
    assert [Path(name).name for name in opened] == ["pico", "a", Path(other).name]
    found = samples("a")
    assert all(sample[other] for sample in found)
    if not other.startswith("a/"):  # an earlier step may answer alike
        assert any(sample[other] != sample["policy"] for sample in found)
    generations = part("a", "generations.json")
    assert list(generations["models"]) == ["reference", "policy", other, "target"]
    assert other in ran.out.partition("Answers to the same validation prompts")[2], "also on the screen"
    result = kto("eval", "a", *SHORT, "--against", other, "--json").json
    assert (result["samples"], list(result["generations"]["models"])) == (found, list(generations["models"]))
    assert len(opened) == 3
    if other in ("b", "lora"):  # as they answer when they are asked themselves
        own = kto("eval", other, *SHORT, "--json").json["samples"]
        assert [sample["policy"] for sample in own] == [sample[other] for sample in found]


@pytest.mark.parametrize("name", ["policy", "reference"])
def test_a_checkpoint_called_like_a_column_stays_apart(kto: Command, place, name):
    shutil.copytree("b", name)
    plain = kto("eval", "a", *SHORT, "--json").json["samples"]
    found = kto("eval", "a", *SHORT, "--against", f"{name}/", "--json").json["samples"]
    assert {key: found[0][key] for key in plain[0]} == plain[0]
    if name == "policy":  # the other is a word of --against
        found = kto("eval", "a", *SHORT, "--against", name, "--json").json["samples"]
        assert {key: found[0][key] for key in plain[0]} == plain[0]
        assert any(sample[f"./{name}"] != sample["policy"] for sample in found)


def test_against_itself_is_said(kto: Command, place):
    ran = kto("eval", "a", *SHORT, "--against", "./a", "--json")
    assert "measured against itself" in ran.err
    assert all(sample["policy"] == sample["./a"] for sample in ran.json["samples"])


# --- which checkpoints -------------------------------------------------------------------------


def test_adapters_steps_and_plain_folders(kto: Command, place):
    for name, home in (("lora", "lora/eval"), ("a/steps/step-000002", "a/eval/step-000002")):
        result = kto("eval", name, *SHORT, "--json").json
        assert Path(result["eval"]).resolve() == (place / home).resolve()
        assert result["samples"] == evaluated.lines(place / home / "samples.jsonl")
        assert any(sample["policy"] != sample["reference"] for sample in result["samples"])
    save_pico_llama(place / "bare", seed=5)
    assert "--reference" in error_line(kto("eval", "bare", "--data", "set", *SHORT))
    result = kto("eval", "bare", "--data", "set", "--reference", "pico", *SHORT, "--json").json
    assert len(result["samples"]) == 4
    reference = kto("eval", "b", *SHORT, "--json").json["samples"]
    assert [one["reference"] for one in result["samples"]] == [one["reference"] for one in reference]


def test_one_model_at_a_time(kto: Command, place, monkeypatch):
    """Before the checkpoint is loaded the reference is gone, and before another checkpoint the first one: nothing
    but garbage may hold them."""
    import gc

    known: list[Any] = []
    real = source.load_model

    def loading(*words: Any, **options: Any) -> Any:
        gc.collect()
        alive.append(sum(model() is not None for model in known))
        model = real(*words, **options)
        known.append(weakref.ref(model))
        return model

    alive: list[int] = []
    monkeypatch.setattr(source, "load_model", loading)
    assert kto("eval", "a", *SHORT, "--against", "b").code == 0
    assert alive == [0, 0, 0]


# --- refused before the work -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--samples", -1), "--samples -1 cannot be used"),
        (("--samples", 0, "--against", "reference"), "With --samples 0 there are no answers"),
        (("--samples", 0, "--against", "b"), "With --samples 0 there are no answers"),
        (("--against", ""), "--against '' cannot be used"),
        (("--against", "missing.json"), "There is no file missing.json"),
        (("--against", "set"), "set is not a model folder"),
        (("--against", "answers.json"), "only a judge compares with it"),
        (("--engine", "nonsense"), "--engine nonsense cannot be used"),
        (("--engine", "http://me:secret@host/v1"), "holds more than a place"),
        (("--engine", "http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1 cannot be reached"),
        (("--temperature", "nan"), "--temperature nan cannot be used"),
        (("--report-only", "--against", "b"), "--report-only computes nothing, and --against would have to"),
        (("--report-only", "--samples", 3), "--report-only computes nothing"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(kto: Command, place, flags, said):
    (place / "answers.json").write_text("[]")
    error = error_line(kto("eval", "a", *flags))
    assert said in error
    assert "secret" not in error
    assert not (place / "a/eval").exists()


# --- servers -----------------------------------------------------------------------------------


def parrot(handler: Handler, asked: dict[str, Any]) -> None:
    """Says which model was asked, and what."""
    handler.say(f"{asked['model']} hears {asked['messages'][-1]['content']}")


def test_a_server_answers_for_both(kto: Command, place):
    with serving(parrot) as server:
        server.models = ["elsewhere/pico", "a"]
        found = kto("eval", "a", *FEW, "--engine", server.url, "--json").json["samples"]
        assert [sample["policy"] for sample in found] == [f"a hears {sample['prompt']}" for sample in found]
        assert [sample["reference"] for sample in found] == [
            f"elsewhere/pico hears {sample['prompt']}" for sample in found
        ]
        assert len(server.asked) == 8
    assert kto("eval", "a", *FEW, "--engine", server.url, "--json").json["samples"] == found, "without the server"


def test_a_server_that_lacks_a_model(kto: Command, place):
    with serving(parrot) as server:
        server.models = ["pico"]
        error = error_line(kto("eval", "a", *FEW, "--engine", server.url))
        assert "no such model: a. It lists pico." in error
        asked = [asked["model"] for asked in server.asked]
        assert asked == ["pico"] * 4 + ["kto: no such model"], "the reference has answered, and that is kept"
        server.models.append("a")
        assert kto("eval", "a", *FEW, "--engine", server.url).code == 0
        assert len(server.asked) == 9
    assert (place / "a/eval/report.html").is_file()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_what_is_left(kto: Command, kto_started, place):
    """The server answers three and then keeps all waiting: those three are never asked again."""
    stuck = []

    def slow(handler: Handler, asked: dict[str, Any]) -> None:
        with handler.server.lock:
            stuck.append(len(stuck) >= 3)
            waits = stuck[-1]
        if waits:
            time.sleep(60)
        parrot(handler, asked)

    words = ("eval", "a", "--samples", 8, "--max-new-tokens", 8, "--engine")
    with serving(slow) as server:
        server.models = ["pico", "a"]
        process = kto_started(*words, server.url, cwd=place)
        deadline = time.monotonic() + 60
        while (stored := sum(file.read_text().count('"check"') for file in place.glob("cache/answers/*/*.jsonl"))) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert stored == 3
        before = len(server.asked)
        server.behaviour = parrot
        found = kto(*words, server.url, "--json").json["samples"]
        assert len(server.asked) - before == 8 + 8 - 3
    assert all(sample["policy"] == f"a hears {sample['prompt']}" for sample in found)


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(kto: Command, place, tmp_path, monkeypatch):
    flags = (*SHORT, "--against", "b")
    alone = kto("eval", "a", *flags, "--json").json
    one, described = samples("a"), part("a", "generations.json")
    shutil.rmtree("a/eval")
    monkeypatch.setenv("KTO_CACHE", str(tmp_path / "fresh"))
    launch(TWO, "-m", "kto_cli", "eval", "a", *flags)
    assert any((tmp_path / "fresh/answers").glob("*/*.jsonl")), "made anew"
    assert samples("a") == one == alone["samples"]
    assert json.dumps(part("a", "generations.json")) == json.dumps(described)
