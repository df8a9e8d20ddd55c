"""Chains of runs: training that starts from an adapter, goes on with it, or has another model as reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call, save_pico_llama
from pico import build, sequences
from test_bad_input import refused
from test_end_to_end import METRICS, cache_use
from test_lora import ADAPTER_FILES, shaken
from test_model_folder import in_bfloat16
from test_run_dir import MODEL_FILES, names, sha, train_until_killed_in

from kto_cli.common.train_config import TrainConfig
from kto_cli.model import base_weights, lora
from kto_cli.model.linear_layers import layers_to_adapt, linear_layers
from kto_cli.model.load import load_model
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.source import ModelSource, load_source, open_source

SHORT = ("--batch-size", 8, "--epochs", 2, "--save-every", 2, "--learning-rate", 1e-2)
STEPS = 8
"""32 rows, batches of 8, 2 epochs."""
WAYS = {
    "stacked": ("--lora-r", 2),
    "stacked-merged": ("--lora-r", 2, "--merge"),
    "continued": ("--continue-adapter",),
    "whole": ("--learning-rate", 1e-3),
    "other": ("--lora-r", 2, "--reference", "pico"),
}
SOME = sequences(vocab=2048)
FEW = sequences(((3, 9), (25, 4), (6, 30)))


@pytest.fixture(scope="module")
def chains(pico: Path, pico_data: Path, tmp_path_factory) -> Path:
    """first/: adapters on the pico model; a finished run for each of `WAYS` from there; none is to be changed."""
    home = tmp_path_factory.mktemp("chains")
    words = ("--data", pico_data, "--cache", home / "cache", *SHORT)
    assert call("train", "--model", pico, *words, "--lora-r", 4, "--out", home / "first").code == 0
    for name in WAYS:
        ran = call("train", "--model", home / "first", *words, *way(name, pico), "--out", home / name)
        assert ran.code == 0, ran.err
        (home / f"{name}.err").write_text(ran.err)
    return home


def way(name: str, pico: Path) -> list[Any]:
    return [pico if word == "pico" else word for word in WAYS[name]]


def loaded(source: ModelSource) -> Any:
    return load_source(source, trust_remote_code=False, dtype=torch.float32, compute=torch.float32).model


def logps(folder: Path, **options: Any) -> torch.Tensor:
    return CompletionScorer(loaded(open_source(str(folder), **options))).score(SOME)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def settings(run: Path) -> dict[str, Any]:
    return json.loads((run / "kto_config.json").read_text())


# --- numbers ----------------------------------------------------------------------------------


def adapter(folder: Path, below: Any, base: str, *, seed: int, **options: Any) -> Any:
    """A shaken adapter on a model, saved; returns peft's model."""
    model = lora.add_adapters(below, TrainConfig(lora_r=3, seed=seed, **options), base=base)
    folder.mkdir()
    lora.save(folder, shaken(model))
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma2"])
@pytest.mark.parametrize("dora", [False, True], ids=["on LoRA", "on DoRA"])
def test_two_adapters_are_the_sum_of_both(family: str, dora: bool, tmp_path: Path):
    """W + B A + D C in float64, adapter by adapter: the second off is the first alone, to the bit; both saved and
    attached again; both merged."""
    first = adapter(tmp_path / "one", build(family).double(), "base", seed=1, dora=dora)
    alone = CompletionScorer(first.get_base_model()).score(FEW)
    both = lora.attach(build(family).double(), tmp_path / "one")
    both = lora.add_adapters(both, TrainConfig(lora_r=2, lora_targets="all-linear"), base="one")
    scorer = CompletionScorer(both.get_base_model())
    torch.testing.assert_close(scorer.score(FEW), alone, rtol=0, atol=0)
    assert {name.split(".")[-2] for name, each in both.named_parameters() if each.requires_grad} == {"default"}
    shaken(both)
    after = scorer.score(FEW)
    assert (after - alone).abs().max() > 0.1
    with lora.as_reference(both):
        torch.testing.assert_close(scorer.score(FEW), alone, rtol=0, atol=0)
    torch.testing.assert_close(scorer.score(FEW), after, rtol=0, atol=0)
    assert {name.split(".")[-2] for name, each in both.named_parameters() if each.requires_grad} == {"default"}
    (tmp_path / "two").mkdir()
    lora.save(tmp_path / "two", both)
    again = lora.attach(lora.attach(build(family).double(), tmp_path / "one"), tmp_path / "two")
    torch.testing.assert_close(CompletionScorer(again.get_base_model()).score(FEW), after, rtol=0, atol=0)
    whole = CompletionScorer(base_weights.merged(both, lambda name, weight: None))
    assert not any(".lora_" in name for name, _ in whole.named_parameters())
    torch.testing.assert_close(whole.score(FEW), after, rtol=1e-9, atol=2e-6)


def test_new_adapters_go_onto_the_same_layers_as_without_the_first(tmp_path: Path):
    plain = build("llama")
    expected = layers_to_adapt(plain, "all-linear"), set(linear_layers(plain))
    adapter(tmp_path / "one", build("llama"), "base", seed=1, lora_targets="q_proj,v_proj")
    first = lora.attach(build("llama"), tmp_path / "one").get_base_model()
    assert (layers_to_adapt(first, "all-linear"), set(linear_layers(first))) == expected


@pytest.mark.slow
def test_an_adapter_of_peft_with_a_head_of_its_own_is_started_from(kto, workplace: Path, pico: Path, pico_data: Path):
    """modules_to_save and rsLoRA, saved by peft: new adapters on it, and its weights merged, start from its numbers."""
    from peft import LoraConfig, get_peft_model

    options = LoraConfig(
        r=2, target_modules=["q_proj", "up_proj"], modules_to_save=["lm_head"], use_rslora=True, task_type="CAUSAL_LM"
    )
    made = shaken(get_peft_model(load_model(pico), options)).eval()
    expected = CompletionScorer(made.get_base_model()).score(SOME)
    made.save_pretrained(workplace / "theirs")
    config = json.loads((workplace / "theirs" / lora.CONFIG).read_text())
    (workplace / "theirs" / lora.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(pico)}))
    torch.testing.assert_close(logps(workplace / "theirs"), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logps(workplace / "theirs", merged=True), expected, rtol=0, atol=1e-4)
    for out, words in {"stacked": ["--lora-r", 2], "whole": [], "on": ["--continue-adapter"]}.items():
        ran = kto("train", "--model", "theirs", "--data", pico_data, *SHORT, *words, "--max-steps", 2, "--out", out)
        assert ran.code == 0, ran.err
        assert records(workplace / out)[0]["noise_floor"] < 1e-3
        assert (logps(workplace / out) - expected).abs().max() > 1e-3
        assert kto("eval", out, "--samples", 1, "--json").json["margin"] == pytest.approx(
            records(workplace / out)[-1]["validation"]["margin"], abs=1e-5
        )


def test_an_adapter_merged_for_bfloat16_products_is_not_lost(tmp_path: Path, pico: Path):
    """Weights on bfloat16's numbers, and an adapter that moves them by less than their spacing: to the nearest number
    all would be back where they were. Rounded at random, the change along the adapter's is the adapter's."""
    base = in_bfloat16(Path(shutil.copytree(pico, tmp_path / "base")))
    made = lora.add_adapters(load_model(base), TrainConfig(lora_r=4), base=str(base))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, each in made.named_parameters():
            if "lora_B" in name:
                each.copy_(1e-5 * torch.randn(each.shape, generator=generator))
    (tmp_path / "one").mkdir()
    lora.save(tmp_path / "one", made)
    source = open_source(str(tmp_path / "one"), merged=True)
    exact, rounded = (
        load_source(source, trust_remote_code=False, dtype=torch.float32, compute=compute).model.state_dict()
        for compute in (torch.float32, torch.bfloat16)
    )
    before = load_model(base).state_dict()
    nearest = along = whole = 0.0
    for name, weight in before.items():
        change = exact[name] - weight
        assert torch.equal(rounded[name], rounded[name].bfloat16().float()), name
        nearest += (change * (exact[name].bfloat16().float() - weight)).sum().item()
        along += (change * (rounded[name] - weight)).sum().item()
        whole += change.square().sum().item()
    assert nearest < 0.5 * whole
    assert along == pytest.approx(whole, rel=0.35)


@pytest.mark.parametrize("flags", [["--lora-r", 2], ["--continue-adapter"], []], ids=str)
@pytest.mark.slow
def test_runs_in_bfloat16_start_at_their_reference(kto, workplace: Path, chains: Path, pico_data: Path, flags: list):
    words = ("--model", chains / "first", "--data", pico_data, *SHORT, "--dtype", "bfloat16", "--max-steps", 2)
    assert kto("train", *words, *flags, "--out", "run").code == 0
    assert records(Path("run"))[0]["noise_floor"] < 0.1
    trained = records(Path("run"))[-1]["validation"]["margin"]
    assert kto("eval", "run", "--samples", 0, "--json").json["margin"] == pytest.approx(trained, abs=0.02)


# --- the reference ----------------------------------------------------------------------------


def test_the_reference_is_base_and_first_adapter(chains: Path, pico: Path):
    """To 1e-6 of peft's own model; the base's log-probs are others, and so is its fingerprint."""
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(load_model(pico), str(chains / "first")).eval()
    expected = CompletionScorer(theirs.get_base_model()).score(SOME)
    torch.testing.assert_close(logps(chains / "first"), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(logps(chains / "first", merged=True), expected, rtol=0, atol=1e-4)
    assert (logps(pico) - expected).abs().max() > 0.01
    prints = {open_source(str(folder)).fingerprint for folder in (pico, chains / "first", chains / "stacked")}
    assert len(prints | {open_source(str(chains / "first"), merged=True).fingerprint}) == 4


@pytest.mark.parametrize("name", ["stacked", "continued", "whole"])
def test_the_cache_does_not_take_the_base_for_the_reference(chains: Path, name: str):
    """The first run filled the cache with the base's log-probs; a second run computes its own. At step 0 the policy
    is the reference, and the loss is that of a policy that has not moved."""
    cached, computed = cache_use((chains / f"{name}.err").read_text())
    assert (cached, computed > 0) == ((0, True) if name != "continued" else (computed + cached, False))
    first = records(chains / name)[0]
    assert first["noise_floor"] < 1e-4
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    assert settings(chains / name)["reference"]["fingerprint"] == (
        open_source(str(chains / "first"), merged=name == "whole").fingerprint
    )


def test_precompute_fills_the_cache_of_the_run_that_follows(kto, workplace: Path, chains: Path, pico_data: Path):
    words = ("--data", pico_data, "--model", chains / "first")
    needed = kto("precompute", *words, "--json").json["sequences"]
    for out, flags in {"one": ["--lora-r", 2], "two": ["--continue-adapter"]}.items():
        ran = kto("train", *words, *SHORT, *flags, "--max-steps", 1, "--out", out)
        assert cache_use(ran.err) == (needed, 0)


def test_an_adapter_of_the_same_content_elsewhere_has_the_same_fingerprint(chains: Path, tmp_path: Path, pico: Path):
    copy = Path(shutil.copytree(chains / "first", tmp_path / "copy"))
    base = Path(shutil.copytree(pico, tmp_path / "base"))
    (copy / "kto_config.json").unlink()
    config = json.loads((copy / lora.CONFIG).read_text())
    (copy / lora.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    assert open_source(str(copy)).fingerprint == open_source(str(chains / "first")).fingerprint
    (copy / lora.CONFIG).write_text(json.dumps(config | {"lora_alpha": 99}))
    assert open_source(str(copy)).fingerprint != open_source(str(chains / "first")).fingerprint


# --- what is written --------------------------------------------------------------------------


def test_what_each_way_writes(chains: Path, pico: Path):
    beside = {"kto_config.json", "metrics.jsonl", "README.md", "steps"}
    for name in ("stacked", "continued", "other"):
        assert names(chains / name) == ADAPTER_FILES | beside, name
    for name in ("stacked-merged", "whole"):
        assert names(chains / name) == MODEL_FILES | beside, name
    assert lora.base_of(chains / "stacked") == str((chains / "first").resolve())
    assert lora.base_of(chains / "continued") == str(pico.resolve())
    assert json.loads((chains / "stacked" / lora.CONFIG).read_text())["r"] == 2
    assert json.loads((chains / "continued" / lora.CONFIG).read_text())["r"] == 4
    stored = settings(chains / "stacked")
    first = chains / "first"
    assert stored["reference_adapter"] == {"path": str(first.resolve()), "sha256": sha(first / lora.WEIGHTS)}
    assert stored["reference"]["folder"] == str(first.resolve())
    assert settings(chains / "other")["reference"]["folder"] == str(pico.resolve())
    assert settings(chains / "other")["start"]["folder"] == str(first.resolve())
    assert "stage1" in (chains / "stacked/README.md").read_text()
    assert "stage1" not in (chains / "continued/README.md").read_text()
    assert "is merged into" in " ".join((chains / "whole.err").read_text().split())


def test_both_adapters_opened_again_and_merged_are_one_model(chains: Path):
    """The run's folder opens what is below it; --merge writes the same model in one."""
    stacked = logps(chains / "stacked")
    assert (stacked - logps(chains / "first")).abs().max() > 0.01
    torch.testing.assert_close(logps(chains / "stacked-merged"), stacked, rtol=0, atol=1e-4)
    torch.testing.assert_close(logps(chains / "stacked", merged=True), stacked, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*WAYS])
@pytest.mark.slow
def test_eval_gives_the_numbers_of_the_run(kto, workplace: Path, chains: Path, name: str):
    """Of the finished run and of a step of it: against the same reference, with both adapters."""
    run = Path(shutil.copytree(chains / name, workplace / "run"))
    seen = kto("eval", run, "--cache", chains / "cache", "--samples", 1, "--json").json
    trained = records(run)[-1]["validation"]
    assert abs(trained["margin"]) > 1e-3
    for metric in ("margin", "auc"):
        assert seen[metric] == pytest.approx(trained[metric], abs=1e-4), metric
    step = sorted((run / "steps").iterdir())[-1]
    assert abs(kto("eval", step, "--cache", chains / "cache", "--samples", 0, "--json").json["margin"]) > 1e-4


def test_the_merged_run_and_the_adapters_are_evaluated_alike(kto, workplace: Path, chains: Path):
    one, two = (
        kto("eval", shutil.copytree(chains / name, workplace / name), "--samples", 0, "--json").json
        for name in ("stacked", "stacked-merged")
    )
    for name in METRICS:
        assert two[name] == pytest.approx(one[name], abs=1e-4), name


def test_answers_of_both_and_against_the_first(kto, workplace: Path, chains: Path):
    run = Path(shutil.copytree(chains / "stacked", workplace / "run"))
    words = ("--cache", chains / "cache", "--samples", 2, "--max-new-tokens", 8, "--temperature", 0, "--json")
    against = kto("eval", run, *words, "--against", chains / "first").json["samples"]
    other = next(name for name in against[0] if name not in ("id", "prompt", "target", "policy", "reference"))
    assert [each[other] for each in against] == [each["reference"] for each in against]


def test_a_chain_of_three(kto, workplace: Path, chains: Path, pico_data: Path):
    ran = kto("train", "--model", chains / "stacked", "--data", pico_data, *SHORT, "--lora-r", 2, "--out", "third")
    assert ran.code == 0, ran.err
    assert [folder.name for folder in open_source("third").adapters] == ["first", "stacked", "third"]
    assert records(Path("third"))[0]["noise_floor"] < 1e-4
    seen = kto("eval", "third", "--samples", 0, "--json").json
    assert seen["margin"] == pytest.approx(records(Path("third"))[-1]["validation"]["margin"], abs=1e-4)


def test_a_run_is_run_again_from_its_own_config(kto, workplace: Path, chains: Path):
    for name in ("stacked", "continued", "other"):
        again = kto("train", "--config", chains / name / "kto_config.json", "--cache", chains / "cache", "--out", name)
        assert again.code == 0, again.err
        assert "Warning" not in again.err
        assert sha(workplace / name / lora.WEIGHTS) == sha(chains / name / lora.WEIGHTS)


# --- resumed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["kept", "lost"])
@pytest.mark.parametrize("name", ["stacked", "continued", "whole", "other"])
def test_killed_and_resumed_is_the_same_run(workplace: Path, chains: Path, pico: Path, pico_data: Path, name, cache):
    """Bit for bit; where the cache is lost, too: the reference is scored before the checkpoint is put back."""
    words = ("--data", pico_data, "--model", chains / "first", *SHORT, *way(name, pico), "--out", "run")
    train_until_killed_in(STEPS, *words, "--cache", chains / "cache")
    ran = call("train", *words, "--cache", chains / "cache" if cache == "kept" else "new", "--resume")
    assert ran.code == 0, ran.err
    assert "(step 6 of 8)" in ran.err
    file = "model.safetensors" if name == "whole" else lora.WEIGHTS
    assert sha(workplace / "run" / file) == sha(chains / name / file)
    keys = ("step", "loss", "z_ref", "margin")
    assert [[line[key] for key in keys] for line in records(workplace / "run")] == [
        [line[key] for key in keys] for line in records(chains / name)
    ]


# --- another reference ------------------------------------------------------------------------


def test_with_another_reference_the_distance_at_the_start_is_said(chains: Path, pico: Path):
    """KL in place of the noise floor: the mean log-ratio of the first step's mismatched completions."""
    first = records(chains / "other")[0]
    assert "noise_floor" not in first
    assert abs(first["kl_at_start"]) > 1e-3
    said = " ".join((chains / "other.err").read_text().split())
    assert "the KL from the reference is estimated at" in said
    assert "Check passed" not in said


def test_a_reference_that_is_the_model_itself_is_no_other(kto, workplace: Path, given, pico: Path):
    copy = shutil.copytree(pico, workplace / "copy")
    ran = kto("train", *given, *SHORT, "--reference", copy, "--max-steps", 1, "--out", "run")
    assert "Check passed" in " ".join(ran.err.split())


def test_a_reference_with_other_tokens_is_refused(kto, workplace: Path, given, pico: Path):
    other = save_pico_llama(workplace / "other", seed=1)
    text = (other / "tokenizer.json").read_text()
    vocabulary = json.loads(text)["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[300:302]
    swapped = json.loads(text)
    swapped["model"]["vocab"] |= {one: vocabulary[two], two: vocabulary[one]}
    (other / "tokenizer.json").write_text(json.dumps(swapped))
    refused(
        kto("train", *given, "--reference", other, "--out", "run", "--json"), "--reference", "other tokens", "is 301"
    )
    assert not Path("run/metrics.jsonl").exists()


def test_dry_run_and_device_memory_know_the_adapters(kto, workplace: Path, chains: Path, pico: Path, pico_data: Path):
    words = ("train", "--data", pico_data, "--dry-run", "--json")
    whole = kto(*words, "--model", pico).json["parameters"]
    for flags, expected in {
        ("--lora-r", 2): "more",
        ("--continue-adapter",): "adapter",
        (): "all",
        ("--reference", pico): "all",
    }.items():
        found = kto(*words, "--model", chains / "first", *flags).json
        learning, total = found["parameters"]["trainable"], found["parameters"]["total"]
        assert (learning == whole["total"]) == (expected == "all")
        assert total - whole["total"] == {"more": learning * 3, "adapter": learning, "all": 0}[expected]
        assert (found["noise_floor"] is None) == (flags[:1] == ("--reference",))
        predicted = kto(*words, "--model", chains / "first", *flags, "--device-memory", 8).json
        assert predicted["parameters"] >= whole["total"]
    assert not Path("checkpoint").exists()


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--continue-adapter"], ["--continue-adapter", "whole model", "--lora-r 16"]),
        (["--continue-adapter", "--lora-r", 4], ["--lora-r", "--continue-adapter", "Leave out one"]),
        (["--continue-adapter", "--dora"], ["--dora", "new adapters", "Leave it out"]),
        (["--reference", "nowhere/at/all"], ["nowhere/at/all", "not a model folder"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if str(value[0]).startswith("--") else "",
)
def test_train_refuses(kto, workplace: Path, given, flags: list, words: list[str]):
    refused(kto("train", *given, "--out", "run", *flags, "--json"), *words)
    assert not list(workplace.iterdir())


def test_dora_is_not_added_to_an_adapter(kto, workplace: Path, chains: Path, pico_data: Path):
    words = ("--model", chains / "first", "--data", pico_data, "--lora-r", 2, "--dora", "--out", "run", "--json")
    refused(kto("train", *words), "--dora", "merge the adapter first")


@pytest.fixture
def moved(workplace: Path, chains: Path, pico: Path) -> Path:
    """pico/, first/ on it and second/ on that, trained here, so that they may be changed."""
    save_pico_llama(workplace / "pico")
    data = settings(chains / "first")["data"]["folder"]
    for model, out in (("pico", "first"), ("first", "second")):
        words = ("--model", model, "--data", data, *SHORT, "--lora-r", 2, "--max-steps", 1, "--out", out)
        assert call("train", *words).code == 0
    return workplace


def test_a_missing_or_changed_model_below_is_one_line(kto, moved: Path, chains: Path):
    (moved / "first").rename(moved / "gone")
    refused(kto("eval", "second", "--samples", 0, "--json"), "first is not a model folder")
    (moved / "gone").rename(moved / "first")
    shutil.copy(chains / "first" / lora.WEIGHTS, moved / "first" / lora.WEIGHTS)
    refused(kto("eval", "second", "--samples", 0, "--json"), "first", lora.WEIGHTS)
    (moved / "first/kto_config.json").unlink()
    data = settings(chains / "first")["data"]["folder"]
    said = ("first is not what the adapter in", "second", "changed since")
    for words in (
        ("eval", "second", "--samples", 0, "--reference", "pico"),
        ("train", "--model", "second", "--data", data, "--lora-r", 2),
    ):
        refused(kto(*words, "--json"), *said)


def test_a_changed_base_is_one_line(kto, moved: Path, chains: Path):
    data = settings(chains / "first")["data"]["folder"]
    shutil.rmtree(moved / "pico")
    refused(kto("train", "--model", "second", "--data", data, "--lora-r", 2, "--json"), "pico", "cannot be opened")
    save_pico_llama(moved / "pico", seed=1)
    refused(
        kto("train", "--model", "first", "--data", data, "--lora-r", 2, "--json"), "pico is not what the adapter in"
    )


def test_an_unfinished_run_is_no_model_yet(kto, workplace: Path, given, pico_data: Path):
    train_until_killed_in(2, *given, *SHORT, "--lora-r", 2, "--out", "run")
    ran = kto("train", "--model", "run", "--data", pico_data, "--lora-r", 2, "--out", "next", "--json")
    refused(ran, "The run in run is not finished", "--resume --out run")


def test_an_adapter_that_names_itself_is_one_line(kto, workplace: Path, chains: Path, pico_data: Path):
    folder = Path(shutil.copytree(chains / "first", workplace / "loop", ignore=shutil.ignore_patterns("kto_config*")))
    config = json.loads((folder / lora.CONFIG).read_text())
    (folder / lora.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(folder)}))
    refused(kto("train", "--model", folder, "--data", pico_data, "--json"), "names its own folder")
