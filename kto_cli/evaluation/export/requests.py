"""What a server is asked to say what it serves: log-probs of given tokens, and greedy answers.

POST /completions        prompt: token ids, echo, logprobs      vLLM, SGLang; others refuse or ignore it
POST /chat/completions   temperature 0                          every server; prompts of plain text: /completions
                         logprobs: of the answer's tokens       vLLM, SGLang, llama.cpp; others refuse or ignore it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.common.errors import BadInput
from kto_cli.core.rows import TokenSequence
from kto_cli.data.formats.messages import as_message, read_turns
from kto_cli.data.formats.records import RowFault
from kto_cli.data.texts import Message, Text, api_messages, offered
from kto_cli.evaluation.server.client import ChatServer, ServerFault

REFUSED = (401, 403, 429)
"""Statuses that are no sign of what a server can do."""


class ServedAnswer(NamedTuple):
    """A greedy answer."""

    completion: str | Message
    ended: bool
    """The model ended it; else it was truncated."""
    prompt_tokens: int | None
    """Tokens of the prompt as the server renders it, where it says so."""
    tokens: tuple[tuple[str, float], ...] = ()
    """Text and log-prob of each token, where the server gives them."""


def logps_of(client: ChatServer, model: str, sequences: Sequence[TokenSequence]) -> list[Tensor] | None:
    """[sequences] of [completion tokens] log-probs; None where the server gives none of a prompt's tokens.

    Raises:
        ServerFault: the server gives up, or refuses the key.
    """
    found = []
    for sequence in sequences:
        ids = [*sequence.prompt, *sequence.completion]
        payload = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        try:
            reply = client.continued(payload)
        except ServerFault as fault:
            if fault.status is None or fault.status in REFUSED or fault.status >= 500:
                raise
            return None
        values = _token_logps(reply["choices"][0])
        if len(values) < len(ids):
            return None
        logps = values[len(sequence.prompt) : len(ids)]
        if not all(isinstance(value, (int, float)) for value in logps):
            return None
        found.append(torch.tensor(logps, dtype=torch.float64))
    return found


def _token_logps(choice: Mapping[str, Any]) -> list[Any]:
    found = choice.get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    return values if isinstance(values, list) else []


def answer_to(
    client: ChatServer, model: str, prompt: Text, *, most: int, template_kwargs: Mapping[str, Any]
) -> ServedAnswer:
    """The greedy answer to one prompt, of `most` tokens at most.

    Raises:
        ServerFault: the server gives up or refuses. BadInput: its reply has no answer.
    """
    asked: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": most, "seed": 0}
    if isinstance(prompt, str):
        reply = client.continued({**asked, "prompt": prompt})
    else:
        asked |= {"messages": api_messages(prompt, arguments_as_text=True)}
        asked |= {"chat_template_kwargs": dict(template_kwargs)} if template_kwargs else {}
        asked |= {"tools": tools} if (tools := offered(prompt)) else {}
        reply = _with_logps(client, asked)
    choice, usage = reply["choices"][0], reply.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return ServedAnswer(
        _completion(client, choice),
        choice.get("finish_reason") in ("stop", "tool_calls"),
        count if isinstance(count, int) else None,
        _tokens(choice),
    )


def _with_logps(client: ChatServer, asked: dict[str, Any]) -> dict[str, Any]:
    """The reply, with log-probs of its tokens where the server takes that."""
    try:
        return client.complete({**asked, "logprobs": True})
    except ServerFault as fault:
        if fault.status is None or fault.status in REFUSED or fault.status >= 500:
            raise
        return client.complete(asked)


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Text and log-prob of each answered token; none where any is missing or no number."""
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, dict) else None
    tokens = [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    pairs = [(one.get("token"), one.get("logprob")) for one in tokens]
    good = all(isinstance(text, str) and isinstance(logp, (int, float)) for text, logp in pairs)
    return tuple((str(text), float(logp or 0)) for text, logp in pairs) if good else ()


def _completion(client: ChatServer, choice: Mapping[str, Any]) -> str | Message:
    if isinstance(choice.get("text"), str):
        return str(choice["text"])
    message = choice.get("message")
    try:
        if not isinstance(message, dict):
            raise RowFault("no_message", "it has none")
        (turn,) = read_turns([{**message, "role": "assistant", "content": message.get("content") or ""}], "it")
    except RowFault as error:
        raise BadInput(f"{client.url} gave an answer that is not text.", "Is it OpenAI-compatible?") from error
    return as_message(turn)
