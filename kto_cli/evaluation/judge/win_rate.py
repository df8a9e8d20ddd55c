"""The win rate of a model: a judge compares its answers with a baseline's, in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import REFERENCE, EvalConfig
from kto_cli.common.phase import STORED
from kto_cli.common.read import read_json
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.statistics.win_rates import JudgedComparison, judged, win_rates
from kto_cli.data.texts import question
from kto_cli.evaluation.files import ALPACA_EVAL, JUDGED_ANSWERS, WIN_RATE, write_lines, write_part
from kto_cli.evaluation.judge.comparisons import Comparison, Verdicts
from kto_cli.evaluation.judge.export import export, instruction
from kto_cli.evaluation.judge.judge import Estimate, Judge, estimate, judge_all
from kto_cli.evaluation.judge.people import VALIDATION_PAIRS, Preference, against_people
from kto_cli.evaluation.judge.server_judge import ServerJudge
from kto_cli.evaluation.judge.show import BY_SCORE, sentence
from kto_cli.evaluation.judge.store import VerdictStore
from kto_cli.evaluation.prompts import ValidationPrompts, free_name
from kto_cli.evaluation.server.client import CallBudget, ChatServer
from kto_cli.evaluation.server.keys import key_for
from kto_cli.model.locate import locate_model


class NamedAnswers(NamedTuple):
    """Answers of one side of the comparison."""

    name: str
    """Its name in results."""
    answers: list[str | None]
    """[prompts] None where it has none."""


def open_judge(config: EvalConfig, device: torch.device, dtype: torch.dtype, screen: Screen) -> Judge | None:
    """The judge of the config, or None.

    Raises:
        KtoError: it cannot be reached, or it is no judge.
    """
    if config.judge_model is None:
        return None
    if config.judge_url is None:
        from kto_cli.evaluation.judge.reward_judge import RewardJudge

        return RewardJudge(locate_model(config.judge_model)[1], device=device, dtype=dtype, say=screen.note)
    budget = CallBudget(config.judge_calls)
    server = ChatServer(config.judge_url, key=key_for(config.judge_url), calls=budget, say=screen.note)
    server.reach()
    return ServerJudge(server, config.judge_model, for_what=config.judge_for, say=screen.note)


def warn_of_calls(config: EvalConfig, pairs: int, screen: Screen) -> None:
    """That a limit may be too low is known before the answers are there; by how much, only then."""
    if config.judge_url is not None and 2 * pairs > config.judge_calls:
        screen.warn(
            f"Judging {plural(pairs, 'pair')} in both orders takes up to {2 * pairs:,} calls, and --judge-calls "
            f"allows {config.judge_calls:,}: unless enough verdicts are known from before, nothing will be asked."
        )


def answers_in_file(path: Path, prompts: ValidationPrompts) -> NamedAnswers:
    """Answers from a JSON file in AlpacaEval's format: a list of {"instruction", "output", "generator"}.

    Raises:
        BadInput: it is not such a file, or it answers none of the prompts.
    """
    wanted = 'a list of {"instruction", "output"}, as AlpacaEval writes it'
    try:
        rows = read_json(path, "answers to compare with")
    except BadInput as error:
        raise BadInput(error.what, f"--against takes {wanted}.") from error
    sound = isinstance(rows, list) and all(
        isinstance(row, dict) and isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str)
        for row in rows
    )
    if not sound:
        raise BadInput(f"{path} holds no answers.", f"--against takes {wanted}.")
    known = {row["instruction"]: row["output"] for row in rows}
    found = [known.get(instruction(text), known.get(question(text))) for text in prompts.texts]
    if not any(answer is not None for answer in found):
        raise BadInput(
            f"{path} answers none of the {plural(len(prompts), 'validation prompt')}.",
            "Its instructions must be these prompts, as in alpaca_eval/ of an earlier evaluation.",
        )
    called = next((row["generator"] for row in rows if isinstance(row.get("generator"), str)), path.stem)
    return NamedAnswers(free_name(called), found)


def judge_answers(
    judge: Judge,
    config: EvalConfig,
    prompts: ValidationPrompts,
    model: NamedAnswers,
    baseline: NamedAnswers,
    preferences: Sequence[Preference],
    screen: Screen,
) -> tuple[dict[str, Any], list[Comparison], list[Verdicts]]:
    """Asks the judge, within its limit of calls; prints their number first.

    Args:
        preferences: pairs on which it is compared with people.

    Returns:
        (the contents of win_rate.json, the comparisons, their verdicts).

    Raises:
        KtoError: more calls are needed than allowed (nothing is asked then), or the judge gives up (what it said is
            kept).
    """
    pairs = zip(prompts.rows, prompts.texts, model.answers, baseline.answers, strict=True)
    comparisons = [
        Comparison(row.id, text, mine, other)
        for row, text, mine, other in pairs
        if mine is not None and other is not None
    ]
    if len(comparisons) < len(prompts):
        screen.note(
            f"Judged: {len(comparisons):,} of {plural(len(prompts), 'prompt')}; to the others "
            f"{baseline.name} has no answer."
        )
    store = VerdictStore(cache_folder(config), judge.identity)
    asked = [*comparisons, *(each.comparison for each in preferences)]
    needed = estimate(judge, asked, store)
    _say_what_it_takes(needed, store, config, screen)
    needed.refuse_above(config.judge_calls)
    with screen.progress(f"verdicts on {model.name}", needed.calls or 2 * len(asked), keeps=STORED):
        everything = judge_all(judge, asked, store, workers=config.judge_workers, tick=screen.tick)
    verdicts = everything[: len(comparisons)]
    held = judgements(comparisons, verdicts)
    found = win_rates(held)
    if preferences:
        found["people"] = against_people(
            [one.outcome for one in held if one.outcome is not None],
            preferences,
            judgements(asked[len(comparisons) :], everything[len(comparisons) :]),
            sides=(model.name, REFERENCE if config.against == REFERENCE else baseline.name),
            source=config.judge_labels or VALIDATION_PAIRS,
        )
    facts = {
        "judge": config.judge_model,
        "for": config.judge_for if config.judge_url else BY_SCORE,
        "model": model.name,
        "baseline": baseline.name,
        **found,
    }
    return {**facts, "sentence": sentence(facts)}, comparisons, verdicts


def _say_what_it_takes(needed: Estimate, store: VerdictStore, config: EvalConfig, screen: Screen) -> None:
    if needed.calls or needed.cached:
        screen.note(
            f"Judge {config.judge_model}: {plural(needed.calls, 'call')} (about {plural(needed.tokens, 'token')} to "
            f"read), {plural(needed.cached, 'verdict')} known from before, at most "
            f"{plural(config.judge_calls, 'call')} allowed"
        )
    if needed.identical:
        screen.note(f"Equal answers in {plural(needed.identical, 'comparison')}: counted as ties without asking")
    if store.damaged:
        screen.warn(f"Damaged verdicts in {store.folder}: {store.damaged:,}. They are asked for again.")


def judgements(comparisons: Sequence[Comparison], verdicts: Sequence[Verdicts]) -> list[JudgedComparison]:
    """Comparisons and verdicts in the form of core/statistics/win_rates.py."""
    return [
        judged(comparison.id, verdict.scores, comparison.model, comparison.baseline)
        for comparison, verdict in zip(comparisons, verdicts, strict=True)
    ]


def write_comparisons(
    out: Path, of: str, found: dict[str, Any], comparisons: Sequence[Comparison], verdicts: Sequence[Verdicts]
) -> None:
    """win_rate.json, judged.jsonl and alpaca_eval/."""
    names = {"model": found["model"], "baseline": found["baseline"], "annotator": str(found["judge"])}
    lines = [
        {
            "id": comparison.id,
            "prompt": question(comparison.prompt),
            "model": comparison.model,
            "baseline": comparison.baseline,
            "model_first": verdict.model_first,
            "baseline_first": verdict.baseline_first,
        }
        for comparison, verdict in zip(comparisons, verdicts, strict=True)
    ]
    write_lines(out, JUDGED_ANSWERS, lines)
    export(out / ALPACA_EVAL, comparisons, verdicts, **names)
    write_part(out, WIN_RATE, of, found, beside=[JUDGED_ANSWERS])
