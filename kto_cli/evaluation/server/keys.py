"""Where a chat server is and the key to it: the key is held so that it cannot be printed by mistake."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from kto_cli.common.errors import BadInput

JUDGE_KEY, ENGINE_KEY = "KTO_JUDGE_KEY", "KTO_ENGINE_KEY"
"""Where keys are read from: one for the judge, one for the server that answers; neither goes to the other."""
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_HOST = "api.openai.com"
ENDPOINT = "/chat/completions"
_LONG_ENOUGH = 12
"""A key of so many characters is known by its first and its last ones too."""


class Key:
    """A secret: `str`, `repr` and pickling do not give it away; it is put into a request by the one who sends that."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "[key]"

    def __reduce__(self) -> tuple[type[Key], tuple[str]]:
        raise TypeError("A key is not written down.")

    def header(self) -> str:
        """The value of an Authorization header."""
        return f"Bearer {self._secret}"

    def redact(self, text: str) -> str:
        """`text` without the key: whole, or what begins as it does (a server may echo it cut or masked)."""
        text = text.replace(self._secret, "[key]")
        if len(self._secret) < _LONG_ENOUGH:
            return text
        begins, ends = re.escape(self._secret[:8]), re.escape(self._secret[-6:])
        return re.sub(rf"{begins}[^\s\"'<>,]*|[^\s\"'<>,:=]*{ends}(?![A-Za-z0-9])", "[key]", text)


def key_for(url: str, name: str = JUDGE_KEY) -> Key | None:
    """The key to send to this server: the environment's `name` to any, $OPENAI_API_KEY to OpenAI's own and to no other.

    Raises:
        BadInput: it holds what no header can.
    """
    host = (urlsplit(url).hostname or "").lower()
    openai = host == OPENAI_HOST and urlsplit(url).scheme == "https"
    for known in (name, OPENAI_KEY) if openai else (name,):
        secret = os.environ.get(known, "").strip()
        if not secret:
            continue
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise BadInput(f"${known} holds characters that no key has (spaces, line ends, accents).", "Set it again.")
        return Key(secret)
    return None


def base_url(url: str) -> str:
    """http://host:port, .../v1 or .../v1/chat/completions as what /chat/completions follows.

    Raises:
        BadInput: it is none of them, or holds a user name, a password or a query (none of which would stay secret).
    """
    asked = url.strip()
    try:
        parts = urlsplit(asked)
        host = (parts.hostname or "").encode("idna")
        good = parts.scheme in ("http", "https") and host != b"" and parts.port != 0
        good = good and asked.isprintable() and " " not in asked
    except ValueError:
        good = False
    if not good:
        shown = asked if "@" not in asked and "?" not in asked else "That"
        raise BadInput(f"{shown} is not the URL of a server.", "Give one such as http://localhost:8000/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        fault = f"The URL of the server at {parts.hostname} holds more than a place (a user, a password or a query)."
        keys = f"${JUDGE_KEY} or ${ENGINE_KEY}"
        raise BadInput(fault, f"Give the place alone, such as https://host/v1, and the key in {keys}.")
    path = parts.path.rstrip("/").removesuffix(ENDPOINT)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def travels_open(url: str) -> bool:
    """A key sent there could be read on the way: no TLS, and not this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and (parts.hostname or "") not in ("localhost", "127.0.0.1", "::1")
