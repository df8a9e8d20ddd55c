"""One evaluation: the checkpoint, its reference, the baseline of its win rate, and the folder of results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.eval_config import REFERENCE, TARGET, EvalConfig, is_url
from kto_cli.common.files import text_hash
from kto_cli.common.screen import Screen
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.data.texts import spelled
from kto_cli.evaluation.answers.answering import Answering
from kto_cli.evaluation.benchmarks.plan import Plan
from kto_cli.evaluation.benchmarks.tasks import planned
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.files import METRICS
from kto_cli.evaluation.judge import win_rate
from kto_cli.evaluation.judge.judge import Judge
from kto_cli.evaluation.judge.people import Preference, preferences_in_file, preferences_of_rows
from kto_cli.evaluation.judge.win_rate import NamedAnswers
from kto_cli.evaluation.prompts import ValidationPrompts, choose_prompts, free_name
from kto_cli.evaluation.report.page import write_report
from kto_cli.evaluation.server.keys import base_url
from kto_cli.evaluation.weights import answer_dtype, cast_weights
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.prepare import Prepared, prepare
from kto_cli.training.loss_flags import loss_words


@dataclass
class Session:
    """One evaluation."""

    config: EvalConfig
    checkpoint: Checkpoint
    weights_id: str
    """Hash of the checkpoint's weights."""
    prepared: Prepared
    accelerator: Any
    screen: Screen
    tasks: Plan | None
    judge: Judge | None
    other: Checkpoint | None
    """The baseline, if it is another checkpoint."""
    given: NamedAnswers | None
    """The baseline, if its answers exist already: the data's or a file's."""
    answering: Answering
    preferences: list[Preference]
    """Pairs on which the judge is compared with people."""

    def for_answers(self, model: Any) -> Any:
        """A scored model, in the dtype that answers, if anything remains to be asked of it; it is scored no more."""
        if self.answering.prompts or self.tasks is not None:
            cast_weights(model, self.answering.dtype)
        return model

    @property
    def eval_folder(self) -> Path:
        """Where the results are."""
        return self.checkpoint.eval_folder

    @property
    def evaluated_id(self) -> str:
        """Hash of what is evaluated: the weights, the reference and the data."""
        return text_hash(self.weights_id, self.prepared.source.fingerprint, self.prepared.data.fingerprint)


def open_session(
    config: EvalConfig, screen: Screen, checkpoint: Checkpoint | None = None
) -> tuple[Session, LossSettings | None]:
    """A session, after all checks that need no computing; and the run's loss.

    Args:
        checkpoint: that of the config, if it was found before.

    Raises:
        KtoError: as `evaluate.run`.
    """
    checkpoint = checkpoint or Checkpoint.find(config.checkpoint)
    screen.warn(*checkpoint.said())
    asked_dtype, asked_reference = config.dtype, config.model is not None
    config, loss = checkpoint.fill(config)
    tasks, other = planned(config), _other_checkpoint(config)
    labelled = preferences_in_file(Path(config.judge_labels)) if config.judge_labels is not None else []
    if is_url(config.engine):
        base_url(config.engine)
    accelerator = start_accelerator()
    main = accelerator.is_main_process
    screen = screen if main else Screen(quiet=True)
    if tasks is not None and accelerator.num_processes > 1:
        raise BadInput("--tasks runs in one process.", "Evaluate on benchmarks without accelerate launch.")
    dtype = answer_dtype(asked_dtype, accelerator.device)
    if config.prompts or tasks is not None:
        _say_dtype(dtype, screen)
    judge = win_rate.open_judge(config, accelerator.device, dtype, screen) if main else None
    merged = checkpoint.merged_reference and not asked_reference
    prepared = _prepared(config, accelerator, screen, merged=merged, control=None if loss is None else loss.control)
    for adapted in filter(None, (checkpoint, other)):
        adapted.refuse_other_vocabulary(prepared)
    if (checkpoint.eval_folder / METRICS).exists():
        screen.note(f"Replacing the earlier results in {checkpoint.eval_folder}")
    prompts = choose_prompts(prepared.validated, prepared.data, config.prompts)
    preferences = labelled or preferences_of_rows(prepared.data, config.pairs)
    _check_what_is_judged(judge, prompts, preferences)
    given = _given(config, prompts)
    win_rate.warn_of_calls(config, len(prompts) + len(preferences), screen)
    answering = Answering(config, prepared, prompts, accelerator, screen, dtype)
    if given is not None and given.name != TARGET:
        answering.beside[given.name] = given.answers
    weights_id = checkpoint.weights_id(prepared, config)
    if other is not None and other.folder.resolve() == checkpoint.folder.resolve():
        screen.note(f"{checkpoint.name} is measured against itself: its answers are the same twice.")
    session = Session(
        config,
        checkpoint,
        weights_id,
        prepared,
        accelerator,
        screen,
        tasks,
        judge,
        other,
        given,
        answering,
        preferences,
    )
    return session, loss


def _check_what_is_judged(judge: Judge | None, prompts: ValidationPrompts, preferences: list[Preference]) -> None:
    """Whether the judge can read the prompts, before anything is answered.

    Raises:
        KtoError: it cannot.
    """
    if judge is not None:
        shown = [*prompts.texts, *(each.comparison.prompt for each in preferences)]
        judge.check_prompts([*{spelled(text): text for text in shown}.values()])


def _say_dtype(dtype: torch.dtype, screen: Screen) -> None:
    if dtype != torch.float32:
        name = str(dtype).removeprefix("torch.")
        screen.note(f"Answers, benchmarks and a local judge use {name} weights (--dtype float32: full precision).")


def _prepared(
    config: EvalConfig, accelerator: Any, screen: Screen, *, merged: bool, control: tuple[str, str] | None
) -> Prepared:
    """Validation rows and the reference model."""
    prepared = prepare(config, accelerator, screen, needs_train=False, merged=merged, control=control)
    if not prepared.validation:
        raise BadData(
            f"{prepared.data.folder} has no validation rows to evaluate on.",
            "Binarize again with a larger --validation.",
        )
    return prepared


def _other_checkpoint(config: EvalConfig) -> Checkpoint | None:
    """The baseline, if it is another checkpoint; its name must not clash with a column of the results.

    Raises:
        KtoError: there is no such checkpoint.
    """
    if config.against in (None, TARGET, REFERENCE):
        return None
    assert config.against is not None
    if Path(config.against).is_file():
        return None
    if config.against.endswith(".json"):
        raise BadInput(f"There is no file {config.against}.", "Give a checkpoint, or a file of answers that is there.")
    found = Checkpoint.find(config.against)
    return replace(found, name=free_name(found.name))


def _given(config: EvalConfig, prompts: ValidationPrompts) -> NamedAnswers | None:
    """The other side of the win rate, if no model has to answer for it.

    Raises:
        BadInput: a file without usable answers. BadData: a judge shall compare with completions that are not there.
    """
    if config.against in (None, TARGET):
        if config.judge_model is not None and not any(target is not None for target in prompts.targets):
            raise BadData(
                f"None of the {len(prompts)} validation prompts has a desirable completion to be measured against.",
                f"Measure against the reference's answers: --against {REFERENCE}.",
            )
        return NamedAnswers(TARGET, prompts.targets)
    assert config.against is not None
    if config.against == REFERENCE or not Path(config.against).is_file():
        return None
    if config.judge_model is None:
        raise BadInput(
            f"{config.against} is a file of answers, and only a judge compares with it.", "Name one with --judge-model."
        )
    return win_rate.answers_in_file(Path(config.against), prompts)


def facts_of(session: Session, weights: LossSettings, metrics: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json holds."""
    source, data = session.prepared.source, session.prepared.data
    return {
        "checkpoint": session.checkpoint.name,
        "weights": session.weights_id,
        "of": session.evaluated_id,
        "reference": {"name": source.name, "fingerprint": source.fingerprint},
        "data": {"folder": str(data.folder), "fingerprint": data.fingerprint},
        "dtype": session.prepared.precision.name,
        "answer_dtype": str(session.answering.dtype).removeprefix("torch."),
        "loss": loss_words(weights),
        "beta": weights.beta,
        "lambda_d": weights.lambda_d,
        "lambda_u": weights.lambda_u,
        "metrics": metrics,
    }


@contextmanager
def report_whatever_happens(session: Session) -> Iterator[None]:
    """Writes the report even if a part fails or is stopped."""
    try:
        yield
    finally:
        if session.accelerator.is_main_process:
            write_report(session.eval_folder, session.checkpoint.run)


def other_side(session: Session) -> NamedAnswers:
    """The answers of the baseline; another checkpoint answers now."""
    config, answering = session.config, session.answering
    if session.given is not None:
        return session.given
    other = session.other
    if other is None:
        return NamedAnswers(session.prepared.source.name, list(answering.texts(REFERENCE)))
    model = other.load(session.prepared, config, answering.dtype).to(session.accelerator.device)
    cast_weights(model, answering.dtype)  # an adapter's
    # A copy of the run's template may write a control text that the other model does not know.
    template = config.chat_template if session.prepared.served_tokenizer is session.prepared.tokenizer else None
    tokenizer, _ = load_tokenizer(
        other.tokenizer_folder, chat_template=template, trust_remote_code=config.trust_remote_code
    )
    weights_id = other.weights_id(session.prepared, config)
    answering.by(other.name, other.name, other.folder, weights_id, model, tokenizer)
    return NamedAnswers(other.name, list(answering.texts(other.name)))
