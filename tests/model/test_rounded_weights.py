"""Weights rounded at random for bfloat16 products: what is learned counts, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from one_step import pico_model, some_rows, with_adapters

from kto_cli.model.rounded_weights import rounded_weights
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.stored_dtypes import StoredDtypes

STORED = StoredDtypes(torch.bfloat16, {})


def model_in_bfloat16(*, tied: bool = False):
    """A float32 model all of whose weights bfloat16 holds."""
    model = pico_model(tied=tied).float()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    return model


def moved(model, share: float):
    """Its linear layers' weights moved by a share of what lies between two bfloat16 numbers, all away from 0."""
    with torch.no_grad():
        for weight in (each for name, each in model.named_parameters() if multiplied(name)):
            weight.mul_(1 + share * 2.0**-8)
    return model


def multiplied(name: str) -> bool:
    return "proj" in name or name == "lm_head.weight"


def test_small_changes_are_seen():
    """A tenth of the distance: to the nearest all weights round back to where they were, at random a tenth go over."""
    start, model = model_in_bfloat16(), moved(model_in_bfloat16(), 0.1)
    rows = [row.own for row in some_rows(20)]
    before = CompletionScorer(start, torch.bfloat16).score(rows)
    assert torch.equal(CompletionScorer(model, torch.bfloat16).score(rows), before)
    rounded = at_start(model)
    true = flat(model) - flat(start)
    with rounded:
        assert not torch.equal(CompletionScorer(model, torch.bfloat16).score(rows), before)
        seen = flat(model).bfloat16().float() - flat(start)
    assert (seen @ true / (true @ true)).item() == pytest.approx(1, abs=0.1)
    assert 0.04 < (seen != 0).float().mean() < 0.1


def flat(model) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for name, each in model.named_parameters() if multiplied(name)])


def at_start(model, seed: int = 0):
    """The weights of a model as they were found at the start of a run."""
    now = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    found = rounded_weights(model, torch.bfloat16, STORED, seed)
    assert found.parts
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(now[name])
    return found


def test_behind_the_context_weights_are_their_own():
    model = moved(model_in_bfloat16(), 0.3)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    rounded = at_start(model)
    with rounded, rounded:
        read = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name], rtol=2.0**-22, atol=0)
    changed = {name for name in read if not torch.equal(read[name], before[name])}
    assert changed == {name for name in read if multiplied(name)}


def test_an_error_inside_leaves_the_weights_their_own():
    model = moved(model_in_bfloat16(), 0.3)
    before, rounded = model.lm_head.weight.detach().clone(), at_start(model)
    with pytest.raises(torch.OutOfMemoryError), rounded:
        raise torch.OutOfMemoryError
    torch.testing.assert_close(model.lm_head.weight.detach(), before, rtol=2.0**-22, atol=0)


def test_a_tied_head_is_rounded_once():
    model = model_in_bfloat16(tied=True)
    assert len(rounded_weights(model, torch.bfloat16, STORED, 0).parts) == 7 * len(model.model.layers) + 1


@pytest.mark.parametrize(
    ("model", "compute", "stored"),
    [
        (model_in_bfloat16, torch.float32, STORED),
        (model_in_bfloat16, torch.bfloat16, StoredDtypes(torch.float32, {})),
        (lambda: pico_model().float(), torch.bfloat16, STORED),
        (lambda: model_in_bfloat16().bfloat16(), torch.bfloat16, STORED),
        (lambda: with_adapters(model_in_bfloat16()).float(), torch.bfloat16, STORED),
    ],
    ids=["float32 products", "written in float32", "weights bfloat16 does not hold", "bfloat16 weights", "adapters"],
)
def test_where_nothing_is_rounded(model, compute, stored):
    assert not rounded_weights(model(), compute, stored, 0).parts
