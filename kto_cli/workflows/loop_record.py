"""loop.json: the settings of a loop, and the results of its rounds so far; sealed, and written after each step."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import file_sha256, finite
from kto_cli.common.loop_config import LoopConfig
from kto_cli.common.owner import LOCK
from kto_cli.common.seals import as_read_back, read_sealed, write_sealed
from kto_cli.common.words import printable
from kto_cli.data.dataset import load_data_dir
from kto_cli.model.source import open_source

NAME = "loop.json"
MAY_DIFFER = ("out", "rounds", "judge_calls", "judge_workers", "cache", "micro_batch_tokens", "track")
"""Settings that may change when a loop goes on: they decide no answer, label or weight."""
PARTS = {"settings": dict, "inputs": dict, "date": str, "rounds": list}


class LoopRecord:
    """What is known of a loop; what is noted is on the disk when `note` returns."""

    def __init__(self, config: LoopConfig) -> None:
        """Begins a record, or reads the one that is there.

        Raises:
            BadInput: the folder has other files, or a loop with other settings or inputs.
        """
        self.path = Path(config.out) / NAME
        now = {"settings": config.given, "inputs": _inputs(config), "date": config.template_date or _today()}
        self.goes_on = self._made_something()
        if self.goes_on and not self.path.exists():
            raise BadInput(f"{printable(config.out)} has other files.", "Use another folder with --out.")
        if self.goes_on:
            self._stored = self._read()
            self._refuse_others(now)
        else:  # a record alone is that of a loop that was killed before it made something
            self._stored = {**now, "rounds": []}
            write_sealed(self.path, self._stored)

    def _made_something(self) -> bool:
        return any(path.name not in (LOCK, NAME) for path in self.path.parent.iterdir())

    def remove_if_alone(self) -> None:
        """Removes the record of a loop that could not begin."""
        if not self._made_something():
            self.path.unlink(missing_ok=True)

    @property
    def date(self) -> str:
        """The day that the loop started, for chat templates that write one."""
        return str(self._stored["date"])

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Results by step, of each round."""
        found: list[dict[str, Any]] = self._stored["rounds"]
        return found

    def of(self, number: int) -> dict[str, Any]:
        """Results of a round, counted from 1."""
        return self.rounds[number - 1] if number <= len(self.rounds) else {"round": number}

    def note(self, number: int, step: str, found: dict[str, Any]) -> None:
        """Notes the result of a step.

        Raises:
            DiskFull: no space left.
        """
        rounds = [*self.rounds[: number - 1], {**self.of(number), step: finite(found)}, *self.rounds[number:]]
        self._stored = {**self._stored, "rounds": rounds}
        write_sealed(self.path, self._stored)

    def _read(self) -> dict[str, Any]:
        stored = read_sealed(self.path, "the record of a loop")
        if any(not isinstance(stored.get(name), kind) for name, kind in PARTS.items()):
            raise BadInput(f"{printable(self.path)} is no record of kto loop.", "Use another folder with --out.")
        return stored

    def _refuse_others(self, now: dict[str, Any]) -> None:
        """
        Raises:
            BadInput: names what differs.
        """
        before, found = self._stored["settings"], as_read_back(now["settings"])
        names = [name for name in {**before, **found} if name not in MAY_DIFFER]
        differing = [
            f"{name} ({before.get(name, 'default')}, now {found.get(name, 'default')})"
            for name in names
            if before.get(name) != found.get(name)
        ]
        differing += [name for name, value in now["inputs"].items() if self._stored["inputs"].get(name) != value]
        if differing:
            what = f"{printable(self.path.parent)} was started with other settings or inputs: {', '.join(differing)}."
            raise BadInput(what, "Give the same ones, or another folder with --out.")


def _inputs(config: LoopConfig) -> dict[str, str]:
    """Fingerprints of what a loop starts from.

    Raises:
        KtoError: it cannot be used.
    """
    found = {"the model": open_source(config.model, in_4bit=config.load_in_4bit).fingerprint}
    for file in config.prompt_files:
        if not Path(file).is_file():
            raise BadInput(f"There is no file {printable(file)}.", "Give a table with the column prompt to --prompts.")
        found[f"the content of {file}"] = file_sha256(Path(file))
    if config.data is not None:
        found[f"the rows of {config.data}"] = load_data_dir(Path(config.data)).fingerprint
    return found


def _today() -> str:
    return datetime.date.today().isoformat()
