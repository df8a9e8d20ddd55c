"""Second pass over the texts: every row is written to the file of its outcome, with its ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from kto_cli.common.read import parse_json
from kto_cli.data.arrow_chats import texts_alone
from kto_cli.data.audit.findings import Finding, mark, other_row
from kto_cli.data.columns import I8, U8, Columns
from kto_cli.data.dataset import FINDINGS, REJECTS, REMARKS, TRAIN, VALIDATION
from kto_cli.data.dataset_writer import DataWriter
from kto_cli.data.pipeline import outcome
from kto_cli.data.pipeline.outcome import FIRST_REASON, Outcomes
from kto_cli.data.pipeline.row_spool import Spool
from kto_cli.data.seeded_order import mix, occurrence, row_keys
from kto_cli.data.texts import TOOLS

if TYPE_CHECKING:
    import pyarrow as pa

FILES = {outcome.TRAIN: TRAIN, outcome.VALIDATION: VALIDATION}


class RowIds:
    """Ids of all rows and of their prompts and pairs, as numbers; in the files they are 16 hex digits."""

    def __init__(self, columns: Columns) -> None:
        times = occurrence(columns.prompts, columns.completions, columns.labels)
        self.prompts: U8 = columns.prompt_keys[:, 0]
        self.rows: U8 = row_keys(columns.prompt_keys, columns.completion_keys, columns.labels, times)[:, 0]
        self.pairs: U8 = _pair_ids(columns.pairs, self.rows)
        self.has_pair = columns.pairs >= 0


def _pair_ids(pairs: I8, rows: U8) -> U8:
    """[rows] id of each row's pair, from the ids of its two rows; arbitrary for a row of no pair."""
    sums = numpy.zeros(int(pairs.max(initial=-1)) + 1, "u8")
    paired = pairs >= 0
    numpy.add.at(sums, pairs[paired], mix(rows[paired]))
    return sums[pairs] if len(sums) else numpy.zeros(len(pairs), "u8")


def hexadecimal(ids: U8) -> list[str]:
    """Ids as 16 hex digits."""
    return [f"{value:016x}" for value in ids.tolist()]


def write_rows(
    writer: DataWriter,
    spool: Spool,
    columns: Columns,
    outcomes: Outcomes,
    findings: Sequence[Finding],
    sources: Sequence[str],
) -> None:
    """Writes every row to train.parquet, validation.parquet or rejects.jsonl, the findings to findings.jsonl and what
    raters wrote to remarks.jsonl.

    Args:
        sources: names of the sources, by number.
    """
    import pyarrow as pa

    ids = RowIds(columns)
    marks, marked = mark(findings, len(columns))
    for span, batch in spool.batches():
        codes, labels = outcomes.codes[span], columns.labels[span]
        for code, file in FILES.items():
            here = numpy.flatnonzero(codes == code)
            if len(here):
                writer.add(file, _table(writer, batch.take(pa.array(here)), span.start + here, ids, columns, sources))
        origins, remarks = batch.column("origin"), batch.column("remark")
        has_remark = remarks.is_valid().to_numpy(zero_copy_only=False)
        for index in numpy.flatnonzero((codes < FIRST_REASON) & has_remark).tolist():
            line = {"id": f"{int(ids.rows[span.start + index]):016x}", "origin": origins[index].as_py()}
            writer.line(REMARKS, {**line, **parse_json(remarks[index].as_py())})
        for index in numpy.flatnonzero(codes >= FIRST_REASON).tolist():
            kind, reason, detail = outcomes.reasons[codes[index] - FIRST_REASON]
            label = None if labels[index] < 0 else bool(labels[index])
            line = {"kind": kind, "origin": origins[index].as_py(), "reason": reason, "detail": detail}
            writer.line(REJECTS, {**line, "rows": 1, "label": label, "raw": ""})
        for index in numpy.flatnonzero((codes < FIRST_REASON) & (marks[span] > 0)).tolist():
            row = span.start + index
            for bit, finding in enumerate(marked):
                if int(marks[row]) >> bit & 1:
                    writer.line(FINDINGS, _finding_line(finding, row, origins[index].as_py(), ids))


def _finding_line(finding: Finding, row: int, origin: str, ids: RowIds) -> dict[str, Any]:
    line = {"id": f"{int(ids.rows[row]):016x}", "origin": origin, "finding": finding.name, "detail": finding.detail}
    other = other_row(finding, row)
    return line if other is None else {**line, "other": f"{int(ids.rows[other]):016x}"}


def _table(
    writer: DataWriter, texts: pa.RecordBatch, rows: I8, ids: RowIds, columns: Columns, sources: Sequence[str]
) -> pa.Table:
    """Rows as a table with the columns of the dataset's files."""
    import pyarrow as pa

    pairs = pa.array(hexadecimal(ids.pairs[rows]), pa.string(), mask=~ids.has_pair[rows])
    arrays = {
        "id": pa.array(hexadecimal(ids.rows[rows]), pa.string()),
        "prompt_id": pa.array(hexadecimal(ids.prompts[rows]), pa.string()),
        "pair_id": pairs,
        "source": pa.array([sources[number] for number in columns.sources[rows]], pa.string()),
        "origin": texts.column("origin"),
        "prompt": texts.column("prompt"),
        "completion": texts.column("completion"),
        "label": pa.array(columns.labels[rows] == 1, pa.bool_()),
    }
    if TOOLS in writer.schema.names:
        arrays[TOOLS] = texts.column(TOOLS)
    elif TOOLS in texts.schema.names:
        arrays |= {name: texts_alone(arrays[name]) for name in ("prompt", "completion")}
    return pa.Table.from_arrays([arrays[name] for name in writer.schema.names], schema=writer.schema)
