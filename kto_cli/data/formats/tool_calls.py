"""Tools and calls of them, in the form of chat templates (https://huggingface.co/docs/transformers/chat_extras):

    tools    [{"type": "function", "function": {"name", "description", "parameters"}}]
    calls    [{"type": "function", "id", "function": {"name", "arguments": {...}}}]

Both are read as OpenAI, Anthropic, Gemini, LangChain and LLaMA-Factory write them, as objects or as JSON text, and kept
as JSON text. What is a tool of the server's own (web search), a call with broken arguments, or one that holds its own
result, rejects the row: `tools_not_accepted`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kto_cli.common.words import printable
from kto_cli.data.formats.counts import count
from kto_cli.data.formats.records import RowFault
from kto_cli.data.readers.jsonl import parse_json

NULLS = "rows whose tools or arguments of calls have nulls, left out (tables give each call the arguments of all)"
PARAMETERS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema")
"""Keys of a tool's JSON schema: OpenAI, Anthropic, MCP, Gemini."""
ARGUMENTS = ("arguments", "args", "input", "parameters", "kwargs")
NAMES = ("name", "toolName", "tool_name")
IDS = ("call_id", "toolCallId", "tool_call_id", "id")
"""Keys of a call's id, by which its result names it; an item of OpenAI's responses also has an id of its own."""
HOLDERS = ("tool_call", "function", "functionCall")
"""Fields of a call that hold its name and arguments, the outer ones first."""
RESULTS = ("output", "result", "response")


def tools_json(value: Any, what: str) -> str:
    """JSON of a list of tools; empty if `value` holds none.

    Raises:
        RowFault: `tools_not_accepted`.
    """
    tools = [tool for item in _listed(value, what) for tool in _tools_in(item, what)]
    return as_json(tools) if tools else ""


def calls_json(value: Any, what: str) -> str:
    """JSON of a list of calls; empty if `value` holds none.

    Raises:
        RowFault: `tools_not_accepted`.
    """
    calls = [_call(item, what) for item in _listed(value, what)]
    return as_json(calls) if calls else ""


def joined_calls(*texts: str) -> str:
    """JSON of the calls of several messages."""
    calls = [call for text in texts if text for call in parse_json(text)]
    return as_json(calls) if calls else ""


def as_json(value: Any) -> str:
    """JSON text with all its letters as they are.

    Raises:
        RowFault: `bad_text` if it has half a surrogate pair.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowFault("bad_text", f"tools have half a surrogate pair, at character {error.start}") from error
    return text


def _listed(value: Any, what: str) -> list[Any]:
    """Items of a list, of its JSON text, or one alone; texts among them parsed."""
    value = _parsed(value, what)
    items = value if isinstance(value, (list, tuple)) else [] if value is None or value == {} else [value]
    return [_parsed(item, what) for item in items]


def _parsed(value: Any, what: str) -> Any:
    if not isinstance(value, str):
        return without_nulls(value)
    if not value.strip():
        return None
    try:
        return parse_json(value.strip())
    except ValueError as error:
        raise RowFault("tools_not_accepted", f"{what} is {_shown(value)}, which is not JSON") from error


def without_nulls(value: Any) -> Any:
    """A value without the null fields of its objects: in a table, each object has the fields of all."""
    if isinstance(value, dict):
        kept = {name: without_nulls(field) for name, field in value.items() if field is not None}
        if len(kept) < len(value):
            count(NULLS)
        return kept
    return [without_nulls(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tools_in(item: Any, what: str) -> list[dict[str, Any]]:
    """Tools of one item of a list; Gemini's items hold several."""
    if not isinstance(item, dict):
        raise RowFault("tools_not_accepted", f"{what} has {_shown(item)} for a tool")
    for key in ("functionDeclarations", "function_declarations"):
        if isinstance(item.get(key), list):
            return [tool for each in item[key] for tool in _tools_in(each, what)]
    function = item.get("function")
    if isinstance(function, dict) and _name(function):
        return [item if item.get("type") == "function" else {"type": "function", **item}]
    if not _name(item) or item.get("type") not in (None, "function", "custom"):
        kind = str(item.get("type", "of no name"))[:40]
        raise RowFault("tools_not_accepted", f"{what} has a tool {kind!r}, which is no function that kto can show")
    fields = {name: value for name, value in item.items() if name not in (*PARAMETERS, "type")}
    parameters = next((item[name] for name in PARAMETERS if name in item), None)
    return [{"type": "function", "function": fields | ({} if parameters is None else {"parameters": parameters})}]


def _call(item: Any, what: str) -> dict[str, Any]:
    """One call.

    Raises:
        RowFault: `tools_not_accepted` if it has no name, its arguments are no object, or it holds its result.
    """
    if not isinstance(item, dict):
        raise RowFault("tools_not_accepted", f"{what} has {_shown(item)} for a call of a tool")
    holders = [item]
    for holder in HOLDERS:
        holders += [holders[-1][holder]] if isinstance(holders[-1].get(holder), dict) else []
    inner = holders[-1]
    if any(each.get(key) is not None for each in holders for key in RESULTS):
        detail = f"{what} has a call that holds its result: give that as a message of its own"
        raise RowFault("tools_not_accepted", detail)
    if not (name := _name(inner)):
        raise RowFault("tools_not_accepted", f"{what} has a call of a tool without its name")
    given = next((inner[key] for key in ARGUMENTS if key in inner), None)
    arguments = _parsed(given, f"the arguments of {name[:40]} in {what}")
    if not isinstance(arguments or {}, dict):
        raise RowFault(
            "tools_not_accepted", f"the arguments of {name[:40]} in {what} are {_shown(given)}, not an object"
        )
    identity = next((each[key] for each in holders for key in IDS if isinstance(each.get(key), str)), "")
    function = {"name": name, "arguments": arguments or {}}
    return {"type": "function", **({"id": identity} if identity else {}), "function": function}


def _name(values: Mapping[str, Any]) -> str:
    found = next((values[key] for key in NAMES if values.get(key)), "")
    return found if isinstance(found, str) else ""


def _shown(value: Any) -> str:
    return repr(printable(str(value))[:40])
