"""Pairs from ranked lists of answers.

    best-worst   the best and the worst; answers in between are dropped
    middle       best and worst, second best and second worst, ...; the middle answer of an odd number is dropped
    adjacent     best and second, third and fourth, ...; the last answer of an odd number is dropped
    adjacent, both labels: best and second, second and third, ...; an answer in between is in both classes (the KTO
                 authors' code reads OpenAssistant like this), and counts as two rows

In all but the last, no text gets both labels: a pair of two equal texts is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from kto_cli.data.formats.records import Dropped, Pair, Ranked


def paired(ranked: Ranked, way: str, *, both_labels: bool = False) -> list[Pair | Dropped]:
    """Pairs of a ranked list, and a `Dropped` for each answer in no pair."""
    count = len(ranked.answers)
    pairs = pair_ranks(count, way, both_labels)
    used = {rank for pair in pairs for rank in pair}
    dropped = [
        Dropped(ranked.origins[rank], "ranked_between", f"rank {rank + 1} of {count}, and --ranked {way}", 1)
        for rank in range(count)
        if rank not in used
    ]
    return [*(_pair(ranked, better, worse) for better, worse in pairs), *dropped]


def pair_ranks(count: int, way: str, both_labels: bool) -> Sequence[tuple[int, int]]:
    """(better, worse) of each pair, as ranks from 0."""
    if way == "best-worst":
        return [(0, count - 1)] if count > 1 else []
    if way == "middle":
        return [(rank, count - 1 - rank) for rank in range(count // 2)]
    return [(rank, rank + 1) for rank in range(0, count - 1, 1 if both_labels else 2)]


def _pair(ranked: Ranked, better: int, worse: int) -> Pair | Dropped:
    chosen, rejected = ranked.answers[better], ranked.answers[worse]
    origin = ranked.origins[better]
    if chosen == rejected:
        detail = f"the answers of rank {better + 1} and {worse + 1} are the same text"
        return Dropped(origin, "answers_identical", detail, 2)
    return Pair(ranked.prompt, chosen, rejected, origin, ranked.group, ranked.split, ranked.origins[worse])
