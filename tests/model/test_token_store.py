"""The token store: what it holds is what encoding row by row gives; it is written once, checked, and read lazily."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import REPOSITORY, SAMPLE, make_dataset
from encoded import OneByOne, encode_rows, naive_rows, reader, stored_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.common.errors import BadInput
from kto_cli.core.prefix_order import prefix_order
from kto_cli.core.rows import TokenSequence
from kto_cli.data.dataset import Row, load_data_dir
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.reference_cache import ReferenceCache
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.store_files import open_store


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(SAMPLE / "model", chat_template=None, trust_remote_code=False)[0]


def turns(count: int, words: int) -> tuple[dict[str, str], ...]:
    """A conversation that ends with a question."""
    roles = ("user", "assistant")
    start = 1 - count % 2
    return tuple({"role": roles[(place + start) % 2], "content": f"word{place} " * words} for place in range(count))


def row(number: int, prompt: Any, completion: Any, label: bool) -> Row:
    name = hashlib.sha256(repr(prompt).encode()).hexdigest()[:16]
    pair = f"pair {number}" if number % 3 else None
    return Row(f"é{number}", name, pair, "test", f"test:{number}", prompt, completion, label)


COMPLETIONS = ["Yes.", "No <|end|> way.", "word " * 40, "x" * 30, "a b c " * 12]
ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 12), st.sampled_from(COMPLETIONS), st.booleans(), st.booleans()),
    min_size=4,
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(drawn=ROWS, batch=st.integers(1, 9), max_length=st.integers(20, 90))
def test_a_store_holds_what_row_by_row_encoding_gives(tokenizer: Any, drawn: Any, batch: int, max_length: int):
    """Chats and texts, shortened prompts, cut completions, rows dropped, whatever the batches."""
    rows = []
    for number, (count, words, completion, label, chat) in enumerate([*drawn, (1, 1, "Sure.", True, True)]):
        prompt = turns(2 * count + 1, words) if chat else "word " * (words + number % 2)
        text = ({"role": "assistant", "content": completion},) if chat else completion
        rows.append(row(number, prompt, text, label))
    encoder = OneByOne(tokenizer, max_length=max_length)
    try:
        expected = naive_rows(rows, encoder)
    except ValueError:
        return  # some row has no partner
    if not expected[0]:
        return
    found, report = stored_rows(rows, encoder, batch=batch)
    assert (list(found), report) == expected
    check_numbers(found)


def check_numbers(rows: EncodedRows) -> None:
    """The cheap numbers are those of the rows."""
    whole = list(rows)
    assert rows.labels.tolist() == [each.label for each in whole]
    assert (rows.ids, rows.prompt_ids) == ([each.id for each in whole], [each.prompt_id for each in whole])
    assert rows.pair_ids == [each.pair_id for each in whole]
    both = [each.own for each in whole] + [each.mismatched for each in whole]
    assert list(rows.sequences) == both
    assert rows.sequences.lengths.tolist() == [each.length for each in both]
    assert rows.sequences.completion_lengths.tolist() == [len(each.completion) for each in both]
    assert [bytes(key) for key in rows.sequences.keys.tolist()] == [naive_key(each) for each in both]
    by_number = dict(zip(rows.prompts.tolist(), (each.own.prompt for each in whole), strict=True))
    assert [by_number[number] for number in rows.prompts.tolist()] == [each.own.prompt for each in whole]
    assert [by_number[number] for number in sorted(by_number)] == sorted({each.own.prompt for each in whole})
    for stored, listed in ((rows.sequences, both), (rows.own, both[: len(whole)])):
        ours, theirs = stored.prefix_order, prefix_order(listed)
        assert [listed[index] for index in ours.indices] == [listed[index] for index in theirs.indices]
        assert (list(ours.lengths), list(ours.common)) == (theirs.lengths, theirs.common)


def naive_key(sequence: TokenSequence) -> bytes:
    """As since version 2 of the store: cached log-probs stay valid only while this stays what it is."""
    parts = [struct.pack(f"<{len(part)}I", *part) for part in (sequence.prompt, sequence.completion)]
    digests = [hashlib.blake2b(part, digest_size=16).digest() for part in parts]
    return hashlib.blake2b(b"".join(digests), digest_size=16).digest()


@pytest.fixture(scope="module")
def some(tokenizer: Any) -> EncodedRows:
    rows = [row(number, turns(1, number + 1), COMPLETIONS[number % 5], number % 2 == 0) for number in range(10)]
    rows = [each for each in rows if isinstance(each.completion, str)]
    chats = [
        row(int(each.id[1:]), each.prompt, ({"role": "assistant", "content": each.completion},), each.label)
        for each in rows
    ]
    return stored_rows(chats, OneByOne(tokenizer, max_length=200))[0]


def test_parts_and_sums_of_rows(some: EncodedRows):
    whole = list(some)
    assert list(some[3:7]) == whole[3:7]
    assert list(some.take([5, 0, 5])) == [whole[5], whole[0], whole[5]]
    joined = some[:4] + some[6:]
    assert list(joined) == whole[:4] + whole[6:]
    check_numbers(joined)
    assert list(some + EncodedRows()) == list(EncodedRows() + some) == whole
    assert (len(EncodedRows()), EncodedRows().labels.tolist(), list(EncodedRows().sequences)) == (0, [], [])
    assert some[-1] == whole[-1]
    with pytest.raises(IndexError):
        some[len(whole)]


def test_shared_texts_are_stored_once(tokenizer: Any, tmp_path: Path):
    """Six rows over two prompts and three completions, far apart: five texts."""
    from kto_cli.model.tokens.build_store import write_store

    texts = ["Yes, surely.", "No, never.", "Perhaps so."]
    rows = [row(number, f"Question {number % 2}", texts[number % 3], True) for number in range(6)]
    (tmp_path / "store").mkdir()
    encoder = OneByOne(tokenizer, max_length=100)
    write_store(tmp_path / "store", reader(rows, 1), encoder)
    assert len(numpy.load(tmp_path / "store/starts.npy")) == 5 + 1
    assert list(EncodedRows([open_store(tmp_path / "store")[0]])) == encode_rows(rows, encoder)[0]


# --- in the cache folder ----------------------------------------------------------------------


def stores(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "tokens").iterdir() if path.is_dir())


def test_rows_are_tokenized_once_and_the_notes_said_again(kto, workplace, pico, pico_data, monkeypatch):
    from kto_cli.model.tokens import cached

    words = ("precompute", "--data", pico_data, "--model", pico, "--cache", "cache", "--max-length", 30, "--json")
    first = kto(*words)
    names = stores(workplace / "cache")
    assert len(names) == 2, "training and validation rows"
    monkeypatch.setattr(cached, "write_store", None)
    second = kto(*words)
    assert second.json["cached"] == first.json["sequences"]
    notes = [[line for line in ran.err.splitlines() if "training" in line] for ran in (first, second)]
    assert notes[0] == notes[1] != []
    assert stores(workplace / "cache") == names


@pytest.mark.parametrize("change", ["rows", "length", "template", "tokenizer"])
def test_what_decides_a_token_names_the_store(kto, workplace, pico, pico_data, change):
    import shutil

    words = {"--data": pico_data, "--model": pico, "--cache": "cache", "--max-length": 60}
    assert kto("precompute", *(word for pair in words.items() for word in pair)).code == 0
    before = stores(workplace / "cache")
    if change == "rows":
        words["--data"] = make_dataset(workplace, 24, validation=0.2)
    elif change == "length":
        words["--max-length"] = 61
    elif change == "template":
        (workplace / "t.jinja").write_text("{% for m in messages %}{{ m.content }}!{% endfor %}")
        words["--chat-template"] = workplace / "t.jinja"
    else:
        words["--model"] = shutil.copytree(pico, workplace / "copy")
        path = words["--model"] / "tokenizer_config.json"
        path.write_text(path.read_text() + "\n")
    assert kto("precompute", *(word for pair in words.items() for word in pair)).code == 0
    assert len(stores(workplace / "cache")) == len(before) + 2


@pytest.mark.parametrize("name", ["tokens.bin", "own.npy", "starts.npy", "store.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_store_is_said_and_made_again(kto, workplace, given, name, damage):
    words = ("precompute", *given, "--cache", "cache", "--json")
    total = kto(*words).json["sequences"]
    for folder in stores(workplace / "cache"):
        path = folder / name
        sound = path.read_bytes()
        if damage == "remove":
            path.unlink()
        else:
            middle = len(sound) // 2
            path.write_bytes(sound[:middle] + (bytes([sound[middle] ^ 1]) + sound[middle + 1 :]) * (damage == "flip"))
    ran = kto(*words)
    assert (ran.json["cached"], ran.json["computed"]) == (total, 0)
    assert ("tokenized again" in ran.err) is (name != "store.json" or damage != "remove")
    for folder in stores(workplace / "cache"):
        open_store(folder)
    assert "tokenized again" not in kto(*words).err


def test_nothing_half_written_is_left(kto, workplace, given, monkeypatch):
    from kto_cli.model.tokens import build_store

    with monkeypatch.context() as patch:  # undo() would leave the workplace too
        patch.setattr(build_store, "seal", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kto("precompute", *given, "--cache", "cache")
    assert stores(workplace / "cache") == []
    assert kto("precompute", *given, "--cache", "cache").code == 0


def test_rows_are_not_read_to_be_planned(some: EncodedRows, monkeypatch):
    """Labels, lengths, prompts and keys of all rows touch no token."""
    from kto_cli.model.tokens import store

    monkeypatch.setattr(store.StoredTexts, "tokens", None)
    assert len(some.labels) == len(some.sequences.lengths) // 2 == len(some.prompts) == len(some.own.keys)


@pytest.mark.long
def test_memory_is_flat_in_the_number_of_rows(tmp_path: Path, pico: Path):
    """Peak memory of preparing rows that are tokenized already, above the imports: 7,500 more rows cost less than 200
    bytes each, the noise of pages included."""
    import subprocess
    import sys

    script = REPOSITORY / "tests" / "support" / "prepare_peak.py"
    peaks = []
    for count in (500, 8_000):
        words = [str(count), str(tmp_path / f"set{count}"), str(pico), str(tmp_path / "cache")]
        for _ in ("written", "tokenized", "read"):
            ran = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=True)
        peaks.append(int(ran.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 1_500_000


def test_load_data_dir_keeps_no_rows(pico_data):
    data = load_data_dir(pico_data)
    assert not [value for value in vars(data).values() if isinstance(value, list)]
    assert len(data.train) == 32


def test_the_cache_gives_what_it_has(tmp_path: Path):
    keys = numpy.unique(numpy.frombuffer(bytes(range(160)), "V16"))
    cache = ReferenceCache(tmp_path, numbers="f d")
    cache.append([(bytes(keys[place]), -float(place), place + 1) for place in (7, 2)])
    cache.append([(bytes(keys[4]), -4.0, 5)])
    logps, tokens = cache.read(keys)
    assert [place for place in range(10) if not numpy.isnan(logps[place])] == [2, 4, 7]
    assert (logps[[2, 4, 7]].tolist(), tokens[[2, 4, 7]].tolist()) == ([-2.0, -4.0, -7.0], [3, 5, 8])
    assert numpy.isnan(cache.read(keys[:2])[0]).all()
    assert len(cache.read(keys[:0])[0]) == 0


def test_a_store_that_is_none(tmp_path: Path):
    with pytest.raises(BadInput, match="missing"):
        open_store(tmp_path)
