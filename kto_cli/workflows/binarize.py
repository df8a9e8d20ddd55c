"""`kto binarize`: any feedback as desirable / undesirable rows in a data folder."""

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
from kto_cli.common.words import plural
from kto_cli.data.audit.agreement import rater_agreement
from kto_cli.data.audit.findings import as_json
from kto_cli.data.audit.scrub import also_finding, scrub_strings
from kto_cli.data.columns import Columns
from kto_cli.data.dataset import FINDINGS, REJECTS
from kto_cli.data.dataset_folder import check_out
from kto_cli.data.dataset_writer import DataWriter, finish, writing_data_dir
from kto_cli.data.formats.counts import Counts
from kto_cli.data.formats.records import Reject
from kto_cli.data.pipeline.assign import assign
from kto_cli.data.pipeline.export import write_exports
from kto_cli.data.pipeline.export_pairs import rows_left_out
from kto_cli.data.pipeline.kept_split import RULE, read_kept_split
from kto_cli.data.pipeline.label_values import next_step, unread_labels, value_lines
from kto_cli.data.pipeline.openings import separate_openings
from kto_cli.data.pipeline.outcome import DROPPED, FIRST_REASON, REJECTED, Outcomes
from kto_cli.data.pipeline.parse import blocks, parsed_blocks
from kto_cli.data.pipeline.row_spool import Spool
from kto_cli.data.pipeline.scrub_rows import replaced_values
from kto_cli.data.pipeline.summary import account, by_reason, per_class, show
from kto_cli.data.pipeline.write import write_rows
from kto_cli.data.select import Chosen, choose, default_name
from kto_cli.workflows.scrub_finders import finders

if TYPE_CHECKING:
    from kto_cli.model.tokens.encoder import Encoder

NOTHING_WRITTEN = "Nothing was written; an earlier dataset is as it was."
NO_ROWS, NOT_WRITTEN = "No training rows are left.", "Nothing was written."


def run(config: BinarizeConfig, screen: Screen) -> dict[str, Any]:
    """Reads the sources, assigns an outcome to each row, writes the data folder and shows a summary.

    Returns:
        The result for --json; counts are rows, `desirable` and `undesirable` are training rows.

    Raises:
        BadInput: a source or the output folder cannot be used.
        BadData: the training rows cannot be learned from.
    """
    out = Path("data", default_name(config.sources)) if config.out is None else Path(config.out)
    if not config.check:
        check_out(out, overwrite=config.overwrite)
    sources = choose(config)
    for one in sources:
        screen.warn(*one.warnings)
        screen.note(*one.notes)
    kept = None if config.keep_split is None else read_kept_split(Path(config.keep_split))
    encoder = None if config.model is None else encoder_for(config)  # a wrong --model fails before the sources are read
    with _writer(out, config) as writer, Spool(writer.folder / "spool") as spool:
        with also_finding(*finders(config.scrub_model)):
            unused = read(sources, config, spool, writer, screen)
        if not spool.rows:
            raise unused.as_error(NO_ROWS + why_unused(unused, Outcomes.all_train(0), spool), sources, config)
        columns = spool.columns()
        alike, earlier_keys = separate_openings(columns, spool, config.validation)
        screen.note(*alike)
        with screen.progress("finding duplicates, splitting", None, keeps=NOTHING_WRITTEN):
            assigned = assign(columns, sources, config, earlier_keys=earlier_keys, kept=kept)
        screen.warn(*assigned.warnings)
        screen.note(*assigned.notes)
        if fault := unlearnable(columns, assigned.outcomes, config.purpose):
            raise unused.as_error(fault + why_unused(unused, assigned.outcomes, spool), sources, config)
        step = next_step(unused.decisions, sources)
        if step and (fault := unread_labels(unused.decisions)):
            raise unused.as_error(fault, sources, config)
        screen.note(*unused.label_lines(sources, config))
        if step:
            screen.warn(step)
        writer.open_tables(chat=not config.text, has_more=spool.has_more)
        with screen.progress("writing", None, keeps=NOTHING_WRITTEN):
            write_rows(writer, spool, columns, assigned.outcomes, assigned.findings, [one.name for one in sources])
        result = account(columns, assigned, unused.counts, unused.records, sources)
        result["findings"] += as_json(rater_agreement(counts.ratings for counts in unused.decisions.values()))
        del columns, assigned
        writer.close_tables()
        if encoder is not None:
            result["findings"] += check_fit(encoder, writer, screen)
        result["exports"] = write_exports(writer.folder, config.formats, writer.folder, name=out.name)
        rows = {split: sum(labels.values()) for split, labels in result["splits"].items()}
        result["exports_left_out"] = rows_left_out(result["exports"], rows)
        result["decisions"] = unused.notes()
        result |= {"options": asdict(config), "split_rule": RULE}
        if config.scrub:
            result["scrubbed"] = replaced_values(unused.decisions.values())
        manifest = finish(writer, scrub_strings(result) if config.scrub else result)
    result |= {"out": None if config.check else str(out), "files": manifest["files"]}
    show(result, screen)
    return result


@contextmanager
def _writer(out: Path, config: BinarizeConfig) -> Iterator[DataWriter]:
    """Writer of the dataset; with --check in a temporary folder that is deleted."""
    if not config.check:
        with writing_data_dir(out, overwrite=config.overwrite) as writer:
            yield writer
        return
    with saying_disk_full(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="kto-check-") as folder:
        writer = DataWriter(Path(folder))
        try:
            yield writer
        finally:
            writer.abandon()


@dataclass
class Unused:
    """Input that gave no rows."""

    records: int = 0
    """All records read, including those that gave rows."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind, reason) -> rows."""
    first: Reject | None = None
    decisions: dict[int, Counts] = field(default_factory=dict)
    """Decisions of parsing, by index of the source."""

    def notes(self) -> dict[str, int]:
        """Decisions of parsing over all sources: what was done, and how often."""
        return dict(sum((counts.notes for counts in self.decisions.values()), Counter()))

    def label_lines(self, sources: list[Chosen], config: BinarizeConfig) -> list[str]:
        """Values of the label columns with their counts, source by source."""
        several = len(sources) > 1
        return [
            f"{sources[number].name}: {line}" if several else line
            for number, counts in self.decisions.items()
            for line in value_lines(counts, config)
        ]

    def as_error(self, what: str, sources: list[Chosen], config: BinarizeConfig) -> BadData:
        """Error for rows that cannot be learned from, with the values of the label columns and rules for them."""
        what = " ".join([what, *self.label_lines(sources, config)])
        return BadData(what, " ".join(filter(None, [NOT_WRITTEN, next_step(self.decisions, sources)])))


def read(sources: list[Chosen], config: BinarizeConfig, spool: Spool, writer: DataWriter, screen: Screen) -> Unused:
    """Reads all files into the spool; input that gives no rows is written to rejects.jsonl at once."""
    unused = Unused()
    with screen.progress("reading", None, keeps=NOTHING_WRITTEN):
        for block, rows in parsed_blocks(blocks(sources, config, screen.note), config.workers):
            for one in rows.unused:
                kind = REJECTED if isinstance(one, Reject) else DROPPED
                unused.counts[kind, one.reason] += one.rows
                if isinstance(one, Reject) and unused.first is None:
                    unused.first = one
                writer.line(REJECTS, {"kind": kind, **asdict(one), "raw": getattr(one, "raw", "")})
            spool.add(rows)
            unused.records += len(block.records)
            unused.decisions.setdefault(block.number, Counts()).add(rows.counts)
            screen.tick(len(block.records))
    for text, times in unused.notes().items():
        screen.note(f"{text[:1].upper()}{text[1:]}: {times:,}.")
    return unused


def encoder_for(config: BinarizeConfig) -> Encoder:
    """Encoder of rows as tokens, for --model.

    Raises:
        BadInput, BadModel: there is no such model, or it cannot be used.
    """
    from kto_cli.model.tokens.fit import encoder_of

    assert config.model is not None
    return encoder_of(config.model, config.max_length, config.chat_template_kwargs)


def check_fit(encoder: Encoder, writer: DataWriter, screen: Screen) -> list[dict[str, Any]]:
    """Findings on rows that are too long for the model; each row is also a line of findings.jsonl."""
    from kto_cli.model.tokens.fit import examine_fit

    with screen.progress("checking lengths", None, keeps=NOTHING_WRITTEN):
        fit = examine_fit(writer.folder, encoder, lambda line: writer.line(FINDINGS, line), screen.tick)
    too_long, rows = sum(fit.counts.values()), plural(fit.rows, "row")
    screen.warn(*encoder.warnings())
    screen.note(f"Lengths: {too_long:,} of {rows} do not fit in {fit.max_length:,} tokens.")
    return fit.findings()


def unlearnable(columns: Columns, outcomes: Outcomes, purpose: str) -> str | None:
    """Reason why the training rows cannot be learned from: none at all, one class (for sft: none that is desirable), or
    one prompt only."""
    train, prompts = per_class(columns, outcomes.train), columns.prompts[outcomes.train]
    if not len(prompts):
        return NO_ROWS
    if purpose == "sft":
        if not train["desirable"]:
            return f"There are no desirable rows among {len(prompts):,} training rows; --for sft needs some."
    elif not all(train.values()):
        if fault := _taken_by_validation(columns, outcomes):
            return fault
        both = per_class(columns, outcomes.kept)  # train and validation; the message names them if both lack the class
        counts, kind = (train, "training ") if all(both.values()) else (both, "")
        desirable, undesirable = counts.values()
        fault = f"There are {desirable:,} desirable and {undesirable:,} undesirable {kind}rows; KTO needs both classes."
        return fault if undesirable else f"{fault} For --loss sft, desirable rows are enough: add --for sft."
    if (prompts == prompts[0]).all():
        return f"All {len(prompts):,} rows have the same prompt; KTO also pairs prompts with answers to other prompts."
    return None


def _taken_by_validation(columns: Columns, outcomes: Outcomes) -> str | None:
    """Fault if all rows of a class are for validation."""
    train, validation = per_class(columns, outcomes.train), per_class(columns, outcomes.validation)
    for name, rows in validation.items():
        if rows and not train[name]:
            return (
                f"All {rows:,} {name} rows are for validation; KTO needs both classes for training. --validation 0 "
                "takes none, another --seed others."
            )
    return None


def why_unused(unused: Unused, outcomes: Outcomes, spool: Spool) -> str:
    """Reasons of all unused rows in short, for an error that leaves no rejects.jsonl."""
    total = spool.rows + sum(unused.counts.values())
    text = ""
    for kind in (REJECTED, DROPPED):
        if reasons := by_reason(kind, outcomes.counts(kind), unused.counts):
            few = ", ".join(f"{reason} {rows:,}" for reason, rows in list(reasons.items())[:5])
            text += f" {sum(reasons.values()):,} of {plural(total, 'row')} {kind}: {few}."
    first = unused.first or first_rejected(outcomes, spool)
    return text if first is None else f"{text} First: {first.origin}: {first.detail[:200].rstrip('.')}."


def first_rejected(outcomes: Outcomes, spool: Spool) -> Reject | None:
    """First of the rows that were parsed and rejected later."""
    for code, (kind, reason, detail) in enumerate(outcomes.reasons, start=FIRST_REASON):
        rows = (outcomes.codes == code).nonzero()[0]
        if kind == REJECTED and len(rows):
            origin = next(
                batch.column("origin")[rows[0] - span.start].as_py()
                for span, batch in spool.batches()
                if rows[0] < span.stop
            )
            return Reject(origin, reason, detail, 1, "")
    return None
