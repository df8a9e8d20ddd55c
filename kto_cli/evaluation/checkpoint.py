"""The checkpoint that `kto eval` evaluates: its folder, the run it belongs to, and its model."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.model import lora
from kto_cli.model.identity import adapted_fingerprint
from kto_cli.model.locate import locate_model
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.source import load_source, locate_base, locate_tokenizer, open_source, trained_on
from kto_cli.model.written_files import check_files, is_model_folder
from kto_cli.training.run.checkpoints import refuse_slices
from kto_cli.training.run.run_dir import RunDir, read_settings

Settings = TypeVar("Settings", bound=EvalConfig)


@dataclass(frozen=True)
class Checkpoint:
    """A model folder or an adapter, found once per command; its files are read when they are first needed."""

    name: str
    """As the user named it: a path or a Hub id."""
    folder: Path
    run: Path | None
    """The run directory it belongs to: its own folder, or the run whose step it is; None for any other model."""
    notes: tuple[str, ...] = ()
    """What differs from what kto wrote and decides no number."""

    @classmethod
    def find(cls, name: str) -> Checkpoint:
        """The checkpoint of a path or Hub id, its files compared with their checksums.

        Raises:
            BadInput: there is none, it is not finished, or a file of it is damaged.
        """
        if name == TrainConfig.out and not Path(name).exists():
            raise BadInput(f"There is no {name} here yet.", "`kto train` writes it.")
        name, folder = locate_model(name)
        if not is_model_folder(folder):
            raise _unfinished(folder)
        notes = check_files(folder)
        refuse_slices(folder)
        candidates = (folder, folder.resolve().parent.parent)
        return cls(name, folder, next((each for each in candidates if RunDir(each).started), None), tuple(notes))

    @cached_property
    def settings(self) -> dict[str, Any] | None:
        """The kto_config.json of its run; None without a run.

        Raises:
            BadInput: it is damaged.
        """
        return None if self.run is None else read_settings(RunDir(self.run))

    def said(self) -> list[str]:
        """What differs from what kto wrote and decides no number: the model card, the record of the steps."""
        if self.run is None or self.settings is None:
            return list(self.notes)
        named = re.fullmatch(r"step-(\d+)", self.folder.name)
        until = int(named[1]) if named else self.settings["chosen"].get("total_steps", 0)
        return [*self.notes, *RunDir(self.run).metrics_faults(until)]

    @cached_property
    def is_adapter(self) -> bool:
        """Whether the folder has an adapter, not a full model."""
        return lora.is_adapter(self.folder)

    @property
    def base(self) -> Path:
        """The folder of the whole model: its own, or that below its adapters."""
        return locate_base(self.folder)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: beside the weights, or beside those of the model below for a bare adapter."""
        return locate_tokenizer(self.folder)

    @property
    def merged_reference(self) -> bool:
        """Whether the run's reference has its adapters merged into its weights."""
        return self.settings is not None and bool(self.settings["reference"].get("merged"))

    @property
    def eval_folder(self) -> Path:
        """The folder of results: checkpoint/eval; for a step eval/STEP of its run; for a Hub model ./eval/NAME."""
        if self.run is not None and self.run.resolve() != self.folder.resolve():
            return self.run / "eval" / self.folder.name
        return self.folder / "eval" if Path(self.name).is_dir() else Path("eval") / self.name.replace("/", "--")

    def fill(self, config: Settings) -> tuple[Settings, LossSettings | None]:
        """The config with open settings (data, reference, beta, lengths) taken from the run, and the run's loss.

        Raises:
            BadInput: the checkpoint belongs to no run and no reference was named.
        """
        if self.settings is None:
            if config.model is None and not self.is_adapter:
                raise BadInput(
                    f"{self.folder} does not say which model it was trained from.",
                    "Name it with --reference FOLDER_OR_HUB_ID.",
                )
            return config if config.model else replace(config, model=lora.base_of(self.folder)), None
        train, chosen = self.settings["train"], self.settings["chosen"]
        loss = LossSettings(train["beta"] or 1.0, chosen["lambda_d"], chosen["lambda_u"])  # as earlier runs have it
        loss = LossSettings(**chosen["loss"]) if "loss" in chosen else loss
        own = train["data"] and not train.get("after") and Path(train["data"]).is_dir()
        named = train["data"] if own else self.settings["data"]["folder"]
        reference = None if train["model"] is None else self.settings["reference"]["folder"]
        filled = replace(
            config,
            data=config.data or named,
            model=config.model or reference,
            beta=config.beta or loss.beta,
            max_length=config.max_length or (chosen["max_length"] if config.model is None else None),
            dtype=config.dtype if config.dtype != "auto" else chosen["dtype"],
            chat_template=config.chat_template or self._template(train["chat_template"] or "start" in self.settings),
            template_date=config.template_date or train.get("template_date"),
            chat_template_kwargs=train.get("chat_template_kwargs")
            if config.chat_template_kwargs is None
            else config.chat_template_kwargs,
            load_in_4bit=config.load_in_4bit or train.get("load_in_4bit", False),
        )
        return filled, loss

    def _template(self, given: str | bool) -> str | None:
        """The template file of its run: its own copy of the one `given` then, which may be gone, or of the model that
        training started from, where the reference is another one."""
        own = self.folder / "chat_template.jinja"
        return str(own) if given and own.is_file() else given or None if isinstance(given, str) else None

    def starts_from(self, prepared: Prepared) -> bool:
        """Whether the reference is the model below the adapter: by content for an adapter of a run, else by path."""
        below = trained_on(self.folder)
        if below is not None:
            return below == prepared.source.fingerprint
        return Path(lora.base_of(self.folder)).expanduser().resolve() == prepared.source.folder.resolve()

    def refuse_other_vocabulary(self, prepared: Prepared) -> None:
        """Refuses an adapter on the reference that holds other tokens, before anything is computed.

        Raises:
            BadModel: with both sizes.
        """
        if self.is_adapter and prepared.model is not None and self.starts_from(prepared):
            lora.refuse_other_vocabulary(prepared.model, self.folder)

    def weights_id(self, prepared: Prepared, config: EvalConfig) -> str:
        """Hash of the weights (`model.identity.fingerprint`); of an adapter with those of its base.

        Raises:
            BadModel: there are no weights.
        """
        if self.is_adapter and self.starts_from(prepared):
            return adapted_fingerprint(prepared.source.fingerprint, self.folder)
        return open_source(str(self.folder), in_4bit=config.load_in_4bit).fingerprint

    def load(self, prepared: Prepared, config: EvalConfig, dtype: torch.dtype) -> Any:
        """The model, an adapter on the model below it."""
        return load_source(
            open_source(str(self.folder), in_4bit=config.load_in_4bit),
            trust_remote_code=config.trust_remote_code,
            dtype=dtype,
            compute=prepared.dtype,
            in_4bit=config.load_in_4bit,
        ).model

    def load_in_place_of_reference(self, prepared: Prepared, config: EvalConfig) -> Any:
        """The model, to be scored; `prepared` gives up the reference first, and an adapter trained from it is attached
        to it, unless its weights were cast."""
        reference, adapted = prepared.model, prepared.adapted
        prepared.model = prepared.adapted = None
        if self.is_adapter and reference is not None and self.starts_from(prepared):
            return lora.attach(adapted or reference, self.folder).get_base_model()
        del reference, adapted
        return self.load(prepared, config, prepared.precision.weights)


def _unfinished(folder: Path) -> BadInput:
    """The error for a folder that is no model folder."""
    directory = RunDir(folder)
    if directory.started:
        steps = directory.steps.all()
        hint = f", or evaluate a step of it: kto eval {steps[-1]}" if steps else ""
        return BadInput(
            f"The run in {folder} is not finished: it has no config.json yet.",
            f"Finish it: kto train --resume --out {folder}{hint}",
        )
    return BadInput(
        f"{folder} is not a model folder: it has neither config.json nor {lora.CONFIG}.",
        "Give a checkpoint that `kto train` wrote.",
    )
