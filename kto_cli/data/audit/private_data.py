"""Personal data and keys in a text: which kinds it holds, never the values.

A value counts if its form and its checksum leave little doubt; numbers and names that manuals use as examples do not.
Not found: names, postal addresses, birthdays, passwords, phone numbers without a country or area code.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

from kto_cli.common.read import parse_json
from kto_cli.data.audit.found import ADDRESS, CARD, EMAIL, IBAN, PHONE, SECRET

NO_DIGITS = bytes(code for code in range(256) if code not in b"0123456789")
LEAST_ADDRESS, LEAST_PHONE, LEAST_CARD, LEAST_IBAN = 4, 9, 13, 10
"""Digits of a text that may hold one."""

ABOUT_FORMS = re.compile(r"regex|regular expression|re\.match|\bis_?valid|valid(?:at|\b)", re.IGNORECASE)
"""Texts on how such values are checked, which hold examples of them."""

EMAIL_FORM = re.compile(
    r"(?:(?<![\w.%+/:@-])|(?<=mailto:))([A-Za-z0-9][\w.%+-]{0,63})@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+)([A-Za-z]{2,18})\b(?![@\w])"
)
EXAMPLE_HOSTS = re.compile(
    r"(?:^|[.-])(?:examples?|test|invalid|localhost|(?:my|your)\w*|domain|\w*company(?:name)?|website|site|e?mail|server|host"
    r"|(?:top)?university|school|abc|xyz|acme|foo|bar|sample|provider)\.[\w.]*$",
    re.IGNORECASE,
)
"""Hosts of examples; `email.com` and `mail.com` have real users, and far more made-up ones."""
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
_ENDS = "png jpg jpeg gif svg webp css js ts py html htm json xml yml yaml md txt zip gz exe so dll"
FILE_ENDS = frozenset(_ENDS.split())
"""Ends of file names such as icon@2x.png."""

PHONE_FORM = re.compile(
    r"(?<![\w.+(/=^*-])(?:\+(?P<code>[1-9]\d{0,2})[ .()-]{0,2}(?:\(0\)[ .-]?)?(?P<rest>\d(?:[ .()/-]{0,2}\d){6,12})"
    r"|(?:1[ .-])?\(?(?P<area>[2-9]\d\d)(?:\) ?|[.-]| - )(?P<exchange>[2-9]\d\d)[ .-](?P<line>\d{4}))"
    r"(?![\w%]|[.,]\d|[-/]\d)"
)
TOLL_FREE = frozenset(["800", "833", "844", "855", "866", "877", "888", "900"])
"""Area codes of hotlines."""

CARD_FORM = re.compile(
    r"(?<![\w.,$€£/-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\w,/-]|\.\d)"
)
CARD_PREFIX = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6(?:011|4[4-9]|5)|35[2-8]")
EXAMPLE_CARDS = re.compile(
    r"(\d)\1{9}|(\d{4})\2{2}|1234567|0000000|4242424|378282246310005|371449635398431|4012888888881881"
)
"""Card numbers that payment services publish for tests: runs and repetitions, and three others."""

IBAN_FORM = re.compile(r"(?<![\w-])([A-Z]{2}\d\d)((?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)(?![\w-])")
_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
    "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
    "LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 "
    "SK24 SM27 TN24 TR26 UA29 VA22 VG24 XK20 "
)
IBAN_LENGTH = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}
_EXAMPLE_IBANS = (
    "GB82WEST12345698765432 GB29NWBK60161331926819 DE89370400440532013000 FR1420041010050500013M02606 "
    "NL91ABNA0417164300 CH9300762011623852957 ES9121000418450200051332 IT60X0542811101000000123456 BE68539007547034 "
    "AT611904300234573201 "
)
EXAMPLE_IBANS = frozenset(_EXAMPLE_IBANS.split())
"""Account numbers of the registry's and other manuals' examples."""

KEY = re.compile(
    r"(?<![\w-])(?:sk-(?:proj-|svcacct-|ant-\w{3,6}-|or-v1-|lf-)?[\w-]{20,}|[sr]k_live_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z2-7]{16}"
    r"|gh[opsu]_[A-Za-z0-9]{36}|github_pat_\w{60,}|glpat-[\w-]{20}|xox[abeoprs]-[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z]{34}"
    r"|SG\.[\w-]{22}\.[\w-]{43}|npm_[A-Za-z0-9]{36}|pypi-AgEI[\w-]{50,})(?![\w-])"
)
LEAST_DRAWN = 16
"""Letters and digits of a key without a sign between them; else it is a name in kebab case."""
EXAMPLE_KEY = re.compile(r"(?i)example|your|xxx|abcdef|12345|test|dummy|placeholder|secret|(.)\1{4}")
PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+(?:[\w-]+: .*\s+)*[A-Za-z0-9+/=]{40}")
TOKEN = re.compile(r"(?<![\w.-])(eyJ[\w-]{8,})\.(eyJ[\w-]{8,})\.[\w-]{20,}")
EXAMPLE_TOKEN = re.compile(r'"1234567890"|John Doe')
"""The token that the format's own site shows."""

ADDRESS_FORM = re.compile(r"(?<![\w./+-])(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?![\w/-]|\.\d)(:\d{2,5}\b)?")
LEAST_OCTET = 32
"""Two of an address's numbers are above this: version numbers and numbers of sections are small."""
_EXAMPLE_ADDRESSES = "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 208.67.222.222 208.67.220.220 123.45.67.89 12.34.56.78"
EXAMPLE_ADDRESSES = frozenset(_EXAMPLE_ADDRESSES.split())


def private_data(text: str, raw: bytes) -> int:
    """Bits of the kinds of personal data and keys that a text holds; `raw` is the text as UTF-8."""
    found = EMAIL if "@" in text and _any(EMAIL_FORM, text, _is_email) else 0
    digits = len(raw.translate(None, NO_DIGITS))
    if not digits:
        return found
    if digits >= LEAST_PHONE and _any(PHONE_FORM, text, _is_phone):
        found |= PHONE
    if digits >= LEAST_CARD and _any(CARD_FORM, text, _is_card):
        found |= CARD
    if digits >= LEAST_IBAN and _any(IBAN_FORM, text, _is_iban):
        found |= IBAN
    if digits >= LEAST_ADDRESS and text.count(".") >= 3 and _any(ADDRESS_FORM, text, _is_address):
        found |= ADDRESS
    return found | SECRET if _may_hold_key(text) and _holds_key(text) else found


def _any(pattern: re.Pattern[str], text: str, check: Callable[[re.Match[str]], bool]) -> bool:
    return any(check(match) for match in pattern.finditer(text)) and not ABOUT_FORMS.search(text)


def _is_email(match: re.Match[str]) -> bool:
    name, host, end = match.groups()
    if end.lower() in FILE_ENDS or ".." in name or name.endswith("."):
        return False
    return not EXAMPLE_HOSTS.search(host + end) and not EXAMPLE_NAMES.match(name) and not ROLES.match(name)


def _is_phone(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match[0])
    longest = 15 if re.search(r"\d[ .()/-]+\d", match[0]) else 13  # a sum of large numbers has no groups of digits
    if not 9 <= len(digits) <= longest or _is_made_up(digits):
        return False
    area, exchange, line = match["area"], match["exchange"], match["line"]
    if match["code"] == "1" or (match["code"] and match["code"].startswith("1")):
        area, exchange, line = digits[1:4], digits[4:7], digits[7:]
        if len(digits) != 11 or area[0] in "01" or exchange[0] in "01":
            return False
    return area is None or not (area in TOLL_FREE or area == "555" or (exchange == "555" and line.startswith("01")))


def _is_made_up(digits: str) -> bool:
    """Whether a number counts up or down or repeats a digit, as those of examples do."""
    return bool(re.search(r"(\d)\1{5}|12345|23456|34567|45678|56789|98765|87654|5551234|555555", digits))


def _is_card(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match[0])
    if not CARD_PREFIX.match(digits) or EXAMPLE_CARDS.search(digits):
        return False
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[::-2])) + sum(value - 9 * (value > 9) for value in doubled)) % 10 == 0  # Luhn


def _is_iban(match: re.Match[str]) -> bool:
    account = match[0].replace(" ", "")
    if IBAN_LENGTH.get(account[:2]) != len(account) or account in EXAMPLE_IBANS:
        return False
    return int("".join(str(int(sign, 36)) for sign in account[4:] + account[:4])) % 97 == 1  # ISO 7064


def _is_address(match: re.Match[str]) -> bool:
    octets = [int(part) for part in match.groups()[:4]]
    if max(octets) > 255 or any(part != "0" and part.startswith("0") for part in match.groups()[:4]):
        return False
    text = ".".join(map(str, octets))
    if sum(octet > LEAST_OCTET for octet in octets) < 2 or text in EXAMPLE_ADDRESSES or len(set(octets)) == 1:
        return False
    return ipaddress.IPv4Address(text).is_global and octets[0] < 224


def _may_hold_key(text: str) -> bool:
    """Whether a text has the start of a key; `any` over a list of them takes four times as long."""
    if "AKIA" in text or "ASIA" in text or "AIza" in text or "eyJ" in text or "SG." in text:
        return True
    if "-" in text and ("sk-" in text or "xox" in text or "glpat-" in text or "pypi-" in text or "PRIVATE KEY" in text):
        return True
    return "_" in text and ("k_live_" in text or "gh" in text or "hf_" in text or "npm_" in text)


def _holds_key(text: str) -> bool:
    return (
        _any(KEY, text, lambda match: _is_random(match[0]))
        or PRIVATE_KEY.search(text) is not None
        or _any(TOKEN, text, lambda match: _is_token(match[1], match[2]))
    )


def _is_random(key: str) -> bool:
    """Whether a key has letters and digits as if drawn, and none of the words of examples."""
    drawn = re.sub(r"^(?:AKIA|ASIA|AIza|[a-z]+[-_.])", "", key)
    if max(map(len, re.split("[-_]", drawn))) < LEAST_DRAWN:
        return False
    return (
        len(set(drawn)) >= min(10, len(drawn) // 2)
        and not EXAMPLE_KEY.search(drawn)
        and not re.search("[a-z]{12}", drawn)
    )


def _is_token(header: str, payload: str) -> bool:
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
