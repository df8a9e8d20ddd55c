"""Readers: what a plain reading of the whole file gives, given as a stream; damage is said with its place."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import pickle
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import shared

from kto_cli.common.errors import BadInput
from kto_cli.data.readers import csv_file, json_array, jsonl
from kto_cli.data.readers.any_file import columns, parsed, records, suffix
from kto_cli.data.readers.jsonl import UNPARSED, Record, parse_json
from kto_cli.data.readers.open_file import printable

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""A folder and a patched constant may be shared by all examples of a test."""


def file(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    return path


def read(path: Path, wanted: tuple[str, ...] | None = None) -> list[Record]:
    return [parsed(record, wanted) for record in records(path, "f", wanted)]


def until_fault(path: Path) -> tuple[list[Record], str]:
    """(records before the fault, its message)"""
    found = []
    try:
        for record in records(path, "f", None):
            found.append(parsed(record))
    except BadInput as fault:
        return found, str(fault)
    pytest.fail(f"{path.name} was read to its end")


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


# --- JSON arrays ------------------------------------------------------------------------------


@few
@given(
    items=st.lists(values, min_size=1, max_size=6),
    block=st.integers(1, 60),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_an_array_gives_the_items_that_json_gives(tmp_path, monkeypatch, items, block, indent, ascii_only):
    """In blocks of any size: a word, a number, an escape or a text may be cut anywhere."""
    monkeypatch.setattr(json_array, "BLOCK", block)
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    found = read(file(tmp_path, "a.json", text))
    assert [record.origin for record in found] == [f"f:item {number}" for number in range(1, len(items) + 1)]
    for record, item in zip(found, json.loads(text), strict=True):
        assert json.loads(record.raw) == item
        assert record.values == (item if isinstance(item, dict) else None)
        assert record.reason == ("" if isinstance(item, dict) else "not_an_object")


@few
@given(
    items=st.lists(values, min_size=1, max_size=4),
    block=st.integers(1, 60),
    place=st.integers(0, 10**6),
    other=st.sampled_from(["", '"', ",", "]", "}", "[", "{", ":", "1", "x", "\\"]),
)
def test_a_damaged_array_gives_no_item_that_is_not_in_it(tmp_path, monkeypatch, items, block, place, other):
    """One character is changed; where json still reads the whole, so does the stream, and else it stops."""
    monkeypatch.setattr(json_array, "BLOCK", block)
    text = json.dumps(items)
    place = 1 + place % (len(text) - 1)
    text = text[:place] + other + text[place + 1 :]
    path = file(tmp_path, "a.json", text)
    try:
        twice: list[int] = []
        whole = json.loads(
            text, object_pairs_hook=lambda pairs: twice.append(len(pairs) - len(dict(pairs))) or dict(pairs)
        )
    except ValueError:
        found, message = until_fault(path)
        assert "is not JSON in item" in message
        assert all(record.raw in text for record in found)
    else:
        if whole:
            reasons = {record.reason for record in read(path)}
            assert ("duplicate_key" in reasons) == any(twice)
            assert [json.loads(record.raw) for record in read(path)] == whole


def test_an_item_python_cannot_hold_is_lost_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "BLOCK", 7)
    deep = '{"a": [' + '["\\"]",' * 30_000 + "1" + "]" * 30_000 + "]}"
    items = ['{"a": 1}', "9" * 5_000, '{"b": "} , ]", "c": ' + "9" * 5_000 + "}", deep, '{"a": 1, "a": 2}', '{"a": 3}']
    found = read(file(tmp_path, "a.json", "[" + ", ".join(items) + "]"))
    assert [record.raw for record in found] == items
    assert [record.reason for record in found] == ["", "not_json", "not_json", "not_json", "duplicate_key", ""]
    assert "nested too deeply" in found[3].detail
    assert "'a' is given twice" in found[4].detail


def test_a_long_item_is_not_looked_at_again_with_every_block(tmp_path, monkeypatch):
    """A text of 2^18 in blocks of 16: doubling needs about 15 looks, block by block 16,384."""
    monkeypatch.setattr(json_array, "BLOCK", 16)
    looks = []
    grow = json_array.Window.grow
    monkeypatch.setattr(json_array.Window, "grow", lambda window: looks.append(1) or grow(window))
    (record,) = read(file(tmp_path, "a.json", json.dumps([{"a": "x" * 2**18}])))
    assert record.values == {"a": "x" * 2**18}
    assert len(looks) < 25


# --- lines ------------------------------------------------------------------------------------


@few
@given(
    parts=st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\r\n"), max_size=12), st.sampled_from(["\n", "\r\n", "\r"])
        ),
        min_size=1,
        max_size=8,
    ),
    mark=st.booleans(),
)
def test_lines_end_at_any_line_end_and_nowhere_else(tmp_path, parts, mark):
    text = "x\n" + "".join(line + end for line, end in parts)
    path = file(tmp_path, "a.jsonl", b"\xef\xbb\xbf" * mark + text.encode("utf-8", "surrogatepass"))
    # a lone surrogate is no UTF-8: its three bytes are kept, each as an escape
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    expected = [
        (f"f:{number}", line)
        for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1)
        if line and not line.isspace()
    ]
    assert [(record.origin, record.raw) for record in records(path, "f", None)] == expected


def test_a_line_over_the_limit_is_passed_over_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE", 20)
    exact = '{"a": "' + "x" * 11 + '"}'
    assert len(exact) == 20
    rows = ['{"a": 1}', exact, exact + " " * 3, "y" * 5_000_000, exact, '{"a": 2}']
    for end in ("\n", "\r\n", "\r"):
        found = read(file(tmp_path, "a.jsonl", end.join(rows) + end))
        assert [(record.origin, record.reason) for record in found] == [
            ("f:1", ""),
            ("f:2", ""),
            ("f:3", "line_too_long"),
            ("f:4", "line_too_long"),
            ("f:5", ""),
            ("f:6", ""),
        ]
        assert found[3].raw == "y" * 22
        with pytest.raises(BadInput, match="line 2 is longer than 20"):
            read(file(tmp_path, "a.csv", end.join(["a", "y" * 30])))
    monkeypatch.setattr(json_array, "BLOCK", 4)
    with pytest.raises(BadInput, match="item 2: longer than 20"):
        read(file(tmp_path, "a.json", '[{"a": 1}, "' + "x" * 100 + '"]'))


def test_blank_lines_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MOST_BLANK", 5)
    assert len(read(file(tmp_path, "a.jsonl", '{"a": 1}' + "\n" * 6 + '{"a": 1}'))) == 2
    found, message = until_fault(file(tmp_path, "a.jsonl", '{"a": 1}' + "\n" * 9 + '{"a": 1}'))
    assert len(found) == 1
    assert "more than 5 blank lines" in message


# --- one JSON text ----------------------------------------------------------------------------


@few
@given(value=values)
def test_parse_json_is_json(value):
    text = json.dumps(value)
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "duplicate_key", "the key 'a' is given twice"),
        ('{"a": [{"b": 1, "\\u0062": 2}]}', "duplicate_key", "the key 'b' is given twice"),
        ('{"a": 1} x', "not_json", "Extra data at character 10"),
        ("[" * 200_000, "not_json", "nested too deeply"),
        ('{"a": ' + "1" * 5_000 + "}", "not_json", "4300 digits"),
        ("[1]", "not_an_object", "JSON list instead of an object"),
    ],
)
def test_every_fault_of_a_line_has_its_reason(raw, reason, detail):
    record = parsed(Record("f:1", None, raw, UNPARSED), ("a",))
    assert (record.origin, record.values, record.raw, record.reason) == ("f:1", None, raw, reason)
    assert detail in record.detail


def test_values_that_are_not_finite_are_left_to_who_needs_a_number():
    record = parsed(Record("f:1", None, '{"a": NaN, "b": -Infinity, "c": 1e999}', UNPARSED))
    assert record.values is not None
    assert record.values["a"] != record.values["a"]
    assert (record.values["b"], record.values["c"]) == (float("-inf"), float("inf"))


def test_only_what_is_unparsed_is_parsed_and_only_what_is_wanted_is_kept():
    record = Record("f:1", None, '{"b": 1, "a": 2, "c": 3}', UNPARSED)
    assert parsed(record, ("a", "b", "z")).values == {"a": 2, "b": 1}
    assert parsed(record).values == {"a": 2, "b": 1, "c": 3}
    for other in (parsed(record), Record("f:2", None, "{}", "line_too_long", "x"), Record("f:3", {})):
        assert parsed(other, ("a",)) is other
    # it travels to the processes that parse, bytes that are no UTF-8 included
    for raw in ('{"a": 1}', "\udce9"):
        assert pickle.loads(pickle.dumps(Record("f:1", None, raw, UNPARSED))).raw == raw


# --- CSV --------------------------------------------------------------------------------------

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@few
@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6),
    delimiter=st.sampled_from(csv_file.DELIMITERS),
    # ended by LF alone, some versions of the writer leave a CR unquoted
    form=st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),
)
def test_csv_gives_back_what_was_written(tmp_path, rows, delimiter, form):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=form[0], quoting=form[1])
    writer.writerow(["a", "b", "c"])
    starts = []
    for row in [("x", "", "y"), *rows]:
        starts.append(1 + len(re.findall("\r\n|\r|\n", buffer.getvalue())))
        writer.writerow(row)
    path = file(tmp_path, "a.csv", buffer.getvalue())
    expected = [
        (f"f:{start}", {name: cell or None for name, cell in zip("abc", row, strict=True)})
        for start, row in zip(starts, [("x", "", "y"), *rows], strict=True)
        if any(cell.strip() for cell in row)
    ]
    assert [(record.origin, record.values) for record in records(path, "f", None)] == expected
    assert columns(path, "f", ("b", "c")) == ["a", "b", "c"]
    wanted = [record.values for record in records(path, "f", ("c", "z"))]
    assert wanted == [{"c": values["c"]} for _, values in expected]


@few
@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=2, max_size=5),
    bad=st.text(st.sampled_from('"",x \n'), max_size=12),
    place=st.integers(0, 4),
)
def test_a_broken_row_never_makes_rows_of_text(tmp_path, rows, bad, place):
    """Whatever stands between whole rows: those before it are read, and those behind it are read as they are, or the
    file is refused, or (the quotes pair up by chance) they are text in a cell; never rows that nobody wrote."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    texts = []
    for number, row in enumerate(rows):
        start = buffer.tell()
        writer.writerow(["row", *row[1:], str(number)])
        texts.append(buffer.getvalue()[start:])
    place = min(place, len(rows))
    path = file(tmp_path, "a.csv", "a,b,c,d\n" + "".join(texts[:place]) + bad + "\n" + "".join(texts[place:]))
    found = []
    try:
        for record in records(path, "f", None):
            if record.values is not None:
                found.append(tuple(record.values.values()))
    except BadInput:
        pass
    written = [tuple(cell or None for cell in ("row", *row[1:], str(number))) for number, row in enumerate(rows)]
    assert found[:place] == written[:place]
    assert all(row in written for row in found if row[0] == "row")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('a,b\n1,2\n"x,3\n4,5\n', "quote opened in the row of line 3 is never closed"),
        ('a,b\n1,2\n"x,3\n4,"5"\n6,7\n', "quotes of the row of line 3 do not pair up"),
        ('a,b\n"p"q,r"s,"t\nu,v\n"\n', "quotes of the row of line 2 do not pair up"),
        ('"a"b,c\n1,2\n', "header that cannot be read"),
        ("a,a\n1,2\n", "more than one column a"),
        ("a\0,b\n1,2\n", "header that cannot be read"),
        ("a,b\n", "has no rows"),
        ("\n \n", "is empty"),
    ],
)
def test_csv_of_which_nothing_is_certain_is_refused(tmp_path, text, says):
    _, message = until_fault(file(tmp_path, "a.csv", text))
    assert says in message


def test_a_quote_that_stays_open_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "MOST_LINES", 200)
    _, message = until_fault(file(tmp_path, "a.csv", 'a,b\n1,"' + "x\n" * 300))
    assert "line 2 is not closed for 200 lines" in message


# --- Parquet ----------------------------------------------------------------------------------


def parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def test_parquet_is_read_in_batches_that_do_not_show(tmp_path):
    rows = [{"a": f"x{number}", "b": [{"c": number}], "d": number} for number in range(2_500)]
    path = parquet(tmp_path / "a.parquet", rows, row_group_size=700)
    found = list(records(path, "f", ("b", "a", "z")))
    assert [record.origin for record in found] == [f"f:row {number}" for number in range(1, 2_501)]
    assert [record.values for record in found] == [{"a": row["a"], "b": row["b"]} for row in rows]
    assert columns(path, "f", ()) == ["a", "b", "d"]
    packed = file(tmp_path, "b.parquet.gz", gzip.compress(path.read_bytes()))
    assert list(records(packed, "f", ("b", "a"))) == found


def test_a_value_that_cannot_be_had_costs_its_row(tmp_path):
    import pyarrow
    from pyarrow import parquet as files

    texts = [b"x"] * 1_500
    texts[1_200] = b"caf\xe9"
    text = pyarrow.Array.from_buffers(pyarrow.string(), 1_500, pyarrow.array(texts, pyarrow.binary()).buffers())
    days = pyarrow.array([0] * 1_499 + [2**31 - 1], pyarrow.int32()).cast(pyarrow.date32())
    files.write_table(pyarrow.table({"a": text, "b": days}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    bad = [(record.origin, record.reason) for record in found if record.values is None]
    assert bad == [("f:row 1201", "bad_text"), ("f:row 1500", "bad_value")]
    assert len(found) == 1_500
    assert {record.values["a"] for record in found if record.values} == {"x"}


def test_parquet_damaged_within_says_after_which_row(tmp_path):
    rows = [{"a": f"{number} " + "x" * 50} for number in range(6_000)]
    path = parquet(
        tmp_path / "a.parquet",
        rows,
        row_group_size=2_000,
        compression=None,
        write_page_checksum=True,
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"4500 xxx") + 3] ^= 255
    found, message = until_fault(file(tmp_path, "b.parquet", bytes(data)))
    assert len(found) <= 4_500
    assert len(found) % 1_024 == 0 or len(found) == 4_000
    assert f"after row {len(found):,}" in message
    assert [record.values for record in found] == rows[: len(found)]


# --- files ------------------------------------------------------------------------------------


def rows_of_json(count: int) -> list[dict[str, Any]]:
    return [{"prompt": hashlib.sha256(str(number).encode()).hexdigest(), "n": number} for number in range(count)]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
@pytest.mark.parametrize(("name", "unit"), [("a.jsonl", "line"), ("a.json", "item"), ("a.csv", "line")])
def test_a_packed_file_cut_anywhere_says_after_which_line(tmp_path, monkeypatch, pack, name, unit):
    """What came before the cut is what was written, and the place in the message is the last record that came."""
    import pyarrow

    monkeypatch.setattr(json_array, "BLOCK", 4_096)
    rows = rows_of_json(20_000)
    if name == "a.csv":
        data = "prompt,n\n" + "".join(f"{row['prompt']},{row['n']}\n" for row in rows)
    else:
        data = json.dumps(rows) if name == "a.json" else "".join(json.dumps(row) + "\n" for row in rows)
    packed = gzip.compress(data.encode()) if pack == "gzip" else pyarrow.compress(data.encode(), pack, asbytes=True)
    assert len(read(file(tmp_path, name, packed))) == 20_000
    for share in (0.5, 0.9, 0.999):
        found, message = until_fault(file(tmp_path, name, packed[: int(len(packed) * share)]))
        assert 0 < len(found) < 20_001
        prompts = [record.values["prompt"] for record in found if record.values]
        assert prompts == [row["prompt"] for row in rows[: len(found)]]
        place = re.search(rf"damaged {pack} after {unit} ([\d,]+) \(", message)
        assert place, message
        reached = int(place[1].replace(",", ""))
        # a CSV's first line is its header; an item is counted when the comma behind it is there
        assert reached - (name == "a.csv") in (len(found), len(found) - 1)


def test_columns_are_those_of_the_first_thousand_objects(tmp_path):
    rows = [{"a": 1}] * 998 + [{"b": 1, "a": 2}, {"c": 1}, {"d": 1}]
    for name, text in (("a.json", json.dumps(rows)), ("a.jsonl", "\n".join(map(json.dumps, rows)))):
        assert columns(file(tmp_path, name, text), "f", ()) == ["a", "b", "c"]
    # junk first does not hide what comes
    assert columns(file(tmp_path, "a.jsonl", "x\n" * 1_200 + '{"a": 1}\n' * 2), "f", ()) == ["a"]
    with pytest.raises(BadInput, match=r"No line of .*; line 2: Expecting value at character 1"):
        columns(file(tmp_path, "a.jsonl", "\nx\n3\n"), "f", ())
    with pytest.raises(BadInput, match="; item 1: JSON int"):
        columns(file(tmp_path, "a.json", "[1]"), "f", ())


@pytest.mark.parametrize("header", ["a;b;c", "a\tb\tc", "a|b|c", '"a";"b";"c"', "x,y;a;b;c", "\n\na;b;c"])
def test_the_delimiter_is_the_one_that_finds_the_columns(tmp_path, header):
    assert columns(file(tmp_path, "a.csv", header + "\n1;2;3\n"), "f", ("a", "b", "c"))[-2:] == ["b", "c"]


def test_what_a_name_tells():
    names = ("a.jsonl", "a.JSONL.GZ", "a.csv.zst", "a.tar.gz", "a", ".jsonl", "a.gz", "v1.5.json")
    assert [suffix(name) for name in names] == [".jsonl", ".jsonl", ".csv", ".tar", "", "", "", ".json"]


def test_names_are_shown_in_one_line_without_terminal_codes():
    assert printable("a\nb\r\x1b[31m\x07ü [red] \udce9\u202e") == "a\\nb\\r\\x1b[31m\\x07ü [red] \\udce9\\u202e"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_a_file_is_not_held(tmp_path, name):
    """16 MB, of which the largest part that is held at once is a block of an array and its copy."""
    row = {"prompt": "x" * 1_000, "label": True}
    line = json.dumps(row) + "\n"
    data = {
        ".jsonl": line * 16_000,
        ".json": json.dumps([row] * 16_000),
        ".csv": "a,b\n" + f"{'x' * 1_000},1\n" * 16_000,
    }
    text = data[suffix(name)].encode()
    path = file(tmp_path, name, gzip.compress(text, 1) if name.endswith("gz") else text)
    del data, text
    tracemalloc.start()
    try:
        count = sum(1 for _ in records(path, "f", None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 16_000
    assert peak < 6e6


# --- real files -------------------------------------------------------------------------------


def test_real_hh_rlhf_is_read_as_json_reads_it():
    path = shared("data", "hh-rlhf", "harmless-base_test.jsonl.gz")
    plain = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line]
    found = read(path)
    assert [record.values for record in found] == plain
    assert [record.origin for record in found] == [f"f:{number}" for number in range(1, 2_313)]


@pytest.mark.parametrize(
    ("parts", "count", "unit"),
    [
        (("halueval", "general_data.json"), 4_507, ""),
        (("llama-factory", "kto_en_demo.json"), 300, "item "),
        (("llama-factory", "dpo_en_demo.json"), 300, "item "),
    ],
)
def test_real_json_files_whatever_their_name(parts, count, unit):
    path = shared("data", *parts)
    text = path.read_text(encoding="utf-8")
    plain = json.loads(text) if unit else [json.loads(line) for line in text.split("\n") if line.strip()]
    found = read(path)
    assert [record.values for record in found] == plain
    assert (found[-1].origin, len(found)) == (f"f:{unit}{count}", count)


def test_real_csv_files_are_read_as_csv_reads_them():
    for path in sorted(shared("data", "xstest").glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as plain:
            expected = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(plain)]
        assert [record.values for record in read(path)] == expected
        assert len(expected) == 450
