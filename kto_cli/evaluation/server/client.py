"""HTTP client of an OpenAI-compatible server: requests are counted, retried where that may help, and limited.

    POST BASE/chat/completions   POST BASE/completions   GET BASE/models
    (https://platform.openai.com/docs/api-reference/chat)

Retried, with exponential backoff and jitter: 408, 409, 429, 5xx, time-outs, dropped connections, truncated or unusable
bodies. Other errors are raised at once with the server's message. Redirects are reported, not followed: the key goes
only to the host that the user named.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2 as httpx

from kto_cli.common.errors import BadInput, KtoError
from kto_cli.common.words import plural
from kto_cli.evaluation.server.keys import ENDPOINT, JUDGE_KEY, Key, base_url, travels_open
from kto_cli.evaluation.server.replies import complaint, has_choices, is_completion, is_list, json_object, retry_after

TRIES = 6
TIMEOUT = 120.0
"""Seconds for one request as a whole: reasoning models take their time."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds; doubled at each try. The server's Retry-After is respected, up to the longest."""
LARGEST_BODY = 16 << 20
"""The largest response, in bytes."""
RETRIED = frozenset((408, 409, 429))
_SHOWN = 300
"""Characters of a server's message."""

for _name in ("http11", "http2", "proxy", "socks"):
    # Its debug lines contain response headers, in which a server may echo the key.
    logging.getLogger(f"httpcore2.{_name}").setLevel(logging.INFO)


class ServerFault(KtoError):
    """A request that the server refused, or gave no usable answer to."""

    def __init__(self, what: str, next_step: str = "", *, status: int | None = None, message: str = "") -> None:
        super().__init__(what, next_step)
        self.status = status
        self.message = message
        """The server's message, without the key."""


class OutOfCalls(KtoError):
    """The limit on requests is reached."""


class Stopped(Exception):
    """No new request is sent: the run is ending."""


class CallBudget:
    """Thread-safe limit on requests, retries included; each is counted before it is sent."""

    def __init__(self, limit: int, *, flag: str = "--judge-calls") -> None:
        """`flag`: the flag that raises the limit."""
        self.limit = limit
        self.flag = flag
        self.used = 0
        self._lock = threading.Lock()

    def spend(self) -> None:
        """Counts one request.

        Raises:
            OutOfCalls: none is left.
        """
        with self._lock:
            if self.used >= self.limit:
                raise OutOfCalls(
                    f"The limit of {plural(self.limit, 'call')} to the server is reached (retries count).",
                    f"Answers so far are kept: run the same command with a higher {self.flag} to continue.",
                )
            self.used += 1


class _Failed(NamedTuple):
    """Why a request is retried."""

    why: str
    pause: float | None = None
    """Seconds to wait, by the server."""
    status: int | None = None


class ChatServer:
    """One server, shared by threads."""

    def __init__(
        self,
        url: str,
        *,
        key: Key | None = None,
        key_name: str = JUDGE_KEY,
        timeout: float = TIMEOUT,
        tries: int = TRIES,
        first_pause: float = FIRST_PAUSE,
        calls: CallBudget,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`key_name`: the environment variable of the key.

        Raises:
            BadInput: not a URL.
        """
        self.url = base_url(url)
        try:
            httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise BadInput(f"{self.url} is not the URL of a server: {error}.", "Check it.") from error
        self.calls = calls
        self._key, self._key_name = key, key_name
        self._timeout, self._tries, self._first_pause = timeout, tries, first_pause
        self._stopped = threading.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        times = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        self._client = httpx.Client(timeout=times, limits=limits, follow_redirects=False)
        if key is not None and travels_open(self.url):
            say(f"The key is sent to {self.url} without encryption (http, not https).")

    def __repr__(self) -> str:
        return f"ChatServer({self.url!r})"

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def stop(self) -> None:
        """Sends no new request; those under way finish."""
        self._stopped.set()

    def complete(self, payload: dict[str, Any]) -> dict[str, Any]:
        """One chat completion: the request's JSON, the answer's.

        Raises:
            ServerFault: refused, or no usable answer in all tries. OutOfCalls: see `CallBudget`. Stopped: see `stop`.
        """
        return self._retried("POST", ENDPOINT, payload, is_completion, tries=self._tries)

    def continued(self, payload: dict[str, Any]) -> dict[str, Any]:
        """One completion of a raw prompt: the request's JSON, the answer's.

        Raises:
            ServerFault, OutOfCalls, Stopped: see `complete`.
        """
        return self._retried("POST", "/completions", payload, has_choices, tries=self._tries)

    def models(self) -> list[str]:
        """Ids of the models the server lists (a server that loads on demand may list more or fewer).

        Raises:
            ServerFault, OutOfCalls, Stopped: see `complete`.
        """
        found = self._retried("GET", "/models", None, is_list, tries=min(self._tries, 2))
        return [str(entry["id"]) for entry in found["data"] if isinstance(entry, dict) and "id" in entry]

    def reach(self) -> None:
        """Checks, before long work, that a server answers and accepts the key; not counted as a call.

        Raises:
            ServerFault: it cannot be reached, or refuses the key.
        """
        try:
            status, _, body = self._send("GET", "/models", None)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            fault = f"{self.url} cannot be reached: {self._clean(str(error) or type(error).__name__)}."
            raise ServerFault(fault, "Is the server running, and is that its address?") from None
        except (httpx.TransportError, httpx.DecodingError):
            return  # a server answered; later requests are retried and report more
        if status in (401, 403):
            raise self._refused(status, self._clean(complaint(body)))

    def has(self, model: str) -> bool:
        """Whether the server answers as this model: one request for one token, repeated once if the connection breaks
        (some servers close it after an error).

        Raises:
            OutOfCalls: see `CallBudget`.
        """
        asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        for _ in range(2):
            self.calls.spend()
            try:
                found = self._once("POST", ENDPOINT, asked, is_completion)
            except ServerFault:
                return False
            if not isinstance(found, _Failed) or found.status is not None:
                return not isinstance(found, _Failed)
        return False

    def _retried(
        self,
        method: str,
        path: str,
        payload: dict[str, Any] | None,
        usable: Callable[[dict[str, Any]], bool],
        *,
        tries: int,
    ) -> dict[str, Any]:
        failed = _Failed("it was never asked")
        for turn in range(tries):
            if self._stopped.is_set():
                raise Stopped
            self.calls.spend()
            found = self._once(method, path, payload, usable)
            if not isinstance(found, _Failed):
                return found
            failed = found
            if turn + 1 < tries:
                self._stopped.wait(self._pause(turn, failed.pause))
        raise ServerFault(
            f"{self.url} gave no usable answer in {plural(tries, 'try', 'tries')}; at last: {failed.why}.",
            "Is the server running, and does it have that model? Answers are kept: run the same command again.",
            status=failed.status,
            message=failed.why,
        )

    def _pause(self, turn: int, asked: float | None) -> float:
        """Seconds before the next try, with jitter, so that threads do not retry together."""
        own = min(LONGEST_PAUSE, self._first_pause * 2**turn) * random.uniform(0.5, 1.0)
        return own if asked is None else max(own, min(LONGEST_PAUSE, asked))

    def _once(
        self, method: str, path: str, payload: dict[str, Any] | None, usable: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any] | _Failed:
        """Sends one request: the answer, or why to retry."""
        try:
            status, headers, body = self._send(method, path, payload)
        except httpx.TimeoutException:
            return _Failed(f"no answer within {self._timeout:g} seconds")
        except (httpx.TransportError, httpx.DecodingError) as error:
            return _Failed(self._clean(str(error) or type(error).__name__))
        message = self._clean(complaint(body))
        if status in RETRIED or status >= 500:
            if "insufficient_quota" in message:  # sent as "too many requests", but waiting does not help
                raise self._refused(status, message)
            return _Failed(f"{status} {message}".strip(), retry_after(headers.get("retry-after")), status)
        if 300 <= status < 400:
            target = self._clean(headers.get("location", "another URL"))
            fault = f"{self.url} redirects to {target}, which is not followed."
            raise ServerFault(fault, "If you trust that server, give its URL.", status=status)
        if status >= 400:
            raise self._refused(status, message)
        answer = json_object(body)
        if answer is None:
            return _Failed("an answer that is not JSON, or only a part of it")
        return answer if usable(answer) else _Failed(f"an answer without a completion: {message}")

    def _send(self, method: str, path: str, payload: dict[str, Any] | None) -> tuple[int, httpx.Headers, str]:
        """(status, headers, text without the key). The deadline covers the whole response."""
        deadline = time.monotonic() + self._timeout
        with self._client.stream(method, self.url + path, json=payload, auth=self._authorize) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow")
                if len(body) > LARGEST_BODY:
                    raise httpx.ReadError(f"an answer of more than {LARGEST_BODY >> 20} MiB")
            text = body.decode("utf-8", errors="replace")
            return response.status_code, response.headers, text if self._key is None else self._key.redact(text)

    def _authorize(self, request: httpx.Request) -> httpx.Request:
        """Adds the header just before sending, so that it is stored nowhere else."""
        if self._key is not None:
            request.headers["Authorization"] = self._key.header()
        return request

    def _refused(self, status: int, message: str) -> ServerFault:
        nexts = {
            401: f"Set the key in ${self._key_name}."
            if self._key is None
            else "Is the key the right one for this server?",
            403: "May this key use that model?",
            404: "Check the URL and the model's name.",
        }
        words = f": {message}" if message else ""
        words += "" if message.endswith((".", "!", "?")) else "."
        step = nexts.get(status, "Fix what it names and run the same command again.")
        return ServerFault(f"{self.url} answers {status}{words}", step, status=status, message=message)

    def _clean(self, text: str) -> str:
        """One short line, without the key."""
        whole = text if self._key is None else self._key.redact(text)
        return " ".join(whole.split())[:_SHOWN]
