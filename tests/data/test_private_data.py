"""Personal data and keys: each kind found in what is real by its form and checksum, none in examples and other numbers.

The keys are put together (`scrub_lines.py`), so that no scanner of secrets takes this file for a leak.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scrub_lines import drawn, iban, luhn, part

from kto_cli.data.audit.account_numbers import IBAN_LENGTH
from kto_cli.data.audit.found import ABOUT, Found
from kto_cli.data.audit.private_data import private_data
from kto_cli.data.audit.text_checks import look

KINDS = Found.EMAIL | Found.PHONE | Found.CARD | Found.IBAN | Found.SECRET | Found.ADDRESS


def of(text: str) -> int:
    return private_data(text, text.encode())


CARD = luhn("453987120645813")
HOLDS = {
    Found.EMAIL: ["Write to maria.keller@gmx.de.", "<k.okafor+shop@uni-lagos.edu.ng>", "[me](mailto:li.wei88@qq.com)"],
    Found.PHONE: [
        "Call +49 30 9018 2734.",
        "tel:+442079460321 (+44 20 7946 0321)",
        "my number is (415) 984-2122",
        "+1 917-724-5200",
        "+33 6 82 41 93 07",
    ],
    Found.CARD: [CARD, " ".join(CARD[n : n + 4] for n in range(0, 16, 4)), luhn("37914682053917")],
    Found.IBAN: [
        iban("DE", "500105175407324931"),
        iban("GB", "MIDL40051522334455"),
        "IBAN FR" + iban("FR", "30006000011234567890189")[2:],
    ],
    Found.SECRET: [
        f"sk-proj-{drawn(48)}",
        f"sk-{drawn(48)}",
        f"key = 'AKIA{drawn(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}'",
        f"ghp_{drawn(36)}",
        f"xoxb-{drawn(12, string.digits)}-{drawn(24)}",
        f"AIza{drawn(35)}",
        f"hf_{drawn(34, string.ascii_letters)} 1",
        f"-----BEGIN RSA PRIVATE KEY-----\n{drawn(64)}\n{drawn(64)}\n",
        f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': '8841', 'name': 'Li Wei'})}.{drawn(43)}",
    ],
    Found.ADDRESS: ["from 83.149.9.216 at noon", "ssh root@93.184.215.14:2222"],
}
HOLDS_NOTHING = [
    "me@example.com, jane.doe@example.org, your.name@company.com, user@domain.com, noreply@shop.de, info@shop.de",
    "icon@2x.png, @maria on Mastodon, git@github.com:a/b.git, npm i @types/node@18.2.0, pip install kto@git+https://x.io",
    "An e-mail matches the regex; valid are maria.keller@gmx.de and li@qq.com.",
    "+1 (555) 555-5555, 555-1234, (212) 555-0123, +1 234 567 8901, 1-800-201-7575, +49 123 456789",
    "472547338\n+960397912423686\n= 960870459761024; 12 + 345678901; x+1234567890",
    "ISBN 978-3-16-148410-0, 2024-01-02 03:04:05, 192,168,001, pi is 3.14159265358979323846, 100-200-3000",
    "4111 1111 1111 1111, 4242424242424242, 5555 5555 5555 4444, 378282246310005, 4539 8712 0645 8139",
    "order 4539871206458130, part no. 1000 2000 3000 4000",
    "GB82 WEST 1234 5698 7654 32, DE89370400440532013000, DE00 5001 0517 5407 3249 31, XX12 3456 7890 1234 56",
    "sk-your-key-here-xxxxxxxxxxxxxxxx, sk-1234567890abcdef1234567890abcdef, AKIAIOSFODNN7EXAMPLE, hf_xxxxxxxxxxx",
    "ask-me-anything-about-the-2-best-skiing-areas, sk-learn-contrib-packages-of-2024, hf_model_name_of_1",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY----- 2",
    f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': '1234567890', 'name': 'John Doe'})}.{drawn(43)}",
    "127.0.0.1, 10.0.0.12, 192.168.178.44, 172.20.99.80, 8.8.8.8, 203.0.113.77, 198.51.100.99, 255.255.255.0, 0.0.0.0",
    "version 1.2.3.4, Chrome/120.0.6099.224, section 2.14.3.1, 99.99.99.999, 83.149.9.216.5, 1.83.149.9.216",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in HOLDS.items() for text in texts])
def test_each_kind_is_found_in_prompts_and_answers(kind, text):
    assert of(text) == kind
    assert look(f"So it is {text} today", "Yes.") & KINDS == kind
    assert look("What is it?", f"It is {text}") & KINDS == kind


@pytest.mark.parametrize("text", HOLDS_NOTHING)
def test_examples_and_other_numbers_are_nothing(text):
    assert of(text) == 0


def test_the_words_of_a_finding_hold_no_value():
    assert [ABOUT[kind].name for kind in HOLDS] == [
        "emails",
        "phone_numbers",
        "card_numbers",
        "bank_accounts",
        "secret_keys",
        "ip_addresses",
    ]
    assert all("{" not in ABOUT[kind].detail for kind in HOLDS)


@given(st.text(string.digits + " -.+()", max_size=60))
@settings(max_examples=200, deadline=None)
def test_cards_that_are_found_have_a_checksum(text):
    if of(text) & Found.CARD:
        digits = "".join(sign for sign in text if sign.isdigit())
        assert any(
            luhn(digits[n : n + size - 1]) == digits[n : n + size] for size in (15, 16) for n in range(len(digits))
        )


@given(st.sampled_from(sorted(IBAN_LENGTH)), st.integers(10, 10**28 - 1))
@settings(max_examples=200, deadline=None)
def test_one_wrong_digit_makes_no_account(country, number):
    account = str(number).zfill(28)[: IBAN_LENGTH[country] - 4]
    right = iban(country, account)
    assert of(right) & Found.IBAN or "000000" in account
    wrong = right[:-1] + str((int(right[-1]) + 1) % 10)
    assert not of(wrong) & Found.IBAN
