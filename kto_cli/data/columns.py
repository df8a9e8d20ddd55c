"""What is kept in memory of each row while its text waits on disk: numbers alone, about 130 bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

U8 = NDArray[numpy.uint64]
I8 = NDArray[numpy.int64]
Flags = NDArray[numpy.bool_]

NO_LABEL = -1


@dataclass
class Columns:
    """All rows of all sources in input order; every field [rows], or [rows, ...] where said."""

    prompt_keys: U8
    """[rows, 2] a 128-bit hash of the prompt; so for the next two."""
    completion_keys: U8
    group_keys: U8
    """Of what must not be split between train and validation: the root of the conversation."""
    prompts: I8
    """A number from 0 for each distinct prompt; so for the next two."""
    completions: I8
    groups: I8
    pairs: I8
    """The same number for the two rows of a pair; -1: of no pair."""
    labels: NDArray[numpy.int8]
    """1 desirable, 0 undesirable, NO_LABEL where the score is not cut yet."""
    scores: NDArray[numpy.float64]
    """NaN where there is none."""
    by_label: Flags
    """The score is a number from a label column: 1 and 0 are labels, if the column has no others."""
    official: Flags
    """In the source's own validation split."""
    sources: NDArray[numpy.int16]
    """Which source, in the order they were named."""
    prompt_chars: NDArray[numpy.int32]
    completion_chars: NDArray[numpy.int32]
    findings: NDArray[numpy.uint32]
    """Bits: what was found in the row's own text (`audit/text_checks.py`)."""
    sketches: U8
    """[rows, bands] prompts that are nearly the same share a band (`audit/minhash.py`)."""

    def __len__(self) -> int:
        return len(self.labels)
