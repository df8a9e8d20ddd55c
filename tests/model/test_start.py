"""What torch is told before CUDA starts, and which bits a run repeats. Nothing here needs a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import call
from pico import build, sequences

from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.model.determinism import prefer_determinism, require_determinism
from kto_cli.model.distributed.start import TIMEOUT, set_environment, start_accelerator
from kto_cli.model.precision import choose_precision
from kto_cli.model.scorer import CompletionScorer

SHORT = ("--max-steps", 1, "--batch-size", 8)
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_before():
    """torch's switches belong to the process."""
    yield
    torch.backends.cuda.enable_cudnn_sdp(True)
    prefer_determinism()


@pytest.mark.parametrize("command", ["train", "precompute", "eval"])
def test_cudnn_attention_is_off_in_every_command(given, workplace, command):
    """On GPUs it takes seconds a step, and its gradient may be NaN."""
    if command == "eval":
        assert call("train", *given, *SHORT).code == 0
    torch.backends.cuda.enable_cudnn_sdp(True)
    words = {"train": [*given, *SHORT], "precompute": given, "eval": ["checkpoint", *given[:2], "--samples", 0]}
    assert call(command, *words[command]).code == 0
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_environment_of_cuda():
    environment: dict[str, str] = {}
    set_environment(environment)
    assert environment == {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_users_environment_stays(name):
    given = {name: "backend:cudaMallocAsync", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "TORCH_CUDNN_SDPA_DEPRIORITIZED": "0"}
    environment = dict(given)
    set_environment(environment)
    assert environment == given


def test_the_environment_is_set_before_torch_reads_it():
    """torch's allocator reads its variable when it is first used; importing torch must not do that."""
    if not hasattr(torch._C, "_accelerator_getAllocatorSettings"):
        pytest.skip("this torch does not tell its allocator's settings without a GPU")
    source = (
        "import torch\nfrom kto_cli.model.distributed.start import start_accelerator\nstart_accelerator()\n"
        "print(torch._C._accelerator_getAllocatorSettings(), torch.cuda.is_initialized())"
    )
    without = {name: value for name, value in os.environ.items() if "ALLOC_CONF" not in name}
    ran = subprocess.run([sys.executable, "-c", source], env=without, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["expandable_segments:True", "False"]


def test_processes_wait_longer_than_a_large_checkpoint_takes():
    """100 GB at 20 MB/s: 5,000 s. NCCL's own limit is 600 s."""
    assert TIMEOUT.total_seconds() > 100e9 / 20e6
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    assert start_accelerator().init_handler.timeout == TIMEOUT


@pytest.mark.parametrize(("native", "name"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_no_emulated_bfloat16(monkeypatch, native, name):
    """A T4 or V100 says that it supports bfloat16, and computes it in software."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_precision("auto", GPU).name == name
    assert choose_precision("bfloat16", GPU).name == "bfloat16"
    assert choose_precision("auto", torch.device("cpu")).name == "float32"
    with pytest.raises(BadInput, match="--dtype float8"):
        choose_precision("float8", GPU)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("auto", "This GPU has no bfloat16 arithmetic: computing in float32."),
        ("bfloat16", "This GPU has no bfloat16 arithmetic: --dtype bfloat16 is emulated, slower than float32."),
    ],
)
def test_what_an_old_gpu_gets_is_said(given, workplace, monkeypatch, dtype, words):
    monkeypatch.setattr("kto_cli.model.logprobs.prepare.emulates_bfloat16", lambda device: True)
    ran = call("precompute", *given, "--dtype", dtype)
    assert ran.code == 0
    assert words in " ".join(ran.err.split())


# --- the same bits ------------------------------------------------------------------------------


def is_required() -> bool:
    return torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize("lora", [(), ("--lora-r", 2)])
def test_training_and_precompute_require_determinism_and_eval_does_not(given, workplace, lora):
    """Flash and memory-efficient attention are deterministic only where it is required; sampling on a GPU has no
    deterministic cumulative sum. Every command passes on a CPU with an error for whatever is not deterministic."""
    assert call("precompute", *given, "--cache", "cache").code == 0
    assert is_required()
    prefer_determinism()
    assert call("train", *given, "--cache", "cache", *SHORT, *lora).code == 0
    assert is_required()
    assert call("eval", "checkpoint", *given[:2], "--cache", "cache", "--samples", 2, "--max-new-tokens", 4).code == 0
    assert not is_required()


class Scrambled(torch.autograd.Function):
    """The identity; its backward pass writes with `put_`, which torch calls not deterministic, on CPUs too."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        return gradient.put_(torch.tensor([0]), gradient.flatten()[:1].clone())


def test_a_model_with_a_nondeterministic_operation_is_said(capsys):
    """The operation is named, torch goes back to warnings, and no gradient is left behind."""
    scorer = CompletionScorer(build("llama"))
    assert scorer.trust_or_fall_back(sequences()).unpacked is None
    require_determinism(scorer, sequences(), Screen())
    assert is_required()
    assert capsys.readouterr().err == ""

    layer = scorer.model.model.layers[0]
    layer.register_forward_hook(lambda module, inputs, output: Scrambled.apply(output))
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        scorer(*_batch()).sum().backward()
    scorer.zero_grad(set_to_none=True)
    require_determinism(scorer, sequences(), Screen())
    assert not is_required()
    assert torch.are_deterministic_algorithms_enabled()
    assert "No deterministic version of put_ on this device" in " ".join(capsys.readouterr().err.split())
    assert all(parameter.grad is None for parameter in scorer.parameters())


def test_a_frozen_model_is_tried_forward_alone():
    """Four-bit weights have no gradient; the reference pass needs none."""
    scorer = CompletionScorer(build("llama").requires_grad_(False))
    require_determinism(scorer, sequences(), Screen(quiet=True))
    assert is_required()


def _batch():
    from kto_cli.core.batches import pack

    return pack(sequences())[0]
