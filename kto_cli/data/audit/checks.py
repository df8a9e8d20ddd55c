"""Findings about labelled rows: contradictions, duplicates, near-duplicate prompts, leaks between splits.

`examine` gives the findings, `fix_mask` the rows that --fix removes. Both work on the numbers in `Columns`, and skip
rows without a label and rows outside `among`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.data.audit import dataset_checks, dominance
from kto_cli.data.audit.cut_answers import cut_answers, cut_rows, lost_newlines
from kto_cli.data.audit.findings import NO_ROWS, Finding, with_advice
from kto_cli.data.audit.found import ABOUT, Found
from kto_cli.data.audit.near_duplicates import near_duplicates
from kto_cli.data.columns import I8, Columns, Flags

FIXED_BITS = {"refusals": Found.REFUSAL, "urls": Found.URL, "echoes": Found.ECHO}


def examine(
    columns: Columns,
    sources: Sequence[str],
    *,
    validation: Flags | None = None,
    among: Flags | None = None,
    clusters: I8 | None = None,
    fixes: frozenset[str] = frozenset(),
) -> list[Finding]:
    """All findings with at least one row. Those about a row's own text were made when it was read (`text_checks.look`).

    Args:
        sources: names, indexed by `columns.sources`.
        validation: [rows] the row is for validation; None: not split yet.
        among: [rows] the rows to examine; None: all.
        clusters: [prompts] from `prompt_clusters`; None: no search for near-duplicates.
        fixes: the fixes that were made; no finding advises them again.
    """
    at = _rows(columns, among)
    if not len(at):
        return []
    found = [contradictions(columns, at), duplicates(columns, at), *in_texts(columns, at)]
    if clusters is not None:
        found.append(near_duplicate_prompts(columns, at, clusters, validation))
    if validation is not None:
        found.append(leaks(columns, at, validation))
    found += [cut_answers(columns, at), lost_newlines(columns, at)]
    all_found = [finding for finding in found if len(finding.rows)]
    all_found += [*dataset_checks.examine(columns, at, sources), *dominance.examine(columns, at)]
    return [with_advice(finding, fixes) for finding in all_found]


def contradictions(columns: Columns, at: I8) -> Finding:
    """Rows with the same prompt and completion but both labels; `others`: the first with the other label."""
    _, same = numpy.unique(_texts(columns, at), return_inverse=True)
    labels = columns.labels[at].astype(numpy.int64)
    first = numpy.full((2, int(same.max(initial=-1)) + 1), len(columns))
    numpy.minimum.at(first, (labels, same), at)
    other = first[1 - labels, same]
    both = other < len(columns)
    rows = at[both]
    texts = len(numpy.unique(same[both]))
    return Finding(
        "contradictions",
        f"{_of(rows, at)} say of {plural(texts, 'answer')} both that they are desirable and that they are not",
        "",
        True,
        rows,
        "the same prompt and answer has the other label in another row",
        other[both],
        {"answers": texts},
        fix="contradictions",
    )


def duplicates(columns: Columns, at: I8) -> Finding:
    """Rows that repeat prompt, completion and label of an earlier row; `others`: the first of them."""
    _, first, same = numpy.unique(_texts(columns, at) * 2 + columns.labels[at], return_index=True, return_inverse=True)
    first_row = at[first][same]
    again = first_row != at
    return Finding(
        "duplicates",
        f"{_of(at[again], at)} repeat an earlier one: prompt, answer and label",
        "",
        True,
        at[again],
        "the same prompt, answer and label came before",
        first_row[again],
        fix="duplicates",
    )


def in_texts(columns: Columns, at: I8) -> list[Finding]:
    """One finding for each bit of `Found`."""
    bits = columns.findings[at]
    found = []
    for bit, about in ABOUT.items():
        rows = at[bits & numpy.uint32(bit) != 0]
        desirable = int((columns.labels[rows] == 1).sum())
        facts = {"desirable": desirable, "undesirable": len(rows) - desirable}
        summary = f"in {_of(rows, at)} ({desirable:,} desirable): {about.detail}"
        words = (about.name, summary, about.advice, about.warns)
        found.append(Finding(*words, rows, about.detail, facts=facts, fix=about.fix))
    return found


def near_duplicate_prompts(columns: Columns, at: I8, clusters: I8, validation: Flags | None) -> Finding:
    """Rows whose prompt nearly equals an earlier one of another conversation; `others`: the cluster's first row.

    Within a conversation this is no finding: its rows are never split.
    """
    cluster = clusters[columns.prompts[at]]
    first = numpy.full(len(clusters), len(columns))
    numpy.minimum.at(first, cluster, at)
    others = first[cluster]
    near = columns.groups[at] != columns.groups[others]
    involved = numpy.unique(cluster[near])
    members = numpy.isin(cluster, involved)
    prompts = len(numpy.unique(columns.prompts[at[members]]))
    facts: dict[str, Any] = {"prompts": prompts, "clusters": len(involved)}
    facts["largest"] = int(numpy.bincount(cluster[members]).max()) if len(involved) else 0
    summary = f"{_of(at[near], at)} have a prompt nearly the same as one of another conversation"
    if validation is not None:
        crossing = numpy.intersect1d(cluster[members & validation[at]], cluster[members & ~validation[at]])
        facts["clusters_in_both_splits"] = len(crossing)
        summary += f"; {len(crossing):,} of {len(involved):,} such clusters are in train and validation both"
    together = facts.get("clusters_in_both_splits") == 0
    return Finding(
        "near_duplicates",
        summary,
        "",
        facts.get("clusters_in_both_splits", 0) > 0,
        at[near],
        "the prompt is nearly the same as that of an earlier row of another conversation",
        others[near],
        facts,
        "" if together else "near-duplicates",
    )


def leaks(columns: Columns, at: I8, validation: Flags) -> Finding:
    """Training rows that share a prompt or a conversation with validation rows; `others`: the first of those."""
    held = validation[at]
    other = numpy.full(len(at), len(columns))
    for numbers in (columns.prompts[at], columns.groups[at]):
        first = numpy.full(int(numbers.max()) + 1, len(columns))
        numpy.minimum.at(first, numbers[held], at[held])
        other = numpy.minimum(other, first[numbers])
    leaking = ~held & (other < len(columns))
    return Finding(
        "leakage",
        f"{_of(at[leaking], at)} to learn from share a prompt or a conversation with validation rows",
        "split again; what is measured on those rows means little",
        True,
        at[leaking],
        "the prompt or its conversation is in the validation split too",
        other[leaking],
    )


def prompt_clusters(columns: Columns) -> I8:
    """[prompts] number of the first prompt of each prompt's cluster of near-duplicates."""
    _, first = numpy.unique(columns.prompts, return_index=True)
    return near_duplicates(columns.sketches[first])


def fix_mask(columns: Columns, fixes: frozenset[str], *, among: Flags | None = None) -> dict[str, Flags]:
    """[rows] to remove, by finding; each row for one finding at most.

    Order: all rows of contradictions, then refusals, urls and echoes, then cut answers, then all duplicates but the
    first. `encoding` and `near-duplicates` remove no rows.
    """
    kept = numpy.zeros(len(columns), bool)
    kept[_rows(columns, among)] = True
    removed: dict[str, Flags] = {}

    def remove(name: str, rows: I8) -> None:
        removed[name] = numpy.zeros(len(columns), bool)
        removed[name][rows] = True
        kept[rows] = False

    if "contradictions" in fixes:
        remove("contradictions", contradictions(columns, numpy.flatnonzero(kept)).rows)
    for name, bit in FIXED_BITS.items():
        if name in fixes:
            remove(name, numpy.flatnonzero(kept & (columns.findings & numpy.uint32(bit) != 0)))
    if "cut-answers" in fixes:
        remove("cut-answers", cut_rows(columns, numpy.flatnonzero(kept))[0])
    if "duplicates" in fixes:
        remove("duplicates", duplicates(columns, numpy.flatnonzero(kept)).rows)
    return removed


def _rows(columns: Columns, among: Flags | None) -> I8:
    labelled = columns.labels >= 0
    return numpy.flatnonzero(labelled if among is None else labelled & among)


def _texts(columns: Columns, at: I8) -> I8:
    """[at] one number for each combination of prompt and completion."""
    if not len(at):
        return NO_ROWS
    return columns.prompts[at] * (int(columns.completions.max()) + 1) + columns.completions[at]


def _of(rows: NDArray[Any], at: I8) -> str:
    return f"{len(rows):,} of {plural(len(at), 'row')}"
