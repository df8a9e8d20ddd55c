"""Records of the cache: valid ones are read back, all others are counted and skipped."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kto_cli.common.cache import AppendFile, RecordStore, make_cache_folder, owning_in_cache
from kto_cli.common.errors import BadInput, DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _folder(cache: Path) -> None:
    make_cache_folder(cache / "tokens")


def _lock(cache: Path) -> None:
    with owning_in_cache(cache / ".lock", cache, "writing", str):
        pass


def _file(cache: Path) -> None:
    AppendFile(cache, ".segment").append(b"123")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, *FULL], ids=errno.errorcode.get)
@pytest.mark.parametrize(("write", "call"), [(_folder, "mkdir"), (_lock, "open"), (_file, "fsync")])
def test_what_the_system_does_not_let_write_is_one_line(tmp_path, monkeypatch, write, call, number):
    """A read-only file system, no inode or space left, a limit on the size of files: at each call that may fail."""

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(BadInput if number not in FULL else DiskFull) as caught:
        write(tmp_path)
    assert str(tmp_path) in caught.value.what
    if number not in FULL:
        assert "The cache folder cannot be used" in caught.value.what
        assert "--cache" in caught.value.next_step
    monkeypatch.undo()
    assert not any(path.stat().st_size for path in tmp_path.iterdir()), "nothing half written"


def test_records_of_several_processes_are_read_in_order_and_foreign_or_damaged_lines_are_counted(tmp_path):
    first, second = RecordStore(tmp_path, ["a", 1]), RecordStore(tmp_path, ["a", 1])
    first.append([("x", {"n": 1}), ("y", [2])])
    second.append([("x", {"n": 3})])
    assert first.folder == second.folder
    assert RecordStore(tmp_path, ["a", 1]).read() == [("x", {"n": 1}), ("y", [2]), ("x", {"n": 3})]
    paths = sorted(first.folder.glob("*.jsonl"))
    assert len(paths) == 2
    other = RecordStore(tmp_path, ["a", 2])
    other.append([("x", {"n": 9})])
    (foreign,) = other.folder.glob("*.jsonl")
    paths[0].write_bytes(paths[0].read_bytes().replace(b'"n": 1', b'"n": 7') + foreign.read_bytes() + b'{"key": "half')
    store = RecordStore(tmp_path, ["a", 1])
    assert store.read() == [("y", [2]), ("x", {"n": 3})]
    assert store.damaged == 3
    assert other.read() == [("x", {"n": 9})]
    assert first.key("x") != other.key("x")
