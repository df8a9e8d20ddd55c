"""A running page of `kto label` and requests to it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from conftest import spawn

from kto_cli.evaluation.labelling.from_file import items_of_file
from kto_cli.evaluation.labelling.label_file import LabelFile
from kto_cli.evaluation.labelling.server import LabelServer
from kto_cli.evaluation.labelling.session import Labelling


class Reply(NamedTuple):
    """Of a request."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        """The body of a request that was answered."""
        assert self.status == 200, self.text
        return dict(json.loads(self.text))


class Client:
    """Sends requests as the page's script does, unless other headers are given."""

    def __init__(self, server: LabelServer | Running) -> None:
        self.server = server

    def request(self, method: str, path: str, body: str | None = None, **headers: str | None) -> Reply:
        given = {
            "Host": f"127.0.0.1:{self.server.port}",
            "X-Token": self.server.token,
            "Content-Type": "application/json",
        }
        given |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[dict-item]
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None:
            given.setdefault("Content-Length", str(len(body.encode())))
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders((body or "").encode())
        reply = connection.getresponse()
        found = Reply(reply.status, reply.read().decode(), dict(reply.getheaders()))
        connection.close()
        return found

    def state(self, name: str) -> dict[str, Any]:
        return self.request("GET", f"/api/state?name={name}").json

    def post(self, what: str, **fields: Any) -> Reply:
        return self.request("POST", f"/api/{what}", json.dumps(fields))

    def label(self, name: str, choice: str, reason: str = "") -> dict[str, Any]:
        """Labels what a person is shown; returns what is shown next."""
        item = self.state(name)["item"]["id"]
        return self.post("label", name=name, item=item, choice=choice, reason=reason).json


class Running:
    """A running `kto label` and its link."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.said = process, ""
        assert process.stderr is not None
        for line in process.stderr:
            self.said += line
            if found := re.search(r"http://[\d.]+:(\d+)/\?token=(\w+)", line):
                self.url, self.port, self.token = found[0], int(found[1]), found[2]
                return
        raise AssertionError(self.said)

    @property
    def client(self) -> Client:
        """Requests to it."""
        return Client(self)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Exit status, stdout and the rest of stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextmanager
def running(*words: object, cwd: Path) -> Iterator[Running]:
    """`kto label WORDS`, killed at the end if it still runs."""
    process = spawn("label", *words, "--port", 0, cwd=cwd)
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def served(answers: Path, out: Path, *, one_at_a_time: bool = False, seed: int = 0) -> Iterator[Client]:
    """The page for a file of answers."""
    found = items_of_file(answers, one_at_a_time=one_at_a_time)
    with served_items(found, out, seed=seed) as client:
        yield client


@contextmanager
def served_items(found: Any, out: Path, *, seed: int = 0) -> Iterator[Client]:
    """The page for some items."""
    server = LabelServer(Labelling(found, LabelFile(out), seed), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        server.server_close()


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of labels."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
