"""`kto train --after RUN`: settings, model and split of the last run, and how the new model compares with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.common.screen import Screen
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.statistics.comparison import Side, compare
from kto_cli.core.statistics.scores import Scores
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.data.replay import with_replay
from kto_cli.model import lora
from kto_cli.model.distributed.start import freed_memory_returned
from kto_cli.model.logprobs.validation import score_rows, scores_again, stored_scores
from kto_cli.training.run.run_dir import RunDir, read_settings

REPLAY = 0.3
"""Default share of the last run's training rows that are trained on again."""
NOT_FILLED = ("data", "out", "model", "reference", "chat_template", "after", "replay", "keep_best")
"""Settings of the last run that are not taken; its model's folder has its chat template."""
NEW_ADAPTERS = ("lora_r", "lora_alpha", "lora_targets", "dora", "merge")


def settings_after(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the run in `given["after"]`, and its model as the one to start from.

    The reference stays that of the last run, so that log-probs of old rows are in the cache.

    Raises:
        BadFlag: a setting that the last run gives. BadInput: there is no finished run.
    """
    directory = RunDir(Path(given["after"]))
    for name in ("model", "continue_adapter"):
        if given.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise BadFlag(f"--after {directory.folder} says the model already.", f"Leave out {flag}.")
    if not given.get("data"):
        raise BadFlag(f"--after {directory.folder} goes on with new rows.", "Give their folder with --data.")
    if not directory.folder.is_dir():
        raise BadInput(f"There is no folder {directory.folder}, whose run --after goes on from.", "Check the path.")
    if not directory.finished:
        what = f"{directory.folder} is not a finished run, which --after goes on from."
        raise BadInput(what, f"Finish it first: kto train --resume --out {directory.folder}")
    stored = read_settings(directory)
    defaults = {each.name: each.default for each in fields(TrainConfig)}
    filled = {name: value for name, value in stored["train"].items() if name in defaults and value != defaults[name]}
    filled = {name: value for name, value in filled.items() if name not in NOT_FILLED}
    filled["model"] = str(directory.folder)
    asked = stored["train"].get("reference")
    filled["reference"] = "none" if asked == "none" else stored["reference"]["folder"]
    filled["learning_rate"] = stored["chosen"]["learning_rate"]
    if lora.is_adapter(directory.folder):
        filled = {name: value for name, value in filled.items() if name not in NEW_ADAPTERS}
        filled["continue_adapter"] = True
    return filled | {"replay": REPLAY}


def report_filled(config: TrainConfig, screen: Screen) -> None:
    """Prints what --after filled in."""
    defaults = {each.name: each.default for each in fields(TrainConfig)}
    shown = {name: getattr(config, name) for name in defaults if name not in ("data", "out", "after", "cache")}
    texts = [f"--{name.replace('_', '-')} {value}" for name, value in shown.items() if value != defaults[name]]
    screen.note(f"Settings, from {config.after} where no flag says otherwise: {' '.join(texts)}")


def with_old_rows(config: TrainConfig, accelerator: Any, screen: Screen) -> TrainConfig:
    """The config with a dataset of the new rows and a share of the last run's; as it is without --after.

    Raises:
        BadInput: the dataset of the last run is not there, or another by content.
    """
    if config.after is None:
        return config
    new, stored = load_data_dir(find_data_dir(config.data)), read_settings(RunDir(Path(config.after)))
    where = Path(stored["data"]["folder"])
    old = load_data_dir(where) if where.is_dir() else None
    if old is None or old.fingerprint != stored["data"]["fingerprint"]:
        state = "is missing" if old is None else "has other rows now"
        what = f"{where}, the dataset of {config.after}, {state}."
        raise BadInput(what, f"Restore it, or use --model {config.after}.")
    share = REPLAY if config.replay is None else config.replay
    if accelerator.is_main_process:
        with_replay(cache_folder(config) / "after", new, old, share=share, seed=config.seed)
    accelerator.wait_for_everyone()
    folder, counts = with_replay(cache_folder(config) / "after", new, old, share=share, seed=config.seed)
    screen.note(f"After {config.after}: {counts.sentence(share)}")
    return replace(config, data=str(folder))


def note_last_model(run: Any) -> Scores | None:
    """Scores of the last run's model, which is where this one starts, on all validation rows; read again when the run
    is resumed. All processes must call."""
    path = run.directory.folder / "after.json"
    if not run.validation:
        return None
    if run.counters.step:
        return _read(run, path)
    with freed_memory_returned(run.engine.accelerator.device):
        scores = score_rows(run.engine, run.validation, run.validation_references, say=run.screen.warn)
    if run.engine.accelerator.is_main_process:
        write_sealed(path, {"after": run.settings.config.after, "scores": stored_scores(scores)})
    run.engine.accelerator.wait_for_everyone()
    return scores


def _read(run: Any, path: Path) -> Scores | None:
    try:
        stored = read_sealed(path, "the scores of the last run's model")["scores"]
    except (BadInput, KeyError):
        run.screen.warn(f"{path} is damaged or missing: the new model is not compared with the last one.")
        return None
    return scores_again(run.validation, stored)


def differences(run: Any, last: Scores, now: Scores) -> dict[str, dict[str, Any]]:
    """Differences of the new model from the last one on the same validation rows."""
    settings = run.settings.loss
    return compare(Side(last, settings), Side(now, settings))
