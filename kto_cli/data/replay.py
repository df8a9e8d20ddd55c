"""New feedback after an earlier run: its dataset, the split of the earlier one kept, and a share of its rows again.

Rows of a prompt that the earlier run validated on are not trained on, and rows of a prompt that it trained on are not
validated on. The validation split is that of both, so that both models can be compared on rows that neither saw.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from kto_cli.common.errors import BadInput
from kto_cli.common.files import text_hash
from kto_cli.data.dataset import DataDir, Row, load_data_dir
from kto_cli.data.dataset_writer import write_data_dir
from kto_cli.data.seeded_order import priority, row_keys

VERSION = 1
"""Of how rows are chosen: part of the folder's name."""


@dataclass(frozen=True)
class Replayed:
    """Counts of rows of a dataset made of two."""

    new: int
    """Training rows of the new dataset."""
    old: int
    """Training rows of the earlier one, taken again."""
    validation: int
    """Validation rows of both."""
    validated_before: int
    """New training rows left out: their prompt was for validation."""
    trained_before: int
    """New validation rows left out: their prompt was trained on."""

    def sentence(self, share: float) -> str:
        """What is trained on, and what was left out."""
        left = [
            f"{count:,} {what}"
            for count, what in (
                (self.validated_before, "new training rows left out, whose prompt it validated on"),
                (self.trained_before, "new validation rows left out, whose prompt it trained on"),
            )
            if count
        ]
        rows = f"{self.new:,} new rows and {self.old:,} rows of the last run (--replay {share:g})"
        return "; ".join([f"{rows}; {self.validation:,} validation rows of both", *left]) + "."


def with_replay(parent: Path, new: DataDir, old: DataDir, *, share: float, seed: int) -> tuple[Path, Replayed]:
    """A dataset below `parent` of the rows of `new` and a share of the training rows of `old`; made once.

    Raises:
        BadInput: one has chats and the other texts.
    """
    folder = parent / text_hash(str(VERSION), new.fingerprint, old.fingerprint, repr(share), str(seed))
    if (folder / "manifest.json").is_file():
        made = load_data_dir(folder)
        return folder, Replayed(**made.manifest["after"])
    train, validation, counts = chosen_rows(new, old, share=share, seed=seed)
    if len({isinstance(row.prompt, str) for row in (*train, *validation)}) > 1:
        raise BadInput(
            f"{new.folder} and {old.folder} are not of one kind: one has chats and the other texts.",
            "Binarize both with or both without --text.",
        )
    write_data_dir(folder, train, validation, [], _manifest(new, train, validation, counts), overwrite=True)
    return folder, counts


def chosen_rows(new: DataDir, old: DataDir, *, share: float, seed: int) -> tuple[list[Row], list[Row], Replayed]:
    """Training rows, validation rows, and their counts."""
    old_train, old_validation, new_train, new_validation = old.train, old.validation, new.train, new.validation
    trained, validated = ({row.prompt_id for row in rows} for rows in (old_train, old_validation))
    fresh = [row for row in new_train if row.prompt_id not in validated]
    unseen = [row for row in new_validation if row.prompt_id not in trained]
    held = {row.prompt_id for row in unseen} | validated
    there = {row.id for row in fresh}
    again = _drawn([row for row in old_train if row.id not in there and row.prompt_id not in held], share, seed)
    in_both = {row.id for row in unseen}
    both = [*unseen, *(row for row in old_validation if row.id not in in_both)]
    counts = Replayed(
        new=len(fresh),
        old=len(again),
        validation=len(both),
        validated_before=len(new_train) - len(fresh),
        trained_before=len(new_validation) - len(unseen),
    )
    return [*fresh, *again], both, counts


def _drawn(rows: list[Row], share: float, seed: int) -> list[Row]:
    """Rows of the prompts that are first in a seeded order, until there are the share of all rows."""
    if not rows or not share:
        return []
    keys = row_keys(numpy.array([int(row.prompt_id, 16) for row in rows], dtype=numpy.uint64))
    order = numpy.argsort(priority(keys, seed, "replay"), kind="stable")
    wanted = round(share * len(rows))
    last = rows[int(order[wanted - 1])].prompt_id if wanted else ""
    chosen = {rows[int(index)].prompt_id for index in order[:wanted]} - {last}
    kept = [row for row in rows if row.prompt_id in chosen]
    more = [row for row in rows if row.prompt_id == last]
    whole = len(kept) + len(more) - wanted <= wanted - len(kept) or not kept
    return [row for row in rows if row.prompt_id in chosen or (whole and row.prompt_id == last)]


def _manifest(new: DataDir, train: list[Row], validation: list[Row], counts: Replayed) -> dict[str, Any]:
    """Manifest of the dataset: that of the new one, with the counts of this one."""
    splits = {
        name: {"desirable": sum(row.label for row in rows), "undesirable": sum(not row.label for row in rows)}
        for name, rows in (("train", train), ("validation", validation))
    }
    kept: dict[str, Any] = {
        name: new.manifest[name] for name in ("sources", "options", "findings") if name in new.manifest
    }
    return {**kept, **splits["train"], "validation": len(validation), "splits": splits, "after": asdict(counts)}
