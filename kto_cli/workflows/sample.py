"""`kto sample`: several answers to each prompt, drawn from a checkpoint, in a file that `kto label` and `kto binarize`
read."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.eval_config import is_url
from kto_cli.common.files import text_hash
from kto_cli.common.owner import beside, owning
from kto_cli.common.phase import STORED
from kto_cli.common.sample_config import SampleConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural, printable
from kto_cli.data.texts import last_turn
from kto_cli.evaluation.answers.asking import (
    answering_model,
    as_questions,
    connecting,
    decoding_of,
    fit_prompts,
    store_of,
)
from kto_cli.evaluation.answers.choose import Lazy
from kto_cli.evaluation.answers.records import AnsweringModel, Question
from kto_cli.evaluation.answers.sample_file import SampleFile
from kto_cli.evaluation.answers.sample_prompts import SamplePrompt, prompts_of
from kto_cli.evaluation.answers.sampling import Drawn, draw, missing, repeats, row_key
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.judge.comparisons import Comparison
from kto_cli.evaluation.judge.judge import Judge
from kto_cli.evaluation.judge.labels import AnswerJudge, refuse_too_many
from kto_cli.evaluation.judge.win_rate import open_judge
from kto_cli.evaluation.server.keys import base_url
from kto_cli.evaluation.weights import answer_dtype, cast_weights
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.identity import numbers_identity, tokenizer_identity
from kto_cli.model.lengths import greatest_length
from kto_cli.model.load import load_tokenizer
from kto_cli.model.source import ModelSource, load_source, open_source

LABELLED = {True: "desirable", False: "undesirable", None: "unlabelled"}


@dataclass(frozen=True)
class _Sampled:
    """What answers: a checkpoint, not loaded yet."""

    config: SampleConfig
    """With what the run says."""
    checkpoint: Checkpoint
    source: ModelSource
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype

    def loaded(self) -> AnsweringModel:
        """The model, in memory."""
        config = self.config
        model = load_source(
            self.source,
            trust_remote_code=config.trust_remote_code,
            dtype=self.dtype,
            compute=self.dtype,
            in_4bit=config.load_in_4bit,
        ).model.to(self.device)
        cast_weights(model, self.dtype)  # an adapter's
        return answering_model(
            self.checkpoint.name, self.checkpoint.folder, self.tokenizer, model, self.dtype, self.config
        )

    def of(self, judge: Judge | None) -> str:
        """Hash of all that decides an answer and what is said of it, besides prompt and draw."""
        config, own = self.config, self.tokenizer
        drawn = [config.max_new_tokens, config.temperature, config.top_p, config.seed]
        return text_hash(
            numbers_identity(self.source.fingerprint, str(self.dtype)),
            str(tokenizer_identity(Path(own.name_or_path), own)),
            str([config.template_date, sorted((config.chat_template_kwargs or {}).items()), drawn]),
            config.engine if is_url(config.engine) or config.engine == "vllm" else "transformers",
            *(judge.identity if judge is not None else ()),
        )


def run(config: SampleConfig, screen: Screen) -> dict[str, Any]:
    """Answers all prompts that the file has no answers to; what is in the file stays as it is.

    Returns:
        `file`, `prompts`, `answers`, `drawn` (in this run), `equal`, `empty`, `ended` (share), `labels` (their counts),
        `score` (their mean, of a reward model).

    Raises:
        KtoError: the checkpoint, the prompts, the file, a server or the judge cannot be used.
    """
    checkpoint = Checkpoint.find(config.checkpoint)
    for text in checkpoint.said():
        screen.warn(text)
    asked_dtype = config.dtype
    if checkpoint.settings is not None:
        filled, _ = checkpoint.fill(replace(config, prompt_file=None))
        config = filled if config.prompt_file is None else replace(filled, data=None, prompt_file=config.prompt_file)
    if is_url(config.engine):
        base_url(config.engine)
    prompts, notes = prompts_of(config)
    accelerator = start_accelerator()
    if accelerator.num_processes > 1:
        raise BadInput("kto sample runs in one process.", "Run it without accelerate launch.")
    for note in notes:
        screen.note(note)
    dtype = answer_dtype(asked_dtype, accelerator.device)
    judge = open_judge(config, accelerator.device, dtype, screen)
    sampled = _opened(config, checkpoint, accelerator.device, dtype, screen)
    path = Path(config.out)
    with owning(beside(path), path, "sampling into", warn=screen.warn):
        file = SampleFile(path, sampled.of(judge))
        for note in file.notes:
            screen.note(note)
        drawn = _fill(file, sampled, judge, prompts, screen)
    return _conclude(file, config, prompts, drawn, screen)


def _opened(
    config: SampleConfig, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, screen: Screen
) -> _Sampled:
    source = open_source(str(checkpoint.folder), in_4bit=config.load_in_4bit)
    tokenizer, fallback = load_tokenizer(
        checkpoint.tokenizer_folder, chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    if fallback:
        screen.note("The model has no chat template: using hh-rlhf's turn markers. Set another with --chat-template.")
    return _Sampled(config, checkpoint, source, tokenizer, device, dtype)


def _fill(file: SampleFile, sampled: _Sampled, judge: Judge | None, prompts: list[SamplePrompt], screen: Screen) -> int:
    """Draws, judges and appends what is missing; returns how many answers."""
    config = sampled.config
    todo = missing(prompts, config.n, file.rows)
    if not todo:
        return 0
    judging = AnswerJudge(judge, config) if judge is not None else None
    if judge is not None:
        judge.check_prompts([prompt.text for prompt in prompts])
    if judging is not None and judging.compares:
        _check_targets(todo, config, screen)
    subject = sampled.loaded()
    asked = _questions(prompts, subject, config, screen)
    engine = Lazy(config.engine, subject, [question for _, question in asked], screen.note, connecting(screen))
    weights, dtype, before = sampled.source.fingerprint, sampled.dtype, len(file.rows)
    todo = missing([prompt for prompt, _ in asked], config.n, file.rows)
    with screen.progress(f"answers of {subject.name}", len(todo), keeps=STORED):
        for drawn in draw(
            engine,
            asked,
            set(file.rows),
            config.n,
            decoding_of(config),
            lambda decoding: store_of(subject, weights, dtype, engine.family, decoding, config),
            screen.tick,
        ):
            file.append(_rows(drawn, subject.name, judging))
    return len(file.rows) - before


def _check_targets(todo: list[tuple[SamplePrompt, int]], config: SampleConfig, screen: Screen) -> None:
    """
    Raises:
        BadData: the judge has nothing to compare with. BadInput: it may not be asked often enough.
    """
    compared = sum(prompt.target is not None for prompt, _ in todo)
    if not compared:
        raise BadData(
            "No prompt has a good answer that the judge can compare with.",
            "Give prompts with a target, a dataset with desirable rows, or a reward model (without --judge-url).",
        )
    if compared < len(todo):
        screen.note(f"Answers without a target to compare with, which get no label: {len(todo) - compared:,}.")
    refuse_too_many(compared, config)


def _questions(
    prompts: list[SamplePrompt], subject: AnsweringModel, config: SampleConfig, screen: Screen
) -> list[tuple[SamplePrompt, Question]]:
    """
    Raises:
        BadData: the chat template refuses all prompts.
    """
    longest = subject.context or greatest_length(config.max_length, subject.model().config)
    texts = [prompt.text for prompt in prompts]
    fitted = fit_prompts(texts, subject, longest, config.template_date, config.max_new_tokens)
    refused = Counter(one.refused for one in fitted if one.refused)
    for reason, count in refused.items():
        screen.warn(f"Prompts that the chat template refuses ({reason}), which are not answered: {count:,}.")
    shortened = sum(one.dropped > 0 for one in fitted)
    if shortened:
        screen.note(f"Prompts without their oldest turns, so that an answer fits: {shortened:,}.")
    kept = [(prompt, one) for prompt, one in zip(prompts, fitted, strict=True) if not one.refused]
    if not kept:
        raise BadData("The chat template refuses all prompts.", "Give another with --chat-template, or other prompts.")
    questions = as_questions(
        [prompt.id for prompt, _ in kept], [one.ids for _, one in kept], [prompt.text for prompt, _ in kept]
    )
    return [(prompt, question) for (prompt, _), question in zip(kept, questions, strict=True)]


def _rows(drawn: list[Drawn], model: str, judging: AnswerJudge | None) -> list[dict[str, Any]]:
    rows = [one.row(model) for one in drawn]
    if judging is None:
        return rows
    judged = [index for index, one in enumerate(drawn) if one.prompt.target is not None or not judging.compares]
    found = judging.fields(
        [
            Comparison(row["key"], one.prompt.text, one.answer.text, one.prompt.target or "")
            for row, one in ((rows[index], drawn[index]) for index in judged)
        ]
    )
    said = dict(zip(judged, found, strict=True))
    nothing = {"label": None} if judging.compares else {}
    return [{**row, **said.get(index, nothing)} for index, row in enumerate(rows)]


def _conclude(
    file: SampleFile, config: SampleConfig, prompts: list[SamplePrompt], drawn: int, screen: Screen
) -> dict[str, Any]:
    keys = [row_key(prompt, number) for prompt in prompts for number in range(1, config.n + 1)]
    rows = [file.rows[key] for key in keys if key in file.rows]
    equal = repeats(rows)
    empty = sum(not _text(row).strip() for row in rows)
    labels = Counter(LABELLED[row["label"]] for row in rows if "label" in row)
    ended = sum(row["ended"] for row in rows) / max(1, len(rows))
    scores = [row["score"] for row in rows if "score" in row]
    path = printable(config.out)
    screen.say(
        f"{plural(len(rows), 'answer')} to {plural(len(prompts), 'prompt')} in {path}, {drawn:,} drawn now; "
        f"{ended:.0%} ended by themselves."
    )
    others = len(file.rows) - len(rows)
    if others:
        screen.note(f"Answers to other prompts or of later draws in {path}, which stay: {others:,}.")
    if equal:
        screen.note(f"Answers that equal another to their prompt: {equal:,}, kept (--fix duplicates drops them).")
    if empty:
        screen.note(f"Answers without text: {empty:,}, kept; kto label and kto binarize pass them over.")
    if labels:
        counts = ", ".join(f"{name} {labels[name]:,}" for name in LABELLED.values())
        screen.say(f"By the judge: {counts} (a tie, verdicts that contradict or cannot be read, or no target).")
    screen.note(f"Next: {_next(config, rows)}")
    found = {"file": config.out, "prompts": len(prompts), "answers": len(rows), "drawn": drawn}
    scored = {"score": fmean(scores)} if scores else {}
    return {**found, "equal": equal, "empty": empty, "ended": ended, "labels": dict(labels), **scored}


def _text(row: dict[str, Any]) -> str:
    completion = row["completion"]
    return completion if isinstance(completion, str) else last_turn(completion)


def _next(config: SampleConfig, rows: list[dict[str, Any]]) -> str:
    path = shlex.quote(config.out)
    if any("score" in row for row in rows):
        return f"kto binarize log:{path} --score-column score --threshold NUMBER"
    return f"kto binarize {path}" if any("label" in row for row in rows) else f"kto label {path}"
