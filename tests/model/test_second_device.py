"""Whole steps on a make-believe accelerator (tests/support/second_device.py): the CPU's numbers, no operation over both
devices, hardly a wait, and operations that do not grow with the number of segments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY

SUPPORT = Path(__file__).resolve().parent.parent / "support"
WAITS = ["sum", "sum", "clip"]
"""Functions in which a step waits: for the mismatched log-ratios, the log-ratios and the norm of the gradient."""

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no back end in Python",
)


def measured(what: str) -> dict[str, Any]:
    """Of a process of its own: a back end is registered for all that follows."""
    paths = [str(path) for path in (SUPPORT, REPOSITORY / "tests", REPOSITORY)]
    ran = subprocess.run(
        [sys.executable, str(SUPPORT / "second_device_steps.py"), what],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    return measured("quick")


def check_steps(steps: dict[str, Any]) -> None:
    for name, found in steps.items():
        bfloat16 = "bfloat16" in name or "all" in name  # rounds each token by some hundredths of a nat
        for numbers in ("log_ratios", "mismatched", "norm"):
            expected = found["cpu"][numbers]
            near = {"rel": 0.02, "abs": 0.3} if bfloat16 else {"rel": 1e-5, "abs": 1e-4}
            assert found[numbers] == pytest.approx(expected, **near), (name, numbers)
        waits = [wait for wait in found["waits"] if "find_packed_sequence_indices" not in wait or "padded" not in name]
        assert [wait.split()[-1] for wait in waits] == WAITS, (name, waits)
        ways = {} if "padded" in name else {"segment": 2} if "gemma2" in name else {"counted": 2}
        assert found["ways"] == ways, name


@pytest.mark.slow
def test_a_step_gives_the_cpus_numbers_and_waits_three_times(quick: dict[str, Any]):
    """Packed in one pass, in several micro-batches, checkpointed, with adapters, in bfloat16, and padded (where
    transformers itself waits, to look for packed sequences)."""
    assert len(quick["steps"]) == 4
    check_steps(quick["steps"])


def test_a_pass_without_gradient_waits_once(quick: dict[str, Any]):
    """The reference pass and scores of validation rows; the second in several micro-batches."""
    transfers = []
    for found in quick["passes"].values():
        assert found["log_ratios"] == pytest.approx(found["cpu"]["log_ratios"], rel=1e-5)
        assert [wait.split()[-1] for wait in found["waits"]] == ["sum"]
        transfers.append(len(found["transfers"]))
    # A batch has five tensors and one plan; all positions travel at once.
    assert transfers[0] == 1 + 6
    assert transfers[1] % 6 == 1


def test_operations_of_a_layer_do_not_grow_with_the_rows(quick: dict[str, Any]):
    """In bfloat16 autocast: 50 forward and 102 backward, of which attention is 3 (two gathers, one call) and 5 (and two
    sums of copies)."""
    assert quick["operations"] == {"llama, one call": [{"forward": 50, "backward": 102}] * 2}


@pytest.mark.slow
def test_every_family_and_way():
    """Windows too; with shared spans in place there are two calls and their merge. The walk grows: 143 to 263 forward
    from 6 to 14 rows."""
    found = measured("all")
    check_steps(found["steps"])
    for name, (few, many) in found["operations"].items():
        if "walk" in name:
            assert many["forward"] > 1.5 * few["forward"], name
            assert many["backward"] > 1.5 * few["backward"], name
        else:
            assert few == many, name
    totals = {name: sum(counts[0].values()) for name, counts in found["operations"].items() if "walk" not in name}
    assert totals["llama, one call"] == 152
    assert totals["llama, shared spans in place"] <= 180
    assert max(totals.values()) <= 265, "gemma3 has norms of queries and keys"
