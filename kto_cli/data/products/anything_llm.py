"""AnythingLLM's export of workspace chats, as CSV or JSON.

    prompt, response, rating ("GOOD" | "BAD" | "--")

Its CSV has spaces in place of newlines (github.com/Mintplex-Labs/anything-llm, server/utils/helpers/chat/convertTo.js).
"""

from __future__ import annotations

from kto_cli.data.products import preset_columns
from kto_cli.data.products.preset_columns import Preset

SOURCE = preset_columns.source(
    Preset(
        "anything-llm",
        (
            ("prompt_column", "prompt"),
            ("completion_column", "response"),
            ("desirable", 'rating == "GOOD"'),
            ("undesirable", 'rating == "BAD"'),
        ),
        needed=("prompt", "response", "rating"),
        step="Export the chats as JSON or CSV.",
        csv_note="AnythingLLM's CSV has lost the newlines of all texts; its JSON has them.",
    ),
    about="AnythingLLM's chats: answers rated good or bad",
    example=(
        '{"prompt": "Any tea?", "response": "Green and black.", "rating": "GOOD"}',
        '{"prompt": "Where do I park?", "response": "Outside.", "rating": "BAD"}',
    ),
)
