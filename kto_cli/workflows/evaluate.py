"""`kto eval`: what a checkpoint learned, on held-out rows, and how it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kto_cli import adapters, files
from kto_cli.config import EvalConfig, TrainConfig
from kto_cli.core.metrics import Scores, held_out_metrics
from kto_cli.core.rows import EncodedRow
from kto_cli.core.weights import choose_weights
from kto_cli.data_dir import Row
from kto_cli.display import Screen
from kto_cli.engine import References
from kto_cli.errors import BadData, BadInput
from kto_cli.held_out import score_rows
from kto_cli.models import load_model, locate_model
from kto_cli.preparation import (
    Prepared,
    check_sequences,
    make_scorer,
    prepare,
    reference_logps,
    scoring_engine,
    start_accelerator,
)
from kto_cli.run_dir import RunDir, check_weights, is_model_folder, read_settings
from kto_cli.samples import answer_all, pick_prompts
from kto_cli.scoring import CompletionScorer
from kto_cli.snapshots import refuse_slices
from kto_cli.tables import metrics_table
from kto_cli.verdict import judge


def run(config: EvalConfig, screen: Screen) -> dict[str, Any]:
    """Evaluates.

    Returns:
        The keys of `held_out_metrics`, and `verdict`, `sentence`, `checkpoint`, `reference`, `eval`, `samples`.

    Raises:
        KtoError: bad input, data or model; no held-out rows.
    """
    if config.checkpoint == TrainConfig.out and not Path(config.checkpoint).exists():
        raise BadInput(f"There is no {config.checkpoint} here yet.", "`kto train` writes it.")
    called, folder = locate_model(config.checkpoint)
    if not is_model_folder(folder):
        raise _unfinished(folder)
    check_weights(folder)
    refuse_slices(folder)
    config, weights = _fill_from_run(config, folder)
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    prepared = prepare(config, accelerator, screen, needs_train=False)
    if not prepared.held_out:
        raise BadData(
            f"{prepared.data.folder} has no held-out rows to evaluate on.",
            "Binarize again with a larger --holdout.",
        )
    reference = make_scorer(prepared, accelerator, screen)
    references, _ = reference_logps(prepared, prepared.held_out, reference, config, accelerator, screen)
    prompts = pick_prompts(prepared.held_out, config.samples)
    answers = {"reference": _answers(prepared.model, prompts, prepared, config, screen)}
    policy = CompletionScorer(load_policy(folder, prepared, config), prepared.dtype).to(accelerator.device)
    policy.trust_or_fall_back(check_sequences(prepared.held_out))
    scores = _score(policy, prepared, references, config, accelerator, screen)
    desirable = int(scores.desirable.sum())
    counts = (max(1, desirable), max(1, len(scores.desirable) - desirable))
    chosen = choose_weights(*counts, lambda_d=weights.get("lambda_d"), lambda_u=weights.get("lambda_u"))
    metrics = held_out_metrics(scores, beta=config.beta or 0.1, lambda_d=chosen.lambda_d, lambda_u=chosen.lambda_u)
    answers["policy"] = _answers(policy.model, prompts, prepared, config, screen)
    samples = _samples(prepared, prompts, answers)
    out = _where(config.checkpoint, folder)
    if (out / "metrics.json").exists():
        screen.note(f"Replacing the earlier results in {out}")
    if accelerator.is_main_process:
        _write(out, metrics, samples, scores, prepared, config, called)
    metrics_table(screen, f"{called} on {metrics['rows']} held-out rows, against {prepared.source.name}", metrics)
    if samples:
        screen.texts(
            "The same held-out prompts, answered by both",
            ["prompt", "reference", "policy"],
            [[sample["prompt"], sample["reference"], sample["policy"]] for sample in samples],
        )
    verdict = judge(metrics, [])
    screen.say(verdict.sentence)
    screen.say(f"Written to {out}")
    return {
        **metrics,
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "checkpoint": called,
        "reference": prepared.source.name,
        "eval": str(out),
        "samples": samples,
    }


def _unfinished(folder: Path) -> BadInput:
    """What to say of a checkpoint that is no model folder."""
    directory = RunDir(folder)
    if directory.started:
        steps = directory.step_folders()
        hint = f", or look at a step of it: kto eval {steps[-1]}" if steps else ""
        return BadInput(f"The run in {folder} is not finished.", f"Finish it: kto train --resume --out {folder}{hint}")
    return BadInput(
        f"{folder} is not a model folder: it has neither config.json nor {adapters.CONFIG}.",
        "Give a checkpoint that `kto train` wrote.",
    )


def _run_folder(folder: Path) -> Path | None:
    """The run directory a checkpoint belongs to: itself, or the one whose step it is."""
    for candidate in (folder, folder.resolve().parent.parent):
        if RunDir(candidate).started:
            return candidate
    return None


def _fill_from_run(config: EvalConfig, folder: Path) -> tuple[EvalConfig, dict[str, float]]:
    """Takes what was not said (data, reference, beta, lengths) from the run the checkpoint belongs to.

    Raises:
        BadInput: the checkpoint belongs to no run and no reference was named.
    """
    home = _run_folder(folder)
    if home is None:
        if config.model is None and adapters.is_adapter(folder):
            return replace(config, model=adapters.base_of(folder)), {}
        if config.model is None:
            raise BadInput(
                f"{folder} does not say which model it was trained from.",
                "Name it with --reference FOLDER_OR_HUB_ID.",
            )
        return config, {}
    stored = read_settings(RunDir(home))
    train, chosen = stored["train"], stored["chosen"]
    data = config.data or (
        train["data"] if train["data"] and Path(train["data"]).is_dir() else stored["data"]["folder"]
    )
    built_in = train["model"] is None
    model = config.model or (None if built_in else stored["reference"]["folder"])
    same_reference = config.model is None
    filled = replace(
        config,
        data=data,
        model=model,
        beta=config.beta or train["beta"],
        max_length=config.max_length or (chosen["max_length"] if same_reference else None),
        dtype=config.dtype if config.dtype != "auto" else chosen["dtype"],
        chat_template=config.chat_template or train["chat_template"],
        load_in_4bit=config.load_in_4bit or train.get("load_in_4bit", False),
    )
    return filled, {"lambda_d": chosen["lambda_d"], "lambda_u": chosen["lambda_u"]}


def load_policy(folder: Path, prepared: Prepared, config: EvalConfig) -> Any:
    """The model in `folder`. An adapter goes, in place, on the reference if that is its base (then the reference is no
    more), else on its base, loaded for it."""
    weights, in_4bit = prepared.precision.weights, prepared.dtype if config.load_in_4bit else None
    if not adapters.is_adapter(folder):
        return load_model(folder, trust_remote_code=config.trust_remote_code, dtype=weights, in_4bit=in_4bit)
    model = prepared.model
    if not _made_for_reference(folder, prepared):
        _, base = locate_model(adapters.base_of(folder))
        model = load_model(base, trust_remote_code=config.trust_remote_code, dtype=weights, in_4bit=in_4bit)
    return adapters.attach(model, folder).get_base_model()


def _made_for_reference(folder: Path, prepared: Prepared) -> bool:
    """The reference is the adapter's base: by content for an adapter of a run, else by place."""
    home = _run_folder(folder)
    if home is not None:
        return bool(read_settings(RunDir(home))["reference"]["fingerprint"] == prepared.source.fingerprint)
    _, base = locate_model(adapters.base_of(folder))
    return base.resolve() == prepared.source.folder.resolve()


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


def _where(name: str, folder: Path) -> Path:
    """checkpoint/eval; a step's results under its run's eval/; a Hub model's under ./eval."""
    home = _run_folder(folder)
    if home is not None and home.resolve() != folder.resolve():
        return home / "eval" / folder.name
    if Path(name).is_dir():
        return folder / "eval"
    return Path("eval") / name.replace("/", "--")


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
    import pyarrow
    import pyarrow.parquet

    origins = {row.id: row.origin for row in prepared.data.held_out}
    table = pyarrow.table(
        {
            "id": prepared.held_out.ids,
            "prompt_id": prepared.held_out.prompt_ids,
            "pair_id": prepared.held_out.pair_ids,
            "origin": [origins[name] for name in prepared.held_out.ids],
            "label": scores.desirable.tolist(),
            "completion_tokens": scores.lengths.tolist(),
            "log_ratio": scores.log_ratios.tolist(),
            "mismatched_log_ratio": scores.mismatched_log_ratios.tolist(),
            "reward": ((config.beta or 0.1) * scores.log_ratios).tolist(),
        }
    )
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
            pyarrow.parquet.write_table(table, temporary)
        with files.replacing(out / "samples.jsonl") as temporary:
            temporary.write_text(files.json_lines(samples), encoding="utf-8")
        files.write_json(out / "metrics.json", facts)
