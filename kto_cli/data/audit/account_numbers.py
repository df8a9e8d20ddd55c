"""Numbers of payment cards and bank accounts, by their form and their checksum."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kto_cli.data.audit.secret_keys import Span

CARD_FORM = re.compile(
    r"(?<![\w.,$€£/-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -]?)\d{6}\2\d{5}|3[068]\d\d([ -]?)\d{6}\3\d{4})"
    r"(?![\w/-]|[.,]\d)"
)
CARD_PREFIX = re.compile(r"4|5[1-5]|2[2-7]|3[47]|3(?:0[0-5]|[68])|6(?:011|4[4-9]|5|2)|35[2-8]")
EXAMPLE_CARDS = re.compile(
    r"(\d)\1{9}|(\d{4})\2{2}|1234567|0000000|4242424|378282246310005|371449635398431|4012888888881881|30569309025904|38520000023237"
)
"""Card numbers that payment services publish for tests: runs and repetitions, and some others."""

DOUBLED = {str(digit): 2 * digit - 9 * (digit > 4) for digit in range(10)}
"""Sum of the digits of a digit's double."""

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


def cards(text: str, wide: bool) -> Iterator[Span]:
    """Spans of card numbers; `wide` makes no difference."""
    return (match.span() for match in CARD_FORM.finditer(text) if is_card(match[0]))


def ibans(text: str, wide: bool) -> Iterator[Span]:
    """Spans of account numbers; `wide` makes no difference."""
    return (match.span() for match in IBAN_FORM.finditer(text) if is_iban(match[0]))


def is_card(number: str) -> bool:
    """Whether a number is a card's: its first digits are an issuer's, its checksum is right, no manual has it."""
    digits = re.sub(r"\D", "", number)
    if not CARD_PREFIX.match(digits) or EXAMPLE_CARDS.search(digits):
        return False
    return (sum(map(int, digits[::-2])) + sum(map(DOUBLED.__getitem__, digits[-2::-2]))) % 10 == 0  # Luhn


def is_iban(number: str) -> bool:
    """Whether a number is an account's: its length is its country's, its checksum is right, no manual has it."""
    account = number.replace(" ", "")
    if IBAN_LENGTH.get(account[:2]) != len(account) or account in EXAMPLE_IBANS:
        return False
    return int("".join(str(int(sign, 36)) for sign in account[4:] + account[:4])) % 97 == 1  # ISO 7064
