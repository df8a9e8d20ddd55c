"""Names that messages and their fields have: roles, texts, calls of tools, media, reasoning, ratings."""

from __future__ import annotations

ROLES = {
    **dict.fromkeys(("user", "human", "humanmessage", "prompter", "usr", "person"), "user"),
    **dict.fromkeys(
        ("assistant", "ai", "aimessage", "gpt", "chatgpt", "bot", "chatbot", "model", "llm", "bing", "bard"),
        "assistant",
    ),
    **dict.fromkeys(("system", "systemmessage", "developer"), "system"),
}
"""Role of chats -> role of a chat template, in lower case."""
PLAIN_ROLES = ("user", "assistant", "system")
RESULT_ROLES = frozenset(
    [
        *("tool", "function", "observation", "function_response", "function_call_output", "tool_response"),
        *("tool_result", "toolmessage", "functionmessage", "ipython", "environment"),
    ]
)
"""Roles of messages that hold the result of a call."""
CALL_ROLES = frozenset(("function_call", "tool_call", "tool_calls", "tool_use"))
"""Roles of messages of the assistant whose text is the JSON of calls (LLaMA-Factory, OpenAI's responses)."""
TOOL_ROLES = RESULT_ROLES | CALL_ROLES
REASONING = "reasoning"
ITEM_ROLES = TOOL_ROLES | {REASONING}
"""Types of items of OpenAI's responses that are no messages."""
ROLE_KEYS = ("role", "from", "sender", "speaker", "author", "type")
TEXT_KEYS = ("content", "value", "text", "message", "parts")
CALL_FIELDS = ("tool_calls", "toolcalls", "function_call", "functioncall", "tool_call")
TOOL_FIELDS = frozenset(
    [*CALL_FIELDS, "tool_call_id", "tool_use", "tool_results", "toolinvocations", "invalid_tool_calls"]
)
MEDIA_FIELDS = frozenset(
    [
        *("images", "image", "image_url", "image_urls", "audio", "audios", "video", "videos", "files"),
        *("file", "attachments", "experimental_attachments", "media"),
    ]
)
REASONING_FIELDS = frozenset(
    [
        *("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details"),
        *("reasoning_text", "thinking_blocks"),
    ]
)
RATING_FIELDS = frozenset(
    [
        *("annotation", "annotations", "feedback", "rating", "thumbs", "thumb", "vote", "liked", "reaction"),
    ]
)
"""Fields by which an application marks the message that was rated."""
TOOL_COLUMNS = ("tools", "functions")
MEDIA_COLUMNS = ("images", "image", "videos", "video", "audios", "audio")
MORE_THAN_TEXT = (*TOOL_COLUMNS, *MEDIA_COLUMNS)
"""Columns beside a chat that its answer depends on."""
