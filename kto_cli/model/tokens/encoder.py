"""Encoder of prompts and completions: token ids in training are those that the model sees at inference.

The chat template renders a prompt with its generation prompt. A completion is tokenized separately, behind the last
words of the template, so that prompt and completion meet at a token boundary; it ends with the end-of-turn token. Rows
that are too long lose the oldest turns of the prompt first (never the last user turn), then the end of the completion
(and with it the end-of-turn token).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kto_cli.common.errors import BadFlag, BadModel
from kto_cli.common.template_kwargs import FLAG
from kto_cli.data.texts import TOOLS, Message, Text, kinds
from kto_cli.model.tokens.answer_text import AnswerText
from kto_cli.model.tokens.chat_template import PROBE, ChatTemplate, TemplateRefuses
from kto_cli.model.tokens.control_text import ControlTexts
from kto_cli.model.tokens.template_variables import unused_kwargs
from kto_cli.model.tokens.text_tokens import TextTokens

AFTER_RESULTS = "it writes an answer where there are tools otherwise than an answer to a question"
LEAST_COMPLETION = 16
"""A row is dropped if it has room for fewer tokens of its completion than this (and its completion has more)."""


class FittedPrompt(NamedTuple):
    """Token ids of a prompt, as much of it as fits."""

    ids: tuple[int, ...]
    dropped: int
    """Number of oldest turns dropped."""
    refused: str = ""
    """Why the chat template does not accept the prompt; it has no ids then."""


class EncodedCompletion(NamedTuple):
    """Token ids of a completion, end-of-turn token included."""

    ids: tuple[int, ...]
    named: bool
    """It contains the name of a special token."""
    refused: str = ""
    """Why the model cannot be made to write it; it has no ids then."""


class Encoder:
    """Turns prompts and completions into token ids, for one tokenizer and one maximum length."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        end_ids: Sequence[int] = (),
        date: datetime.date | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        control: tuple[str, str] | None = None,
    ) -> None:
        """
        Args:
            end_ids: tokens that end a turn, besides the tokenizer's end-of-sequence token.
            date: the date for chat templates that write one; default: today's.
            template_kwargs: arguments of the chat template besides the messages.
            control: texts at the end of the prompts of desirable and of undesirable rows.

        Raises:
            BadFlag: one of those holds a special token.
            BadModel: the tokenizer has no end-of-sequence token, or its chat template cannot be used.
        """
        self.tokenizer = tokenizer
        self.max_length = max_length
        if tokenizer.eos_token_id is None:
            raise BadModel(
                "The model's tokenizer has no end-of-sequence token.",
                "Set eos_token in tokenizer_config.json.",
            )
        self.ends = sorted({tokenizer.eos_token_id, *end_ids})
        self.template_kwargs = dict(template_kwargs or {})
        self.control = ControlTexts(*control or ("", ""))
        self._unused = unused_kwargs(tokenizer, self.template_kwargs)
        self._tokens = TextTokens(tokenizer)
        self._refuse_special_texts()
        self._template = ChatTemplate(tokenizer, date, self.template_kwargs)
        self.date = self._template.date
        self.left_out = self._template.left_out()
        ends = [name for name in tokenizer.convert_ids_to_tokens(self.ends) if name in self._tokens.special]
        self._answers = AnswerText(self._template, [*ends, tokenizer.eos_token], tokenizer.eos_token)
        prompt = self._answers.prompt
        self._anchor = prompt[prompt.rfind(PROBE) + len(PROBE) :] + self._template.control + self.control.good

    def _refuse_special_texts(self) -> None:
        for flag, text in zip(("--control-good", "--control-bad"), self.control, strict=True):
            if name := next((name for name in sorted(self._tokens.special) if name in text), None):
                raise BadFlag(f"{flag} {text} holds {name}, a special token of this model.", "Give plain text.")

    def notes(self) -> list[str]:
        """Sentences on how the chat template is used."""
        return self._answers.notes()

    def warnings(self) -> list[str]:
        """Sentences on given arguments that the chat template does not use."""
        return [f"The chat template does not use {name}, given by {FLAG}." for name in self._unused]

    def prompt_ids(self, prompts: Sequence[Text]) -> list[tuple[int, ...]]:
        """Token ids of prompts: one BOS where the tokenizer adds one (text) or the template writes one (chat), and the
        control text of desirable rows.

        Raises:
            TemplateRefuses: the chat template does not accept one of them.
        """
        found = self._prompts(prompts, [True] * len(prompts))
        for one in found:
            if isinstance(one, TemplateRefuses):
                raise one
        return [one for one in found if not isinstance(one, TemplateRefuses)]

    def _prompts(self, prompts: Sequence[Text], labels: Sequence[bool]) -> list[tuple[int, ...] | TemplateRefuses]:
        chats = iter(self._template.rendered([one for one in prompts if not isinstance(one, str)], generation=True))
        rendered = [prompt if isinstance(prompt, str) else next(chats) for prompt in prompts]
        rendered = [
            text + self.control.of(label) if isinstance(text, str) else text
            for text, label in zip(rendered, labels, strict=True)
        ]
        texts = iter(self._tokens.ids([text for text in rendered if isinstance(text, str)]))
        found: list[tuple[int, ...] | TemplateRefuses] = []
        for prompt, text in zip(prompts, rendered, strict=True):
            if isinstance(text, TemplateRefuses):
                found.append(text)
                continue
            ids, bos = next(texts), self._tokens.bos
            found.append(tuple(bos + ids if isinstance(prompt, str) and ids[: len(bos)] != bos else ids))
        return found

    def completion_ids(self, completions: Sequence[Text]) -> list[tuple[tuple[int, ...], bool]]:
        """Token ids of completions with the end-of-turn token, and whether each contains a special token's name.

        Raises:
            TemplateRefuses: the model cannot be made to write one of them.
        """
        found = self.encode_completions(completions)
        for one in found:
            if one.refused:
                raise TemplateRefuses(one.refused)
        return [(one.ids, one.named) for one in found]

    def encode_completions(self, completions: Sequence[Text]) -> list[EncodedCompletion]:
        """Token ids of completions with the end-of-turn token.

        A completion is tokenized behind the last words of the prompt, so that a tokenizer that marks the start of a
        text does not mark it here; where the two would merge into one token, behind another text. Special tokens that
        the template writes are special tokens; their names in the completion itself are plain text.
        """
        answers = [one if isinstance(one, str) else one[0] for one in completions]
        hidden = [self._hidden(answer) for answer in answers]
        written = iter(self._answers.of([answer for answer in hidden if not isinstance(answer, str)]))
        texts = [answer + self.tokenizer.eos_token if isinstance(answer, str) else next(written) for answer in hidden]
        anchors = [(self.control.good or ":") if isinstance(one, str) else self._anchor for one in completions]
        named = [answer != shown for answer, shown in zip(answers, hidden, strict=True)]
        plain = [index for index, text in enumerate(texts) if isinstance(text, str) and not named[index]]
        found = [EncodedCompletion((), is_named) for is_named in named]
        behind = self._tokens.behind([anchors[index] for index in plain], [str(texts[index]) for index in plain])
        for index, ids in zip(plain, behind, strict=True):
            found[index] = EncodedCompletion(tuple(ids), False)
        for index, text in enumerate(texts):
            if isinstance(text, TemplateRefuses):
                found[index] = EncodedCompletion((), named[index], text.reason)
            elif named[index]:
                found[index] = EncodedCompletion(tuple(self._tokens.with_names(anchors[index], text)), True)
        return found

    def _hidden(self, answer: str | Message) -> str | Message:
        """An answer with the names of special tokens in its texts hidden from the chat template."""
        if isinstance(answer, str):
            return self._tokens.hidden(answer)
        if len(answer) == 2:
            return {"role": answer["role"], "content": self._tokens.hidden(answer["content"])}
        return {name: value if name == "role" else self._tokens.hidden(value) for name, value in answer.items()}

    def check(self, prompts: Sequence[Text], completions: Sequence[Text]) -> None:
        """Compares completions with what the template writes behind their own prompts.

        Raises:
            TemplateRefuses: a completion is written otherwise behind another prompt.
        """
        for prompt, completion in zip(prompts, completions, strict=True):
            if not self._is_checked_alone(kinds([prompt])) and self._is_written_otherwise(prompt, completion):
                roles = ", ".join(message["role"] for message in prompt if not isinstance(message, str))
                raise TemplateRefuses(
                    f"behind the roles {roles} it writes an answer otherwise than behind one question"
                )

    def refusals(self, prompts: Sequence[Text], completions: Sequence[Text]) -> list[str]:
        """Why rows with results of tools in their prompts are refused; empty for all others.

        Some templates write an answer to results of tools otherwise than one to a question.
        """
        if not self._is_checked_alone(kinds(prompts)):
            return [""] * len(prompts)
        return [
            AFTER_RESULTS
            if self._is_checked_alone(kinds([prompt])) and self._is_written_otherwise(prompt, completion)
            else ""
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _is_checked_alone(self, found: set[str]) -> bool:
        """Whether a prompt of these kinds holds results of tools, or has a template of its own as it offers tools."""
        return "tool" in found or (self._template.has_tool_template and TOOLS in found)

    def _is_written_otherwise(self, prompt: Text, completion: Text) -> bool:
        """Whether a completion is written otherwise behind its own prompt than behind one question; rows that the
        template refuses are dropped and counted anyway."""
        if isinstance(prompt, str) or isinstance(completion, str):
            return False
        (text,) = self._template.rendered([prompt], generation=True)
        (usual,) = self._answers.of(completion)
        if isinstance(text, TemplateRefuses) or isinstance(usual, TemplateRefuses):
            return False
        return self._answers.differs(text, prompt, completion[0], usual)

    def fit_prompts(
        self,
        prompts: Sequence[Text],
        completion_tokens: Sequence[int],
        numbers: Sequence[int],
        labels: Sequence[bool] | None = None,
    ) -> list[FittedPrompt]:
        """Drops as many of each prompt's oldest turns as its completion needs room, or as there are.

        Args:
            numbers: equal for equal prompts (with control texts: of equal labels), so that each is tokenized once.
            labels: of the rows, for their control texts; default: desirable.
        """
        labels = [True] * len(prompts) if labels is None else labels
        remaining: dict[int, Text] = dict(enumerate(prompts))
        known: dict[tuple[int, int], tuple[int, ...] | TemplateRefuses] = {}  # ids by number and dropped turns
        fitted = [FittedPrompt((), -1)] * len(prompts)
        while remaining:
            keys = {index: (numbers[index], fitted[index].dropped + 1) for index in remaining}
            new = {keys[index]: text for index, text in remaining.items() if keys[index] not in known}
            label_of = {keys[index]: labels[index] for index in remaining}
            found = self._prompts(list(new.values()), [label_of[key] for key in new])
            known.update(zip(new, found, strict=True))
            too_long = {}
            for index, text in remaining.items():
                ids = known[keys[index]]
                if isinstance(ids, TemplateRefuses):
                    fitted[index] = FittedPrompt((), keys[index][1], ids.reason)
                    continue
                fitted[index] = FittedPrompt(ids, keys[index][1])
                shorter = _without_oldest_turn(text) if len(ids) + completion_tokens[index] > self.max_length else None
                if shorter is not None:
                    too_long[index] = shorter
            remaining = too_long
        return fitted


def _without_oldest_turn(prompt: Text) -> Text | None:
    """The prompt without its oldest user turn and answer, tools and a system message kept; None for a text or a single
    turn."""
    if isinstance(prompt, str):
        return None
    start = 0
    while start < len(prompt) and prompt[start]["role"] in (TOOLS, "system"):
        start += 1
    turns = prompt[start:]
    starts = [index for index, message in enumerate(turns) if message["role"] == "user"]
    return (*prompt[:start], *turns[starts[1] :]) if len(starts) > 1 else None
