"""Binarizing in a test: a screen that remembers, and all that is known of a file's rows before they are split."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.screen import Screen
from kto_cli.data.formats.records import Dropped, Output, Pair, Ranked, Reject, Scored
from kto_cli.data.pipeline.label import label_rows
from kto_cli.data.pipeline.outcome import FIRST_REASON, Outcomes
from kto_cli.data.pipeline.parse import blocks
from kto_cli.data.pipeline.row_spool import Spool
from kto_cli.data.pipeline.to_rows import parse_block
from kto_cli.data.readers.any_file import parsed
from kto_cli.data.select import choose
from kto_cli.workflows.binarize import run


class Recorder(Screen):
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.said: list[str] = []

    def note(self, *texts: str) -> None:
        self.notes.extend(texts)

    def warn(self, *texts: str) -> None:
        self.warnings.extend(texts)

    def say(self, text: str) -> None:
        self.said.append(text)


def binarize(source: Path | str, out: Path | str | None, screen: Screen | None = None, **options: Any) -> dict:
    """The result of `kto binarize` of one source."""
    config = BinarizeConfig((str(source),), out=None if out is None else str(out), **options)
    return run(config, screen or Recorder())


def adds_up(result: dict) -> bool:
    """Whether every row read is counted once."""
    used = result["desirable"] + result["undesirable"] + result["validation"] + result["dropped"]
    return result["rows_in"] == used + sum(result["rejected"].values())


def write_lines(path: Path, *rows: object) -> Path:
    """A JSONL file; texts are written as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@dataclass
class Given:
    """What a source's files give, as the pipeline reads them."""

    items: list[Pair | Ranked | Scored | Output] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    """Those that the whole label column decides come last."""
    dropped: list[Dropped] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    """Of each row, once settled: 1, 0, or -1."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lines_in: int = 0

    @property
    def rows_in(self) -> int:
        """Rows read."""
        return len(self.labels) + sum(one.rows for one in (*self.dropped, *self.early))

    @property
    def early(self) -> list[Reject]:
        """Rejects that never became rows."""
        return self.rejects[: len(self.rejects) - self.late]

    late: int = 0
    """How many rejects were rows first."""

    @property
    def reasons(self) -> Counter[str]:
        """Rejected rows by reason."""
        counts: Counter[str] = Counter()
        for reject in self.rejects:
            counts[reject.reason] += reject.rows
        return counts


def read(spool_at: Path, *sources: Path | str, **options: Any) -> Given:
    """Reads sources up to the labels of their rows; `spool_at` is a file that is gone afterwards."""
    config = BinarizeConfig(tuple(map(str, sources)), **options)
    chosen = choose(config)
    given = Given(notes=[text for one in chosen for text in one.notes])
    given.warnings += [text for one in chosen for text in one.warnings]
    with Spool(spool_at) as spool:
        for block in blocks(chosen, config, given.notes.append):
            given.lines_in += len(block.records)
            for record in block.records:
                for result in block.source.parse(parsed(record, block.source.wanted), block.file, block.config):
                    kind = {Reject: given.rejects, Dropped: given.dropped}.get(type(result), given.items)
                    kind.append(result)  # type: ignore[attr-defined]
            spool.add(parse_block(block))
        columns = spool.columns()
        outcomes = Outcomes.all_train(len(columns))
        given.warnings += label_rows(columns, chosen, config, outcomes, given.notes.append)
        given.labels = columns.labels.tolist()
        for span, batch in spool.batches():
            for row, origin in zip(range(span.start, span.stop), batch.column("origin").to_pylist(), strict=True):
                if outcomes.codes[row] >= FIRST_REASON:
                    _, reason, detail = outcomes.reasons[outcomes.codes[row] - FIRST_REASON]
                    given.rejects.append(Reject(origin, reason, detail, 1, ""))
                    given.late += 1
    return given
