"""Modelfile of Ollama, and the chat template in the Go notation that it reads.

Ollama has no Jinja: of a GGUF file it reads tokenizer.chat_template only to choose the most similar of its own. So the
template is translated where it has the common form: a text before and after each turn by role, and a generation prompt.
The translation is compared with the chat template on several chats; where one differs, none is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

ROLES = ("system", "user", "assistant")
Chat = list[dict[str, str]]
Render = Callable[[Chat, bool], str]
"""Text of a chat, with a generation prompt or without."""
MARKS = ("kto one", "kto two", "kto three")
"""Contents by which the parts of a rendered chat are found."""


class GoTemplate(NamedTuple):
    """A chat template of the common form."""

    opening: str
    """What a chat without a system message starts with."""
    turns: dict[str, tuple[str, str]]
    """Text before and after a turn, by role; without a system message where the template refuses one."""
    generation: str

    def render(self, chat: Chat) -> str:
        """A chat with the generation prompt, as Ollama writes it from `text`."""
        opening = "" if chat[0]["role"] == "system" else self.opening
        turns = (f"{self.turns[one['role']][0]}{one['content']}{self.turns[one['role']][1]}" for one in chat)
        return f"{opening}{''.join(turns)}{self.generation}"

    def text(self) -> str:
        """The template in Go's notation."""
        opening = f"{{{{ if not .System }}}}{literal(self.opening)}{{{{ end }}}}" if self.opening else ""
        branches = [
            f'{{{{ {"else if" if index else "if"} eq .Role "{role}" }}}}'
            f"{literal(before)}{{{{ .Content }}}}{literal(after)}"
            for index, (role, (before, after)) in enumerate(self.turns.items())
        ]
        turns = f"{{{{ range .Messages }}}}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}"
        return f"{opening}{turns}{literal(self.generation)}"

    @property
    def stop(self) -> str:
        """What ends an answer; empty where a Modelfile could not hold it."""
        found = self.turns["assistant"][1].strip()
        return "" if '"' in found or "\n" in found else found


def literal(text: str) -> str:
    """A text in a Go template; one with braces or quotes that mean something there is written as a quoted value."""
    return "{{ " + quoted(text) + " }}" if "{{" in text or '"' in text else text


def quoted(text: str) -> str:
    """A text in quotes, in which none of its own may stand plainly."""
    return '"' + text.replace("\\", "\\\\").replace('"', "\\x22").replace("\n", "\\n").replace("\t", "\\t") + '"'


def go_template(tokenizer: Any, kwargs: dict[str, Any]) -> GoTemplate | None:
    """The tokenizer's chat template in Ollama's notation; None where it has another form.

    Args:
        kwargs: arguments that the template is given.
    """
    bos = _bos(tokenizer)

    def render(chat: Chat, generation: bool) -> str:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation, **kwargs)
        return str(text).removeprefix(bos)

    return _translated(render, system=True) or _translated(render, system=False)


def _translated(render: Render, *, system: bool) -> GoTemplate | None:
    """A translation that writes the same chats, with system messages or without; None if there is none."""
    try:
        found = _taken_apart(render, system=system)
        chats = [chat for chat in _chats() if system or chat[0]["role"] != "system"]
        return found if all(found.render(chat) == render(chat, True) for chat in chats) else None
    except Exception:  # noqa: BLE001 - a template is a program of the model's: it may raise anything
        return None


def _bos(tokenizer: Any) -> str:
    """The start token, where llama.cpp adds it to every prompt by itself."""
    marked, plain = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    adds = len(marked) > len(plain) and marked[0] == tokenizer.bos_token_id
    return str(tokenizer.bos_token) if adds else ""


def _taken_apart(render: Render, *, system: bool) -> GoTemplate:
    """The parts of a template of the common form, from what it writes for a few chats.

    Raises:
        ValueError: a content is not written, or not as it is.
    """
    be, ask, say = (_said(role, content) for role, content in zip(ROLES, MARKS, strict=True))
    alone = render([ask], False)
    before, after_user, after_assistant, end = _cut(render([ask, say, ask], False), MARKS[1], MARKS[2], MARKS[1])
    assistant_after = render([ask, say], False).split(MARKS[2])[1]
    user_before = after_assistant.removeprefix(assistant_after)
    turns = {"user": (user_before, end), "assistant": (after_user.removeprefix(end), assistant_after)}
    if system:
        before_system, after_system, _ = _cut(render([be, ask], False), MARKS[0], MARKS[1])
        turns = {"system": (before_system, after_system.removesuffix(user_before)), **turns}
    return GoTemplate(before.removesuffix(user_before), turns, render([ask], True).removeprefix(alone))


def _cut(text: str, *marks: str) -> list[str]:
    """The parts of a text between marks that follow each other."""
    found = []
    for mark in marks:
        part, text = text.split(mark, 1)
        found.append(part)
    return [*found, text]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _chats() -> list[Chat]:
    """Chats that a translation is tried on."""
    ask, say, be = _said("user", "Why?"), _said("assistant", "Because it is so."), _said("system", "Be brief.")
    return [
        [ask],
        [be, ask],
        [ask, say, ask],
        [be, ask, say, ask],
        [be, ask, say, _said("user", "Line\n\nline"), say, ask],
    ]


def modelfile(base: str, adapter: str | None, template: GoTemplate | None) -> str:
    """The text of a Modelfile."""
    lines = [f"FROM {base}", *([f"ADAPTER {adapter}"] if adapter else [])]
    if template is not None:
        lines.append(f'TEMPLATE """{template.text()}"""')
        lines += [f'PARAMETER stop "{template.stop}"'] if template.stop else []
    return "\n".join(lines) + "\n"
