"""The checkpoint that `kto eval` looks at: where it lies, the run it belongs to, what it was trained from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.train_config import TrainConfig
from kto_cli.model import lora
from kto_cli.model.load import load_model, locate_model, open_source
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.training.run.checkpoints import refuse_slices
from kto_cli.training.run.run_dir import RunDir, check_weights, is_model_folder, read_settings


def locate(config: EvalConfig) -> tuple[str, Path]:
    """The checkpoint's name and folder.

    Raises:
        BadInput: there is none, it is not finished, or its weights are not whole.
    """
    if config.checkpoint == TrainConfig.out and not Path(config.checkpoint).exists():
        raise BadInput(f"There is no {config.checkpoint} here yet.", "`kto train` writes it.")
    called, folder = locate_model(config.checkpoint)
    if not is_model_folder(folder):
        raise _unfinished(folder)
    check_weights(folder)
    refuse_slices(folder)
    return called, folder


def _unfinished(folder: Path) -> BadInput:
    """What to say of a checkpoint that is no model folder."""
    directory = RunDir(folder)
    if directory.started:
        steps = directory.step_folders()
        hint = f", or look at a step of it: kto eval {steps[-1]}" if steps else ""
        return BadInput(f"The run in {folder} is not finished.", f"Finish it: kto train --resume --out {folder}{hint}")
    return BadInput(
        f"{folder} is not a model folder: it has neither config.json nor {lora.CONFIG}.",
        "Give a checkpoint that `kto train` wrote.",
    )


def run_folder(folder: Path) -> Path | None:
    """The run directory a checkpoint belongs to: itself, or the one whose step it is."""
    for candidate in (folder, folder.resolve().parent.parent):
        if RunDir(candidate).started:
            return candidate
    return None


def fill_from_run(config: EvalConfig, folder: Path) -> tuple[EvalConfig, dict[str, float]]:
    """Takes what was not said (data, reference, beta, lengths) from the run the checkpoint belongs to.

    Raises:
        BadInput: the checkpoint belongs to no run and no reference was named.
    """
    home = run_folder(folder)
    if home is None:
        if config.model is None and lora.is_adapter(folder):
            return replace(config, model=lora.base_of(folder)), {}
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


def trained_on(folder: Path) -> dict[str, str] | None:
    """The `folder` and `fingerprint` of the data that the run of this checkpoint learned from; None without a run."""
    home = run_folder(folder)
    return None if home is None else read_settings(RunDir(home))["data"]


def load_policy(folder: Path, prepared: Prepared, config: EvalConfig) -> Any:
    """The model in `folder`. An adapter goes, in place, on the reference if that is its base, else on its base, loaded
    for it. Either way the reference is no more: `prepared` lets it go before another model is loaded."""
    reference, prepared.model = prepared.model, None
    if lora.is_adapter(folder) and reference is not None and _made_for_reference(folder, prepared):
        return lora.attach(reference, folder).get_base_model()
    del reference
    return load_alone(folder, prepared, config)


def load_alone(folder: Path, prepared: Prepared, config: EvalConfig) -> Any:
    """The model in `folder`, an adapter on its base, in the precision of the others."""
    base = locate_model(lora.base_of(folder))[1] if lora.is_adapter(folder) else folder
    model = load_model(
        base,
        trust_remote_code=config.trust_remote_code,
        dtype=prepared.precision.weights,
        in_4bit=prepared.dtype if config.load_in_4bit else None,
    )
    return model if base is folder else lora.attach(model, folder).get_base_model()


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a checkpoint lies: beside its weights, of a bare adapter beside those of its base."""
    if lora.is_adapter(folder) and not (folder / "tokenizer_config.json").is_file():
        return locate_model(lora.base_of(folder))[1]
    return folder


def weights_of(folder: Path, prepared: Prepared, config: EvalConfig) -> str:
    """Names the weights of a checkpoint by content, as `models.fingerprint`; an adapter with those of its base.

    Raises:
        BadModel: there are no weights.
    """
    if not lora.is_adapter(folder):
        return open_source(str(folder), in_4bit=config.load_in_4bit).fingerprint
    if _made_for_reference(folder, prepared):
        base = prepared.source.fingerprint
    else:
        base = open_source(lora.base_of(folder), in_4bit=config.load_in_4bit).fingerprint
    return files.text_hash(base, *(files.weights_sha256(path) for path in sorted(folder.glob("adapter_*"))))


def _made_for_reference(folder: Path, prepared: Prepared) -> bool:
    """The reference is the adapter's base: by content for an adapter of a run, else by place."""
    home = run_folder(folder)
    if home is not None:
        return bool(read_settings(RunDir(home))["reference"]["fingerprint"] == prepared.source.fingerprint)
    _, base = locate_model(lora.base_of(folder))
    return base.resolve() == prepared.source.folder.resolve()


def results_folder(name: str, folder: Path) -> Path:
    """checkpoint/eval; a step's results under its run's eval/; a Hub model's under ./eval."""
    home = run_folder(folder)
    if home is not None and home.resolve() != folder.resolve():
        return home / "eval" / folder.name
    if Path(name).is_dir():
        return folder / "eval"
    return Path("eval") / name.replace("/", "--")
