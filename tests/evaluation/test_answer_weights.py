"""The dtype that answers, benchmarks and local judges are computed in."""

from __future__ import annotations

import pico
import pytest
import torch
from conftest import Command
from evaluated import SHORT, part, place, runs  # noqa: F401  (fixtures)

from kto_cli.common.errors import KtoError
from kto_cli.evaluation import session as sessions
from kto_cli.evaluation.answers import answering
from kto_cli.evaluation.answers.records import AnsweringModel
from kto_cli.evaluation.weights import answer_dtype, cast_weights
from kto_cli.model import precision
from kto_cli.model.load import load_model


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2", "gemma3", "gpt2", "opt", "gpt_neo"])
def test_a_cast_model_is_the_one_that_is_loaded_in_that_dtype(family, tmp_path):
    """Bit for bit; rotary frequencies stay in float32, which `model.to` would round."""
    pico.build(family).save_pretrained(tmp_path)
    cast, loaded = load_model(tmp_path), load_model(tmp_path, dtype=torch.bfloat16)
    cast_weights(cast, torch.bfloat16)
    assert [one.dtype for one in cast.parameters()] == [one.dtype for one in loaded.parameters()]
    ids = torch.randint(3, pico.VOCAB, (2, 40))
    with torch.no_grad():
        assert torch.equal(cast(input_ids=ids).logits, loaded(input_ids=ids).logits)


def test_weights_that_a_model_wants_in_float32_stay(tmp_path):
    """As `from_pretrained` has it: by the parts of a name that the model's class lists."""
    model = pico.build("llama")
    model._keep_in_fp32_modules_strict = {"q_proj", "layers.1.mlp"}
    cast_weights(model, torch.bfloat16)
    wide = {name for name, one in model.named_parameters() if one.dtype == torch.float32}
    mlp = {f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert wide == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)} | mlp


@pytest.mark.parametrize(
    ("asked", "device", "emulated", "found"),
    [
        ("auto", "cpu", False, torch.float32),
        ("auto", "cuda", False, torch.bfloat16),
        ("auto", "cuda", True, torch.float32),
        ("float32", "cuda", False, torch.float32),
        ("bfloat16", "cpu", False, torch.bfloat16),
    ],
)
def test_the_dtype_is_chosen_as_in_training(asked, device, emulated, found, monkeypatch):
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda device: emulated)
    assert answer_dtype(asked, torch.device(device)) == found


@pytest.fixture
def answered(monkeypatch) -> list[AnsweringModel]:
    """The models that answer, in order."""
    found: list[AnsweringModel] = []

    class Noted(answering.Lazy):
        def __init__(self, wanted, subject, *more):
            found.append(subject)
            super().__init__(wanted, subject, *more)

    monkeypatch.setattr(answering, "Lazy", Noted)
    return found


def dtypes(answered: list[AnsweringModel]) -> list[tuple[str, torch.dtype]]:
    return [(one.dtype, one.model().dtype) for one in answered]


def test_answers_come_from_bfloat16_weights_where_that_is_the_dtype(kto: Command, place, answered):  # noqa: F811
    """Log-probs do not change by it: bfloat16 products of float32 weights, whoever answers afterwards."""
    scored = kto("eval", "lora", "--samples", 0, "--dtype", "bfloat16", "--json").json
    done = kto("eval", "lora", *SHORT, "--dtype", "bfloat16", "--against", "a", "--json")
    assert "bfloat16 weights" in done.err
    assert dtypes(answered) == [("bfloat16", torch.bfloat16)] * 3
    assert {name: done.json[name] for name in scored if name in ("loss", "auc", "margin_nats", "kl")} == {
        name: scored[name] for name in scored if name in ("loss", "auc", "margin_nats", "kl")
    }
    assert (part("lora", "metrics.json")["dtype"], part("lora", "metrics.json")["answer_dtype"]) == ("bfloat16",) * 2


def test_on_a_cpu_nothing_is_cast_and_nothing_said(kto: Command, place, answered):  # noqa: F811
    done = kto("eval", "a", *SHORT, "--json")
    assert "weights (--dtype" not in done.err
    assert dtypes(answered) == [("float32", torch.float32)] * 2
    assert part("a", "metrics.json")["answer_dtype"] == "float32"


def test_on_a_gpu_a_run_of_float32_answers_in_bfloat16_too(kto: Command, place, answered, monkeypatch):  # noqa: F811
    """The device decides, not the run: its log-probs stay in float32. Answers of the other dtype are not taken."""
    kto("eval", "a", *SHORT)
    monkeypatch.setattr(sessions, "answer_dtype", lambda asked, device: torch.bfloat16 if asked == "auto" else None)
    kto("eval", "a", *SHORT)
    assert dtypes(answered[2:]) == [("bfloat16", torch.bfloat16)] * 2
    found = part("a", "metrics.json")
    assert (found["dtype"], found["answer_dtype"]) == ("float32", "bfloat16")
    assert len(list((place / "cache/answers").rglob("*.jsonl"))) == 4, "two models, two dtypes"


def test_a_local_judge_has_the_dtype_of_answers(kto: Command, place, monkeypatch):  # noqa: F811
    seen: list[torch.dtype] = []

    def judge(folder, *, device, dtype, say):
        seen.append(dtype)
        raise KtoError("seen")

    monkeypatch.setattr("kto_cli.evaluation.judge.reward_judge.RewardJudge", judge)
    kto("eval", "a", *SHORT, "--judge-model", "pico")
    kto("eval", "a", *SHORT, "--judge-model", "pico", "--dtype", "bfloat16")
    assert seen == [torch.float32, torch.bfloat16]
