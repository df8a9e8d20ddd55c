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
from kto_cli.data.texts import Text, turn_text
from kto_cli.evaluation.judge.comparisons import Comparison, Verdicts

OUTPUTS, REFERENCE, ANNOTATIONS = "model_outputs.json", "reference_outputs.json", "annotations.json"


def instruction(prompt: Text) -> str:
    """A prompt as AlpacaEval's one text: a chat of one user turn is that turn; of others the turns are told apart as in
    hh-rlhf."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return turn_text(prompt[0])
    names = {"user": "Human: ", "assistant": "Assistant: "}
    return "\n\n".join(names.get(turn["role"], "") + turn_text(turn) for turn in prompt)


def preference(verdicts: Verdicts) -> float | None:
    """1 (baseline), 1.5 (tie) or 2 (model), by both orders together; None where one is unreadable."""
    first, second = verdicts.scores
    if first is None or second is None:
        return None
    total = first + second
    return 2.0 if total > 1 else 1.0 if total < 1 else 1.5


def outputs(comparisons: Sequence[Comparison], generator: str, dataset: str, *, model: bool) -> list[dict[str, Any]]:
    """One side's answers."""
    return [
        {
            "dataset": dataset,
            "instruction": instruction(comparison.prompt),
            "output": comparison.model if model else comparison.baseline,
            "generator": generator,
        }
        for comparison in comparisons
    ]


def annotated(
    comparisons: Sequence[Comparison],
    verdicts: Sequence[Verdicts],
    *,
    model: str,
    baseline: str,
    annotator: str,
    dataset: str,
) -> list[dict[str, Any]]:
    """One object a comparison."""
    return [
        {
            "dataset": dataset,
            "instruction": instruction(comparison.prompt),
            "output_1": comparison.baseline,
            "generator_1": baseline,
            "output_2": comparison.model,
            "generator_2": model,
            "annotator": annotator,
            "preference": preference(verdict),
        }
        for comparison, verdict in zip(comparisons, verdicts, strict=True)
    ]


def export(
    folder: Path,
    comparisons: Sequence[Comparison],
    verdicts: Sequence[Verdicts],
    *,
    model: str,
    baseline: str,
    annotator: str,
    dataset: str = "validation",
) -> list[Path]:
    """Writes the three files into `folder`, each atomically; `model`, `baseline` and `annotator` are names.

    Raises:
        DiskFull: no space left. BadInput: the folder cannot be made.
    """
    found = annotated(comparisons, verdicts, model=model, baseline=baseline, annotator=annotator, dataset=dataset)
    files = {
        OUTPUTS: outputs(comparisons, model, dataset, model=True),
        REFERENCE: outputs(comparisons, baseline, dataset, model=False),
        ANNOTATIONS: found,
    }
    for name, rows in files.items():
        write_json(folder / name, rows)
    return [folder / name for name in files]
