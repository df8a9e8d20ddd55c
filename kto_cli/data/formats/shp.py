"""Stanford Human Preferences (SHP, SHP-2): a post and two comments on it, one of which got the higher score.

Format (https://huggingface.co/datasets/stanfordnlp/SHP): a folder for each subreddit (SHP-2: reddit/NAME and
stackexchange/NAME) with train.json, validation.json and test.json, each JSON lines: `history` (the post),
`human_ref_A` and `human_ref_B` (the comments), `labels` (1: A is preferred, 0: B), `score_A`, `score_B`,
`score_ratio`, `post_id`, `domain` (subreddit and split, as askhr_train).

Each line gives a pair. The prompt is the post, the group its id. The authors split by posts; both `validation` and
`test` are for validation. If a file's name has no split, the row's `domain` decides. Texts are unchanged, including
Reddit's HTML entities. A comment may win one pair and lose another; such rows are reported as contradictions.

Defaults, from the KTO authors' code (github.com/ContextualAI/HALOs, dataloader.py, `get_shp`), which takes them from
the SteamSHP model cards. As there, they apply to training pairs only:

    --min-ratio 2    MIN_RATIO: the preferred comment has at least twice the other's score; 1 keeps all
    --max-pairs 5    MAX_PAIRS: a random sample of the pairs of one post

Dropped: ratio_below; tie (equal scores).
Rejected: not_json, not_an_object; missing_field, not_text, bad_text; empty_prompt, empty_answer; label_not_accepted;
score_not_accepted (a score is not a number, or there is no ratio); label_contradicts_scores (SHP derives the label
from the scores, so one of the two is damaged); answers_identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.labels import is_missing
from kto_cli.data.formats.records import VALIDATION, Dropped, Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("stanfordnlp/SHP", "stanfordnlp/SHP-2")
PATTERNS = ("*train.json*", "*validation.json*", "*test.json*", "*.parquet")
NEEDED = ("history", "human_ref_A", "human_ref_B", "labels")
MIN_RATIO = 2.0
MAX_PAIRS = 5


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The file itself, or a folder's files by subreddit.

    Raises:
        BadInput: nothing is there, or a subset is not.
    """
    return listing.by_folder(path, PATTERNS, "shp", subsets, lambda below: below.parent.name)


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file that is not SHP; a note reports the default ratio.

    Raises:
        BadInput: columns are missing.
    """
    step = "Pairs in other columns: see kto binarize --list."
    fields.need_columns(raw_file.name, columns, NEEDED, "shp", step)
    if config.min_ratio is not None:
        return []
    return [f"Training pairs with a score ratio below {MIN_RATIO:g} are dropped (default of --min-ratio)."]


def split_of(values: dict[str, Any], raw_file: RawFile) -> str | None:
    """VALIDATION by the file's name, or by the row's `domain` if the file's name has no split."""
    if raw_file.split or listing.split_name(raw_file.name):
        return raw_file.split
    domain = values.get("domain")
    validation = isinstance(domain, str) and domain.endswith(("_validation", "_test"))
    return VALIDATION if validation else None


def score(values: dict[str, Any], name: str) -> float | None:
    """Score in field `name`; None if it is missing.

    Raises:
        RowFault: `score_not_accepted`.
    """
    if is_missing(values.get(name)):
        return None
    value = fields.number(values[name])
    if value is None:
        raise RowFault("score_not_accepted", f"{name} is not a number")
    return value


def a_is_preferred(values: dict[str, Any]) -> bool:
    """Whether the label prefers comment A.

    Raises:
        RowFault: `missing_field`, or `label_not_accepted` for anything but 1 and 0.
    """
    if is_missing(values.get("labels")):
        raise RowFault("missing_field", "no 'labels'")
    label = fields.number(values["labels"])
    if label not in (0, 1):
        raise RowFault("label_not_accepted", "labels is neither 1 (A is preferred) nor 0 (B is)")
    return label == 1


def ratio(values: dict[str, Any], preferred: bool) -> float:
    """Score ratio, preferred comment over the other; 1 for equal scores.

    From the two scores, as in the authors' code; without them from the field `score_ratio`.

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
    given = score(values, "score_ratio")
    if given is None or given < 1:
        raise RowFault("score_not_accepted", "no two scores above 0, nor a score_ratio of 1 or above")
    return given


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Pair of one line, or the reason to drop it.

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
        return [Dropped(record.origin, "tie", "both comments have the same score", 2)]
    if found < least and split is None:
        return [Dropped(record.origin, "ratio_below", f"the score ratio is {found:.4g}, below {least:g}", 2)]
    chosen, other = (fields.as_answer(text, config.text) for text in (comments if preferred else comments[::-1]))
    post_id = values.get("post_id")
    group = post_id if isinstance(post_id, str) and post_id.strip() else None
    return [fields.pair(fields.as_prompt(post, config.text), chosen, other, record.origin, group, split)]


SOURCE = Source(
    name="shp",
    about="Stanford Human Preferences: which of two comments on a Reddit post (SHP-2: or Stack Exchange) scored higher",
    gives="pairs",
    read=read,
    rows=2,
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
