"""Benchmarks of the policy compared with the reference's, on the same documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from kto_cli.common.errors import BadInput
from kto_cli.core.statistics.intervals import clustered_error
from kto_cli.core.statistics.shares import NORMAL, student
from kto_cli.evaluation.benchmarks.results import is_mean

SETTINGS = ("lm_eval_name", "shots", "chat_template", "metric", "version", "n")
"""Settings that must be equal for two results to be compared."""


def compare_tasks(policy: dict[str, Any], reference: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Policy minus reference, for each benchmark that both ran (two results of `run_tasks`).

    Returns:
        {name: policy, reference, difference, interval (90 %), paired, verdict}. `verdict` is "better" or "worse" if 0
        lies outside the interval, else "not shown"; so too where lm-eval does not say which direction is better, or
        gives no overall value.

    Raises:
        BadInput: a benchmark was not run the same way on both, or not on the same documents.
    """
    names = [name for name in policy["tasks"] if name in reference["tasks"]]
    return {name: _compare(name, policy["tasks"][name], reference["tasks"][name]) for name in names}


def _compare(name: str, policy: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    differing = [setting for setting in SETTINGS if policy[setting] != reference[setting]]
    hashes = reference["documents"]
    # Hashes are of prompts too, which differ where one model is asked with a control text and the other without.
    alike = policy.get("control_text") == reference.get("control_text")
    others = alike and any(hashes.get(task, each)["hash"] != each["hash"] for task, each in _documents(policy))
    if differing or others:
        what = ", ".join(differing) or "documents"
        raise BadInput(f"{name} was not run alike on both models: {what} differ.", "Run it again on both.")
    after, before = policy["value"], reference["value"]
    if after is None or before is None:
        return _result(after, before, None, paired=False, higher=None)
    pairs = [_values(policy), _values(reference)]
    paired = len(pairs[0]) == len(pairs[1]) and is_mean(after, pairs[0]) and is_mean(before, pairs[1])
    if paired:
        return _result(after, before, paired_interval(*pairs), paired=True, higher=policy["higher_is_better"])
    errors = policy["stderr"], reference["stderr"]
    reach = math.nan if None in errors else NORMAL * math.hypot(*errors)
    unpaired = [after - before - reach, after - before + reach]
    return _result(after, before, unpaired, paired=False, higher=policy["higher_is_better"])


def _documents(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(entry["documents"].items())


def _values(entry: dict[str, Any]) -> list[float]:
    return [value for task in sorted(entry["documents"]) for value in entry["documents"][task]["values"]]


def _result(
    after: float | None, before: float | None, interval: list[float] | None, *, paired: bool, higher: bool | None
) -> dict[str, Any]:
    difference = None if after is None or before is None else after - before
    low, high = interval or (math.nan, math.nan)
    verdict = "not shown"
    if higher is not None and (low > 0 or high < 0):  # NaN shows nothing either
        verdict = "better" if (low > 0) == higher else "worse"
    return {
        "policy": after,
        "reference": before,
        "difference": difference,
        "interval": interval,
        "paired": paired,
        "verdict": verdict,
    }


def paired_interval(after: Sequence[float], before: Sequence[float]) -> list[float]:
    """90 % interval of mean(after - before) over documents that both models answered.

    What makes a document easy for both cancels. Where each is right or wrong, the interval of Agresti and Min (2005,
    Statistics in Medicine 24:729): half a document is added to each of right-right, right-wrong, wrong-right and
    wrong-wrong, n grows by 2, and the interval is the normal one; like Wilson's it does not collapse to a point when
    no document differs. Of any other numbers, Student's t from the standard error of the differences.

    Of 20 documents, 6 gained and 1 lost: (6.5 - 1.5) / 22 = 0.2273, and 1.645 * sqrt(8 / 22 - 0.2273^2) / sqrt(22) =
    0.1959: 0.0314 to 0.4231.
    """
    differences = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
    count = len(differences)
    if {*after, *before} <= {0.0, 1.0}:
        gained, lost, count = int((differences > 0).sum()) + 0.5, int((differences < 0).sum()) + 0.5, count + 2
        middle = (gained - lost) / count
        reach = NORMAL * math.sqrt(((gained + lost) / count - middle**2) / count)
    else:
        middle = differences.mean().item()
        reach = student(count - 1) * clustered_error(differences, torch.arange(count), count)
    return [middle - reach, middle + reach]
