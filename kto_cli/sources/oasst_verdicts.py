"""Which messages of an OpenAssistant tree can be used: none with a fault, deleted or spam, nor what follows one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kto_cli.sources import fields
from kto_cli.sources.lines import Record
from kto_cli.sources.oasst_trees import Node, id_of
from kto_cli.sources.records import RowFault, printable

ROLES = {"prompter": "user", "assistant": "assistant"}
READY = "ready_for_export"


@dataclass(frozen=True)
class Verdict:
    """Why a message cannot be used, nor what follows it in its thread."""

    reason: str
    detail: str
    is_fault: bool
    """Rejected, not left out."""


def own_verdict(node: Node, parent: Node | None, seen: set[str]) -> Verdict | None:
    """What is wrong with a message itself; None: nothing."""
    values = node.values
    try:
        role = values.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise RowFault("role_not_accepted", "a message has no role, or one that is neither prompter nor assistant")
        if not node.whole or (parent is None and role != "prompter"):
            raise RowFault("parent_missing", "the thread does not reach back to a first message of a prompter")
        if (found := id_of(values, "message_id")) in seen:
            raise RowFault("repeated_id", f"message {found} is there twice")
        if parent is not None and parent.values.get("role") == role:
            raise RowFault("roles_do_not_alternate", f"two messages of the {role} follow each other")
        fields.text_field(values, "text", "empty_answer" if role == "assistant" else "empty_turn")
    except RowFault as fault:
        return Verdict(fault.reason, fault.detail, True)
    if values.get("deleted") not in (None, False):
        return Verdict("deleted", "the message was deleted", False)
    if values.get("review_result") not in (None, True):
        return Verdict("failed_review", "reviewers marked the message as spam", False)
    return None


def verdicts(tree: list[Node], whole_tree: Verdict | None) -> list[Verdict | None]:
    """For each message, why it cannot be used: the tree's reason, that of an earlier message, or its own."""
    seen: set[str] = set()
    found: list[Verdict | None] = []
    for node in tree:
        above = whole_tree if node.parent is None else found[node.parent]
        parent = None if node.parent is None else tree[node.parent]
        verdict = above or own_verdict(node, parent, seen)
        if above and above is not whole_tree and not above.detail.startswith("earlier"):
            verdict = Verdict(above.reason, f"earlier in its thread: {above.detail}", above.is_fault)
        found.append(verdict)
        seen.add(id_of(node.values, "message_id") or "")
    return found


def tree_verdict(record: Record, tree: list[Node], languages: Sequence[str]) -> Verdict | None:
    """Why a whole tree is left out; its state and language are those of the first message that has them."""
    values = [record.values or {}, *(node.values for node in tree)]
    state = next((found for each in values if (found := id_of(each, "tree_state"))), READY)
    if state != READY:
        return Verdict("tree_not_ready", f"the tree's state is {printable(state)[:40]}, not {READY}", False)
    language = next((found for each in values if (found := id_of(each, "lang"))), "")
    if languages and language.casefold() not in [each.casefold() for each in languages]:
        return Verdict("other_language", f"the language is {printable(language)[:20] or 'not given'}", False)
    return None
