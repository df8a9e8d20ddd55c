"""Validation prompts answered by several models, and statistics of their answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.eval_config import REFERENCE, TARGET, EvalConfig
from kto_cli.common.phase import STORED
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.rows import EncodedRow
from kto_cli.evaluation.answers.asking import (
    answering_model,
    as_questions,
    connecting,
    decoding_of,
    fit_prompts,
    store_of,
)
from kto_cli.evaluation.answers.choose import Lazy
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question
from kto_cli.evaluation.answers.statistics import describe
from kto_cli.evaluation.answers.store import answer_all
from kto_cli.evaluation.files import GENERATIONS, SAMPLES, write_lines, write_part
from kto_cli.evaluation.prompts import ValidationPrompts, side_by_side
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.tokens.chat_template import TemplateRefuses

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
        return decoding_of(self.config)

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
        subject = answering_model(called, folder, own, model, self.dtype, self.config)
        self.ends = self.ends or subject.ends
        rows = self.prompts.reference_rows if is_reference else self.prompts.rows
        questions = self._questions(rows, tokenizer, subject)
        engine = Lazy(self.config.engine, subject, questions, screen.note, connecting(screen))
        store = store_of(subject, weights, self.dtype, engine.family, self.decoding, self.config)
        mine = range(accelerator.process_index, len(questions), accelerator.num_processes)
        with screen.progress(f"answers of {called}", len(mine), keeps=STORED):
            found = answer_all(engine, [questions[index] for index in mine], self.decoding, store, tick=screen.tick)
        self.answers[name] = self._gathered(dict(zip(mine, found, strict=True)))

    def _questions(self, rows: list[EncodedRow], tokenizer: Any, subject: AnsweringModel) -> list[Question]:
        """The prompts in the tokens they are scored with; for a model with another tokenizer, in its tokens."""
        texts = self.prompts.texts
        if tokenizer is None:
            tokens = [row.own.prompt for row in rows]
        else:
            date = self.prepared.template_date or self.config.template_date
            longest = subject.context or self.prepared.max_length
            fitted = fit_prompts(texts, subject, longest, date, self.config.max_new_tokens)
            if refused := next((one.refused for one in fitted if one.refused), ""):
                raise TemplateRefuses(refused)
            tokens = [one.ids for one in fitted]
        return as_questions([row.id for row in rows], tokens, texts)

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
