r"""Anthropic hh-rlhf: lines {"chosen": text, "rejected": text}, each text a whole conversation.

A turn starts only at exactly "\n\nHuman:" or "\n\nAssistant:": answers contain "Human:" in the middle of a line, and
"\nAssistant:" after a single line end. Roles come from the markers, never from the position of a turn. One space after
the colon and white space at the end of a turn are removed; all other text is unchanged.

Both rows of a pair are rejected for the first of these reasons:

    not_json, not_an_object           the line
    missing_field, not_text, bad_text `chosen` or `rejected`
    prompts_differ                    the two texts differ before their last turn
    roles_do_not_alternate            not Human, Assistant, ..., Assistant; or text before the first marker
    empty_answer                      the last turn has no text
    empty_turn                        an earlier turn has no text
    answers_identical                 the text would be in both classes

`detail` names every fault of the pair: where prompts of the real data differ, one answer was split in two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.words import plural
from kto_cli.data.formats.fields import need_columns, needed
from kto_cli.data.formats.records import Message, Pair, Result, RowFault, check_text, message, root
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

WANTED = ("chosen", "rejected")
SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
UNUSED_SUBSET = "red-team-attempts"
"""Transcripts with a rating of the attack, not pairs of answers."""

MARKER = re.compile(r"\n\n(Human|Assistant):")
LAST = "\n\nAssistant:"
ROLES = {"Human": "user", "Assistant": "assistant"}


def turns(text: str) -> tuple[str, tuple[Message, ...]]:
    """(text before the first marker, messages) of one text."""
    before, *parts = MARKER.split(text)
    sides = zip(parts[::2], parts[1::2], strict=True)
    return before, tuple([message(ROLES[side], part.removeprefix(" ").rstrip()) for side, part in sides])


def both_turns(chosen: str, rejected: str) -> dict[str, tuple[str, tuple[Message, ...]]]:
    """`turns` of both texts; a shared beginning is parsed once."""
    last = chosen.rfind(LAST)
    if last > 0 and rejected[: last + len(LAST)] == chosen[: last + len(LAST)]:
        answers = {"chosen": turns(chosen[last:])[1], "rejected": turns(rejected[last:])[1]}
        if all(len(answer) == 1 for answer in answers.values()):
            before, asked = turns(chosen[:last])
            return {side: (before, asked + answer) for side, answer in answers.items()}
    return {"chosen": turns(chosen), "rejected": turns(rejected)}


def role_fault(side: str, before: str, messages: tuple[Message, ...]) -> str | None:
    """Fault in the sequence of roles of one text; None if it is valid."""
    if before.strip():
        return f"{side} has text before its first marker: {before.strip()[:40]!r}"
    if not messages:
        return f"{side} has no turn marker"
    for number, turn in enumerate(messages, start=1):
        due = ("user", "assistant")[(number - 1) % 2]
        if turn["role"] != due:
            return f"turn {number} of {len(messages)} in {side} is the {turn['role']}'s; the {due}'s was expected"
    return None if len(messages) % 2 == 0 else f"{side} ends with the user's turn"


def faults(parsed: dict[str, tuple[str, tuple[Message, ...]]]) -> list[tuple[str, str]]:
    """All faults of a pair as (reason, detail), first the one it is counted under."""
    found = []
    (_, left), (_, right) = parsed.values()
    if left[:-1] != right[:-1]:
        detail = f"{plural(len(left), 'turn')} in chosen, {len(right)} in rejected, not equal before the last"
        found.append(("prompts_differ", detail))
    for side, (before, messages) in parsed.items():
        if fault := role_fault(side, before, messages):
            found.append(("roles_do_not_alternate", fault))
    for side, (_, messages) in parsed.items():
        if messages and not messages[-1]["content"]:
            found.append(("empty_answer", f"the last turn of {side} is empty"))
    for side, (_, messages) in parsed.items():
        if any(not turn["content"] for turn in messages[:-1]):
            found.append(("empty_turn", f"a turn of {side} before the last is empty"))
    if not found and left == right:
        found.append(("answers_identical", "chosen and rejected are the same text"))
    return found


def parse_pair(values: dict[str, Any], origin: str, split: str | None = None) -> Pair:
    """Pair of one parsed line.

    Raises:
        RowFault: reasons in the module's docstring.
    """
    for side in ("chosen", "rejected"):
        check_text(needed(values, side), side)
    parsed = both_turns(values["chosen"], values["rejected"])
    if found := faults(parsed):
        others = [f"also {reason}: {detail}" for reason, detail in found[1:]]
        raise RowFault(found[0][0], "; ".join([found[0][1], *others]))
    (_, chosen), (_, rejected) = parsed.values()
    prompt = chosen[:-1]
    return Pair(prompt, chosen[-1:], rejected[-1:], origin, group=root(prompt), split=split)


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file that is not hh-rlhf.

    Raises:
        BadInput: columns are missing.
    """
    need_columns(raw_file.name, columns, WANTED, "hh-rlhf", "Pairs in other columns: see kto binarize --list.")
    return []


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Pair of one line; RowFault if it is faulty."""
    return [parse_pair(record.values or {}, record.origin, raw_file.split)]


SOURCE = Source(
    name="hh-rlhf",
    about="Anthropic's crowd workers on two answers of an assistant: helpful, harmless",
    gives="pairs",
    read=read,
    rows=2,
    hub_id="Anthropic/hh-rlhf",
    licence="MIT",
    patterns=("*.jsonl", "*.jsonl.gz"),
    unused=(UNUSED_SUBSET,),
    options=("--subset",),
    parts=SUBSETS,
    wanted=WANTED,
    has_texts=False,
    check=check,
    example=(
        '{"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hello, how can I help?", '
        '"rejected": "\\n\\nHuman: Hi!\\n\\nAssistant: What?"}',
    ),
)
