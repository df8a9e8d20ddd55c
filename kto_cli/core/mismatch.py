"""Which row lends each row its mismatched completion (the pairs z_ref is estimated from).

The partner is a property of the row and of the data, not of a batch: rows lie on a ring ordered by a
seeded hash of their content, and each borrows from the next one that qualifies. Shuffling the rows
changes nothing; a new row changes the partners of the few that now meet it first.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any


def mismatched_partners(prompts: Sequence[str], completions: Sequence[str], *, seed: int = 0) -> Sequence[int]:
    """For each row the index of the row whose completion it borrows.

    A partner never has the row's prompt and never its completion text.

    Args:
        prompts: what identifies each row's prompt (text or hash). completions: likewise.

    Raises:
        ValueError: some row has no such partner; the message says why.
    """
    places = [ring_place(*row, seed=seed) for row in zip(prompts, completions, strict=True)]
    return partners_on_ring(sorted(range(len(places)), key=places.__getitem__), prompts, completions)


def ring_place(prompt: str, completion: str, *, seed: int = 0) -> bytes:
    """A row's place on the ring, 16 bytes; lengths keep ("ab", "c") and ("a", "bc") apart."""
    text = f"{seed}\n{len(prompt)}\n{prompt}{completion}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def partners_on_ring(ring: Sequence[int], prompts: Sequence[Any], completions: Sequence[Any]) -> array[int]:
    """`mismatched_partners` for rows that need not be held as text: 8 bytes a row and list.

    Args:
        ring: row indices in the order of their `ring_place`. prompts, completions: for each row a value that is
            equal where prompt or completion text is (text, hash or number).

    Raises:
        ValueError: some row has no partner; the message says why.
    """
    count = len(ring)
    if all(prompt == prompts[0] for prompt in prompts):
        raise ValueError(
            f"all {count} rows have the same prompt, so no completion is a mismatched one and z_ref cannot be estimated"
        )
    past_prompt, past_completion = _next_other(ring, prompts), _next_other(ring, completions)
    partners = array("q", bytes(8 * count))
    for place, row in enumerate(ring):
        other, travelled = (place + 1) % count, 1
        while travelled < count:
            if prompts[ring[other]] == prompts[row]:
                leap = past_prompt
            elif completions[ring[other]] == completions[row]:
                leap = past_completion
            else:
                break
            travelled += (leap[other] - other) % count or count
            other = leap[other]
        if travelled >= count:
            raise ValueError(
                f"row {row} has no mismatched partner: every row with another prompt has the same completion text"
            )
        partners[row] = ring[other]
    return partners


def _next_other(ring: Sequence[int], values: Sequence[Any]) -> array[int]:
    """For each place on the ring the next place with another value (0 where all values are equal).

    Leaping over runs keeps the search short where one prompt or completion dominates.
    """
    count = len(ring)
    following = array("q", bytes(8 * count))
    for step in range(2 * count - 1, -1, -1):
        place = step % count
        after = (place + 1) % count
        following[place] = after if values[ring[after]] != values[ring[place]] else following[after]
    return following
