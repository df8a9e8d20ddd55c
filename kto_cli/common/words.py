"""Words for the screen: numbers with their nouns, and texts that are safe to print."""

from __future__ import annotations

import re
from typing import Any

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u206f\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")
"""Control characters, line separators, overrides of the writing direction and lone surrogates: they could move the
cursor, hide or reorder text, or not be encoded. Joiners, direction marks and other spaces are ordinary text."""


def printable(text: Any, keep: str = "") -> str:
    """`text` with each unsafe character escaped, but for those in `keep`; one line unless line ends are kept."""

    def escaped(match: re.Match[str]) -> str:
        return match[0] if match[0] in keep else match[0].encode("unicode_escape", "surrogatepass").decode()

    return UNSAFE.sub(escaped, str(text))


def plural(count: int, noun: str, nouns: str = "") -> str:
    """`1 row`, `2,000 rows`; `nouns` is the plural where it is not noun + s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def readable(count: float) -> str:
    """Bytes for people: 12.3 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
