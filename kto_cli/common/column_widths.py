"""Widths of a table's columns on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def column_widths(columns: Sequence[Sequence[str]], width: int, measure: Callable[[str], int]) -> list[int]:
    """Widths of the columns of a table in which no word is broken; empty where its words do not fit.

    `measure`: columns that a text takes on the terminal.
    """
    wanted = [max(map(measure, column)) for column in columns]
    widths = [max((measure(word) for text in column for word in text.split()), default=0) for column in columns]
    room = width - 1 - 3 * len(columns) - sum(widths)  # the frame takes 3 columns for each, and one more
    if room < 0:
        return []
    for _ in range(min(room, sum(wanted) - sum(widths))):
        index = max(range(len(widths)), key=lambda each: wanted[each] - widths[each])
        widths[index] += 1
    return widths
