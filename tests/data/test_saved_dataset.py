"""Folders of `datasets.save_to_disk`, and Arrow files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from binarizing import Recorder, binarize

from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.readers.any_file import columns, records

ROWS = [
    {"prompt": [{"role": "user", "content": f"Is {n} open?"}], "completion": f"Until {n}.", "label": n % 2 == 0}
    for n in range(12)
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    from datasets import Dataset, DatasetDict

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    both = {"train": Dataset.from_list(ROWS[:8]), "test": Dataset.from_list(ROWS[8:])}
    DatasetDict(both).save_to_disk(tmp_path / "both")
    return tmp_path


def test_a_saved_dataset_is_read(saved):
    for number, source in enumerate(
        (saved / "one", f"trl:{saved / 'one'}", saved / "one" / "data-00000-of-00001.arrow")
    ):
        result = binarize(str(source), saved / f"out{number}", validation=0)
        assert (result["desirable"], result["undesirable"]) == (6, 6)
    logged = binarize(f"log:{saved / 'one'}", saved / "log", validation=0, label_column="label")
    assert (logged["desirable"], logged["undesirable"]) == (6, 6)


def test_its_splits_are_kept(saved):
    screen = Recorder()
    result = binarize(str(saved / "both"), saved / "out", screen)
    assert result["validation"] == 4
    assert {row.origin.split(":")[0] for row in load_data_dir(saved / "out").validation} == {
        "test/data-00000-of-00001.arrow"
    }
    only = binarize(str(saved / "both"), saved / "train", subsets=("train",), validation=0)
    assert only["rows_in"] == 8


def test_damage_is_one_line(saved):
    state = saved / "one" / "state.json"
    arrow = saved / "one" / "data-00000-of-00001.arrow"
    whole = arrow.read_bytes()
    for content in (whole[:-300], whole[: len(whole) // 2], b"", b"x" * 40):
        arrow.write_bytes(content)
        with pytest.raises(BadInput, match=r"data-00000-of-00001\.arrow"):
            binarize(str(saved / "one"), saved / "out", validation=0)
    arrow.unlink()
    with pytest.raises(BadInput, match="does not exist"):
        binarize(str(saved / "one"), saved / "out", validation=0)
    state.write_text(json.dumps({"_data_files": 3}))
    with pytest.raises(BadInput, match=r"state\.json"):
        binarize(str(saved / "one"), saved / "out", validation=0)


def test_feather_files(tmp_path):
    import pyarrow as pa
    from pyarrow import feather

    path = tmp_path / "f.feather"
    feather.write_feather(pa.Table.from_pylist([{"prompt": "Q", "n": n} for n in range(3000)]), path)
    assert columns(path, "", ()) == ["prompt", "n"]
    found = list(records(path, path.name, ("n",)))
    assert [record.values for record in found] == [{"n": n} for n in range(3000)]
    assert found[2999].origin == "f.feather:row 3000"
