"""Secrets in any spelling are removed, and nothing else is."""

from __future__ import annotations

import base64
import html
import json
import random
from collections.abc import Callable
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.common.secrets import MARK, scrub, scrub_all

SECRET = "sk-JUDGE-0123456789-SECRET"


def some(text: str, draw: random.Random, spell: Callable[[str], str]) -> str:
    """`text` with about half of its ASCII characters spelled in another way, the first one always, and those that begin
    an escape, which a decoder would take for one."""
    chosen = [
        char.isascii() and (not index or char in "\\\\%&=" or draw.random() < 0.5) for index, char in enumerate(text)
    ]
    return "".join(spell(char) if other else char for char, other in zip(text, chosen, strict=True))


def json_escape(char: str) -> str:
    return f"\\u{ord(char):04x}"


SPELLINGS: dict[str, Callable[[str, random.Random], str]] = {
    "JSON": lambda text, draw: some(text, draw, json_escape),
    "JSON twice": lambda text, draw: some(text, draw, lambda char: "\\" + json_escape(char)),
    "URL": lambda text, draw: some(text, draw, lambda char: f"%{ord(char):02x}"),
    "URL twice": lambda text, draw: quote(some(text, draw, lambda char: f"%{ord(char):02X}")),
    "HTML hex": lambda text, draw: some(text, draw, lambda char: f"&#x{ord(char):X};"),
    "HTML decimal": lambda text, draw: some(text, draw, lambda char: f"&#{ord(char):03d};"),
    "HTML twice": lambda text, draw: html.escape(some(text, draw, lambda char: f"&#{ord(char)};")),
    "Python": lambda text, draw: some(text, draw, lambda char: f"\\x{ord(char):02x}"),
    "octal": lambda text, draw: some(text, draw, lambda char: f"\\{ord(char):03o}"),
    "JavaScript": lambda text, draw: some(text, draw, lambda char: f"\\u{{{ord(char):x}}}"),
    "quoted-printable": lambda text, draw: some(text, draw, lambda char: f"={ord(char):02X}"),
    "hex": lambda text, draw: text.encode().hex(),
    "base64": lambda text, draw: base64.b64encode(text.encode()).decode(),
    "base64, URL-safe": lambda text, draw: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 in lines": lambda text, draw: base64.encodebytes((text * 3).encode()).decode(),
    "as it is": lambda text, draw: text,
}
APART: dict[str, Callable[[str, random.Random], str]] = {
    "spaced": lambda text, draw: " ".join(text),
    "zero width": lambda text, draw: "\u200b".join(text),
    "list of characters": lambda text, draw: json.dumps([*text]),
}
"""Not what a decoder reads, but what a person or a model can put together."""


@settings(deadline=None, max_examples=120)
@given(
    alphabet=st.sampled_from(["abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "0123456789-_.~+/="]),
    size=st.integers(16, 80),
    before=st.text(max_size=9),
    header=st.sampled_from(["", "Bearer ", "Authorization: Bearer ", "xx", "x"]),
    after=st.text(max_size=9),
    inner=st.sampled_from(sorted(SPELLINGS | APART)),
    outer=st.sampled_from(sorted(SPELLINGS)),
    seed=st.integers(0, 1000),
)
def test_no_spelling_of_a_key_is_left(alphabet, size, before, header, after, inner, outer, seed):
    """One or two encodings inside each other, with any text around: after each decoding step the key would appear; in
    the scrubbed text it does not."""
    draw = random.Random(seed)
    secret = "".join(draw.choices(alphabet, k=size))
    spelled = SPELLINGS[outer]((SPELLINGS | APART)[inner](header + secret, draw), draw)
    text = scrub(f"{before} {spelled} {after}", secret)
    assert MARK in text
    assert secret not in text
    for piece in (secret[:10], secret[-10:], secret[3:13]):
        for decoded in (text, unquote(text), html.unescape(text), text.encode().decode("unicode_escape", "replace")):
            assert piece not in decoded


@given(st.text(max_size=300))
def test_text_without_a_key_is_unchanged(text):
    assert scrub(text, SECRET, "EMPTY", "hf_abcdefghijklmnop") == text


@pytest.mark.parametrize("phase", range(3))
def test_every_phase_of_base64(phase):
    """A key starts at any of three bit positions of its base64."""
    spelled = base64.b64encode(f"{'x' * phase}{SECRET} and more".encode()).decode()
    text = scrub(f"token {spelled}", SECRET)
    assert MARK in text
    assert b"0123456" not in base64.b64decode(text.replace("token ", "").replace(MARK, "AAAA") + "==")


def test_what_a_server_cuts_or_masks_is_removed_too():
    for echoed in (SECRET[:12], f"{SECRET[:8]}...", f"****{SECRET[-6:]}", "".join(map(json_escape, SECRET[:11]))):
        assert scrub(f"Incorrect key: {echoed}", SECRET) == f"Incorrect key: {MARK}"


def test_json_stays_json():
    body = (
        '{"content": "key: ' + "".join(map(json_escape, SECRET)) + '\\nVerdict: A", "echo": "' + SECRET[:9] + '\\"x"}'
    )
    found = json.loads(scrub(body, SECRET))
    assert found["content"] == f"key: {MARK}\nVerdict: A"


def test_a_word_for_a_local_server_is_no_secret():
    """KTO_ENGINE_KEY=EMPTY must not change what a model answers."""
    assert scrub("EMPTY is a word", "EMPTY") == "EMPTY is a word"
    assert scrub("Authorization: Bearer EMPTY", "EMPTY") == f"Authorization: Bearer {MARK}"


def test_secrets_of_the_environment(monkeypatch):
    monkeypatch.setenv("KTO_ENGINE_KEY", SECRET)
    assert scrub_all({"a": [f"x {SECRET}", 1, None], SECRET: 0.5}) == {"a": [f"x {MARK}", 1, None], MARK: 0.5}
