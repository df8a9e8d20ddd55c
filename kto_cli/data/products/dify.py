"""Dify's export of feedback (`feedbacks/export`): CSV, or JSON with the rows in `feedback_data`.

    user_query, ai_response, feedback_rating_raw ("like" | "dislike"), conversation_id

It cuts answers off after 500 characters; those are rejected as `answer_cut` (github.com/langgenius/dify,
api/services/feedback_service.py). The turns before the question are not in the export.
"""

from __future__ import annotations

from kto_cli.data.products import preset_columns
from kto_cli.data.products.preset_columns import Preset

SOURCE = preset_columns.source(
    Preset(
        "dify",
        (
            ("prompt_column", "user_query"),
            ("completion_column", "ai_response"),
            ("conversation_column", "conversation_id"),
            ("desirable", 'feedback_rating_raw == "like"'),
            ("undesirable", 'feedback_rating_raw == "dislike"'),
        ),
        needed=("user_query", "ai_response", "feedback_rating_raw", "conversation_id"),
        step="Give the file of feedbacks/export.",
        comment="feedback_comment",
    ),
    about="Dify's export of feedback: likes and dislikes of answers",
    example=(
        '{"conversation_id": "c1", "user_query": "Any tea?", "ai_response": "Green and black.", "feedback_rating_raw": '
        '"like"}',
        '{"conversation_id": "c2", "user_query": "Where do I park?", "ai_response": "Outside.", "feedback_rating_raw": '
        '"dislike"}',
    ),
)
