"""Data folder, written by `kto binarize` and read by all other commands. Its file formats are defined only here.

    train.parquet        training rows; columns as in `Row`
    validation.parquet   validation rows, the same columns; may have no rows
    rejects.jsonl        every input row that is in neither, with its origin and reason
    findings.jsonl       every row in them that has a finding of the doctor
    remarks.jsonl        what raters wrote about rows in them (reason, comment, tags); only if there is some
    README.md            dataset card: the splits that have rows, for `datasets.load_dataset` and the Hub
    manifest.json        counts, options, findings, the lambda interval, and the SHA-256 of the other files

Prompt and completion are both texts, or both lists of {role, content}; label is a boolean, true = desirable.
`datasets.load_dataset(FOLDER)` loads both splits, and TRL reads them as an unpaired preference dataset. Where a row has
tools or reasoning, messages have the fields of `texts.EXTRAS` too, and the column `tools` the JSON of a prompt's tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import being_replaced, file_sha256, remove, restore_folder, text_hash
from kto_cli.common.owner import beside, owning
from kto_cli.common.read import parquet_file, read_json, reading
from kto_cli.common.seals import unsealed
from kto_cli.data.arrow_chats import chat_type, from_arrow
from kto_cli.data.texts import TOOLS, Text

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "kto-data"
VERSION = 2
TRAIN, VALIDATION, REJECTS, FINDINGS, REMARKS, CARD, MANIFEST = (
    "train.parquet",
    "validation.parquet",
    "rejects.jsonl",
    "findings.jsonl",
    "remarks.jsonl",
    "README.md",
    "manifest.json",
)
FILES = (TRAIN, VALIDATION, REJECTS, FINDINGS, CARD)
"""Files of every dataset."""
WHAT = "rows of a dataset"
AGAIN = "Run kto binarize again, with --overwrite."
FIRST = "Run kto binarize first, for instance: kto binarize hh-rlhf"


@dataclass(frozen=True)
class Row:
    """Completion of a prompt with its label."""

    id: str
    """Hash of prompt, completion, label and, among exact duplicates, the occurrence."""
    prompt_id: str
    """Hash of the prompt."""
    pair_id: str | None
    """Shared by the two rows of a pair."""
    source: str
    origin: str
    """FILE:LINE of the raw input."""
    prompt: Text
    completion: Text
    label: bool
    """True: desirable."""


@dataclass(frozen=True)
class DataDir:
    """Dataset, checked against its manifest; each access to its rows reads the file again."""

    folder: Path
    manifest: dict[str, Any]
    fingerprint: str
    """Hash of both Parquet files."""
    sealed: bool = True
    """Whether the manifest has a checksum; those of an earlier kto have none."""

    @property
    def train(self) -> list[Row]:
        """Training rows."""
        return [row for rows in read_batches(self.folder / TRAIN) for row in rows]

    @property
    def validation(self) -> list[Row]:
        """Validation rows."""
        return [row for rows in read_batches(self.folder / VALIDATION) for row in rows]


COLUMNS = ("id", "prompt_id", "pair_id", "source", "origin", "prompt", "completion", "label")


def schema(*, chat: bool, has_more: bool = False) -> pa.Schema:
    """Parquet schema of both files, for chats (`has_more`: with tools or reasoning) or for texts."""
    import pyarrow as pa

    text = chat_type(has_more=has_more) if chat else pa.string()
    types = dict.fromkeys(COLUMNS, pa.string()) | {"prompt": text, "completion": text, "label": pa.bool_()}
    types |= {TOOLS: pa.string()} if has_more else {}
    return pa.schema([pa.field(name, kind, nullable=name in ("pair_id", TOOLS)) for name, kind in types.items()])


SCHEMAS = ({"chat": True}, {"chat": False}, {"chat": True, "has_more": True})
"""What tells the schemas apart."""


def read_batches(path: Path, size: int = 1024) -> Iterator[list[Row]]:
    """Rows of one Parquet file, at most `size` of them in memory.

    Raises:
        BadInput: see `read_columns`.
    """
    for columns in read_columns(path, COLUMNS, size):
        yield [Row(*values) for values in zip(*columns.values(), strict=True)]


def read_columns(path: Path, names: Sequence[str], size: int = 1024) -> Iterator[dict[str, list[Any]]]:
    """Columns `names` of one Parquet file, in this order, at most `size` rows of them in memory.

    Raises:
        BadInput: as `count_rows`, or the content cannot be read.
    """
    import pyarrow as pa

    count_rows(path)
    pa.set_memory_pool(pa.system_memory_pool())  # the default pool does not return freed memory: three times as much
    with parquet_file(path, WHAT) as file:
        has_tools = "prompt" in names and TOOLS in file.schema_arrow.names
        batches = file.iter_batches(batch_size=size, columns=[*names, *([TOOLS] if has_tools else [])])
        while True:
            with again_on_damage(), reading(path, WHAT):
                batch = next(batches, None)
                if batch is None:
                    return
                tools = batch.column(TOOLS) if has_tools else None
                values = {name: from_arrow(batch.column(name), tools if name == "prompt" else None) for name in names}
            yield values


def count_rows(path: Path) -> int:
    """Number of rows of a Parquet file.

    Raises:
        BadInput: it is missing, damaged or has other columns.
    """
    with again_on_damage(), parquet_file(path, WHAT) as file, reading(path, WHAT):
        if not any(file.schema_arrow.equals(schema(**kind)) for kind in SCHEMAS):
            found = ", ".join(file.schema_arrow.names)
            raise BadInput(f"{path} has other columns or types than those of kto ({found}).", AGAIN)
        return int(file.metadata.num_rows)


@contextmanager
def again_on_damage() -> Iterator[None]:
    """Context manager that adds to an error how a dataset is made again."""
    try:
        yield
    except BadInput as error:
        raise BadInput(error.what, AGAIN) from error


def load_data_dir(folder: Path) -> DataDir:
    """Opens a dataset and checks it against its manifest.

    Raises:
        BadInput: the folder, the manifest or a file is missing, damaged, changed or not of kto.
    """
    folder = Path(folder)
    restored(folder)
    if re.fullmatch(r"\..+\.(tmp|old)", folder.name):
        raise BadInput(f"{folder} is what a killed kto binarize left, not a dataset.", AGAIN)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise BadInput(f"{folder} {what}.", FIRST)
    what = "the manifest of a dataset; kto binarize writes it"
    found = read_json(folder / MANIFEST, what)
    manifest, intact = unsealed(found) if isinstance(found, dict) else ({}, None)
    if manifest.get("format") != FORMAT:
        raise BadInput(f"{folder / MANIFEST} is not the manifest of a dataset of kto binarize.", FIRST)
    if intact is False:
        raise BadInput(f"{folder / MANIFEST} is damaged or was changed by hand: its checksum differs.", AGAIN)
    if manifest.get("version") != VERSION:
        what = f"{folder} has format version {manifest.get('version')}; this version of kto reads {VERSION}."
        raise BadInput(what, AGAIN)
    hashes = []
    for name in (TRAIN, VALIDATION):
        if not (folder / name).is_file():
            raise BadInput(f"{folder / name} is missing.", AGAIN)
        hashes.append(file_sha256(folder / name))
        if hashes[-1] != manifest.get("files", {}).get(name):
            raise BadInput(f"{folder / name} is damaged or changed: its hash is not that of the manifest.", AGAIN)
        count_rows(folder / name)
    return DataDir(folder, manifest, text_hash(*hashes), sealed=intact is not None)


def restored(folder: Path) -> None:
    """Puts a dataset back if a `kto binarize --overwrite` was killed between its two renames.

    What one leaves that was killed after them is removed, as it would else come back once the dataset is deleted.

    Raises:
        BadInput: the dataset cannot be put back.
    """
    if not folder.name or not being_replaced(folder).is_dir():
        return
    try:
        # one that is alive is about to put the new dataset in place
        with owning(beside(folder), folder, "writing", waiting=lambda _: None):
            if not restore_folder(folder):
                remove(being_replaced(folder))
    except BadInput:
        if not folder.is_dir():
            raise
