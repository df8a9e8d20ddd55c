"""`kto eval`: what a checkpoint learned, on held-out rows, and how it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.checkpoint import fill_from_run, load_policy, locate, results_folder, run_folder
from kto_cli.config import EvalConfig
from kto_cli.core.metrics import Scores
from kto_cli.core.rows import EncodedRow
from kto_cli.core.weights import choose_weights
from kto_cli.display import Screen
from kto_cli.engine import References
from kto_cli.errors import BadData
from kto_cli.eval_results import Weights, find_out, rows_table, texts_of, write
from kto_cli.eval_tables import listed_ids, show_details
from kto_cli.held_out import score_rows
from kto_cli.preparation import Prepared, check_sequences, make_scorer, prepare, start_accelerator
from kto_cli.reference_pass import reference_logps, scoring_engine
from kto_cli.report.page import write_report
from kto_cli.samples import answer_all, pick_prompts
from kto_cli.scoring import CompletionScorer
from kto_cli.tables import metrics_table
from kto_cli.verdict import judge


class Evaluated(NamedTuple):
    """One checkpoint, evaluated: what is said of it, and what a comparison needs."""

    result: dict[str, Any]
    scores: Scores
    ids: list[str]
    """[rows] of the scores."""
    weights: Weights
    reference: str
    """The fingerprint of the reference."""


def run(config: EvalConfig, screen: Screen) -> dict[str, Any]:
    """Evaluates.

    Returns:
        The metrics of `find_out`, and `verdict`, `sentence`, `checkpoint`, `reference`, `eval`, `report`,
        `samples`.

    Raises:
        KtoError: bad input, data or model; no held-out rows.
    """
    return evaluate(config, screen).result


def evaluate(config: EvalConfig, screen: Screen) -> Evaluated:
    """Scores the held-out rows, answers a few prompts, writes and shows the results.

    Raises:
        KtoError: as `run`.
    """
    called, folder = locate(config)
    config, chosen = fill_from_run(config, folder)
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    prepared = prepare(config, accelerator, screen, needs_train=False)
    _refuse_nothing_held_out(prepared)
    reference = make_scorer(prepared, accelerator, screen)
    references, _ = reference_logps(prepared, prepared.held_out, reference, config, accelerator, screen)
    prompts = pick_prompts(prepared.held_out, config.samples)
    answers = {"reference": _answers(prepared.model, prompts, prepared, config, screen)}
    policy = _policy_scorer(folder, prepared, config, accelerator)
    scores = _score(policy, prepared, references, config, accelerator, screen)
    answers["policy"] = _answers(policy.model, prompts, prepared, config, screen)
    samples = _samples(prepared, prompts, answers)
    weights = _weights(scores, config, chosen)
    out = _place_of_results(config, folder, screen)
    found = find_out(scores, prepared.held_out, prepared.data, weights)
    if accelerator.is_main_process:
        facts = _facts(called, prepared, weights, found.metrics)
        write(out, facts, samples, rows_table(scores, prepared.held_out, found))
        write_report(out, run_folder(folder))
    result = _show(screen, found.metrics, prepared, samples, called, out)
    return Evaluated(result, scores, prepared.held_out.ids, weights, prepared.source.fingerprint)


def _refuse_nothing_held_out(prepared: Prepared) -> None:
    if not prepared.held_out:
        raise BadData(
            f"{prepared.data.folder} has no held-out rows to evaluate on.",
            "Binarize again with a larger --holdout.",
        )


def _score(
    policy: CompletionScorer,
    prepared: Prepared,
    references: References,
    config: EvalConfig,
    accelerator: Any,
    screen: Screen,
) -> Scores:
    with screen.progress("held-out rows", 2 * len(prepared.held_out)):
        return score_rows(
            scoring_engine(policy, prepared, accelerator), prepared.held_out, references, tick=screen.tick
        )


def _policy_scorer(folder: Path, prepared: Prepared, config: EvalConfig, accelerator: Any) -> CompletionScorer:
    policy = CompletionScorer(load_policy(folder, prepared, config), prepared.dtype).to(accelerator.device)
    policy.trust_or_fall_back(check_sequences(prepared.held_out))
    return policy


def _weights(scores: Scores, config: EvalConfig, chosen: Mapping[str, float]) -> Weights:
    """The run's own, else those that training would choose for the held-out rows' classes."""
    desirable = int(scores.desirable.sum())
    counts = (max(1, desirable), max(1, len(scores.desirable) - desirable))
    found = choose_weights(*counts, lambda_d=chosen.get("lambda_d"), lambda_u=chosen.get("lambda_u"))
    return Weights(config.beta or 0.1, found.lambda_d, found.lambda_u)


def _answers(
    model: Any, prompts: list[EncodedRow], prepared: Prepared, config: EvalConfig, screen: Screen
) -> list[str]:
    """Greedy answers of a model; those of the reference come before the policy is loaded (see `load_policy`)."""
    with screen.progress("answers", len(prompts)):
        return answer_all(model, prepared.tokenizer, prompts, max_new_tokens=config.max_new_tokens, tick=screen.tick)


def _samples(prepared: Prepared, prompts: list[EncodedRow], answers: dict[str, list[str]]) -> list[dict[str, str]]:
    """Answers to the same held-out prompts, side by side."""
    texts = texts_of(prepared.data, [row.id for row in prompts])
    return [
        {"id": row.id, "prompt": last_words(texts[row.id].prompt), "reference": before, "policy": after}
        for row, before, after in zip(prompts, answers["reference"], answers["policy"], strict=True)
    ]


def last_words(prompt: Any) -> str:
    """The part of a prompt that is answered: a text as it is, of a chat its last turn."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _place_of_results(config: EvalConfig, folder: Path, screen: Screen) -> Path:
    """Where results go; says if earlier ones are replaced."""
    out = results_folder(config.checkpoint, folder)
    if (out / "metrics.json").exists():
        screen.note(f"Replacing the earlier results in {out}")
    return out


def _facts(called: str, prepared: Prepared, weights: Weights, metrics: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json holds."""
    return {
        "checkpoint": called,
        "reference": {"name": prepared.source.name, "fingerprint": prepared.source.fingerprint},
        "data": {"folder": str(prepared.data.folder), "fingerprint": prepared.data.fingerprint},
        **weights._asdict(),
        "metrics": metrics,
    }


def _show(
    screen: Screen,
    metrics: dict[str, Any],
    prepared: Prepared,
    samples: list[dict[str, str]],
    called: str,
    out: Path,
) -> dict[str, Any]:
    """Tables, answers and the verdict; returns the result of the command."""
    name, verdict = prepared.source.name, judge(metrics, [])
    metrics_table(screen, f"{called} on {metrics['rows']} held-out rows, against {name}", metrics)
    show_details(screen, metrics, texts_of(prepared.data, listed_ids(metrics)))
    if samples:
        screen.texts(
            "The same held-out prompts, answered by both",
            ["prompt", "reference", "policy"],
            [[sample["prompt"], sample["reference"], sample["policy"]] for sample in samples],
        )
    screen.say(verdict.sentence)
    screen.say(f"Written to {out}; report.html shows it all.")
    return {
        **metrics,
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "checkpoint": called,
        "reference": name,
        "eval": str(out),
        "report": str(out / "report.html"),
        "samples": samples,
    }
