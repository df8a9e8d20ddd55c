"""Keys of services, private keys, and passwords in addresses of the web, by their well-known shapes.

No quantifier can be matched in more than one way (bounds, a look-behind at the start of a run): a
hostile text of a megabyte costs no more than an ordinary one.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any

from kto_cli.common.read import parse_json

Span = tuple[int, int]

ABOUT_FORMS = re.compile(r"regex|regular expression|re\.match|\bis_?valid|valid(?:at|\b)", re.IGNORECASE)
"""Texts on how such values are checked, which hold examples of them."""

KEY = re.compile(
    r"(?<![\w-])(?:sk-(?:proj-|svcacct-|ant-\w{3,6}-|or-v1-|lf-)?[\w-]{20,}|[sr]k_live_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z2-7]{16}"
    r"|gh[opsru]_[A-Za-z0-9]{36}|github_pat_\w{60,}|glpat-[\w-]{20}|xox[abeoprs]-[\w-]{20,}|xapp-[\w-]{20,}|AIza[\w-]{35}"
    r"|hf_[A-Za-z]{34}|SG\.[\w-]{22}\.[\w-]{43}|npm_[A-Za-z0-9]{36}|pypi-AgEI[\w-]{50,}|gsk_[A-Za-z0-9]{52}|GOCSPX-[\w-]{28}"
    r"|whsec_[A-Za-z0-9+/]{32,}|dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|r8_[A-Za-z0-9]{37}|\d{8,10}:AA[\w-]{33})(?![\w-])"
)
LEAST_DRAWN = 16
"""Letters and digits of a key without a sign between them; else it is a name in kebab case."""
EXAMPLE_KEY = re.compile(r"(?i)example|your|xxx|abcdef|12345|test|dummy|placeholder|secret|(.)\1{4}")
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])+(?:[\w-]+: [^\n]*\n\s*)*"
    r"[A-Za-z0-9+/=](?:[A-Za-z0-9+/=\s]|\\[nr]){39,}(?:-----END [A-Z ]{3,40}-----)?"
)
TOKEN = re.compile(r"(?<![\w.-])(eyJ[\w-]{8,})\.(eyJ[\w-]{8,})\.[\w-]{20,}")
EXAMPLE_TOKEN = re.compile(r'"1234567890"|John Doe')
"""The token that the format's own site shows."""
ASSIGNED = re.compile(
    r"(?i)(?:api[_ -]?key|access[_ -]?key|secret|token|passw(?:or)?d|authorization: bearer)"
    r"[\"']?\s{0,3}[:=]?\s{0,3}[\"']?"
    r"(?<![A-Za-z0-9])([\w+/.~-]{16,200}={0,2})"
)
"""A value that is called a key or a password."""

LOGIN = re.compile(r"://([^\s/:@\"'<>`]{1,100}):([^\s/@\"'<>`]{1,200})@([^\s/@\"'<>`]{1,253})")
EXAMPLE_LOGIN = re.compile(
    r"(?:<|\$|\{|\[|%[a-z(]|\*\*|\.\.\.)|(?:my|your|some|the|db|bot)?[_-]?(?:user|pass|pw|passw(?:or)?d|secret|token|example|test|admin"
    r"|xxx|key|name|guest|root|postgres)(?:name|word)?\d{0,3}$",
    re.IGNORECASE,
)
"""Passwords of manuals, and variables in their place."""
LOCAL_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|[\w.-]{0,200}\bexample(?:\.[a-z]+)?)(?::\d+)?$", re.IGNORECASE)


def keys(text: str, wide: bool) -> Iterator[Span]:
    """Spans of private keys, keys and tokens; with `wide` also of random values that are called a key or a password."""
    if may_hold_key(text):
        for match in PRIVATE_KEY.finditer(text):
            yield match.span()
        if wide or not ABOUT_FORMS.search(text):
            for match in KEY.finditer(text):
                if is_random(match[0]):
                    yield match.span()
            for match in TOKEN.finditer(text):
                if is_token(match[1], match[2]):
                    yield match.span()
    if wide and may_hold_value(text):
        for match in ASSIGNED.finditer(text):
            if is_random(match[1]) and any(map(str.isdigit, match[1])) and any(map(str.isalpha, match[1])):
                yield match.span(1)


def may_hold_key(text: str) -> bool:
    """Whether a text has the start of a key; `any` over a list of them takes four times as long."""
    if (
        "AKIA" in text
        or "ASIA" in text
        or "AIza" in text
        or "eyJ" in text
        or "SG." in text
        or "dapi" in text
        or ":AA" in text
    ):
        return True
    if "-" in text and ("sk-" in text or "xox" in text or "xapp-" in text or "glpat-" in text or "PRIVATE KEY" in text):
        return True
    if "-" in text and ("pypi-" in text or "GOCSPX-" in text):
        return True
    if "_" not in text:
        return False
    if "k_live_" in text or "gh" in text or "hf_" in text or "npm_" in text:
        return True
    return "gsk_" in text or "whsec_" in text or "dop_" in text or "r8_" in text


def may_hold_value(text: str) -> bool:
    """Whether a text has one of the words before a value that is called a key."""
    text = text.lower()
    if "token" in text or "secret" in text or "passw" in text:
        return True
    return "api" in text or "access" in text or "bearer" in text


def logins(text: str, wide: bool) -> Iterator[Span]:
    """Spans of NAME:PASSWORD in addresses such as https://NAME:PASSWORD@host."""
    for match in LOGIN.finditer(text):
        if not EXAMPLE_LOGIN.match(match[2]) and (wide or not LOCAL_HOST.match(match[3])):
            yield match.start(1), match.end(2)


def is_random(key: str) -> bool:
    """Whether a key has letters and digits as if drawn, and none of the words of examples."""
    drawn = re.sub(r"^(?:AKIA|ASIA|AIza|[a-z]+[-_.])", "", key[:4096])
    if max(map(len, re.split("[-_]", drawn))) < LEAST_DRAWN:
        return False
    return (
        len(set(drawn)) >= min(10, len(drawn) // 2)
        and not EXAMPLE_KEY.search(drawn)
        and not re.search("[a-z]{12}", drawn)
    )


def is_token(header: str, payload: str) -> bool:
    """Whether the first part of a JSON web token names its algorithm."""
    texts = [_decoded(part) for part in (header, payload)]
    values: Any
    try:
        values = parse_json(texts[0])
    except ValueError:
        return False
    return isinstance(values, dict) and "alg" in values and not EXAMPLE_TOKEN.search(texts[1])


def _decoded(part: str) -> str:
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8", "replace")
    except ValueError:
        return ""
