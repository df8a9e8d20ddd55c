"""Text whose UTF-8 bytes were decoded with another encoding (mojibake), restored only where that is certain.

"â€™" is the three bytes of ’ read as Windows-1252. But "Å³" is also the two bytes of ų, and as cubic angstrom it is
correct; so is « café » with a no-break space, which is the bytes of a Chinese character. A run of characters that are
valid UTF-8 is restored if no correct text has it in this place (`_is_certain`), or if it is unusual and the text has a
certain run of the same encoding (`_is_likely`). Everything else stays as it is, and so does a text about encodings.

U+0080 to U+009F are control characters that nobody writes: they are Windows-1252 read as Latin-1.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

ENCODINGS = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "iso8859_2", "mac_roman", "cp437")
"""Encodings that text is wrongly decoded with. Latin-1 is cp1252 with control characters."""
MOST_ROUNDS = 3
"""Times that a text may have been decoded wrongly, one on top of the other."""
ABOUT_ENCODINGS = re.compile(
    r"mojibake|utf-?8|latin-?1|windows-?125\d|cp-?125\d|iso-?8859|charset|character (?:set|encoding)|ftfy",
    re.IGNORECASE,
)
FOLLOWS_LETTER = frozenset("\xa0\xad’‘“”…–—»«›‹‚„™®©°·•¿¡¹²³ªº±´")
"""Characters that correct text has right after an accented letter: closing marks, powers, units."""
POWERS = frozenset("¹²³°·±™®©")
QUOTES = frozenset("‘’“”–—…•™")
MATH = frozenset("πΩ∑∏∫µ∂±∞≤≥≠°")
"""Characters that follow √ in formulas, and are continuation bytes in Mac OS Roman."""
CYRILLIC_TAIL = frozenset("Ѓѓ‚„…†‡€‰‹•™›¤¦§¬¶µ°±·\xa0\xadџўќћњљђ")
NO_BREAK_SPACE_LOST = re.compile(r"(?<=[a-z])Ã  ?(?=[a-z])|(?<![^\W\d_])Ã  ?(?=la\b)")
"""à, whose second byte, a no-break space, became a plain space."""
CLOSING_QUOTE_CUT = re.compile(r"â€(?=[\s.,;:!?)]|$)")
"""”, whose last byte is not defined in Windows-1252 and was dropped."""


@dataclass(frozen=True, eq=False)
class Codec:
    """One encoding that UTF-8 may have been decoded with."""

    name: str
    byte_of: dict[str, int]
    one: str
    """Pattern of characters whose bytes have the form of UTF-8 of one character; `re` compiles it where it is used."""


class Run(NamedTuple):
    """Characters that are valid UTF-8 in some encoding, and where they are."""

    parts: list[str]
    """One text per character of `restored`."""
    restored: str
    before: str
    """The character before; empty at the start."""
    after: str
    """The two characters after."""
    text_before: str
    """The last few characters before."""


def _codec(name: str) -> Codec:
    chars = {byte: bytes([byte]).decode(name, "ignore") or chr(byte) for byte in range(0x80, 0x100)}
    byte_of = {char: byte for byte, char in chars.items()}
    if name in ("cp1252", "iso8859_2"):
        byte_of |= {chr(byte): byte for byte in range(0x80, 0xA0)}

    def some(low: int, high: int) -> str:
        found = [char for char, byte in byte_of.items() if low <= byte <= high]
        return f"[{re.escape(''.join(found))}]"

    tail = some(0x80, 0xBF)
    two = some(0xC2, 0xDF) + tail
    three = f"(?:{some(0xE0, 0xE0)}{some(0xA0, 0xBF)}|{some(0xE1, 0xEF)}{tail}){tail}"
    four = f"{some(0xF0, 0xF0)}{some(0x90, 0xBF)}{tail}{tail}"  # all that is assigned begins with F0, but for tags
    one = f"(?:{two}|{three}|{four})"
    return Codec(name, byte_of, one)


CODECS = [_codec(name) for name in ENCODINGS]
C1 = re.compile("[\x80-\x9f]")
C1_CHARS = {code: char for code in range(0x80, 0xA0) if (char := bytes([code]).decode("cp1252", "ignore"))}
"""Control characters with the signs that Windows-1252 has in their place; five have none."""


def _some_pair() -> re.Pattern[str]:
    """First two bytes of a UTF-8 character in any of the encodings."""
    first, second = (
        re.escape(
            "".join(sorted({char for codec in CODECS for char, byte in codec.byte_of.items() if low <= byte <= high}))
        )
        for low, high in ((0xC2, 0xF4), (0x80, 0xBF))
    )
    return re.compile(f"[{first}][{second}]|\xc3 |^ï»¿")


SOME_PAIR = _some_pair()


def restore(text: str) -> str:
    """Text as it was before its bytes were decoded wrongly; unchanged where that is not certain."""
    if text.isascii():
        return text
    for _ in range(MOST_ROUNDS):
        restored = _once(text) if SOME_PAIR.search(text) and not ABOUT_ENCODINGS.search(text) else text
        if restored == text:
            break
        text = restored
    return text.translate(C1_CHARS) if C1.search(text) else text


def _once(text: str) -> str:
    """Text with one layer of wrong decoding removed."""
    text = text.removeprefix("ï»¿")  # the byte order mark
    found_by = {codec: _runs(codec, text) for codec in CODECS}

    def explained(codec: Codec) -> int:
        return sum(len(match.group()) for match, _ in found_by[codec])

    for codec in sorted(
        CODECS, key=explained, reverse=True
    ):  # most of the text first: cp1250 and iso8859_2 share letters
        found = found_by[codec]
        certain = [_is_certain(codec, run) for _, run in found]
        if not any(certain):
            continue
        pieces, end = [], 0
        for (match, run), sure in zip(found, certain, strict=True):
            pieces.append(text[end : match.start()])
            pieces.append(run.restored if sure or _is_likely(codec, run) else match.group())
            end = match.end()
        restored = "".join((*pieces, text[end:]))
        return CLOSING_QUOTE_CUT.sub("”", restored) if codec.name == "cp1252" else restored
    return NO_BREAK_SPACE_LOST.sub("à ", text)


def _runs(codec: Codec, text: str) -> list[tuple[re.Match[str], Run]]:
    """Runs of a text that decode to printable characters."""
    found = []
    for match in re.finditer(f"{codec.one}+", text):
        try:
            restored = bytes(codec.byte_of[char] for char in match.group()).decode()
        except UnicodeDecodeError:  # surrogates
            continue
        if not all(_is_written(char, codec) for char in restored):
            continue
        start, end = match.span()
        before, after = text[max(0, start - 3) : start], text[end : end + 2]
        found.append((match, Run(re.findall(codec.one, match.group()), restored, before[-1:], after, before)))
    return found


def _is_written(char: str, codec: Codec) -> bool:
    """Whether people write this character: no private or unassigned one, and U+FFFD restores nothing.

    Invisible characters (Cf, such as the joiner in emoji) are believed in the most frequent encoding alone.
    """
    unlikely = ("Cn", "Co", "Cs") if codec.name == "cp1252" else ("Cn", "Co", "Cs", "Cf")
    return char != "\ufffd" and unicodedata.category(char) not in unlikely


def _is_certain(codec: Codec, run: Run) -> bool:
    """Whether no correct text has this run in this place."""
    if unicodedata.combining(run.restored[0]) and not run.before:
        return False
    if any(C1.search(part) for part in run.parts) and codec.name == "cp1252":
        return True
    lead = codec.byte_of[run.parts[0][0]]
    if any(len(part) > 2 and _is_certain_symbol(codec, part, run) for part in run.parts):
        return True
    if len(run.parts) == 1:
        return lead <= 0xC5 and len(run.parts[0]) == 2 and _is_certain_pair(codec, run.parts[0], run)
    if all(len(part) == 2 for part in run.parts):
        return _is_certain_word(codec, run)
    tails = {char for part in run.parts for char in part[1:]}
    long = sum(len(part) > 2 for part in run.parts)
    return codec.name == "cp1252" and (long > 1 or not tails <= FOLLOWS_LETTER)  # such as two Chinese characters


def _is_certain_symbol(codec: Codec, part: str, run: Run) -> bool:
    """Whether three or four characters are a character of UTF-8: ’ “ – … → €, emoji, Chinese."""
    codes = [codec.byte_of[char] for char in part]
    if codes[0] == 0xE2 and codes[1] == 0x80:
        return True
    if codes[0] == 0xF0:
        return codes[1] == 0x9F
    if codec.name != "cp1252" or (part[1] == "†" and run.before in ("‘", "“")):  # ‘â†’ may be an operator in quotes
        return False
    return not set(part[1:]) <= FOLLOWS_LETTER


def _is_certain_pair(codec: Codec, pair: str, run: Run) -> bool:
    """Whether two characters are a letter or sign of Latin-1 or Latin Extended-A."""
    lead, tail = pair[0], pair[1]
    lower_before = run.before.isascii() and run.before.islower()
    lower_after = run.after[:1].isascii() and run.after[:1].islower()
    if codec.name not in ("cp1252", "cp1254"):
        if lead == "√" and tail in MATH:
            return False
        return lower_before and not _is_box(tail) and (lead == "√" or tail not in FOLLOWS_LETTER or lower_after)
    upper_before = run.before.isalpha() and not lower_before
    if lead == "Â":
        return _is_certain_sign(tail, run, lower_before, upper_before)
    if lead != "Ã" and tail in POWERS:  # Å³ and its like
        return False
    if tail in QUOTES:
        if lead == "Ã" and tail == "—":  # × between numbers
            return bool(re.search(r"\d ?$", run.text_before)) and run.after[:1] in (" ", *"0123456789")
        starts = not run.before.isalnum() and run.after[:2].isascii() and len(run.after) == 2 and run.after.islower()
        starts = starts and run.after.isalpha() and tail not in ("—" if lead == "Ã" else "–—…")
        return (lower_before and lower_after) or starts  # Österreich, but not: the letter Å—the angstrom
    if lower_before or (lower_after and not upper_before):
        return True
    return lead == "Ã" and (tail not in FOLLOWS_LETTER or (not upper_before and tail not in "¹²³\xa0»«"))


def _is_certain_sign(tail: str, run: Run, lower_before: bool, upper_before: bool) -> bool:
    """Whether Â and a sign are the two bytes of that sign: 25Â°C, Â£5, Â¿QuÃ©? Not the operator Â²."""
    if "\x80" <= tail <= "\x9f" or ord(tail) > 0xFF:  # restored to U+0080 to U+009F: quotes and dashes, decoded twice
        return tail in QUOTES and lower_before and run.after[:1].isalnum()
    if tail in "°±·²³¹»´":
        return lower_before or run.before.isdigit() or (run.before == ")" and tail not in "»´")
    if tail == "\xa0":
        return bool(run.before) and not run.before.isspace() and not upper_before
    return not upper_before


def _is_certain_word(codec: Codec, run: Run) -> bool:
    """Whether several pairs in a row are letters of one script: Привет, שלום."""
    tails = {part[1] for part in run.parts}
    if codec.name == "cp1251":
        return len(run.parts) >= 3 and {part[0] for part in run.parts} <= {"Р", "С"} and bool(tails & CYRILLIC_TAIL)
    if codec.name not in ("cp1252", "cp1254"):
        return any(_is_certain_pair(codec, part, run) for part in run.parts[:1])
    if _is_certain_pair(codec, run.parts[0], run):
        return True
    scripts = {unicodedata.name(char, "?").split()[0] for char in run.restored}
    if not all(char.isalpha() or unicodedata.combining(char) for char in run.restored) or len(scripts) > 1:
        return False
    return len(run.parts) >= 3 or not tails <= FOLLOWS_LETTER


def _is_box(char: str) -> bool:
    """Whether a character draws boxes, as in a table of cp437."""
    return "\u2500" <= char <= "\u259f"


def _is_likely(codec: Codec, run: Run) -> bool:
    """Whether to restore a run in a text that has a certain one: all that correct text hardly has."""
    if len(run.parts) > 1:
        return True
    part = run.parts[0]
    lead, tails = codec.byte_of[part[0]], set(part[1:])
    if _is_box(part[0]) and any(map(_is_box, tails)):
        return False
    if part == "Ã\xa0":
        return not run.before.isalpha()
    if lead in (0xC3, 0xC4, 0xC5) or len(part) == 3:
        beside = run.before[-1:].islower() or run.after[:1].islower()
        return (beside and len(part) == 2) or not tails <= FOLLOWS_LETTER
    return True
