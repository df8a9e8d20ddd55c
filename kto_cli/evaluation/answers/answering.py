"""Validation prompts answered by several models, and statistics of their answers."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.cache import cache_folder
from kto_cli.common.eval_config import REFERENCE, TARGET, EvalConfig
from kto_cli.common.phase import STORED
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.rows import EncodedRow
from kto_cli.data.texts import api_messages, offered
from kto_cli.evaluation.answers.choose import Lazy
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question
from kto_cli.evaluation.answers.statistics import describe
from kto_cli.evaluation.answers.store import AnswerStore, answer_all
from kto_cli.evaluation.files import GENERATIONS, SAMPLES, write_lines, write_part
from kto_cli.evaluation.prompts import ValidationPrompts, side_by_side
from kto_cli.evaluation.server.client import CallBudget, ChatServer
from kto_cli.evaluation.server.keys import ENGINE_KEY, key_for
from kto_cli.model import lora
from kto_cli.model.identity import numbers_identity, tokenizer_identity
from kto_cli.model.lengths import independent_length
from kto_cli.model.load import end_ids
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.source import locate_base, located_below
from kto_cli.model.tokens.chat_template import TemplateRefuses
from kto_cli.model.tokens.encoder import Encoder

SHOWN = 4
"""Prompts whose answers are shown on the screen; the report shows more, samples.jsonl has all."""


@dataclass
class Answering:
    """Answers of several models to the validation prompts; `answers` is [prompts] by the name of the model."""

    config: EvalConfig
    prepared: Prepared
    prompts: ValidationPrompts
    accelerator: Any
    screen: Screen
    dtype: torch.dtype
    """Of the weights that answer."""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    beside: dict[str, list[str | None]] = field(default_factory=dict)
    """[prompts] answers of other models from an earlier evaluation; None where there is none."""
    ends: tuple[int, ...] = ()
    """Tokens that end an answer of the reference."""

    @property
    def decoding(self) -> Decoding:
        """The decoding of the config."""
        config = self.config
        return Decoding(config.max_new_tokens, config.temperature, config.top_p, config.seed)

    def by(self, name: str, called: str, folder: Path, weights: str, model: Any, tokenizer: Any = None) -> None:
        """Generates a model's answers to all prompts, each process its share.

        Args:
            name: the model's name in the results. called: the user's name for it. weights: its fingerprint.
            tokenizer: its own, where it is not the reference's.
        """
        if not self.prompts:
            return
        prepared, accelerator, screen = self.prepared, self.accelerator, self.screen
        is_reference = name == REFERENCE
        own = tokenizer or (prepared.tokenizer if is_reference else prepared.served_tokenizer)
        ends = tuple(sorted({*end_ids(model), own.eos_token_id}))
        self.ends = self.ends or ends
        subject = AnsweringModel(
            name=called,
            folder=folder,
            tokenizer=own,
            ends=ends,
            context=independent_length(model.config),
            model=lambda: model,
            base=locate_base(folder) if lora.is_adapter(folder) else None,
            stacked=lora.is_adapter(folder) and lora.is_adapter(located_below(folder)),
            dtype=str(self.dtype).removeprefix("torch."),
            trust_remote_code=self.config.trust_remote_code,
            template_kwargs=self.config.chat_template_kwargs or {},
        )
        rows = self.prompts.reference_rows if is_reference else self.prompts.rows
        questions = self._questions(rows, tokenizer, subject)
        engine = Lazy(self.config.engine, subject, questions, screen.note, _connect(screen))
        store = AnswerStore(
            cache_folder(self.config),
            fingerprint=numbers_identity(weights, str(self.dtype)),
            reader=[list(ends), tokenizer_identity(Path(own.name_or_path), own)],
            family=engine.family,
            decoding=self.decoding,
        )
        mine = range(accelerator.process_index, len(questions), accelerator.num_processes)
        with screen.progress(f"answers of {called}", len(mine), keeps=STORED):
            found = answer_all(engine, [questions[index] for index in mine], self.decoding, store, tick=screen.tick)
        self.answers[name] = self._gathered(dict(zip(mine, found, strict=True)))

    def _questions(self, rows: list[EncodedRow], tokenizer: Any, subject: AnsweringModel) -> list[Question]:
        """The prompts in the tokens they are scored with; for a model with another tokenizer, in its tokens."""
        texts = self.prompts.texts
        if tokenizer is None:
            tokens = [list(row.own.prompt) for row in rows]
        else:
            named = self.prepared.template_date or self.config.template_date
            date = datetime.date.fromisoformat(named) if named else None
            encoder = Encoder(
                tokenizer,
                max_length=subject.context or self.prepared.max_length,
                end_ids=subject.ends,
                date=date,
                template_kwargs=subject.template_kwargs,
            )
            room = [self.config.max_new_tokens] * len(rows)
            found = encoder.fit_prompts(texts, room, range(len(rows)))
            for fitted in found:
                if fitted.refused:
                    raise TemplateRefuses(fitted.refused)
            tokens = [list(fitted.ids) for fitted in found]
        return [
            Question(row.id, ids, api_messages(text, arguments_as_text=True), offered(text))
            for row, ids, text in zip(rows, tokens, texts, strict=True)
        ]

    def _gathered(self, mine: dict[int, Answer]) -> list[Answer]:
        """The answers of all processes, in order."""
        from accelerate.utils import gather_object

        everyone = dict(gather_object(list(mine.items())))
        return [Answer(*everyone[index]) for index in range(len(self.prompts))]

    def texts(self, name: str) -> list[str]:
        """[prompts] of one model."""
        return [answer.text for answer in self.answers[name]]

    def samples(self) -> list[dict[str, str]]:
        """Answers to the same prompts, side by side."""
        return side_by_side(self.prompts, {**{name: self.texts(name) for name in self.answers}, **self.beside})

    def write(self, out: Path, of: str) -> dict[str, Any]:
        """Writes samples.jsonl and generations.json and returns the latter; without prompts, earlier answers stay."""
        if not self.prompts:
            if not (out / SAMPLES).exists():
                write_lines(out, SAMPLES, [])
            return {}
        write_lines(out, SAMPLES, self.samples())
        answers = dict(self.answers)
        if targets := self._targets():
            answers[TARGET] = targets
        found = describe(answers, self.decoding, self.config.engine)
        write_part(out, GENERATIONS, of, found, beside=[SAMPLES])
        return {"generations": found}

    def _targets(self) -> list[Answer]:
        """The data's desirable completions, truncated as answers are; empty if a prompt has none."""
        if None in self.prompts.targets:
            return []
        prepared, most = self.prepared, self.config.max_new_tokens
        found = []
        for row in self.prompts.rows:
            ends = row.own.completion[-1] in self.ends
            tokens = row.own.completion[:-1] if ends else row.own.completion
            text = prepared.tokenizer.decode(tokens[:most], skip_special_tokens=True).strip()
            found.append(Answer(text, min(len(tokens), most), ends and len(tokens) < most))
        return found

    def show(self, found: dict[str, Any]) -> None:
        """Prints a few answers, then the statistics of all."""
        shown = list(self.answers)
        samples = self.samples()[:SHOWN]
        if not samples:
            return
        self.screen.texts(
            "Answers to the same validation prompts",
            ["prompt", *shown],
            [[sample["prompt"], *(sample[name] for name in shown)] for sample in samples],
        )
        models, most = found["generations"]["models"], self.config.max_new_tokens
        count = plural(len(self.prompts), "answer")
        self.screen.table(
            f"Generation statistics ({count} per model, max {plural(most, 'new token')})",
            ["", "tokens", "90 % interval", "ended", "repeated 4-grams", "distinct-2", "empty"],
            [
                [
                    name,
                    one["tokens_mean"],
                    "{:.0f} to {:.0f}".format(*one["tokens_mean_interval"]),
                    f"{one['ended']:.0%}",
                    "-" if math.isnan(one["repetition"]) else f"{one['repetition']:.0%}",
                    one["distinct_2"],
                    one["empty"],
                ]
                for name, one in models.items()
            ],
        )
        if found["generations"]["sentence"]:
            self.screen.say(found["generations"]["sentence"])


def _connect(screen: Screen) -> Callable[[str], ChatServer]:
    """Returns a function that opens connections to servers; only the number of prompts limits their calls."""

    def connected(url: str) -> ChatServer:
        key, calls = key_for(url, ENGINE_KEY), CallBudget(sys.maxsize)
        server = ChatServer(url, key=key, key_name=ENGINE_KEY, calls=calls, say=screen.note)
        server.reach()  # a server that is down is reported at once, not after all tries
        return server

    return connected
