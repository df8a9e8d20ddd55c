"""The reference cache with several writers, and where it cannot be written."""

from __future__ import annotations

import errno
import os

import numpy
import pytest

from kto_cli.common.errors import BadInput
from kto_cli.model.logprobs.reference_cache import ReferenceCache

KEYS = [bytes([number]) * 16 for number in range(3)]


def opened(folder):
    return ReferenceCache(folder, numbers="model float32")


def values(cache):
    return cache.read(numpy.array([numpy.void(key) for key in KEYS]))[0].tolist()


def test_of_two_writers_the_first_value_counts_for_both(tmp_path):
    """Both lack key 0 and compute it, with other last bits. The first stored stays, whichever file is older."""
    first, second = opened(tmp_path), opened(tmp_path)
    second.append([(KEYS[1], -1.0, 7)])
    values(first), values(second)
    first.append([(KEYS[0], -100.00001, 7)])
    second.append([(KEYS[0], -100.00002, 7), (KEYS[2], -3.0, 7)])
    for reader in (first, second, opened(tmp_path)):
        assert values(reader) == [-100.00001, -1.0, -3.0]
    assert sorted(path.suffix for path in first.folder.iterdir()) == [".segment", ".segment"], "no lock is left"


def test_a_segment_that_is_a_folder_is_replaced(tmp_path):
    cache = opened(tmp_path)
    cache.append([(KEYS[0], -1.0, 7)])
    (cache.folder / "0-1.segment").mkdir()
    again = opened(tmp_path)
    assert values(again)[0] == -1.0
    assert again.fixed == ["0-1.segment"]
    assert not (cache.folder / "0-1.segment").exists()


def test_a_read_only_cache_is_read_and_left_as_it_is(tmp_path, monkeypatch):
    """A truncated segment too: its valid values count, and it is not written again."""
    cache = opened(tmp_path)
    cache.append([(KEYS[0], -1.0, 7)])
    cache.append([(KEYS[1], -2.0, 7)])
    (segment,) = cache.folder.glob("*.segment")
    torn = segment.read_bytes()[:-5]
    segment.write_bytes(torn)

    def failing(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", failing)
    again = opened(tmp_path)
    assert values(again)[0] == -1.0
    assert numpy.isnan(values(again)[1:]).all()
    with pytest.raises(BadInput, match="Read-only file system"):
        again.append([(KEYS[1], -2.0, 7)])
    assert [path.read_bytes() for path in again.folder.iterdir()] == [torn]
