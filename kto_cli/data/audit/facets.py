"""Facets of a record: who rated it, which model answered and on which day, where its columns say so.

Only a hash of the user and of the model is kept: findings count them and name none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from zlib import crc32

USER = (
    "user_id",
    "userId",
    "user",
    "username",
    "user_name",
    "annotator",
    "annotator_id",
    "rater",
    "rater_id",
    "author_id",
)
MODEL = ("model", "model_id", "model_name", "modelId", "generator")
TIME = ("created_at", "createdAt", "timestamp", "created", "time", "date", "start_time")
WITHIN = ("meta", "metadata", "data")
"""Objects of a record that may hold the columns above."""
ALL_NAMES = frozenset((*USER, *MODEL, *TIME, *WITHIN))
DAY = re.compile(r"\s*(\d{4})[-/](\d\d)[-/](\d\d)")
SECONDS = 1e9, 4e9
"""Numbers of seconds since 1970 that are dates from 2001 to 2096; a thousand times as many are milliseconds."""


class Facets(NamedTuple):
    """Facets of a record; 0 for one that is not told."""

    user: int = 0
    model: int = 0
    day: int = 0
    """As `datetime.date.toordinal` counts."""


NO_FACETS = Facets()


def facets_of(values: Mapping[str, Any] | None) -> Facets:
    """Facets of the values of a record."""
    if not values or ALL_NAMES.isdisjoint(values):
        return NO_FACETS
    inner = [values[name] for name in WITHIN if isinstance(values.get(name), dict)]
    found = [_first((values, *inner), names) for names in (USER, MODEL, TIME)]
    return Facets(_code(found[0]), _code(found[1]), day_of(found[2]))


def _first(objects: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> Any:
    return next((each[name] for each in objects for name in names if each.get(name) not in (None, "")), None)


def _code(value: Any) -> int:
    return (crc32(str(value).encode("utf-8", "replace")) or 1) if isinstance(value, (str, int)) else 0


def day_of(value: Any) -> int:
    """The day of a date, a time or a number of seconds or milliseconds, as `date.toordinal` counts; 0 if it is none."""
    if isinstance(value, date):
        return value.toordinal()
    try:
        if isinstance(value, str) and (found := DAY.match(value)):
            return date(*map(int, found.groups())).toordinal()
        seconds = float(value)
        seconds = seconds / 1000 if seconds >= SECONDS[1] else seconds
        return datetime.fromtimestamp(seconds, UTC).toordinal() if SECONDS[0] <= seconds < SECONDS[1] else 0
    except (TypeError, ValueError, OverflowError):
        return 0
