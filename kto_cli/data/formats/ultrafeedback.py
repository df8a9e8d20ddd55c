"""UltraFeedback: four models' answers to one instruction, rated by GPT-4 (arXiv 2310.01377).

It exists in two forms, which differ in their columns.

Original (https://huggingface.co/datasets/openbmb/UltraFeedback): a JSONL file for each origin of its prompts
(evol_instruct, false_qa, flan, sharegpt, truthful_qa, ultrachat); each is a subset. A line has an `instruction` and
`completions`, each with a `response`, an `overall_score` from 1 to 10, a `fine-grained_score` (the mean of the aspects)
and `annotations`: for each aspect a `Rating` from 1 to 5 as text, or "N/A". Each completion gives a scored row. As in
the binarized form, the prompt does not include the system prompts that the models were given.

    --score overall           the critic's overall score (default: the binarized form ranks by it)
    --score fine-grained      the mean of the four aspects; if the field is missing, of the ratings that are numbers
    --score helpfulness, honesty, instruction_following, truthfulness     the rating of that aspect

2,628 completions of the first release have 10 instead of 1 (github.com/OpenBMB/UltraFeedback/issues/8); the Hub's copy
is fixed since 2023-12-29. An older copy is read unchanged: prefer --score fine-grained. The TruthfulQA prompts are a
benchmark's; the binarized form drops them, and --subset can.

Binarized (https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized): Parquet with `chosen` and `rejected`
as chats, `score_chosen` and `score_rejected`; each row gives a pair. In a folder only train_prefs and test_prefs are
read (the sft and gen files repeat their rows); test_prefs is for validation.

Dropped: no_score (missing or "N/A"); tie (both answers of a pair have the same score: the rejected one is picked at
random from the others, and may be as good).
Rejected: not_json, not_an_object; missing_field, not_text, bad_text, not_messages; empty_prompt, empty_answer,
empty_turn; score_not_accepted (not a number, or off its scale); role_not_accepted, roles_do_not_alternate,
prompts_differ, answer_not_one_turn, scores_contradict (the rejected answer has the higher score), answers_identical.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadFlag
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.chats import whole_chat
from kto_cli.data.formats.counts import count
from kto_cli.data.formats.labels import is_missing
from kto_cli.data.formats.records import Dropped, Pair, Reject, Result, RowFault, Scored, root
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("openbmb/UltraFeedback", "HuggingFaceH4/ultrafeedback_binarized")

PATTERNS = ("*.jsonl*", "*_prefs*.parquet")
ORIGINAL = ("instruction", "completions")
BINARIZED = ("chosen", "rejected")
ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
SCORES = ("overall", "fine-grained", *ASPECTS)
SYSTEM_LEFT_OUT = "prompts whose answers were given under system prompts (custom_system_prompt), which are left out"
COMPLETIONS = 4
"""Answers per line of the original: the rows that a line which cannot be parsed counts as."""


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The file itself, or a folder's files by the origin of their prompts.

    Raises:
        BadInput: nothing is there, or a subset is not.
    """
    if path.is_file():
        return listing.one_file(path, subsets)
    found = listing.files_below(path, PATTERNS, "ultrafeedback")
    binarized = [file for file in found if "_prefs" in file.name]
    if binarized:
        if subsets:
            raise BadFlag("--subset goes with the original ultrafeedback only.", "Remove it.")
        return listing.in_folder(path, binarized, lambda below: "")
    files = [RawFile(file, file.relative_to(path).as_posix(), file.name.split(".")[0]) for file in found]
    return listing.of_subsets(files, subsets, path)


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file of neither form, and flags that do not apply to it.

    Raises:
        BadInput: columns are missing, --score is unknown, or --score or --text with the binarized form.
    """
    if config.score is not None and config.score not in SCORES:
        raise BadFlag(f"--score {config.score} is not a score of ultrafeedback.", f"Use one of {', '.join(SCORES)}.")
    if all(column in columns for column in BINARIZED):
        for flag, given in (("--score", config.score), ("--text", config.text)):
            if given:
                raise BadFlag(f"{flag} does not apply to the binarized ultrafeedback.", "Remove it.")
        return []
    step = "Give a file of openbmb/UltraFeedback or of HuggingFaceH4/ultrafeedback_binarized."
    fields.need_columns(raw_file.name, columns, ORIGINAL, "ultrafeedback", step)
    return [f"Using the scores {config.score or SCORES[0]}."]


def on_scale(value: Any, what: str, top: float) -> float | None:
    """Score from 0 to `top`; None if it is missing. The judge is asked for at least 1, and sometimes gives 0.

    Raises:
        RowFault: `score_not_accepted`.
    """
    if is_missing(value):
        return None
    found = fields.number(value)
    if found is None or not 0 <= found <= top:
        raise RowFault("score_not_accepted", f"{what} is not a number from 0 to {top:g}")
    return found


def rating(completion: dict[str, Any], aspect: str) -> float | None:
    """Rating of one aspect; None if it is missing.

    Raises:
        RowFault: `score_not_accepted`.
    """
    annotations = completion.get("annotations")
    entry = annotations.get(aspect) if isinstance(annotations, dict) else None
    return on_scale(entry.get("Rating") if isinstance(entry, dict) else None, f"the rating of {aspect}", 5)


def score(completion: dict[str, Any], which: str) -> float | None:
    """Score `which` of a completion; None if it is missing.

    Raises:
        RowFault: `score_not_accepted`.
    """
    if which == "overall":
        return on_scale(completion.get("overall_score"), "overall_score", 10)
    if which != "fine-grained":
        return rating(completion, which)
    given = on_scale(completion.get("fine-grained_score"), "fine-grained_score", 5)
    if given is not None:
        return given
    ratings = [found for aspect in ASPECTS if (found := rating(completion, aspect)) is not None]
    return sum(ratings) / len(ratings) if ratings else None


def scored_rows(record: Record, config: BinarizeConfig) -> Iterator[Result]:
    """Scored rows of one line of the original, or the reason to reject or drop each; RowFault for the whole line."""
    values = record.values or {}
    completions = values.get("completions")
    if completions in ([], ()):
        return
    instruction = fields.text_field(values, "instruction", "empty_prompt")
    if not isinstance(completions, (list, tuple)):
        raise RowFault("missing_field", "completions is not a list")
    which = config.score or SCORES[0]
    prompt = fields.as_prompt(instruction, config.text)
    for index, completion in enumerate(completions, start=1):
        origin = f"{record.origin} completion {index}"
        try:
            if not isinstance(completion, dict):
                raise RowFault("not_an_object", "the completion is not an object")
            response = fields.text_field(completion, "response", "empty_answer")
            found = score(completion, which)
            if completion.get("custom_system_prompt"):
                count(SYSTEM_LEFT_OUT)
        except RowFault as fault:
            yield Reject(origin, fault.reason, fault.detail, 1, fields.json_text(completion))
            continue
        if found is None:
            yield Dropped(origin, "no_score", f"no {which} score", 1)
            continue
        yield Scored(prompt, fields.as_answer(response, config.text), found, origin, root(prompt))


def read_pair(record: Record, raw_file: RawFile) -> Pair | Dropped:
    """Pair of one row of the binarized form, or the reason to drop it.

    Raises:
        RowFault: reasons in the module's docstring.
    """
    values = record.values or {}
    sides = [fields.chat_turns(fields.needed(values, name), name) for name in BINARIZED]
    (prompt, best), (again, worst) = (whole_chat(side, name) for side, name in zip(sides, BINARIZED, strict=True))
    if prompt != again:
        raise RowFault("prompts_differ", "chosen and rejected are not equal before the answer")
    found = fields.pair(prompt, (best,), (worst,), record.origin, None, raw_file.split)
    of_best, of_worst = (on_scale(values.get(name), name, 10) for name in ("score_chosen", "score_rejected"))
    if of_best is not None and of_worst is not None:
        if of_best == of_worst:
            return Dropped(record.origin, "tie", f"both answers have the score {of_best:g}", 2)
        if of_best < of_worst:
            raise RowFault("scores_contradict", f"chosen has the score {of_best:g}, rejected {of_worst:g}")
    return found


def is_original(values: dict[str, Any]) -> bool:
    """Whether a record has the original form."""
    return "completions" in values or "chosen" not in values


def rows(record: Record, raw_file: RawFile, config: BinarizeConfig) -> int:
    """Completions of a record in the original form, 2 in the binarized form."""
    if record.values is None:
        return 2 if "_prefs" in raw_file.name else COMPLETIONS
    if not is_original(record.values):
        return 2
    completions = record.values.get("completions")
    return len(completions) if isinstance(completions, (list, tuple)) else COMPLETIONS


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterable[Result]:
    """Scored rows of one line of the original, or the pair of one row of the binarized form."""
    return scored_rows(record, config) if is_original(record.values or {}) else [read_pair(record, raw_file)]


SOURCE = Source(
    name="ultrafeedback",
    about="UltraFeedback: answers of four models, scored by GPT-4; or its binarized form",
    gives="scores (binarized form: pairs)",
    read=read,
    rows=rows,
    hub_id=HUB_IDS[0],
    other_hub_ids=HUB_IDS[1:],
    threshold="prompt-mean",
    licence="MIT",
    patterns=PATTERNS,
    options=("--score", "--threshold", "--margin", "--subset", "--text"),
    wanted=(*ORIGINAL, *BINARIZED, "score_chosen", "score_rejected"),
    raw_files=raw_files,
    check=check,
    example=(
        '{"instruction": "Name a prime number.", "completions": [{"model": "model-a", "response": "Seven.", '
        '"overall_score": 9.0, "fine-grained_score": 4.75, "annotations": {"helpfulness": {"Rating": "5"}}}, '
        '{"model": "model-b", "response": "Nine.", "overall_score": 2.0, "fine-grained_score": 1.5, "annotations": '
        '{"helpfulness": {"Rating": "N/A"}}}]}',
    ),
)
