"""OpenAssistant Conversations (oasst1, oasst2): trees of messages whose assistant replies were ranked by volunteers.

Format: `oasst_trees.py`; data: https://huggingface.co/datasets/OpenAssistant/oasst1, arXiv 2304.07327. On the Hub the
Parquet files are read; they hold the finished trees and the official split. `validation`, on which the KTO authors'
code evaluates, is for validation here, by trees. In a folder the Parquet files are read too; without them it must hold
one JSONL file, because the other files repeat its trees.

Each prompt with two or more ranked replies gives a ranked list. The prompt is the whole thread from the first message,
the group is the tree, and rank 0 is best. Ranks may have gaps; of replies with the same rank the first by message id is
kept. --ranked turns a list into labels: by default the best and the worst, so that no answer is in both classes (the
KTO authors' code takes all adjacent pairs, which puts every middle answer in both).

    --subset en         languages to read, of the first message; default: all (the KTO authors' code: en)
    --score thumbs      scored rows instead of ranks: thumbs up minus thumbs down, for replies that have any

Every message that is not a prompter's counts as a row. Dropped: other_language; tree_not_ready (a `tree_state` other
than ready_for_export, as in the authors' own loader); deleted, failed_review (the message or an earlier one in its
thread); only_reply; unranked; tied_rank; only_ranked_reply; no_thumbs.
Rejected: not_json, not_an_object; missing_field, not_text, bad_text; empty_answer, empty_turn; role_not_accepted,
roles_do_not_alternate; parent_missing (its thread does not reach a first message); rank_not_accepted;
answers_identical (one text at several ranks); repeated_id (every message of an id but the first). Replies after a
faulty message have its fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.labels import is_missing
from kto_cli.data.formats.oasst_trees import (
    MESSAGE_COLUMNS,
    ROLES,
    WHOLE_TREE,
    Exclusion,
    Node,
    exclusions,
    id_of,
    nodes,
    records,
    tree_exclusion,
)
from kto_cli.data.formats.records import Dropped, Message, Ranked, Reject, Result, RowFault, Scored, message
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("OpenAssistant/oasst1", "OpenAssistant/oasst2")
PATTERNS = ("*train-*.parquet", "*validation-*.parquet")
LOCAL_PATTERNS = ("*.parquet", "*.jsonl", "*.jsonl.gz")
SCORES = ("ranks", "thumbs")


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The file itself, a folder's Parquet files, or its one JSONL file. Languages are chosen by tree, not by file.

    Raises:
        BadInput: nothing is there, or several JSONL files.
    """
    if path.is_file():
        return [RawFile(path, path.name)]
    found = listing.files_below(path, LOCAL_PATTERNS, "oasst")
    tables = [file for file in found if file.suffix == ".parquet"]
    files = tables or found
    if not tables and len(files) > 1 and not all(listing.split_name(file.name) for file in files):
        names = ", ".join(file.relative_to(path).as_posix() for file in files[:6])
        raise BadInput(f"{path} has several JSONL files, which may repeat the same trees: {names}.", "Name one.")
    return listing.in_folder(path, files, lambda below: "")


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file without messages, and flags that do not apply to it.

    Raises:
        BadInput: columns are missing, --score is unknown, or --text is given.
    """
    if config.text:
        raise BadFlag("--text does not apply to oasst, which has chats only.", "Remove it.")
    if config.score is not None and config.score not in SCORES:
        raise BadFlag(f"--score {config.score} is not a score of oasst.", f"Use one of {', '.join(SCORES)}.")
    if not any(column in columns for column in WHOLE_TREE):
        step = "Give message trees (.jsonl), or the messages table of the Hub (.parquet)."
        fields.need_columns(raw_file.name, columns, ("message_id", "parent_id", "text", "role"), "oasst", step)
    if config.score == "thumbs":
        return []
    return [f"Labels from ranks: --ranked {config.ranked}{' --both-labels' if config.both_labels else ''}."]


def excluded(node: Node, exclusion: Exclusion) -> Result:
    """Reject or dropped row for a message that cannot be used."""
    if not exclusion.is_fault:
        return Dropped(node.origin, exclusion.reason, exclusion.detail, 1)
    raw = {name: value for name, value in node.values.items() if name not in ("replies", "origin")}
    return Reject(node.origin, exclusion.reason, exclusion.detail, 1, fields.json_text(raw))


def thread(tree: list[Node], index: int | None) -> tuple[Message, ...]:
    """Chat turns from the first message to message `index` of the tree."""
    turns: list[Message] = []
    while index is not None:
        node = tree[index]
        turns.append(message(ROLES[node.values["role"]], node.values["text"]))
        index = node.parent
    return tuple(reversed(turns))


def rank_of(node: Node) -> int | None:
    """Rank of a reply, 0 for the best; None if it has none.

    Raises:
        RowFault: `rank_not_accepted`.
    """
    value = node.values.get("rank")
    if is_missing(value):
        return None
    found = None if isinstance(value, str) else fields.number(value)
    if found is None or found < 0 or found != int(found):
        raise RowFault("rank_not_accepted", "the rank is not a whole number of at least 0")
    return int(found)


def in_order(replies: list[Node]) -> tuple[list[Node], list[tuple[Node, Exclusion]]]:
    """(ranked replies, best first; the other replies with their reasons) of two or more valid replies to one prompt."""
    others: list[tuple[Node, Exclusion]] = []
    ranked: list[tuple[int, Node]] = []
    copies = Counter(node.values["text"].strip() for node in replies if not is_missing(node.values.get("rank")))
    for node in replies:
        try:
            rank = rank_of(node)
        except RowFault as fault:
            others.append((node, Exclusion(fault.reason, fault.detail, True)))
            continue
        if rank is None:
            others.append((node, Exclusion("unranked", "it has no rank among the replies to its prompt", False)))
        elif copies[node.values["text"].strip()] > 1:
            others.append((node, Exclusion("answers_identical", "another ranked reply has the same text", True)))
        else:
            ranked.append((rank, node))
    ranked.sort(key=lambda pair: (pair[0], id_of(pair[1].values, "message_id") or ""))
    kept: list[tuple[int, Node]] = []
    for rank, node in ranked:
        if kept and kept[-1][0] == rank:
            others.append((node, Exclusion("tied_rank", f"another reply to its prompt has rank {rank} too", False)))
        else:
            kept.append((rank, node))
    if len(kept) == 1:
        others.append((kept.pop()[1], Exclusion("only_ranked_reply", "no other reply can be compared with it", False)))
    return [node for _, node in kept], others


def thumbs(values: dict[str, Any]) -> int | None:
    """Thumbs up minus thumbs down; None if there are none.

    They are counts by name (JSON), two lists (the Hub's Parquet), or a list of objects (newer versions of `datasets`).
    """
    emojis = values.get("emojis")
    if isinstance(emojis, list):
        entries = [entry for entry in emojis if isinstance(entry, dict)]
        emojis = {"name": [entry.get("name") for entry in entries], "count": [entry.get("count") for entry in entries]}
    if not isinstance(emojis, dict):
        return None
    names, counts = emojis.get("name"), emojis.get("count")
    if isinstance(names, list) and isinstance(counts, list):
        emojis = {name: count for name, count in zip(names, counts, strict=False) if isinstance(name, str)}
    found = [
        sign * emojis[name]
        for name, sign in (("+1", 1), ("-1", -1))
        if isinstance(emojis.get(name), int) and not isinstance(emojis[name], bool)
    ]
    return sum(found) if found else None


def compared(
    tree: list[Node], replies: list[Node], group: str, split: str | None, score: str | None
) -> Iterator[Result]:
    """Results of the valid replies to one prompt."""

    def answer(node: Node) -> tuple[Message, ...]:
        return (message("assistant", node.values["text"]),)

    if score != "thumbs" and len(replies) == 1:
        yield Dropped(replies[0].origin, "only_reply", "it is the only usable reply to its prompt", 1)
        return
    # built only now: in a long thread of single replies, building every prompt would take quadratic time
    prompt = thread(tree, replies[0].parent)
    if score == "thumbs":
        for node in replies:
            found = thumbs(node.values)
            if found is None:
                yield Dropped(node.origin, "no_thumbs", "it has no thumbs up or down", 1)
            else:
                yield Scored(prompt, answer(node), float(found), node.origin, group, split)
        return
    ranked, others = in_order(replies)
    if ranked:
        origins = tuple(node.origin for node in ranked)
        yield Ranked(prompt, tuple(answer(node) for node in ranked), origins, group, split)
    for node, exclusion in others:
        yield excluded(node, exclusion)


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """Ranked lists (or scored rows) of one tree, and every other reply with its reason."""
    tree = nodes(record)
    if not tree:
        return
    found = exclusions(tree, tree_exclusion(record, tree, config.subsets))
    group = id_of(record.values or {}, "message_tree_id") or id_of(tree[0].values, "message_id") or record.origin
    replies: dict[int | None, list[Node]] = {}
    for node, exclusion in zip(tree, found, strict=True):
        if node.values.get("role") == "prompter":
            continue
        if exclusion:
            yield excluded(node, exclusion)
        else:
            replies.setdefault(node.parent, []).append(node)
    for siblings in replies.values():
        yield from compared(tree, siblings, group, raw_file.split, config.score)


SOURCE = Source(
    name="oasst",
    about="OpenAssistant Conversations 1 and 2: replies to one prompt, ranked by volunteers, in 35 languages",
    gives="ranked answers (--score thumbs: scores)",
    read=read,
    hub_id=HUB_IDS[0],
    other_hub_ids=HUB_IDS[1:],
    has_texts=False,
    licence="Apache-2.0",
    patterns=PATTERNS,
    subsets_are_files=False,
    options=("--subset", "--ranked", "--both-labels", "--score", "--threshold", "--margin"),
    wanted=(*MESSAGE_COLUMNS, *WHOLE_TREE),
    raw_files=raw_files,
    records=records,
    check=check,
    example=(
        '{"message_tree_id": "t1", "tree_state": "ready_for_export", "prompt": {"message_id": "t1", "text": "Name a '
        'prime number.", "role": "prompter", "lang": "en", "replies": [{"message_id": "a1", "text": "Seven.", "role": '
        '"assistant", "lang": "en", "rank": 0, "replies": []}, {"message_id": "a2", "text": "Nine.", "role": '
        '"assistant", "lang": "en", "rank": 1, "replies": []}]}}',
    ),
)
