"""Answers that say the same thing over and over, as when a model loops."""

from __future__ import annotations

PROBE = 24
"""Characters that must recur before a repetition is examined."""
LEAST_REPEATED = 120
"""Characters; a shorter repetition is a figure of speech."""
LEAST_TIMES = 4
LEAST_SHARE = 0.4
"""Share of the answer that the repetition fills."""
MOST_READ = 20_000
"""Characters of an answer that are examined for repetition."""


def repeats(text: str) -> bool:
    """Whether one repeated stretch fills LEAST_SHARE of the text, as when a model loops.

    Only the end of each quarter is examined: a loop that long includes one of them.
    """
    text = text[:MOST_READ].rstrip()
    for end in (len(text), len(text) * 3 // 4, len(text) // 2, len(text) // 4):
        start = end - PROBE
        if start < 0:
            continue
        before = text.rfind(text[start:end], 0, end - 1)
        if before >= 0 and _looped(text, before, start - before):
            return True
    return False


def _looped(text: str, start: int, period: int) -> bool:
    """Whether the text around `start` repeats with this `period` for long enough."""
    low = high = start
    while low > 0 and text[low - 1] == text[low - 1 + period]:
        low -= 1
    while high + period < len(text) and text[high] == text[high + period]:
        high += 1
    length = high + period - low
    return length >= max(LEAST_REPEATED, LEAST_TIMES * period, LEAST_SHARE * len(text))
