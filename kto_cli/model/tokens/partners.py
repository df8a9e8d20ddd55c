"""The row that lends each row its mismatched completion (core/mismatch.py), found by the keys of the rows."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.errors import BadData
from kto_cli.core.mismatch import mismatched_partners
from kto_cli.model.tokens.row_keys import RowKeys
from kto_cli.model.tokens.store import integers


def partners(keys: RowKeys) -> NDArray[Any]:
    """[rows] partner of each row; -1 without any.

    Raises:
        BadData: no row has one.
    """
    try:
        return _found(keys.ring, keys.prompts, keys.completions)
    except ValueError as error:
        raise BadData(f"KTO cannot learn from these rows: {error}.", "Add rows with other prompts.") from error


def partners_among(keys: RowKeys, lenders: NDArray[numpy.bool_]) -> NDArray[Any]:
    """[rows] partner of each lender among the lenders; -1 without any, and for the other rows.

    A row whose partner is a lender keeps it: the others are left out of the ring.
    """
    among = numpy.full(len(lenders), -1)
    rows = numpy.flatnonzero(lenders)
    position = numpy.cumsum(lenders) - 1
    try:
        found = _found(position[keys.ring[lenders[keys.ring]]], keys.prompts[rows], keys.completions[rows])
    except ValueError:
        return among
    among[rows] = numpy.where(found < 0, -1, rows[found])
    return among


def _found(ring: NDArray[Any], prompts: NDArray[Any], completions: NDArray[Any]) -> NDArray[Any]:
    return numpy.asarray(mismatched_partners(*map(integers, (ring, prompts, completions))))
