"""Findings in one row's text: damaged encoding, tokens of chat templates, links, and what the modules beside it find.

They run once per row while feedback is read and must cost a few microseconds: most are guarded by a length or a
substring that clean text does not have. A finding only reports; `--fix` decides what is removed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kto_cli.data.audit.encoding import C1_CHARS, restore
from kto_cli.data.audit.exporter_damage import exporter_damage, is_json
from kto_cli.data.audit.found import (
    ABOUT,
    BROKEN,
    CONTROL,
    ECHO,
    ENTITIES,
    JSON_PROMPT,
    LANGUAGE,
    MARKED,
    MOJIBAKE,
    PLACEHOLDER,
    REFUSAL,
    REPEATED,
    TEMPLATE,
    URL,
)
from kto_cli.data.audit.languages import is_other_language
from kto_cli.data.audit.private_data import private_data
from kto_cli.data.audit.refusals import only_refuses
from kto_cli.data.audit.repetition import LEAST_REPEATED, repeats
from kto_cli.data.formats.labels import LONGEST_VALUE, is_missing
from kto_cli.data.formats.records import Text
from kto_cli.data.texts import joined

CONTROL_BYTES = bytes(code for code in range(128) if code not in b"\t\n\r" and (code < 32 or code == 127))
EVERY_BYTE = bytes(code for code in range(256) if code not in CONTROL_BYTES)
"""All bytes but ASCII control characters."""
ASCII = bytes(range(128))
PUNCTUATION = re.compile(rb"(?:\xe2\x80[\x93\x94\x98\x99\x9c\x9d\xa6])+")
"""UTF-8 of – — ‘ ’ “ ” …: no two of them are the bytes of one character in another encoding."""
HIGH_CONTROL = re.compile(f"[{''.join(chr(code) for code in range(0x80, 0xA0) if code not in C1_CHARS)}]")
"""Control characters above ASCII that are no sign in Windows-1252 either."""
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
TERMINAL = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
EATEN = re.compile(
    "\x0c(?=rac|lat|orall)|\x08(?=eta|egin|inom|ar|oldsymbol|mod|ullet|ig)|\x07(?=lpha|pprox|ngle|st)|\x0b(?=ec|arphi|dots|ee)"
)
LETTER = {"\x0c": "f", "\x08": "b", "\x07": "a", "\x0b": "v"}

LINK = re.compile(r"(?:<?(?:https?://|www\.)[^\s<>]+>?|\[[^\]\n]*\]\((?:https?://|www\.)[^\s)]+\))[.,;]?$")
TOKEN = re.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|begin_of_text|eot_id|start_header_id|end_header_id|eom_id|end|user"
    r"|assistant|system|end_of_turn\w*|start_of_role|end_of_role|prompter|sep|pad|model|[a-z]+_of_text)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|^\s*<s>|</s>\s*$"
)
"""Tokens of ChatML, Llama 2 and 3, Gemma, Phi, Granite, Zephyr and OpenAssistant; <s> (also HTML) only at the ends."""
MARKER = re.compile(r"^(?:\#\#\# ?(?:Instruction|Response|Input|Human|Assistant):|(?:Human|Assistant):)", re.MULTILINE)
TURN = "\n\nHuman:"
"""Turn marker of hh-rlhf."""
ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});")


class Asked(NamedTuple):
    """What the checks of an answer need of its prompt."""

    last: str
    """The last user turn."""
    whole: str
    """All turns."""


def look(prompt: Text, completion: Text) -> int:
    """Findings of a row, as bits of `Found`: of all its text encoding and private data, of the answer the rest."""
    found, asked = about_prompt(prompt)
    return found | about_answer(asked, completion)


def about_prompt(prompt: Text) -> tuple[int, Asked]:
    """(bits of a prompt, what the checks of its answers need of it)."""
    whole, last, found = joined(prompt), "", 0
    if isinstance(prompt, str):
        last = prompt
    else:
        for turn in prompt:
            if turn["role"] == "user":
                last = turn["content"]
                if TURN in last:
                    found |= MARKED
    if is_json(last):
        found |= JSON_PROMPT
    return found | about_text(whole), Asked(last, whole)


def about_answer(asked: Asked, completion: Text) -> int:
    """Bits of an answer."""
    answer = joined(completion)
    found = about_text(answer) | exporter_damage(answer, asked.whole)
    if only_refuses(answer):
        found |= REFUSAL
    if _only_links(answer):
        found |= URL
    if _echoes(asked.last, answer):
        found |= ECHO
    if _holds_template(answer):
        found |= TEMPLATE
    if "&" in answer and ";" in answer and ENTITY.search(answer) and "</" not in answer and "```" not in answer:
        found |= ENTITIES
    if len(answer) >= LEAST_REPEATED and repeats(answer):
        found |= REPEATED
    if len(answer) <= LONGEST_VALUE and is_missing(answer):
        found |= PLACEHOLDER
    if is_other_language(asked.last, answer, asked.whole):
        found |= LANGUAGE
    return found


def about_text(text: str) -> int:
    """Bits of damage and of private data in one text."""
    raw = text.encode("utf-8", "surrogatepass")
    return _damage(text, raw) | private_data(text, raw)


def names(bits: int) -> list[str]:
    """Names of a row's findings."""
    return [about.name for bit, about in ABOUT.items() if bits & bit]


def damage(text: str) -> int:
    """MOJIBAKE, CONTROL and BROKEN of one text."""
    return _damage(text, text.encode("utf-8", "surrogatepass"))


def _damage(text: str, raw: bytes) -> int:
    found = CONTROL if raw.translate(None, EVERY_BYTE) else 0
    if text.isascii() or PUNCTUATION.fullmatch(raw.translate(None, ASCII)):
        return found
    if b"\xef\xbf\xbd" in raw:  # U+FFFD
        found |= BROKEN
    if b"\xc2" in raw and HIGH_CONTROL.search(text):
        found |= CONTROL
    if restore(text) != text:
        found |= MOJIBAKE
    return found


def fix(text: str) -> str:
    """Text with its encoding restored and without control characters; unchanged if it shows no damage.

    Form feeds become line ends. A LaTeX command whose backslash was read as an escape (a form feed and `rac`) gets it
    back. What U+FFFD replaced is lost.
    """
    if not damage(text) & (MOJIBAKE | CONTROL):
        return text
    restored = EATEN.sub(lambda eaten: "\\" + LETTER[eaten[0]], TERMINAL.sub("", restore(text)))
    return CONTROLS.sub("", restored.replace("\x0c", "\n").replace("\x0b", "\n"))


def _only_links(answer: str) -> bool:
    if "://" not in answer and "www." not in answer:
        return False
    words = answer.split()
    return len(words) <= 20 and all(map(LINK.match, words))


def _echoes(asked: str, answer: str) -> bool:
    """Whether question and answer are equal except for case and white space."""
    longer, shorter = max(len(asked), len(answer)), min(len(asked), len(answer))
    if not shorter or longer > 2 * shorter + 16:
        return False
    left, right = asked.split(None, 1), answer.split(None, 1)
    if not left or not right or left[0].casefold() != right[0].casefold():
        return False
    return " ".join(asked.split()).casefold() == " ".join(answer.split()).casefold()


def _holds_template(answer: str) -> bool:
    if ("<" in answer or "INST]" in answer) and TOKEN.search(answer):
        return True
    marked = "Human:" in answer or "Assistant:" in answer or "###" in answer
    return marked and MARKER.search(answer) is not None
