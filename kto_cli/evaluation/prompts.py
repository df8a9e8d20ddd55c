"""The validation prompts that models answer, each with what was answered well to it in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kto_cli.core.rows import EncodedRow
from kto_cli.data.dataset import DataDir
from kto_cli.data.texts import Text, last_turn, question
from kto_cli.evaluation.validation import texts_of
from kto_cli.model.tokens.validation_rows import ValidationRows

NAMES_OF_COLUMNS = frozenset({"id", "prompt", "policy", "reference", "target"})
"""In samples.jsonl: no other model is called so."""


@dataclass(frozen=True)
class ValidationPrompts:
    """[prompts] of everything."""

    rows: list[EncodedRow]
    """One of each prompt, a desirable one where it has any: its tokens are those it is scored with."""
    reference_rows: list[EncodedRow]
    """The same rows as the reference is asked."""
    texts: list[Text]
    targets: list[str | None]
    """The desirable completion: what supervised fine-tuning would teach. None where all its rows are undesirable."""

    def __len__(self) -> int:
        return len(self.rows)


def choose_prompts(validated: ValidationRows, data: DataDir, count: int) -> ValidationPrompts:
    """At most `count` different prompts, those with a desirable completion first, else in the order of their hashes:
    the same ones whatever the order of the rows, and fewer are the first of more."""
    first: dict[str, int] = {}
    validation = validated.served
    labels = validation.labels.tolist()
    for index, name in enumerate(validation.prompt_ids):
        if name not in first or (labels[index] and not labels[first[name]]):
            first[name] = index
    order = sorted(first, key=lambda name: (not labels[first[name]], name))[:count]
    rows = [validation[first[name]] for name in order]
    found = texts_of(data, [row.id for row in rows])
    return ValidationPrompts(
        rows,
        [validated.reference[first[name]] for name in order],
        [found[row.id].prompt for row in rows],
        [last_turn(found[row.id].completion) if row.label else None for row in rows],
    )


def side_by_side(prompts: ValidationPrompts, answers: Mapping[str, Sequence[str | None]]) -> list[dict[str, str]]:
    """One object a prompt: its row's id, the prompt's last turn, every model's answer by its name, and the target.

    Args:
        answers: name -> [prompts] texts; None where there is none.
    """
    columns = {"prompt": [question(text) for text in prompts.texts], **answers, "target": prompts.targets}
    return [
        {"id": row.id} | {name: text for name, texts in columns.items() if (text := texts[index]) is not None}
        for index, row in enumerate(prompts.rows)
    ]


def free_name(name: str) -> str:
    """What another model is called in results, where the plain name means something else."""
    return f"./{name}" if name in NAMES_OF_COLUMNS else name
