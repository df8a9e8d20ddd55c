"""LoRA, DoRA, 4 bits: adapters computed by hand in float64, what learns, what is written, what loads it again."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import call
from one_step import LEARNING_RATE, SETTINGS, VOCABULARY, pico_model, some_rows
from pico import BUILDERS, build, naive_logps, sequences
from test_bad_input import refused
from test_end_to_end import METRICS, cache_use, check_validation, sha
from test_run_dir import MODEL_FILES, flip_a_byte, names, train_until_killed_in

from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.batches import pad
from kto_cli.core.losses import kto_loss
from kto_cli.model import base_weights, lora
from kto_cli.model.linear_layers import layers_to_adapt
from kto_cli.model.load import load_model
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.scorer import CompletionScorer
from kto_cli.training.step import TrainingEngine

CONFIG = TrainConfig(lora_r=4, lora_alpha=6)
ADAPTER_FILES = {lora.CONFIG, lora.WEIGHTS, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
SHORT = ("--batch-size", 8, "--epochs", 2, "--save-every", 2, "--lora-r", 4, "--learning-rate", 1e-2)
STEPS = 8
"""32 rows, batches of 8, 2 epochs."""


def shaken(model: Any) -> Any:
    """Fresh adapters put out zeros; these do not."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return model


# --- numbers ----------------------------------------------------------------------------------


def by_hand(base: Any, learning: dict[str, torch.Tensor], scale: float) -> Any:
    """The base model with W + scale * B A in place of W, as a function of the leaves A and B.

    `learning` has peft's names: base_model.model.LAYER.lora_A.default.weight, [r, in], and lora_B, [out, r].
    """
    changed = dict(base.named_parameters())
    for name, low in learning.items():
        if "lora_A" in name:
            layer = name.removeprefix("base_model.model.").split(".lora_A")[0]
            high = learning[name.replace("lora_A", "lora_B")]
            changed[f"{layer}.weight"] = changed[f"{layer}.weight"].detach() + scale * high @ low
    return lambda **inputs: torch.func.functional_call(base, changed, (), inputs)


def test_a_step_equals_the_one_computed_by_hand():
    """Loss and gradient of one effective batch in float64: W + alpha / r * B A written out, adapter off = base.

    AdamW's first moment after one step is (1 - beta1) times the gradient."""
    rows, base = some_rows(9), pico_model()
    own, mismatched = [row.own for row in rows], [row.mismatched for row in rows]
    references = ReferenceLogps(naive_logps(base, own).detach(), naive_logps(base, mismatched).detach())
    model = shaken(lora.add_adapters(copy.deepcopy(base), CONFIG, base="base"))
    leaves = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    hand = by_hand(base, leaves, 6 / 4)
    loss, _, _ = kto_loss(
        naive_logps(hand, own),
        references.own,
        torch.tensor([row.label for row in rows]),
        naive_logps(hand, mismatched).detach(),
        references.mismatched,
        beta=SETTINGS.beta,
        lambda_d=SETTINGS.lambda_d,
        lambda_u=SETTINGS.lambda_u,
    )
    loss.backward()

    scorer = CompletionScorer(model.get_base_model())
    assert not scorer.plain
    optimizer = torch.optim.AdamW([each for each in scorer.parameters() if each.requires_grad], weight_decay=0.0)
    engine = TrainingEngine(Accelerator(cpu=True), scorer, optimizer, token_budget=40, max_grad_norm=0.0)
    output = engine.step(rows, references, SETTINGS, learning_rate=LEARNING_RATE)

    expected = naive_logps(hand, own).detach() - references.own
    assert expected.abs().max() > 1, "the adapters do something"
    torch.testing.assert_close(output.log_ratios, expected, rtol=1e-9, atol=1e-9)
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, leaf in leaves.items():
        gradient = optimizer.state[learned[name]]["exp_avg"] / (1 - 0.9)
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-7, atol=1e-11)
    assert max(leaf.grad.abs().max() for leaf in leaves.values()) > 1e-3


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_only_adapters_learn_and_off_is_the_base_again(dora: bool):
    """After a step every base weight has the bits it had; with the adapters off the model gives the base's numbers."""
    rows, base = some_rows(6), pico_model()
    sequences_ = [row.own for row in rows]
    model = lora.add_adapters(copy.deepcopy(base), replace(CONFIG, dora=dora), base="base")
    references = ReferenceLogps(*(torch.zeros(6, dtype=torch.float64) - 50 for _ in range(2)))
    scorer = CompletionScorer(model.get_base_model())
    optimizer = torch.optim.AdamW([each for each in scorer.parameters() if each.requires_grad])
    TrainingEngine(Accelerator(cpu=True), scorer, optimizer, token_budget=99, max_grad_norm=1.0).step(
        rows, references, SETTINGS, learning_rate=0.1
    )
    assert (scorer.score(sequences_) - naive_logps(base, sequences_)).abs().max() > 1e-3
    before, kinds = base.state_dict(), set()
    for name, value in model.get_base_model().state_dict().items():
        kinds.add(name.split(".")[-3] if ".lora_" in name else "base")
        if ".lora_" not in name:
            assert torch.equal(value, before[name.replace(".base_layer", "")]), name
    assert kinds == {"base", "lora_A", "lora_B"} | ({"lora_magnitude_vector"} if dora else set())
    with model.disable_adapter():
        torch.testing.assert_close(scorer.score(sequences_), CompletionScorer(base).score(sequences_), rtol=0, atol=0)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("family", [family for family in BUILDERS if family != "mamba"])
def test_every_family(family: str, dora: bool, tmp_path: Path):
    """Fresh: the base's log-probs (LoRA: to the bit). Then the fast path against the model's own logits in float64,
    an adapter that is saved and attached again (to the bit), and one that is merged."""
    some = sequences(((3, 9), (25, 4), (6, 30)))
    before = CompletionScorer(build(family).double()).score(some)
    model = lora.add_adapters(build(family).double(), replace(CONFIG, dora=dora), base="base")
    scorer = CompletionScorer(model.get_base_model())
    assert not scorer.plain
    torch.testing.assert_close(scorer.score(some), before, rtol=0, atol=1e-9 if dora else 0)
    shaken(model)
    after = scorer.score(some)
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(after, naive_logps(model.get_base_model(), some).detach(), rtol=1e-9, atol=2e-6)
    lora.save(tmp_path, model)
    again = CompletionScorer(lora.attach(build(family).double(), tmp_path).get_base_model())
    torch.testing.assert_close(again.score(some), after, rtol=0, atol=0)
    whole = CompletionScorer(base_weights.merged(model, lambda name, weight: None))
    assert not any(".lora_" in name for name, _ in whole.named_parameters())
    torch.testing.assert_close(whole.score(some), after, rtol=1e-9, atol=2e-6)


def test_adapters_are_the_same_for_the_same_seed():
    one, same, other = (
        lora.add_adapters(pico_model(), replace(CONFIG, seed=seed), base="base").state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("family", "targets", "expected"),
    [
        ("llama", "all-linear", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
        ("llama", " v_proj,q_proj, ", ["q_proj", "v_proj"]),
        ("gpt2", "all-linear", ["c_attn", "c_fc", "c_proj"]),
        ("mixtral", "all-linear", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("jamba", "all-linear", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
    ],
)
def test_which_layers(family: str, targets: str, expected: list[str]):
    assert layers_to_adapt(build(family), targets) == expected


def test_a_model_of_state_space_layers_alone_takes_no_adapters():
    with pytest.raises(BadInput, match="no linear layer to adapt"):
        layers_to_adapt(build("mamba"), "all-linear")


@pytest.mark.parametrize("targets", ["q_prj", "lm_head", "embed_tokens", "q_proj,lm_head", ","])
def test_a_layer_that_is_not_there_is_named_and_those_that_are_listed(targets: str):
    with pytest.raises(BadInput, match=r"down_proj, gate_proj, k_proj") as raised:
        layers_to_adapt(build("llama"), targets)
    assert "q_proj," not in raised.value.what.split(":")[1], "what is there is not called missing"


# --- runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(pico, pico_data, tmp_path_factory) -> Path:
    """finished/, merged/: unbroken runs; broken/: killed in step 8; none is to be changed."""
    home = tmp_path_factory.mktemp("lora")
    words = ("--data", pico_data, "--model", pico, "--cache", home / "cache", *SHORT)
    assert call("train", *words, "--out", home / "finished").code == 0
    assert call("train", *words, "--out", home / "merged", "--merge").code == 0
    train_until_killed_in(STEPS, *words, "--out", home / "broken")
    return home


def test_the_run_directory_holds_the_adapter_alone(runs: Path, pico: Path):
    finished = runs / "finished"
    assert names(finished) == ADAPTER_FILES | {"kto_config.json", "metrics.jsonl", "README.md", "steps"}
    for step in (finished / "steps").iterdir():
        assert names(step) == ADAPTER_FILES | {"optimizer.safetensors", "state.json"}
    assert lora.base_of(finished) == str(pico.resolve())
    assert names(runs / "merged") == MODEL_FILES | {"kto_config.json", "metrics.jsonl", "README.md", "steps"}
    assert names(runs / "broken") == {"best", "kto_config.json", "metrics.jsonl", "steps"}
    assert "library_name: peft" in (finished / "README.md").read_text()
    assert "rank 4, alpha 8" in (finished / "README.md").read_text()


def test_at_step_0_the_policy_is_the_reference(runs: Path):
    first = json.loads((runs / "finished/metrics.jsonl").read_text().splitlines()[0])
    assert first["noise_floor"] < 1e-4
    assert first["margin"] == pytest.approx(0, abs=1e-4)


def test_a_full_run_and_a_lora_run_share_the_reference_cache(kto, workplace, given):
    needed = kto("precompute", *given, "--json").json["sequences"]
    ran = kto("train", *given, *SHORT, "--max-steps", 1, "--out", "run")
    assert cache_use(ran.err) == (needed, 0)


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_killed_and_resumed_is_the_same_run(runs: Path, workplace: Path, kto, pico, pico_data, cache: str):
    """Bit for bit; where the cache is lost, too: the reference is scored before the adapters are put back."""
    run = Path(shutil.copytree(runs / "broken", workplace / "run"))
    words = ("--data", pico_data, "--model", pico, "--cache", runs / "cache" if cache == "kept" else workplace / "new")
    ran = kto("train", *words, *SHORT, "--out", run, "--resume")
    assert ran.code == 0, ran.err
    assert "(step 6 of 8)" in ran.err
    assert sha(run / lora.WEIGHTS) == sha(runs / "finished" / lora.WEIGHTS)
    numbers = [
        [{key: line[key] for key in ("step", "loss", "z_ref", "margin")} for line in map(json.loads, text.splitlines())]
        for text in ((folder / "metrics.jsonl").read_text() for folder in (run, runs / "finished"))
    ]
    assert numbers[0] == numbers[1]


def test_merged_is_the_same_model(runs: Path, pico: Path):
    """The whole model of --merge against the adapter on its base; and both load with transformers alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    some = sequences(vocab=2048)
    merged, info = AutoModelForCausalLM.from_pretrained(runs / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = CompletionScorer(merged).score(some)
    by_transformers = AutoModelForCausalLM.from_pretrained(runs / "finished")
    by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(pico), runs / "finished")
    before = CompletionScorer(AutoModelForCausalLM.from_pretrained(pico)).score(some)
    assert (expected - before).abs().max() > 0.01, "it was trained"
    for model in (by_transformers, by_peft.get_base_model()):
        torch.testing.assert_close(CompletionScorer(model).score(some), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_eval_of_a_run_of_a_step_and_of_the_merged_model(runs: Path, kto, workplace: Path, pico_data: Path):
    cached = ("--data", pico_data, "--cache", runs / "cache", "--samples", 1, "--json")
    run = Path(shutil.copytree(runs / "finished", workplace / "run"))
    seen = kto("eval", run, *cached).json
    check_validation(seen)
    trained = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["validation"]
    assert seen["margin"] == pytest.approx(trained["margin"], abs=1e-5)
    merged = kto("eval", Path(shutil.copytree(runs / "merged", workplace / "merged")), *cached).json
    for name in METRICS:
        assert merged[name] == pytest.approx(seen[name], abs=1e-4), name
    step = sorted((run / "steps").iterdir())[-1]
    check_validation(kto("eval", step, *cached).json)


def test_eval_of_an_adapter_from_elsewhere(runs: Path, kto, workplace: Path, pico: Path, pico_data: Path):
    """Its reference is its base; another reference leaves the adapter on its base."""
    folder = workplace / "adapter"
    folder.mkdir()
    for name in (lora.CONFIG, lora.WEIGHTS):
        shutil.copy(runs / "finished" / name, folder / name)
    words = ("--data", pico_data, "--samples", 1, "--json")
    seen = kto("eval", folder, *words)
    assert seen.json["reference"] == str(pico.resolve())
    run = Path(shutil.copytree(runs / "finished", workplace / "run"))
    assert seen.json["margin"] == pytest.approx(kto("eval", run, *words).json["margin"], abs=1e-5)
    itself = kto("eval", folder, *words, "--reference", Path(shutil.copytree(runs / "merged", workplace / "merged")))
    assert itself.json["margin"] == pytest.approx(0, abs=1e-4), "against itself, merged, it has learned nothing"


def test_eval_of_an_adapter_on_the_head(kto, workplace: Path, pico: Path, pico_data: Path):
    """kto trains none; one from elsewhere is read through the model's own logits."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(pico)
    adapted = shaken(get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM")))
    lora.save(workplace / "adapter", adapted)
    assert CompletionScorer(adapted.get_base_model()).plain
    seen = kto("eval", "adapter", "--data", pico_data, "--samples", 0, "--json").json
    assert abs(seen["margin"]) > 1e-4


def test_a_run_is_run_again_from_its_own_config(runs: Path, kto, workplace: Path):
    again = kto("train", "--config", runs / "finished/kto_config.json", "--cache", runs / "cache", "--out", "again")
    assert again.code == 0, again.err
    assert "Warning" not in again.err
    assert sha(workplace / "again" / lora.WEIGHTS) == sha(runs / "finished" / lora.WEIGHTS)


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--lora-r", 0], ["--lora-r 0", "1 or above"]),
        (["--lora-r", -3], ["--lora-r -3", "1 or above"]),
        (["--lora-r", 4, "--lora-alpha", 0], ["--lora-alpha 0", "1 or above"]),
        (["--merge"], ["--merge", "--lora-r 16"]),
        (["--dora"], ["--dora", "--lora-r 16"]),
        (["--lora-alpha", 8], ["--lora-alpha", "--lora-r 16"]),
        (["--lora-targets", "q_proj"], ["--lora-targets", "--lora-r 16"]),
        (["--load-in-4bit"], ["--load-in-4bit", "--lora-r 16"]),
        (["--lora-r", 4, "--load-in-4bit", "--merge"], ["--merge", "--load-in-4bit", "Leave one"]),
        (["--lora-r", 4, "--lora-targets", "q_prj"], ["q_prj", "It has: down_proj, gate_proj"]),
        (["--lora-r", 4, "--lora-targets", "lm_head"], ["lm_head", "output head", "It has: down_proj"]),
        (["--lora-r", 4, "--lora-targets", ""], ["--lora-targets", "all-linear"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if str(value[0]).startswith("--") else "",
)
def test_train_refuses(kto, workplace: Path, given, flags: list, words: list[str]):
    refused(kto("train", *given, "--out", "run", *flags, "--json"), *words)
    assert not list(workplace.iterdir())


def test_a_finished_lora_run_is_not_begun_again(runs: Path, kto, given):
    refused(kto("train", *given, *SHORT, "--out", runs / "finished", "--json"), "finished run", "--out")
    again = kto("train", *given, *SHORT, "--out", runs / "finished", "--resume", "--json")
    refused(again, "nothing to resume", "kto eval")


def test_a_damaged_adapter_is_said(runs: Path, kto, workplace: Path, pico: Path, pico_data: Path):
    run = Path(shutil.copytree(runs / "finished", workplace / "run"))
    flip_a_byte(run / lora.WEIGHTS)
    refused(kto("eval", run, "--json"), lora.WEIGHTS, "damaged")
    (run / "kto_config.json").unlink()
    (run / lora.WEIGHTS).write_bytes(b"no")
    elsewhere = kto("eval", run, "--data", pico_data, "--json")
    refused(elsewhere, lora.WEIGHTS, "is damaged (the adapters)")
    (run / lora.CONFIG).write_text("{}")
    refused(kto("eval", run, "--data", pico_data, "--json"), "does not name the adapter")


def test_an_adapter_for_another_model_is_said(kto, workplace: Path, pico: Path, pico_data: Path):
    other = lora.add_adapters(build("gpt2", vocab_size=VOCABULARY), CONFIG, base=str(pico))
    lora.save(workplace / "adapter", other)
    refused(kto("eval", "adapter", "--data", pico_data, "--json"), "adapter", "cannot be loaded", "for this model")


def test_an_adapter_that_is_no_lora_is_said(kto, workplace: Path, pico: Path, pico_data: Path):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    options = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    prompts = get_peft_model(AutoModelForCausalLM.from_pretrained(pico), options)
    lora.save(workplace / "adapter", prompts)
    refused(kto("eval", "adapter", "--data", pico_data, "--json"), "PROMPT_TUNING", "LoRA")


# --- 4 bits -----------------------------------------------------------------------------------


def has_bitsandbytes() -> bool:
    from transformers.utils import is_bitsandbytes_available

    return is_bitsandbytes_available()


@pytest.mark.skipif(has_bitsandbytes(), reason="bitsandbytes is installed")
def test_4_bits_without_bitsandbytes_is_said(kto, given, workplace):
    refused(kto("train", *given, *SHORT, "--load-in-4bit", "--json"), "needs bitsandbytes", "pip install")


@pytest.mark.skipif(not has_bitsandbytes(), reason="no bitsandbytes")
def test_a_4_bit_gradient_is_that_of_the_rounded_weights(pico: Path):
    """After a pass without gradient, as every step begins with one: against a model that holds the rounded weights in
    float32, with the same adapters."""
    import bitsandbytes

    model = load_model(pico, in_4bit=torch.float32)
    rounded = load_model(pico)
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            rounded.get_submodule(name).weight.data = weight
    some, gradients = sequences(vocab=2048), []
    for base in (model, rounded):
        adapted = shaken(lora.add_adapters(base, CONFIG, base="base"))
        scorer = CompletionScorer(adapted.get_base_model())
        before = scorer.score(some)
        logps = scorer(*pad(some))
        torch.testing.assert_close(logps.detach(), before, rtol=1e-5, atol=1e-3)
        logps.sum().backward()
        gradients.append({name: each.grad for name, each in adapted.named_parameters() if each.requires_grad})
    for name, gradient in gradients[0].items():
        expected = gradients[1][name]
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.skipif(not has_bitsandbytes(), reason="no bitsandbytes")
def test_a_4_bit_run_trains_resumes_and_is_evaluated(kto, workplace: Path, given):
    """The 4-bit model is a reference of its own, and the policy at step 0."""
    whole = kto("precompute", *given, "--json").json
    four_bit = kto("precompute", *given, "--load-in-4bit", "--json").json
    assert four_bit["computed"] == whole["computed"] > 0, "another model never gets a hit"
    words = (*given, *SHORT, "--load-in-4bit")
    ran = kto("train", *words, "--out", "run")
    assert ran.code == 0, ran.err
    assert cache_use(ran.err) == (whole["sequences"], 0)
    run = workplace / "run"
    assert names(run) == ADAPTER_FILES | {"kto_config.json", "metrics.jsonl", "README.md", "steps"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["noise_floor"] < 1e-3
    assert lines[-1]["margin"] != 0
    seen = kto("eval", "run", "--samples", 1, "--json").json
    assert seen["margin"] == pytest.approx(lines[-1]["validation"]["margin"], abs=1e-4)
    train_until_killed_in(STEPS, *words, "--out", "broken")
    assert kto("train", *words, "--out", "broken", "--resume").code == 0
    assert sha(workplace / "broken" / lora.WEIGHTS) == sha(run / lora.WEIGHTS)
