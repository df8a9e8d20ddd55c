"""Pairs made of single rows of one prompt (`--pair-within-prompts`), for losses that compare two answers.

Each kept row without a pair is used once at most, in the order of a seeded hash of its content, so that neither the
order of the rows nor other prompts matter. A row whose answer has both labels for its prompt is in no pair.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy

from kto_cli.common.words import plural
from kto_cli.data.columns import Columns, Flags
from kto_cli.data.pipeline.outcome import Outcomes
from kto_cli.data.seeded_order import numbered, priority, rank_in_groups, row_keys


class MadePairs(NamedTuple):
    """Counts of the pairs made and of the rows that stay unpaired."""

    pairs: int
    desirable: int
    undesirable: int
    """Rows of each class that stay without a pair, contradicting ones included."""
    contradicting: int
    """Rows whose answer has both labels for their prompt."""

    def sentence(self, most: int) -> str:
        """Sentence on what was made of at most `most` pairs a prompt."""
        both = f" (of them {self.contradicting:,} with an answer of both labels)" if self.contradicting else ""
        return (
            f"--pair-within-prompts {most} made {plural(self.pairs, 'pair')}; {self.desirable:,} desirable and "
            f"{self.undesirable:,} undesirable rows stay without one{both}."
        )


def pair_within_prompts(columns: Columns, outcomes: Outcomes, most: int, seed: int) -> MadePairs:
    """Makes pairs (in `columns.pairs`) of a desirable and an undesirable row, at most `most` a prompt."""
    single = outcomes.kept & (columns.pairs < 0)
    contradicting = single & _of_both_labels(columns, outcomes.kept)
    index = numpy.flatnonzero(single & ~contradicting)
    prompts = columns.prompts[index] * 2 + outcomes.codes[index]  # no prompt is in both splits, and no pair
    sides = prompts * 2 + columns.labels[index]
    keys = row_keys(columns.prompt_keys[index], columns.completion_keys[index], columns.labels[index])
    ranks = rank_in_groups(sides, priority(numbered(keys), seed, "pair_within_prompts"))
    place = numpy.unique(numpy.column_stack((prompts, ranks)), axis=0, return_inverse=True)[1].reshape(-1)
    paired = (numpy.bincount(place)[place] == 2) & (ranks < most) if len(index) else numpy.zeros(0, bool)
    numbers = numpy.unique(place[paired], return_inverse=True)[1]
    columns.pairs[index[paired]] = int(columns.pairs.max(initial=-1)) + 1 + numbers
    left = single & (columns.pairs < 0)
    return MadePairs(
        int(paired.sum()) // 2,
        int((left & (columns.labels == 1)).sum()),
        int((left & (columns.labels == 0)).sum()),
        int(contradicting.sum()),
    )


def _of_both_labels(columns: Columns, among: Flags) -> Flags:
    """[rows] rows of `among` with the same prompt and answer as one of the other label."""
    index = numpy.flatnonzero(among)
    texts = numpy.column_stack((columns.prompts[index], columns.completions[index]))
    which = numpy.unique(texts, axis=0, return_inverse=True)[1].reshape(-1)
    good, rows = numpy.bincount(which, columns.labels[index]), numpy.bincount(which)
    found = numpy.zeros(len(columns), bool)
    found[index] = ((good > 0) & (good < rows))[which]
    return found
