"""What a validation split is called to the user: notes, warnings, reasons of dropped rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
from kto_cli.core.statistics.curves import FEW_VALIDATION_ROWS, few_rows
from kto_cli.data.columns import I8, U8, Flags

LARGEST_ADVISED = 0.3
"""Share of the rows for validation that is advised at most; training needs the others."""
DETAILS = {
    "kept_training": "its prompt is a training row of --keep-split, and its conversation is for validation",
    "opening_validation": "its opening was for validation as long as few conversations began with it",
    "near_duplicate_training": "it would be for validation, but nearly the same prompts are for training",
    "large_validation": "its conversation has too many rows for the validation split",
    "few_validation": "it would be for validation, which needs rows of two prompts (z_ref pairs prompts with answers)",
    "prompt_validation": "the validation split has the same prompt",
    "conversation_validation": "the validation split has the same conversation",
    "near_duplicate_validation": "the validation split has nearly the same prompt",
}
"""Explanation of each reason to drop a row."""
SHARED = ("prompt_validation", "conversation_validation", "near_duplicate_validation")
"""Reasons of training rows, in the order of prompts, groups and clusters."""


@dataclass
class Split:
    """Rows for validation and rows to drop; all other rows are for training."""

    validation: Flags
    dropped: dict[str, Flags]
    """Rows by the reasons of `DETAILS`; no row has two."""
    unit_keys: U8
    """[rows, 2] key of each row's split unit, for `sample`."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def official_note(sources: NDArray[numpy.int16], used: Flags, free: Flags) -> str:
    """Note on official splits, if there are any; `free` are the rows of the sources without one."""
    count, without = len(numpy.unique(sources[used])), len(numpy.unique(sources[free]))
    if count == without:
        return ""
    if without:
        return f"Validation split: {count - without} of {plural(count, 'source')} have an official one, which is used."
    return "Validation split: the official one of the source is used, and --validation is ignored."


def drawn_note(free: Flags, drawn: Flags, roots: I8, seed: int) -> str:
    """Note on the rows drawn for validation, if there are any."""
    if not drawn.any():
        return ""
    count, rows = len(numpy.unique(roots[free])), int(free.sum())
    what = plural(count, "prompt or conversation", "prompts or conversations")
    number = len(numpy.unique(roots[drawn]))
    return f"Validation split: {drawn.sum():,} of {plural(rows, 'row')}, {number:,} of {what} (seed {seed})."


def with_counts(result: Split, labels: NDArray[numpy.int8], share: float, free: int, why_not: str = "") -> Split:
    """`result` with notes on dropped rows, and warnings if the validation rows are few or cannot give an AUC.

    Args:
        share: that was asked for. free: rows that may be drawn. why_not: why none was.
    """
    if why_not and share and free:
        result.warnings.append(f"No validation split: {why_not}. kto eval will need another dataset.")
    shared = sum(int(flags.sum()) for name, flags in result.dropped.items() if name in SHARED)
    if shared:
        what = "a prompt, a near-duplicate" if "near_duplicate_validation" in result.dropped else "a prompt"
        rows = plural(shared, "training row")
        result.notes.append(f"{rows} dropped, which share {what} or a conversation with the validation split.")
    for name, flags in result.dropped.items():
        if name not in SHARED:
            result.warnings.append(f"{plural(int(flags.sum()), 'row')} dropped: {DETAILS[name]}.")
    count = int(result.validation.sum())
    if not count and share and free and not result.warnings:
        result.warnings.append(
            f"No validation split: none of {plural(free, 'row')} was drawn; a larger --validation draws more. "
            "kto eval will need another dataset."
        )
    elif count and len(numpy.unique(labels[result.validation])) < 2:
        result.warnings.append("All validation rows have the same label, so kto eval cannot compute an AUC.")
    elif count and count < FEW_VALIDATION_ROWS:
        result.warnings.append(few_rows(count, _enough(share, free)))
    return result


def _enough(share: float, free: int) -> str:
    """Advice on a share that gives enough validation rows."""
    wanted = FEW_VALIDATION_ROWS / max(1, free)
    if share < wanted <= LARGEST_ADVISED:
        return f"--validation {wanted:.2g} would give about {FEW_VALIDATION_ROWS}."
    return "More feedback gives more."
