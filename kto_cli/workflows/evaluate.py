"""`kto eval`: what a checkpoint learned on validation rows, how it answers, and whether anything broke.

One of these models is in memory at a time (besides a reward model as judge): first the reference does all its work,
then the checkpoint, then the baseline of the win rate. Each part of the results is written as soon as it is there
(evaluation/files.py); the report shows what there is, also where a later part fails or is stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import REFERENCE, EvalConfig
from kto_cli.common.owner import LOCK, owning
from kto_cli.common.screen import Screen
from kto_cli.common.tables import metrics_table
from kto_cli.core.loss_kinds import BETA, LossSettings
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.verdict import Verdict, run_verdict
from kto_cli.core.statistics.win_rates import JudgedComparison
from kto_cli.core.weights import choose_weights
from kto_cli.evaluation.benchmarks.tasks import examine, show_benchmarks, together
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.files import (
    BENCHMARKS,
    METRICS,
    REPORT,
    faults,
    forget_others,
    remove_partial_files,
    write_part,
)
from kto_cli.evaluation.judge.show import show_win_rate
from kto_cli.evaluation.judge.win_rate import NamedAnswers, judge_answers, judgements, write_comparisons
from kto_cli.evaluation.report.evidence import kept_step, steps_of
from kto_cli.evaluation.report.page import write_report
from kto_cli.evaluation.session import Session, facts_of, open_session, other_side, report_whatever_happens
from kto_cli.evaluation.tables import listed_ids, show_details
from kto_cli.evaluation.validation import find_out, rows_table, texts_of, write
from kto_cli.model.distributed.owned import owned
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.prepare import check_sequences, make_scorer
from kto_cli.model.logprobs.reference import ReferenceLogps, reference_logps
from kto_cli.model.logprobs.validation import score_rows
from kto_cli.model.scorer import CompletionScorer


class Evaluated(NamedTuple):
    """One checkpoint, evaluated: what is said of it, and what a comparison needs."""

    result: dict[str, Any]
    scores: Scores
    ids: list[str]
    """[rows] of the scores."""
    weights: LossSettings
    reference: str
    """The fingerprint of the reference."""
    evaluated_id: str
    eval_folder: Path
    checkpoint: Checkpoint
    judged: list[JudgedComparison]
    benchmarks: dict[str, Any]


def run(config: EvalConfig, screen: Screen) -> dict[str, Any]:
    """Evaluates a checkpoint.

    Returns:
        The metrics of `find_out`, and `verdict`, `sentence`, `warnings`, `checkpoint`, `reference`, `eval`, `report`,
        `samples`; where asked for `generations`, `win_rate`, `benchmarks`: what the files of these names hold.

    Raises:
        KtoError: bad input, data or model; no validation rows; a judge or server that gives up.
    """
    return evaluate(config, screen).result


def evaluate(config: EvalConfig, screen: Screen, checkpoint: Checkpoint | None = None) -> Evaluated:
    """Computes all parts, writes and shows the results; `checkpoint`: if it was found before.

    Raises:
        KtoError: as `run`.
    """
    checkpoint, accelerator = checkpoint or Checkpoint.find(config.checkpoint), start_accelerator()
    folder = checkpoint.eval_folder
    with owned(accelerator, folder / LOCK, folder, "evaluating into", screen.warn):
        if accelerator.is_main_process:
            remove_partial_files(folder)
        return _evaluate(*open_session(config, screen, checkpoint))


def _evaluate(session: Session, of_run: LossSettings | None) -> Evaluated:
    """The evaluation, in a folder that this launch owns."""
    references, reference_tasks = _work_of_reference(session)
    policy = _policy_scorer(session)
    scores = _score(policy, session, references)
    weights = _loss(scores, session.config, of_run)
    metrics = _validation(session, scores, weights)
    parts: dict[str, Any] = {}
    comparisons: list[JudgedComparison] = []
    with report_whatever_happens(session):
        parts |= _answers(session, policy)
        parts |= _benchmarks(session, policy.model, reference_tasks)
        del policy
        parts |= _judge(session, comparisons)
    result = _conclude(session, metrics) | parts
    return Evaluated(
        result,
        scores,
        session.prepared.validation.ids,
        weights,
        session.prepared.source.fingerprint,
        session.evaluated_id,
        session.eval_folder,
        session.checkpoint,
        comparisons,
        parts.get("benchmarks", {}),
    )


def _work_of_reference(session: Session) -> tuple[ReferenceLogps, dict[str, Any]]:
    """Its log-probs, its answers, and its benchmarks where asked for."""
    prepared, config, accelerator, screen = session.prepared, session.config, session.accelerator, session.screen
    scorer = make_scorer(prepared, accelerator, screen)
    references, _ = reference_logps(prepared, prepared.validated.reference, lambda: scorer, config, accelerator, screen)
    source, tasks, model = prepared.source, {}, session.for_answers(prepared.model)
    session.answering.by(REFERENCE, source.name, source.folder, source.fingerprint, model)
    if session.tasks is not None:
        tasks = examine(session.tasks, config, prepared, model, prepared.tokenizer, source.fingerprint, screen)
    if model.dtype != prepared.precision.weights:
        prepared.model = None  # an adapter is scored on weights that were not cast
    return references, tasks


def _validation(session: Session, scores: Scores, weights: LossSettings) -> dict[str, Any]:
    """All numbers of the validation rows, written and shown."""
    prepared, screen = session.prepared, session.screen
    found = find_out(scores, prepared.validation, prepared.data, weights)
    if session.accelerator.is_main_process:
        forget_others(session.eval_folder, session.evaluated_id)
        facts = facts_of(session, weights, found.metrics)
        write(session.eval_folder, facts, rows_table(scores, prepared.validation, found))
    title = f"{session.checkpoint.name} on {found.metrics['rows']} validation rows, against {prepared.source.name}"
    metrics_table(screen, title, found.metrics)
    show_details(screen, found.metrics, texts_of(prepared.data, listed_ids(found.metrics)))
    return found.metrics


def _policy_scorer(session: Session) -> CompletionScorer:
    prepared = session.prepared
    with session.screen.progress(f"loading {session.checkpoint.name}", None):
        model = session.checkpoint.load_in_place_of_reference(prepared, session.config)
    policy = CompletionScorer(model, prepared.dtype).to(session.accelerator.device)
    policy.trust_or_fall_back(check_sequences(prepared.validation))
    return policy


def _score(policy: CompletionScorer, session: Session, references: ReferenceLogps) -> Scores:
    rows = session.prepared.validated
    with session.screen.progress("validation rows", len(rows.sequences), keeps="Earlier results are as they were."):
        scorer = DistributedScorer(session.accelerator, policy, token_budget=session.prepared.token_budget)
        return score_rows(scorer, rows, references, say=session.screen.warn, tick=session.screen.tick)


def _loss(scores: Scores, config: EvalConfig, of_run: LossSettings | None) -> LossSettings:
    """The run's own, else KTO with the weights that training would choose for the validation rows' classes."""
    if of_run is not None:
        return of_run._replace(beta=config.beta or of_run.beta)
    desirable = int(scores.desirable.sum())
    counts = (max(1, desirable), max(1, len(scores.desirable) - desirable))
    found = choose_weights(*counts)
    return LossSettings(config.beta or BETA, found.lambda_d, found.lambda_u)


def _answers(session: Session, policy: CompletionScorer) -> dict[str, Any]:
    """The checkpoint's answers beside the reference's."""
    answering, model = session.answering, session.for_answers(policy.model)
    answering.by("policy", session.checkpoint.name, session.checkpoint.folder, session.weights_id, model)
    return _keep_answers(session, show=session.other is None)


def _keep_answers(session: Session, *, show: bool) -> dict[str, Any]:
    """All answers so far, and what they are like."""
    found = (
        session.answering.write(session.eval_folder, session.evaluated_id)
        if session.accelerator.is_main_process
        else {}
    )
    if found and show:
        session.answering.show(found)
    return found


def _benchmarks(session: Session, model: Any, reference: dict[str, Any]) -> dict[str, Any]:
    if session.tasks is None:
        return {}
    tokenizer, weights = session.prepared.served_tokenizer, session.weights_id
    policy = examine(session.tasks, session.config, session.prepared, model, tokenizer, weights, session.screen)
    found = together(policy, reference)
    write_part(session.eval_folder, BENCHMARKS, session.evaluated_id, found)
    show_benchmarks(session.screen, session.checkpoint.name, found)
    return {"benchmarks": found}


def _judge(session: Session, comparisons: list[JudgedComparison]) -> dict[str, Any]:
    """The answers of the other side, and what the judge says of both; fills `comparisons`."""
    baseline = other_side(session)
    parts = {} if session.other is None else _keep_answers(session, show=True)
    if session.judge is None or not session.accelerator.is_main_process:
        return parts
    model = NamedAnswers(session.checkpoint.name, list(session.answering.texts("policy")))
    found, held, verdicts = judge_answers(
        session.judge,
        session.config,
        session.answering.prompts,
        model,
        baseline,
        session.preferences,
        session.screen,
    )
    write_comparisons(session.eval_folder, session.evaluated_id, found, held, verdicts)
    show_win_rate(session.screen, found)
    comparisons += judgements(held, verdicts)
    return {**parts, "win_rate": found}


def _conclude(session: Session, metrics: dict[str, Any]) -> dict[str, Any]:
    """Prints the verdict; returns the result of the command."""
    verdict, out, screen = _verdict(session, metrics), session.eval_folder, session.screen
    screen.say(verdict.sentence)
    for warning in verdict.warnings:
        screen.warn(warning)
    screen.say(f"Report: {out / REPORT} (open it in a browser)")
    return {
        **metrics,
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "warnings": verdict.warnings,
        "checkpoint": session.checkpoint.name,
        "reference": session.prepared.source.name,
        "eval": str(out),
        "report": str(out / REPORT),
        "samples": session.answering.samples(),
    }


def _verdict(session: Session, metrics: dict[str, Any]) -> Verdict:
    """That of the run, on its own rows; on other rows its curves say nothing of them."""
    checkpoint, data = session.checkpoint, session.prepared.data
    own = checkpoint.settings is not None and checkpoint.settings["data"]["fingerprint"] == data.fingerprint
    steps = steps_of(checkpoint.run, session.eval_folder) if own and checkpoint.run is not None else []
    kept = kept_step(checkpoint.settings or {}, session.eval_folder) if own else None
    return run_verdict(metrics, steps, beta=session.config.beta or BETA, kept=kept)


def report_only(config: EvalConfig, screen: Screen) -> dict[str, Any]:
    """Makes report.html anew from the results that are there; nothing is loaded or computed.

    Returns:
        `checkpoint`, `eval`, `report`.

    Raises:
        BadInput: no such checkpoint, or it was not evaluated yet. DiskFull: no space left.
    """
    checkpoint = Checkpoint.find(config.checkpoint)
    out = checkpoint.eval_folder
    if not (out / METRICS).is_file():
        raise BadInput(f"There are no results in {out} to report.", f"Make them with: kto eval {checkpoint.name}")
    for text in (*checkpoint.said(), *faults(out).values()):
        screen.warn(text)
    with owning(out / LOCK, out, "evaluating into", warn=screen.warn):
        page = write_report(out, checkpoint.run)
    screen.say(f"Report: {page} (open it in a browser)")
    return {"checkpoint": checkpoint.name, "eval": str(out), "report": str(page)}
