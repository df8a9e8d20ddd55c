"""The study of z_ref: its gradients are those of KTO's loss, its numbers are what they are called."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, call

from kto_cli.core.losses import kto_losses


@pytest.fixture
def z_ref(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    return importlib.import_module("benchmarks.study.z_ref")


def some_batch(z_ref: Any, rows: int = 6) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """(a batch whose log-ratios are linear in some weights, the weights, what they are multiplied with)."""
    generator = torch.Generator().manual_seed(5)
    weights, inputs = (torch.randn(shape, generator=generator).double() for shape in ((4,), (rows, 4)))
    signs = torch.tensor([1.0, -1.0] * (rows // 2)).double()
    others = [3 * torch.randn(rows, generator=generator).double() for _ in range(3)]
    return z_ref.Batch(inputs @ weights, *others, signs, inputs @ inputs.T), weights, inputs


def test_the_gradient_is_that_of_the_loss(z_ref):
    """Its length, and the cosine of two of them, by autograd."""
    batch, weights, inputs = some_batch(z_ref)
    vectors, ours = [], []
    for z in (torch.full((6,), 0.4).double(), z_ref.chunks(2)(batch)):
        leaf = weights.clone().requires_grad_()
        loss = kto_losses(inputs @ leaf, batch.signs, torch.ones(6).double(), z, beta=z_ref.BETA).losses.mean()
        vectors.append(torch.autograd.grad(loss, leaf)[0])
        ours.append(z_ref.coefficients(batch, z))
    for some, coefficients in zip(vectors, ours, strict=True):
        assert (coefficients @ batch.products @ coefficients).sqrt().item() == pytest.approx(some.norm().item())
    cosine = torch.nn.functional.cosine_similarity(*vectors, dim=0).item()
    found = {one["estimator"]: one for one in z_ref.compared([batch], 0.4)}
    assert found["chunks of 2"]["cosine"] == pytest.approx(cosine)
    assert found["chunks of 2"]["length"] == pytest.approx((vectors[1].norm() / vectors[0].norm()).item())


def test_chunks_are_clamped_each_for_itself(z_ref):
    """-2 and 6: of one row each 0 and 6, of two the mean of 2; beside 2, a bias of +1 and a spread of 3."""
    batch, _, _ = some_batch(z_ref, 2)
    batch = batch._replace(mismatched=torch.tensor([-2.0, 6.0]).double())
    assert z_ref.chunks(1)(batch).tolist() == [0.0, 6.0]
    assert z_ref.chunks(2)(batch).tolist() == [2.0, 2.0]
    found = {one["estimator"]: one for one in z_ref.compared([batch], 2.0)}
    assert (found["chunks of 1"]["bias"], found["chunks of 1"]["sd"]) == (1.0, 3.0)
    assert (found["the whole batch"]["bias"], found["the whole batch"]["cosine"]) == (0.0, pytest.approx(1.0))


@pytest.mark.slow
def test_a_policy_is_measured(z_ref, monkeypatch, pico, pico_data, tmp_path):
    """A run of the pico model: every estimate has its line, and a policy that is known is not measured again."""
    for name, value in (("BATCH", 8), ("BATCHES", 2), ("SAMPLED", 8), ("NEW_TOKENS", 4)):
        monkeypatch.setattr(z_ref, name, value)
    words = ["train", "--data", pico_data, "--model", pico, "--max-steps", 2, "--learning-rate", 1e-2]
    assert call(*words, "--cache", tmp_path / "cache", "--out", tmp_path / "moved").code == 0
    options = argparse.Namespace(model=str(pico), data=Path(pico_data), work=tmp_path)
    first, *lines = z_ref.measure(tmp_path / "moved", options)
    assert [one["estimator"] for one in lines] == list(z_ref.ESTIMATORS)
    assert first["exact"] == max(0.0, first["mean"])
    assert all(0 < one["cosine"] <= 1 + 1e-9 for one in lines)
    results = tmp_path / "z_ref.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in (first, *lines)))
    assert set(z_ref.z_ref_tables(results)) == {"z-ref", "z-ref-moved"}
