"""Control texts of conditional SFT: one for desirable, one for undesirable rows, at the end of the prompt.

A control text stands behind the generation prompt, is plain text (no new embeddings) and has no loss. What answers
later is asked with the desirable one, which the saved chat template writes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class ControlTexts(NamedTuple):
    """Texts at the end of prompts."""

    good: str
    """For desirable rows, and for answers."""
    bad: str

    def of(self, label: bool) -> str:
        """The text of a row."""
        return self.good if label else self.bad


WRITTEN = re.compile(r"""\{\{ "((?:[^"\\]|\\.)*)" if add_generation_prompt else "" \}\}\Z""")
"""What `with_control_text` adds to a template."""


def with_control_text(template: str, text: str) -> str:
    """A chat template that also writes a text behind its generation prompt."""
    # A template's last newline is not written; one in the middle would be.
    for newline in ("\r\n", "\n", "\r"):
        if template.endswith(newline):
            template = template.removesuffix(newline)
            break
    literal = text.encode("unicode-escape").decode("ascii").replace('"', '\\"')
    return f'{template}{{{{ "{literal}" if add_generation_prompt else "" }}}}'


def without_control_text(template: str) -> str:
    """A chat template without the text that `with_control_text` added."""
    return WRITTEN.sub("", template)


def retemplated(tokenizer: Any, change: Callable[[str], str]) -> Any:
    """A copy of a tokenizer with its chat template changed, each of them where it has several by name."""
    changed, template = copy.copy(tokenizer), tokenizer.chat_template
    is_one = isinstance(template, str)
    changed.chat_template = change(template) if is_one else {name: change(text) for name, text in template.items()}
    return changed


def control_text_of(template: str) -> str:
    """The text that `with_control_text` added to a template; empty if it did not."""
    found = WRITTEN.search(template)
    return found[1].encode("ascii").decode("unicode-escape") if found else ""
