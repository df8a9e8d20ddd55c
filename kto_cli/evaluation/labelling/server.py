"""The page over HTTP. It answers requests of its own link alone:

- the header Host names its own address, so that no other name can be made to lead to it (DNS rebinding), and Origin,
  where there is one, is the page itself: else 403
- a request carries the token of the link, the page in its address, the script in a header: else 403
- the body of a request is JSON of at most `MOST_BYTES`, with the fields it needs and no others: else 400, 413 or 415
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kto_cli.common.errors import BadInput, KtoError
from kto_cli.common.files import finite
from kto_cli.common.read import parse_json
from kto_cli.common.words import printable
from kto_cli.evaluation.labelling.page import page
from kto_cli.evaluation.labelling.session import Labelling, NotNow

MOST_BYTES = 1 << 16
"""Of a request's body."""
LONGEST = {"name": 64, "item": 64, "choice": 16, "reason": 4000}
"""Characters of each field of a body."""
WAIT = 30
"""Seconds that a connection may be silent."""
FIELDS = {
    "/api/label": ("name", "item", "choice", "reason"),
    "/api/skip": ("name", "item"),
    "/api/again": ("name",),
    "/api/undo": ("name",),
}
"""What can be posted -> the fields of its body."""


class Refused(Exception):
    """A request that is not answered as asked."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class LabelServer(ThreadingHTTPServer):
    """Serves one labelling session."""

    daemon_threads = True

    def __init__(self, labelling: Labelling, host: str, port: int) -> None:
        """
        Raises:
            BadInput: the port is taken, or the host is no address of this machine.
        """
        self.labelling = labelling
        self.token = secrets.token_hex(12)
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            what = f"{printable(host)}:{port} cannot be used for the page: {error.strerror}."
            raise BadInput(what, "Give another with --port (0: any that is free), or another --host.") from error
        self.port = self.server_address[1]
        names = (host, "localhost") if host.startswith("127.") else (host,)
        ports = (f":{self.port}", "") if self.port == 80 else (f":{self.port}",)
        self.hosts = {f"{name}{ending}" for name in names for ending in ports}
        self.url = f"http://{host}:{self.port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no error of the session."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: LabelServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "kto", ""
    timeout = WAIT

    def parse_request(self) -> bool:
        """Whether the request is one to answer, whatever its method."""
        if not super().parse_request():
            return False
        try:
            self._check_source()
        except Refused as error:
            self._refuse(error)
            return False
        return True

    def do_GET(self) -> None:
        """The page, or what a person is shown."""
        self._answering(self._get)

    def do_POST(self) -> None:
        """Saves a label, skips, undoes."""
        self._answering(self._post)

    def _answering(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        except Refused as error:
            self._refuse(error)
        except NotNow as error:
            self._send_json(HTTPStatus.CONFLICT, {"error": str(error)})
        except KtoError as error:
            self._send_json(HTTPStatus.INSUFFICIENT_STORAGE, {"error": str(error)})

    def _refuse(self, error: Refused) -> None:
        self.close_connection = True  # what is left of its body is not read
        self._send_json(error.status, {"error": str(error)})

    def _check_source(self) -> None:
        host, origin = self.headers.get_all("Host") or [], self.headers.get("Origin")
        if len(host) != 1 or host[0].lower() not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"This page is at {min(self.server.hosts)}, not at another name.")
        if origin is not None and origin.lower() != f"http://{host[0].lower()}":
            raise Refused(HTTPStatus.FORBIDDEN, "Requests from other pages are not answered.")

    def _check_token(self, given: str | None) -> None:
        if not hmac.compare_digest((given or "").encode(), self.server.token.encode()):
            raise Refused(
                HTTPStatus.FORBIDDEN, "This link is not that of the running kto label; it prints the one to open."
            )

    def _get(self) -> None:
        asked = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(asked.query).items()}
        if asked.path == "/":
            self._check_token(query.get("token"))
            nonce = secrets.token_urlsafe(16)
            self._send(HTTPStatus.OK, page(nonce, self.server.token), "text/html", nonce)
        elif asked.path == "/api/state":
            self._check_token(self.headers.get("X-Token"))
            name = checked("name", query.get("name"))
            self._send_json(HTTPStatus.OK, self.server.labelling.state(name))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _post(self) -> None:
        path = urlsplit(self.path).path
        if path not in FIELDS:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        self._check_token(self.headers.get("X-Token"))
        body = self._body(FIELDS[path])
        labelling, name = self.server.labelling, body["name"]
        found: dict[str, Any] = {}
        if path == "/api/label":
            labelling.choose(name, body["item"], body["choice"], body["reason"])
        elif path == "/api/skip":
            labelling.skip(name, body["item"])
        elif path == "/api/again":
            labelling.again(name)
        else:
            found["reason"] = labelling.undo(name)
        self._send_json(HTTPStatus.OK, {**labelling.state(name), **found})

    def _body(self, names: tuple[str, ...]) -> dict[str, str]:
        """The fields of the body, each a text within its length."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A body is JSON.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "A body has a Content-Length.")
        if len(length) > 9 or int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has at most {MOST_BYTES:,} bytes.")
        try:
            found = parse_json(self.rfile.read(int(length)).decode("utf-8"), constants=False)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error}.") from error
        if not isinstance(found, dict) or set(found) != set(names):
            raise Refused(HTTPStatus.BAD_REQUEST, f"The body is an object with {', '.join(names)}.")
        return {name: checked(name, found[name]) for name in names}

    def _send_json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(finite(value)), "application/json")

    def _send(self, status: HTTPStatus, text: str, kind: str, nonce: str = "") -> None:
        data = text.encode()
        allowed = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(data)),
            "Content-Security-Policy": f"default-src 'none'; {allowed if nonce else ''}base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **({"Connection": "close"} if self.close_connection else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *words: Any) -> None:
        """Requests are not shown: the summary at the end is."""


def checked(name: str, value: Any) -> str:
    """A field of a request, without white space around it.

    Raises:
        Refused: it is no text, too long, or cannot be written to a file; a name that is empty or no single line.
    """
    text = value.strip() if isinstance(value, str) else ""
    is_text = isinstance(value, str) and len(text) <= LONGEST[name] and text == text.encode("utf-8", "ignore").decode()
    if not is_text or (name != "reason" and (not text or printable(text) != text)):
        most = LONGEST[name]
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is a text of at most {most:,} characters.")
    return text
