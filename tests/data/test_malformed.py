"""Whatever file is given, `kto binarize` refuses it in one line or accounts for every row; no label is ever wrong."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from pathlib import Path

import pytest
from conftest import Command, Ran, error_line
from malformed import CASES, GOOD, KNOWN, WHOLE, Case, among, known


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(ran: Ran, *words: str) -> None:
    """One line of error, with these words and nothing that a terminal would act on."""
    error = error_line(ran)
    assert not set("\x1b\r") & set(ran.err)
    assert len(error) < 1500
    for word in words:
        assert word in error, f"{word!r} is not in {error!r}"


def text_of(chat: str | list[dict[str, str]]) -> str:
    return chat if isinstance(chat, str) else chat[-1]["content"]


def rows_written(out: Path) -> Counter:
    """(prompt, completion, label) of every row of the two Parquet files."""
    from pyarrow import parquet

    rows = [row for name in ("train", "validation") for row in parquet.read_table(out / f"{name}.parquet").to_pylist()]
    return Counter((text_of(row["prompt"]), text_of(row["completion"]), row["label"]) for row in rows)


def accounted(ran: Ran, out: Path, case: Case) -> None:
    """Every row is where it belongs: the known ones in the dataset, the others in rejects.jsonl by reason."""
    assert ran.code == 0, ran.err[-500:]
    result = ran.json
    used = result["desirable"] + result["undesirable"] + result["validation"]
    assert result["rejected"] == case.rejected
    assert (used, result["dropped"]) == (len(case.known), 0)
    assert result["rows_in"] == used + sum(case.rejected.values())
    assert rows_written(out) == Counter(case.known)
    found: Counter = Counter()
    for line in (out / "rejects.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        reject = json.loads(line)
        assert reject["detail"]
        assert "f." in reject["origin"]
        found[reject["reason"]] += reject["rows"]
    assert found == case.rejected


def test_there_are_enough_cases():
    assert len(CASES) >= 130


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "bomb-newlines")) for name in CASES]
)
def test_a_malformed_file(kto: Command, workplace: Path, name: str) -> None:
    case = CASES[name]
    path = workplace / case.name
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        case.content(path)
    before = tree(workplace)
    source = ("hh-rlhf", "--from", case.name) if case.hh else (case.name,)
    ran = kto("binarize", *source, "--out", "out", "--validation", 0, "--json")
    if case.says is None:
        accounted(ran, workplace / "out", case)
    else:
        refused(ran, case.name, *case.says)
        assert tree(workplace) == before


# --- paths ------------------------------------------------------------------------------------


def folder(path: Path) -> None:
    path.mkdir()


def nothing(path: Path) -> None:
    """No file at all."""


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere.jsonl")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


PATHS = {
    "missing": ("f.jsonl", nothing, "f.jsonl"),
    "missing-parent": ("a/b/c/f.jsonl", nothing, "f.jsonl"),
    "upwards": ("../../../../../../nowhere/f.jsonl", nothing, "f.jsonl"),
    "folder": ("f.jsonl", folder, "folder"),
    "pipe": ("f.jsonl", os.mkfifo, "not a plain file"),
    "pipe-csv": ("f.csv", os.mkfifo, "not a plain file"),
    "pipe-parquet": ("f.parquet", os.mkfifo, "not a plain file"),
    "socket": ("f.jsonl", unix_socket, "not a plain file"),
    "endless-device": ("f.jsonl", device, "not a plain file"),
    "null-device": ("/dev/null", nothing, "/dev/null"),
    "symlink-loop": ("f.jsonl", loop, "f.jsonl"),
    "symlink-to-nothing": ("f.jsonl", dangling, "f.jsonl"),
    "suffix-alone": (".jsonl", lambda path: path.write_bytes(WHOLE), "no suffix"),
    "markup": ("[red]f[/red].jsonl", nothing, "[red]f[/red].jsonl"),
    "markup-empty-file": ("[bold]f.jsonl", lambda path: path.write_bytes(b""), "[bold]f.jsonl is empty"),
    "line-end-in-name": ("a\nb.jsonl", lambda path: path.write_bytes(b""), "a\\nb.jsonl is empty"),
    "escape-in-name": ("a\x1b[31mb.jsonl", lambda path: path.write_bytes(b""), "a\\x1b[31mb.jsonl is empty"),
    "carriage-return-in-name": ("a\rb.csv", lambda path: path.write_bytes(b""), "a\\rb.csv is empty"),
    "bytes-in-name": (os.fsdecode(b"caf\xe9.jsonl"), lambda path: path.write_bytes(b""), ".jsonl is empty"),
}


@pytest.mark.parametrize(("name", "make", "word"), PATHS.values(), ids=PATHS)
@pytest.mark.timeout(60)
def test_a_path_that_cannot_be_read(kto: Command, workplace: Path, name: str, make, word: str) -> None:
    if not name.startswith(("/", "..", "a/")):
        make(workplace / name)
    before = tree(workplace)
    refused(kto("binarize", "--out", "out", "--json", "--", name), word)
    assert tree(workplace) == before


@pytest.mark.parametrize("make", [os.mkfifo, loop, dangling, unix_socket, device])
@pytest.mark.timeout(60)
def test_a_path_of_hh_rlhf_that_cannot_be_read(kto: Command, workplace: Path, make) -> None:
    make(workplace / "f.jsonl")
    refused(kto("binarize", "hh-rlhf", "--from", "f.jsonl", "--out", "out", "--json"), "f.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission(kto: Command, workplace: Path) -> None:
    (workplace / "f.jsonl").write_bytes(WHOLE)
    (workplace / "f.jsonl").chmod(0)
    refused(kto("binarize", "f.jsonl", "--out", "out", "--json"), "f.jsonl cannot be read", "Permission")


def test_a_name_too_long(kto: Command, workplace: Path) -> None:
    refused(kto("binarize", "x" * 300 + ".jsonl", "--out", "out", "--json"), "xxx.jsonl does not exist")
    refused(kto("binarize", "x" * 300 + ".jsonl", "--json"), "too long")
    assert tree(workplace) == []


@pytest.mark.parametrize(
    "name", ["-f.jsonl", "a b.jsonl", "ü.jsonl", "[red]f[bold].jsonl", "a\nb.jsonl", "$(ls).csv.jsonl"]
)
def test_a_name_that_only_looks_odd(kto: Command, workplace: Path, name: str) -> None:
    (workplace / name).write_bytes(WHOLE)
    ran = kto("binarize", "--out", "out", "--json", "--", name)
    assert ran.code == 0, ran.err
    assert rows_written(workplace / "out") == Counter(KNOWN)


# --- size -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_line_of_50_megabytes_is_a_row(kto: Command, workplace: Path) -> None:
    row = {"prompt": "Long?", "completion": "word " * 10_000_000 + "end.", "label": True}
    (workplace / "f.jsonl").write_bytes(among(row))
    case = Case("f.jsonl", b"", None, {}, (*KNOWN, known(row)))
    accounted(kto("binarize", "f.jsonl", "--out", "out", "--json"), workplace / "out", case)


def test_a_line_over_the_limit_is_one_reject(kto: Command, workplace: Path) -> None:
    with (workplace / "f.jsonl").open("wb") as file:
        file.write(WHOLE[: WHOLE.index(b"\n") + 1])
        for _ in range(65):
            file.write(b"x" * 2**20)
        file.write(b"\r\n" + WHOLE[WHOLE.index(b"\n") + 1 :])
    case = Case("f.jsonl", b"", None, {"line_too_long": 1}, tuple(map(known, GOOD)))
    accounted(kto("binarize", "f.jsonl", "--out", "out", "--json"), workplace / "out", case)
