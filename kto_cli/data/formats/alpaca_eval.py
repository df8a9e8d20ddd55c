"""AlpacaEval annotations: two models' outputs to one instruction and which of them a judge preferred.

Form (https://github.com/tatsu-lab/alpaca_eval, results/MODEL/ANNOTATOR/annotations.json; older ones on the Hub,
tatsu-lab/alpaca_eval): one JSON array of `instruction`, `output_1`, `output_2`, `preference`; AlpacaFarm's also have
`input`, which follows the instruction after an empty line. `preference` is 1 or 2, the better output; newer judges give
a number from 1 to 2, the output it is nearer to; 1.5 and, in older files, 0 is a draw (metrics/helpers.py there); null
is an answer of the judge that could not be read.

A pair of rows each; the subset is the judge (the folder of the file, else its name). model_outputs.json has no
preferences, and annotations.json holds the outputs too: only the latter is read. Judges may contradict each other on
the same outputs: --subset chooses one. There is no official split. What has learned from AlpacaEval's instructions
cannot be tested with AlpacaEval any more.

Left out: no_preference (null); tie (1.5 or 0); undecided (--margin: nearer to 1.5 than that; default 0).
Rejected: not_json, not_an_object; missing_field, not_text, bad_text; empty_prompt, empty_answer;
preference_not_accepted (neither 0 nor from 1 to 2); answers_identical.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.records import Dropped, Pair, Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("tatsu-lab/alpaca_eval",)
PATTERNS = ("*annotations*.json*",)
NEEDED = ("instruction", "output_1", "output_2", "preference")
OUTPUTS_ALONE = "Give the annotations.json of a judge (alpaca_eval writes it beside the leaderboard)."


def raw_files(place: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The annotations below a folder, or the one file.

    Raises:
        BadInput: nothing is there, outputs alone are, or a subset is not.
    """
    if place.is_file():
        return listing.one_file(place, subsets)
    if place.is_dir():
        outputs = sorted(path for path in place.rglob("*outputs*.json*") if path.is_file())
        annotated = any(fnmatch(path.name, pattern) for path in place.rglob("*") for pattern in PATTERNS)
        if outputs and not annotated:
            fault = f"{place} holds outputs of models ({outputs[0].name}) and no annotations, which say what is better."
            raise BadInput(fault, OUTPUTS_ALONE)
    paths = listing.files_below(place, PATTERNS, "alpaca-eval")
    files = [RawFile(path, path.relative_to(place).as_posix(), judge(path.relative_to(place))) for path in paths]
    return listing.of_subsets(files, subsets, place)


def judge(below: Path) -> str:
    """Who annotated: the file's folder, or its name where it lies in none."""
    return below.parent.name or below.name.split(".")[0]


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Refuses outputs without preferences and other files.

    Raises:
        BadInput: columns are missing.
    """
    if "output" in columns and "preference" not in columns:
        fault = f"{raw_file.name} holds outputs of one model and no preferences."
        raise BadInput(fault, OUTPUTS_ALONE)
    fields.need_columns(raw_file.name, columns, NEEDED, "alpaca-eval", OUTPUTS_ALONE)
    return []


def preference(record: Record, margin: float) -> float | Dropped:
    """The preference from 1 to 2, or why there is none.

    Raises:
        RowFault: `preference_not_accepted`.
    """
    value = (record.values or {}).get("preference")
    if fields.is_absent(value):
        return Dropped(record.origin, "no_preference", "the judge gave no preference that could be read", 2)
    found = fields.number(value)
    if found is None or not (found == 0 or 1 <= found <= 2):
        raise RowFault("preference_not_accepted", "preference is neither 0 (a draw) nor a number from 1 to 2")
    if found in (0, 1.5):
        return Dropped(record.origin, "tie", "the judge calls it a draw", 2)
    if abs(found - 1.5) < margin:
        return Dropped(record.origin, "undecided", f"preference {found:g} is nearer to 1.5 than {margin:g}", 2)
    return found


def instruction(values: dict[str, Any]) -> str:
    """The instruction, with its input if it has one.

    Raises:
        RowFault: see `fields.text_field`.
    """
    text = fields.text_field(values, "instruction", "empty_prompt")
    if fields.is_absent(values.get("input")):
        return text
    return f"{text}\n\n{fields.text_field(values, 'input', 'empty_prompt')}"


def read_pair(record: Record, config: BinarizeConfig) -> Pair | Dropped:
    """The pair of one annotation, or why it is left out.

    Raises:
        RowFault: reasons in the module's docstring.
    """
    values = record.values or {}
    prompt = fields.as_prompt(instruction(values), config.text)
    outputs = [fields.text_field(values, name, "empty_answer") for name in ("output_1", "output_2")]
    found = preference(record, config.margin)
    if isinstance(found, Dropped):
        return found
    chosen, other = (fields.as_answer(text, config.text) for text in (outputs if found < 1.5 else outputs[::-1]))
    return fields.pair(prompt, chosen, other, record.origin, None, None)


def parse(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """One annotation as a pair, or as why it is none (two rows)."""
    if record.values is None:
        yield fields.rejected(record, 2)
        return
    try:
        yield read_pair(record, config)
    except RowFault as fault:
        yield fields.rejected(record, 2, fault)


SOURCE = Source(
    name="alpaca-eval",
    about="AlpacaEval and AlpacaFarm annotations: which of two models' outputs a judge preferred",
    gives="pairs",
    parse=parse,
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
