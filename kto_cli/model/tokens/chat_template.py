"""Chats rendered as text by a tokenizer's chat template.

Templates read some things in several ways; which one is found out by trying, once:

    content      a text, or a list of parts (image-text models)
    arguments    of calls of tools: an object, or its JSON text
    reasoning    a field (reasoning_content, thinking, reasoning), or tags in the content (<think>)
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from kto_cli.common.errors import BadModel
from kto_cli.data.reasoning import OPENER, closer_of
from kto_cli.data.texts import TOOLS, Message, calls_of, offered, with_arguments_as_text
from kto_cli.model.tokens.control_text import control_text_of

PROBE = "kto probe"
"""Text of the chats that a template or a tokenizer is tried on."""
Chat = Sequence[Message]
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Fields of a message that templates read reasoning from."""
TOOL = {"name": "kto_probe", "description": "Probes.", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "function", "id": "ktoprobe1", "function": {"name": "kto_probe", "arguments": {"kto": "probe"}}}
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
        self._sources = {offers: str(tokenizer.get_chat_template(tools=offers or None)) for offers in (False, True)}
        self._source = self._sources[False]
        self.control = control_text_of(self._source)
        """Text behind its generation prompt that says the label (conditional SFT); empty if it writes none."""
        self.has_tool_template = self._sources[True] != self._source
        """Prompts that offer tools have a template of their own, named tool_use."""
        self.date = (date or datetime.date.today()) if "strftime_now" in "".join(self._sources.values()) else None
        """The date that the template writes; None if it writes none."""
        self._options: dict[str, Any] = dict(kwargs or {})
        self.in_parts = self.calls_as_text = False
        """Contents are given as lists of parts; arguments of calls as JSON text."""
        self.reasoning_field: str | None = None
        """Field that reasoning is read from; None: it is read from the content, or not at all."""
        self.reasoning_tags = ("", "")
        """What opens and closes reasoning in the content; empty if the template knows of none."""
        self._compiled: dict[bool, Any] = {}
        """By whether the prompt offers tools; none that writes plain chats otherwise than transformers does."""
        for offers in (False, True):
            self._compile(offers)
        if self.date:
            if len(self._compiled) < 2:
                raise TemplateRefuses("it writes the date, which cannot be set")
            self._options["strftime_now"] = self.date.strftime
        self.in_parts = self._needs_parts()
        self.calls_as_text = self._needs_calls_as_text()
        self.reasoning_field = self._find_reasoning_field()
        self.reasoning_tags = self._find_reasoning_tags()

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

    def given(self, message: Message) -> Mapping[str, Any]:
        """A message as the template reads it."""
        if len(message) == 2 and not self.in_parts:
            return message
        found: dict[str, Any] = {
            name: value for name, value in message.items() if name not in ("reasoning_content", "tool_calls")
        }
        if reasoning := message.get("reasoning_content"):
            found |= self._reasoning(reasoning, message["content"])
        if calls := calls_of(message):
            found["tool_calls"] = list(map(with_arguments_as_text, calls)) if self.calls_as_text else calls
        if self.in_parts:
            found["content"] = [{"type": "text", "text": found["content"]}]
        return found

    def _reasoning(self, reasoning: str, content: str) -> dict[str, str]:
        """The fields of a message with reasoning; without it where the template knows of none."""
        if self.reasoning_field:
            return {self.reasoning_field: reasoning}
        opener, closer = self.reasoning_tags
        return {"content": f"{opener}\n{reasoning}\n{closer}\n\n{content}"} if opener else {}

    def _text(self, chat: Chat, generation: bool) -> str | TemplateRefuses:
        tools = offered(chat)
        messages = [self.given(message) for message in (chat[1:] if tools else chat)]
        options = {"add_generation_prompt": generation, **self._options}
        try:
            if (template := self._compiled.get(bool(tools))) is None:
                options["tools"] = tools
                return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **options))
            options |= {"tools": tools, "documents": None}
            return str(template.render(messages=messages, **options, **self._special_tokens))
        except Exception as error:  # noqa: BLE001 - a template is a program of the model's: it may raise anything
            roles = ", ".join(message["role"] for message in chat)
            said = " ".join(f"{error}".split())[:200] or type(error).__name__
            return TemplateRefuses(f"it does not accept the roles {roles} ({said})")

    def _needs_calls_as_text(self) -> bool:
        """Whether arguments of calls are read as text: an object is refused, or written as Python writes it."""
        written = self._text([_said("user"), _said("assistant", calls=True)], False)
        if isinstance(written, str) and "{'kto'" not in written:
            return False
        self.calls_as_text = True
        again = self._text([_said("user"), _said("assistant", calls=True)], False)
        return isinstance(again, str) and "kto_probe" in again

    def _find_reasoning_field(self) -> str | None:
        for field in REASONING_FIELDS:
            self.reasoning_field = field
            written = self._text([_said("user"), {**_said("assistant"), "reasoning_content": "kto thinks"}], False)
            if isinstance(written, str) and "kto thinks" in written:
                return field
        return None

    def _find_reasoning_tags(self) -> tuple[str, str]:
        found = OPENER.search(self._source)
        return (found[0], closer_of(found)) if found and closer_of(found) in self._source else ("", "")

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
        return facts | self._left_out_of_tools()

    def _left_out_of_tools(self) -> dict[str, str]:
        """What it leaves out of a chat with tools, by role; `tool_calls` for calls in earlier turns."""
        tools = {"role": TOOLS, "content": json.dumps([{"type": "function", "function": TOOL}])}
        result = {"role": "tool", "content": f"{PROBE} result", "tool_call_id": "ktoprobe1", "name": "kto_probe"}
        facts = {}
        offered = self._text([tools, _said("user")], True)
        if isinstance(offered, str) and "kto_probe" not in offered:
            facts[TOOLS] = "their tools"
        called = self._text([_said("user"), _said("assistant", calls=True), result], True)
        if isinstance(called, str):
            facts |= {} if "kto_probe" in called else {"tool_calls": "their calls of tools"}
            facts |= {} if result["content"] in called else {"tool": "the results of their tools"}
        return facts

    def _compile(self, offers: bool) -> None:
        """Compiles a template, unless plain chats come out otherwise than by `apply_chat_template`, which is slow."""
        try:
            template = _compiled(self._sources[offers])
        except Exception:  # noqa: BLE001
            return  # rendering the chats of the data reports the fault
        tools = [{"role": TOOLS, "content": json.dumps([{"type": "function", "function": TOOL}])}] if offers else []
        turns = [{"role": role, "content": f" {PROBE} {role}\n"} for role in ("user", "assistant", "user")]
        trials = [([*tools, *chat], generation) for chat in (turns, turns[:1]) for generation in (False, True)]
        expected = [str(self._text(*trial)) for trial in trials]
        self._compiled[offers] = template
        if [str(self._text(*trial)) for trial in trials] != expected:
            del self._compiled[offers]


@lru_cache(maxsize=8)
def _compiled(source: str) -> Any:
    """A template as transformers compiles it, apart from that of transformers."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template = _compile_jinja_template(source).environment.from_string(source)
    template.globals = dict(template.globals)  # each rendering would copy the chain of maps
    return template


def _said(role: str, *, calls: bool = False) -> Message:
    """A message to try a template on."""
    return {"role": role, "content": "kto says"} | ({"tool_calls": json.dumps([CALL])} if calls else {})
