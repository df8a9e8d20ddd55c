"""Numbers of all rows in memory, about 150 bytes per row; texts are on disk meanwhile."""

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
    """Numbers of all rows of all sources, in input order; each field [rows] unless given."""

    prompt_keys: U8
    """[rows, 2] 128-bit hash of the prompt."""
    completion_keys: U8
    """[rows, 2] 128-bit hash of the completion."""
    group_keys: U8
    """[rows, 2] 128-bit hash of the group: rows of one conversation, which stay in one split."""
    root_keys: U8
    """[rows, 2] 128-bit hash of the prompt up to its first user turn, which decides the side of the split."""
    prompts: I8
    """Number from 0 for each distinct prompt."""
    completions: I8
    """Number from 0 for each distinct completion."""
    groups: I8
    """Number from 0 for each distinct group."""
    roots: I8
    """Number from 0 for each distinct root."""
    pairs: I8
    """Number shared by the two rows of a pair; -1 for a row of no pair."""
    labels: NDArray[numpy.int8]
    """1 desirable, 0 undesirable, NO_LABEL until the row's score is compared with a threshold."""
    scores: NDArray[numpy.float64]
    """NaN for a row without a score."""
    by_label: Flags
    """The score is a number from a label column: 1 and 0 are labels, if the column has no others."""
    official: Flags
    """The row is in its source's official validation or test split."""
    sources: NDArray[numpy.int16]
    """Index of the row's source on the command line."""
    prompt_chars: NDArray[numpy.int32]
    """Characters of the prompt."""
    completion_chars: NDArray[numpy.int32]
    """Characters of the completion."""
    findings: NDArray[numpy.uint32]
    """Bits for the findings in the row's own text (`audit/text_checks.py`)."""
    shapes: NDArray[numpy.uint8]
    """Bits of what the answer looks like (`audit/exporter_damage.py`), for findings about many rows together."""
    facets: NDArray[numpy.uint32]
    """[rows, 3] user, model and day of the row's record (`audit/facets.py`); 0 where it does not say."""
    sketches: U8
    """[rows, bands] MinHash sketch of the prompt (`audit/minhash.py`)."""

    def __len__(self) -> int:
        return len(self.labels)
