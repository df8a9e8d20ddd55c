"""What is wrong with feedback, or worth knowing of it, as numbers over all its rows (`Columns`), labels settled.

`examine` finds, `fix_mask` says which rows leave where that is asked for. Rows without a label, and rows that
are not `among` those asked about, are not there for either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.data.audit import dataset_checks
from kto_cli.data.audit.findings import NO_ROWS, Finding
from kto_cli.data.audit.near_duplicates import near_duplicates
from kto_cli.data.audit.text_checks import ABOUT, Found
from kto_cli.data.columns import I8, Columns, Flags

FIXED_BITS = {"refusals": Found.REFUSAL, "urls": Found.URL, "echoes": Found.ECHO}


def examine(
    columns: Columns,
    sources: Sequence[str],
    *,
    validation: Flags | None = None,
    among: Flags | None = None,
    clusters: I8 | None = None,
) -> list[Finding]:
    """All that is found, nothing that is not; the findings of a row's own text were made as it was read (`texts.look`).

    Args:
        sources: names, by their numbers in `columns.sources`.
        validation: [rows] the split to look for leaks in; None: not split yet.
        among: [rows] the rows to look at; None: all.
        clusters: [prompts] from `prompt_clusters`; None: near-duplicates are not looked for.
    """
    at = _rows(columns, among)
    if not len(at):
        return []
    found = [contradictions(columns, at), duplicates(columns, at), *in_texts(columns, at)]
    if clusters is not None:
        found.append(near_duplicate_prompts(columns, at, clusters, validation))
    if validation is not None:
        found.append(leaks(columns, at, validation))
    found = [finding for finding in found if len(finding.rows)]
    return [*found, *dataset_checks.say(columns, at, sources)]


def contradictions(columns: Columns, at: I8) -> Finding:
    """Rows of the same prompt and completion with both labels; `others`: the first with the other label."""
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
        f"{_of(rows, at)} say of {texts:,} answers both that they are desirable and that they are not",
        "--fix contradictions drops all of them",
        True,
        rows,
        "the same prompt and answer has the other label in another row",
        other[both],
        {"answers": texts},
    )


def duplicates(columns: Columns, at: I8) -> Finding:
    """Rows of the same prompt, completion and label, all but the first; `others`: that one."""
    _, first, same = numpy.unique(_texts(columns, at) * 2 + columns.labels[at], return_index=True, return_inverse=True)
    first_row = at[first][same]
    again = first_row != at
    return Finding(
        "duplicates",
        f"{_of(at[again], at)} repeat an earlier one: prompt, answer and label",
        "--fix duplicates keeps the first of each",
        True,
        at[again],
        "the same prompt, answer and label came before",
        first_row[again],
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
        found.append(Finding(about.name, summary, about.advice, about.warns, rows, about.detail, None, facts))
    return found


def near_duplicate_prompts(columns: Columns, at: I8, clusters: I8, validation: Flags | None) -> Finding:
    """Rows whose prompt is nearly the same as an earlier one of ANOTHER conversation (one conversation is never split).

    `others`: the first row of the cluster.
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
    return Finding(
        "near_duplicates",
        summary,
        "--fix near-duplicates keeps them on one side of the split",
        facts.get("clusters_in_both_splits", 0) > 0,
        at[near],
        "the prompt is nearly the same as that of an earlier row of another conversation",
        others[near],
        facts,
    )


def leaks(columns: Columns, at: I8, validation: Flags) -> Finding:
    """Training rows whose prompt or conversation has validation rows too; `others`: the first of those."""
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
    """[prompts] which prompts are nearly the same (`families.near_duplicates`)."""
    _, first = numpy.unique(columns.prompts, return_index=True)
    return near_duplicates(columns.sketches[first])


def fix_mask(columns: Columns, fixes: frozenset[str], *, among: Flags | None = None) -> dict[str, Flags]:
    """Which rows leave, by the finding they leave for; [rows] each, and each row for one finding at most.

    In this order: all rows of a contradiction, then refusals, urls and echoes, then of what is left all duplicates but
    the first. `encoding` and `near-duplicates` take no rows out.
    """
    left = numpy.zeros(len(columns), bool)
    left[_rows(columns, among)] = True
    leaving: dict[str, Flags] = {}

    def leave(name: str, rows: I8) -> None:
        leaving[name] = numpy.zeros(len(columns), bool)
        leaving[name][rows] = True
        left[rows] = False

    if "contradictions" in fixes:
        leave("contradictions", contradictions(columns, numpy.flatnonzero(left)).rows)
    for name, bit in FIXED_BITS.items():
        if name in fixes:
            leave(name, numpy.flatnonzero(left & (columns.findings & numpy.uint32(bit) != 0)))
    if "duplicates" in fixes:
        leave("duplicates", duplicates(columns, numpy.flatnonzero(left)).rows)
    return leaving


def _rows(columns: Columns, among: Flags | None) -> I8:
    labelled = columns.labels >= 0
    return numpy.flatnonzero(labelled if among is None else labelled & among)


def _texts(columns: Columns, at: I8) -> I8:
    """One number for each prompt with its completion."""
    if not len(at):
        return NO_ROWS
    return columns.prompts[at] * (int(columns.completions.max()) + 1) + columns.completions[at]


def _of(rows: NDArray[Any], at: I8) -> str:
    return f"{len(rows):,} of {len(at):,} rows"
