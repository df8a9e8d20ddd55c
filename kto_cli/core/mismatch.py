"""The mismatched completion of each row (TRL: KL completion); z_ref is estimated from these pairs.

A row's partner, whose completion becomes the row's mismatched one, depends on the row and the data, not on a batch: a
seeded hash of their content orders all rows on a ring, and a row's partner is the next row that qualifies. Shuffling
the rows changes nothing; a new row changes the partners of the few rows just before it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any


def ring_key(prompt: str, completion: str, *, seed: int = 0) -> bytes:
    """16 bytes that order a row on the ring; the length keeps ("ab", "c") and ("a", "bc") apart."""
    text = f"{seed}\n{len(prompt)}\n{prompt}{completion}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def mismatched_partners(ring: Sequence[int], prompts: Sequence[Any], completions: Sequence[Any]) -> array[int]:
    """For each row the index of its partner, a row with another prompt and another completion text; -1 without one.

    Values take 8 bytes a row, so that texts need not be in memory.

    Args:
        ring: row indices in the order of their `ring_key`. prompts, completions: for each row a value that is
            equal where prompt or completion text is (text, hash or number).

    Raises:
        ValueError: all rows have the same prompt, or no row has a partner.
    """
    count = len(ring)
    if all(prompt == prompts[0] for prompt in prompts):
        raise ValueError(
            f"all {count} rows have the same prompt, so no completion is a mismatched one and z_ref cannot be estimated"
        )
    after_prompt, after_completion = _next_different(ring, prompts), _next_different(ring, completions)
    partners = array("q", bytes(8 * count))
    for position, row in enumerate(ring):
        other, distance = (position + 1) % count, 1
        while distance < count:
            if prompts[ring[other]] == prompts[row]:
                skip = after_prompt
            elif completions[ring[other]] == completions[row]:
                skip = after_completion
            else:
                break
            distance += (skip[other] - other) % count or count
            other = skip[other]
        partners[row] = ring[other] if distance < count else -1
    if max(partners) < 0:
        raise ValueError(f"all {count} rows have the same completion, so none is a mismatched one for another row")
    return partners


def _next_different(ring: Sequence[int], values: Sequence[Any]) -> array[int]:
    """For each position on the ring the next position with a different value (0 where all values are equal).

    Skipping whole runs keeps the search short where one prompt or completion is frequent.
    """
    count = len(ring)
    following = array("q", bytes(8 * count))
    for step in range(2 * count - 1, -1, -1):
        position = step % count
        after = (position + 1) % count
        following[position] = after if values[ring[after]] != values[ring[position]] else following[after]
    return following
