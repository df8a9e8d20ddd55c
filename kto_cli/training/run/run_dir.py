"""The run directory: its files, written so that a kill at any instant loses at most unfinished steps.

config.json, model.safetensors, tokenizer ...   the finished model; config.json comes last and says "finished"
                                                (of a LoRA run: adapter_config.json, adapter_model.safetensors)
kto_config.json                                 settings, versions, fingerprints; re-runs the run
metrics.jsonl                                   one line per step, each with a checksum
best/step-000120/                               until the end: the weights with the lowest validation loss, state.json
steps/step-000200/                              a model folder with optimizer.safetensors and state.json
README.md                                       model card
tracking/                                       of `--track`: TensorBoard's and wandb's files, names of the run
eval/                                           written by `kto eval`
.lock                                           while a process trains: which one

kto_config.json and state.json are sealed and hold the checksums of all files of the finished model and of a checkpoint.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.owner import LOCK
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.model.written_files import LAST_FILES, SETTINGS, is_model_folder
from kto_cli.training.run.metrics_file import append_line, read_lines, sync, write_lines
from kto_cli.training.run.model_folder import ModelWriter
from kto_cli.training.run.step_folders import StepFolders

KEPT_STEPS = 2
"""Checkpoints that stay: the last, and the one before it as a reserve."""


@dataclass(frozen=True)
class RunDir:
    """Paths of a run directory."""

    folder: Path

    @property
    def config(self) -> Path:
        """Settings and fingerprints."""
        return self.folder / SETTINGS

    @property
    def metrics(self) -> Path:
        """One JSON line per step."""
        return self.folder / "metrics.jsonl"

    @property
    def chat_template(self) -> Path:
        """The run's own copy of the template given with --chat-template, in the end that of the finished model."""
        return self.folder / "chat_template.jinja"

    def keep_template(self, text: str) -> None:
        """Writes the run's own copy of its chat template, so that the file it came from may go."""
        with files.replacing(self.chat_template) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @property
    def steps(self) -> StepFolders:
        """Checkpoints to resume from."""
        return StepFolders(self.folder / "steps")

    @property
    def best(self) -> StepFolders:
        """The step with the lowest validation loss, until the run ends."""
        return StepFolders(self.folder / "best")

    @property
    def lock(self) -> Path:
        """Lock file of the process that trains here."""
        return self.folder / LOCK

    @property
    def started(self) -> bool:
        """Whether a run was started here."""
        return self.config.is_file()

    @property
    def finished(self) -> bool:
        """Whether a run was finished here: its last file is in place."""
        return self.started and is_model_folder(self.folder)

    def refuse_unless_free(self) -> None:
        """A new run needs an absent or empty folder.

        Raises:
            BadInput: it holds a finished run, an unfinished one or something else; says what to do.
        """
        if not self.folder.exists():
            nearest = next(parent for parent in self.folder.absolute().parents if parent.exists())
            if not nearest.is_dir() or not os.access(nearest, os.W_OK):
                why = "is not writable" if nearest.is_dir() else "is a file"
                raise BadInput(f"{self.folder} cannot be created: {nearest} {why}.", "Use another folder with --out.")
            return
        if not self.folder.is_dir():
            raise BadInput(f"{self.folder} is a file.", "Use a folder with --out.")
        if self.finished:
            raise BadInput(f"{self.folder} holds a finished run.", "Use another folder with --out, or remove it.")
        if self.started:
            raise BadInput(
                f"{self.folder} holds an unfinished run.",
                f"Resume it with `kto train --resume --out {self.folder}`, or use another folder with --out.",
            )
        if any(not _is_left_over(path.name) for path in self.folder.iterdir()):
            raise BadInput(f"The output folder {self.folder} is not empty.", "Use another folder with --out.")

    # --- metrics ---------------------------------------------------------------------------

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Appends one step's numbers."""
        append_line(self.metrics, line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All sound lines.

        Raises:
            BadInput: the file cannot be read.
        """
        return read_lines(self.metrics).lines

    def metrics_faults(self, until: int) -> list[str]:
        """What is wrong with the record of steps 1 to `until`; none if nothing is."""
        try:
            fault = read_lines(self.metrics).fault(self.metrics, until)
        except BadInput as error:
            fault = error.what
        return [fault] if fault else []

    def keep_metrics_up_to(self, step: int) -> str:
        """Drops the lines of later steps, which will be written again; returns what is wrong with the others."""
        found = read_lines(self.metrics)
        kept = [line for line in found.lines if line["step"] <= step]
        write_lines(self.metrics, kept)
        return found.fault(self.metrics, step)

    def writing_step(self, step: int, counters: dict[str, Any]) -> AbstractContextManager[tuple[Path, dict[str, str]]]:
        """`StepFolders.writing` of a checkpoint, behind the record of the steps before it."""
        sync(self.metrics)
        return self.steps.writing(step, counters, others=KEPT_STEPS - 1)

    def remove_partial_files(self) -> None:
        """Removes what a killed process left half-written; files with their final names are always complete."""
        for left in [*self.folder.glob(".*.tmp"), *self.steps.partial(), *self.best.partial()]:
            files.remove(left)

    # --- the end ---------------------------------------------------------------------------

    def finish(
        self,
        writer: ModelWriter,
        model: Any,
        card: str,
        weights: dict[str, torch.Tensor] | None = None,
        *,
        end: dict[str, Any],
    ) -> None:
        """Puts the finished model in place; its config comes last, so a partial model never looks complete.

        Args:
            weights: gathered ones, in place of the model's own, if those are sharded.
            end: which step the model is of, and the verdict.
        """
        self.remove_partial_files()
        staging = self.folder / ".finished.tmp"
        with files.saying_disk_full(self.folder):
            files.make_folder(staging)
            writer.write_finished(staging, model, weights)
            (staging / "README.md").write_text(card, encoding="utf-8")
            written = files.files_below(staging)
            files.give_usual_mode(written.values())
            hashes = {name: files.file_sha256(path) for name, path in written.items()}
            write_sealed(self.config, {**read_settings(self), "finished": {"files": hashes, **end}})
            for name in sorted(written, key=lambda name: (name in LAST_FILES, name)):
                files.sync_file(staging / name)
                (self.folder / name).parent.mkdir(exist_ok=True)
                os.replace(staging / name, self.folder / name)
            shutil.rmtree(staging)
            files.sync_folder(self.folder)
        files.remove(self.best.folder)


def read_settings(directory: RunDir) -> dict[str, Any]:
    """The kto_config.json of a run, with its parts checked.

    Raises:
        BadInput: it is damaged or was changed by hand.
    """
    stored = read_sealed(directory.config, "the run's settings")
    parts: dict[str, tuple[str, ...]] = {
        "train": ("data", "model", "beta", "chat_template"),
        "chosen": ("max_length", "dtype", "lambda_d", "lambda_u"),
        "data": ("folder", "fingerprint"),
        "reference": ("folder", "fingerprint"),
    }
    for part, keys in parts.items():
        section = stored.get(part)
        if not isinstance(section, dict) or any(key not in section for key in keys):
            raise BadInput(
                f"{directory.config} is not what kto wrote: its part {part!r} is missing or incomplete.",
                "Restore the file, or start a new run with --out.",
            )
    return stored


def finished_step(stored: dict[str, Any]) -> tuple[int | None, dict[str, Any] | None]:
    """The step that a finished model is of, and how the run overfit after it, from its kto_config.json; None where it
    does not say."""
    finished = stored.get("finished")
    finished = finished if isinstance(finished, dict) else {}
    return finished.get("step"), finished.get("overfit")


def _is_left_over(name: str) -> bool:
    """Whether a file in a folder without kto_config.json is what a run leaves that was killed at its very start."""
    return name == LOCK or re.fullmatch(r"\.kto_config\.json\.\d+\.tmp", name) is not None
