"""The four commands, as typed, from any feedback to a model that loads elsewhere; and what makes the cache hit."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from conftest import SAMPLE, call, error_line, make_dataset

from kto_cli.common import files
from kto_cli.data import select

pytestmark = pytest.mark.charts

METRICS = ("loss", "z_ref", "margin", "accuracy", "auc", "auc_length", "auc_length_matched")
CHAIN = {
    "binarize": ["binarize", "hh-rlhf"],
    "precompute": ["precompute"],
    "train": ["train", "--beta", "0.1", "--lambda-d", "1.33"],
    "eval": ["eval", "checkpoint"],
}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def small_sample(pico, tmp_path_factory) -> Path:
    """A sample as the built-in one, its first 64 pairs and a pico model."""
    folder = tmp_path_factory.mktemp("sample")
    with gzip.open(SAMPLE / "hh-rlhf/harmless-base/train.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = file.readlines()[:64]
    (folder / "hh-rlhf/harmless-base").mkdir(parents=True)
    with gzip.open(folder / "hh-rlhf/harmless-base/train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines)
    shutil.copytree(pico, folder / "model")
    return folder


@pytest.fixture
def built_in(small_sample, monkeypatch) -> None:
    """The small sample in place of the built-in one."""
    monkeypatch.setattr(files, "sample_data", lambda: small_sample)
    monkeypatch.setattr(select, "sample_data", lambda: small_sample)


def check_validation(metrics: dict) -> None:
    """The promised keys; each estimate lies in its interval or, for AUC-like ones, near it."""
    assert metrics["rows"] > 0
    assert metrics["z_ref_se"] >= 0
    for name in METRICS:
        low, high = metrics[f"{name}_interval"]
        assert low <= high
        assert isinstance(metrics[name], float)


def check_results(results: dict[str, dict]) -> None:
    """The keys that other tools build on, and what must agree between the commands."""
    rows = results["binarize"]
    used = rows["desirable"] + rows["undesirable"] + rows["validation"] + rows["dropped"]
    assert rows["rows_in"] == used + sum(rows["rejected"].values())
    assert set(rows["lambda_interval"]) == {"lambda_d", "lambda_u"}
    computed = results["precompute"]
    assert computed["computed"] == computed["sequences"] > 0
    assert computed["cached"] == 0
    trained = results["train"]
    assert trained["checkpoint"] == "checkpoint"
    assert trained["steps"] > 0
    assert trained["rows"] > 0
    check_validation(trained["validation"])
    seen = results["eval"]
    check_validation(seen)
    assert seen["rows"] == rows["validation"] == trained["validation"]["rows"]
    # the end of training and `kto eval` look at the same rows with the same weights
    for name in METRICS:
        assert seen[name] == pytest.approx(trained["validation"][name], abs=1e-5), name


def test_the_four_commands_as_typed(kto, workplace, built_in):
    """In an empty folder, offline; 3 steps instead of all."""
    first = kto(*CHAIN["binarize"], "--json")
    assert "NOT the real data" in first.err, "the built-in sample is said loudly"
    second = kto(*CHAIN["precompute"], "--json")
    assert "built-in tiny model" in second.err
    third = kto(*CHAIN["train"], "--max-steps", 3, "--json")
    fourth = kto(*CHAIN["eval"], "--json")
    results = dict(zip(CHAIN, (first.json, second.json, third.json, fourth.json), strict=True))
    check_results(results)
    assert results["train"]["steps"] == 3
    assert (workplace / "checkpoint/eval/metrics.json").is_file()


def test_the_four_commands_speak_to_people_too(kto, workplace, built_in):
    for name, words in CHAIN.items():
        more = ["--max-steps", "2"] if name == "train" else []
        ran = kto(*words, *more)
        assert ran.code == 0, ran.err
        assert ran.out.strip()
        assert "Traceback" not in ran.err
        if name != "eval":
            assert "Next: kto" in ran.out, "each command names the next"


@pytest.mark.slow
def test_a_process_prints_one_json_object_and_nothing_else(kto_process, workplace, given):
    """What libraries print by themselves counts too, so this needs real processes."""
    short = ("--batch-size", 8, "--max-steps", 2)
    trained = kto_process("train", *given, *short, "--out", "run", "--json", cwd=workplace)
    assert trained.json["steps"] == 2
    assert kto_process("eval", "run", "--samples", 1, "--json", cwd=workplace).json["rows"] == 8


@pytest.mark.long
def test_the_four_commands_as_typed_whole(kto_process, workplace):
    """Nothing shortened: the built-in sample, the built-in model, all steps, one process each."""
    results = {
        name: kto_process(*words, "--json", cwd=workplace, OMP_NUM_THREADS="2").json for name, words in CHAIN.items()
    }
    check_results(results)
    assert results["binarize"]["rows_in"] == 800
    assert results["train"]["rows"] == results["binarize"]["desirable"] + results["binarize"]["undesirable"]


@pytest.mark.slow
def test_the_demo_learns_in_under_three_minutes(kto_process, workplace):
    began = time.monotonic()
    result = kto_process("demo", "--json", cwd=workplace, OMP_NUM_THREADS="2").json
    assert time.monotonic() - began < 180
    assert result["eval"]["auc"] > 0.7
    assert result["eval"]["auc_interval"][0] > 0.5
    assert result["train"]["verdict"] == "learned"
    assert list(workplace.iterdir()) == [], "a demo leaves nothing behind"


# --- the cache --------------------------------------------------------------------------------


def cache_use(err: str) -> tuple[int, int]:
    """(cached, computed) as `kto train` notes it."""
    computed, cached = re.search(r"Reference log-probs .*: ([\d,]+) computed, ([\d,]+) cached", err).groups()
    return int(cached.replace(",", "")), int(computed.replace(",", ""))


def test_a_second_precompute_computes_nothing(kto, workplace, given):
    first = kto("precompute", *given, "--json").json
    second = kto("precompute", *given, "--json").json
    assert second == first | {"computed": 0, "cached": first["sequences"], "seconds": second["seconds"]}


@pytest.mark.parametrize(
    "changed",
    [
        ["--beta", "0.5"],
        ["--lambda-u", "1.33"],
        ["--lambda-d", "0.7"],
        ["--learning-rate", "1e-3"],
        ["--batch-size", "5"],
        ["--epochs", "2", "--seed", "3"],
        ["--micro-batch-tokens", "100"],
        ["--schedule", "cosine", "--warmup", "2", "--max-grad-norm", "0"],
    ],
    ids=lambda words: " ".join(words),
)
def test_what_a_run_changes_never_costs_a_cache_hit(kto, workplace, given, changed):
    needed = kto("precompute", *given, "--json").json["sequences"]
    ran = kto("train", *given, "--max-steps", 1, "--out", "elsewhere", *changed)
    assert ran.code == 0, ran.err
    assert cache_use(ran.err) == (needed, 0)


def test_the_cache_knows_a_model_by_its_content_alone(kto, workplace, pico, pico_data):
    """A copy under another name hits wholly; with one weight changed by one bit, not at all."""
    from safetensors.torch import load_file, save_file

    needed = kto("precompute", "--data", pico_data, "--model", pico, "--json").json["sequences"]
    copy = Path(shutil.copytree(pico, workplace / "copy"))
    assert kto("precompute", "--data", pico_data, "--model", copy, "--json").json["cached"] == needed
    weights = load_file(copy / "model.safetensors")
    last = weights[sorted(weights)[-1]].view(-1)
    last[0] = last[0].nextafter(last[0] + 1)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    other = kto("precompute", "--data", pico_data, "--model", copy, "--json").json
    assert other["cached"] == 0
    assert other["computed"] == needed


def test_more_rows_compute_only_what_is_new(kto, workplace, pico):
    """40 pairs, then 4 more: their own sequences and the few pairs whose partner changed."""
    from conftest import pairs, write_lines

    for count in (40, 44):
        source = write_lines(workplace / f"of{count}.jsonl", pairs(count))
        assert kto("binarize", source, "--out", f"set{count}", "--validation", 0).code == 0
    assert kto("precompute", "--data", "set40", "--model", pico, "--json").json["cached"] == 0
    second = kto("precompute", "--data", "set44", "--model", pico, "--json").json
    # 8 new rows have 16 new sequences; each new row may take the place of a partner or two
    assert 16 <= second["computed"] <= 40
    assert second["cached"] == second["sequences"] - second["computed"] >= 2 * 80 - 24


# --- what the finished run is good for --------------------------------------------------------


@pytest.fixture(scope="module")
def finished(pico, pico_data, tmp_path_factory) -> Path:
    """A finished run of 4 steps; not to be changed."""
    home = tmp_path_factory.mktemp("finished")
    words = ("--data", pico_data, "--model", pico, "--out", home / "run", "--cache", home / "cache")
    assert call("train", *words, "--learning-rate", 1e-3, "--batch-size", 8).code == 0
    return home / "run"


def test_the_checkpoint_is_a_model_folder_that_generates(finished, pico):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(finished)
    model, info = AutoModelForCausalLM.from_pretrained(finished, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert output.shape[1] > ids["input_ids"].shape[1]
    before = AutoModelForCausalLM.from_pretrained(pico).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items()), "it was trained"


def test_a_run_is_run_again_from_its_own_config(kto, workplace, finished):
    """The same settings, data and model give the same weights, to the bit."""
    again = kto("train", "--config", finished / "kto_config.json", "--out", "again", "--json")
    assert again.json["steps"] == 4
    assert sha(workplace / "again/model.safetensors") == sha(finished / "model.safetensors")
    first, second = (json.loads((folder / "kto_config.json").read_text()) for folder in (finished, workplace / "again"))
    assert first["chosen"] == second["chosen"]
    assert first["data"]["fingerprint"] == second["data"]["fingerprint"]


def test_a_run_is_not_repeated_with_other_rows(kto, workplace, pico, pico_data):
    """Its dataset was made again since: one line; with --data it is meant, and a warning."""
    shutil.copytree(pico_data, "set")
    words = ("--model", pico, "--max-steps", 1)
    assert kto("train", "--data", "set", *words, "--out", "run").code == 0
    shutil.rmtree("set")
    make_dataset(workplace, 12, validation=0.2)
    again = kto("train", "--config", "run/kto_config.json", "--out", "again")
    assert again.code != 0
    assert "its content differs" in error_line(again)
    assert not Path("again").exists()
    meant = kto("train", "--config", "run/kto_config.json", "--data", "set", "--out", "again")
    assert meant.code == 0
    assert "this run is not the same" in " ".join(meant.err.split())


def test_flags_win_over_the_config_file(kto, workplace, given):
    (workplace / "settings.yaml").write_text("beta: 0.3\nmax_steps: 3\nlearning_rate: 1e-4\n", encoding="utf-8")
    assert kto("train", *given, "--config", "settings.yaml", "--max-steps", 1, "--out", "run").code == 0
    train = json.loads((workplace / "run/kto_config.json").read_text())["train"]
    assert (train["beta"], train["max_steps"], train["learning_rate"]) == (0.3, 1, 1e-4)


def test_a_step_and_a_plain_model_folder_are_evaluated_too(kto, workplace, finished, pico, pico_data):
    run = Path(shutil.copytree(finished, workplace / "run"))
    step = sorted((run / "steps").iterdir())[-1]
    of_step = kto("eval", step, "--data", pico_data, "--samples", 0, "--json").json
    check_validation(of_step)
    assert of_step["eval"] == str(run / "eval" / step.name)
    model = Path(shutil.copytree(pico, workplace / "model"))
    itself = kto("eval", model, "--reference", pico, "--data", pico_data, "--samples", 0, "--json").json
    assert itself["margin"] == pytest.approx(0, abs=1e-5), "a model against itself has learned nothing"
    assert itself["accuracy"] == pytest.approx(0.5, abs=0.5)
