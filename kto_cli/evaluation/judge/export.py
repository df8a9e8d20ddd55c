"""What AlpacaEval's own tools read: the outputs of both sides, and the annotations.

Form (https://github.com/tatsu-lab/alpaca_eval, results/MODEL/model_outputs.json and results/MODEL/ANNOTATOR/
annotations.json): arrays of objects; output_1 is the reference's, output_2 the model's that is measured, `preference` 1
where the first is better, 2 where the second is, 1.5 for a draw, null where there is none. The mean of preference - 1
is the win rate, there as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.files import write_json
from kto_cli.data.dataset import Text
from kto_cli.evaluation.judge.duels import Duel, Verdicts

OUTPUTS, REFERENCE, ANNOTATIONS = "model_outputs.json", "reference_outputs.json", "annotations.json"


def instruction(prompt: Text) -> str:
    """A prompt as AlpacaEval's one text: a chat of one user turn is that turn; of others the turns are told apart as in
    hh-rlhf."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    names = {"user": "Human: ", "assistant": "Assistant: "}
    return "\n\n".join(names.get(turn["role"], "") + turn["content"] for turn in prompt)


def preference(verdicts: Verdicts) -> float | None:
    """1 (theirs), 1.5 (tie) or 2 (ours), by both orders together; None where one is unreadable."""
    first, second = verdicts.scores
    if first is None or second is None:
        return None
    total = first + second
    return 2.0 if total > 1 else 1.0 if total < 1 else 1.5


def outputs(duels: Sequence[Duel], generator: str, dataset: str, *, ours: bool) -> list[dict[str, Any]]:
    """One side's answers."""
    return [
        {
            "dataset": dataset,
            "instruction": instruction(duel.prompt),
            "output": duel.ours if ours else duel.theirs,
            "generator": generator,
        }
        for duel in duels
    ]


def annotated(
    duels: Sequence[Duel], verdicts: Sequence[Verdicts], *, ours: str, theirs: str, annotator: str, dataset: str
) -> list[dict[str, Any]]:
    """One object a duel."""
    return [
        {
            "dataset": dataset,
            "instruction": instruction(duel.prompt),
            "output_1": duel.theirs,
            "generator_1": theirs,
            "output_2": duel.ours,
            "generator_2": ours,
            "annotator": annotator,
            "preference": preference(verdict),
        }
        for duel, verdict in zip(duels, verdicts, strict=True)
    ]


def export(
    folder: Path,
    duels: Sequence[Duel],
    verdicts: Sequence[Verdicts],
    *,
    ours: str,
    theirs: str,
    annotator: str,
    dataset: str = "validation",
) -> list[Path]:
    """Writes the three files into `folder`, each atomically; `ours`, `theirs` and `annotator` are names.

    Raises:
        DiskFull: no space left. BadInput: the folder cannot be made.
    """
    found = annotated(duels, verdicts, ours=ours, theirs=theirs, annotator=annotator, dataset=dataset)
    files = {
        OUTPUTS: outputs(duels, ours, dataset, ours=True),
        REFERENCE: outputs(duels, theirs, dataset, ours=False),
        ANNOTATIONS: found,
    }
    for name, rows in files.items():
        write_json(folder / name, rows)
    return [folder / name for name in files]
