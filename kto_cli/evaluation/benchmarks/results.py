"""Reads lm-eval's results: one headline number per benchmark, its interval, and each document's value."""

from __future__ import annotations

import math
from typing import Any

from kto_cli.common.files import text_hash
from kto_cli.core.statistics.intervals import wilson
from kto_cli.core.statistics.shares import NORMAL


def read_results(found: dict[str, Any], task: str, metric: str | None) -> dict[str, Any]:
    """The stored result of one benchmark.

    Args:
        found: what `lm_eval.evaluate` returns, samples included.
        task: the name that was evaluated: a task, a group or a tag.
        metric: the headline, "metric,filter"; None: the first.

    Returns:
        metric, value, stderr, interval (90 %), n (documents), higher_is_better, all_metrics, version, shots;
        for a group or a tag also `subtasks`, {name: {value, stderr, n}}; and `documents`, {task: {hash, values}}: a
        hash of the documents and the prompts made of them, and [documents] values of the headline metric, where
        each has a number. Without an overall number (a tag, some groups) the value is None.
    """
    results, leaves = found["results"], list(found["samples"])
    whole = results.get(task, {})
    metric = metric or next((key for name in (task, *leaves) for key in _metrics(results.get(name, {}))), "")
    documents = {leaf: values for leaf in leaves if (values := _documents(found["samples"][leaf], metric)) is not None}
    value, stderr = _number(whole.get(metric)), _number(whole.get(_stderr_of(metric)))
    counts = {leaf: found["n-samples"][leaf]["effective"] for leaf in leaves}
    named = task if task in found["n-shot"] else leaves[0]
    entry = {
        "metric": metric,
        "value": value,
        "stderr": stderr,
        "interval": interval(value, stderr, [one for each in documents.values() for one in each["values"]]),
        "n": sum(counts.values()),
        "higher_is_better": _higher_is_better(found["higher_is_better"], [named, *leaves], metric),
        "all_metrics": {key: _number(each) for key, each in whole.items() if "," in key},
        "version": found["versions"].get(named),
        "shots": found["n-shot"].get(named, found["n-shot"].get(leaves[0])),
        "documents": documents,
    }
    parts = {name: each for name, each in results.items() if name != task}
    return entry | ({"subtasks": {name: _part(each, metric) for name, each in parts.items()}} if parts else {})


def _part(result: dict[str, Any], metric: str) -> dict[str, Any]:
    stderr = _number(result.get(_stderr_of(metric)))
    return {"value": _number(result.get(metric)), "stderr": stderr, "n": result.get("sample_len")}


def _metrics(result: dict[str, Any]) -> list[str]:
    return [key for key in result if "," in key and "_stderr," not in key]


def _stderr_of(metric: str) -> str:
    name, _, of = metric.partition(",")
    return f"{name}_stderr,{of}"


def _number(value: Any) -> float | None:
    """lm-eval writes "N/A" where it has none."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _documents(samples: list[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """The headline metric of each document; None where it is no number of a single document (perplexity, F1)."""
    name, _, of = metric.partition(",")
    rows = sorted((row for row in samples if row["filter"] == of), key=lambda row: row["doc_id"])
    values = [_number(row.get(name)) for row in rows]
    if not rows or any(value is None for value in values):
        return None
    return {"hash": text_hash(*(row[which] for row in rows for which in ("doc_hash", "prompt_hash"))), "values": values}


def _higher_is_better(found: dict[str, Any], names: list[str], metric: str) -> bool | None:
    """The metric's direction according to lm-eval, which lists pass@1 under its function's name."""
    name = metric.partition(",")[0]
    name = "pass_at_k" if name.startswith("pass@") else name
    return next((found[each][name] for each in names if (found.get(each) or {}).get(name) is not None), None)


def interval(value: float | None, stderr: float | None, values: list[float]) -> list[float] | None:
    """90 %: Wilson's where the value is the share of documents that are right, else normal from its standard error."""
    if value is None:
        return None
    if is_share(value, values):
        return wilson(sum(values), len(values))
    return None if stderr is None else [value - NORMAL * stderr, value + NORMAL * stderr]


def is_share(value: float, values: list[float]) -> bool:
    """All documents are right (1) or wrong (0), and the value is the share of right ones."""
    return set(values) <= {0.0, 1.0} and is_mean(value, values)


def is_mean(value: float, values: list[float]) -> bool:
    """The value is the mean over the documents (not so for a mean of tasks' means)."""
    return bool(values) and abs(sum(values) / len(values) - value) < 1e-9
