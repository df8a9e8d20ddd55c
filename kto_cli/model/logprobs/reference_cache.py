"""The reference cache: log-probabilities of the frozen model, addressed by content.

A value's key is (model weights and config, dtype, prompt ids, completion ids); nothing about a run is in
it, so beta, weights, learning rate, batch size, epochs and output folders never touch it. On disk, a
folder per model holds segments of frames (segments.py), of two kinds:

    sums    .segment   magic "KTO1", count records of (key 16 bytes, logp float64, tokens uint32)
    tokens  .tokens    magic "KTOT", count bytes: records of (key 16 bytes, tokens uint32, tokens x logp float32)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy
from numpy.typing import NDArray

from kto_cli.model.logprobs.segments import Segments

VERSION = 2
"""Increases when the arithmetic of a log-prob changes by more than rounding. 2: tokens are summed in float64."""
_RECORD = numpy.dtype([("key", "V16"), ("logp", "<f8"), ("tokens", "<u4")])
_HEAD = 20
"""Bytes of a record of `TokenCache` before its log-probs."""


class ReferenceCache(Segments):
    """The values of one model, as one dtype and one version of its code compute them."""

    magic, ending, unit = b"KTO1", ".segment", _RECORD.itemsize

    def __init__(self, root: Path, *, numbers: str) -> None:
        """`numbers`: `identity.numbers_identity` of the model."""
        seal = _seal(f"{numbers} {VERSION}")
        super().__init__(_folder(root, seal), seal)

    def read(self, keys: NDArray[numpy.void]) -> tuple[NDArray[numpy.float64], NDArray[numpy.int64]]:
        """What is stored of some sequences.

        Args:
            keys: [sequences] their 16-byte names, distinct and in ascending order (as numpy.unique gives them).

        Returns:
            [sequences] summed logps in nats, NaN where there is none; [sequences] their completion tokens.
        """
        logps, tokens = numpy.full(len(keys), numpy.nan), numpy.zeros(len(keys), "i8")
        if not len(keys):
            return logps, tokens
        for payload in self._payloads():
            records = numpy.frombuffer(payload, _RECORD)
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

        def payload(known: set[bytes]) -> bytes:
            new = [(numpy.void(key), logp, tokens) for key, logp, tokens in values if bytes(key) not in known]
            return numpy.array(new, _RECORD).tobytes() if new else b""

        self._append(payload)

    def _keys(self, payload: bytes) -> Iterable[bytes]:
        return (record.tobytes() for record in numpy.frombuffer(payload, _RECORD)["key"])


class TokenCache(Segments):
    """Log-probs of the single tokens of completions, in the folder of their sums."""

    magic, ending, unit = b"KTOT", ".tokens", 1

    def __init__(self, root: Path, *, numbers: str) -> None:
        """`numbers`: `identity.numbers_identity` of the model."""
        super().__init__(_folder(root, _seal(f"{numbers} {VERSION}")), _seal(f"{numbers} {VERSION} tokens"))

    def read(self, keys: NDArray[numpy.void], lengths: NDArray[numpy.int64]) -> NDArray[numpy.float32]:
        """What is stored of some sequences.

        Args:
            keys: [sequences] as of `ReferenceCache.read`. lengths: [sequences] their completion tokens.

        Returns:
            [tokens] log-probs in nats, of one sequence after the other; NaN where there is none.
        """
        starts = numpy.cumsum(lengths) - lengths
        logps = numpy.full(int(lengths.sum()), numpy.nan, "<f4")
        places = {key.tobytes(): place for place, key in enumerate(keys)}
        for payload in self._payloads():
            for key, stored in _token_records(payload):
                place = places.get(key)
                # of several values of a sequence the first is the one that was used
                if place is not None and lengths[place] == len(stored) and numpy.isnan(logps[starts[place]]):
                    logps[starts[place] : starts[place] + len(stored)] = stored
        return logps

    def append(self, values: Sequence[tuple[bytes, NDArray[numpy.float32]]]) -> None:
        """Stores one micro-batch of (key, log-probs), as `ReferenceCache.append` does.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """

        def payload(known: set[bytes]) -> bytes:
            new = [(bytes(key), logps.astype("<f4").tobytes()) for key, logps in values if bytes(key) not in known]
            return b"".join(key + struct.pack("<I", len(logps) // 4) + logps for key, logps in new)

        self._append(payload)

    def _keys(self, payload: bytes) -> Iterable[bytes]:
        return (key for key, _ in _token_records(payload))


def _token_records(payload: bytes) -> Iterator[tuple[bytes, NDArray[numpy.float32]]]:
    start = 0
    while start < len(payload):
        (count,) = struct.unpack_from("<I", payload, start + 16)
        stop = start + _HEAD + 4 * count
        yield payload[start : start + 16], numpy.frombuffer(payload[start + _HEAD : stop], "<f4")
        start = stop


def _seal(of: str) -> bytes:
    return hashlib.blake2b(of.encode(), digest_size=32).digest()


def _folder(root: Path, seal: bytes) -> Path:
    return root / "reference" / seal.hex()[:32]
