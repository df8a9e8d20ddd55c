"""What `kto binarize` leaves behind when it only looks, is stopped, or cannot go on: nothing that looks like data."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import pairs, write_lines
from made_feedback import FORMS, binarize, lines_of, made, table, write

from kto_cli.data.dataset_writer import DataWriter
from kto_cli.data.pipeline import parse
from kto_cli.data.pipeline.row_spool import Spool
from kto_cli.workflows import binarize as workflow


def everything(folder: Path) -> set[str]:
    """All files and folders below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """Where temporary files of this test go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


# --- only looking -----------------------------------------------------------------------------


def test_a_check_writes_nothing_and_says_what_it_found(workplace, scratch, kto):
    rows = [{"prompt": f"Q{place % 9}", "completion": f"A{place}", "label": place % 2 == 0} for place in range(30)]
    write_lines(workplace / "log.jsonl", [*rows, rows[0], {**rows[1], "label": True}])
    before = everything(workplace)
    ran = kto("binarize", "log.jsonl", "--check", "--format", "trl", "--out", "somewhere")
    assert ran.code == 0, ran.err
    assert everything(workplace) == before
    assert everything(scratch) == set()
    for text in ("Doctor", "1 of 32 rows repeat an earlier one", "2 of 32 rows say of 1 answer", "(--check)"):
        assert text in " ".join(ran.out.replace("│", " ").split())
    result = kto("binarize", "log.jsonl", "--check", "--json").json
    assert result["out"] is None
    assert {one["finding"]: one["rows"] for one in result["findings"] if one["rows"]} == {
        "contradictions": 2,
        "duplicates": 1,
    }
    assert everything(workplace) == before
    assert everything(scratch) == set()


def test_a_check_counts_what_a_run_counts(workplace, scratch):
    for source, form in FORMS.items():
        (workplace / source).mkdir()
        typed = write(workplace / source, source, made(source, range(form.kinds)))
        looked = binarize(typed, out=None, check=True, **form.options)
        wrote = binarize(typed, out=workplace / source / "set", **form.options)
        for name in ("out", "options"):
            del looked[name], wrote[name]
        assert looked == wrote
    assert everything(scratch) == set()


def test_a_check_looks_at_rows_that_kto_wrote(workplace, kto):
    """Train and validation rows keep their side and their ids; rows in both, put there by hand, are said."""
    path = write_lines(workplace / "pairs.jsonl", pairs(40))
    written = kto("binarize", path, "--out", "set", "--validation", "0.25", "--json").json
    result = kto("binarize", "set", "--check", "--json").json
    assert result["splits"] == written["splits"]
    assert (result["rows_in"], result["dropped"], result["rejected"]) == (80, 0, {})
    assert {one["finding"]: one["rows"] for one in result["findings"]} == {
        one["finding"]: one["rows"] for one in written["findings"]
    }
    again = kto("binarize", "set", "--out", "copy", "--json").json
    for split in ("train", "validation"):
        rows = [table(workplace / name / f"{split}.parquet") for name in ("set", "copy")]
        assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    assert again["splits"] == written["splits"]
    # a leak: the validation rows among those to learn from too
    from pyarrow import concat_tables, parquet

    both = [parquet.read_table(workplace / f"set/{split}.parquet") for split in ("train", "validation")]
    parquet.write_table(concat_tables(both), workplace / "set/train.parquet")
    leaking = kto("binarize", "set", "--check", "--json").json
    assert leaking["dropped_reasons"] == {"prompt_validation": both[1].num_rows}


def test_a_check_looks_at_rows_of_which_none_are_validation(workplace, kto):
    path = write_lines(workplace / "pairs.jsonl", pairs(20))
    kto("binarize", path, "--out", "set", "--validation", "0")
    result = kto("binarize", "set", "--check", "--validation", "0", "--json").json
    assert result["splits"] == {
        "train": {"desirable": 20, "undesirable": 20},
        "validation": {"desirable": 0, "undesirable": 0},
    }


# --- stopped ----------------------------------------------------------------------------------


def stop_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int, error: BaseException) -> None:
    """Lets a method be called so many times, then raises."""
    real, left = getattr(owner, name), [calls]

    def stopping(*arguments: Any, **named: Any) -> Any:
        if not left[0]:
            raise error
        left[0] -= 1
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, stopping)


STEPS = [
    (Spool, "add", 1),
    (DataWriter, "line", 2),
    (workflow, "assign", 0),
    (DataWriter, "add", 1),
    (DataWriter, "close_tables", 0),
    (workflow, "finish", 0),
]
"""Where a run is hit: (whose, method, after so many calls)."""


def many(folder: Path) -> Path:
    """Three blocks of rows with a few rejects."""
    rows = [*pairs(1200), {"prompt": "Q", "chosen": "A"}, {"prompt": "Q"}, {"chosen": "A", "rejected": "A"}]
    return write_lines(folder / "pairs.jsonl", rows)


@pytest.mark.parametrize(("owner", "name", "calls"), STEPS, ids=[name for _, name, _ in STEPS])
@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_a_run_that_is_interrupted_leaves_nothing(workplace, scratch, kto, monkeypatch, owner, name, calls, check):
    path = many(workplace)
    words = ["binarize", path, *(["--check"] if check else ["--out", "set"])]
    with monkeypatch.context() as patched:
        stop_after(patched, owner, name, calls, KeyboardInterrupt())
        ran = kto(*words)
    assert (ran.code, ran.out) == (130, "")
    assert everything(workplace) == {"pairs.jsonl"}
    assert everything(scratch) == set()
    assert kto(*words).code == 0


@pytest.mark.parametrize(("owner", "name", "calls"), STEPS, ids=[name for _, name, _ in STEPS])
@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_dataset(
    workplace, scratch, kto, monkeypatch, owner, name, calls, check
):
    path = many(workplace)
    assert kto("binarize", path, "--out", "set", "--seed", 1).code == 0
    before = {name: (workplace / name).read_bytes() for name in everything(workplace) if (workplace / name).is_file()}
    stop_after(monkeypatch, owner, name, calls, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    ran = kto("binarize", path, *(["--check"] if check else ["--out", "set", "--overwrite"]))
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "No space left on the device" in " ".join(ran.err.split())
    after = {name: (workplace / name).read_bytes() for name in everything(workplace) if (workplace / name).is_file()}
    assert after == before
    assert everything(scratch) == set()


def test_a_run_that_is_killed_leaves_no_dataset_and_the_next_run_cleans_up(workplace, kto, kto_started):
    """kill -9 while rows are read: only the folder with a leading dot is there, and it goes with the next run."""
    rows = pairs(200)
    path = write_lines(workplace / "pairs.jsonl", rows * 400)
    process = kto_started("binarize", path, "--out", "set", "--json", cwd=workplace)
    spool = workplace / ".set.tmp/spool"
    end = time.monotonic() + 120
    while not (spool.exists() and spool.stat().st_size > 100_000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (workplace / "set").exists()
    assert kto("binarize", "set", "--check").code == 1
    write_lines(path, rows)
    assert kto("binarize", path, "--out", "set").code == 0
    assert everything(workplace) == {"pairs.jsonl", "set", *(f"set/{name}" for name in os.listdir(workplace / "set"))}


# --- cannot go on -----------------------------------------------------------------------------


def test_a_damaged_file_in_a_mix_names_itself_and_the_line(workplace, kto):
    good = write_lines(workplace / "good.jsonl", pairs(20))
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs(3000)).encode()
    packed = gzip.compress(lines, mtime=0)
    (workplace / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    ran = kto("binarize", good, workplace / "cut.jsonl.gz", "--out", "set")
    assert ran.code == 1
    said = " ".join(ran.err.split())
    assert "cut.jsonl.gz is truncated or damaged gzip after line " in said
    number = int(said.partition("after line ")[2].split()[0].replace(",", ""))
    assert 0 < number < 3000
    assert everything(workplace) == {"good.jsonl", "cut.jsonl.gz"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_of_another_kind_in_a_mix_names_itself(workplace, kto, workers):
    good = write_lines(workplace / "good.jsonl", pairs(20))
    other = write_lines(workplace / "other.jsonl", [{"a": 1}])
    ran = kto("binarize", good, other, "--out", "set", "--workers", workers)
    assert ran.code == 1
    assert "other.jsonl has the columns a." in " ".join(ran.err.split())
    assert not (workplace / "set").exists()


def killed(block: parse.Block) -> Any:
    """Work that ends its process, as the system does when the memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_line(workplace, kto, monkeypatch):
    path = write_lines(workplace / "pairs.jsonl", pairs(20))
    real = parse.parsed_blocks
    monkeypatch.setattr(workflow, "parsed_blocks", lambda given, workers: real(given, workers, killed))
    ran = kto("binarize", path, "--out", "set", "--workers", 2)
    assert ran.code == 1
    assert "Use fewer --workers." in ran.err
    assert everything(workplace) == {"pairs.jsonl"}


def test_rejects_are_told_in_the_order_of_the_file(workplace, kto):
    """Those found while reading come first, in file order; each names its line."""
    rows: list[Any] = [*pairs(10), "{broken", {"prompt": "Q", "chosen": "A"}, *pairs(4), "[]"]
    path = workplace / "pairs.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    kto("binarize", path, "--out", "set")
    lines = lines_of(workplace / "set/rejects.jsonl")
    assert [(line["origin"], line["reason"]) for line in lines] == [
        ("pairs.jsonl:11", "not_json"),
        ("pairs.jsonl:12", "missing_field"),
        ("pairs.jsonl:17", "not_an_object"),
    ]
    assert [line["raw"] for line in lines] == ["{broken", json.dumps(rows[11]), "[]"]
