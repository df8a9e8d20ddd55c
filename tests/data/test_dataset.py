"""The data folder: written whole or not at all, and damage is noticed."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from binarizing import binarize, write_lines

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.files import replacing_folder
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.data import dataset, dataset_writer
from kto_cli.data.dataset import Row, load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.data.dataset_writer import finish, write_data_dir, writing_data_dir
from kto_cli.data.pipeline.export import FORMS


def row(number: int, *, label: bool = True, chat: bool = True) -> Row:
    prompt, completion = f"Q{number}", f"A{number} é\u2028"
    return Row(
        id=f"{number:016x}",
        prompt_id=f"p{number}",
        pair_id=None if number % 2 else f"pair{number}",
        source="test",
        origin=f"test.csv:{number}",
        prompt=({"role": "user", "content": prompt},) if chat else prompt,
        completion=({"role": "assistant", "content": completion},) if chat else completion,
        label=label,
    )


def write(folder: Path, *, chat: bool = True, overwrite: bool = False, count: int = 6) -> dict:
    rows = [row(number, label=number % 3 == 0, chat=chat) for number in range(count)]
    rejects = [{"origin": "a:1", "raw": "half a pair \ud83d, é"}]
    return write_data_dir(folder, rows[:-2], rows[-2:], rejects, {"note": "n"}, overwrite=overwrite)


@pytest.mark.parametrize("chat", [True, False])
def test_what_is_written_is_read(tmp_path, chat):
    folder = tmp_path / "deep" / "set"
    manifest = write(folder, chat=chat)
    data = load_data_dir(folder)
    assert data.train == [row(number, label=number % 3 == 0, chat=chat) for number in range(4)]
    assert data.validation == [row(number, label=number % 3 == 0, chat=chat) for number in (4, 5)]
    assert data.manifest == manifest
    assert (manifest["format"], manifest["note"]) == ("kto-data", "n")
    found = sorted(path.name for path in folder.iterdir())
    assert found == sorted({*dataset.FILES, dataset.MANIFEST})
    assert set(dataset.FILES) == {"train.parquet", "validation.parquet", "rejects.jsonl", "findings.jsonl", "README.md"}
    assert json.loads((folder / "rejects.jsonl").read_text("utf-8"))["raw"] == "half a pair \ud83d, é"
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_rows_beyond_one_row_group_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_writer, "ROWS_PER_GROUP", 3)
    write(tmp_path / "set", count=12)
    assert [item.prompt_id for item in load_data_dir(tmp_path / "set").train] == [f"p{number}" for number in range(10)]


def test_fingerprint_names_the_rows_alone(tmp_path):
    for name, count in (("a", 6), ("b", 6), ("c", 7)):
        write(tmp_path / name, count=count)
    prints = [load_data_dir(tmp_path / name).fingerprint for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("chat", [True, False])
def test_datasets_loads_it(tmp_path, chat):
    import datasets
    from pyarrow import parquet

    write_data_dir(tmp_path / "set", [row(1, chat=chat), row(2, chat=chat)], [], [], {}, overwrite=False)
    path = tmp_path / "set" / "train.parquet"
    loaded = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "c"), split="train")
    assert list(loaded.column_names) == list(dataset.COLUMNS)
    first = loaded[0]
    assert first["label"] is True
    assert first["prompt"] == ([{"role": "user", "content": "Q1"}] if chat else "Q1")
    # `datasets` refuses any split without rows, so README.md does not name it; the file itself still has its columns
    assert parquet.read_schema(tmp_path / "set" / "validation.parquet").equals(parquet.read_schema(path))


@pytest.mark.parametrize("validation", [0.0, 0.5])
@pytest.mark.parametrize("text", [True, False])
def test_load_dataset_gives_both_splits_of_a_folder_and_of_its_formats(tmp_path, validation, text):
    """By the folder's path alone, with the files of all formats inside; a split without rows is not there."""
    import datasets

    rows = [{"prompt": f"Q{n // 2}", "completion": f"A{n}", "label": n % 2 == 0} for n in range(40)]
    source, out = write_lines(tmp_path / "rows.jsonl", *rows), tmp_path / "set"
    result = binarize(source, out, validation=validation, text=text, formats=tuple(FORMS))
    counts = {name: sum(split.values()) for name, split in result["splits"].items() if sum(split.values())}
    assert list(counts) == (["train", "validation"] if validation else ["train"])
    columns = {
        "": list(dataset.COLUMNS),
        "trl": ["prompt", "completion", "label"],
        "halos": ["prompt_id", "prompt", "output", "label", "reward", "type", "split"],
        "llama-factory": ["instruction", "output", "kto_tag"] if text else ["conversations", "kto_tag"],
    }
    loaded = {below: datasets.load_dataset(str(out / below), cache_dir=str(tmp_path / "cache")) for below in columns}
    for below, names in columns.items():
        assert {name: split.num_rows for name, split in loaded[below].items()} == counts
        assert all(split.column_names == names for split in loaded[below].values())
    for name in counts:
        rows_of_kto = loaded[""][name].select_columns(["prompt", "completion", "label"])
        assert rows_of_kto.to_list() == loaded["trl"][name].to_list()
    assert f"train {counts['train']} rows" in (out / "README.md").read_text(encoding="utf-8")


# --- refusing to lose something ---------------------------------------------------------------


def test_an_earlier_dataset_is_replaced_only_when_asked(tmp_path):
    folder = tmp_path / "set"
    write(folder)
    before = (folder / "train.parquet").read_bytes()
    with pytest.raises(BadInput, match=r"already holds a dataset\. Add --overwrite"):
        write(folder, count=9)
    assert (folder / "train.parquet").read_bytes() == before
    write(folder, count=9, overwrite=True)
    assert len(load_data_dir(folder).train) == 7


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match="not empty and not a dataset of kto"):
        write(folder, overwrite=True)
    (folder / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(BadInput, match="not empty and not a dataset of kto"):
        write(folder, overwrite=True)
    (folder / "manifest.json").write_text('{"format": "kto-data"}')
    with pytest.raises(BadInput, match=re.escape("other files than those of a dataset: thesis.tex")):
        write(folder, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "x"


def test_places_that_cannot_be_a_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "file", Path("."), Path("..")):
        with pytest.raises(BadInput, match="cannot be the output folder"):
            write(place)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")


def test_a_failure_half_way_leaves_the_earlier_dataset(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    write(folder)
    before = load_data_dir(folder)
    monkeypatch.setattr(dataset_writer, "file_sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(folder, count=9, overwrite=True)
    monkeypatch.undo()
    assert load_data_dir(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_of_what_fails_no_folder_stays(tmp_path, monkeypatch):
    """Not the temporary one, nor those that were made above it; one that was there before stays."""
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(dataset_writer, "file_sha256", lambda path: 1 / 0)
    for place in (tmp_path / "deep" / "er" / "set", tmp_path / "there" / "set"):
        with pytest.raises(ZeroDivisionError):
            write(place)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["there"]


# --- noticing damage --------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    path = folder / "train.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def flip(folder: Path) -> None:
    path = folder / "validation.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def forge(folder: Path, name: str, data: bytes) -> None:
    """Damage that the manifest agrees with, so that the reader itself has to find it."""
    (folder / name).write_bytes(data)
    manifest = read_sealed(folder / "manifest.json", "the manifest")
    manifest["files"][name] = dataset.file_sha256(folder / name)
    write_sealed(folder / "manifest.json", manifest)


def other_columns(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"prompt": ["Q"]}), folder / "x")
    forge(folder, "train.parquet", (folder / "x").read_bytes())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (
            lambda folder: (folder / "manifest.json").write_text("[]"),
            "not the manifest of a dataset of kto binarize",
        ),
        (
            lambda folder: (folder / "manifest.json").write_text('{"format": "kto-data", "version": 9}'),
            "version 9",
        ),
        (lambda folder: (folder / "validation.parquet").unlink(), "validation.parquet is missing"),
        (truncate, "train.parquet is damaged or changed"),
        (flip, "validation.parquet is damaged or changed"),
        (lambda folder: forge(folder, "train.parquet", b"PAR1"), "train.parquet is damaged"),
        (other_columns, "has other columns or types than those of kto (prompt)"),
    ],
)
def test_damage_is_noticed_in_one_line_with_the_next_step(tmp_path, damage, says):
    write(tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(BadInput, match=re.escape(says)) as error:
        load_data_dir(tmp_path / "set")
    assert "\n" not in str(error.value)


# --- finding it -------------------------------------------------------------------------------


def test_the_only_dataset_is_found_and_several_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="Run kto binarize hh-rlhf first"):
        find_data_dir(None)
    write(Path("data/one"))
    (tmp_path / "data" / "notes").mkdir()
    assert find_data_dir(None) == Path("data/one")
    write(Path("data/two"))
    with pytest.raises(BadInput, match=r"several datasets: data/one, data/two\. Name one with --data"):
        find_data_dir(None)
    assert find_data_dir("data/two") == Path("data/two")
    with pytest.raises(BadInput, match="data/three is not a folder"):
        find_data_dir("data/three")
    with pytest.raises(BadInput, match="does not exist"):
        load_data_dir(Path("data/three"))


def test_an_earlier_dataset_survives_a_kill_between_the_two_renames(tmp_path):
    """The earlier one was moved aside, the new one not in its place yet: the next run begins with the earlier one."""
    write(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / ".set.old")
    with suppress(ZeroDivisionError), replacing_folder(tmp_path / "set"):
        assert load_data_dir(tmp_path / "set").train
        raise ZeroDivisionError
    assert load_data_dir(tmp_path / "set").train
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_rename_that_fails_brings_the_earlier_dataset_back(tmp_path, monkeypatch):
    """The new folder cannot be moved into place."""
    write(tmp_path / "set")
    rename = os.replace

    def failing(source, target):
        if str(source).endswith(".tmp"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(BadInput, match="Permission denied"):
        write(tmp_path / "set", overwrite=True, count=8)
    assert len(load_data_dir(tmp_path / "set").train) == 4


def test_two_processes_never_write_one_folder(tmp_path):
    """The second is told so, and the first goes on."""
    with writing_data_dir(tmp_path / "set", overwrite=False) as first:
        with pytest.raises(BadInput, match=rf"Another process is writing .*set: process {os.getpid()} on "):
            write(tmp_path / "set")
        first.open_tables(chat=True)
        finish(first, {"note": "whole"})
    assert load_data_dir(tmp_path / "set").manifest["note"] == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "no lock is left"


def test_what_a_kill_leaves_is_no_dataset(tmp_path, monkeypatch):
    """A whole folder that did not get its name yet; after a kill between the renames the earlier dataset comes back."""
    monkeypatch.chdir(tmp_path)
    write(Path("data/.set.tmp"))
    with pytest.raises(BadInput, match="There is no dataset"):
        find_data_dir(None)
    with pytest.raises(BadInput, match="killed kto binarize left"):
        load_data_dir(Path("data/.set.tmp"))
    write(Path("data/.set.old"), count=9)
    assert find_data_dir(None) == Path("data/set")
    assert len(load_data_dir(Path("data/set")).train) == 7
    with pytest.raises(BadInput, match="already holds a dataset"):
        write(Path("data/set"))
    write(Path("data/set"), overwrite=True)
    assert [path.name for path in Path("data").iterdir()] == ["set"]


def test_what_a_kill_after_the_renames_leaves_is_removed(tmp_path):
    """Else the old dataset would come back once the new one is deleted."""
    write(tmp_path / "set")
    write(tmp_path / ".set.old", count=9)
    assert len(load_data_dir(tmp_path / "set").train) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
