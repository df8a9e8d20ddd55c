"""Folders of datasets: found, and checked before one is written."""

from __future__ import annotations

import os
from pathlib import Path

from kto_cli.common.binarize_config import FORMATS
from kto_cli.common.errors import BadInput
from kto_cli.common.files import being_replaced
from kto_cli.common.read import read_object
from kto_cli.data.dataset import FILES, FORMAT, MANIFEST, REMARKS, restored

LONGEST_NAME = 240
"""Maximum bytes of the folder's name: file systems allow 255, and a temporary name is longer."""


def is_ours(folder: Path) -> bool:
    """Whether `kto binarize` wrote the folder, by its manifest."""
    try:
        return read_object(folder / MANIFEST, "the manifest").get("format") == FORMAT
    except BadInput:
        return False


def check_out(folder: Path, *, overwrite: bool) -> None:
    """Checks that writing to the folder destroys nothing else.

    Raises:
        BadInput: the folder is a file, or not empty (unless `overwrite` and it has only files of kto).
    """
    if len(os.fsencode(folder.name)) > LONGEST_NAME:
        raise BadInput(f"A folder name of {len(folder.name)} characters is too long.", "Choose a shorter --out.")
    if os.path.isfile(folder) or folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise BadInput(f"{folder} cannot be the output folder.", "Choose a new folder with --out.")
    restored(folder)
    if not os.path.exists(folder) or not any(folder.iterdir()):  # pathlib's exists raises for a name that is too long
        return
    if not is_ours(folder):
        raise BadInput(f"{folder} is not empty and not a dataset of kto.", "Choose another folder with --out.")
    if foreign := sorted({path.name for path in folder.iterdir()} - {*FILES, REMARKS, MANIFEST, *FORMATS}):
        what = f"{folder} has other files than those of a dataset: {', '.join(foreign[:5])}."
        raise BadInput(what, "Move them away, or choose another folder with --out.")
    if not overwrite:
        what = f"{folder} already holds a dataset."
        raise BadInput(what, "Add --overwrite to replace it, or choose another folder with --out.")


def find_data_dir(path: str | None) -> Path:
    """Folder of the dataset to use: the named one, or the only one in ./data.

    Raises:
        BadInput: there is none, or several.
    """
    if path is not None:
        restored(Path(path))
        if not Path(path).is_dir():
            raise BadInput(f"{path} is not a folder.", "Give --data a folder that kto binarize wrote.")
        below = ", ".join(str(manifest.parent) for manifest in _manifests_below(Path(path)))
        if below and not (Path(path) / MANIFEST).is_file():
            raise BadInput(f"{path} is not a dataset, but contains some: {below}.", "Name one with --data.")
        return Path(path)
    for left in Path("data").glob(being_replaced(Path("*")).name):
        restored(left.with_name(left.name[1:-4]))
    found = [manifest.parent for manifest in _manifests_below(Path("data"))]
    if not found:
        step = "Run kto binarize hh-rlhf first, or name a dataset with --data."
        raise BadInput("There is no dataset in data/.", step)
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise BadInput(f"data/ has several datasets: {listed}.", "Name one with --data.")
    return found[0]


def _manifests_below(folder: Path) -> list[Path]:
    """Manifests of the datasets in a folder, without hidden folders, which are not complete."""
    return sorted(path for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
