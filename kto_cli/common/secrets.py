"""Removes secrets from text, in any spelling that a decoder would turn back into the secret.

A server, or a model behind it, may echo a key with JSON escapes, URL or HTML encoding, as base64 of a whole header, in
hex, or with other characters in between. Text is therefore decoded, decoded text is compared with the secret, and the
characters it came from are replaced.
"""

from __future__ import annotations

import base64
import binascii
import functools
import html
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

NAMES = (
    "KTO_JUDGE_KEY",
    "KTO_ENGINE_KEY",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "COMET_API_KEY",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "SWANLAB_API_KEY",
    "TRACKIO_TOKEN",
)
"""Environment variables with secrets of kto, the Hub and trackers."""
MARK = "[key]"
LEAST = 8
"""Characters of a secret; a shorter one (such as "EMPTY" for a local server) is a word of ordinary text and is removed
only behind "Bearer "."""
PARTS_FROM = 16
"""Characters of a secret whose beginning or end is recognized too: a server may echo it truncated or masked."""
DEPTH = 4
"""Encodings inside one another that are decoded."""
WORK, LEAST_WORK = 12, 2_000_000
"""Characters to decode, as a multiple of the text's and at least: a hostile text has millions of decodings. All single
encodings of a text of any size are within it."""
_RUN = re.compile(r"[A-Za-z0-9+/_\-]{12}")
_HEX_RUN = re.compile(r"[0-9A-Fa-f]{12}")
_ESCAPES = (
    # JSON, JavaScript, Python, C: \u0073, \u{73}, \U00000073, \x73, \163, \/
    r"\\+(?:u\{0*(?P<braced>[0-9A-Fa-f]{1,6})\}|u(?P<u>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})"
    r"|x(?P<x>[0-9A-Fa-f]{2})|(?P<octal>[0-7]{3})|(?P<other>[^\dA-Za-z\\]|[nrt]))",
    # URLs: %73, %u0073
    r"%(?:25)*(?:u(?P<wide>[0-9A-Fa-f]{4})|(?P<url>[0-9A-Fa-f]{2}))",
    # HTML: &#x73; &#115; &sol; - browsers take numbers without the semicolon too
    r"&(?:amp;)*(?:#[xX]0*(?P<hex>[0-9A-Fa-f]{1,6});|#0*(?P<decimal>[0-9]{1,7});|(?P<named>[A-Za-z][A-Za-z0-9]{1,30};))",
    r"&(?:#[xX]0*(?P<hex>[0-9A-Fa-f]{1,6});?|#0*(?P<decimal>[0-9]{1,7});?)",
    # quoted-printable: =73, and a line end behind =
    r"=(?:(?P<quoted>[0-9A-F]{2})|(?P<soft>\r?\n))",
)
"""Escapes by family, also nested in their own (%2573)."""
Origins = list[tuple[int, ...]]
"""For each decoded character, the indices of the characters it was decoded from."""


class Decoder(NamedTuple):
    """One way to decode text."""

    decode: Callable[[str], str]
    """The decoded text; empty where there is nothing to decode."""
    origins: Callable[[str], Origins]


class _Needle(NamedTuple):
    """A secret and its patterns."""

    secret: str
    pattern: re.Pattern[str]
    others: re.Pattern[str] | None
    """Other characters than the secret's, which may stand between its own."""


def scrub(text: str, *more: str) -> str:
    """`text` with `MARK` for each secret of the environment (`NAMES`), and for those in `more`."""
    for secret in dict.fromkeys((*more, *_of_environment())):
        hits = _hits(text, _needle(secret))
        if hits:
            text = _masked(text, hits)
    return text


def scrub_all(value: Any) -> Any:
    """A JSON value with all its texts scrubbed."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub_all(key): scrub_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub_all(item) for item in value]
    return value


def _of_environment() -> list[str]:
    return [secret for name in NAMES if (secret := os.environ.get(name, "").strip())]


@functools.lru_cache(maxsize=32)
def _needle(secret: str) -> _Needle:
    whole = re.escape(secret)
    if len(secret) < LEAST:
        return _Needle(secret, re.compile(rf"(?i:(?<=bearer )){whole}(?![A-Za-z0-9])"), None)
    if len(secret) < PARTS_FROM:
        return _Needle(secret, re.compile(whole), None)
    first, last = re.escape(secret[:8]), re.escape(secret[-6:])
    inside = r"[^\s\"'<>,\\\[\]{}\x7f-\xff]*"
    pattern = rf"{whole}|{first}{inside}|[^\s\"'<>,:=\\\[\]{{}}\x7f-\xff]*{last}(?![A-Za-z0-9])"
    return _Needle(secret, re.compile(pattern), re.compile(f"[^{re.escape(''.join(sorted(set(secret))))}]+"))


def _hits(text: str, needle: _Needle) -> set[int]:
    """Indices of the characters that belong to the secret; the least nested decodings are searched first."""
    found: set[int] = set()
    seen, waiting = {text}, deque[tuple[str, tuple[tuple[Decoder, str], ...]]]([(text, ())])
    budget = max(LEAST_WORK, WORK * len(text))
    while waiting:
        decoded, steps = waiting.popleft()
        hits = _matches(decoded, needle)
        for decoder, source in reversed(steps) if hits else ():
            origins = decoder.origins(source)
            hits = {index for hit in hits for index in origins[hit]}
        found |= hits
        for decoder in DECODERS if len(steps) < DEPTH else ():
            inner = decoder.decode(decoded) if budget > 0 else ""
            if inner and inner not in seen:
                seen.add(inner)
                budget -= len(inner)
                waiting.append((inner, (*steps, (decoder, decoded))))
    return found


def _matches(text: str, needle: _Needle) -> set[int]:
    """Indices of the secret in decoded text."""
    found = {index for match in needle.pattern.finditer(text) for index in range(*match.span())}
    if needle.others is not None and needle.secret in (squeezed := needle.others.sub("", text)):
        sources = [index for index, char in enumerate(text) if not needle.others.match(char)]
        start = squeezed.find(needle.secret)
        while start >= 0:
            found.update(sources[start : start + len(needle.secret)])
            start = squeezed.find(needle.secret, start + 1)
    return found


def _masked(text: str, hits: set[int]) -> str:
    """`text` with each run of hits replaced."""
    pieces: list[str] = []
    end = 0
    for index in sorted(hits):
        if not pieces or index > end:
            pieces += [text[end:index], MARK]
        end = index + 1
    return "".join(pieces) + text[end:]


# --- decoders --------------------------------------------------------------------------------------


def _character(match: re.Match[str]) -> str:
    """The character of one escape."""
    kind, digits = match.lastgroup, match[match.lastgroup or 0]
    if kind == "soft":
        return ""
    if kind == "other":
        return {"n": "\n", "r": "\r", "t": "\t"}.get(digits, digits)
    if kind == "named":
        decoded = html.unescape(f"&{digits}")
        return match[0] if decoded == f"&{digits}" else decoded
    code = int(digits, {"octal": 8, "decimal": 10}.get(kind or "", 16))
    return chr(code) if code <= 0x10FFFF else match[0]


def _escapes(pattern: str) -> Decoder:
    """One family of escapes."""
    compiled = re.compile(pattern, re.DOTALL)

    def origins(text: str) -> Origins:
        found: Origins = []
        end = 0
        for match in compiled.finditer(text):
            found += [(index,) for index in range(end, match.start())]
            found += [tuple(range(*match.span()))] * len(_character(match))
            end = match.end()
        return found + [(index,) for index in range(end, len(text))]

    return Decoder(lambda text: compiled.sub(_character, text), origins)


_STANDARD = str.maketrans("-_", "+/")


def _digits(text: str, pattern: str, skip: int) -> list[int]:
    return [match.start() for match in re.finditer(pattern, text)][skip:]


def _base64(skip: int) -> Decoder:
    """Base64, standard or URL-safe, line breaks allowed; `skip` digits first: the secret may start in any phase."""

    def decode(text: str) -> str:
        if not _RUN.search(text):
            return ""
        digits = re.sub(r"[^A-Za-z0-9+/_\-]+", "", text)[skip:].translate(_STANDARD)
        return base64.b64decode(digits[: len(digits) // 4 * 4] + _rest(digits)).decode("latin-1")

    def origins(text: str) -> Origins:
        indices = _digits(text, r"[A-Za-z0-9+/_\-]", skip)
        return [(indices[byte * 8 // 6], indices[(byte * 8 + 7) // 6]) for byte in range(len(indices) * 6 // 8)]

    return Decoder(decode, origins)


def _rest(digits: str) -> str:
    """The last, incomplete group, padded."""
    rest = digits[len(digits) // 4 * 4 :]
    return "" if len(rest) < 2 else rest + "=" * (4 - len(rest))


def _hex(skip: int) -> Decoder:
    """Pairs of hexadecimal digits."""

    def decode(text: str) -> str:
        if not _HEX_RUN.search(text):
            return ""
        digits = re.sub(r"[^0-9A-Fa-f]+", "", text)[skip:]
        return binascii.unhexlify(digits[: len(digits) // 2 * 2]).decode("latin-1")

    def origins(text: str) -> Origins:
        indices = _digits(text, r"[0-9A-Fa-f]", skip)
        return [(indices[2 * byte], indices[2 * byte + 1]) for byte in range(len(indices) // 2)]

    return Decoder(decode, origins)


DECODERS: Sequence[Decoder] = (
    *map(_escapes, _ESCAPES),
    *(_base64(skip) for skip in range(4)),
    *(_hex(skip) for skip in range(2)),
)
