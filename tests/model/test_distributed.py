"""Several processes give what one gives: DDP, FSDP2 and ZeRO-3, one machine or two, checkpoints gathered or sliced."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsdp_bfloat16
import one_step
import pytest
import torch
from conftest import REPOSITORY, call
from test_invariance import ROWS, launch, metrics, naive
from test_invariance import agree as agree_with_naive
from test_model_folder import in_bfloat16
from torch.distributed.elastic.utils.distributed import get_free_port

from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.distributed.processes import refuse_different_inputs, refuse_untested, refuse_untested_combinations
from kto_cli.training.run.shards import Slice, Slices, slice_file, write_slices

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
TWO = "torch.distributed.run --standalone --nproc_per_node 2"
STEP = REPOSITORY / "tests" / "support" / "one_step.py"
TIMINGS = {"seconds", "rows_per_second", "tokens_per_second", "eta_seconds", "seal"}


def check_steps(place: Path, *, sharded: bool) -> None:
    """What both processes saved, against the naive step; the clipped one against one process."""
    inputs = one_step.some_rows(ROWS), one_step.some_references(ROWS)
    labels = [row.label for row in inputs[0]]
    alone = one_step.take_step(*inputs, token_budget=96, **one_step.CASES["clipped"])
    assert alone["norm"] > 0.1, "nothing would be clipped"
    for rank in range(2):
        results = torch.load(f"{place}.{rank}")
        for name, case in one_step.CASES.items():
            if name != "clipped":
                agree_with_naive(results[name], naive(tied="tied" in case, lora="lora" in case), labels)
        assert results["tied"]["sharded"] == sharded
        for name, value in alone.items():
            if name != "sharded":
                torch.testing.assert_close(results["clipped"][name], value, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP2], ids=["DDP", "FSDP2"])
def test_a_step_of_two_processes_is_the_naive_step(tmp_path, environment):
    """In float64: loss, z_ref, gradients, their norm, weights; head tied to the embeddings or not; clipped or
    not; packed, in one pass, with checkpointing, with LoRA, one by one and together."""
    launch(TWO, STEP, tmp_path / "step", 96, ROWS, **environment)
    check_steps(tmp_path / "step", sharded=bool(environment))


@pytest.mark.slow
def test_a_step_of_two_machines_is_the_naive(tmp_path):
    """Two launchers that find each other by address, as on two machines, a process each; FSDP2."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", get_free_port()]
    words = [STEP, tmp_path / "step", 96, ROWS]
    environment = {**os.environ, **FSDP2, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    machines = [
        subprocess.Popen(
            [str(word) for word in (*launcher, "--node_rank", rank, *words)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for machine in machines:
        _, said = machine.communicate(timeout=200)
        assert machine.returncode == 0, said
    check_steps(tmp_path / "step", sharded=True)


@pytest.mark.long
def test_layers_travel_in_bfloat16(tmp_path):
    """The numbers are those of autocast over the full float32 weights: log-probs to the bit, gradients to 1e-5 of the
    largest; with adapters over a narrow base too. Norms, embeddings and what is kept at rest are float32."""
    launch(TWO, STEP.with_name("fsdp_bfloat16.py"), tmp_path / "found", **FSDP2)
    for rank in range(2):
        found = torch.load(f"{tmp_path / 'found'}.{rank}", weights_only=False)
        for (family, adapters), sharded in found.items():
            alone = fsdp_bfloat16.numbers(fsdp_bfloat16.scorer_of(family, adapters=adapters))
            assert torch.equal(sharded["logps"], alone["logps"]), family
            assert sharded["held"] == {torch.float32}
            for name, gradient in alone["gradients"].items():
                off = (sharded["gradients"][name] - gradient).abs().max()
                assert off <= 1e-5 * gradient.abs().max(), (family, name)
            for name, dtype in sharded["used"].items():
                exact = "norm" in name or "embed" in name
                assert dtype == (torch.float32 if exact else torch.bfloat16), (family, name)


# --- the command -----------------------------------------------------------------------------


def write_config(folder: Path, state: str) -> Path:
    """An accelerate config as `accelerate config` writes it for two processes and FSDP2."""
    settings = f"""
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_offload_params: false
  fsdp_cpu_ram_efficient_loading: true
  fsdp_state_dict_type: {state}
mixed_precision: bf16
num_machines: 1
num_processes: 2
use_cpu: false
"""
    (folder / f"{state}.yaml").write_text(settings)
    return folder / f"{state}.yaml"


def fsdp2(folder: Path, *words: object, state: str = "SHARDED_STATE_DICT") -> str:
    """`accelerate launch` with a config file for FSDP2; what it said."""
    config = write_config(folder, state)
    launcher = f"accelerate.commands.launch --config_file {config} --main_process_port {get_free_port()}"
    return launch(launcher, *words)


def outcome(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The hash of the finished weights, and metrics.jsonl without what a clock measured."""
    lines = [{name: value for name, value in line.items() if name not in TIMINGS} for line in metrics(folder)]
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(), lines


def alike(folder: Path, other: Path, weights_file: str = "model.safetensors") -> None:
    """Losses, z_ref and weights of two runs, to rounding."""
    from safetensors.torch import load_file

    first, second = metrics(folder), metrics(other)
    assert [line["step"] for line in first] == [line["step"] for line in second] == [1, 2, 3, 4]
    for name in ("loss", "z_ref", "gradient_norm"):
        for one, two in zip(first, second, strict=True):
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    weights, others = load_file(folder / weights_file), load_file(other / weights_file)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert (value - others[name]).abs().max() < 1e-5, name


class Runs:
    """The same four steps, run in several ways into folders of their own."""

    def __init__(self, home: Path, data: Path, model: Path) -> None:
        self.home = home
        self.words: list[object] = ["train", "--data", data, "--model", model, "--cache", home / "cache"]
        self.words += ["--batch-size", 31, "--learning-rate", 1e-3, "--epochs", 2, "--schedule", "constant"]
        self.words += ["--save-every", 1, "--micro-batch-tokens", 200]

    def to(self, name: str) -> list[object]:
        """The command that writes there."""
        return [*self.words, "--out", self.home / name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pico, pico_data) -> Runs:
    """One unbroken run of one process, and one of two under FSDP2."""
    runs = Runs(tmp_path_factory.mktemp("sharded"), pico_data, pico)
    assert call(*runs.to("one")).code == 0
    fsdp2(runs.home, "-m", "kto_cli", *runs.to("two"))
    return runs


@pytest.mark.slow
def test_the_command_under_fsdp2_trains_like_one_process(runs):
    """Sharded, said so in kto_config.json, each step in slices; the finished model is a plain Hugging Face folder.

    The config's bf16 and its loading of the weights by one process alone are not followed: numbers would change.
    """
    alike(runs.home / "one", runs.home / "two")
    assert json.loads((runs.home / "two" / "kto_config.json").read_text())["chosen"]["launch"] == "FSDP2"
    step = runs.home / "two" / "steps" / "step-000003"
    slices = sorted(path.name for path in step.glob("state-*"))
    assert slices == ["state-00000-of-00002.safetensors", "state-00001-of-00002.safetensors"]
    hashed = json.loads((step / "state.json").read_text())["files"]
    assert set(hashed) == {path.name for path in step.iterdir()} - {"state.json"}
    result = call("eval", step)
    assert result.code == 1
    assert "slices of several processes" in result.err
    assert call("eval", runs.home / "two", "--samples", 1).code == 0


@pytest.mark.slow
def test_finished_weights_are_rounded_under_fsdp2_as_by_one_process(tmp_path, pico, pico_data):
    """Of a bfloat16 model: the random numbers belong to a weight's place in the whole tensor, not in its shard. A few
    weights whose last float32 bit differs may fall to the other side."""
    from safetensors.torch import load_file

    runs = Runs(tmp_path, pico_data, in_bfloat16(Path(shutil.copytree(pico, tmp_path / "model"))))
    assert call(*runs.to("one")).code == 0
    fsdp2(tmp_path, "-m", "kto_cli", *runs.to("two"))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert {value.dtype for value in two.values()} == {torch.bfloat16}
    differing = sum(int((value != two[name]).sum()) for name, value in one.items())
    assert differing < 0.001 * sum(value.numel() for value in one.values())


@pytest.mark.long
@pytest.mark.parametrize("state", ["SHARDED_STATE_DICT", "FULL_STATE_DICT"])
def test_adapters_under_fsdp2(runs, state):
    """LoRA on a sharded model trains like one process, goes on from its third step, and the adapter loads in one."""
    home, lora = runs.home / state, ["--lora-r", 4, "--learning-rate", 3e-3]
    assert call(*runs.to(f"{state}/one"), *lora).code == 0
    fsdp2(runs.home, "-m", "kto_cli", *runs.to(f"{state}/two"), *lora, state=state)
    alike(home / "one", home / "two", "adapter_model.safetensors")
    unfinish(home / "two", home / "again")
    fsdp2(runs.home, "-m", "kto_cli", *runs.to(f"{state}/again"), *lora, "--resume", state=state)
    alike(home / "two", home / "again", "adapter_model.safetensors")
    assert call("eval", home / "again", "--samples", 1).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launched", "way"),
    [
        ("DDP", "stacked"),
        ("FSDP2", "other"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in itertools.product(("DDP", "FSDP2"), ("stacked", "continued", "whole", "other"))
            if each not in (("DDP", "stacked"), ("FSDP2", "other"))
        ),
    ],
)
def test_chains_of_two_processes(runs, launched, way, pico):
    """A run from an adapter, or with another reference, trains as one process does; its reference is computed anew."""
    home = runs.home / f"chain-{launched}-{way}"
    first = home / "first"
    assert call(*runs.to(first), "--lora-r", 4, "--learning-rate", 3e-3).code == 0
    flags = {
        "stacked": ["--lora-r", 2],
        "continued": ["--continue-adapter"],
        "whole": ["--learning-rate", 1e-3],
        "other": ["--lora-r", 2, "--reference", pico],
    }[way]
    words = [*flags, "--model", first]
    for name in ("one", "two"):
        to = [*runs.to(home / name), *words, "--cache", home / f"cache-{name}"]
        if name == "one":
            assert call(*to).code == 0
        elif launched == "DDP":
            launch(TWO, "-m", "kto_cli", *to)
        else:
            fsdp2(home, "-m", "kto_cli", *to)
    alike(home / "one", home / "two", "model.safetensors" if way == "whole" else "adapter_model.safetensors")


@pytest.fixture(scope="module")
def killed(runs) -> Path:
    """A run under FSDP2 of which a process died with half its slices of step 3 written."""
    with pytest.raises(AssertionError):
        fsdp2(runs.home, REPOSITORY / "tests" / "support" / "die_in_save.py", *runs.to("killed"))
    return runs.home / "killed"


@pytest.mark.slow
def test_killed_in_the_middle_of_a_sharded_save(runs, killed):
    """The steps before are kept whole; from there two processes end with the bits of the unbroken run."""
    steps = killed / "steps"
    assert sorted(path.name for path in steps.glob("step-*")) == ["step-000001", "step-000002"]
    shutil.copytree(killed, runs.home / "again")
    said = fsdp2(runs.home, "-m", "kto_cli", *runs.to("again"), "--resume")
    assert "bit for bit" not in said
    assert "step-000002" in said
    assert outcome(runs.home / "again") == outcome(runs.home / "two")


@pytest.mark.slow
def test_from_the_slices_of_two_processes_to_one(runs, killed):
    """One process goes on from the same slices: equal to rounding, and says that this is all it is."""
    shutil.copytree(killed, runs.home / "alone")
    result = call(*runs.to("alone"), "--resume")
    assert result.code == 0, result.err
    assert "processes, launch. The result will be equal up to rounding, not bit for bit" in result.err.replace(
        "\n", " "
    )
    alike(runs.home / "two", runs.home / "alone")


@pytest.mark.slow
def test_from_one_process_to_two_that_gather(runs):
    """A run of one process goes on under FSDP2 with FULL_STATE_DICT: the next checkpoint is a model folder again."""
    unfinish(runs.home / "one", runs.home / "gathered")
    said = fsdp2(runs.home, "-m", "kto_cli", *runs.to("gathered"), "--resume", state="FULL_STATE_DICT")
    assert "equal up to rounding, not bit for bit" in said.replace("\n", " ")
    alike(runs.home / "one", runs.home / "gathered")
    step = runs.home / "gathered" / "steps" / "step-000003"
    names = {path.name for path in (runs.home / "one" / "steps" / "step-000003").iterdir()}
    assert {path.name for path in step.iterdir()} == names


def zero3(folder: Path, *words: object) -> str:
    """`accelerate launch` with a config file for DeepSpeed; what it said."""
    (folder / "zero3.yaml").write_text("""
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config:
  zero_stage: 3
  offload_optimizer_device: none
  offload_param_device: none
  gradient_accumulation_steps: 4
  gradient_clipping: 0.001
  zero3_init_flag: true
  zero3_save_16bit_model: true
mixed_precision: bf16
num_machines: 1
num_processes: 2
use_cpu: false
""")
    config = folder / "zero3.yaml"
    launcher = f"accelerate.commands.launch --config_file {config} --main_process_port {get_free_port()}"
    return launch(launcher, *words, DS_ACCELERATOR="cpu")


@pytest.fixture(scope="module")
def zero_run(runs) -> Path:
    """An unbroken run of two processes under DeepSpeed."""
    pytest.importorskip("deepspeed")
    zero3(runs.home, "-m", "kto_cli", *runs.to("zero"))
    return runs.home / "zero"


@pytest.mark.slow
def test_the_command_under_zero3_trains_like_one_process(runs, zero_run):
    """Losses, z_ref, weights; clipping and accumulation are ours, not its config's."""
    alike(runs.home / "one", zero_run)
    assert json.loads((zero_run / "kto_config.json").read_text())["chosen"]["launch"] == "ZeRO-3"


@pytest.mark.slow
def test_zero3_goes_on_bit_for_bit_and_one_process_to_rounding(runs, zero_run):
    """Its checkpoints are gathered, so anyone goes on from them."""
    for name in ("zero again", "zero alone"):
        unfinish(zero_run, runs.home / name)
    zero3(runs.home, "-m", "kto_cli", *runs.to("zero again"), "--resume")
    assert outcome(runs.home / "zero again") == outcome(zero_run)
    assert call(*runs.to("zero alone"), "--resume").code == 0
    alike(zero_run, runs.home / "zero alone")


def unfinish(run: Path, copy: Path) -> None:
    """A copy of a finished run, as if it had been stopped before its third checkpoint."""
    shutil.copytree(run, copy)
    for name in ("config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"):
        (copy / name).unlink(missing_ok=True)
    shutil.rmtree(copy / "steps" / "step-000003")


# --- parts -----------------------------------------------------------------------------------


def test_any_rows_come_back_from_slices(tmp_path):
    """Seven rows written as 3, 3 and 1; a scalar by the first; an empty slice by none."""
    values = torch.randn(7, 2)
    for process, (low, high) in enumerate([(0, 3), (3, 6), (6, 7)]):
        slices = {"model.w": Slice(values[low:high], low), "model.empty": Slice(values[:0], 7)}
        if process == 0:
            slices["optimizer.0.step"] = Slice(torch.tensor(5.0))
        write_slices(slice_file(tmp_path, process, 3), slices)
    read = Slices(tmp_path)
    assert read.names("model.") == ["w"]
    for low in range(8):
        for high in range(low, 8):
            assert torch.equal(read.rows("model.w", low, high), values[low:high])
    assert read.rows("optimizer.0.step", 0, 1) == 5


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "zero_stage: 3"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "deepspeed_config_file"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}, "offload_param_device"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version: 2"),
        ({**FSDP2, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing"),
        ({**FSDP2, "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({**FSDP2, "FSDP_RESHARD_AFTER_FORWARD": "false"}, "fsdp_reshard_after_forward"),
    ],
)
def test_what_is_not_proven_is_refused(environment, named):
    """One line that names the setting."""
    with pytest.raises(BadInput, match=named):
        refuse_untested(environment)


def test_what_a_config_for_fsdp2_usually_says_is_taken():
    """As `accelerate launch` hands it on."""
    usual = {"FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_OFFLOAD_PARAMS": "false", "FSDP_SHARDING_STRATEGY": "1"}
    refuse_untested({**FSDP2, **usual, "FSDP_ACTIVATION_CHECKPOINTING": "false"})


@pytest.mark.parametrize(
    ("environment", "settings", "said"),
    [
        ({}, {"dtype": "bfloat16-pure"}, "one process"),
        (FSDP2, {"lora_r": 2, "merge": True}, "--merge"),
        (FSDP2, {"lora_r": 2, "load_in_4bit": True}, "--load-in-4bit"),
        (FSDP2, {"optimizer": "adamw-8bit"}, "--optimizer adamw-8bit"),
        (FSDP2, {"loss": "ppo-offline"}, "--loss ppo-offline"),
        (ZERO, {"loss": "ppo-offline"}, "--loss ppo-offline"),
        (FSDP2, {"humanline": True}, "--humanline"),
        (ZERO, {"sync_reference_every": 9}, "--sync-reference-every"),
        (FSDP2, {"micro_batch_tokens": 0}, "--micro-batch-tokens auto"),
        (ZERO, {"lora_r": 2}, "ZeRO-3"),
    ],
)
def test_what_does_not_go_with_several_processes_is_said(monkeypatch, environment, settings, said):
    """Adapters under FSDP2, and most of the rest under DDP, do: the step tests prove it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = TrainConfig(**settings)
    refuse_untested_combinations(1, config)
    with pytest.raises(BadInput, match=said):
        refuse_untested_combinations(2, config)
    refuse_untested_combinations(2, TrainConfig())


def test_processes_that_see_other_data_are_stopped(monkeypatch):
    """Two machines, each with its own copy of the data, and one of them stale."""
    from types import SimpleNamespace

    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("accelerate.utils.gather_object", lambda mine: [*mine, {"data": "b", "reference": "r"}])
    refuse_different_inputs(two, {"reference": "r"})
    with pytest.raises(BadInput, match="same data"):
        refuse_different_inputs(two, {"data": "a", "reference": "r"})
