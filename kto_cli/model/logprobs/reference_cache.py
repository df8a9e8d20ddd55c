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
from collections.abc import Sequence
from pathlib import Path

import numpy
from numpy.typing import NDArray

from kto_cli.common.cache import AppendFile, new_path
from kto_cli.common.files import replacing

_MAGIC = b"KTO1"
_CHECKSUM = 16
_RECORD = numpy.dtype([("key", "V16"), ("logp", "<f8"), ("tokens", "<u4")])


class ReferenceCache:
    """The values of one model in one dtype."""

    def __init__(self, root: Path, *, fingerprint: str, dtype: str) -> None:
        self._seal = hashlib.blake2b(f"{fingerprint} {dtype} 1".encode(), digest_size=32).digest()
        self.folder = root / "reference" / self._seal.hex()[:32]
        self._segment = AppendFile(self.folder, ".segment")
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
        for path in sorted(self.folder.glob("*.segment")):
            frames, sound = self._frames(path.read_bytes())
            if not sound:
                self._fix(path, frames)
            records = numpy.frombuffer(b"".join(frames), _RECORD)
            places = numpy.searchsorted(keys, records["key"]).clip(max=len(keys) - 1)
            wanted = keys[places] == records["key"]
            logps[places[wanted]] = records["logp"][wanted]
            tokens[places[wanted]] = records["tokens"][wanted]
        return logps, tokens

    def append(self, values: Sequence[tuple[bytes, float, int]]) -> None:
        """Stores one micro-batch of (key, logp, tokens), whole or not at all, safe against a power cut.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """
        payload = numpy.array([(numpy.void(key), logp, tokens) for key, logp, tokens in values], _RECORD).tobytes()
        self._segment.append(self._frame(payload))

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
        self.fixed.append(path.name)
        if payloads:
            with replacing(new_path(path.parent, "-fixed.segment")) as temporary:
                temporary.write_bytes(b"".join(self._frame(payload) for payload in payloads))
        path.unlink(missing_ok=True)
