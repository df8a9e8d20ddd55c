"""Model folders that kto wrote, a finished run or a checkpoint of one: every file compared with its checksum.

A finished run has the checksums in kto_config.json under "finished", a checkpoint in its state.json; both are sealed.
Folders of others have none and are taken as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import weights_sha256
from kto_cli.common.seals import read_sealed

STATE, SETTINGS, CARD = "state.json", "kto_config.json", "README.md"
LAST_FILES = ("config.json", "adapter_config.json")
"""Written last, of a model or of an adapter: its presence means that all other files are there."""
ON_PURPOSE = (
    "Restore it. If it was changed on purpose, remove kto_config.json: then the folder is a model like any other."
)


def is_model_folder(folder: Path) -> bool:
    """Whether the folder has a complete model or an adapter."""
    return any((folder / name).is_file() for name in LAST_FILES)


def read_state(folder: Path) -> dict[str, Any]:
    """The state.json of a checkpoint, after comparing every file with its checksum.

    Raises:
        BadInput: a file is missing or not as it was written; names it.
    """
    state = read_sealed(folder / STATE, "a checkpoint's state")
    counters = [state.get(name) for name in ("step", "rows", "tokens")]
    if not all(type(count) is int and count >= 0 for count in counters) or not isinstance(state.get("files"), dict):
        raise BadInput(f"{folder / STATE} is damaged (a checkpoint's state): it lacks counters or checksums.")
    _compare(folder, state["files"], "Resume the run, or take another step.")
    return state


def check_files(folder: Path) -> list[str]:
    """Compares all files of a finished run or of a checkpoint with their checksums.

    Returns:
        what differs and decides no number: the model card.

    Raises:
        BadInput: a file that decides numbers is missing or not as it was written; names it.
    """
    if (folder / STATE).exists():
        read_state(folder)
        return []
    if not (folder / SETTINGS).exists() or not is_model_folder(folder):
        return []
    finished = read_sealed(folder / SETTINGS, "the run's settings").get("finished")
    hashes = dict(finished["files"]) if isinstance(finished, dict) and isinstance(finished.get("files"), dict) else {}
    card = hashes.pop(CARD, None)
    _compare(folder, hashes, ON_PURPOSE)
    notes = []
    if card is not None and not _is(folder / CARD, card):
        notes.append(f"{folder / CARD} is not as kto wrote it; it decides no number.")
    if not any(name in LAST_FILES for name in hashes):
        notes.append(f"{folder} was written by an earlier kto: only its weights have checksums, and they are right.")
    return notes


def run_settings_of(folder: Path) -> dict[str, Any]:
    """The kto_config.json of the run that wrote a model folder, which is its own or a checkpoint's; empty for others.

    Raises:
        BadInput: it is damaged.
    """
    owner = folder.resolve()
    if re.fullmatch(r"step-\d+", owner.name) and owner.parent.name == "steps":
        owner = owner.parent.parent
    return dict(read_sealed(owner / SETTINGS, "the run's settings")) if (owner / SETTINGS).is_file() else {}


def _compare(folder: Path, hashes: dict[str, str], next_step: str) -> None:
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise BadInput(f"{path} is missing.", next_step)
        if not _is(path, expected):
            raise BadInput(f"{path} is damaged or was changed by hand: its checksum differs.", next_step)


def _is(path: Path, expected: str) -> bool:
    try:
        return weights_sha256(path) == expected
    except OSError:
        return False
