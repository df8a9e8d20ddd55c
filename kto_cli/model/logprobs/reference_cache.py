"""The reference cache: log-probabilities of the frozen model, addressed by content.

A value's key is (model weights and config, dtype, prompt ids, completion ids); nothing about a run is in
it, so beta, weights, learning rate, batch size, epochs and output folders never touch it. On disk, a
folder per model holds segments of frames. A frame is one micro-batch of values behind a checksum that
is keyed with the model, and is written whole or not at all:

    magic "KTO1" | count uint32 | count x (key 16 bytes, logp float64, tokens uint32) | checksum 16 bytes

A frame that is torn (a killed run), damaged or of another model is never used: the sound frames of its
segment are copied to a new segment, the old one is removed, and what is missing is computed again.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.cache import AppendFile, make_cache_folder, new_path, owning_in_cache
from kto_cli.common.errors import BadInput, DiskFull
from kto_cli.common.files import remove, replacing
from kto_cli.common.owner import LOCK, owning
from kto_cli.common.read import read_bytes

VERSION = 2
"""Increases when the arithmetic of a log-prob changes by more than rounding. 2: tokens are summed in float64."""
_MAGIC = b"KTO1"
_CHECKSUM = 16
_READ_AT_ONCE = 1 << 17
"""Bytes of records that are looked up at a time."""
_RECORD = numpy.dtype([("key", "V16"), ("logp", "<f8"), ("tokens", "<u4")])


class ReferenceCache:
    """The values of one model, as one dtype and one version of its code compute them."""

    def __init__(self, root: Path, *, numbers: str) -> None:
        """`numbers`: `identity.numbers_identity` of the model."""
        self._seal = hashlib.blake2b(f"{numbers} {VERSION}".encode(), digest_size=32).digest()
        self.folder = root / "reference" / self._seal.hex()[:32]
        self._segment = AppendFile(self.folder, ".segment")
        self._sizes: dict[str, int] = {}
        """Bytes of each segment that were read or written."""
        self._others: set[bytes] = set()
        self.fixed: list[str] = []
        """Segments in which a torn or damaged frame was found."""

    def read(self, keys: NDArray[numpy.void]) -> tuple[NDArray[numpy.float64], NDArray[numpy.int64]]:
        """What is stored of some sequences.

        Args:
            keys: [sequences] their 16-byte names, distinct and in ascending order (as numpy.unique gives them).

        Returns:
            [sequences] summed logps in nats, NaN where there is none; [sequences] their completion tokens.
        """
        logps, tokens = numpy.full(len(keys), numpy.nan), numpy.zeros(len(keys), "i8")
        if not self.folder.is_dir() or not len(keys):
            return logps, tokens
        with self._lock_if_writable() as writable:
            for path in sorted(self.folder.glob("*.segment")):
                for records in self._records(path, fix=writable):
                    places = numpy.searchsorted(keys, records["key"]).clip(max=len(keys) - 1)
                    # of several values of a sequence the first is the one that was used
                    wanted = (keys[places] == records["key"]) & numpy.isnan(logps[places])
                    logps[places[wanted][::-1]] = records["logp"][wanted][::-1]
                    tokens[places[wanted][::-1]] = records["tokens"][wanted][::-1]
        return logps, tokens

    def append(self, values: Sequence[tuple[bytes, float, int]]) -> None:
        """Stores one micro-batch of (key, logp, tokens), whole or not at all, safe against a power cut.

        What another process has stored since the last `read` stays as it is: who computes at the same time must
        `read` again and use what is stored.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """
        make_cache_folder(self.folder)
        with owning_in_cache(self.folder / LOCK, self.folder, "", _say_nothing):
            known = self._stored_since()
            new = [(numpy.void(key), logp, tokens) for key, logp, tokens in values if bytes(key) not in known]
            if new:
                path = self._segment.append(self._frame(numpy.array(new, _RECORD).tobytes()))
                self._sizes[path.name] = path.stat().st_size

    @contextmanager
    def _lock_if_writable(self) -> Iterator[bool]:
        """The lock of all writers; without it where nothing can be written, so that a read-only cache is read."""
        with ExitStack() as held:
            try:
                held.enter_context(owning(self.folder / LOCK, self.folder, "", waiting=_say_nothing))
                writable = True
            except (BadInput, DiskFull):
                writable = False
            yield writable

    def _records(self, path: Path, *, fix: bool) -> Iterator[NDArray[Any]]:
        """The sound records of a segment, some frames at a time."""
        try:
            data = read_bytes(path, "reference log-probs")
        except BadInput:
            data = b"?"  # no frame, and not sound
        frames, sound = self._frames(data)
        self._sizes[path.name] = len(data)
        del data
        if not sound:
            self.fixed.append(path.name)
            if fix:
                self._fix(path, frames)
        frames.reverse()
        while frames:
            some = [frames.pop()]
            while frames and sum(map(len, some)) < _READ_AT_ONCE:
                some.append(frames.pop())
            yield numpy.frombuffer(b"".join(some), _RECORD)

    def _stored_since(self) -> set[bytes]:
        """Keys that other processes have stored since the last `read` or `append`."""
        for path in sorted(self.folder.glob("*.segment")):
            seen = self._sizes.get(path.name, 0)
            if path.is_file() and path.stat().st_size > seen:
                data = read_bytes(path, "reference log-probs")
                self._sizes[path.name] = len(data)
                for payload in self._frames(data[seen:])[0]:
                    self._others |= {record.tobytes() for record in numpy.frombuffer(payload, _RECORD)["key"]}
        return self._others

    def _frame(self, payload: bytes) -> bytes:
        frame = _MAGIC + struct.pack("<I", len(payload) // _RECORD.itemsize) + payload
        return frame + self._checksum(frame)

    def _checksum(self, frame: bytes) -> bytes:
        return hashlib.blake2b(frame, key=self._seal, digest_size=_CHECKSUM).digest()

    def _frames(self, data: bytes) -> tuple[list[bytes], bool]:
        """The payloads of the sound frames, and whether that is all there is."""
        payloads, sound, start = [], True, 0
        while start < len(data):
            end = self._frame_end(data, start)
            if end is None:
                sound = False
                start = data.find(_MAGIC, start + 1)
                if start < 0:
                    break
                continue
            payloads.append(data[start + 8 : end - _CHECKSUM])
            start = end
        return payloads, sound

    def _frame_end(self, data: bytes, start: int) -> int | None:
        """Where the frame that starts here ends, or None if there is no sound one."""
        if data[start : start + 4] != _MAGIC or start + 8 > len(data):
            return None
        (count,) = struct.unpack_from("<I", data, start + 4)
        end = start + 8 + count * _RECORD.itemsize + _CHECKSUM
        sealed = data[end - _CHECKSUM : end]
        return end if end <= len(data) and self._checksum(data[start : end - _CHECKSUM]) == sealed else None

    def _fix(self, path: Path, payloads: list[bytes]) -> None:
        """Copies a segment's sound frames to a new one and removes it."""
        if payloads:
            with replacing(new_path(path.parent, "-fixed.segment")) as temporary:
                temporary.write_bytes(b"".join(self._frame(payload) for payload in payloads))
        remove(path)


def _say_nothing(text: str) -> None:
    """Another process has the lock for a moment only."""
