"""Files of a token store (store.py): written, sealed with hashes, and checked when opened."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.errors import BadInput
from kto_cli.common.files import file_sha256
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.model.tokens.encoding_report import EncodingReport
from kto_cli.model.tokens.store import COLUMNS, MANIFEST, STARTS, TOKENS, VERSION, WHAT, StoredTexts, TokenStore

NATIVE = sys.byteorder == "little" and array("I").itemsize == 4
"""Whether this machine's unsigned integers have the format of tokens.bin."""


class TextWriter:
    """Writer of tokens.bin, text by text, and of starts.npy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / TOKENS).open("wb")
        self._lengths = [numpy.zeros(1, "<u8")]
        self._digests = bytearray()
        self._count = 0

    def add(self, texts: Sequence[Sequence[int]]) -> NDArray[numpy.uint32]:
        """Appends texts and returns their numbers."""
        for text in texts:
            tokens = array("I", text).tobytes() if NATIVE else numpy.array(text, "<u4").tobytes()
            self._digests += digest(tokens)
            self._file.write(tokens)
        self._lengths.append(numpy.array([len(text) for text in texts], "<u8"))
        first, self._count = self._count, self._count + len(texts)
        return numpy.arange(first, self._count, dtype="u4")

    def close(self) -> None:
        """Closes tokens.bin and writes starts.npy."""
        self._file.close()
        numpy.save(self._folder / STARTS, numpy.concatenate(self._lengths).cumsum(dtype="<u8"))

    def add_keys(self, columns: dict[str, NDArray[Any]]) -> None:
        """Computes the columns `own_key` and `mismatched_key`; call it after `close`."""
        texts, lengths = StoredTexts(self._folder), numpy.concatenate(self._lengths)[1:]
        for which in ("own", "mismatched"):
            counts = columns[f"{which}_tokens"]
            truncated = counts < lengths[columns[which]]
            keys = [
                digest(
                    self._digest(prompt)
                    + (digest(texts.tokens(completion, count).tobytes()) if short else self._digest(completion))
                )
                for prompt, completion, count, short in zip(
                    *(each.tolist() for each in (columns["prompt"], columns[which], counts, truncated)), strict=True
                )
            ]
            columns[f"{which}_key"] = numpy.frombuffer(b"".join(keys), "V16")

    def _digest(self, text: int) -> bytes:
        return bytes(self._digests[16 * text : 16 * text + 16])


def digest(data: bytes) -> bytes:
    """16-byte BLAKE2b digest."""
    return hashlib.blake2b(data, digest_size=16).digest()


def seal(folder: Path, columns: Mapping[str, NDArray[Any]], report: EncodingReport) -> None:
    """Writes the columns, and store.json with the hashes of all files."""
    for name in COLUMNS:
        numpy.save(folder / f"{name}.npy", columns[name])
    hashes = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    facts = {**vars(report), "dropped": dict(report.dropped), "left_out": dict(report.left_out)}
    manifest = {"version": VERSION, "report": facts, "files": hashes}
    write_sealed(folder / MANIFEST, manifest)


def open_store(folder: Path) -> tuple[TokenStore, EncodingReport]:
    """Opens a store and checks the hash of every file.

    Raises:
        BadInput: a file is missing or damaged.
    """
    manifest = read_sealed(folder / MANIFEST, WHAT)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != expected:
            raise BadInput(f"{path} is {'damaged' if path.is_file() else 'missing'}.")
    report = manifest["report"]
    counters = {name: Counter(report[name]) for name in ("dropped", "left_out")}
    return TokenStore(folder), EncodingReport(**{**report, **counters})
