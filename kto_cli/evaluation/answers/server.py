"""Answers by an OpenAI-compatible server (vLLM's, `transformers serve`, llama.cpp's, ...)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

from kto_cli.common.errors import BadInput
from kto_cli.data.formats.messages import as_message, read_turns
from kto_cli.data.formats.records import RowFault
from kto_cli.data.texts import turn_text
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question, answerable, prompt_seed
from kto_cli.evaluation.server.client import ServerFault

NO_MODEL = "kto: no such model"
"""A name that no server has, and that none looks for on the Hub: a name of the Hub has no colon and no space."""
ENDED = ("stop", "tool_calls")
"""Reasons to finish that are the model's own."""
IN_FLIGHT = 8
"""Concurrent requests."""


class Client(Protocol):
    """A connection to a server, shared by threads."""

    @property
    def url(self) -> str:
        """The server's URL, without any key."""

    def complete(self, payload: dict[str, Any]) -> dict[str, Any]:
        """POST to chat/completions -> the decoded reply.

        Raises:
            KtoError: no usable reply, also after retries.
        """

    def models(self) -> list[str]:
        """The ids listed by GET models."""

    def has(self, model: str) -> bool:
        """Whether the server answers requests to a model of this name."""


class Server:
    """A model on a server."""

    def __init__(self, subject: AnsweringModel, client: Client, *, in_flight: int = IN_FLIGHT) -> None:
        """
        Raises:
            BadInput: the server does not have the model.
        """
        self._subject = subject
        self._client = client
        self._in_flight = in_flight
        self.name = client.url
        self.family = f"server {client.url}"
        self.model = served_model(subject.name, subject.folder, client)

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """Answers as the server finishes them. After a failure no new request is sent.

        Raises:
            KtoError: a request failed after all retries, or its reply has no answer.
        """
        indices, silent = answerable(self._subject, questions, decoding)
        yield from silent
        waiting = iter(indices)
        running: dict[Future[Answer], int] = {}
        with ThreadPoolExecutor(self._in_flight) as pool:
            try:
                while True:
                    for index in waiting:
                        running[pool.submit(self._ask, questions[index], decoding)] = index
                        if len(running) >= self._in_flight:
                            break
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                for future in running:
                    future.cancel()

    def _ask(self, question: Question, decoding: Decoding) -> Answer:
        payload = {
            "model": self.model,
            "messages": question.messages,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": self._subject.room(question, decoding),
            "seed": prompt_seed(decoding.seed, question.tokens) >> 32,
        }
        if self._subject.template_kwargs:
            payload["chat_template_kwargs"] = dict(self._subject.template_kwargs)
        if question.tools:
            payload["tools"] = question.tools
        reply = self._client.complete(payload)
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            (turn,) = read_turns([{"role": "assistant", **message, "content": message.get("content") or ""}], "it")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.name} gave a reply without an answer in it.", "Is it OpenAI-compatible?") from error
        except RowFault as error:
            raise BadInput(f"{self.name} gave an answer that is not text.", "Is it OpenAI-compatible?") from error
        text = turn_text(as_message(turn))
        return Answer(text.strip(), self._count(text, reply), choice.get("finish_reason") in ENDED)

    def _count(self, text: str, reply: dict[str, Any]) -> int:
        """Tokens by the local tokenizer: a server's own count may or may not include the end-of-sequence token."""
        ids = self._subject.tokenizer(text, add_special_tokens=False).input_ids
        return len(ids)


def served_model(name: str, folder: Path, client: Client) -> str:
    """The server's id of a model: the full name, else the one id with the same last part; on a server that loads models
    on demand (`transformers serve`) the folder. A server that accepts any name is not asked for a folder: it would
    answer with another model.

    Raises:
        BadInput: none or several.
    """
    try:
        listed = client.models()
    except ServerFault as fault:
        if fault.status is not None and fault.status < 500:
            raise
        listed = []
    if name in listed:
        return name
    last = name.rstrip("/").rpartition("/")[2]
    alike = [model for model in listed if model.rstrip("/").rpartition("/")[2] == last]
    if len(alike) == 1:
        return alike[0]
    path = str(folder.resolve())
    if not alike and not client.has(NO_MODEL) and client.has(path):
        return path
    found = ", ".join(listed[:10]) or "no model"
    problem = "several models of that name" if alike else "no such model"
    raise BadInput(
        f"{client.url} has {problem}: {name}. It lists {found}.", "Serve the checkpoint under its name, or name it so."
    )
