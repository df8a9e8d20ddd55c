"""Settings of `kto train` from a config file, or from the kto_config.json of a run, with their types checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.model_config import AUTO_TOKENS
from kto_cli.common.read import read_yaml
from kto_cli.common.train_config import SWITCH, TrainConfig


def train_config(settings: Mapping[str, Any], *, where: str) -> TrainConfig:
    """A `TrainConfig` from the keys and values of a file; raises as `typed_settings` does."""
    return TrainConfig(**typed_settings(settings, where=where))


def typed_settings(settings: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Settings of a `TrainConfig` with their types checked, not yet their values; numbers may be text (YAML reads 1e-5
    so).

    Raises:
        BadInput: an unknown key (with the nearest known one), or a value of the wrong kind.
    """
    kinds = {item.name: item.type for item in fields(TrainConfig)}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(kinds)}."
            raise BadInput(f"{where} has the unknown key {key!r}.", hint)
        values[key] = _typed(str(kinds[key]), value, f"{where}: {key}")
    return values


def _typed(kind: str, value: Any, where: str) -> Any:
    """`value` converted to the annotated `kind` (such as "int | None"); a float without a fraction passes as an int.

    YAML reads the words on and off as true and false.
    """
    optional, kind = kind.endswith("| None"), kind.split(" | ")[0]
    if value is None and optional:
        return None
    try:
        if kind == "dict[str, Any]" and isinstance(value, Mapping):
            return dict(value)
        if kind == "bool" and isinstance(value, bool):
            return value
        if kind in ("str", "Switch") and isinstance(value, str):
            return value
        if kind == "Switch" and isinstance(value, bool):
            return "on" if value else "off"
        if kind == "CountOrAuto" and value == "auto":
            return AUTO_TOKENS
        if (
            kind in ("int", "CountOrAuto", "float")
            and isinstance(value, (int, float, str))
            and not isinstance(value, bool)
        ):
            number = float(value)
            if math.isfinite(number) and kind == "float":
                return number
            if math.isfinite(number) and number == int(number):
                return int(number)
    except (ValueError, OverflowError):
        pass
    wanted = {
        "str": "text (in quotation marks)",
        "Switch": f"one of {', '.join(SWITCH)}",
        "dict[str, Any]": "a mapping, such as {enable_thinking: false}",
        "bool": "true or false",
        "float": "a number",
        "int": "a whole number",
        "CountOrAuto": "a whole number, or auto",
    }[kind]
    raise BadInput(f"{where} is {_short(value)}.", f"It must be {wanted}.")


def _short(value: Any) -> str:
    """A value as Python writes it, in at most 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or nested too deeply
        text = f"a long {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_config_file(path: Path) -> dict[str, Any]:
    """Settings from a YAML or JSON file; from a run's kto_config.json, those that repeat the run.

    Raises:
        BadInput: it is missing, is neither YAML nor JSON, or holds no settings.
    """
    value = read_yaml(path, "the config file")
    if not isinstance(value, dict):
        raise BadInput(f"The config file {path} holds no settings.", "Write lines such as `beta: 0.1`.")
    return settings_of_run(value) if isinstance(value.get("train"), dict) else value


def settings_of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a kto_config.json, with the folders of data and model that they were applied to: the working
    directory, in which they were found, may have others today."""
    settings = dict(run["train"])
    if settings.get("after"):  # its rows were put together from two datasets, which are named
        filled = ("model", "reference", "continue_adapter")
        again = {name: value for name, value in settings.items() if name not in filled}
        return again | {"data": run["data"].get("new", settings["data"])}
    if (data := _folder_of(run.get("data"))) is not None:
        settings["data"] = data
    for name, part in (("model", run.get("start", run.get("reference"))), ("reference", run.get("reference"))):
        folder = _folder_of(part)
        given = [each for each in Path(str(settings.get(name))).parts if each not in (".", "..")]
        if folder is not None and given and [*Path(folder).parts][-len(given) :] == given:  # no Hub id
            settings[name] = folder
    return settings


def _folder_of(part: Any) -> str | None:
    folder = part.get("folder") if isinstance(part, Mapping) else None
    return folder if isinstance(folder, str) else None
