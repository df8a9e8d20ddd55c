"""Personal data and keys in a text: which kinds it holds, and where.

Two nets over the same forms. The doctor reports a value if its form and its checksum leave little doubt; numbers and
names that manuals use as examples do not count. `wide`, for --scrub, takes what may be one: any e-mail address but
those of reserved hosts and offices (info@), phone numbers with a word such as `call` before them, random values that
are called a key. Not found: names, postal addresses, birthdays, passwords in words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kto_cli.data.audit.account_numbers import cards, ibans
from kto_cli.data.audit.found import ADDRESS, CARD, EMAIL, IBAN, LOGIN, PHONE, SECRET
from kto_cli.data.audit.secret_keys import ABOUT_FORMS, Span, keys, logins

NO_DIGITS = bytes(code for code in range(256) if code not in b"0123456789")

EMAIL_FORM = re.compile(r"(?<![\w.%+-])([\w.%+-]{1,64})@([^\W_][\w-]{0,63}(?:\.[\w-]{1,63}){1,20})")
LONGEST_NAME, LONGEST_HOST = 64, 253
"""Characters of the two parts of an address (RFC 5321, 1035)."""
EXAMPLE_HOSTS = re.compile(
    r"(?:^|[.-])(?:examples?|test|invalid|localhost|(?:my|your)\w*|domain|\w*company(?:name)?|website|site|e?mail|server|host"
    r"|(?:top)?university|school|abc|xyz|acme|foo|bar|sample|provider)\.[\w.]*$",
    re.IGNORECASE,
)
"""Hosts of examples; `email.com` and `mail.com` have real users, and far more made-up ones."""
RESERVED_HOSTS = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|test|example|invalid|localhost)$", re.IGNORECASE)
"""Hosts that nobody can have (RFC 2606)."""
EXAMPLE_NAMES = re.compile(
    r"(?:(?:\w+[.])?(?:your|my|some|the|user)[\w.-]*|(?:first|last|full)?[._-]?name|first[._-]?last\w*|e?mail|address|company|me|you|xx+|[a-z]"
    r"|(?:\w+[._-])?(?:john|jane)[._-]?(?:doe|smith)|jdoe|jsmith|example|test\w*|foo|bar|abc|xyz|alice|bob|person|no-?reply|git"
    r"|donotreply)[\d_]{0,4}$",
    re.IGNORECASE,
)
ROLES = re.compile(
    r"(?:info|support|contact|sales|billing|careers|jobs|hr|help|helpdesk|hello|admin|office|team|press|media|privacy|legal"
    r"|security|feedback|marketing|webmaster|postmaster|customer\w*|service|customer[._-]?\w+|[ei]nquir(?:y|ies)|order\w*"
    r"|returns|subscri\w+|newsletter|events?|donat\w+|account\w*)(?:[._-]\w+)?$",
    re.IGNORECASE,
)
"""Names of addresses that belong to no person."""
NOBODY = re.compile(r"(?:git|no-?reply|do-?not-?reply|mailer-daemon)$", re.IGNORECASE)
_ENDS = "png jpg jpeg gif svg webp css js ts py html htm json xml yml yaml md txt zip gz exe so dll"
FILE_ENDS = frozenset(_ENDS.split())
"""Ends of file names such as icon@2x.png."""

PHONE_FORM = re.compile(
    r"(?<![\w.+(/=^*-])(?:\+(?P<code>[1-9]\d{0,2})[ .()-]{0,2}(?:\(0\)[ .-]?)?(?P<rest>\d(?:[ .()/-]{0,2}\d){6,12})"
    r"|(?:1[ .-])?\(?(?P<area>[2-9]\d\d)(?:\) ?|[.-]| - )(?P<exchange>[2-9]\d\d)[ .-](?P<line>\d{4}))"
    r"(?![\w%]|[.,]\d|[-/]\d)"
)
CALLED_FORM = re.compile(
    r"\b(?:tel|telefon|telephone|phone|mobile|cell|call|ring|dial|whatsapp|fax|sms|handy|reach me at"
    r"|móvil|teléfono|téléphone|numéro)\b[^\d\n(+]{0,20}(?<![.$€£-])"
    r"(?:(?P<coded>\(\d{2,5}\)(?:[ ./-]{0,2}\d){4,11})|\(?(?P<plain>\+?\d(?:[ ./()-]{0,2}\d){6,13}))"
    r"(?![\w%]|[.,]\d|[-/:]\d)",
    re.IGNORECASE,
)
"""A number right behind a word that says that it is a phone's."""
TOLL_FREE = frozenset(["800", "833", "844", "855", "866", "877", "888", "900"])
"""Area codes of hotlines."""

FOUR_NUMBERS = r"\.".join([r"(0|[1-9]\d{0,2})"] * 4)
ADDRESS_FORM = re.compile(rf"(?<![\w./+-]){FOUR_NUMBERS}(?![\w/-]|\.\d)")
HOSTED_FORM = re.compile(
    r"(?:\b(?:ip|ipv4|address|host|server|from|ping|ssh|dns|client|peer)\b[^\d\n]{0,12}(?<![\w./+-])|://)"
    rf"{FOUR_NUMBERS}(?![\w-]|\.\d)",
    re.IGNORECASE,
)
"""An address right behind a word that says that it is one."""
LEAST_OCTET = 32
"""Two of an address's numbers are above this: version numbers and numbers of sections are small."""
_EXAMPLE_ADDRESSES = "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 208.67.222.222 208.67.220.220 123.45.67.89 12.34.56.78"
EXAMPLE_ADDRESSES = frozenset(_EXAMPLE_ADDRESSES.split())
LONG_ADDRESS_FORM = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{4,34}(?![\w:.])")


class Kind(NamedTuple):
    """One kind of personal data or keys."""

    bit: int
    placeholder: str
    """Text in its place."""
    least: int
    """Digits of a text that may hold one."""
    sign: str
    """A text that any of this kind has in or before it; empty: none."""
    spans: Callable[[str, bool], Iterator[Span]]
    """(text, wide) -> where they are."""


def emails(text: str, wide: bool) -> Iterator[Span]:
    """Spans of e-mail addresses."""
    for match in EMAIL_FORM.finditer(text):
        name, host = match.groups()
        start = match.start()
        if start and text[start - 1] == "\\" and len(name) > 1 and name[0] in "nrt":
            start, name = start + 1, name[1:]  # a newline as two characters
        if is_email(name, host, wide) and (wide or not _within(text, start)):
            yield start, match.end()


def _within(text: str, start: int) -> bool:
    """Whether an address is a part of something else: of a path, of a name with a colon; not of a mailto link."""
    return text[start - 1 : start] in ("/", ":", "@") and not text.endswith("mailto:", 0, start)


def is_email(name: str, host: str, wide: bool) -> bool:
    """Whether an address may be a person's."""
    end = host.rpartition(".")[2]
    is_end = (end.isalpha() and 2 <= len(end) <= 18) or end.startswith("xn--")
    if wide and not host[0].isdigit():
        is_end = len(end) > 1 and end[:2].isalpha()  # a word may stand right behind it: gmx.de2
    if not is_end or end.lower() in FILE_ENDS or len(name) > LONGEST_NAME or len(host) > LONGEST_HOST:
        return False
    if wide:
        is_role = ROLES.match(name) and not re.search("[._-]", name)
        return not (is_role or NOBODY.match(name) or RESERVED_HOSTS.search(host))
    if not name[0].isalnum() or ".." in name or name.endswith("."):
        return False
    return not EXAMPLE_HOSTS.search(host) and not EXAMPLE_NAMES.match(name) and not ROLES.match(name)


def phones(text: str, wide: bool) -> Iterator[Span]:
    """Spans of phone numbers; they may overlap."""
    yield from (match.span() for match in PHONE_FORM.finditer(text) if is_phone(match, wide))
    for match in CALLED_FORM.finditer(text) if wide else ():
        number = match.lastgroup or ""
        if re.sub(r"\D", "", match[number]).lstrip("1")[:3] not in TOLL_FREE:
            yield match.span(number)


def is_phone(match: re.Match[str], wide: bool) -> bool:
    """Whether a number may be a person's phone."""
    digits = re.sub(r"\D", "", match[0])
    longest = 15 if re.search(r"\d[ .()/-]+\d", match[0]) else 13  # a sum of large numbers has no groups of digits
    if not 9 <= len(digits) <= longest or (not wide and is_made_up(digits)):
        return False
    area, exchange, line = match["area"], match["exchange"], match["line"]
    if match["code"] == "1" or (match["code"] and match["code"].startswith("1")):
        area, exchange, line = digits[1:4], digits[4:7], digits[7:]
        if len(digits) != 11 or area[0] in "01" or exchange[0] in "01":
            return False
    return area is None or not (area in TOLL_FREE or area == "555" or (exchange == "555" and line.startswith("01")))


def is_made_up(digits: str) -> bool:
    """Whether a number counts up or down or repeats a digit, as those of examples do."""
    return bool(re.search(r"(\d)\1{5}|12345|23456|34567|45678|56789|98765|87654|5551234|555555", digits))


def addresses(text: str, wide: bool) -> Iterator[Span]:
    """Spans of public IP addresses; they may overlap."""
    if text.count(".") >= 3:
        for match in ADDRESS_FORM.finditer(text):
            if is_address(match.groups(), 2):
                yield match.span()
        for match in HOSTED_FORM.finditer(text) if wide else ():
            if is_address(match.groups(), 0):
                yield match.start(1), match.end()
    for match in LONG_ADDRESS_FORM.finditer(text) if text.count(":") >= 2 else ():
        if is_long_address(match[0]):
            yield match.span()


def is_address(parts: Sequence[str], least: int) -> bool:
    """Whether four numbers are a public address, and not that of a manual; `least` of them are no small numbers."""
    a, b, c, d = map(int, parts)
    if a > 223 or b > 255 or c > 255 or d > 255 or not is_public(a, b, c):
        return False
    if (a > LEAST_OCTET) + (b > LEAST_OCTET) + (c > LEAST_OCTET) + (d > LEAST_OCTET) < least:
        return False
    return not a == b == c == d and ".".join(parts) not in EXAMPLE_ADDRESSES


def is_public(a: int, b: int, c: int) -> bool:
    """Whether an IPv4 address is of no reserved block (IANA's special-purpose registry), by its first three numbers."""
    if a in (0, 10, 127) or (a == 192 and b == 168) or (a == 172 and 16 <= b < 32) or (a == 100 and 64 <= b < 128):
        return False
    if (a == 169 and b == 254) or (a == 198 and 18 <= b < 20):
        return False
    return (a, b, c) not in ((192, 0, 0), (192, 0, 2), (198, 51, 100), (203, 0, 113))


def is_long_address(text: str) -> bool:
    """Whether a text is a public IPv6 address."""
    try:
        return ipaddress.IPv6Address(text).is_global
    except ValueError:
        return False


KINDS = (
    Kind(SECRET, "<KEY>", 0, "", keys),
    Kind(LOGIN, "<LOGIN>", 0, "://", logins),
    Kind(EMAIL, "<EMAIL>", 0, "@", emails),
    Kind(IBAN, "<IBAN>", 10, "", ibans),
    Kind(CARD, "<CARD>", 13, "", cards),
    Kind(ADDRESS, "<IP>", 4, "", addresses),
    Kind(PHONE, "<PHONE>", 7, "", phones),
)
"""In the order in which values are replaced: a key may hold what looks like a number."""
WITHOUT_DIGITS = tuple(kind for kind in KINDS if not kind.least)


def kinds_for(text: str, raw: bytes) -> list[Kind]:
    """The kinds that a text may hold; `raw` is the text as UTF-8."""
    digits = len(raw.translate(None, NO_DIGITS))
    kinds = KINDS if digits else WITHOUT_DIGITS
    return [kind for kind in kinds if digits >= kind.least and (not kind.sign or kind.sign in text)]


def private_data(text: str, raw: bytes) -> int:
    """Bits of the kinds of personal data and keys that a text holds, where there is little doubt."""
    found = 0
    for kind in kinds_for(text, raw):
        held = next(kind.spans(text, False), None) is not None
        if held and (kind.bit == SECRET or not ABOUT_FORMS.search(text)):
            found |= kind.bit
    return found
