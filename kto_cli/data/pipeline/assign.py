"""What becomes of each row, once all are read. In this order: labels, fixes, split, shape."""

from __future__ import annotations

from dataclasses import dataclass, field

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.audit.checks import examine, fix_mask, prompt_clusters
from kto_cli.data.audit.findings import Finding
from kto_cli.data.columns import I8, U8, Columns
from kto_cli.data.pipeline.label import settle_labels
from kto_cli.data.pipeline.outcome import DROPPED, Fates
from kto_cli.data.pipeline.sample import DETAILS as SHAPE_DETAILS
from kto_cli.data.pipeline.sample import Rows, Shape, shape
from kto_cli.data.pipeline.split import DETAILS as SPLIT_DETAILS
from kto_cli.data.pipeline.split import split
from kto_cli.data.seeded_order import row_keys
from kto_cli.data.select import Chosen

FIXED = {
    "contradictions": "the same prompt and answer has the other label in another row (--fix contradictions)",
    "refusals": "the answer does nothing but refuse (--fix refusals)",
    "urls": "the answer is nothing but a link (--fix urls)",
    "echoes": "the answer repeats the prompt's last turn (--fix echoes)",
    "duplicates": "the same prompt, answer and label came before (--fix duplicates)",
}


@dataclass
class Decision:
    """All that is said of the rows."""

    fates: Fates
    findings: list[Finding] = field(default_factory=list)
    """Of the rows that are kept."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def decide(columns: Columns, sources: list[Chosen], config: BinarizeConfig) -> Decision:
    """Settles every row's label (in `columns`) and fate.

    Raises:
        BadInput: see `settle_labels`.
    """
    done = Decision(Fates.for_rows(len(columns)))
    fates, names = done.fates, [one.name for one in sources]
    done.warnings += settle_labels(columns, sources, config, fates, done.notes.append)
    for name, rows in fix_mask(columns, config.fixes, among=fates.kept).items():
        fates.take_out(rows, DROPPED, name, FIXED[name])
    clusters = prompt_clusters(columns)
    columns.sketches = columns.sketches[:0]  # a quarter of all that is kept in memory, and of no more use
    family_keys = _split(columns, config, done, clusters if "near-duplicates" in config.fixes else None)
    _shape(columns, family_keys, sources, config, done)
    done.findings = examine(columns, names, validation=fates.validation, among=fates.kept, clusters=clusters)
    return done


def _split(columns: Columns, config: BinarizeConfig, done: Decision, clusters: I8 | None) -> U8:
    """Assigns rows to validation; returns [rows, 2] the keys of families. `clusters`: [prompts] that stay together."""
    found = split(
        prompts=columns.prompts,
        groups=columns.groups,
        group_keys=columns.group_keys,
        labels=columns.labels,
        official=columns.official,
        sources=columns.sources,
        share=config.validation,
        seed=config.seed,
        clusters=None if clusters is None else clusters[columns.prompts],
        rows=done.fates.kept,
    )
    for reason, rows in found.dropped.items():
        done.fates.take_out(rows, DROPPED, reason, SPLIT_DETAILS[reason])
    done.fates.hold_out(found.validation)
    done.notes += found.notes
    done.warnings += found.warnings
    return found.family_keys


def _shape(columns: Columns, family_keys: U8, sources: list[Chosen], config: BinarizeConfig, done: Decision) -> None:
    """Which rows to learn from stay."""
    rows = Rows(
        prompts=columns.prompts,
        pairs=columns.pairs,
        labels=columns.labels,
        sources=columns.sources,
        keys=row_keys(columns.prompt_keys, columns.completion_keys, columns.labels),
        family_keys=family_keys,
    )
    for number, one in enumerate(sources):
        if one.source.max_pairs is not None and config.max_pairs is None:
            of_source = done.fates.train & (columns.sources == number)
            few = shape(of_source, rows, seed=config.seed, max_pairs=one.source.max_pairs)
            _take(few, done)
            done.notes[-1] += f" (--max-pairs {one.source.max_pairs}, the default for {one.source.name})"
    found = shape(
        done.fates.train,
        rows,
        seed=config.seed,
        max_pairs=config.max_pairs,
        one_y_per_x=config.one_y_per_x,
        max_per_prompt=config.max_per_prompt,
        keep_desirable=config.keep_desirable,
        keep_undesirable=config.keep_undesirable,
        balance=config.balance,
        weights=config.weights,
        limit=config.limit,
        names=[one.name for one in sources],
    )
    _take(found, done)


def _take(found: Shape, done: Decision) -> None:
    for reason, left in found.dropped.items():
        done.fates.take_out(left, DROPPED, reason, SHAPE_DETAILS[reason])
    done.notes += found.notes
    done.warnings += found.warnings
