"""The second pass over the texts: every row goes where its fate says, with its ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from kto_cli.data.audit.findings import Finding, mark, other_row
from kto_cli.data.columns import I8, U8, Columns
from kto_cli.data.dataset import FINDINGS, REJECTS, TRAIN, VALIDATION
from kto_cli.data.dataset_writer import DataWriter
from kto_cli.data.pipeline import outcome
from kto_cli.data.pipeline.outcome import FIRST_REASON, Fates
from kto_cli.data.pipeline.row_spool import Spool
from kto_cli.data.seeded_order import mix, occurrence, row_keys

if TYPE_CHECKING:
    import pyarrow as pa

FILES = {outcome.TRAIN: TRAIN, outcome.VALIDATION: VALIDATION}


class Names:
    """The ids of all rows, as numbers; in text 16 hex digits."""

    def __init__(self, columns: Columns) -> None:
        times = occurrence(columns.prompts, columns.completions, columns.labels)
        self.prompts: U8 = columns.prompt_keys[:, 0]
        self.rows: U8 = row_keys(columns.prompt_keys, columns.completion_keys, columns.labels, times)[:, 0]
        self.pairs: U8 = _pair_ids(columns.pairs, self.rows)
        self.has_pair = columns.pairs >= 0


def _pair_ids(pairs: I8, rows: U8) -> U8:
    """[rows] the id of each row's pair: made of its two rows' ids; anything where there is none."""
    sums = numpy.zeros(int(pairs.max(initial=-1)) + 1, "u8")
    paired = pairs >= 0
    numpy.add.at(sums, pairs[paired], mix(rows[paired]))
    return sums[pairs] if len(sums) else numpy.zeros(len(pairs), "u8")


def hexadecimal(ids: U8) -> list[str]:
    """16 hex digits each."""
    return [f"{value:016x}" for value in ids.tolist()]


def write_rows(
    writer: DataWriter,
    spool: Spool,
    columns: Columns,
    found: Fates,
    findings: Sequence[Finding],
    sources: Sequence[str],
) -> None:
    """Sends every row to train.parquet, validation.parquet or rejects.jsonl, and lists what was found in those kept.

    Args:
        sources: their names, by number.
    """
    names = Names(columns)
    marks, marked = mark(findings, len(columns))
    for span, batch in spool.batches():
        fate, labels = found.of[span], columns.labels[span]
        ids = hexadecimal(names.rows[span])
        for kind, file in FILES.items():
            here = numpy.flatnonzero(fate == kind)
            if len(here):
                writer.add(file, _table(writer, batch.take(_places(here)), span.start + here, names, columns, sources))
        origins = batch.column("origin")
        for place in numpy.flatnonzero(fate >= FIRST_REASON).tolist():
            kind, reason, detail = found.reasons[fate[place] - FIRST_REASON]
            writer.line(REJECTS, _lost(kind, origins[place].as_py(), reason, detail, _label(labels[place])))
        for place in numpy.flatnonzero((fate < FIRST_REASON) & (marks[span] > 0)).tolist():
            row = span.start + place
            for bit, finding in enumerate(marked):
                if int(marks[row]) >> bit & 1:
                    writer.line(FINDINGS, _found(finding, row, ids[place], origins[place].as_py(), names))


def _lost(kind: str, origin: str, reason: str, detail: str, label: bool | None) -> dict[str, Any]:
    return {"kind": kind, "origin": origin, "reason": reason, "detail": detail, "rows": 1, "label": label, "raw": ""}


def _found(finding: Finding, row: int, row_id: str, origin: str, names: Names) -> dict[str, Any]:
    other = other_row(finding, row)
    line = {"id": row_id, "origin": origin, "finding": finding.name, "detail": finding.detail}
    return line if other is None else {**line, "other": f"{int(names.rows[other]):016x}"}


def _label(label: int) -> bool | None:
    return None if label < 0 else bool(label)


def _places(rows: I8) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows)


def _table(
    writer: DataWriter, texts: pa.RecordBatch, rows: I8, names: Names, columns: Columns, sources: Sequence[str]
) -> pa.Table:
    """Rows in the columns of the dataset's files."""
    import pyarrow as pa

    pairs = pa.array(hexadecimal(names.pairs[rows]), pa.string(), mask=~names.has_pair[rows])
    arrays = {
        "id": pa.array(hexadecimal(names.rows[rows]), pa.string()),
        "prompt_id": pa.array(hexadecimal(names.prompts[rows]), pa.string()),
        "pair_id": pairs,
        "source": pa.array([sources[number] for number in columns.sources[rows]], pa.string()),
        "origin": texts.column("origin"),
        "prompt": texts.column("prompt"),
        "completion": texts.column("completion"),
        "label": pa.array(columns.labels[rows] == 1, pa.bool_()),
    }
    return pa.Table.from_arrays([arrays[name] for name in writer.schema.names], schema=writer.schema)
