"""Rows of each step of a run: of an epoch, and those of the steps before a reference moves."""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray

from kto_cli.core.plan import plan_epoch, steps_in_epoch
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


def rows_before_a_move(rows: EncodedRows, settings: RunSettings) -> NDArray[numpy.int64] | None:
    """Rows of the steps before the reference moves, ascending: no others are compared with the model given at first.
    None: all are."""
    still = settings.total_steps - settings.steps_moved
    if not settings.steps_moved or still >= steps_of_epoch(rows, settings):
        return None
    return numpy.unique(numpy.concatenate(batches_of_epoch(rows, settings, 0)[:still])).astype(numpy.int64)
