"""Replies of judges, stored by content: what was asked once is never asked again."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.cache import RecordStore

Value = dict[str, Any]


class VerdictStore:
    """The replies of one judge, in memory and in the cache folder `verdicts`; threads may share it.

    A killed process loses only the replies that were under way. Two processes that judge the same at the same time see
    each other's replies at their next start.
    """

    def __init__(self, root: Path, identity: Sequence[str]) -> None:
        """
        Args:
            root: the cache. identity: all that can change this judge's replies.
        """
        self._records = RecordStore(root / "verdicts", list(identity))
        self._lock = threading.Lock()
        self._values: dict[str, list[Value]] = {}
        for key, value in self._records.read():
            self._values.setdefault(key, []).append(value)
        self.damaged = self._records.damaged
        """Lines that were skipped."""
        self.folder = self._records.folder

    def key(self, *parts: str) -> str:
        """32 hex digits that name what is asked of this judge."""
        return self._records.key(json.dumps(parts))

    def get(self, key: str) -> list[Value]:
        """All replies to one question, in the order they came."""
        return self._values.get(key, [])

    def add(self, answers: Sequence[tuple[str, Value]]) -> None:
        """Stores some (key, reply), safe against a power cut.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be created.
        """
        self._records.append(answers)
        with self._lock:
            for key, value in answers:
                self._values.setdefault(key, []).append(value)
