"""Excel workbooks: rows, kinds of cells and origins; which sheet is read; what is wrong with a file is one line."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from made_feedback import Recorder, binarize, both_splits, lines_of

from kto_cli.common.errors import BadInput
from kto_cli.data.readers import any_file, excel_file
from kto_cli.data.readers.jsonl import Record

openpyxl = pytest.importorskip("openpyxl")


def workbook(path: Path, *sheets: Sequence[Sequence[Any]], hidden: Sequence[int] = ()) -> Path:
    """A workbook with the rows of each sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet {number + 1}")
        for row in rows:
            sheet.append(list(row))
        sheet.sheet_state = "hidden" if number in hidden else "visible"
    book.save(path)
    return path


def read(path: Path, wanted: Sequence[str] | None = None) -> list[Record]:
    return list(any_file.records(path, path.name, wanted))


def test_cells_keep_their_kind_and_rows_their_number(tmp_path):
    header = [" q ", "n", "ok", "when", "at", "day", None]
    moment = datetime(2026, 1, 2, 3, 4)
    rows = [
        [],
        header,
        ["Any tea?\nNow?", 5, True, moment, time(9, 30), date(2026, 5, 6), None],
        [None, None, None],
        ["0042", 2.5, False, datetime(2026, 1, 2), None, "", None],
        ["short"],
    ]
    path = workbook(tmp_path / "f.xlsx", rows)
    first, second, third = read(path)
    assert any_file.columns(path, path.name, ()) == ["q", "n", "ok", "when", "at", "day"]
    assert first.values == {
        **{"q": "Any tea?\nNow?", "n": 5, "ok": True},
        **{"when": "2026-01-02T03:04:00", "at": "09:30:00", "day": "2026-05-06"},
    }
    assert second.values == {"q": "0042", "n": 2.5, "ok": False, "when": "2026-01-02", "at": None, "day": None}
    assert third.values == {"q": "short", **dict.fromkeys(("n", "ok", "when", "at", "day"))}
    assert [record.origin for record in (first, second, third)] == [f"f.xlsx:row {row}" for row in (3, 5, 6)]
    assert [record.values for record in read(path, ["n"])] == [{"n": 5}, {"n": 2.5}, {"n": None}]


def test_a_log_in_excel_gives_the_rows_of_the_same_log_in_csv(tmp_path):
    rows = [("question", "answer", "ok"), *((f"Q{k}", f"A{k}, “{k}”", k % 2) for k in range(40))]
    workbook(tmp_path / "log.xlsx", rows)
    text = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    found = []
    for kind in ("xlsx", "csv"):
        result = binarize(f"log:{tmp_path / f'log.{kind}'}", out=tmp_path / kind, label_column="ok", validation=0.1)
        both = both_splits(tmp_path / kind)
        found.append((result["rows_in"], result["splits"], [(row["id"], row["label"]) for row in both]))
    assert found[0] == found[1]


def test_rows_that_are_no_rows_are_rejected_one_by_one(tmp_path):
    header = ["question", "answer", "ok"]
    rows = [header, ["Q1", "A1", 1], header, ["Q2", "A2", 0, "more"], ["Q3", "x" * 32_767, 1], ["Q4", "A4", 0]]
    result = binarize(f"log:{workbook(tmp_path / 'log.xlsx', rows)}", out=tmp_path / "out", label_column="ok")
    assert result["rejected"] == {"cell_full": 1, "repeated_header": 1, "wrong_cell_count": 1}
    assert [line["origin"] for line in lines_of(tmp_path / "out" / "rejects.jsonl")] == [
        f"log.xlsx:row {row}" for row in (3, 4, 5)
    ]


def test_the_first_visible_sheet_is_read_and_the_others_are_named(tmp_path):
    table = [["prompt", "completion", "label"], ["Q", "A", True], ["Q?", "B", False]]
    path = workbook(tmp_path / "f.xlsx", [["internal"]], table, [["notes"]], hidden=[0])
    screen = Recorder()
    binarize(str(path), out=None, check=True, screen=screen)
    assert [note for note in screen.notes if "The sheet" in note] == [
        f"The sheet Sheet 2 of {path} is read; left out: Sheet 1, Sheet 3."
    ]
    screen = Recorder()
    binarize(str(workbook(tmp_path / "g.xlsx", table)), out=None, check=True, screen=screen)
    assert not [note for note in screen.notes if "The sheet" in note]


def test_control_characters_are_read_as_what_they_are(tmp_path):
    path = workbook(tmp_path / "f.xlsx", [["q"], ["one_x000D_\ntwo _x0041_"]])
    assert read(path)[0].values == {"q": "one\r\ntwo _x0041_"}


def test_stated_dimensions_that_are_wrong_lose_no_column(tmp_path):
    """Some programs state the dimension A1; openpyxl would give one column."""
    path = workbook(tmp_path / "f.xlsx", [["q", "a"], ["Ask", "Say"]])
    changed = tmp_path / "g.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'ref="A1:B2"', b'ref="A1"'))
    assert read(changed)[0].values == {"q": "Ask", "a": "Say"}


FAULTS: dict[str, tuple[str, str]] = {
    "twice": ("more than one column q", "Rename"),
    "other-order": ("row 3 is a header with the columns in another order", "Split the file"),
    "empty-sheet": ("Sheet 'Sheet 1' of", "is empty. Put the rows on the first sheet; the others are Sheet 2."),
    "header-alone": ("has no rows", "at least one row"),
    "cut": ("cannot be read as an Excel workbook", "save the sheet as CSV"),
    "broken-xml": ("cannot be read as an Excel workbook", "save the sheet as CSV"),
    "text": ("is no Excel workbook", "Name it by what it is"),
    "empty": ("is empty", "at least one row"),
    "old": ("has a password or is an old workbook (.xls)", "Save the sheet as CSV"),
    "zip": ("it is another ZIP archive", "save the sheet as CSV"),
}


def faulty(path: Path, fault: str) -> Path:
    rows: dict[str, list[list[list[Any]]]] = {
        "twice": [[["q", "q"], ["Q", "A"]]],
        "other-order": [[["q", "a"], ["Q", "A"], ["a", "q"], ["A", "Q"]]],
        "empty-sheet": [[], [["q"]]],
        "header-alone": [[["q", "a"]]],
    }
    workbook(path, *rows.get(fault, [[["q", "a"], ["Q" * 9, "A" * 9]]]))
    whole = path.read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "text": b"q,a\n", "empty": b"", "old": b"\xd0\xcf\x11\xe0" + b"x" * 99}
    if fault in contents:
        path.write_bytes(contents[fault])
    if fault in ("zip", "broken-xml"):
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            if fault == "zip":
                new.writestr("a.txt", "text")
            for name, content in parts.items() if fault == "broken-xml" else ():
                new.writestr(name, content[:-40] if "sheet1" in name else content)
    return path


def check_and_read(path: Path) -> None:
    any_file.columns(path, path.name, ())
    any_file.layout_notes(path)
    read(path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, fault):
    path = faulty(tmp_path / "f.xlsx", fault)
    with pytest.raises(BadInput) as caught:
        check_and_read(path)
    said = str(caught.value)
    assert all(part in said for part in FAULTS[fault]), said
    assert "\n" not in said


def test_texts_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    path = workbook(tmp_path / "f.xlsx", [["q"], ["Q" * 1000]])
    monkeypatch.setattr(excel_file, "MOST_IN_MEMORY", 100)
    with pytest.raises(BadInput, match="of texts, which would all be in memory"):
        read(path)


@pytest.mark.parametrize("suffix", ["xls", "ods", "numbers", "xlsb"])
def test_other_spreadsheets_are_asked_for_as_csv(tmp_path, suffix):
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(BadInput, match="is a spreadsheet") as caught:
        read(path)
    assert "Save the sheet as CSV" in str(caught.value)


def test_without_openpyxl_the_line_says_what_to_do(tmp_path, monkeypatch):
    path = workbook(tmp_path / "f.xlsx", [["q"], ["Q"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(BadInput, match="needs openpyxl") as caught:
        read(path)
    assert "Save the sheet as CSV, or run: pip install" in str(caught.value)
    assert "[excel]" in str(caught.value)
