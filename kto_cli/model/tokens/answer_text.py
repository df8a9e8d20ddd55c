"""Text that the model itself must write behind a generation prompt, so that the chat template shows a given answer.

It is what the template writes of the whole chat behind the text of the prompt, up to and including the token that ends
the answer. Where a template shows the answer behind another text than its generation prompt:

    the generation prompt opens reasoning (<think>)     the answer's own reasoning and </think>, or </think> alone
    it opens and closes it                              the answer; answers with reasoning are refused
    it ends with white space that the chat lacks        the answer
    anything else                                       the template is refused
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kto_cli.data.reasoning import OPENER, closer_of, split_reasoning
from kto_cli.data.texts import Message, calls_of
from kto_cli.model.tokens.chat_template import PROBE, Chat, ChatTemplate, TemplateRefuses

DROP = "(kto binarize --reasoning drop makes rows of the answers alone)"
HAS_REASONING = f"it closes the reasoning before the answer, and the answer has its own {DROP}"
NO_WAY = "it writes the answer behind another text than its generation prompt"
LEFT_OUT = f"it leaves out the reasoning of the answer {DROP}"
CALLS_LEFT_OUT = "it leaves out the calls of tools in the answer"
QUESTION = {"role": "user", "content": PROBE}


class AnswerText:
    """What one chat template needs written for an answer."""

    def __init__(self, template: ChatTemplate, ends: Sequence[str], eos: str) -> None:
        """
        Args:
            template: a control text at the end of its prompts (control_text.py) is no part of what is compared.
            ends: tokens that end an answer.

        Raises:
            TemplateRefuses: the template leaves out the answer, or shows it behind another text than its prompt.
        """
        self._template, self._eos = template, eos
        self._ends = re.compile("|".join(map(re.escape, sorted(ends, key=len, reverse=True))))
        self.prompt = template.render([[QUESTION]], generation=True)[0].removesuffix(template.control)
        chat = template.render([[QUESTION, _answer(PROBE)]], generation=False)[0]
        place = chat.rfind(PROBE)
        if chat.count(PROBE) < 2:
            raise TemplateRefuses("it leaves out what the model answers")
        shared = min(_shared(self.prompt, chat), place)
        (asked,) = template.render([[QUESTION]], generation=False)
        self._generation = self.prompt[_shared(asked, self.prompt) :]
        """The generation prompt behind one question."""
        self._rest = self.prompt[shared:]
        """End of the generation prompt that the whole chat lacks."""
        self.before, self.after = chat[shared:place], chat[place + len(PROBE) :]
        """What the template writes before and behind a plain answer."""
        opener = OPENER.search(self._rest)
        closers = re.findall(r"</[^>]*>|\[/[^\]]*\]|<\|END_[^>]*>", self._rest)
        self._closer = closer_of(opener) if opener and not closers else None
        self._closed = bool(closers)
        if self._rest.strip() and not self._closer and not self._closed:
            raise TemplateRefuses(
                f"its generation prompt ends with {self._rest[-60:]!r}, and it writes an answer behind "
                f"{chat[max(0, shared - 20) : place]!r}"
            )
        self.empty_reasoning = ""
        """What closes the reasoning of a prompt before an answer without any."""
        if self._closer:
            self.empty_reasoning = ("\n" if self._rest.endswith("\n") else "") + f"{self._closer}\n\n"
        self.own_end = self._ends.search(self.after) is not None
        """The template writes a token that ends an answer; else the end-of-sequence token is put behind it."""

    def of(self, answers: Sequence[Message]) -> list[str | TemplateRefuses]:
        """What the model writes for each answer, or why it cannot."""
        return [self.behind(self.prompt, [QUESTION], answer) for answer in answers]

    def behind(self, prompt: str, chat: Chat, answer: Message) -> str | TemplateRefuses:
        """What the model writes for an answer to a chat whose text with generation prompt is `prompt`."""
        (whole,) = self._template.rendered([[*chat, answer]], generation=False)
        if isinstance(whole, TemplateRefuses):
            return whole
        text = self._written(prompt.removesuffix(self._template.control), whole, answer)
        if isinstance(text, TemplateRefuses):
            return text
        for part in _reasonings(answer):
            if part not in text:
                return TemplateRefuses(LEFT_OUT)
        for call in calls_of(answer):
            if call["function"]["name"] not in text:
                return TemplateRefuses(CALLS_LEFT_OUT)
        return self._ended(text)

    def differs(self, prompt: str, chat: Chat, answer: Message, usual: str) -> bool:
        """Whether an answer is written otherwise behind a chat than `usual`, behind one question.

        A template may write earlier turns otherwise once they are answered: then the end of the whole chat decides, and
        whether the generation prompt is that behind one question.
        """
        own = self.behind(prompt, chat, answer)
        if isinstance(own, str):
            return own != usual
        whole, asked = self._template.rendered([[*chat, answer], chat], generation=False)
        if isinstance(whole, TemplateRefuses) or isinstance(asked, TemplateRefuses):
            return True
        prompt = prompt.removesuffix(self._template.control)
        return prompt[_shared(asked, prompt) :] != self._generation or not whole.rstrip().endswith(usual.rstrip())

    def _written(self, prompt: str, whole: str, message: Message) -> str | TemplateRefuses:
        """The text behind the prompt, not cut at its end."""
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        given = self._template.given(message)
        answer = given["content"] if isinstance(given["content"], str) else message["content"]
        in_field = bool(self._template.reasoning_field and message.get("reasoning_content"))
        start = prompt.removesuffix(self._rest)
        if not self._rest or not whole.startswith(start):
            return TemplateRefuses(HAS_REASONING if in_field or "</" in answer else NO_WAY)
        if self._closer is None:
            opened = OPENER.search(answer)
            if self._closed and (in_field or (opened and closer_of(opened) in answer)):
                return TemplateRefuses(HAS_REASONING)
            return whole[len(start) :]
        if whole.startswith(prompt.rstrip()) and self._closer in whole[len(start) :]:
            return whole[len(prompt.rstrip()) :]  # the template shows reasoning itself, with other white space
        reasoning, found, _ = answer.partition(self._closer)
        if not found:
            return self.empty_reasoning + whole[len(start) :]
        opener = OPENER.match(reasoning.lstrip())
        own = reasoning.lstrip()[opener.end() :].lstrip("\n") if opener else reasoning
        return own + self._closer + whole[len(start) :]

    def _ended(self, text: str) -> str | TemplateRefuses:
        """The text up to the token that ends the answer; the end-of-sequence token where the template writes none."""
        place = len(self.before) if text.startswith(self.before) else 0
        if found := self._ends.search(text, place):
            return text[: found.end()]
        if text.endswith(self.after):
            return text[: len(text) - len(self.after)] + self._eos
        return TemplateRefuses("it writes another text behind the answer than behind others")

    def notes(self) -> list[str]:
        """Sentences on what this template needs."""
        found = []
        if self.before.strip():
            where = "makes the model" if self._generation else "has no generation prompt: the model"
            verb = "write" if self._generation else "writes"
            found.append(f"The chat template {where} {verb} {self.before!r} itself before a plain answer.")
        if self._closer:
            found.append(
                f"The generation prompt opens reasoning ({self._rest.strip()!r}): the model writes "
                f"{self.empty_reasoning!r} before answers that have none. --chat-template FILE gives another prompt."
            )
        if not self.own_end:
            theirs = f"writes {self.after.strip()!r}, which is not among" if self.after.strip() else "writes none of"
            found.append(
                f"Answers end with {self._eos}: the chat template {theirs} the tokens that end generation "
                "(eos_token_id of the tokenizer, generation_config.json)."
            )
        if self._template.in_parts:
            found.append("The chat template reads content as a list of parts: texts are given as such.")
        if self._template.date:
            found.append(
                f"The chat template writes the date: {self._template.date:%Y-%m-%d} for all rows. "
                "--template-date YYYY-MM-DD sets it."
            )
        return found


def _reasonings(answer: Message) -> list[str]:
    """The reasoning that an answer has, in a field or before its text."""
    return [
        text.strip() for text in (answer.get("reasoning_content", ""), split_reasoning(answer["content"])[0]) if text
    ]


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _shared(one: str, other: str) -> int:
    """Number of characters that two texts begin with alike."""
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)
