"""How long a sequence may be, and that no sequence changes another's log-prob."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from pico import BUILDERS, SIZES, build
from transformers import LlamaConfig, Phi3Config

from kto_cli.common.errors import BadInput
from kto_cli.core.rows import TokenSequence
from kto_cli.model.lengths import context_length, greatest_length, independent_length, rotation_switch
from kto_cli.model.logprobs.prepare import check_sequences
from kto_cli.model.scorer import CompletionScorer

ROPE = {"rope_theta": 10000.0, "original_max_position_embeddings": 40}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.2] * 4, "factor": 12.8, **ROPE}


def longrope() -> Phi3Config:
    """Phi-3.5's scheme: 40 tokens as trained, 512 with other factors; heads of 8 channels, so 4 factors."""
    return Phi3Config(
        **SIZES,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=48,
        max_position_embeddings=512,
        original_max_position_embeddings=40,
        pad_token_id=0,
        rope_parameters=LONG,
    )


@pytest.mark.parametrize(
    ("config", "switch"),
    [
        (longrope(), 40),
        (LlamaConfig(max_position_embeddings=64, rope_parameters={"rope_type": "dynamic", "factor": 4.0, **ROPE}), 64),
        (LlamaConfig(max_position_embeddings=64), None),
        (LlamaConfig(max_position_embeddings=64, rope_parameters={"rope_type": "yarn", "factor": 4.0, **ROPE}), None),
    ],
)
def test_the_length_up_to_which_positions_are_the_same(config: object, switch: int | None):
    assert rotation_switch(config) == switch
    assert independent_length(config) == (switch or 64)


def test_longer_sequences_than_that_are_refused():
    """By default no row is longer; asked for more, one line says why not."""
    config = longrope()
    assert context_length(config) == 512
    assert greatest_length(None, config) == greatest_length(40, config) == 40
    with pytest.raises(BadInput, match="depend on the rows beside it"):
        greatest_length(41, config)
    with pytest.raises(BadInput, match="512 tokens"):
        greatest_length(513, config)
    assert greatest_length(None, LlamaConfig(max_position_embeddings=64)) == 64
    assert greatest_length(None, LlamaConfig(max_position_embeddings=4096)) == 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_that_changes_a_row_is_noticed_in_any_precision(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    """Beyond the switch a short row's log-prob differs by nats beside a long one: the start-up check packs nothing, in
    bfloat16 too, where it compares in float32."""
    from transformers import Phi3ForCausalLM

    monkeypatch.setitem(BUILDERS, "longrope", lambda **_: Phi3ForCausalLM(longrope()))
    draw = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, SIZES["vocab_size"]) for _ in range(count))

    short = TokenSequence(tokens(4), tokens(24))
    some = [short, TokenSequence(tokens(4), tokens(25)), TokenSequence(short.prompt, tokens(22))]
    scorer = CompletionScorer(build("longrope"), dtype)
    assert scorer.trust_or_fall_back(some).unpacked is None
    assert scorer.packs
    checked = scorer.trust_or_fall_back([*some, TokenSequence(tokens(40), tokens(60))])
    assert not scorer.packs
    assert "nats a token" in (checked.unpacked or "")


class Some(list[TokenSequence]):
    """Sequences that know their lengths, as stored ones do."""

    @property
    def lengths(self) -> Any:
        return numpy.array([sequence.length for sequence in self])


def test_the_check_sees_the_longest_of_all():
    """Own rows have 32 tokens at most, but the longest prompt with the longest other completion has 56: a window of 32
    cuts that one alone."""
    lengths = [(28, 4), (4, 28), (5, 20), (28, 3)]
    prompts, completions = ([tuple(range(pair[side])) for pair in lengths] for side in (0, 1))
    own = Some(map(TokenSequence, prompts, completions))
    mismatched = Some(
        TokenSequence(prompt, completions[other]) for prompt, other in zip(prompts, (1, 0, 3, 2), strict=True)
    )
    rows = SimpleNamespace(own=own, mismatched=mismatched, sequences=Some(own + mismatched))
    assert max(own.lengths) == 32
    assert [sequence.length for sequence in check_sequences(rows)] == [25, 31, 8, 56]
