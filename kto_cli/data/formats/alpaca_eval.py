"""AlpacaEval annotations: two models' outputs to one instruction and which of them a judge preferred.

Format (https://github.com/tatsu-lab/alpaca_eval, results/MODEL/ANNOTATOR/annotations.json; older ones on the Hub,
tatsu-lab/alpaca_eval): one JSON array of `instruction`, `output_1`, `output_2`, `preference`. AlpacaFarm's also have
`input`, which follows the instruction after an empty line. `preference` is 1 or 2, the better output; newer judges give
a number from 1 to 2, which prefers the output it is nearer to. 1.5 and, in older files, 0 is a tie (metrics/helpers.py
there); null means that the judge's answer could not be parsed.

Each annotation gives a pair; the subset is the judge (the folder of the file, else its name). Only annotations.json is
read: it holds the outputs too, and model_outputs.json has no preferences. Judges may contradict each other on the same
outputs; --subset chooses one. There is no official split. A model trained on AlpacaEval's instructions can no longer be
tested with AlpacaEval.

Dropped: no_preference (null); tie (1.5 or 0); undecided (--margin: nearer to 1.5 than that; default 0).
Rejected: not_json, not_an_object; missing_field, not_text, bad_text; empty_prompt, empty_answer;
preference_not_accepted (neither 0 nor from 1 to 2); answers_identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.labels import is_blank, is_missing
from kto_cli.data.formats.records import Dropped, Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("tatsu-lab/alpaca_eval",)
PATTERNS = ("*annotations*.json*",)
NEEDED = ("instruction", "output_1", "output_2", "preference")
OUTPUTS_ALONE = "Give the annotations.json of a judge (alpaca_eval writes it beside the leaderboard)."


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The file itself, or the annotations below a folder.

    Raises:
        BadInput: there is nothing, there are only model outputs, or a subset is not there.
    """
    if path.is_file():
        return listing.one_file(path, subsets)
    if path.is_dir():
        outputs = sorted(file for file in path.rglob("*outputs*.json*") if file.is_file())
        annotated = any(fnmatch(file.name, pattern) for file in path.rglob("*") for pattern in PATTERNS)
        if outputs and not annotated:
            raise BadInput(f"{path} has model outputs ({outputs[0].name}) but no judge's preferences.", OUTPUTS_ALONE)
    files = [
        RawFile(file, file.relative_to(path).as_posix(), judge(file.relative_to(path)))
        for file in listing.files_below(path, PATTERNS, "alpaca-eval")
    ]
    return listing.of_subsets(files, subsets, path)


def judge(below: Path) -> str:
    """Name of the judge: the file's folder, else the file's name."""
    return below.parent.name or below.name.split(".")[0]


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects model outputs without preferences, and other files.

    Raises:
        BadInput: columns are missing.
    """
    if "output" in columns and "preference" not in columns:
        raise BadInput(f"{raw_file.name} has the outputs of one model but no preferences.", OUTPUTS_ALONE)
    fields.need_columns(raw_file.name, columns, NEEDED, "alpaca-eval", OUTPUTS_ALONE)
    return []


def preference(record: Record, margin: float) -> float | Dropped:
    """Preference from 1 to 2, or the reason to drop the pair.

    Raises:
        RowFault: `preference_not_accepted`.
    """
    value = (record.values or {}).get("preference")
    if is_missing(value):
        return Dropped(record.origin, "no_preference", "the judge's answer could not be parsed", 2)
    found = fields.number(value)
    if found is None or not (found == 0 or 1 <= found <= 2):
        raise RowFault("preference_not_accepted", "preference is neither 0 (a tie) nor a number from 1 to 2")
    if found in (0, 1.5):
        return Dropped(record.origin, "tie", "the judge sees a tie", 2)
    if abs(found - 1.5) < margin:
        return Dropped(record.origin, "undecided", f"preference {found:g} is within {margin:g} of 1.5", 2)
    return found


def instruction(values: dict[str, Any]) -> str:
    """Prompt of an annotation: its instruction, followed by its input if it has one.

    Raises:
        RowFault: see `fields.text_field`.
    """
    text = fields.text_field(values, "instruction", "empty_prompt")
    if is_blank(values.get("input")):
        return text
    return f"{text}\n\n{fields.text_field(values, 'input', 'empty_prompt')}"


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Pair of one annotation, or the reason to drop it.

    Raises:
        RowFault: reasons in the module's docstring.
    """
    values = record.values or {}
    prompt = fields.as_prompt(instruction(values), config.text)
    outputs = [fields.text_field(values, name, "empty_answer") for name in ("output_1", "output_2")]
    found = preference(record, config.margin)
    if isinstance(found, Dropped):
        return [found]
    chosen, other = (fields.as_answer(text, config.text) for text in (outputs if found < 1.5 else outputs[::-1]))
    return [fields.pair(prompt, chosen, other, record.origin, None, None)]


SOURCE = Source(
    name="alpaca-eval",
    about="AlpacaEval and AlpacaFarm annotations: which of two models' outputs a judge preferred",
    gives="pairs",
    read=read,
    rows=2,
    hub_id=HUB_IDS[0],
    licence="CC-BY-NC-4.0",
    patterns=PATTERNS,
    options=("--margin", "--subset", "--text"),
    wanted=(*NEEDED, "input"),
    raw_files=raw_files,
    check=check,
    example=(
        '[{"instruction": "Name a prime number.", "output_1": "Seven.", "output_2": "Nine.", "generator_1": "model-a", '
        '"generator_2": "model-b", "preference": 1.08}]',
    ),
)
