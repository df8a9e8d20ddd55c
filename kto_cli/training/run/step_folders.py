"""Folders of single steps: steps/step-000200, best/step-000120. Each is complete and sealed, or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.seals import write_sealed
from kto_cli.model.written_files import STATE, read_state


@dataclass(frozen=True)
class StepFolders:
    """The folders of steps in a folder."""

    folder: Path

    def of(self, step: int) -> Path:
        """Such as steps/step-000200."""
        return self.folder / f"step-{step:06d}"

    def all(self) -> list[Path]:
        """Complete ones, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    @contextmanager
    def writing(self, step: int, state: dict[str, Any], *, others: int) -> Iterator[tuple[Path, dict[str, str]]]:
        """A folder to fill, completely or not at all; then of the other ones only the newest `others` stay.

        Yields:
            (the folder, SHA-256 by file name: files not entered there are hashed at the end).

        Raises:
            DiskFull: no space left; earlier folders are untouched.
        """
        with files.replacing_folder(self.of(step)) as folder:
            hashes: dict[str, str] = {}
            yield folder, hashes
            _seal(folder, {**state, "step": step}, hashes)
        rest = [path for path in self.all() if path != self.of(step)]
        for old in rest[: len(rest) - others]:
            _remove_whole(old)

    def latest(self) -> tuple[Path | None, dict[str, Any], list[str]]:
        """The newest folder whose files all match their checksums.

        Returns:
            (the folder or None, its state, the faults of newer ones).
        """
        faults: list[str] = []
        for folder in reversed(self.all()):
            try:
                return folder, read_state(folder), faults
            except BadInput as error:
                faults.append(error.what)
        return None, {}, faults

    def partial(self) -> list[Path]:
        """What a killed process left half-written."""
        return list(self.folder.glob(".step-*"))


def _seal(folder: Path, state: dict[str, Any], hashes: dict[str, str]) -> None:
    """Writes state.json with the checksums of all files of a folder; those in `hashes` are known."""
    written = files.files_below(folder)
    files.give_usual_mode(written.values())
    hashes |= {name: files.file_sha256(path) for name, path in written.items() if name not in hashes}
    write_sealed(folder / STATE, {**state, "files": dict(sorted(hashes.items()))})


def _remove_whole(folder: Path) -> None:
    """Removes a folder that at no instant has its name and lacks a file."""
    os.replace(folder, leaving := folder.with_name(f".{folder.name}.old"))
    shutil.rmtree(leaving)
