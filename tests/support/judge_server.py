"""An OpenAI-compatible server in a thread that behaves as a test wants it to, and counts what it was asked."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's behaviour."""

    protocol_version = "HTTP/1.1"
    server: JudgeServer

    def log_message(self, *words: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(asked)
            self.server.headers.append(dict(self.headers))
            self.server.times.append(time.monotonic())
        self.server.behaviour(self, asked)

    def reply(self, status: int, answer: Any, **headers: str) -> None:
        """A whole, well-formed response; text as it is, anything else as JSON."""
        body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say(self, text: str | None, *, finish: str = "stop") -> None:
        """A completion with this text."""
        message = {"role": "assistant", "content": text}
        self.reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]})

    def reset(self) -> None:
        """Drops the connection without a word (RST)."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def truncate(self) -> None:
        """Promises more than it sends."""
        self.send_response(200)
        self.send_header("Content-Length", "400")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"message"')
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def drip(self) -> None:
        """A byte now and then, for ever; each comes before a read could time out."""
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        try:
            for _ in range(200):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass
        self.close_connection = True


class JudgeServer(ThreadingHTTPServer):
    """Its URL and what it was asked so far."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.models = ["judge-1", "judge-2"]
        self.lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def contents(self) -> Counter[str]:
        """How often each message was sent."""
        with self.lock:
            return Counter(asked["messages"][-1]["content"] for asked in self.asked)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is part of the tests."""


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[JudgeServer]:
    """A server on a free port, for as long as the block lasts."""
    server = JudgeServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def after(*bad: Behaviour, then: Behaviour) -> Behaviour:
    """Some behaviours, one a request, and then another for good."""
    left, lock = list(bad), threading.Lock()

    def behave(handler: Handler, asked: dict[str, Any]) -> None:
        with lock:
            chosen = left.pop(0) if left else then
        chosen(handler, asked)

    return behave


def saying(text: str | None, **extra: Any) -> Behaviour:
    return lambda handler, asked: handler.say(text, **extra)


def failing(status: int, answer: Any = "", **headers: str) -> Behaviour:
    return lambda handler, asked: handler.reply(status, answer, **headers)


def answers(asked: dict[str, Any]) -> tuple[str, str]:
    """What stands as answer A and answer B in a question."""
    content = asked["messages"][-1]["content"]
    found = [
        re.search(rf"--- \w+ answer {side} begins\n(.*?)\n--- \w+ answer {side} ends", content, re.S) for side in "AB"
    ]
    return tuple(match.group(1) if match else "" for match in found)  # type: ignore[return-value]


def fair(handler: Handler, asked: dict[str, Any]) -> None:
    """Prefers the answer whose hash is higher, wherever it is shown."""
    one, other = (hashlib.sha256(text.encode()).hexdigest() for text in answers(asked))
    handler.say("Verdict: " + ("A" if one > other else "B" if other > one else "tie"))
