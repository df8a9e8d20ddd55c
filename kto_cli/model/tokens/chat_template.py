"""Chats rendered as text by a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kto_cli.common.errors import BadModel

PROBE = "kto probe"
"""Text of the chats that a template or a tokenizer is tried on."""


class ChatTemplate:
    """A tokenizer's chat template: compiled once and called directly if that gives what transformers gives."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special_tokens: dict[str, Any] = tokenizer.special_tokens_map
        self._compiled: Any = None
        self._compiled = self._compile()

    def render(self, chats: Sequence[Sequence[dict[str, str]]], *, generation: bool) -> list[str]:
        """The text of each chat, with a generation prompt or without.

        Raises:
            BadModel: the template does not accept the roles of a chat.
        """
        import jinja2

        if not chats:
            return []
        options = {"add_generation_prompt": generation}
        try:
            if self._compiled is None:
                return self._tokenizer.apply_chat_template([list(chat) for chat in chats], tokenize=False, **options)
            return [self._compiled.render(messages=list(chat), **options, **self._special_tokens) for chat in chats]
        except jinja2.TemplateError as error:
            if len(chats) > 1:
                return [text for chat in chats for text in self.render([chat], generation=generation)]
            roles = ", ".join(message["role"] for message in chats[0])
            raise BadModel(
                f"The chat template cannot render the roles {roles}: {error}.",
                "Give another one with --chat-template FILE.",
            ) from error

    def _compile(self) -> Any:
        """The compiled template, which takes a fraction of the time of `apply_chat_template`; None if the two render
        plain chats differently."""
        import jinja2

        try:
            from transformers.utils.chat_template_utils import _compile_jinja_template

            source = self._tokenizer.get_chat_template()
            template = _compile_jinja_template(source).environment.from_string(source)
            turns = [{"role": role, "content": f" {PROBE} {role}\n"} for role in ("user", "assistant", "user")]
            for generation in (False, True):
                options = {"add_generation_prompt": generation, **self._special_tokens}
                if self.render([turns], generation=generation) != [template.render(messages=turns, **options)]:
                    return None
        except (ImportError, ValueError, jinja2.TemplateError, BadModel):
            return None  # rendering the chats of the data reports the fault
        template.globals = dict(template.globals)  # each rendering would copy the chain of maps
        return template
