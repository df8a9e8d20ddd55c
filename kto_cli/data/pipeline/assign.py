"""Outcomes for all rows, once they are read, in this order: labels, fixes, split, sample, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.audit.checks import examine, fix_mask, prompt_clusters
from kto_cli.data.audit.findings import Finding
from kto_cli.data.columns import I8, U8, Columns, Flags
from kto_cli.data.pipeline.kept_split import KeptSplit
from kto_cli.data.pipeline.label import label_rows
from kto_cli.data.pipeline.outcome import DROPPED, Outcomes
from kto_cli.data.pipeline.pair_rows import MadePairs, pair_within_prompts
from kto_cli.data.pipeline.sample import DETAILS as SAMPLE_DETAILS
from kto_cli.data.pipeline.sample import Rows, Sample, sample
from kto_cli.data.pipeline.split import split
from kto_cli.data.pipeline.split_notes import DETAILS as SPLIT_DETAILS
from kto_cli.data.seeded_order import row_keys
from kto_cli.data.select import Chosen

FIXED = {
    "contradictions": "the same prompt and answer has the other label in another row (--fix contradictions)",
    "refusals": "the answer is only a refusal (--fix refusals)",
    "urls": "the answer is only a link (--fix urls)",
    "echoes": "the answer repeats the prompt's last turn (--fix echoes)",
    "cut-answers": "the answer was cut off (--fix cut-answers)",
    "duplicates": "an earlier row has the same prompt, answer and label (--fix duplicates)",
}


@dataclass
class Assignment:
    """Outcomes of the rows, with what to report about them."""

    outcomes: Outcomes
    findings: list[Finding] = field(default_factory=list)
    """Findings on the kept rows."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    made_pairs: MadePairs | None = None
    """With --pair-within-prompts."""


def assign(
    columns: Columns,
    sources: list[Chosen],
    config: BinarizeConfig,
    *,
    earlier_keys: Sequence[U8] = (),
    kept: KeptSplit | None = None,
) -> Assignment:
    """Labels every row (in `columns`) and assigns its outcome.

    Args:
        earlier_keys: see `split`. kept: the split of --keep-split.

    Raises:
        BadInput: see `label_rows`.
    """
    done = Assignment(Outcomes.all_train(len(columns)))
    outcomes, names = done.outcomes, [one.name for one in sources]
    done.warnings += label_rows(columns, sources, config, outcomes, done.notes.append)
    for name, rows in fix_mask(columns, config.fixes, among=outcomes.kept).items():
        outcomes.remove(rows, DROPPED, name, FIXED[name])
    clusters = prompt_clusters(columns)
    columns.sketches = columns.sketches[:0]  # frees a quarter of the memory of all columns
    unit_keys = _split(
        columns, config, done, clusters if "near-duplicates" in config.fixes else None, earlier_keys, kept
    )
    _sample(columns, unit_keys, sources, config, done)
    if (most := config.pair_within_prompts) is not None:
        done.made_pairs = pair_within_prompts(columns, outcomes, most, config.seed)
        done.notes.append(done.made_pairs.sentence(most))
    done.findings = examine(
        columns,
        names,
        validation=outcomes.validation,
        among=outcomes.kept,
        clusters=clusters,
        fixes=frozenset(config.fixes),
    )
    return done


def _split(
    columns: Columns,
    config: BinarizeConfig,
    done: Assignment,
    clusters: I8 | None,
    earlier_keys: Sequence[U8],
    kept: KeptSplit | None,
) -> U8:
    """Assigns rows to validation; returns the keys of split units [rows, 2]. `clusters`: [prompts] to keep together."""
    sides = None if kept is None else kept.sides(columns)
    if kept is not None and sides is not None:
        done.notes += kept.notes(sides, config.validation, config.seed)
    found = split(
        prompts=columns.prompts,
        groups=columns.groups,
        group_keys=columns.group_keys,
        roots=columns.roots,
        root_keys=columns.root_keys,
        keys=row_keys(columns.prompt_keys, columns.completion_keys, columns.labels),
        pairs=columns.pairs,
        labels=columns.labels,
        official=columns.official,
        sources=columns.sources,
        share=config.validation,
        seed=config.seed,
        clusters=None if clusters is None else clusters[columns.prompts],
        rows=done.outcomes.kept,
        earlier_keys=earlier_keys,
        kept=sides,
    )
    _drop(found.dropped, SPLIT_DETAILS, done)
    done.outcomes.validate_on(found.validation)
    done.notes += found.notes
    done.warnings += found.warnings
    return found.unit_keys


def _sample(columns: Columns, unit_keys: U8, sources: list[Chosen], config: BinarizeConfig, done: Assignment) -> None:
    """Drops training rows by the sampling options."""
    rows = Rows(
        prompts=columns.prompts,
        pairs=columns.pairs,
        labels=columns.labels,
        sources=columns.sources,
        keys=row_keys(columns.prompt_keys, columns.completion_keys, columns.labels),
        unit_keys=unit_keys,
    )
    for number, one in enumerate(sources):
        if one.source.max_pairs is not None and config.max_pairs is None:
            of_source = done.outcomes.train & (columns.sources == number)
            _apply(sample(of_source, rows, seed=config.seed, max_pairs=one.source.max_pairs), done)
            done.notes[-1] += f" (--max-pairs {one.source.max_pairs} is the default for {one.source.name}.)"
    found = sample(
        done.outcomes.train,
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
    _apply(found, done)


def _apply(found: Sample, done: Assignment) -> None:
    _drop(found.dropped, SAMPLE_DETAILS, done)
    done.notes += found.notes
    done.warnings += found.warnings


def _drop(dropped: dict[str, Flags], details: dict[str, str], done: Assignment) -> None:
    for reason, rows in dropped.items():
        done.outcomes.remove(rows, DROPPED, reason, details[reason])
