"""Which row lends each row its mismatched completion (the pairs z_ref is estimated from).

The partner is a property of the row and of the data, not of a batch: rows lie on a ring ordered by a
seeded hash of their content, and each borrows from the next one that qualifies. Shuffling the rows
changes nothing; a new row changes the partners of the few that now meet it first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def mismatched_partners(prompts: Sequence[str], completions: Sequence[str], *, seed: int = 0) -> list[int]:
    """For each row the index of the row whose completion it borrows.

    A partner never has the row's prompt and never its completion text.

    Args:
        prompts: what identifies each row's prompt (text or hash). completions: likewise.

    Raises:
        ValueError: some row has no such partner; the message says why.
    """
    count = len(prompts)
    if len(set(prompts)) < 2:
        raise ValueError(
            f"all {count} rows have the same prompt, so no completion is a mismatched one and z_ref cannot be estimated"
        )
    ring = sorted(range(count), key=lambda row: _place(prompts[row], completions[row], seed))
    ring_prompts = [prompts[row] for row in ring]
    ring_completions = [completions[row] for row in ring]
    past_prompt, past_completion = _next_other(ring_prompts), _next_other(ring_completions)
    partners = [0] * count
    for place, row in enumerate(ring):
        other, travelled = (place + 1) % count, 1
        while travelled < count:
            if ring_prompts[other] == ring_prompts[place]:
                leap = past_prompt
            elif ring_completions[other] == ring_completions[place]:
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


def _place(prompt: str, completion: str, seed: int) -> bytes:
    """A row's place on the ring; lengths keep ("ab", "c") and ("a", "bc") apart."""
    text = f"{seed}\n{len(prompt)}\n{prompt}{completion}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _next_other(values: list[str]) -> list[int]:
    """For each place on the ring the next place with another value (at least two values are given).

    Leaping over runs keeps the search short where one prompt or completion dominates.
    """
    count = len(values)
    following = [0] * count
    for step in range(2 * count - 1, -1, -1):
        place = step % count
        after = (place + 1) % count
        following[place] = after if values[after] != values[place] else following[after]
    return following
