"""Pair ids that make no pair because too many rows hold them."""

from __future__ import annotations

import numpy

from kto_cli.common.words import plural
from kto_cli.model.tokens.store import EncodedRows


def crowded_notes(rows: EncodedRows, what: str) -> list[str]:
    """Sentence on pair ids that more than two rows hold.

    Args:
        what: the rows' split, in words.
    """
    if not rows:
        return []
    names, held = numpy.unique(rows.column("pair_id")[rows.column("paired").astype(bool)], return_counts=True)
    crowded = numpy.flatnonzero(held > 2)
    if not len(crowded):
        return []
    first = f"pair_id {names[crowded[0]].decode()} is held by {held[crowded[0]]:,} {what} rows"
    others = f", and {plural(len(crowded) - 1, 'other')} by more than two" if len(crowded) > 1 else ""
    return [f"{first}{others}: a pair is one desirable and one undesirable row, so these rows make none."]
