"""One evaluation under way: the checkpoint, what it is measured against, and where results go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.eval_config import REFERENCE, TARGET, EvalConfig, is_url
from kto_cli.common.files import text_hash
from kto_cli.common.screen import Screen
from kto_cli.core.losses import LossSettings
from kto_cli.evaluation.answers.answering import Answering
from kto_cli.evaluation.benchmarks.plan import Plan
from kto_cli.evaluation.benchmarks.tasks import planned
from kto_cli.evaluation.checkpoint import (
    fill_from_run,
    load_alone,
    locate,
    results_folder,
    run_folder,
    tokenizer_folder,
    weights_of,
)
from kto_cli.evaluation.files import METRICS
from kto_cli.evaluation.judge import win_rate
from kto_cli.evaluation.judge.judge import Judge
from kto_cli.evaluation.judge.win_rate import NamedAnswers
from kto_cli.evaluation.prompts import ValidationPrompts, choose_prompts, free_name
from kto_cli.evaluation.report.page import write_report
from kto_cli.evaluation.server.keys import base_url
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.prepare import Prepared, prepare, start_accelerator


@dataclass
class Session:
    """One evaluation under way."""

    config: EvalConfig
    called: str
    folder: Path
    name: str
    prepared: Prepared
    accelerator: Any
    screen: Screen
    out: Path
    tasks: Plan | None
    judge: Judge | None
    rival: tuple[str, Path] | None
    """Name and place of another checkpoint, if measured against that."""
    given: NamedAnswers | None
    """The other side, if its answers are there already: the data's or a file's."""
    answering: Answering

    @property
    def of(self) -> str:
        """Names what is evaluated: the weights, the reference and the data."""
        return text_hash(self.name, self.prepared.source.fingerprint, self.prepared.data.fingerprint)

    @property
    def home(self) -> Path | None:
        """The run directory the checkpoint belongs to."""
        return run_folder(self.folder)


def open_session(config: EvalConfig, screen: Screen) -> tuple[Session, dict[str, float]]:
    """Everything that can be found wrong before the work begins is; also gives the run's own lambdas.

    Raises:
        KtoError: as `evaluate.run`.
    """
    called, folder = locate(config)
    config, chosen = fill_from_run(config, folder)
    tasks, rival = planned(config), _rival(config)
    if is_url(config.engine):
        base_url(config.engine)
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    if tasks is not None and accelerator.num_processes > 1:
        raise BadInput("--tasks runs in one process.", "Evaluate on benchmarks without accelerate launch.")
    main = accelerator.is_main_process
    judge = win_rate.open_judge(config, str(accelerator.device), screen) if main else None
    prepared = prepare(config, accelerator, screen, needs_train=False)
    if not prepared.validation:
        raise BadData(
            f"{prepared.data.folder} has no validation rows to evaluate on.",
            "Binarize again with a larger --validation.",
        )
    out = results_folder(config.checkpoint, folder)
    if (out / METRICS).exists():
        screen.note(f"Replacing the earlier results in {out}")
    prompts = choose_prompts(prepared.validation, prepared.data, config.prompts)
    given = _given(config, prompts)
    _warn_of_calls(config, len(prompts), screen)
    answering = Answering(config, prepared, prompts, accelerator, screen)
    if given is not None and given.name != TARGET:
        answering.beside[given.name] = given.answers
    name = weights_of(folder, prepared, config)
    if rival is not None and rival[1].resolve() == folder.resolve():
        screen.note(f"{called} is measured against itself: its answers are the same twice.")
    session = Session(
        config, called, folder, name, prepared, accelerator, screen, out, tasks, judge, rival, given, answering
    )
    return session, chosen


def _warn_of_calls(config: EvalConfig, prompts: int, screen: Screen) -> None:
    """That a limit may be too low is known before the answers are there; by how much, only then."""
    if config.judge_url is not None and 2 * prompts > config.judge_calls:
        screen.warn(
            f"Judging {prompts:,} prompts in both orders takes up to {2 * prompts:,} calls, and --judge-calls allows "
            f"{config.judge_calls:,}: unless enough verdicts are known from before, nothing will be asked."
        )


def _rival(config: EvalConfig) -> tuple[str, Path] | None:
    """Another checkpoint, found before the work begins; its name is none that results have for others.

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
    called, folder = locate(replace(config, checkpoint=config.against))
    return free_name(called), folder


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
        "checkpoint": session.called,
        "weights": session.name,
        "of": session.of,
        "reference": {"name": source.name, "fingerprint": source.fingerprint},
        "data": {"folder": str(data.folder), "fingerprint": data.fingerprint},
        **weights._asdict(),
        "metrics": metrics,
    }


@contextmanager
def report_whatever_happens(session: Session) -> Iterator[None]:
    """Within it a part may fail or be stopped; those before it are shown all the same."""
    try:
        yield
    finally:
        if session.accelerator.is_main_process:
            write_report(session.out, session.home)


def other_side(session: Session) -> NamedAnswers:
    """Whom the checkpoint is measured against; another checkpoint answers now."""
    config, answering = session.config, session.answering
    if session.given is not None:
        return session.given
    if session.rival is None:
        return NamedAnswers(session.prepared.source.name, list(answering.texts(REFERENCE)))
    called, place = session.rival
    model = load_alone(place, session.prepared, config).to(session.accelerator.device)
    tokenizer, _ = load_tokenizer(
        tokenizer_folder(place), chat_template=config.chat_template, trust_remote_code=config.trust_remote_code
    )
    answering.by(called, called, place, weights_of(place, session.prepared, config), model, tokenizer)
    return NamedAnswers(called, list(answering.texts(called)))
