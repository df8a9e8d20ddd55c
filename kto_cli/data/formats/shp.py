"""Stanford Human Preferences (SHP, SHP-2): a post and two comments on it, one of which got the higher score.

Form (https://huggingface.co/datasets/stanfordnlp/SHP): a folder for each subreddit (SHP-2: reddit/NAME and
stackexchange/NAME) with train.json, validation.json and test.json, each JSON lines: `history` (the post),
`human_ref_A` and `human_ref_B` (the comments), `labels` (1: A is preferred, 0: B), `score_A`, `score_B`,
`score_ratio`, `post_id`, `domain` (subreddit and split, as askhr_train).

A pair of rows each. The prompt is the post, the group its id. The authors split by posts; `validation` and `test` are
both for validation. Where a file's name tells no split, the row's `domain` does. Texts stay as they are, HTML
entities of Reddit included. A comment may win one pair and lose another: rows of one text in both classes, which the
doctor finds as contradictions.

Defaults, both from the KTO authors' code (github.com/ContextualAI/HALOs, dataloader.py, `get_shp`), which has them from
the SteamSHP model cards, and both for pairs to learn from alone, as there:

    --min-ratio 2    MIN_RATIO: the preferred comment has at least twice the other's score; 1 keeps all
    --max-pairs 5    MAX_PAIRS: of a post with more, a random sample; applied when all pairs are known

Left out: ratio_below; tie (equal scores).
Rejected: not_json, not_an_object; missing_field, not_text, bad_text; empty_prompt, empty_answer; label_not_accepted;
score_not_accepted (a score that is no number, or no ratio can be told); label_contradicts_scores (SHP derives the
label from the scores, so one of the two is damaged); answers_identical.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.records import VALIDATION, Dropped, Pair, Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("stanfordnlp/SHP", "stanfordnlp/SHP-2")
PATTERNS = ("*train.json*", "*validation.json*", "*test.json*", "*.parquet")
NEEDED = ("history", "human_ref_A", "human_ref_B", "labels")
MIN_RATIO = 2.0
MAX_PAIRS = 5


def raw_files(place: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The files of a folder by subreddit, or the one file.

    Raises:
        BadInput: nothing is there, or a subset is not.
    """
    if place.is_file():
        return listing.one_file(place, subsets)
    paths = listing.files_below(place, PATTERNS, "shp")
    return listing.of_subsets(listing.in_folder(place, paths, lambda below: below.parent.name), subsets, place)


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Refuses a file that is not SHP; says what ratio is asked for.

    Raises:
        BadInput: columns are missing.
    """
    step = "Pairs in other columns: see kto binarize --list."
    fields.need_columns(raw_file.name, columns, NEEDED, "shp", step)
    if config.min_ratio is not None:
        return []
    return [f"Pairs to learn from whose scores have a ratio under {MIN_RATIO:g} are left out (--min-ratio, default)."]


def split_of(values: dict[str, Any], raw_file: RawFile) -> str | None:
    """Held out by the file's place, else by the row's `domain` where the file's name tells no split."""
    if raw_file.split or listing.split_name(raw_file.name):
        return raw_file.split
    domain = values.get("domain")
    validation = isinstance(domain, str) and domain.endswith(("_validation", "_test"))
    return VALIDATION if validation else None


def score(values: dict[str, Any], name: str) -> float | None:
    """A score, if it is there.

    Raises:
        RowFault: `score_not_accepted`.
    """
    if fields.is_absent(values.get(name)):
        return None
    value = fields.number(values[name])
    if value is None:
        raise RowFault("score_not_accepted", f"{name} is no number")
    return value


def a_is_preferred(values: dict[str, Any]) -> bool:
    """The label.

    Raises:
        RowFault: `missing_field`, or `label_not_accepted` for all but 1 and 0.
    """
    if fields.is_absent(values.get("labels")):
        raise RowFault("missing_field", f"no 'labels'; found {fields.spell_names(values)}")
    label = fields.number(values["labels"])
    if label not in (0, 1):
        raise RowFault("label_not_accepted", "labels is neither 1 (A is preferred) nor 0 (B is)")
    return label == 1


def ratio(values: dict[str, Any], preferred: bool) -> float:
    """The preferred comment's score over the other's; 1 for equal scores.

    From the scores, as in the authors' code, else as the field says.

    Raises:
        RowFault: `score_not_accepted` or `label_contradicts_scores`.
    """
    of_a, of_b = score(values, "score_A"), score(values, "score_B")
    if of_a is not None and of_b is not None:
        if of_a != of_b and (of_a > of_b) != preferred:
            detail = f"labels prefers {'A' if preferred else 'B'}, but the scores are {of_a:g} for A and {of_b:g} for B"
            raise RowFault("label_contradicts_scores", detail)
        if of_a == of_b:
            return 1.0
        if min(of_a, of_b) > 0:
            return max(of_a, of_b) / min(of_a, of_b)
    said = score(values, "score_ratio")
    if said is None or said < 1:
        raise RowFault("score_not_accepted", "no two scores above 0, nor a score_ratio of 1 or above")
    return said


def read_pair(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Pair | Dropped:
    """The pair of one line, or why it is left out.

    Raises:
        RowFault: reasons in the module's docstring.
    """
    values = record.values or {}
    post = fields.text_field(values, "history", "empty_prompt")
    comments = [fields.text_field(values, name, "empty_answer") for name in ("human_ref_A", "human_ref_B")]
    preferred = a_is_preferred(values)
    found = ratio(values, preferred)
    split = split_of(values, raw_file)
    least = MIN_RATIO if config.min_ratio is None else config.min_ratio
    if found == 1:
        return Dropped(record.origin, "tie", "both comments have the same score", 2)
    if found < least and split is None:
        return Dropped(record.origin, "ratio_below", f"the scores' ratio is {found:.4g}, below {least:g}", 2)
    chosen, other = (fields.as_answer(text, config.text) for text in (comments if preferred else comments[::-1]))
    post_id = values.get("post_id")
    group = post_id if isinstance(post_id, str) and post_id.strip() else None
    return fields.pair(fields.as_prompt(post, config.text), chosen, other, record.origin, group, split)


def parse(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """One line as a pair, or as why it is none (two rows)."""
    if record.values is None:
        yield fields.rejected(record, 2)
        return
    try:
        yield read_pair(record, raw_file, config)
    except RowFault as fault:
        yield fields.rejected(record, 2, fault)


SOURCE = Source(
    name="shp",
    about="Stanford Human Preferences: which of two comments on a Reddit post (SHP-2: or Stack Exchange) scored higher",
    gives="pairs",
    parse=parse,
    hub_id=HUB_IDS[0],
    other_hub_ids=HUB_IDS[1:],
    max_pairs=MAX_PAIRS,
    licence="Reddit's API terms; see the dataset card",
    patterns=PATTERNS,
    options=("--min-ratio", "--max-pairs", "--subset", "--text"),
    wanted=(*NEEDED, "score_A", "score_B", "score_ratio", "post_id", "domain"),
    raw_files=raw_files,
    check=check,
    example=(
        '{"post_id": "p1", "domain": "askbaking_train", "history": "Why does my bread not rise?", "human_ref_A": '
        '"Check the date on your yeast.", "human_ref_B": "No idea.", "labels": 1, "score_A": 12, "score_B": 3}',
    ),
)
