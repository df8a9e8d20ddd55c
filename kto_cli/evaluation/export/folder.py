"""An exported folder: written beside its place and renamed when complete; only an earlier export is replaced.

weights, config or adapter_config.json, tokenizer, chat template, generation_config.json, LICENSE of the base
README.md         model card
kto_export.json   what it was made from, and a checksum of every file; sealed
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kto_cli import __version__
from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.owner import beside, owning
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.evaluation.export.origin import CARD

MARK = "kto_export.json"
Write = Callable[[Path], None]
"""Fills a folder."""
WHAT = "an export's record"


def refuse_unless_free(folder: Path) -> None:
    """Refuses a folder that holds anything but an earlier export.

    Raises:
        BadInput: names what it holds.
    """
    if folder.is_file():
        raise BadInput(f"{folder} is a file.", "Give a new folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        raise BadInput(f"{folder} is not empty, and not an earlier export.", "Give a new folder.")
    known = {MARK, *read_sealed(folder / MARK, WHAT).get("files", {})}
    if others := sorted(set(files.files_below(folder)) - known):
        raise BadInput(
            f"{folder} is an earlier export with other files in it: {', '.join(others[:3])}.",
            "Move them, or give a new folder.",
        )


def write_export(
    folder: Path, facts: dict[str, Any], card: str | None, write: Write, warn: Callable[[str], None]
) -> None:
    """Writes an export, completely or not at all.

    Args:
        facts: what it was made from. card: the text of README.md, if there is one. write: writes all other files.

    Raises:
        BadInput: as `refuse_unless_free`, or another process writes there. DiskFull: no space left.
    """
    with owning(beside(folder), folder, "exporting to", warn=warn):
        refuse_unless_free(folder)
        with files.replacing_folder(folder) as temporary:
            write(temporary)
            if card is not None:
                (temporary / CARD).write_text(card, encoding="utf-8")
            written = files.files_below(temporary)
            files.give_usual_mode(written.values())
            hashes = {name: files.file_sha256(path) for name, path in written.items()}
            write_sealed(temporary / MARK, {"kto": __version__, **facts, "files": hashes})
