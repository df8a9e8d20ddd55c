"""Findings in one row's text: refusals, damaged encoding, tokens of chat templates, repetition.

They run once per row while feedback is read and must cost a few microseconds: most are guarded by a length or a
substring that clean text does not have. A finding only reports; `--fix` decides what is removed.
"""

from __future__ import annotations

import re
from enum import IntFlag
from typing import NamedTuple

from kto_cli.data.audit.encoding import C1_CHARS, restore
from kto_cli.data.audit.refusals import only_refuses
from kto_cli.data.dataset import joined
from kto_cli.data.formats.labels import LONGEST_VALUE, is_missing
from kto_cli.data.formats.records import Text


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


class About(NamedTuple):
    """Words of a finding."""

    name: str
    """A stable snake_case id."""
    detail: str
    """Fault of such a row."""
    advice: str
    warns: bool
    """A warning: such rows teach something unwanted. Otherwise a note."""


ABOUT: dict[Found, About] = {
    Found.REFUSAL: About(
        "refusals",
        "the answer does nothing but refuse",
        "fine where the prompt deserves it; --fix refusals drops them",
        False,
    ),
    Found.URL: About("urls", "the answer is nothing but a link", "--fix urls drops them", True),
    Found.ECHO: About("echoes", "the answer repeats the prompt's last turn", "--fix echoes drops them", True),
    Found.MOJIBAKE: About(
        "mojibake", "text decoded with the wrong encoding (â€™ or U+0092 for ’)", "--fix encoding restores it", True
    ),
    Found.CONTROL: About(
        "control_characters", "holds NUL or other control characters", "--fix encoding takes them out", True
    ),
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
}

REFUSAL, URL, ECHO, MOJIBAKE, CONTROL, BROKEN, TEMPLATE, ENTITIES, REPEATED, MARKED, PLACEHOLDER = map(int, Found)
"""The bits as plain numbers: arithmetic on an IntFlag costs a microsecond."""

CONTROL_BYTES = bytes(code for code in range(128) if code not in b"\t\n\r" and (code < 32 or code == 127))
EVERY_BYTE = bytes(code for code in range(256) if code not in CONTROL_BYTES)
"""All bytes but ASCII control characters."""
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


def look(prompt: Text, completion: Text) -> int:
    """Findings of a row, as bits of `Found`: encoding of all its text, the other checks on the answer."""
    found, asked = about_prompt(prompt)
    return found | about_answer(asked, completion)


def about_prompt(prompt: Text) -> tuple[int, str]:
    """(bits of a prompt, its last user turn)."""
    if isinstance(prompt, str):
        return damage(prompt), prompt
    found, asked = 0, ""
    for turn in prompt:
        found |= damage(turn["content"])
        if turn["role"] == "user":
            asked = turn["content"]
            if TURN in asked:
                found |= MARKED
    return found, asked


def about_answer(asked: str, completion: Text) -> int:
    """Bits of an answer; `asked` is the prompt's last user turn."""
    answer = joined(completion)
    found = damage(answer)
    if only_refuses(answer):
        found |= REFUSAL
    if _only_links(answer):
        found |= URL
    if _echoes(asked, answer):
        found |= ECHO
    if _holds_template(answer):
        found |= TEMPLATE
    if "&" in answer and ";" in answer and ENTITY.search(answer) and "</" not in answer and "```" not in answer:
        found |= ENTITIES
    if len(answer) >= LEAST_REPEATED and repeats(answer):
        found |= REPEATED
    if len(answer) <= LONGEST_VALUE and is_missing(answer):
        found |= PLACEHOLDER
    return found


def names(bits: int) -> list[str]:
    """Names of a row's findings."""
    return [about.name for bit, about in ABOUT.items() if bits & bit]


def damage(text: str) -> int:
    """MOJIBAKE, CONTROL and BROKEN of one text."""
    raw = text.encode("utf-8", "surrogatepass")
    found = CONTROL if raw.translate(None, EVERY_BYTE) else 0
    if text.isascii():
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


PROBE = 24
"""Characters that must recur before a repetition is examined."""
LEAST_REPEATED = 120
"""Characters; a shorter repetition is a figure of speech."""
LEAST_TIMES = 4
LEAST_SHARE = 0.4
"""Share of the answer that the repetition fills."""
MOST_READ = 20_000
"""Characters of an answer that are examined for repetition."""


def repeats(text: str) -> bool:
    """Whether one repeated stretch fills LEAST_SHARE of the text, as when a model loops.

    Only the end of each quarter is examined: a loop that long includes one of them.
    """
    text = text[:MOST_READ].rstrip()
    for end in (len(text), len(text) * 3 // 4, len(text) // 2, len(text) // 4):
        start = end - PROBE
        if start < 0:
            continue
        before = text.rfind(text[start:end], 0, end - 1)
        if before >= 0 and _looped(text, before, start - before):
            return True
    return False


def _looped(text: str, start: int, period: int) -> bool:
    """Whether the text around `start` repeats with this `period` for long enough."""
    low = high = start
    while low > 0 and text[low - 1] == text[low - 1 + period]:
        low -= 1
    while high + period < len(text) and text[high] == text[high + period]:
        high += 1
    length = high + period - low
    return length >= max(LEAST_REPEATED, LEAST_TIMES * period, LEAST_SHARE * len(text))
