"""Malformed feedback, made here: for each input what must come of it.

Every file that is not refused holds known rows, and after the run exactly those must be in the Parquet files, each with
its label; so a case cannot pass by dropping, repeating or relabelling what is whole.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Known = tuple[str, str, bool]
"""(last turn of the prompt, completion, label)"""
Make = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """One input: a file to make, and what `kto binarize` must say of it."""

    name: str
    content: bytes | Make
    says: tuple[str, ...] | None = None
    """Words of the error that refuses it; None: it is accepted."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Rows rejected by reason, where it is accepted."""
    known: tuple[Known, ...] = ()
    hh: bool = False
    """Read as hh-rlhf."""


# --- known rows ---------------------------------------------------------------------------------


def good(number: int) -> dict[str, Any]:
    return {"prompt": f"Question {number}?", "completion": f"Answer {number}.", "label": number % 2 == 0}


def known(row: dict[str, Any]) -> Known:
    prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
    return prompt, row["completion"], row["label"]


GOOD = [good(number) for number in range(6)]
KNOWN = tuple(map(known, GOOD))
USER = {"role": "user", "content": "Hi"}
BOT = {"role": "assistant", "content": "Yes?"}


def line(row: Any) -> bytes:
    """A row as a line of JSON; text and bytes as they are."""
    if isinstance(row, bytes):
        return row + b"\n"
    return (row if isinstance(row, str) else json.dumps(row)).encode() + b"\n"


def jsonl(rows: Sequence[Any]) -> bytes:
    return b"".join(map(line, rows))


WHOLE = jsonl(GOOD)
LINES = WHOLE.decode().splitlines()


def among(*rows: Any) -> bytes:
    """JSON lines: the given ones in the middle of the good ones."""
    return jsonl([*GOOD[:3], *rows, *GOOD[3:]])


# --- one bad row of JSON lines --------------------------------------------------------------------

ODD = {"prompt": "Odd?", "completion": "Odd.", "label": True}
NOT_TEXT = {
    "number": (3, "not_messages"),
    "float": (1.5, "not_messages"),
    "bool": (True, "not_messages"),
    "object": ({"text": "x"}, "not_messages"),
    "list-of-text": (["x"], "not_messages"),
    "list-of-null": ([None], "not_messages"),
    "nested-null": ([[None]], "not_messages"),
    "null": (None, "missing_field"),
    "message-without-content": ([{"role": "user"}], "not_text"),
    "message-of-nulls": ([{"role": None, "content": None}], "not_text"),
    "message-with-nested-null": ([{"role": "user", "content": {"text": None}}], "not_text"),
    "message-with-image": ([{"role": "user", "content": [{"type": "image"}]}], "media_not_accepted"),
    "message-with-number": ([{"role": "user", "content": 7}], "not_text"),
    "role-number": ([{"role": 1, "content": "x"}], "not_text"),
}
CELLS = {
    f"{column}-{name}": ({**ODD, column: value}, reason)
    for column in ("prompt", "completion")
    for name, (value, reason) in NOT_TEXT.items()
}
EMPTY = {
    "prompt-empty": ({**ODD, "prompt": ""}, "empty_prompt"),
    "prompt-blank": ({**ODD, "prompt": " \t\n\u00a0\u2003"}, "empty_prompt"),
    "completion-empty": ({**ODD, "completion": ""}, "empty_answer"),
    "completion-blank": ({**ODD, "completion": "\r\n\u3000"}, "empty_answer"),
    "completion-no-message": ({**ODD, "completion": []}, "empty_answer"),
    "no-columns": ({}, "label_missing"),
    "column-missing": ({"prompt": "Odd?", "label": True}, "missing_field"),
    "columns-in-capitals": ({"Prompt": "Odd?", "Completion": "Odd.", "label": True}, "missing_field"),
    "label-column-in-capitals": ({"prompt": "Odd?", "completion": "Odd.", "Label": True}, "label_missing"),
    "prompt-surrogate": ('{"prompt": "a\\ud800b", "completion": "Odd.", "label": true}', "bad_text"),
    "completion-surrogate": ('{"prompt": "Odd?", "completion": "\\udfff", "label": true}', "bad_text"),
    "latin-1": (b'{"prompt": "caf\xe9", "completion": "Odd.", "label": true}', "bad_text"),
    "overlong-utf-8": (b'{"prompt": "a\xc0\xafb", "completion": "Odd.", "label": true}', "bad_text"),
    "cut-utf-8": (b'{"prompt": "Odd?", "completion": "x\xe2\x82", "label": false}', "bad_text"),
}
CHATS = {
    "chat-empty": ([], "roles_do_not_alternate"),
    "chat-assistant-last": ([USER, BOT], "roles_do_not_alternate"),
    "chat-system-in-the-middle": ([USER, BOT, {"role": "system", "content": "S"}, USER], "roles_do_not_alternate"),
    "chat-system-alone": ([{"role": "system", "content": "S"}], "roles_do_not_alternate"),
    "chat-tool": ([USER, BOT, {"role": "tool", "content": "4"}], "roles_do_not_alternate"),
    "chat-empty-turn": ([{"role": "user", "content": " "}, BOT, USER], "empty_turn"),
    "chat-of-lists": ([["user", "Hi"]], "not_messages"),
}
ANSWERS = {
    "answer-of-user": ([{"role": "user", "content": "x"}], "answer_not_one_turn"),
    "answer-of-two-turns": ([BOT, {"role": "assistant", "content": "More."}], "answer_not_one_turn"),
    "answer-empty-turn": ([{"role": "assistant", "content": "\n"}], "empty_answer"),
    "answer-other-prompt": ([USER, BOT], "answer_not_one_turn"),
}
BAD_LABELS: dict[str, tuple[Any, str]] = {
    "null": (None, "label_missing"),
    "empty": ("", "label_missing"),
    "blank": (" \t", "label_missing"),
    "minus-one": (-1, "label_not_binary"),
    "two": (2, "label_not_binary"),
    "two-as-text": ("2", "label_not_binary"),
    "half": (0.5, "label_not_binary"),
    "huge": (10**300, "label_not_binary"),
    "yes": ("yes", "label_not_accepted"),
    "no": ("no", "label_not_accepted"),
    "t": ("t", "label_not_accepted"),
    "null-as-text": ("null", "label_missing"),
    "nan-as-text": ("NaN", "label_missing"),
    "exponent": ("1e0", "label_not_accepted"),
    "thumbs-up": ("👍", "label_not_accepted"),
    "full-width-one": ("１", "label_not_accepted"),
    "arabic-zero": ("٠", "label_not_accepted"),
    "superscript-one": ("¹", "label_not_accepted"),
    "roman-one": ("Ⅰ", "label_not_accepted"),
    "full-width-true": ("ｔｒｕｅ", "label_not_accepted"),
    "zero-width": ("\u200btrue", "label_not_accepted"),
    "list": ([True], "label_not_accepted"),
    "empty-list": ([], "label_missing"),
    "object": ({"value": True}, "label_not_accepted"),
    "nested-null": ([[None]], "label_not_accepted"),
    "nan": (float("nan"), "label_missing"),
    "infinity": (float("inf"), "label_not_accepted"),
    "surrogate": ("\ud800", "label_not_accepted"),
}
GOOD_LABELS: dict[str, tuple[Any, bool]] = {
    "one": (1, True),
    "zero": (0, False),
    "float": (1.0, True),
    "minus-zero": (-0.0, False),
    "text-float": ("1.0", True),
    "text-zero": ("0", False),
    "capitals-and-space": ("True ", True),
    "false-with-line-end": ("\nFALSE\r\n", False),
}
SYNTAX: dict[str, tuple[str | bytes, str]] = {
    "trailing-comma": (LINES[0][:-1] + ",}", "not_json"),
    "single-quotes": (LINES[0].replace('"', "'"), "not_json"),
    "python-repr": (repr(ODD), "not_json"),
    "comment": ("// " + LINES[0], "not_json"),
    "comment-behind": (LINES[0] + " # good", "not_json"),
    "two-objects": (LINES[0] + LINES[1], "not_json"),
    "comma-behind": (LINES[0] + ",", "not_json"),
    "cut": (LINES[0][:-9], "not_json"),
    "keys-unquoted": ('{prompt: "Odd?", completion: "Odd.", label: true}', "not_json"),
    "tab-in-text": ('{"prompt": "a\tb", "completion": "Odd.", "label": true}', "not_json"),
    "nul-byte": (b'{"prompt": "a\x00b", "completion": "Odd.", "label": true}', "not_json"),
    "nul-line": (b"\x00" * 40, "not_json"),
    "bad-escape": ('{"prompt": "a\\xb", "completion": "Odd.", "label": true}', "not_json"),
    "fence": ("```json", "not_json"),
    "bom-within": (b"\xef\xbb\xbf" + line(ODD).strip(), "not_json"),
    "leading-zero": ('{"prompt": "Odd?", "completion": "Odd.", "label": 01}', "not_json"),
    "capital-true": ('{"prompt": "Odd?", "completion": "Odd.", "label": True}', "not_json"),
    "undefined": ('{"prompt": "Odd?", "completion": "Odd.", "label": undefined}', "not_json"),
    "deep-lists": ('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", "not_json"),
    "deep-objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "not_json"),
    "open-brackets": ("[" * 100_000, "not_json"),
    "long-integer": ('{"prompt": "Odd?", "completion": "Odd.", "label": ' + "1" * 5_000 + "}", "not_json"),
    "longer-integer": ('{"n": ' + "9" * 10_000 + ', "prompt": "Odd?"}', "not_json"),
    "text": ('"prompt"', "not_an_object"),
    "number": ("1", "not_an_object"),
    "null": ("null", "not_an_object"),
    "bool": ("true", "not_an_object"),
    "nan": ("NaN", "not_an_object"),
    "array": ('["Odd?", "Odd.", true]', "not_an_object"),
    "object-in-array": ("[" + LINES[0] + "]", "not_an_object"),
    "label-twice": ('{"prompt": "Odd?", "completion": "Odd.", "label": true, "label": false}', "duplicate_key"),
    "prompt-twice": ('{"prompt": "Odd?", "prompt": "Even?", "completion": "Odd.", "label": true}', "duplicate_key"),
    "same-twice": ('{"prompt": "Odd?", "completion": "Odd.", "label": true, "label": true}', "duplicate_key"),
    "content-twice": (
        '{"prompt": [{"role": "user", "content": "a", "content": "b"}], "completion": "Odd.", "label": true}',
        "duplicate_key",
    ),
    "escaped-key-twice": (
        '{"prompt": "Odd?", "completion": "Odd.", "label": true, "l\\u0061bel": false}',
        "duplicate_key",
    ),
}


def one_bad_row() -> dict[str, Case]:
    """A good file with one bad row; the bad row alone is lost."""
    rows: dict[str, tuple[Any, str]] = {**CELLS, **EMPTY}
    rows |= {name: ({**ODD, "prompt": prompt}, reason) for name, (prompt, reason) in CHATS.items()}
    rows |= {name: ({**ODD, "completion": answer}, reason) for name, (answer, reason) in ANSWERS.items()}
    rows |= {"label-" + name: ({**ODD, "label": label}, reason) for name, (label, reason) in BAD_LABELS.items()}
    rows |= {"json-" + name: (raw, reason) for name, (raw, reason) in SYNTAX.items()}
    return {name: Case("f.jsonl", among(row), None, {reason: 1}, KNOWN) for name, (row, reason) in rows.items()}


def one_more_row() -> dict[str, Case]:
    """A good file with one row that looks odd and is whole: it stays, letter by letter."""
    rows = {f"label-{name}": ({**ODD, "label": value}, label) for name, (value, label) in GOOD_LABELS.items()}
    texts = {
        "line-separators": "a\u2028b\u2029c\u0085d",
        "escaped-nul": "a\x00b",
        "markup": "[red]x[/red] [bold",
        "terminal-escape": "\x1b[31mred\x07",
        "emoji": "👩‍👩‍👧",
        "right-to-left": "\u202eabc",
        "json-in-text": '{"label": false}',
        "formula": "=cmd|' /C calc'!A0",
    }
    rows |= {f"text-{name}": ({**ODD, "completion": text}, True) for name, text in texts.items()}
    chat = {**ODD, "prompt": [{**USER, "name": "Ann", "weight": 1}]}
    rows |= {"chat-extra-keys": (chat, True), "extra-column": ({**ODD, "more": [None, {}]}, True)}
    cases = {}
    for name, (row, label) in rows.items():
        extra = known({**row, "label": label})
        cases[name] = Case("f.jsonl", among(row), None, {}, (*KNOWN, extra))
    return cases


# --- whole files of JSON ----------------------------------------------------------------------------


def zst(data: bytes) -> bytes:
    import pyarrow

    return pyarrow.compress(data, codec="zstd", asbytes=True)


def zipped(name: str) -> bytes:
    """A ZIP archive with one file, as .zip and .xlsx are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, WHOLE)
    return buffer.getvalue()


def whole_json() -> dict[str, Case]:
    """Files that only look odd: every row is read."""
    array = json.dumps(GOOD).encode()
    files = {
        "bom": ("f.jsonl", b"\xef\xbb\xbf" + WHOLE),
        "crlf": ("f.jsonl", WHOLE.replace(b"\n", b"\r\n")),
        "cr": ("f.jsonl", WHOLE.replace(b"\n", b"\r")),
        "cr-and-lf": ("f.jsonl", WHOLE.replace(b"\n", b"\r", 2)),
        "blank-lines": ("f.jsonl", b"\n \n" + WHOLE.replace(b"\n", b"\n\n\t\n")),
        "no-last-line-end": ("f.jsonl", WHOLE.rstrip(b"\n")),
        "space-around": ("f.jsonl", WHOLE.replace(b"\n", b"  \n ")),
        "ndjson": ("f.ndjson", WHOLE),
        "capitals": ("F.JSONL", WHOLE),
        "gzip": ("f.jsonl.gz", gzip.compress(WHOLE)),
        "gzip-without-suffix": ("f.jsonl", gzip.compress(WHOLE)),
        "gzip-suffix-alone": ("f.jsonl.gz", WHOLE),
        "gzip-members": ("f.jsonl.gz", b"".join(gzip.compress(line(row)) for row in GOOD)),
        "gzip-padded": ("f.jsonl.gz", gzip.compress(WHOLE) + b"\x00" * 512),
        "gzip-cut-line-members": ("f.jsonl.gz", gzip.compress(WHOLE[:100]) + gzip.compress(WHOLE[100:])),
        "zstd": ("f.jsonl.zst", zst(WHOLE)),
        "zstd-frames": ("f.jsonl.zst", zst(WHOLE[:77]) + zst(WHOLE[77:])),
        "zstd-without-suffix": ("f.jsonl", zst(WHOLE)),
        "lines-named-json": ("f.json", WHOLE),
        "array": ("f.json", array),
        "array-bom-crlf": ("f.json", b"\xef\xbb\xbf" + json.dumps(GOOD, indent=2).replace("\n", "\r\n").encode()),
        "array-gzip": ("f.json.gz", gzip.compress(array)),
        "array-over-lines-named-jsonl": ("f.jsonl", json.dumps(GOOD, indent=1).encode()),
        "array-a-row-a-line-named-jsonl": ("f.jsonl", b"[" + b",\n".join(map(str.encode, LINES)) + b"]"),
    }
    return {name: Case(file, data, None, {}, KNOWN) for name, (file, data) in files.items()}


def array_with(*items: str) -> bytes:
    return ("[" + ", ".join([*LINES[:3], *items, *LINES[3:]]) + "]").encode()


def arrays() -> dict[str, Case]:
    """One JSON array: an item that is no row is lost alone; from an item with no end on nothing can be told."""
    bad = {
        "number": ("3", "not_an_object"),
        "null": ("null", "not_an_object"),
        "array": ("[[1]]", "not_an_object"),
        "key-twice": (str(SYNTAX["label-twice"][0]), "duplicate_key"),
        "deep": ('{"a": ' + "[" * 100_000 + '"]"' + "]" * 100_000 + "}", "not_json"),
        "long-integer": ("9" * 5_000, "not_json"),
        "long-integer-within": ('{"prompt": "a \\" ] , }", "label": ' + "9" * 10_000 + "}", "not_json"),
    }
    cases = {
        f"array-{name}": Case("f.json", array_with(item), None, {reason: 1}, KNOWN)
        for name, (item, reason) in bad.items()
    }
    broken = {
        "array-cut": (array_with()[:-30], "item 6"),
        "array-open": (array_with()[:-1], "item 6"),
        "array-comma-last": (array_with()[:-1] + b",]", "item 7"),
        "array-comma-missing": (array_with().replace(b"}, {", b"} {", 1), "item 1"),
        "array-single-quotes": (array_with(repr(ODD)), "item 4"),
        "array-comment": (array_with("/* x */ 1"), "item 4"),
        "array-text-behind": (array_with() + b" {}", "after the end"),
        "array-twice": (array_with() * 2, "after the end"),
        "array-open-brackets": (b"[" * 100_000, "item 1"),
        "array-open-text": (b'["' + b"x" * 3_000_000, "item 1"),
    }
    cases |= {name: Case("f.json", data, ("not JSON", place)) for name, (data, place) in broken.items()}
    cases["array-of-arrays"] = Case("f.json", b"[[1, 2], [3]]", ("item 1", "without names of columns"))
    cases["array-empty"] = Case("f.json", b"[ ]", ("empty",))
    return cases


def bomb(unit: bytes, count: int, start: bytes = b"") -> Make:
    """A small gzip that unpacks to `count` times 2^20 bytes."""

    def make(path: Path) -> None:
        member = gzip.compress(unit * (2**20 // len(unit)))
        path.write_bytes(gzip.compress(start) + member * count)

    return make


def refused_texts() -> dict[str, Case]:
    """Files of which nothing can be used, as JSON lines and as CSV."""
    data: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "empty"),
        "blank": (b"\n\r\n \t\n", "f."),
        "bom-alone": (b"\xef\xbb\xbf", "f."),
        "utf-16-le-bom": (WHOLE.decode().encode("utf-16"), "UTF-16"),
        "utf-16-be-bom": (b"\xfe\xff" + WHOLE.decode().encode("utf-16-be"), "UTF-16"),
        "utf-16-le": (WHOLE.decode().encode("utf-16-le"), "UTF-16"),
        "utf-16-be": (WHOLE.decode().encode("utf-16-be"), "UTF-16"),
        "utf-32": (WHOLE.decode().encode("utf-32"), "UTF-32"),
        "utf-32-be": (WHOLE.decode().encode("utf-32-be"), "UTF-32"),
        "utf-16-gzip": (gzip.compress(WHOLE.decode().encode("utf-16")), "UTF-16"),
        "zip": (zipped("f.jsonl"), "ZIP archive or a spreadsheet"),
        "pdf": (b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n", "PDF"),
        "png": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "image"),
        "web-page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        "bzip2": (bz2.compress(WHOLE), "bzip2"),
        "xz": (lzma.compress(WHOLE), "xz"),
        "sqlite": (b"SQLite format 3\x00" + b"\x10\x00" * 50, "SQLite"),
        "parquet": (b"PAR1\x15\x04\x15", "Name it .parquet"),
        "zeros": (b"\x00" * 5000, "f."),
        "gzip-cut": (gzip.compress(WHOLE * 50)[:-20], "damaged gzip"),
        "gzip-trailer-cut": (gzip.compress(WHOLE)[:-3], "damaged gzip"),
        "gzip-header-alone": (gzip.compress(WHOLE)[:8], "damaged gzip"),
        "gzip-behind": (gzip.compress(WHOLE) + b"more", "damaged gzip"),
        "gzip-checksum": (gzip.compress(WHOLE)[:-8] + b"\x00" * 8, "damaged gzip"),
        "gzip-junk": (b"\x1f\x8b\x08\x00" + bytes(range(100)), "damaged gzip"),
        "zstd-cut": (zst(WHOLE * 50)[:-9], "damaged zstd"),
        "zstd-magic-alone": (b"\x28\xb5\x2f\xfd", "damaged zstd"),
        "zstd-behind": (zst(WHOLE) + b"more", "damaged zstd"),
    }
    return {
        f"{name}-{kind}": Case(f"f.{kind}", content, (word,))
        for name, (content, word) in data.items()
        for kind in ("jsonl", "csv")
    } | {
        "jsonl-in-hh": Case("f.jsonl", jsonl(["x", "y"]), ("Expecting value at character 1",), hh=True),
        "zip-in-hh": Case("f.jsonl", zipped("f"), ("ZIP",), hh=True),
        "gzip-cut-in-hh": Case("f.jsonl.gz", gzip.compress(HH)[:-9], ("damaged gzip",), hh=True),
        "no-suffix": Case("feedback", WHOLE, ("no suffix",)),
        "suffix-txt": Case("f.txt", WHOLE, ("a text file", "JSONL")),
        "suffix-xls": Case("f.xls", zipped("sheet.xml"), ("a spreadsheet", "CSV")),
        "columns-of-both": Case("f.jsonl", jsonl([{**row, "chosen": "a", "rejected": "b"} for row in GOOD]), ("both",)),
        "columns-in-capitals-all": Case("f.jsonl", jsonl([{"Prompt": "a", "Label": 1}] * 3), ("Prompt, Label",)),
        "columns-of-neither": Case("f.jsonl", jsonl([{"instruction": "a", "output": "b"}] * 3), ("instruction",)),
        "bomb-zeros": Case("f.jsonl.gz", bomb(b"\x00", 300), ("line 1", "longer than")),
        "bomb-zeros-csv": Case("f.csv.gz", bomb(b"\x00", 300), ("line 1", "longer than")),
        "bomb-newlines": Case("f.jsonl.gz", bomb(b"\n", 60), ("blank lines",)),
        "bomb-newlines-csv": Case("f.csv.gz", bomb(b"\n", 60), ("blank lines",)),
        "bomb-array": Case("f.json.gz", bomb(b"x", 300, b'["'), ("item 1", "longer than")),
        "bomb-quote": Case("f.csv.gz", bomb(b"xy\n", 80, b'prompt,completion,label\n"'), ("line 2", "not closed")),
        "bomb-parquet": Case("f.parquet.gz", bomb(b"\x00", 300), ("does not start as Parquet does",)),
    }


# --- CSV ----------------------------------------------------------------------------------------

HEADER = "prompt,completion,label"


def rows_as(delimiter: str = ",") -> list[str]:
    return [delimiter.join((row["prompt"], row["completion"], str(row["label"]))) for row in GOOD]


def table(*rows: str | bytes, header: str = HEADER, end: bytes = b"\n") -> bytes:
    """CSV: the given rows in the middle of the good ones."""
    parts = [header, *rows_as()[:3], *rows, *rows_as()[3:]]
    return b"".join((part if isinstance(part, bytes) else part.encode()) + end for part in parts)


CSV_REJECTED: dict[str, tuple[str | bytes, str]] = {
    "short-row": ("Odd?,Odd.", "label_missing"),
    "long-row": ("Odd?,Odd.,true,x", "wrong_cell_count"),
    "other-delimiter": ("Odd?;Odd.;true", "label_missing"),
    "one-cell": ("Total: 6", "label_missing"),
    "text-behind-quote": ('"Odd?"x,Odd.,true', "bad_csv"),
    "backslash-quotes": ('"Say \\"hi\\"",Odd.,true', "bad_csv"),
    "no-prompt": (",Odd.,true", "missing_field"),
    "no-answer": ("Odd?,,true", "missing_field"),
    "no-label": ("Odd?,Odd.,", "label_missing"),
    "blank-prompt": (" ,Odd.,true", "empty_prompt"),
    "label-formula": ("Odd?,Odd.,=TRUE()", "label_not_accepted"),
    "label-word": ("Odd?,Odd.,good", "label_not_accepted"),
    "label-five": ("Odd?,Odd.,5", "label_not_binary"),
    "header-again": (HEADER, "repeated_header"),
    "header-again-quoted": ('"Prompt", completion ,LABEL', "repeated_header"),
    "header-again-with-mark": (b"\xef\xbb\xbf" + HEADER.encode(), "repeated_header"),
    "header-again-short": ("prompt,completion", "repeated_header"),
    "header-again-longer": (HEADER + ",comment", "repeated_header"),
    "latin-1": (b"caf\xe9,Odd.,true", "bad_text"),
}
CSV_KEPT: dict[str, tuple[str | bytes, Known]] = {
    "formula": ("\"=cmd|' /C calc'!A0\",=1+1,true", ("=cmd|' /C calc'!A0", "=1+1", True)),
    "formula-link": (
        'Odd?,"=HYPERLINK(""http://x"",""y"")",false',
        ("Odd?", '=HYPERLINK("http://x","y")', False),
    ),
    "formula-at-plus-minus": ("@SUM(1+1),+1-2,1", ("@SUM(1+1)", "+1-2", True)),
    "formula-minus": ("-2+3,|calc,0", ("-2+3", "|calc", False)),
    "formula-tab": ('"\t=1","\r=2",true', ("\t=1", "\r=2", True)),
    "quoted-line-ends": ('"a\nb\r\nc\rd",Odd.,true', ("a\nb\r\nc\rd", "Odd.", True)),
    "quoted-row": ('"Odd?\nx,y,true\n",Odd.,false', ("Odd?\nx,y,true\n", "Odd.", False)),
    "quotes-in-the-middle": ('5" disk?,5" yes,true', ('5" disk?', '5" yes', True)),
    "huge-cell": ("Odd?," + "x" * 1_000_000 + ",true", ("Odd?", "x" * 1_000_000, True)),
    "empty-rows": ("\n\n,,\n \nOdd?,Odd.,true", ("Odd?", "Odd.", True)),
    "long-row-of-nothing": ("Odd?,Odd.,true, ,", ("Odd?", "Odd.", True)),
    "space-kept": (" Odd? ,  Odd. , true ", (" Odd? ", "  Odd. ", True)),
    "nul": (b"a\x00b,Odd.,true", ("a\x00b", "Odd.", True)),
}


def csv_files() -> dict[str, Case]:
    """CSV: rows that are wrong, rows that only look so, and files in which nobody can tell where a row ends."""
    cases = {
        f"csv-{name}": Case("f.csv", table(row), None, {why: 1}, KNOWN) for name, (row, why) in CSV_REJECTED.items()
    }
    cases |= {
        f"csv-{name}": Case("f.csv", table(row), None, {}, (*KNOWN, kept)) for name, (row, kept) in CSV_KEPT.items()
    }
    whole = {
        "sep-line": ("f.csv", b"sep=;\r\n" + table().replace(b",", b";")),
        "sep-line-quoted": ("f.csv", b'\xef\xbb\xbf"sep=,"\n' + table()),
        "bom-quoted-header": ("f.csv", b"\xef\xbb\xbf" + table(header='"prompt","completion","label"')),
        "crlf": ("f.csv", table(end=b"\r\n")),
        "cr": ("f.csv", table(end=b"\r")),
        "spaces-in-header": ("f.csv", table(header=" prompt , completion,label ")),
        "blank-before-header": ("f.csv", b"\n\n" + table()),
        "gzip": ("f.csv.gz", gzip.compress(table())),
        "zstd": ("f.csv.zst", zst(table())),
    }
    for name, delimiter in (("semicolon", ";"), ("tab", "\t"), ("pipe", "|")):
        lines = [HEADER.replace(",", delimiter), *rows_as(delimiter)]
        whole[name] = ("f.csv", "\n".join(lines).encode())
        whole[name + "-tsv"] = ("f.tsv", "\n".join(lines).encode())
    cases |= {f"csv-whole-{name}": Case(file, data, None, {}, KNOWN) for name, (file, data) in whole.items()}
    refused = {
        "quote-never-closed": (table('Odd?,"Odd.,true'), "line 5 is never closed"),
        "quote-never-closed-last": (table() + b'Odd?,"Odd.,true', "line 8 is never closed"),
        "quote-closed-by-another": (table('Odd?,"Odd.,true', 'Even?,"Even.",true'), "line 5 do not pair up"),
        "quote-odd": (table('"Odd"?,"x', "y,Odd.,true", 'z",Odd.,true'), "line 5 do not pair up"),
        "quote-even-and-open": (table('"a"x,b"c,"d', "Odd?,Odd.,true", 'e",Odd.,true'), "line 5 do not pair up"),
        "header-broken": (table(header='"prompt"x,completion,label'), "header that cannot be read"),
        "header-twice": (table(header="prompt,prompt,label"), "more than one column prompt"),
        "header-alone": (HEADER.encode() + b"\n", "no rows"),
        "header-missing": ("\n".join(rows_as()).encode(), "Question 0?"),
        "header-in-capitals": (table(header=HEADER.upper()), "PROMPT"),
        "header-of-others": (table(header="question,answer,stars"), "question, answer, stars"),
        "header-in-another-order": (table("completion,prompt,label"), "line 5 is a header"),
        "json-named-csv": (WHOLE, "f.csv"),
    }
    return cases | {f"csv-{name}": Case("f.csv", data, (word,)) for name, (data, word) in refused.items()}


# --- Parquet --------------------------------------------------------------------------------------


def parquet(columns: dict[str, Any], *, cut: slice = slice(None), suffix: bytes = b"", pack: bool = False) -> Make:
    """A Parquet file of these columns (lists, or pyarrow arrays made by a function)."""

    def make(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet as files

        arrays = {name: cells() if callable(cells) else pyarrow.array(cells) for name, cells in columns.items()}
        buffer = io.BytesIO()
        files.write_table(pyarrow.table(arrays), buffer)
        data = buffer.getvalue()[cut] + suffix
        path.write_bytes(gzip.compress(data) if pack else data)

    return make


def column(name: str, *more: Any) -> list[Any]:
    return [*(row[name] for row in GOOD), *more]


def invalid_utf8() -> Any:
    """A column of texts of which the last is not UTF-8."""
    import pyarrow

    texts = [*(row["prompt"].encode() for row in GOOD), b"caf\xe9"]
    return pyarrow.Array.from_buffers(pyarrow.string(), len(texts), pyarrow.array(texts, pyarrow.binary()).buffers())


def no_time() -> Any:
    """Times in nanoseconds, the last of which Python has no value for."""
    import pyarrow

    return pyarrow.array([0] * 6 + [1], pyarrow.int64()).cast(pyarrow.timestamp("ns"))


def parquet_files() -> dict[str, Case]:
    """Parquet: wrong types by row, and files that are not whole."""
    texts = {"prompt": column("prompt"), "completion": column("completion")}
    whole = {**texts, "label": column("label")}
    longer = {"prompt": column("prompt", "Odd?"), "completion": column("completion", "Odd.")}
    chat = [[{"role": "user", "content": text}] for text in column("prompt")]
    accepted: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
        "whole": (whole, {}),
        "labels-0-1": ({**texts, "label": [int(label) for label in column("label")]}, {}),
        "labels-float": ({**texts, "label": [float(label) for label in column("label")]}, {}),
        "labels-text": ({**texts, "label": [str(label) for label in column("label")]}, {}),
        "chat": ({**whole, "prompt": chat}, {}),
        "label-null": ({**longer, "label": column("label", None)}, {"label_missing": 1}),
        "prompt-null": (
            {**longer, "prompt": column("prompt", None), "label": column("label", True)},
            {"missing_field": 1},
        ),
        "not-utf-8": ({**longer, "prompt": invalid_utf8, "label": column("label", True)}, {"bad_text": 1}),
        "nanoseconds-unread": ({**longer, "time": no_time, "label": column("label", None)}, {"label_missing": 1}),
    }
    cases = {
        f"parquet-{name}": Case("f.parquet", parquet(columns), None, rejected, KNOWN)
        for name, (columns, rejected) in accepted.items()
    }
    cases["parquet-gzip"] = Case("f.parquet.gz", parquet(whole, pack=True), None, {}, KNOWN)
    refused: dict[str, tuple[bytes | Make, str]] = {
        "cut": (parquet(whole, cut=slice(0, -40)), "cannot be read as Parquet"),
        "cut-start": (parquet(whole, cut=slice(40, None)), "cannot be read as Parquet"),
        "behind": (parquet(whole, suffix=b"more"), "cannot be read as Parquet"),
        "magic-alone": (b"PAR1", "cannot be read as Parquet"),
        "magic-twice": (b"PAR1PAR1", "cannot be read as Parquet"),
        "footer-huge": (b"PAR1" + b"\x00" * 20 + b"\xff\xff\xff\x7fPAR1", "cannot be read as Parquet"),
        "footer-junk": (b"PAR1" + bytes(range(256)) + b"\x80\x00\x00\x00PAR1", "cannot be read as Parquet"),
        "encrypted": (b"PARE" + bytes(range(200)) + b"\x10\x00\x00\x00PARE", "cannot be read as Parquet"),
        "json-lines": (WHOLE, "cannot be read as Parquet"),
        "empty": (b"", "empty"),
        "cut-gzip": (parquet(whole, cut=slice(0, -40), pack=True), "cannot be read as Parquet"),
        "no-rows": (parquet({name: [] for name in whole}), "no rows"),
        "no-columns": (parquet({}), "columns none"),
        "labels-0-to-4": (parquet({**texts, "label": [0, 1, 2, 3, 4, 0]}), "label_not_binary 6"),
        "label-times": (parquet({**texts, "label": lambda: no_time().slice(1)}), "label_not_accepted 6"),
        "binary-texts": (parquet({**whole, "prompt": [row["prompt"].encode() for row in GOOD]}), "not_messages 6"),
        "struct-prompt": (
            parquet({**whole, "prompt": [{"text": text} for text in column("prompt")]}),
            "not_messages 6",
        ),
        "null-prompts": (parquet({**whole, "prompt": [None] * 6}), "missing_field 6"),
        "other-columns": (parquet({"a": [1], "b": [2]}), "columns a, b"),
    }
    return cases | {f"parquet-{name}": Case("f.parquet", data, (word,)) for name, (data, word) in refused.items()}


# --- pairs and hh-rlhf ------------------------------------------------------------------------------

PAIRS = [{"prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in range(5)]
PAIRS_KNOWN = tuple((row["prompt"], row[side], side == "chosen") for row in PAIRS for side in ("chosen", "rejected"))


def hh_text(prompt: str, answer: str) -> str:
    return f"\n\nHuman: {prompt}\n\nAssistant: {answer}"


HH_ROWS = [{side: hh_text(row["prompt"], row[side]) for side in ("chosen", "rejected")} for row in PAIRS]
HH = jsonl(HH_ROWS)
ODD_PAIR = {"prompt": "Odd?", "chosen": "Odd.", "rejected": "Even."}
ODD_HH = {"chosen": hh_text("Odd?", "Odd."), "rejected": hh_text("Odd?", "Even.")}


def paired() -> dict[str, Case]:
    """Pairs, as tables and as hh-rlhf: a bad one costs two rows, never one with half of its meaning."""
    bad = {
        "identical": ({**ODD_PAIR, "rejected": "Odd."}, "answers_identical"),
        "chosen-null": ({**ODD_PAIR, "chosen": None}, "missing_field"),
        "rejected-number": ({**ODD_PAIR, "rejected": 3}, "not_messages"),
        "rejected-empty": ({**ODD_PAIR, "rejected": " "}, "empty_answer"),
        "prompt-list": ({**ODD_PAIR, "prompt": []}, "roles_do_not_alternate"),
        "side-missing": ({"prompt": "Odd?", "chosen": "Odd."}, "missing_field"),
        "key-twice": ('{"prompt": "Odd?", "chosen": "a", "chosen": "b", "rejected": "c"}', "duplicate_key"),
        "not-json": ("{", "not_json"),
        "cut": (line(ODD_PAIR).decode().strip()[:-5], "not_json"),
    }
    hh = {
        "no-markers": ({"chosen": "Odd.", "rejected": "Even."}, "roles_do_not_alternate"),
        "text-before": ({key: "Note. " + text for key, text in ODD_HH.items()}, "roles_do_not_alternate"),
        "user-last": ({key: text + "\n\nHuman: So?" for key, text in ODD_HH.items()}, "prompts_differ"),
        "assistant-first": ({key: text[14:] for key, text in ODD_HH.items()}, "roles_do_not_alternate"),
        "two-humans": ({key: "\n\nHuman: Hi" + text for key, text in ODD_HH.items()}, "roles_do_not_alternate"),
        "prompts-differ": ({**ODD_HH, "rejected": hh_text("Other?", "Even.")}, "prompts_differ"),
        "identical": ({**ODD_HH, "rejected": ODD_HH["chosen"] + "  \n"}, "answers_identical"),
        "empty-answer": ({**ODD_HH, "chosen": hh_text("Odd?", " ")}, "empty_answer"),
        "empty-turn": ({key: "\n\nHuman: \n\nAssistant: Yes?" + text for key, text in ODD_HH.items()}, "empty_turn"),
        "null": ({**ODD_HH, "chosen": None}, "missing_field"),
        "list": ({**ODD_HH, "chosen": [ODD_HH["chosen"]]}, "not_text"),
        "missing": ({"chosen": ODD_HH["chosen"]}, "missing_field"),
        "in-capitals": ({"Chosen": "a", "Rejected": "b"}, "missing_field"),
        "surrogate": ({**ODD_HH, "chosen": hh_text("Odd?", "\ud83d")}, "bad_text"),
        "latin-1": (line(ODD_HH).strip().replace(b"Odd?", b"caf\xe9"), "bad_text"),
        "key-twice": (line(ODD_HH).decode().strip()[:-1] + ', "chosen": "x"}', "duplicate_key"),
        "not-json": (line(ODD_HH).decode().strip()[:-5], "not_json"),
        "deep": ("[" * 100_000, "not_json"),
        "array": (json.dumps([ODD_HH]), "not_an_object"),
    }
    cases = {
        f"pair-{name}": Case("f.jsonl", jsonl([*PAIRS[:2], row, *PAIRS[2:]]), None, {reason: 2}, PAIRS_KNOWN)
        for name, (row, reason) in bad.items()
    }
    for name, (row, reason) in hh.items():
        data = jsonl([*HH_ROWS[:2], row, *HH_ROWS[2:]])
        cases[f"hh-{name}"] = Case("f.jsonl", data, None, {reason: 2}, PAIRS_KNOWN, hh=True)
    whole = {
        "crlf": HH.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + HH,
        "gzip": gzip.compress(HH),
        "zstd": zst(HH),
    }
    cases |= {f"hh-whole-{name}": Case("f.jsonl", data, None, {}, PAIRS_KNOWN, hh=True) for name, data in whole.items()}
    cases["hh-as-table"] = Case("f.jsonl", HH, ("kto binarize hh-rlhf",))
    return cases


CASES: dict[str, Case] = {}
for part in (one_bad_row, one_more_row, whole_json, arrays, refused_texts, csv_files, parquet_files, paired):
    made = part()
    assert not CASES.keys() & made.keys(), f"{part.__name__}: a name twice"
    CASES |= made
