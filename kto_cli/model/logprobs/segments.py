"""Segments of the reference cache: files of frames, each written whole or not at all, and checked when read.

A frame is one micro-batch of values behind a checksum that is keyed with the model:

    magic 4 bytes | count uint32 | count units of the kind of segment | checksum 16 bytes

A frame that is torn (a killed run), damaged or of another model is never used: the sound frames of its segment are
copied to a new segment, the old one is removed, and what is missing is computed again.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kto_cli.common.cache import AppendFile, make_cache_folder, new_path, owning_in_cache
from kto_cli.common.errors import BadInput, DiskFull
from kto_cli.common.files import remove, replacing
from kto_cli.common.owner import LOCK, owning
from kto_cli.common.read import read_bytes

_CHECKSUM = 16
_READ_AT_ONCE = 1 << 17
"""Bytes of records that are looked up at a time."""


class Segments:
    """The segments of one kind in a folder; a kind of segment says what a frame holds."""

    magic: bytes
    ending: str
    unit: int
    """Bytes that `count` counts."""

    def __init__(self, folder: Path, seal: bytes) -> None:
        """`seal`: keys the checksums."""
        self.folder = folder
        self.fixed: list[str] = []
        """Segments in which a torn or damaged frame was found."""
        self._seal = seal
        self._segment = AppendFile(folder, self.ending)
        self._sizes: dict[str, int] = {}
        """Bytes of each segment that were read or written."""
        self._others: set[bytes] = set()

    def _keys(self, payload: bytes) -> Iterable[bytes]:
        """The keys of a frame's values."""
        raise NotImplementedError

    def _payloads(self) -> Iterator[bytes]:
        """All sound frames, some at a time, those of the first segment first."""
        if not self.folder.is_dir():
            return
        with self._lock_if_writable() as writable:
            for path in sorted(self.folder.glob(f"*{self.ending}")):
                yield from self._payloads_of(path, fix=writable)

    def _append(self, payload: Callable[[set[bytes]], bytes]) -> None:
        """Stores a frame, whole or not at all, safe against a power cut; `payload` is given the keys that other
        processes have stored since the last reading, whose values stay.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """
        make_cache_folder(self.folder)
        with owning_in_cache(self.folder / LOCK, self.folder, "", _say_nothing):
            new = payload(self._stored_since())
            if new:
                path = self._segment.append(self._frame(new))
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

    def _payloads_of(self, path: Path, *, fix: bool) -> Iterator[bytes]:
        """The sound frames of a segment, some at a time."""
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
            yield b"".join(some)

    def _stored_since(self) -> set[bytes]:
        """Keys that other processes have stored since the last reading or appending."""
        for path in sorted(self.folder.glob(f"*{self.ending}")):
            seen = self._sizes.get(path.name, 0)
            if path.is_file() and path.stat().st_size > seen:
                data = read_bytes(path, "reference log-probs")
                self._sizes[path.name] = len(data)
                for payload in self._frames(data[seen:])[0]:
                    self._others.update(self._keys(payload))
        return self._others

    def _frame(self, payload: bytes) -> bytes:
        frame = self.magic + struct.pack("<I", len(payload) // self.unit) + payload
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
                start = data.find(self.magic, start + 1)
                if start < 0:
                    break
                continue
            payloads.append(data[start + 8 : end - _CHECKSUM])
            start = end
        return payloads, sound

    def _frame_end(self, data: bytes, start: int) -> int | None:
        """Where the frame that starts here ends, or None if there is no sound one."""
        if data[start : start + 4] != self.magic or start + 8 > len(data):
            return None
        (count,) = struct.unpack_from("<I", data, start + 4)
        end = start + 8 + count * self.unit + _CHECKSUM
        sealed = data[end - _CHECKSUM : end]
        return end if end <= len(data) and self._checksum(data[start : end - _CHECKSUM]) == sealed else None

    def _fix(self, path: Path, payloads: list[bytes]) -> None:
        """Copies a segment's sound frames to a new one and removes it."""
        if payloads:
            with replacing(new_path(path.parent, f"-fixed{self.ending}")) as temporary:
                temporary.write_bytes(b"".join(self._frame(payload) for payload in payloads))
        remove(path)


def _say_nothing(text: str) -> None:
    """Another process has the lock for a moment only."""
