"""URLs of chat servers, and their keys, which cannot be printed by mistake."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from kto_cli.common.errors import BadInput
from kto_cli.common.secrets import scrub

JUDGE_KEY, ENGINE_KEY = "KTO_JUDGE_KEY", "KTO_ENGINE_KEY"
"""Environment variables of the judge's key and of the key to the server that answers; neither is sent to the other."""
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_HOST = "api.openai.com"
ENDPOINT = "/chat/completions"


class Key:
    """A secret that `str`, `repr` and pickling do not reveal."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "[key]"

    def __reduce__(self) -> tuple[type[Key], tuple[str]]:
        raise TypeError("A key is never stored.")

    def header(self) -> str:
        """The value of an Authorization header."""
        return f"Bearer {self._secret}"

    def redact(self, text: str) -> str:
        """`text` without the key, however it is encoded."""
        return scrub(text, self._secret)


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
    """The part of a URL before /chat/completions, from http://host:port, .../v1 or .../v1/chat/completions.

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
        raise BadInput(fault, f"Give the address alone, such as https://host/v1, and the key in {keys}.")
    path = parts.path.rstrip("/").removesuffix(ENDPOINT)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def travels_open(url: str) -> bool:
    """Whether a key sent there could be read on the way: no TLS, and another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and (parts.hostname or "") not in ("localhost", "127.0.0.1", "::1")
