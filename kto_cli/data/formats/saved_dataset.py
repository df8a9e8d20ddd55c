"""Folders that `datasets.save_to_disk` wrote: one dataset, or one folder for each split.

state.json           of a dataset: the names of its Arrow files
dataset_dict.json    of several: the names of its splits, each a folder with a dataset
"""

from __future__ import annotations

from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_object
from kto_cli.data.formats.records import VALIDATION
from kto_cli.data.formats.source import RawFile

STATE, SPLITS = "state.json", "dataset_dict.json"
WHAT = "part of a dataset saved by datasets"
AGAIN = "Save it again, or as Parquet: datasets.load_from_disk(FOLDER).to_parquet(FILE)"


def saved_files(folder: Path) -> list[RawFile]:
    """Arrow files of such a folder, its test and validation splits for validation; none for any other folder.

    Raises:
        BadInput: a file of it is damaged or missing.
    """
    if (folder / SPLITS).is_file():
        found = read_object(folder / SPLITS, WHAT)
        splits = found.get("splits")
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
            raise BadInput(f"{folder / SPLITS} names no splits.", AGAIN)
        official = {"validation", "test"} if "train" in splits else set()
        return [
            RawFile(file, f"{name}/{file.name}", name, VALIDATION if name in official else None)
            for name in splits
            for file in _arrow_files(folder / name)
        ]
    if (folder / STATE).is_file():
        return [RawFile(file, file.name) for file in _arrow_files(folder)]
    return []


def _arrow_files(folder: Path) -> list[Path]:
    """Files of one dataset."""
    state = read_object(folder / STATE, WHAT)
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(isinstance(one, dict) and "filename" in one for one in files):
        raise BadInput(f"{folder / STATE} is not that of a dataset saved by datasets.", AGAIN)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise BadInput(f"{folder} holds a selection of the rows of its files.", AGAIN)
    return [folder / str(one["filename"]) for one in files]
