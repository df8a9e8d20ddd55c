"""Frozen layers below adapters in bfloat16: the same numbers as float32 weights that autocast rounds, in half the
memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call
from pico import build, sequences
from test_end_to_end import sha
from test_lora import shaken
from test_model_folder import in_bfloat16

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.batches import pad
from kto_cli.model import base_weights, lora
from kto_cli.model.scorer import CompletionScorer

SHORT = ("--dtype", "bfloat16", "--batch-size", 8, "--lora-r", 4, "--learning-rate", 1e-2, "--cache", "cache")


def adapted_model(family: str, stored: torch.dtype = torch.bfloat16, **options: Any) -> Any:
    """A model of this kind of checkpoint in float32, with adapters that change its output."""
    config = TrainConfig(lora_r=4, **options)
    return shaken(lora.add_adapters(build(family).to(stored).float(), config, base="base"))


def logps_and_gradients(adapted: Any) -> list[torch.Tensor]:
    """Computed in bfloat16."""
    scorer = CompletionScorer(adapted.get_base_model(), torch.bfloat16)
    logps = scorer(*pad(sequences()))
    logps.sum().backward()
    return [logps.detach(), *(each.grad for each in adapted.parameters() if each.grad is not None)]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma2", "gemma3", "phi", "gpt_neox", "mixtral", "opt"])
def test_the_same_bits_as_autocast_over_float32(family: str, stored: torch.dtype):
    """Log-probs and gradients; of a checkpoint in float32, whose weights lose bits, too."""
    wide, narrow = (adapted_model(family, stored) for _ in range(2))
    assert base_weights.narrow_base(narrow, torch.bfloat16, exactly=False) > 0
    pairs = zip(logps_and_gradients(wide), logps_and_gradients(narrow), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_what_is_narrow():
    """Frozen linear layers and a head of its own; not norms, embeddings, a head tied to them, adapters. 2 bytes of 4
    are saved."""
    adapted = adapted_model("llama", lora_targets="q_proj,v_proj")
    kinds = {name: each for name, each in adapted.get_base_model().named_parameters() if "lora" not in name}
    linear = sum(each.numel() for name, each in kinds.items() if "norm" not in name and "embed" not in name)
    assert base_weights.narrow_base(adapted, torch.bfloat16, exactly=False) == 2 * linear
    assert {name for name, each in kinds.items() if each.dtype == torch.float32} == {
        name for name in kinds if "norm" in name or "embed" in name
    }
    assert all(each.dtype == torch.float32 for each in adapted.parameters() if each.requires_grad)
    tied = shaken(lora.add_adapters(build("llama", tie_word_embeddings=True), TrainConfig(lora_r=4), base="base"))
    base_weights.narrow_base(tied, torch.bfloat16, exactly=False)
    assert tied.get_base_model().lm_head.weight.dtype == torch.float32


def test_weights_that_lose_bits_stay_where_they_are_read():
    """Merging and DoRA read them. One weight that bfloat16 does not hold keeps its whole matrix."""
    adapted = adapted_model("llama")
    first, second = (layer.mlp.up_proj.base_layer.weight for layer in adapted.get_base_model().model.layers)
    with torch.no_grad():
        first[0, 0] = 1.0001
    base_weights.narrow_base(adapted, torch.bfloat16, exactly=True)
    assert (first.dtype, second.dtype) == (torch.float32, torch.bfloat16)


def test_dora_has_the_same_bits():
    """Its norms are of the base's weights."""
    wide, narrow = (adapted_model("llama", dora=True) for _ in range(2))
    assert base_weights.narrow_base(narrow, torch.bfloat16, exactly=True) > 0
    pairs = zip(logps_and_gradients(wide), logps_and_gradients(narrow), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_merged_is_the_float32_sum():
    """Each layer is merged in float32 and rounded once; what bfloat16 holds is held in it."""
    expected = adapted_model("llama").merge_and_unload()
    adapted = adapted_model("llama")
    base_weights.narrow_base(adapted, torch.bfloat16, exactly=True)
    seen = []

    def round_weight(name: str, weight: torch.Tensor) -> None:
        assert torch.equal(weight, expected.get_parameter(name)), name
        weight.copy_(weight.bfloat16() if "mlp" in name else weight)
        seen.append(name)

    merged = base_weights.merged(adapted, round_weight)
    assert len(seen) == 14
    for name in seen:
        assert merged.get_parameter(name).dtype == (torch.bfloat16 if "mlp" in name else torch.float32)


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_a_run_gives_the_same_files(workplace: Path, pico: Path, pico_data: Path, monkeypatch, merge: bool):
    """With frozen layers in bfloat16 and without; of a bfloat16 checkpoint. The reference's log-probs are the same, so
    the second run takes them from the cache."""
    model = in_bfloat16(Path(shutil.copytree(pico, workplace / "model")))
    words = ["train", "--data", pico_data, "--model", model, *SHORT, *(["--merge"] if merge else [])]
    ran = call(*words, "--out", "narrow")
    assert ran.code == 0, ran.err
    assert "Frozen linear layers are held in bfloat16" in " ".join(ran.err.split())
    monkeypatch.setattr(base_weights, "narrow_base", lambda *_, **__: 0)
    wide = call(*words, "--out", "wide")
    assert wide.code == 0
    assert "0 computed" in wide.err
    file = "model.safetensors" if merge else lora.WEIGHTS
    assert sha(workplace / "narrow" / file) == sha(workplace / "wide" / file)
