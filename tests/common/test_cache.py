"""Records of the cache: valid ones are read back, all others are counted and skipped."""

from __future__ import annotations

from kto_cli.common.cache import RecordStore


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
