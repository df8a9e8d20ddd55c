"""The files of an eval folder. Each part of the results has one of its own and stays until it is computed anew:

metrics.json       validation rows: what `find_out` (validation.py) says of them
rows.parquet       the same, row by row
samples.jsonl      validation prompts with the answers of every model
generations.json   what those answers are like: length, endings, repetition
win_rate.json      win rate by a judge (judged.jsonl: every comparison; alpaca_eval/: for AlpacaEval's tools)
benchmarks.json    tasks of lm-eval
comparisons.json   this checkpoint against others
report.html        all of it

A part names what it is of (weights, reference, data), so that what is left from others is passed over. Each is sealed;
metrics.json has the checksum of rows.parquet too, generations.json of samples.jsonl, win_rate.json of judged.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.read import reading
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.common.secrets import scrub_all

METRICS, ROWS, SAMPLES, REPORT = "metrics.json", "rows.parquet", "samples.jsonl", "report.html"
GENERATIONS, WIN_RATE, BENCHMARKS, COMPARISONS = (
    "generations.json",
    "win_rate.json",
    "benchmarks.json",
    "comparisons.json",
)
PARTS = (GENERATIONS, WIN_RATE, BENCHMARKS, COMPARISONS)
JUDGED_ANSWERS, ALPACA_EVAL = "judged.jsonl", "alpaca_eval"
FILES = "checksums"
"""Key of the checksums of files that belong to a part."""
WHAT = "results of kto eval"


def write_part(out: Path, name: str, of: str, content: dict[str, Any], beside: Sequence[str] = ()) -> None:
    """One of `PARTS`, atomically and without secrets.

    Args:
        of: names what was evaluated, as metrics.json does. beside: files that belong to it and are written already.

    Raises:
        DiskFull: no space left.
    """
    write_object(out, name, {"of": of, **content}, beside)


def write_object(out: Path, name: str, content: dict[str, Any], beside: Sequence[str] = ()) -> None:
    """A sealed JSON file with the checksums of the files that belong to it, whole or not at all.

    Raises:
        DiskFull: no space left.
    """
    with files.saying_disk_full(out):
        files.make_folder(out)
        content = scrub_all(content)
        hashes = {each: files.file_sha256(out / each) for each in beside}
        write_sealed(out / name, {**content, FILES: hashes} if hashes else content)


def write_lines(out: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """A file of JSON lines, written atomically and without secrets.

    Raises:
        DiskFull: no space left.
    """
    files.write_json_lines(out / name, scrub_all(rows))


def forget_others(out: Path, of: str) -> None:
    """Removes answers of something else: samples.jsonl does not say what it is of, generations.json beside it does."""
    if not read_part(out, GENERATIONS, of):
        (out / SAMPLES).unlink(missing_ok=True)


def read_part(out: Path, name: str, of: str | None) -> dict[str, Any]:
    """One of `PARTS`; empty where it is missing, damaged or of something else."""
    found = read_result(out / name)
    return found if of is not None and found.get("of") == of else {}


def read_result(path: Path) -> dict[str, Any]:
    """A sealed JSON file; empty where it is missing or damaged (`faults` says so)."""
    try:
        found = read_sealed(path, WHAT)
    except BadInput:
        return {}
    found.pop(FILES, None)
    return found


def remove_partial_files(out: Path) -> None:
    """Removes what a killed evaluation left half-written."""
    for left in out.glob(".*.tmp"):
        files.remove(left)


def faults(out: Path) -> dict[str, str]:
    """Files of an eval folder that are not as they were written: name -> a sentence. None of them is shown."""
    found = {}
    for name in (METRICS, *PARTS):
        try:
            hashes = read_sealed(out / name, WHAT).get(FILES, {}) if (out / name).exists() else {}
        except BadInput as error:
            found[name] = error.what
            continue
        for each, expected in hashes.items():
            try:
                with reading(out / each, WHAT):
                    if files.file_sha256(out / each) != expected:
                        found[each] = f"{out / each} is damaged or was changed by hand ({WHAT}): its checksum differs."
            except BadInput as error:
                found[each] = error.what
    return found
