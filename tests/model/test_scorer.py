"""CompletionScorer against each model's own logits, one sequence at a time, in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import BUILDERS, build, naive_logps, sequences
from shared import shared
from torch import nn

from kto_cli.common.errors import BadModel
from kto_cli.core.batches import continuation, pack, pad
from kto_cli.core.losses import kto_loss
from kto_cli.core.rows import TokenSequence
from kto_cli.model import tree_attention
from kto_cli.model.layers import checkpoint_layers
from kto_cli.model.load import load_model
from kto_cli.model.packed_pass import Past
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.varlen_attention import KERNELS
from kto_cli.model.varlen_kernels import REFERENCE

ROUNDED = {"gemma2": 1e-6, "bloom": 1e-6, "mamba": 1e-5, "gpt_neo": 1e-6}
"""Nats. These take the softmax of attention in float32 even in a float64 model (relative error 2^-24), and a
batch of another width rounds otherwise."""


@pytest.mark.parametrize("family", BUILDERS)
def test_padded_batch_equals_the_models_own_logits(family: str):
    """Sums of about 5 to 150 nats: in float32 to 1e-4 of them, in float64 to 1e-9."""
    model, some = build(family), sequences()
    expected = naive_logps(build(family).double(), some).detach()
    scorer = CompletionScorer(model)
    assert not scorer.plain
    torch.testing.assert_close(scorer.score(some).double(), expected, rtol=1e-4, atol=1e-4)
    exact = CompletionScorer(model.double()).score(some)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=ROUNDED.get(family, 1e-9))


PADDED = {
    "gpt_neo": "transformers' attention interface",
    "bloom": "transformers' attention interface",
    "mamba": "linear_attention layers",
    "jamba": "linear_attention layers",
    "lfm2": "conv layers",
    "gpt_oss": "s_aux",
}
"""Family -> what the reason names for which it is padded; all others are packed."""


def shared_prompts() -> list[TokenSequence]:
    """Ragged prompts with two or three completions each, one of them a single token; prompts that go on from another
    row's answer, with two completions that begin alike; and one that parts from another's prompt in its middle."""
    own, other = sequences(), sequences(seed=5)
    crossed = [TokenSequence(mine.prompt, theirs.completion) for mine, theirs in zip(own, other, strict=True)]
    turn = own[0].prompt + own[0].completion + (11, 12)
    later = [TokenSequence(turn, (7, 8, 9)), TokenSequence(turn, (7, 8, 10, 11)), TokenSequence((*turn, 7), (13, 14))]
    parting = TokenSequence((*own[1].prompt[:12], 5, 6), (21, 22, 23))
    return [*own, *crossed, TokenSequence(own[0].prompt, (7,)), *later, parting]


WAYS = {
    "gemma2": {"segment": 2},
    "mistral": {"segment": 2},
    "phi3": {"segment": 2},
    "gemma3": {"segment": 1, "tree": 1},
}
"""Family -> how its layers attend on a CPU where that is not the tree's way: a soft cap, or a window of 8 tokens."""
has_kernel = tree_attention._groups_heads()
"""Without (torch 2.8), segments are walked."""


@pytest.fixture(params=["tree", "reference"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attention as on a CPU; and as on a GPU, one call a layer, by the reference kernel."""
    if request.param == "reference":
        monkeypatch.setitem(KERNELS, "cpu", lambda query: REFERENCE)
    return request.param


@pytest.mark.parametrize("family", BUILDERS)
def test_packed_or_padded_it_equals_the_models_own_logits(family: str, way: str):
    """The check finds nothing on the head, and packs what can be packed: in one batch, and as a continuation of it."""
    model, some = build(family), shared_prompts()
    expected = naive_logps(build(family).double(), some).detach()
    scorer = CompletionScorer(model.double())
    checked = scorer.trust_or_fall_back(some)
    assert checked.difference < 1e-5
    assert not scorer.plain
    assert scorer.packs == (family not in PADDED)
    assert PADDED.get(family, "") in (checked.unpacked or "")
    near = {"rtol": 1e-9, "atol": ROUNDED.get(family, 1e-9)}
    torch.testing.assert_close(scorer.score(some), expected, **near)
    if scorer.packs:
        on_gpu = {"segment": 2} if family == "gemma2" else {"reference": 2}
        on_cpu = WAYS.get(family, {"tree": 2}) if has_kernel else {"segment": 2}
        assert scorer.packing.ways == (on_gpu if way == "reference" else on_cpu)
        batch, prompts = pack(some)
        past = Past.of(prompts, torch.device("cpu"))
        with torch.no_grad():
            scorer(*batch, past)
            again = scorer(*continuation(some, prompts), past)
        torch.testing.assert_close(again, expected, **near)


@pytest.mark.parametrize("family", [family for family in BUILDERS if family not in PADDED])
def test_packed_gradient_equals_the_naive_one(family: str, way: str):
    """Activations kept, and computed again in the backward pass."""
    some = shared_prompts()
    signs = torch.tensor([1.0, -1] * len(some))[: len(some)].double()

    def gradients(logps: torch.Tensor, model: Any) -> list[torch.Tensor]:
        (logps * signs).sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    naive = build(family).double()
    expected = gradients(naive_logps(naive, some), naive)
    for checkpointing in (False, True):
        model = build(family).double()
        scorer = CompletionScorer(model)
        scorer.trust_or_fall_back(some)
        if checkpointing:
            assert checkpoint_layers(scorer) == 2
        found = gradients(scorer(*pack(some)[0]), model)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_packing_leaves_the_model_as_it_was():
    """Generation afterwards uses the model's own attention."""
    model = build("llama")
    before = model.config._attn_implementation
    CompletionScorer(model).trust_or_fall_back(shared_prompts())
    assert model.config._attn_implementation == before == "sdpa"


def ignoring_prefixes(*given: Any, **options: Any) -> Any:
    """A layout in which each segment attends to itself alone."""
    batch, prompts = pack(*given, **options)
    alone = tuple(segment._replace(prefix=()) for segment in batch.layout.segments)
    return batch._replace(layout=batch.layout._replace(segments=alone, shared=())), prompts


def test_wrong_packing_is_noticed(monkeypatch: pytest.MonkeyPatch, way: str):
    """A layout without prefixes gives other numbers: padded batches, and the reason says by how much."""
    monkeypatch.setattr("kto_cli.model.scorer.pack", ignoring_prefixes)
    scorer = CompletionScorer(build("llama"))
    checked = scorer.trust_or_fall_back(shared_prompts())
    assert not scorer.packs
    assert "nats a token" in (checked.unpacked or "")


@pytest.mark.skipif(not has_kernel, reason="this torch's CPU kernel does not group heads")
def test_wrong_attention_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """A way that ignores the prefix is given up for the walk over segments, and the note says why."""
    own = tree_attention.parts
    monkeypatch.setattr(tree_attention, "parts", lambda layout: [part for part in own(layout) if part.causal])
    scorer, some = CompletionScorer(build("llama")), shared_prompts()
    checked = scorer.trust_or_fall_back(some)
    assert checked.attention.startswith("one call a segment, which is slow")
    assert "nats a token" in checked.attention
    assert scorer.packing.ways == {"segment": 2}
    torch.testing.assert_close(scorer.score(some), naive_logps(build("llama"), some).detach(), rtol=1e-4, atol=1e-3)


def test_attention_that_raises_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """As a kernel that runs on short sequences and not on these."""

    def forward(query: torch.Tensor, *others: Any) -> Any:
        if query.shape[0] > 100:
            raise RuntimeError("too long for this kernel\nand a trace")
        return REFERENCE.forward(query, *others)

    monkeypatch.setitem(KERNELS, "cpu", lambda query: REFERENCE._replace(forward=forward))
    scorer = CompletionScorer(build("llama"))
    checked = scorer.trust_or_fall_back(shared_prompts())
    assert "(the fast way was tried, but it fails: too long for this kernel)" in checked.attention
    assert scorer.packing.ways == {"segment": 2}


def test_the_dtype_of_training_is_tried_too(monkeypatch: pytest.MonkeyPatch):
    """On a GPU it decides the kernel: float32 passes, and the kernel of bfloat16 is the faulty one."""
    seen = []

    def forward(query: torch.Tensor, *others: Any) -> Any:
        seen.append(query.dtype)
        output, *rest = REFERENCE.forward(query, *others)
        return (output if query.dtype == torch.float32 or len(query) == 74 else -output), *rest

    monkeypatch.setitem(KERNELS, "cpu", lambda query: REFERENCE._replace(forward=forward))
    scorer = CompletionScorer(build("llama"), torch.bfloat16)
    checked = scorer.trust_or_fall_back(shared_prompts())
    assert set(seen) == {torch.float32, torch.bfloat16}
    assert "one call a segment" in checked.attention
    assert scorer.packing.ways == {"segment": 2}
    assert scorer.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("llama", "one call a layer, by the reference kernel"),
        ("gemma3", "one call a layer, by the reference kernel"),
        ("gemma2", "one call a segment"),
    ],
)
def test_it_says_how_layers_attend_on_a_gpu(family: str, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KERNELS, "cpu", lambda query: REFERENCE)
    assert CompletionScorer(build(family)).trust_or_fall_back(shared_prompts()).attention == said


def test_a_soft_cap_is_kept_where_transformers_takes_sdpa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As transformers before 5.21 does for Gemma 2; its sdpa leaves the cap out, and later ones refuse it."""
    from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel

    model, ids = build("gemma2"), torch.arange(3, 40)[None]
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)
    loaded = load_model(tmp_path)
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    loaded.config.get_text_config().attn_logit_softcapping = None
    for layer in loaded.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (loaded(ids).logits - model(ids).logits).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt"])
def test_plain_path_equals_the_models_own_logits(family: str):
    model, some = build(family).double(), sequences()
    scorer = CompletionScorer(model)
    scorer.plain = True
    torch.testing.assert_close(scorer.score(some), naive_logps(model, some).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradient_of_a_loss_equals_the_naive_one(family: str, plain: bool):
    """KTO loss over own and mismatched sequences; the mismatched half has no gradient on either side."""
    model = build(family).double()
    some, labels = sequences(), torch.tensor([True, False, True, False, False])
    mismatched = sequences(seed=1)
    reference = naive_logps(model, some).detach() + torch.tensor([3.0, -2, 1, 0, -4]).double()
    scorer = CompletionScorer(model)
    scorer.plain = plain

    def gradient(logps: torch.Tensor, far: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        loss, _, _ = kto_loss(logps, reference, labels, far, far.detach() - 1, beta=0.1, lambda_u=1.5)
        loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    ours = gradient(scorer(*pad(some)), scorer(*pad(mismatched)))
    naive = gradient(naive_logps(model, some), naive_logps(model, mismatched))
    assert any(value.abs().max() > 1e-3 for value in naive)
    for mine, theirs in zip(ours, naive, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-10)


def test_padding_is_never_read():
    """Whatever the pad token, and whatever else is in the batch."""
    scorer = CompletionScorer(build("llama").double())
    some = sequences()
    with torch.no_grad():
        zero, other = scorer(*pad(some, pad_id=0)), scorer(*pad(some, pad_id=99))
        alone = torch.cat([scorer(*pad([each])) for each in some])
    torch.testing.assert_close(zero, other, rtol=0, atol=0)
    torch.testing.assert_close(zero, alone, rtol=1e-9, atol=1e-9)


def test_prompt_is_not_counted():
    """A token counts from the completion alone: cutting one in two moves exactly the first part's log-prob."""
    scorer = CompletionScorer(build("gpt2").double())
    prompt, first, second = sequences(((5, 3), (1, 4)))[0].prompt, (7, 8, 9), (11, 12, 13, 14)
    whole, part, rest = scorer.score(
        [
            TokenSequence(prompt, first + second),
            TokenSequence(prompt, first),
            TokenSequence(prompt + first, second),
        ]
    ).tolist()
    assert whole == pytest.approx(part + rest, abs=1e-9)


# --- heads the fast path cannot read ------------------------------------------------------------


def doubled(model: Any) -> Any:
    """The same model with a forward that multiplies its logits by 2, which no config names."""

    class Doubled(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **options: Any) -> Any:
            output = super().forward(*args, **options)
            output.logits = output.logits * 2
            return output

    model.__class__ = Doubled
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_head_it_cannot_read_is_noticed(family: str):
    model, some = doubled(build(family)), sequences()
    scorer = CompletionScorer(model)
    assert not scorer.plain
    assert scorer.trust_or_fall_back(some[:2]).difference > 0.1
    assert scorer.plain
    expected = naive_logps(copy.deepcopy(model).double(), some).detach()
    torch.testing.assert_close(scorer.score(some).double(), expected, rtol=1e-4, atol=1e-4)
    assert scorer.trust_or_fall_back(some).difference == 0.0


def test_a_head_that_gives_no_number_is_not_trusted():
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight[0] = torch.nan
    scorer = CompletionScorer(model)
    scorer.trust_or_fall_back(sequences(((4, 6),)))
    assert scorer.plain


def test_a_head_that_is_no_linear_layer_is_read_through_the_model():
    model, some = build("llama"), sequences()
    model.lm_head = nn.Sequential(model.lm_head, nn.Tanh())
    scorer = CompletionScorer(model)
    assert scorer.plain
    expected = naive_logps(copy.deepcopy(model).double(), some).detach()
    torch.testing.assert_close(scorer.score(some).double(), expected, rtol=1e-4, atol=1e-4)


# --- lower precision ----------------------------------------------------------------------------


def test_bfloat16_is_close_and_the_sum_is_float64():
    """bfloat16 rounds to 2^-9: over 30 tokens of about 5 nats a few percent of a nat a token."""
    model, some = build("llama"), sequences()
    exact = naive_logps(copy.deepcopy(model).double(), some).detach()
    found = CompletionScorer(model, torch.bfloat16).score(some)
    assert found.dtype == torch.float64
    tokens = torch.tensor([len(each.completion) for each in some])
    assert ((found - exact).abs() / tokens).max() < 0.15
    assert (found - exact).abs().max() > 1e-4, "computed in float32 after all"


# --- real models --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cardputer-chat-3m", "stories260K"])
def test_real_model_in_a_batch_and_alone(name: str):
    """cardputer has local attention layers; 14,018 and 512 tokens. Longest sequence 160 tokens."""
    folder: Path = shared("data", "models", name)
    model = load_model(folder)
    some = sequences(((20, 60), (100, 60), (3, 5), (40, 11)), vocab=model.config.vocab_size)
    scorer = CompletionScorer(model)
    assert not scorer.plain
    together = scorer.score(some)
    alone = torch.cat([scorer.score([each]) for each in some])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    torch.testing.assert_close(together.double(), naive_logps(model, some).detach(), rtol=0, atol=2e-3)


def test_positions_that_do_not_start_at_0_are_refused():
    """RoBERTa numbers them from its padding token's id + 1: log-probs with positions from 0 are off by nats."""
    from transformers import RobertaConfig, RobertaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(**sizes, intermediate_size=16, max_position_embeddings=40, is_decoder=True, pad_token_id=1)
    torch.manual_seed(0)
    model = RobertaForCausalLM(config).eval()
    torch.nn.init.normal_(model.roberta.embeddings.position_embeddings.weight)
    with pytest.raises(BadModel, match="does not number positions from 0"):
        CompletionScorer(model).trust_or_fall_back([TokenSequence((3, 4, 5), (6, 7)), TokenSequence((3, 4), (8, 9))])
