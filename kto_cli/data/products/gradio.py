"""Gradio's ChatInterface with flagging: a CSV of the conversation (JSON), and what was flagged in it.

    conversation, index, value, flag ("Like" | "Dislike")

`index` and `value` say which answer was flagged; what follows it is left out (gradio, flagging.py: ChatCSVLogger).
Rejected: rated_message_missing, if they do not name an answer.
"""

from __future__ import annotations

from typing import Any

from kto_cli.data.formats.fields import chat_turns, needed
from kto_cli.data.formats.labels import spell_cell
from kto_cli.data.formats.records import RowFault
from kto_cli.data.products import preset_columns
from kto_cli.data.products.preset_columns import Preset


def refuse_unplaced(values: dict[str, Any]) -> None:
    """Rejects a row whose `index` and `value` are not an answer of its conversation.

    Raises:
        RowFault: `rated_message_missing`, or the conversation is no chat.
    """
    turns = chat_turns(needed(values, "conversation"), "conversation")
    place, text = str(values.get("index")).strip(), values.get("value")
    index = int(place) if place.isdigit() else len(turns)
    answers = {number: turn.content.strip() for number, turn in enumerate(turns) if turn.role == "assistant"}
    if not isinstance(text, str) or answers.get(index) != text.strip():
        what = f"index {spell_cell(values.get('index'))} and value {spell_cell(text)}"
        raise RowFault("rated_message_missing", f"{what} are no answer of the conversation")


SOURCE = preset_columns.source(
    Preset(
        "gradio",
        (
            ("messages_column", "conversation"),
            ("desirable", 'flag == "Like"'),
            ("undesirable", 'flag == "Dislike"'),
        ),
        needed=("conversation", "index", "value", "flag"),
        step="Give the CSV that ChatInterface(flagging_mode='manual') logs.",
        refuse=refuse_unplaced,
    ),
    has_texts=False,
    about="Gradio's ChatInterface: likes and dislikes of answers",
    example=(
        '{"conversation": [{"role": "user", "content": "Any tea?"}, {"role": "assistant", "content": "Green."}], '
        '"index": 1, "value": "Green.", "flag": "Like"}',
        '{"conversation": [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Who knows."}], '
        '"index": 1, "value": "Who knows.", "flag": "Dislike"}',
    ),
)
