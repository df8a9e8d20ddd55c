"""MinHash sketches of prompts, 32 bytes each, to find nearly equal prompts among millions.

Features of a prompt are the words of its user turns and the pairs of neighbouring words, after folding (`features`);
similarity of two prompts is the Jaccard index of their features: shared / all. A sketch holds one bit (Li and Koenig
2010, "b-Bit minwise hashing", arXiv 0910.3349) of each of 128 min-hashes (Broder 1997, "On the resemblance and
containment of documents"): two prompts agree in (1 + Jaccard) / 2 of these bits, which estimates the Jaccard index to
about 0.06. It also holds six band keys, each a hash of three min-hashes and equal with probability Jaccard^3: only
prompts that share a key are compared.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from zlib import crc32

import numpy
from numpy.typing import NDArray

from kto_cli.data.formats.records import Text

WIDTH = 4
"""64-bit numbers in a sketch: two of min-hash bits, then two of band keys."""
HASHES = 128
BANDS = 6
PER_BAND = 3
KEY_BITS = 21

ALIKE = 0.7
"""Least Jaccard index of nearly equal prompts: one word of ten may differ."""
RELATED = 0.5
"""Least Jaccard index of every prompt of a cluster with the cluster's first prompt."""
NEIGHBOURS = 8
"""Comparisons per prompt and band key: with the next prompts in the order of the next band's key."""
FEWEST_WORDS = 8
"""Shorter prompts must be equal except for case, spacing and punctuation at the ends of words: in "what is 2+2" every
character counts."""
MOST_WORDS = 1024
"""Of a longer prompt, the first and the last 512 words are used."""

_random = numpy.random.RandomState(20120312)
FACTORS = (_random.randint(0, 2**31, HASHES).astype(numpy.uint32) << 1) | 1
"""Hash number i of a feature is feature * FACTORS[i] modulo 2^32."""
TO_BIT = numpy.uint32(0x9E3779B1)
TO_PAIR = numpy.uint32(0x2C1B3C6D)
TO_KEYS = numpy.zeros((BANDS * PER_BAND, BANDS), numpy.uint32)
"""A band key is the sum of three min-hashes, each times an odd number."""
for _band in range(BANDS):
    TO_KEYS[_band * PER_BAND :, _band][:PER_BAND] = (0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)
PACK = numpy.zeros((BANDS, 2), numpy.uint64)
"""Three keys fit in 64 bits."""
for _band in range(BANDS):
    PACK[_band, _band // 3] = 1 << (KEY_BITS * (_band % 3))

EDGES = ".,;:!?\"'()[]{}<>`*_-~"
KEPT_SIGNS = "+=<>^%$#@&"
"""Characters that are part of words: C++, 5%, $0."""
GLUE = "'`"
"""Removed without a gap: don't becomes dont."""
_FOLDED = {
    **{chr(code): " " for code in range(128) if not chr(code).isalnum() and chr(code) not in KEPT_SIGNS},
    **dict.fromkeys("0123456789", "0"),
    **{chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)},
}
ASCII_TABLE = bytes(ord(_FOLDED.get(chr(code), chr(code))) if code < 128 else code for code in range(256))
CURLY = str.maketrans("‘’“”–—…\u00a0", "''\"\"--. ")


class _Fold(dict[int, str]):
    """Table for `str.translate`, filled as characters occur: punctuation becomes a space, a digit 0, and a letter of a
    script without spaces (Han, kana, Thai, ...) a word of its own."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        folded = character
        if character in GLUE:
            folded = ""
        elif category == "Nd":
            folded = "0"
        elif category == "So" or _unspaced(code):
            folded = f" {character} "
        elif category[0] in "PZCS" and character not in KEPT_SIGNS:
            folded = " "
        self[code] = folded
        return folded


def _unspaced(code: int) -> bool:
    """Whether a character is Han, kana, bopomofo, Thai, Lao, Myanmar or Khmer."""
    return (
        0x3040 <= code <= 0x312F
        or 0x3400 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
        or 0x0E00 <= code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x1780 <= code <= 0x17FF
    )


FOLD = _Fold()


def asked(prompt: Text) -> str:
    """Text of all user turns. System messages (often the same in all prompts) and earlier answers do not count."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(turn["content"] for turn in prompt if turn["role"] == "user")


def folded_words(text: str) -> list[bytes]:
    """Words of a text, Unicode-normalized, without case and punctuation, numbers as 0.

    Of a text with fewer than FEWEST_WORDS: one item, the text without case and punctuation at the ends of words.
    """
    if not text.isascii():
        text = text.translate(CURLY)
    if text.isascii():
        raw = text.encode().translate(ASCII_TABLE, b"'`")
    else:
        raw = unicodedata.normalize("NFKC", text).casefold().translate(FOLD).encode("utf-8", "surrogatepass")
    while b"00" in raw:
        raw = raw.replace(b"00", b"0")
    words = raw.split()
    if len(words) >= FEWEST_WORDS:
        return words if len(words) <= MOST_WORDS else words[: MOST_WORDS // 2] + words[-MOST_WORDS // 2 :]
    as_they_are = unicodedata.normalize("NFKC", text).casefold().split()
    bare = [word for word in (word.strip(EDGES) for word in as_they_are) if word]
    return [" ".join(bare or as_they_are).encode("utf-8", "surrogatepass")]


def features(prompts: Sequence[list[bytes]]) -> Iterator[NDArray[numpy.uint32]]:
    """Of each prompt's words [2 * words - 1] hashes: of words and, between them, of pairs of neighbouring words."""
    single = numpy.array(array("I", map(crc32, chain.from_iterable(prompts))), numpy.uint32)
    both = numpy.empty(2 * len(single), numpy.uint32)
    both[::2] = single
    both[1:-1:2] = single[:-1] * TO_PAIR + single[1:]
    end = 0
    for words in prompts:
        start, end = end, end + len(words)
        yield both[2 * start : 2 * end - 1]


def sketches(prompts: Sequence[Text]) -> NDArray[numpy.uint64]:
    """Sketches of prompts ([prompts, WIDTH]), the same on every machine and in every run."""
    least = numpy.empty((len(prompts), HASHES), numpy.uint32)
    for hashed, hashes in zip(features([folded_words(asked(prompt)) for prompt in prompts]), least, strict=True):
        numpy.minimum.reduce(hashed[:, None] * FACTORS, out=hashes)
    bits = numpy.packbits(least * TO_BIT >> 31 != 0, axis=1).view(">u8").astype(numpy.uint64)
    keys = (least[:, : BANDS * PER_BAND] @ TO_KEYS) >> (32 - KEY_BITS)
    return numpy.concatenate((bits, keys.astype(numpy.uint64) @ PACK), axis=1)
