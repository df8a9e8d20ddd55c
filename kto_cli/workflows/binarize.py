"""`kto binarize`: any feedback to desirable / undesirable rows in a data folder."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadData
from kto_cli.common.files import saying_disk_full
from kto_cli.common.screen import Screen
from kto_cli.data.columns import Columns
from kto_cli.data.dataset import FINDINGS, REJECTS, check_out
from kto_cli.data.dataset_writer import DataWriter, finish, writing_data_dir
from kto_cli.data.formats.records import Dropped, Reject
from kto_cli.data.pipeline.assign import Decision, decide
from kto_cli.data.pipeline.export import write_exports
from kto_cli.data.pipeline.outcome import DROPPED, FIRST_REASON, REJECTED, Fates
from kto_cli.data.pipeline.parse import blocks, parsed_blocks
from kto_cli.data.pipeline.row_spool import Spool
from kto_cli.data.pipeline.summary import account, per_class, show, together
from kto_cli.data.pipeline.write import write_rows
from kto_cli.data.select import Chosen, choose, default_name

if TYPE_CHECKING:
    from kto_cli.model.tokens.encoder import Encoder

NO_ROWS, NOT_WRITTEN = "No rows are left to learn from.", "Nothing is written."


def run(config: BinarizeConfig, screen: Screen) -> dict[str, Any]:
    """Reads the sources, decides what becomes of each row, writes the data folder and shows what came of it.

    Returns:
        The result for --json; counts are rows, `desirable` and `undesirable` those of train.

    Raises:
        BadInput: a source or the output folder cannot be used.
        BadData: what is left cannot be learned from.
    """
    out = Path("data", default_name(config.sources)) if config.out is None else Path(config.out)
    if not config.check:
        check_out(out, overwrite=config.overwrite)
    sources = choose(config)
    for one in sources:
        for text in one.warnings:
            screen.warn(text)
        for text in one.notes:
            screen.note(text)
    encoder = None if config.model is None else tokenizer_of(config)  # a wrong --model is said before all the reading
    with _writer(out, config) as writer, Spool(writer.folder / "spool") as spool:
        lost = read(sources, config, spool, writer, screen)
        if not spool.rows:
            raise BadData(NO_ROWS + said(lost, Fates.for_rows(0), spool), NOT_WRITTEN)
        columns = spool.columns()
        decision = decide(columns, sources, config)
        tell(decision, screen)
        if fault := unlearnable(columns, decision.fates):
            raise BadData(fault + said(lost, decision.fates, spool), NOT_WRITTEN)
        write_rows(writer, spool, columns, decision.fates, decision.findings, [one.name for one in sources])
        result = account(columns, decision, lost.counts, lost.lines, sources)
        del columns, decision
        writer.close_tables()
        if encoder is not None:
            result["findings"] += look_at_fit(encoder, writer, screen)
        result["exports"] = write_exports(writer.folder, config.formats, writer.folder, name=out.name)
        result["options"] = asdict(config)
        manifest = finish(writer, result)
    result |= {"out": None if config.check else str(out), "files": manifest["files"]}
    show(result, screen)
    return result


@contextmanager
def _writer(out: Path, config: BinarizeConfig) -> Iterator[DataWriter]:
    """Where the dataset is written; with --check a place of which nothing stays."""
    if not config.check:
        with writing_data_dir(out, overwrite=config.overwrite, chat=not config.text) as writer:
            yield writer
        return
    with saying_disk_full(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="kto-check-") as folder:
        writer = DataWriter(Path(folder), chat=not config.text)
        try:
            yield writer
        finally:
            writer.let_go()


@dataclass
class Lost:
    """Input that gave no rows."""

    lines: int = 0
    """Records read, those that gave rows too."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind, reason) -> rows."""
    first: Reject | None = None


def read(sources: list[Chosen], config: BinarizeConfig, spool: Spool, writer: DataWriter, screen: Screen) -> Lost:
    """Reads all files into the spool; what gives no rows goes to rejects.jsonl at once."""
    lost = Lost()
    with screen.progress("reading", None):
        for block, made in parsed_blocks(blocks(sources, config, screen.note), config.workers):
            for one in made.lost:
                lose(one, lost, writer)
            spool.add(made)
            lost.lines += len(block.records)
            screen.tick(len(block.records))
    return lost


def lose(one: Reject | Dropped, lost: Lost, writer: DataWriter) -> None:
    """One line of rejects.jsonl."""
    kind = REJECTED if isinstance(one, Reject) else DROPPED
    lost.counts[kind, one.reason] += one.rows
    if isinstance(one, Reject) and lost.first is None:
        lost.first = one
    writer.line(REJECTS, {"kind": kind, **asdict(one), "raw": getattr(one, "raw", "")})


def tokenizer_of(config: BinarizeConfig) -> Encoder:
    """What turns rows into tokens as --model would.

    Raises:
        BadInput, BadModel: there is no such model, or it cannot be used.
    """
    from kto_cli.model.tokens.fit import encoder_of

    assert config.model is not None
    return encoder_of(config.model, config.max_length)


def look_at_fit(encoder: Encoder, writer: DataWriter, screen: Screen) -> list[dict[str, Any]]:
    """Findings on rows that will not fit; each of them is a line of findings.jsonl."""
    from kto_cli.model.tokens.fit import examine_fit

    with screen.progress("looking at lengths", None):
        fit = examine_fit(writer.folder, encoder, lambda line: writer.line(FINDINGS, line), screen.tick)
    screen.note(
        f"Lengths: {fit.rows:,} rows in {fit.max_length:,} tokens, {sum(fit.counts.values()):,} do not fit whole."
    )
    return fit.findings()


def tell(decision: Decision, screen: Screen) -> None:
    """Warnings and notes."""
    for text in decision.warnings:
        screen.warn(text)
    for text in decision.notes:
        screen.note(text)


def unlearnable(columns: Columns, fates: Fates) -> str | None:
    """Why KTO cannot learn from the train rows: there are none, or of one class or one prompt only."""
    train, prompts = per_class(columns, fates.train), columns.prompts[fates.train]
    if not len(prompts):
        return NO_ROWS
    if not all(train.values()):
        every = per_class(columns, fates.kept)  # what there is at all says more, if it lacks the class too
        counts, where = (train, " to learn from") if all(every.values()) else (every, "")
        desirable, undesirable = counts.values()
        return f"There are {desirable:,} desirable and {undesirable:,} undesirable rows{where}; KTO needs both classes."
    if (prompts == prompts[0]).all():
        return f"All {len(prompts):,} rows have one prompt; KTO also pairs each prompt with the answer to another."
    return None


def said(lost: Lost, fates: Fates, spool: Spool) -> str:
    """What became of the other rows, in short, for an error that leaves no rejects.jsonl behind."""
    total = spool.rows + sum(lost.counts.values())
    words = ""
    for kind in (REJECTED, DROPPED):
        if reasons := together(kind, fates.counts(kind), lost.counts):
            few = ", ".join(f"{reason} {rows:,}" for reason, rows in list(reasons.items())[:5])
            words += f" {sum(reasons.values()):,} of {total:,} rows {kind.replace('_', ' ')}: {few}."
    first = lost.first or first_rejected(fates, spool)
    return words if first is None else f"{words} First: {first.origin}: {first.detail[:200].rstrip('.')}."


def first_rejected(fates: Fates, spool: Spool) -> Reject | None:
    """The first of the rows that were read and rejected later."""
    for number, (kind, reason, detail) in enumerate(fates.reasons, start=FIRST_REASON):
        rows = (fates.of == number).nonzero()[0]
        if kind == REJECTED and len(rows):
            origin = next(
                batch.column("origin")[rows[0] - span.start].as_py()
                for span, batch in spool.batches()
                if rows[0] < span.stop
            )
            return Reject(origin, reason, detail, 1, "")
    return None
