"""Sides of an earlier dataset, for `--keep-split`: which prompts and conversations it trains and validates on.

Its rows have the hash of their prompt, and their conversation is known again by its first user turn. How a source names
its conversations is not in a dataset; new rows of one of them may thus get the other side, if the hash says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy

from kto_cli.common.words import plural
from kto_cli.data.columns import I8, U8, Columns, Flags
from kto_cli.data.dataset import TRAIN, VALIDATION, load_data_dir, read_columns
from kto_cli.data.formats.records import root
from kto_cli.data.pipeline.parsed_row import keys

RULE = "hash"
"""How `split` draws rows, for the manifest; earlier versions took the first rows of a seeded order."""


@dataclass(frozen=True)
class KeptSides:
    """Rows whose side an earlier dataset tells."""

    validation: Flags
    """[rows] their prompt is a validation row there."""
    training: Flags
    """[rows] their prompt is a training row there, and no validation row."""
    roots: Flags
    """[2, rows] their conversation is there, on the validation side and on the training side."""

    @classmethod
    def nothing(cls, rows: int) -> KeptSides:
        """Of no earlier dataset."""
        none = numpy.zeros((4, rows), dtype=bool)
        return cls(none[0], none[1], none[2:])

    def of_groups(self, roots: I8, groups: I8, used: Flags) -> Flags:
        """[2, rows] whether any row with the same root or of the same group is known from validation, and if not, from
        training."""
        found = numpy.array([self.validation | self.roots[0], self.training | self.roots[1]])
        for numbers in (roots, groups):
            for side, flags in enumerate(found):
                known = numpy.zeros(int(numbers.max(initial=-1)) + 1, dtype=bool)
                known[numbers[used & flags]] = True
                found[side] = known[numbers]
        found[1] &= ~found[0]
        return found


@dataclass(frozen=True)
class KeptSplit:
    """The split of an earlier dataset."""

    folder: Path
    prompts: tuple[U8, U8]
    """First words of the prompts' hashes: validation, training."""
    roots: tuple[U8, U8]
    """The same of conversations; those on both sides, which had equal openings, are in neither."""
    seed: int | None
    share: float | None
    """`--seed` and `--validation` of that dataset; None if they drew it by another rule."""

    def sides(self, columns: Columns) -> KeptSides:
        """Sides of the rows of `columns` that are known."""
        prompts = [numpy.isin(columns.prompt_keys[:, 0], known) for known in self.prompts]
        roots = numpy.array([numpy.isin(columns.root_keys[:, 0], known) for known in self.roots])
        return KeptSides(prompts[0], prompts[1] & ~prompts[0], roots)

    def notes(self, sides: KeptSides, share: float, seed: int) -> list[str]:
        """What is kept, and what of the draw of new rows is not as it was."""
        validation, training = (sides.validation | sides.roots[0]), (sides.training | sides.roots[1])
        training = training & ~validation
        new = int((~validation & ~training).sum())
        notes = [
            f"Split kept from {self.folder}: {plural(int(validation.sum()), 'validation row')} and "
            f"{plural(int(training.sum()), 'training row')} by their prompt or conversation; {new:,} are new."
        ]
        if (self.seed, self.share) != (seed, share):
            how = "by another rule" if self.seed is None else f"with --seed {self.seed} --validation {self.share}"
            notes.append(
                f"{self.folder} was drawn {how}; what is new is drawn with --seed {seed} --validation {share}."
            )
        return notes


def read_kept_split(folder: Path) -> KeptSplit:
    """Reads the sides of an earlier dataset.

    Raises:
        BadInput: it is not a dataset of kto, or damaged.
    """
    data = load_data_dir(folder)
    prompts, roots = [], []
    for name in (VALIDATION, TRAIN):
        of_prompts: set[int] = set()
        of_roots: list[U8] = []
        for batch in read_columns(folder / name, ("prompt_id", "prompt")):
            of_prompts.update(int(value, 16) for value in batch["prompt_id"])
            of_roots.append(keys([root(prompt) for prompt in batch["prompt"]])[:, 0])
        prompts.append(numpy.array(sorted(of_prompts), dtype=numpy.uint64))
        roots.append(numpy.unique(numpy.concatenate([numpy.zeros(0, numpy.uint64), *of_roots])))
    both = numpy.intersect1d(roots[0], roots[1])
    options = data.manifest.get("options", {}) if data.manifest.get("split_rule") == RULE else {}
    return KeptSplit(
        folder,
        (prompts[0], prompts[1]),
        (numpy.setdiff1d(roots[0], both), numpy.setdiff1d(roots[1], both)),
        options.get("seed"),
        options.get("validation"),
    )
