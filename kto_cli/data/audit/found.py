"""Findings in one row's text, as bits, with their words."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple


class Found(IntFlag):
    """Bits of `Columns.findings`."""

    REFUSAL = 1
    URL = 2
    ECHO = 4
    MOJIBAKE = 8
    CONTROL = 16
    BROKEN = 32
    TEMPLATE = 64
    ENTITIES = 128
    REPEATED = 256
    MARKED = 512
    PLACEHOLDER = 1024
    JSON_ANSWER = 1 << 11
    JSON_PROMPT = 1 << 12
    ESCAPED = 1 << 13
    HALF_THOUGHT = 1 << 14
    NO_THOUGHT = 1 << 15
    LANGUAGE = 1 << 16
    EMAIL = 1 << 17
    PHONE = 1 << 18
    CARD = 1 << 19
    IBAN = 1 << 20
    SECRET = 1 << 21
    ADDRESS = 1 << 22
    LOGIN = 1 << 23
    SCRUBBED = 1 << 24


class About(NamedTuple):
    """Words of a finding."""

    name: str
    """A stable snake_case id."""
    detail: str
    """Fault of such a row."""
    advice: str
    warns: bool
    """A warning: such rows teach something unwanted. Otherwise a note."""
    fix: str = ""
    """The `--fix` for it, if there is one."""


def _private(name: str, what: str) -> About:
    """Words of a finding of personal data or keys."""
    return About(
        name,
        f"the prompt or the answer holds {what}",
        "take it out before you train or publish: --scrub replaces it",
        True,
    )


ABOUT: dict[Found, About] = {
    Found.REFUSAL: About(
        "refusals",
        "the answer does nothing but refuse",
        "fine where the prompt deserves it",
        False,
        "refusals",
    ),
    Found.URL: About("urls", "the answer is nothing but a link", "", True, "urls"),
    Found.ECHO: About("echoes", "the answer repeats the prompt's last turn", "", True, "echoes"),
    Found.MOJIBAKE: About(
        "mojibake", "text decoded with the wrong encoding (â€™ or U+0092 for ’)", "", True, "encoding"
    ),
    Found.CONTROL: About("control_characters", "holds NUL or other control characters", "", True, "encoding"),
    Found.BROKEN: About(
        "replacement_characters", "holds U+FFFD: characters lost before the text came here", "export it again", True
    ),
    Found.TEMPLATE: About(
        "template_tokens",
        "the answer holds a chat template's tokens or role markers",
        "cut them, or what follows them, from the answers; a model learns to write them",
        True,
    ),
    Found.ENTITIES: About(
        "html_entities", "the answer holds HTML entities (&amp;) and no HTML", "unescape them at the source", False
    ),
    Found.REPEATED: About(
        "repetition", "the answer says the same thing over and over", "drop them if desirable", False
    ),
    Found.MARKED: About(
        "turn_markers",
        "a turn of the prompt holds turn markers of hh-rlhf, which are read as part of its text",
        "give such chats as lists of messages; hh-rlhf itself is read by kto binarize hh-rlhf",
        True,
    ),
    Found.PLACEHOLDER: About(
        "placeholders",
        "the answer is only NaN, null or a like word that tables write for an empty cell",
        "take these rows out of the file if there was no answer",
        True,
    ),
    Found.JSON_ANSWER: About(
        "json_answers",
        "the answer is the JSON of an object, and the prompt does not ask for one",
        "name the field that holds the text: --completion-column COLUMN.FIELD",
        True,
    ),
    Found.JSON_PROMPT: About(
        "json_prompts",
        "the prompt's last turn is the JSON of an object",
        "fine where users send JSON; else name the field with the text: --prompt-column COLUMN.FIELD",
        False,
    ),
    Found.ESCAPED: About(
        "escaped_newlines",
        "the answer has \\n as two characters where its lines end",
        "export it again, or decode the texts once more at the source",
        True,
    ),
    Found.HALF_THOUGHT: About(
        "reasoning_cut",
        "the answer has one end of its reasoning only, such as </think> without <think>",
        "export both, or neither: a model learns to write what stands there",
        True,
    ),
    Found.NO_THOUGHT: About(
        "empty_reasoning",
        "the answer has a reasoning block with nothing in it, such as <think></think>",
        "fine for a model that answers without thinking; else its reasoning was lost",
        False,
    ),
    Found.LANGUAGE: About(
        "other_language",
        "the answer is in another language than the prompt's last turn, which names no language",
        "drop them if desirable",
        False,
    ),
    Found.EMAIL: _private("emails", "an e-mail address"),
    Found.PHONE: _private("phone_numbers", "a phone number"),
    Found.CARD: _private("card_numbers", "the number of a payment card"),
    Found.IBAN: _private("bank_accounts", "the number of a bank account (IBAN)"),
    Found.SECRET: _private("secret_keys", "a password of a service: an API key, a token or a private key"),
    Found.ADDRESS: _private("ip_addresses", "a public IP address"),
    Found.LOGIN: _private("url_passwords", "a name and a password in the address of a server"),
    Found.SCRUBBED: About(
        "scrubbed", "personal data or keys of the row were replaced by their kind, such as <EMAIL>", "", False
    ),
}

(
    REFUSAL,
    URL,
    ECHO,
    MOJIBAKE,
    CONTROL,
    BROKEN,
    TEMPLATE,
    ENTITIES,
    REPEATED,
    MARKED,
    PLACEHOLDER,
    JSON_ANSWER,
    JSON_PROMPT,
    ESCAPED,
    HALF_THOUGHT,
    NO_THOUGHT,
    LANGUAGE,
    EMAIL,
    PHONE,
    CARD,
    IBAN,
    SECRET,
    ADDRESS,
    LOGIN,
    SCRUBBED,
) = map(int, Found)
"""The bits as plain numbers: arithmetic on an IntFlag costs a microsecond."""
