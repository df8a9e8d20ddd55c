"""Chats rendered as text by a tokenizer's chat template."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from kto_cli.common.errors import BadModel

PROBE = "kto probe"
"""Text of the chats that a template or a tokenizer is tried on."""
Chat = Sequence[dict[str, str]]
GIVE_ANOTHER = "Give another one with --chat-template FILE."


class TemplateRefuses(BadModel):
    """A chat that the template does not render, with the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The chat template cannot be used: {reason}.", GIVE_ANOTHER)
        self.reason = reason


class ChatTemplate:
    """A tokenizer's chat template: compiled once and called directly if that gives what transformers gives.

    A template that reads the content of a message as a list of parts only (image-text models) is given such lists. A
    template that writes the date always sees the same one.
    """

    def __init__(
        self, tokenizer: Any, date: datetime.date | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            date: the date that the template writes; default: today's.
            kwargs: arguments of the template besides the messages, such as enable_thinking.

        Raises:
            TemplateRefuses: the template fails, or leaves out what the user says.
        """
        self._tokenizer = tokenizer
        self._special_tokens: dict[str, Any] = tokenizer.special_tokens_map
        self._source = str(tokenizer.get_chat_template())
        self.date = (date or datetime.date.today()) if "strftime_now" in self._source else None
        """The date that the template writes; None if it writes none."""
        self._options: dict[str, Any] = dict(kwargs or {})
        self.in_parts = False
        """Contents are given as lists of parts."""
        self._compiled: Any = None
        self._compile()
        if self.date:
            if self._compiled is None:
                raise TemplateRefuses("it writes the date, which cannot be set")
            self._options["strftime_now"] = self.date.strftime
        self.in_parts = self._needs_parts()

    def render(self, chats: Sequence[Chat], *, generation: bool) -> list[str]:
        """The text of each chat, with a generation prompt or without.

        Raises:
            TemplateRefuses: the template does not accept a chat.
        """
        found = self.rendered(chats, generation=generation)
        for one in found:
            if isinstance(one, TemplateRefuses):
                raise one
        return [str(one) for one in found]

    def rendered(self, chats: Sequence[Chat], *, generation: bool) -> list[str | TemplateRefuses]:
        """The text of each chat, or why the template does not accept it."""
        return [self._text(chat, generation) for chat in chats]

    def _text(self, chat: Chat, generation: bool) -> str | TemplateRefuses:
        messages = [dict(message) for message in chat]
        if self.in_parts:
            messages = [
                {**message, "content": [{"type": "text", "text": message["content"]}]}  # type: ignore[dict-item]
                for message in messages
            ]
        options = {"add_generation_prompt": generation, **self._options}
        try:
            if self._compiled is None:
                return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **options))
            return str(self._compiled.render(messages=messages, **options, **self._special_tokens))
        except Exception as error:  # noqa: BLE001 - a template is a program of the model's: it may raise anything
            roles = ", ".join(message["role"] for message in chat)
            said = " ".join(f"{error}".split())[:200] or type(error).__name__
            return TemplateRefuses(f"it does not accept the roles {roles} ({said})")

    def _needs_parts(self) -> bool:
        """Whether contents are read only as lists of parts."""
        chat = [{"role": "user", "content": PROBE}]
        first = self._text(chat, True)
        if isinstance(first, str) and PROBE in first:
            return False
        self.in_parts = True
        second = self._text(chat, True)
        if isinstance(second, str) and PROBE in second:
            return True
        raise first if isinstance(first, TemplateRefuses) else TemplateRefuses("it leaves out what the user says")

    def left_out(self) -> dict[str, str]:
        """What the template leaves out of a chat that it accepts, by role: system messages, earlier turns."""
        first, last = {"role": "user", "content": f"{PROBE} one"}, {"role": "user", "content": f"{PROBE} two"}
        system, answer = {"role": "system", "content": f"{PROBE} system"}, {"role": "assistant", "content": "kto said"}
        facts = {}
        with_system = self._text([system, last], True)
        if isinstance(with_system, str) and system["content"] not in with_system:
            facts["system"] = "their system message"
        long = self._text([first, answer, last], True)
        if isinstance(long, str):
            if last["content"] not in long:
                raise TemplateRefuses("of a chat with several turns it leaves out what the user says last")
            if first["content"] not in long or answer["content"] not in long:
                facts["assistant"] = "their earlier turns"
        return facts

    def _compile(self) -> None:
        """Compiles the template, unless plain chats come out otherwise than by `apply_chat_template`, which is slow."""
        try:
            from transformers.utils.chat_template_utils import _compile_jinja_template

            template = _compile_jinja_template(self._source).environment.from_string(self._source)
        except Exception:  # noqa: BLE001
            return  # rendering the chats of the data reports the fault
        template.globals = dict(template.globals)  # each rendering would copy the chain of maps
        turns = [{"role": role, "content": f" {PROBE} {role}\n"} for role in ("user", "assistant", "user")]
        trials = [(chat, generation) for chat in (turns, turns[:1]) for generation in (False, True)]
        expected = [str(self._text(*trial)) for trial in trials]
        self._compiled = template
        if [str(self._text(*trial)) for trial in trials] != expected:
            self._compiled = None
