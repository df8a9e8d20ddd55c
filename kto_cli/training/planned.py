"""Rows of each step of a run, and what the steps before a reference moves need of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import torch
from numpy.typing import NDArray

from kto_cli.core.plan import plan_epoch, steps_in_epoch
from kto_cli.model.logprobs.needed import Needed
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.training.settings import RunSettings
from kto_cli.training.units import partners_in, units_in


def batches_of_epoch(rows: EncodedRows, settings: RunSettings, epoch: int) -> list[list[int]]:
    """The rows of each step of an epoch."""
    config = settings.config
    groups = [rows.prompts, rows.conversations] if config.group_prompts else []
    numbers = [torch.from_numpy(column) for column in (rows.labels, *groups)]
    partners = partners_in(rows, settings.kind)
    return plan_epoch(*numbers, batch_size=config.batch_size, seed=config.seed, epoch=epoch, partners=partners)


def steps_of_epoch(rows: EncodedRows, settings: RunSettings) -> int:
    """Steps of every epoch."""
    return steps_in_epoch(*units_in(len(rows), settings.config.batch_size, settings.kind))


def repeated_batches(rows: EncodedRows, settings: RunSettings) -> Iterator[tuple[int, list[int]]]:
    """How often a run takes a step over a batch, and the batch's rows; together all its steps.

    Rows of a later whole epoch are those of the first in another order, so sums over them are equal.
    """
    epochs, rest = divmod(settings.total_steps, steps_of_epoch(rows, settings))
    for batch in batches_of_epoch(rows, settings, 0) if epochs else ():
        yield epochs, batch
    for batch in batches_of_epoch(rows, settings, epochs)[:rest] if rest else ():
        yield 1, batch


def needed_by(rows: EncodedRows, settings: RunSettings) -> Needed:
    """What a run over these rows needs of the reference that it is given at first."""
    return Needed.by(settings.loss, _rows_before_a_move(rows, settings))


def _rows_before_a_move(rows: EncodedRows, settings: RunSettings) -> NDArray[numpy.int64] | None:
    """Rows of the steps before the reference moves, ascending: no others are compared with the model given at first.
    None: all are."""
    still = settings.total_steps - settings.steps_moved
    if not settings.steps_moved or still >= steps_of_epoch(rows, settings):
        return None
    return numpy.unique(numpy.concatenate(batches_of_epoch(rows, settings, 0)[:still])).astype(numpy.int64)
