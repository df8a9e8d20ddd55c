"""Validation rows as the trained model, its loss and the reference read them: with control texts these differ.

A log-ratio shall measure what is served. The policy is therefore asked with the desirable control text whatever the
row's label, and the reference as its own chat template asks it; the loss alone reads each row behind the text of its
class. Without control texts the three are the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from kto_cli.model.tokens.store import EncodedRows, Sequences


@dataclass(frozen=True)
class ValidationRows:
    """The same rows in the same order, three times."""

    served: EncodedRows
    """As the trained model is asked."""
    reference: EncodedRows
    """As the reference is asked; completions are of as many tokens."""
    own: EncodedRows
    """As the loss reads them."""

    @classmethod
    def alike(cls, rows: EncodedRows) -> ValidationRows:
        """Rows without control texts."""
        return cls(rows, rows, rows)

    @classmethod
    def matched(cls, served: EncodedRows, reference: EncodedRows, own: EncodedRows) -> tuple[ValidationRows, int]:
        """The rows that are in all three, and how many of `served` are not.

        Behind a longer prompt a completion may be cut earlier; such rows are left out, as their log-ratio would compare
        two texts.
        """
        place = [{name: index for index, name in enumerate(rows.ids)} for rows in (reference, own)]
        lengths, of_reference = _lengths(served), _lengths(reference)
        chosen = [
            (index, place[0][name], place[1][name])
            for index, name in enumerate(served.ids)
            if all(name in each for each in place) and (lengths[index] == of_reference[place[0][name]]).all()
        ]
        parts = [rows.take([one[part] for one in chosen]) for part, rows in enumerate((served, reference, own))]
        return cls(*parts), len(served) - len(chosen)

    def __len__(self) -> int:
        return len(self.served)

    def take(self, indices: Sequence[int]) -> ValidationRows:
        """Some of the rows, in this order."""
        if self.own is self.served:
            return ValidationRows.alike(self.served.take(indices))
        return ValidationRows(*(rows.take(indices) for rows in (self.served, self.reference, self.own)))

    @property
    def read_otherwise(self) -> NDArray[numpy.int64]:
        """Indices of the rows that the loss reads otherwise than they are served: those of the other class."""
        return numpy.arange(0) if self.own is self.served else (~self.served.labels).nonzero()[0]

    @property
    def sequences(self) -> Sequences:
        """What the policy scores: own completions, mismatched ones, and `read_otherwise` as the loss reads them."""
        if self.own is self.served:
            return self.served.sequences
        count = len(self)
        parts = numpy.arange(count), 2 * count + numpy.arange(count), count + self.read_otherwise
        return (self.served + self.own).sequences.take(numpy.concatenate(parts))


def _lengths(rows: EncodedRows) -> NDArray[numpy.int64]:
    """[rows, 2] tokens of own and mismatched completions."""
    return numpy.stack([rows.own.completion_lengths, rows.mismatched.completion_lengths], 1)
