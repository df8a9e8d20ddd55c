"""Reference log-probs that a loss reads, and no others, are computed, counted and asked of the cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import call

from kto_cli.core.loss_kinds import LOSSES, LossSettings
from kto_cli.core.objectives import needs_mismatched

TRAINED, HELD_OUT = 32, 8
"""Rows of `pico_data`; few sequences are equal."""


def about(count: int) -> Any:
    return pytest.approx(count, abs=3)


def counts(err: str) -> tuple[int, int, str]:
    """Computed and cached, and what is said to be needed."""
    found = re.search(r"Reference log-probs \(([^)]*)\): ([\d,]+) computed, ([\d,]+) cached", " ".join(err.split()))
    assert found, err
    return int(found[2]), int(found[3]), found[1]


def train(given: list[str], *words: object) -> Any:
    done = call("train", *given, "--cache", "cache", "--max-steps", 2, "--batch-size", 8, *words)
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("loss", ["dpo", "bco", "apo-zero-unpaired", "orpo"])
def test_without_mismatched_completions_in_the_loss_only_validation_has_some(loss, given, workplace):
    """KTO then computes those of the training rows and nothing else."""
    first = train(given, "--loss", loss, "--out", "run")
    computed, cached, words = counts(first.err)
    assert (computed, cached) == (about(TRAINED + 2 * HELD_OUT), 0)
    assert words == "rows and mismatched completions of validation rows"
    after = train(given, "--out", "kto")
    assert counts(after.err) == (about(TRAINED), computed, "rows and mismatched completions")


def test_kto_reads_all_and_sft_desirable_rows(given, workplace):
    computed = counts(train(given, "--loss", "sft", "--out", "sft").err)[0]
    assert computed == about(TRAINED // 2 + 2 * HELD_OUT)
    assert counts(train(given, "--out", "kto").err)[:2] == (about(TRAINED // 2 + TRAINED), computed)


@pytest.mark.parametrize("loss", ["kto", "dpo", "sft", "csft"])
def test_precompute_computes_what_the_run_reads(loss, given, workplace):
    done = call("precompute", *given, "--cache", "cache", "--loss", loss, "--json")
    assert done.code == 0, done.err
    computed, cached, _ = counts(train(given, "--loss", loss, "--out", "run").err)
    assert (computed, cached) == (0, done.json["computed"])


@pytest.mark.parametrize("loss", ["kto", "dpo", "sft", "kto-zero"])
def test_the_dry_run_counts_what_the_run_computes(loss, given, workplace):
    """Tokens as metrics.jsonl has them; forward only: mismatched completions where they are read, and validation."""
    flags = ["--reference-point", "zero"] if loss == "kto-zero" else ["--loss", loss]
    done = call("train", *given, *flags, "--cache", "cache", "--max-steps", 2, "--batch-size", 8, "--dry-run", "--json")
    assert done.code == 0, done.err
    tokens, passes = done.json["tokens"], done.json["passes"]
    assert (tokens["mismatched_per_epoch"] > 0) == (loss == "kto")
    train(given, *flags, "--out", "run")
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["tokens"] == tokens["run"]
    if loss == "sft":
        words = ["--loss", "dpo", "--cache", "other", "--max-steps", 2, "--batch-size", 8, "--dry-run", "--json"]
        other = call("train", *given, *words).json
        assert other["passes"]["forward_tokens"] == passes["forward_tokens"], "validation alone, the same rows"


def test_the_losses_that_need_mismatched_completions():
    needing = [
        name for name, kind in LOSSES.items() if needs_mismatched(LossSettings(0.1, loss=name, point=kind.point))
    ]
    assert needing == ["kto"]
