"""OpenAssistant Conversations (oasst1, oasst2): trees of messages whose assistant replies people have ranked.

Form: `oasst_trees.py`; data: https://huggingface.co/datasets/OpenAssistant/oasst1, arXiv 2304.07327. On the Hub the
Parquet files are read, which hold the trees that are ready and the official split: `validation` is the authors' only
validation part (the KTO authors' code evaluates on it) and is for validation here, by trees. Of a folder the Parquet
files are read too; without them it must hold one JSONL file, because the others repeat its trees.

A ranked list for each prompt with two or more ranked replies. The prompt is the whole thread from the first message;
the group is the tree; rank 0 is best. Ranks with gaps keep their order; of replies with one rank the first by message
id is kept. Which labels a list gives is for --ranked to say: by default its best and its worst, so that no answer is in
both classes (the KTO authors' code takes all adjacent pairs, which puts every middle answer in both).

    --subset en         languages of the first message to read; none named means all (the KTO authors' code: en)
    --score thumbs      scored rows instead of ranks: thumbs up minus thumbs down, of every reply that has some

Every message that is not a prompter's is a row, in one result. Left out: other_language; tree_not_ready (a `tree_state`
other than ready_for_export, as the authors' own loader does); deleted, failed_review (it or a message before it in its
thread); only_reply; unranked; tied_rank; only_ranked_reply; no_thumbs.
Rejected: not_json, not_an_object; missing_field, not_text, bad_text; empty_answer, empty_turn; role_not_accepted,
roles_do_not_alternate; parent_missing (its thread does not reach a first message); rank_not_accepted;
answers_identical (one text at several ranks); repeated_id (all but the first message of an id). A fault of an earlier
message counts for the replies after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats import fields, listing
from kto_cli.data.formats.oasst_trees import (
    MESSAGE_COLUMNS,
    ROLES,
    WHOLE_TREE,
    Node,
    Verdict,
    id_of,
    nodes,
    records,
    tree_verdict,
    verdicts,
)
from kto_cli.data.formats.records import Dropped, Message, Ranked, Reject, Result, RowFault, Scored, message
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

HUB_IDS = ("OpenAssistant/oasst1", "OpenAssistant/oasst2")
PATTERNS = ("*train-*.parquet", "*validation-*.parquet")
LOCAL_PATTERNS = ("*.parquet", "*.jsonl", "*.jsonl.gz")
SCORES = ("ranks", "thumbs")


def raw_files(place: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The one file, a folder's Parquet files, or its one JSONL file. Languages are chosen by tree, not by file.

    Raises:
        BadInput: nothing is there, or several JSONL files.
    """
    if place.is_file():
        return [RawFile(place, place.name)]
    paths = listing.files_below(place, LOCAL_PATTERNS, "oasst")
    tables = [path for path in paths if path.suffix == ".parquet"]
    files = tables or paths
    if not tables and len(files) > 1 and not all(listing.split_name(path.name) for path in files):
        names = ", ".join(path.relative_to(place).as_posix() for path in files[:6])
        raise BadInput(f"{place} holds several JSONL files, which may repeat the same trees: {names}.", "Name one.")
    return listing.in_folder(place, files, lambda below: "")


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Refuses a file without messages, and flags that do not go with it.

    Raises:
        BadInput: columns are missing, --score is unknown, or --text is given.
    """
    if config.text:
        raise BadInput("--text does not go with oasst, which is chat.", "Leave it out.")
    if config.score is not None and config.score not in SCORES:
        raise BadInput(f"--score {config.score} is not possible.", f"Give one of {', '.join(SCORES)}.")
    if not any(column in columns for column in WHOLE_TREE):
        step = "Give message trees (.jsonl), or the messages table of the Hub (.parquet)."
        fields.need_columns(raw_file.name, columns, ("message_id", "parent_id", "text", "role"), "oasst", step)
    if config.score == "thumbs":
        return []
    return [f"Ranked answers: --ranked {config.ranked}{' --both-labels' if config.both_labels else ''}."]


def result(node: Node, verdict: Verdict) -> Result:
    """A message that cannot be used, as its reject or left-out row."""
    if not verdict.is_fault:
        return Dropped(node.origin, verdict.reason, verdict.detail, 1)
    raw = {name: value for name, value in node.values.items() if name not in ("replies", "origin")}
    return Reject(node.origin, verdict.reason, verdict.detail, 1, fields.json_text(raw))


def thread(tree: list[Node], place: int | None) -> tuple[Message, ...]:
    """The messages from the first one to the one at `place`, as chat turns."""
    turns: list[Message] = []
    while place is not None:
        node = tree[place]
        turns.append(message(ROLES[node.values["role"]], node.values["text"]))
        place = node.parent
    return tuple(reversed(turns))


def rank_of(node: Node) -> int | None:
    """The rank, if it has one; 0 is best.

    Raises:
        RowFault: `rank_not_accepted`.
    """
    value = node.values.get("rank")
    if fields.is_absent(value):
        return None
    found = None if isinstance(value, str) else fields.number(value)
    if found is None or found < 0 or found != int(found):
        raise RowFault("rank_not_accepted", "the rank is no whole number from 0")
    return int(found)


def in_order(replies: list[Node]) -> tuple[list[Node], list[tuple[Node, Verdict]]]:
    """(ranked replies from best to worst, the others and why) of two or more sound replies to one prompt."""
    others: list[tuple[Node, Verdict]] = []
    ranked: list[tuple[int, Node]] = []
    copies = Counter(node.values["text"].strip() for node in replies if not fields.is_absent(node.values.get("rank")))
    for node in replies:
        try:
            rank = rank_of(node)
        except RowFault as fault:
            others.append((node, Verdict(fault.reason, fault.detail, True)))
            continue
        if rank is None:
            others.append((node, Verdict("unranked", "nobody ranked it among the replies to its prompt", False)))
        elif copies[node.values["text"].strip()] > 1:
            others.append((node, Verdict("answers_identical", "another ranked reply has the same text", True)))
        else:
            ranked.append((rank, node))
    ranked.sort(key=lambda pair: (pair[0], id_of(pair[1].values, "message_id") or ""))
    kept: list[tuple[int, Node]] = []
    for rank, node in ranked:
        if kept and kept[-1][0] == rank:
            others.append((node, Verdict("tied_rank", f"another reply to its prompt has rank {rank} too", False)))
        else:
            kept.append((rank, node))
    if len(kept) == 1:
        others.append((kept.pop()[1], Verdict("only_ranked_reply", "no other reply can be compared with it", False)))
    return [node for _, node in kept], others


def thumbs(values: dict[str, Any]) -> int | None:
    """Thumbs up minus thumbs down; None: neither.

    Counts by name (JSON), two lists (the Hub's Parquet), or a list of objects (newer versions of `datasets`).
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
    """What the sound replies to one prompt give."""

    def answer(node: Node) -> tuple[Message, ...]:
        return (message("assistant", node.values["text"]),)

    if score != "thumbs" and len(replies) == 1:
        yield Dropped(replies[0].origin, "only_reply", "it is the only reply to its prompt that can be used", 1)
        return
    # not before: in a long thread of only replies, all their prompts would be quadratic
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
    for node, verdict in others:
        yield result(node, verdict)


def parse(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """One tree as ranked lists (or scored rows), and every other reply with its reason."""
    if record.values is None:
        yield fields.rejected(record, 1)
        return
    tree = nodes(record)
    if not tree:
        return
    found = verdicts(tree, tree_verdict(record, tree, config.subsets))
    group = id_of(record.values, "message_tree_id") or id_of(tree[0].values, "message_id") or record.origin
    replies: dict[int | None, list[Node]] = {}
    for node, verdict in zip(tree, found, strict=True):
        if node.values.get("role") == "prompter":
            continue
        if verdict:
            yield result(node, verdict)
        else:
            replies.setdefault(node.parent, []).append(node)
    for siblings in replies.values():
        yield from compared(tree, siblings, group, raw_file.split, config.score)


SOURCE = Source(
    name="oasst",
    about="OpenAssistant Conversations 1 and 2: replies to one prompt, ranked by volunteers, in 35 languages",
    gives="ranked answers (--score thumbs: scores)",
    parse=parse,
    hub_id=HUB_IDS[0],
    other_hub_ids=HUB_IDS[1:],
    has_texts=False,
    licence="Apache-2.0",
    patterns=PATTERNS,
    subsets_are_files=False,
    options=("--subset", "--ranked", "--both-labels", "--score", "--cut", "--margin"),
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
