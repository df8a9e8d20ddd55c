"""A ranked list of answers as pairs.

    best-worst   the best and the worst; those between are left out
    middle       best and worst, second best and second worst, ...; of an odd number the one in the middle is left out
    adjacent     best and second, third and fourth, ...; of an odd number the last is left out
    adjacent, both labels: best and second, second and third, ...; an answer between is in both classes (how the KTO
                 authors' code reads OpenAssistant), and counts as two rows

But for the last, no text gets both labels: of a pair of equal texts both rows are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from kto_cli.data.formats.records import Dropped, Pair, Ranked


def paired(ranked: Ranked, way: str, *, both_labels: bool = False) -> list[Pair | Dropped]:
    """The pairs of a ranked list, and a `Dropped` for each answer that is in none; counts add up."""
    count = len(ranked.answers)
    chosen = places(count, way, both_labels)
    used = {place for pair in chosen for place in pair}
    dropped = [
        Dropped(ranked.origins[place], "ranked_between", f"rank {place + 1} of {count}, and --ranked {way}", 1)
        for place in range(count)
        if place not in used
    ]
    return [*(_pair(ranked, better, worse) for better, worse in chosen), *dropped]


def places(count: int, way: str, both_labels: bool) -> Sequence[tuple[int, int]]:
    """(better, worse) of each pair, as places in the list."""
    if way == "best-worst":
        return [(0, count - 1)] if count > 1 else []
    if way == "middle":
        return [(place, count - 1 - place) for place in range(count // 2)]
    return [(place, place + 1) for place in range(0, count - 1, 1 if both_labels else 2)]


def _pair(ranked: Ranked, better: int, worse: int) -> Pair | Dropped:
    chosen, rejected = ranked.answers[better], ranked.answers[worse]
    origin = ranked.origins[better]
    if chosen == rejected:
        detail = f"the answers of rank {better + 1} and {worse + 1} are the same text"
        return Dropped(origin, "answers_identical", detail, 2)
    return Pair(ranked.prompt, chosen, rejected, origin, ranked.group, ranked.split, ranked.origins[worse])
