"""Memory as it is predicted from sizes alone, beside what real passes keep and real steps take on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from memory_steps import CASES, make, some_rows

from kto_cli.core.batches import pack
from kto_cli.model.activation_memory import saved_bytes
from kto_cli.model.memory_need import MARGIN, fitting_tokens, memory_need
from kto_cli.model.model_sizes import MemoryOptions, ModelSizes
from kto_cli.training.dry_run.probe import SavedForBackward

SMALL = [name for name, case in CASES.items() if case.vocabulary == 512]
LARGE = [name for name in CASES if name not in SMALL]


@pytest.mark.parametrize("name", SMALL)
def test_what_a_pass_keeps_is_predicted(name: str):
    """Within 15 %; most are within 4. What autocast narrows of the weights is kept until the pass ends as well."""
    case = CASES[name]
    scorer, sizes, options = make(case)
    batch, _ = pack([row.own for row in some_rows(3, case.vocabulary)])
    kept = SavedForBackward(scorer.parameters())
    with kept:
        scorer(*batch)
    copies = memory_need(sizes, options, 0).copies
    assert saved_bytes(sizes, options) * batch.input_ids.numel() + copies == pytest.approx(kept.most, rel=0.15)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.long
def test_the_peak_of_a_step_is_predicted(name: str):
    """Within 15 %, above the model and its optimizer: gradients, activations (some hundred MB), the head."""
    words = [sys.executable, "tests/support/memory_steps.py", name, "2048"]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, timeout=600)
    assert ran.returncode == 0, ran.stderr
    peak, predicted = json.loads(ran.stdout)
    assert peak > 300e6
    assert predicted == pytest.approx(peak, rel=0.15)


# --- arithmetic -------------------------------------------------------------------------------


def llama(hidden: int, inner: int, layers: int, heads: int, *, tied: bool = False, **adapters: str) -> ModelSizes:
    """Sizes of Llama 3 models, which have 8 key heads and 128,256 tokens; nothing is allocated."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=hidden,
                intermediate_size=inner,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=8,
                vocab_size=128256,
                tie_word_embeddings=tied,
            )
        )
    return ModelSizes.of(model, **adapters)


FULL = MemoryOptions(held=4, compute=2)


def test_parts_of_a_1b_model():
    """16 layers of 2048 (2 * 2048 + 2 * 512) + 3 * 2048 * 8192 = 60.8M weights, and 128,256 * 2048 of embeddings.
    Weights and gradients 4 bytes, moments 8; autocast keeps the layers' 973M in bfloat16."""
    sizes = llama(2048, 8192, 16, 32, tied=True)
    linear = 16 * (2048 * (2 * 2048 + 2 * 512) + 3 * 2048 * 8192)
    assert (sizes.linear, sizes.total) == (linear, linear + 128256 * 2048 + 33 * 2048)
    need = memory_need(sizes, FULL, 0)
    assert need[:5] == (4 * sizes.total, 4 * sizes.total, 8 * sizes.total, 2 * linear, 0)
    assert need.working == 2 * 4 * 2**26 + (2 + 4) * 128256 * 2048, "a tile twice, the weight narrowed, its gradient"


def test_a_reference_that_moves_is_a_second_copy_of_what_is_trained():
    sizes = llama(2048, 8192, 16, 32, tied=True, targets="all-linear")
    for options, trained in ((FULL, 4 * sizes.total), (FULL._replace(rank=8), 4 * 8 * sizes.adapted)):
        still, moving = (memory_need(sizes, options._replace(synced=synced), 512) for synced in (False, True))
        assert (still.reference, moving.reference) == (0, trained)
        assert moving.total == still.total + trained


def test_bytes_of_a_token_in_a_1b_model():
    """A layer with bfloat16 products: two norms of 2048 with 4 + 4 bytes; queries, keys, values and output in 2; gate,
    its activation and up in 2; inputs of seven linear layers in 2, but that of attention's last, kept as its output."""
    sizes = llama(2048, 8192, 16, 32, tied=True)
    layer = 2 * 2048 * 8 + 2 * 2 * (2048 + 512) + 4 * 32 + 3 * 2 * 8192 + 2 * (5 * 2048 + 8192)
    assert saved_bytes(sizes, FULL) == 16 * layer + 2048 * (4 + 4 + 2)
    checkpointed = saved_bytes(sizes, FULL._replace(checkpointed=True))
    assert checkpointed == 16 * 2048 * 4 + 2048 * (4 + 4 + 2)


def test_adapters_over_4_bits():
    """8B: 6.98B linear weights of about half a byte, embeddings in 4 and a head of its own in 2; adapters in 4."""
    sizes = llama(4096, 14336, 32, 32, targets="all-linear")
    need = memory_need(sizes, FULL._replace(rank=16, four_bit=True), 0)
    adapters = 16 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert need.gradients == 4 * adapters
    assert need.optimizer == 8 * adapters
    assert need.weights == pytest.approx(0.516 * sizes.linear + 6 * sizes.head + 4 * adapters, rel=1e-3)
    assert need.copies == 0


@pytest.mark.parametrize(
    ("options", "gigabytes", "tokens"),
    [
        (FULL, 80, 16384),
        (FULL, 48, 8192),
        (FULL._replace(checkpointed=True), 80, 16384),
        (FULL, 24, None),
        (FULL._replace(rank=16), 24, 8192),
        (FULL._replace(learns=False), 24, 16384),
    ],
    ids=["full", "full, half", "checkpointed", "too small", "adapters", "no gradient"],
)
def test_tokens_that_fit_fill_the_card(options: MemoryOptions, gigabytes: int, tokens: int | None):
    """Twice as many would not fit, unless there are as many as ever chosen."""
    sizes = llama(2048, 8192, 16, 32, tied=True, targets="all-linear")
    assert fitting_tokens(sizes, options, gigabytes * 1e9) == tokens
    room = (1 - MARGIN) * gigabytes * 1e9
    if tokens:
        assert memory_need(sizes, options, tokens).total <= room
    if tokens != 16384:
        assert memory_need(sizes, options, 2 * (tokens or 512)).total > room


def test_shards_take_less_of_each_card_but_whole_layers():
    sizes = llama(8192, 28672, 80, 64)
    one, eight = memory_need(sizes, FULL, 1024), memory_need(sizes, FULL._replace(cards=8), 1024)
    assert [part * 8 for part in eight[:3]] == list(one[:3])
    assert eight.activations == one.activations
    assert 2 * sizes.linear // 80 * 2 < eight.copies < one.copies
