"""The sources that have a name, in the order they are shown."""

from __future__ import annotations

import importlib

from kto_cli.sources.source import Source

MODULES = {
    "hh-rlhf": "hh_rlhf",
    "shp": "shp",
    "oasst": "oasst",
    "ultrafeedback": "ultrafeedback",
    "alpaca-eval": "alpaca_eval",
    "halos": "halos",
    "trl": "trl",
    "llama-factory": "llama_factory",
    "log": "log",
}


def source(name: str) -> Source:
    """The source of a name in `MODULES`."""
    found: Source = importlib.import_module(f"kto_cli.sources.{MODULES[name]}").SOURCE
    return found


def all_sources() -> list[Source]:
    """Every source."""
    return [source(name) for name in MODULES]
