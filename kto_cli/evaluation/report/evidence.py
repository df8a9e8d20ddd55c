"""Reads the files a report is made of; what is missing or unreadable is None or empty, never an error."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.errors import BadInput
from kto_cli.common.files import text_hash
from kto_cli.common.read import parse_json, read_parquet, read_text
from kto_cli.core.statistics.verdict import Overfit
from kto_cli.data.arrow_chats import from_arrow
from kto_cli.data.dataset import MANIFEST, TRAIN, VALIDATION
from kto_cli.data.texts import last_turn, question
from kto_cli.evaluation.files import METRICS, PARTS, ROWS, SAMPLES, WHAT, faults, read_part, read_result
from kto_cli.training.run.run_dir import RunDir, finished_step

Columns = dict[str, NDArray[Any]]
NEEDED = ("id", "origin", "label", "reward", "gradient_weight", "right_side")
"""Columns of rows.parquet that charts and tables are drawn from."""


@dataclass(frozen=True)
class Evidence:
    """Contents of the files."""

    called: str
    """The checkpoint as given to `kto eval`."""
    results: dict[str, Any]
    """metrics.json."""
    settings: dict[str, Any] = field(default_factory=dict)
    """kto_config.json of the run; empty for a plain model folder."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Lines of metrics.jsonl up to the evaluated step."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """manifest.json of the dataset."""
    data_note: str = ""
    """Why the manifest is not shown."""
    rows: Columns | None = None
    """rows.parquet: `NEEDED`, one entry per validation row."""
    samples: list[dict[str, str]] = field(default_factory=list)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """File name -> contents of the other parts of the results, if they are of the same evaluation as metrics.json."""
    config_file: str = "kto_config.json"
    results_folder: str = "eval"
    """Names shown as the source of a number."""

    @property
    def metrics(self) -> dict[str, Any]:
        """The validation numbers; null is NaN."""
        found = self.results.get("metrics")
        return with_nan(found) if isinstance(found, dict) else {}

    def part(self, name: str) -> dict[str, Any]:
        """Contents of one part; null is NaN."""
        found: dict[str, Any] = with_nan(self.parts.get(name, {}))
        return found

    @property
    def steps_on_these_rows(self) -> list[dict[str, Any]]:
        """The steps, if validated on the evaluated dataset; the verdict uses no others."""
        trained, evaluated = (part(each, "data").get("fingerprint") for each in (self.settings, self.results))
        return self.steps if trained == evaluated else []

    @property
    def kept(self) -> Overfit | None:
        """The step whose model it is, if that is not the last; only with steps on these rows."""
        return kept_step(self.settings, Path(self.results_folder)) if self.steps_on_these_rows else None

    @property
    def beta(self) -> float:
        """Reward per nat."""
        return number_or_nan(self.results.get("beta"))


def gather(out: Path, home: Path | None) -> Evidence:
    """Reads the results in `out` and the run in `home`."""
    results, damaged = read_result(out / METRICS), faults(out)
    settings = read_result(RunDir(home).config) if home else {}
    manifest, note = _manifest(results, settings)
    return Evidence(
        called=str(results.get("checkpoint") or (home or out).name),
        results=results,
        settings=settings,
        steps=steps_of(home, out) if home else [],
        manifest=manifest,
        data_note=note,
        rows=None if ROWS in damaged else _rows(out / ROWS),
        samples=[] if SAMPLES in damaged else _samples(out / SAMPLES),
        parts={name: read_part(out, name, results.get("of")) for name in PARTS},
        results_folder=out.relative_to(home).as_posix() if home and out.is_relative_to(home) else out.name,
    )


def part(value: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a file; empty where there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The sections in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def number_or_nan(value: Any) -> float:
    """A number, else NaN."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def is_number(value: Any) -> bool:
    """A finite number."""
    return math.isfinite(number_or_nan(value))


def with_nan(value: Any) -> Any:
    """`value` with NaN where JSON has null."""
    if isinstance(value, dict):
        return {key: with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value


def steps_of(home: Path, out: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl of the run in `home` that hold a step; those of an evaluated step end with it."""
    try:
        lines = RunDir(home).read_metrics()
    except BadInput:
        return []
    named = re.fullmatch(r"step-(\d+)", out.name)
    last = int(named[1]) if named else finished_step(read_result(RunDir(home).config))[0]
    return [line for line in lines if last is None or line["step"] <= last]


def kept_step(settings: dict[str, Any], out: Path) -> Overfit | None:
    """The best step, if the evaluated model is that of a run that overfit after it."""
    _, found = finished_step(settings)
    if found is None or re.fullmatch(r"step-\d+", out.name):
        return None
    try:
        return Overfit(**found)
    except TypeError:
        return None


def _manifest(results: dict[str, Any], settings: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The manifest of the dataset that was evaluated on, or why it is not shown."""
    data = part(results, "data") or part(settings, "data")
    folder = data.get("folder")
    if not isinstance(folder, str):
        return {}, "The results do not say which dataset they are of, so its audit is not shown."
    manifest = read_result(Path(folder) / MANIFEST)
    if not manifest:
        return {}, f"The dataset {folder} is not there any more, so its audit is not shown."
    hashes = part(manifest, "files")
    now = text_hash(*(str(hashes.get(name)) for name in (TRAIN, VALIDATION)))
    if data.get("fingerprint") not in (None, now):
        return {}, f"The dataset {folder} was made again since, with other rows, so its audit is not shown."
    return manifest, ""


def _rows(path: Path) -> Columns | None:
    """The columns that are needed; None where the file, one of them, or every row is missing."""
    try:
        table = read_parquet(path, WHAT, columns=list(NEEDED))
    except BadInput:
        return None
    if not table.num_rows or set(table.column_names) != set(NEEDED):
        return None
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in NEEDED}


def _samples(path: Path) -> list[dict[str, str]]:
    """Lines that are objects with a prompt; values that are not texts are dropped."""
    try:
        lines = read_text(path, WHAT).split("\n")
    except BadInput:
        return []
    found = []
    for line in lines:
        try:
            value = parse_json(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "prompt" in value:
            found.append({str(key): item for key, item in value.items() if isinstance(item, str)})
    return [sample for sample in found if "prompt" in sample]


def texts_of(folder: Any, ids: list[str]) -> dict[str, tuple[str, str]]:
    """Id -> (the end of the prompt, the completion) of validation rows, as far as the dataset is there."""
    if not isinstance(folder, str) or not ids:
        return {}
    columns, wanted = ["id", "prompt", "completion"], [("id", "in", ids)]
    try:
        table = read_parquet(Path(folder) / VALIDATION, "validation rows", columns=columns, filters=wanted)
    except BadInput:
        return {}
    rows = zip(*(from_arrow(table.column(name).combine_chunks()) for name in columns), strict=True)
    return {name: (question(prompt), last_turn(completion)) for name, prompt, completion in rows}


def as_floats(column: NDArray[Any]) -> NDArray[numpy.float64]:
    """A column of numbers."""
    return column.astype(numpy.float64)
