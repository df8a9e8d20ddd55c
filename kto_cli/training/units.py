"""Rows that a loss learns from, all, the desirable ones or whole pairs, and what a step counts of them."""

from __future__ import annotations

from torch import Tensor

from kto_cli.common.errors import BadData
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import plural
from kto_cli.core.loss_kinds import LossKind
from kto_cli.core.pairs import pairing_of
from kto_cli.core.plan import pairs_in_batch
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.training.loss_flags import loss_kind


def trained_rows(rows: EncodedRows, config: TrainConfig, screen: Screen) -> EncodedRows:
    """The rows that the run's loss learns from, and a note on those that it leaves out.

    Raises:
        BadData: a pair loss, and no row has a partner.
    """
    kind = loss_kind(config)
    if kind.unit == "pair":
        pairing = pairing_of(rows.pair_ids, rows.labels.tolist())
        if not pairing.pairs:
            raise BadData(
                f"--loss {config.loss} needs pairs, a desirable and an undesirable answer with one pair_id; "
                f"none of the {plural(len(rows), 'row')} has a partner.",
                "Take a source of pairs, or a loss of single rows such as kto.",
            )
        what = pairing.sentence() or f"{plural(pairing.pairs, 'pair')}."
        screen.note(f"--loss {config.loss} learns from {what}")
        return rows.take((pairing.partners >= 0).nonzero()[:, 0].tolist())
    if kind.classes == "desirable" and not rows.labels.all():
        kept = rows.labels.nonzero()[0].tolist()
        left = len(rows) - len(kept)
        screen.note(
            f"--loss {config.loss} learns from the {plural(len(kept), 'desirable row')}; "
            f"{plural(left, 'undesirable row')} left out."
        )
        return rows.take(kept)
    return rows


def partners_in(rows: EncodedRows, kind: LossKind) -> Tensor | None:
    """[rows] the other row of each one's pair; None where the loss takes rows one by one."""
    return pairing_of(rows.pair_ids, rows.labels.tolist()).partners if kind.unit == "pair" else None


def units_in(rows: int, batch_size: int, kind: LossKind) -> tuple[int, int]:
    """Units of an epoch and of a step: rows, or pairs of `trained_rows`."""
    return (rows // 2, pairs_in_batch(batch_size)) if kind.unit == "pair" else (rows, batch_size)
