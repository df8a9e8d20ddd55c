"""`kto eval`: what a checkpoint learned, on held-out rows, and how it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kto_cli import files
from kto_cli.checkpoint import fill_from_run, load_policy, locate, results_folder
from kto_cli.config import EvalConfig
from kto_cli.core.metrics import Scores, held_out_metrics
from kto_cli.core.rows import EncodedRow
from kto_cli.core.weights import choose_weights
from kto_cli.data_dir import Row
from kto_cli.display import Screen
from kto_cli.engine import References
from kto_cli.errors import BadData
from kto_cli.held_out import score_rows
from kto_cli.preparation import (
    Prepared,
    check_sequences,
    make_scorer,
    prepare,
    reference_logps,
    scoring_engine,
    start_accelerator,
)
from kto_cli.samples import answer_all, pick_prompts
from kto_cli.scoring import CompletionScorer
from kto_cli.tables import metrics_table
from kto_cli.verdict import Verdict, judge


def run(config: EvalConfig, screen: Screen) -> dict[str, Any]:
    """Evaluates.

    Returns:
        The keys of `held_out_metrics`, and `verdict`, `sentence`, `checkpoint`, `reference`, `eval`, `samples`.

    Raises:
        KtoError: bad input, data or model; no held-out rows.
    """
    called, folder = locate(config)
    config, weights = fill_from_run(config, folder)
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
    metrics = _metrics(scores, config, weights)
    answers["policy"] = _answers(policy.model, prompts, prepared, config, screen)
    samples = _samples(prepared, prompts, answers)
    out = _place_of_results(config, folder, screen)
    if accelerator.is_main_process:
        _write(out, metrics, samples, scores, prepared, config, called)
    metrics_table(screen, f"{called} on {metrics['rows']} held-out rows, against {prepared.source.name}", metrics)
    verdict = judge(metrics, [])
    _show(screen, samples, verdict, out)
    return {
        **metrics,
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "checkpoint": called,
        "reference": prepared.source.name,
        "eval": str(out),
        "samples": samples,
    }


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


def _metrics(scores: Scores, config: EvalConfig, weights: Mapping[str, float]) -> dict[str, Any]:
    """`held_out_metrics` with the run's own weights, else those chosen from the held-out rows' classes."""
    desirable = int(scores.desirable.sum())
    counts = (max(1, desirable), max(1, len(scores.desirable) - desirable))
    chosen = choose_weights(*counts, lambda_d=weights.get("lambda_d"), lambda_u=weights.get("lambda_u"))
    return held_out_metrics(scores, beta=config.beta or 0.1, lambda_d=chosen.lambda_d, lambda_u=chosen.lambda_u)


def _answers(
    model: Any, prompts: list[EncodedRow], prepared: Prepared, config: EvalConfig, screen: Screen
) -> list[str]:
    """Greedy answers of a model; those of the reference come before the policy is loaded (see `load_policy`)."""
    with screen.progress("answers", len(prompts)):
        return answer_all(model, prepared.tokenizer, prompts, max_new_tokens=config.max_new_tokens, tick=screen.tick)


def _samples(prepared: Prepared, prompts: list[EncodedRow], answers: dict[str, list[str]]) -> list[dict[str, str]]:
    """Answers to the same held-out prompts, side by side."""
    chosen = {row.id for row in prompts}
    texts: dict[str, Row] = {row.id: row for row in prepared.data.held_out if row.id in chosen}
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


def _show(screen: Screen, samples: list[dict[str, str]], verdict: Verdict, out: Path) -> None:
    if samples:
        screen.texts(
            "The same held-out prompts, answered by both",
            ["prompt", "reference", "policy"],
            [[sample["prompt"], sample["reference"], sample["policy"]] for sample in samples],
        )
    screen.say(verdict.sentence)
    screen.say(f"Written to {out}")


def _table(prepared: Prepared, scores: Scores, beta: float) -> Any:
    """One line per held-out row."""
    import pyarrow

    origins = {row.id: row.origin for row in prepared.data.held_out}
    return pyarrow.table(
        {
            "id": prepared.held_out.ids,
            "prompt_id": prepared.held_out.prompt_ids,
            "pair_id": prepared.held_out.pair_ids,
            "origin": [origins[name] for name in prepared.held_out.ids],
            "label": scores.desirable.tolist(),
            "completion_tokens": scores.lengths.tolist(),
            "log_ratio": scores.log_ratios.tolist(),
            "mismatched_log_ratio": scores.mismatched_log_ratios.tolist(),
            "reward": (beta * scores.log_ratios).tolist(),
        }
    )


def _write(
    out: Path,
    metrics: dict[str, Any],
    samples: list[dict[str, str]],
    scores: Scores,
    prepared: Prepared,
    config: EvalConfig,
    called: str,
) -> None:
    """metrics.json, rows.parquet (one line per held-out row) and samples.jsonl."""
    import pyarrow.parquet

    facts = {
        "checkpoint": called,
        "reference": {"name": prepared.source.name, "fingerprint": prepared.source.fingerprint},
        "data": {"folder": str(prepared.data.folder), "fingerprint": prepared.data.fingerprint},
        "beta": config.beta or 0.1,
        "metrics": metrics,
    }
    with files.saying_disk_full(out):
        files.make_folder(out)
        with files.replacing(out / "rows.parquet") as temporary:
            pyarrow.parquet.write_table(_table(prepared, scores, config.beta or 0.1), temporary)
        with files.replacing(out / "samples.jsonl") as temporary:
            temporary.write_text(files.json_lines(samples), encoding="utf-8")
        files.write_json(out / "metrics.json", facts)
