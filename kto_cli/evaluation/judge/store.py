"""What judges said, kept by content: an answer once given is never asked for again.

A folder per judge (its name, the wording, the criteria) holds segments, one per process, of JSON lines:

    {"key": what was asked, "value": what was answered, "check": checksum keyed with the judge}

A line is synced as soon as its answer is there. One that is torn (a killed run), damaged or of another judge is passed
over. A process that is killed loses the answers that were under way, and those alone: they had been asked for, and
whether the server had answered them cannot be known, so they are asked for again. Two processes that judge the same at
the same time do not see each other's answers until they start anew.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.cache import Segment

Value = dict[str, Any]


class VerdictStore:
    """The answers of one judge. Threads may share it; processes too, each writing its own segment."""

    def __init__(self, root: Path, identity: Sequence[str]) -> None:
        """
        Args:
            root: the cache; the store is in its folder `verdicts`.
            identity: all that makes this judge's answers its own.
        """
        self._seal = hashlib.blake2b(json.dumps(list(identity)).encode(), digest_size=32).digest()
        self.folder = root / "verdicts" / self._seal.hex()[:32]
        self._segment = Segment(self.folder, ".jsonl")
        self._lock = threading.Lock()
        self._values: dict[str, list[Value]] = {}
        self.damaged = 0
        """Lines that were passed over."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                self._take(line)

    def key(self, *parts: str) -> str:
        """32 hex digits that name what is asked of this judge."""
        return hashlib.blake2b(json.dumps(parts).encode(), key=self._seal, digest_size=16).hexdigest()

    def get(self, key: str) -> list[Value]:
        """All answers to one question, in the order they came."""
        return self._values.get(key, [])

    def add(self, answers: Sequence[tuple[str, Value]]) -> None:
        """Keeps some (key, answer), safe against a power cut.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """
        lines = b"".join(self._line(key, value) for key, value in answers)
        with self._lock:
            self._segment.append(lines)
            for key, value in answers:
                self._values.setdefault(key, []).append(value)

    def _line(self, key: str, value: Value) -> bytes:
        check = self._check(key, value)
        return json.dumps({"key": key, "value": value, "check": check}).encode() + b"\n"

    def _check(self, key: str, value: Value) -> str:
        text = json.dumps([key, value], sort_keys=True)
        return hashlib.blake2b(text.encode(), key=self._seal, digest_size=8).hexdigest()

    def _take(self, line: bytes) -> None:
        """Reads one line into memory, if it is whole."""
        if not line:
            return
        try:
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            sound = entry["check"] == self._check(key, value)
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            self.damaged += 1
            return
        self._values.setdefault(key, []).append(value)
