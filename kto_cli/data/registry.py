"""Registry of the named feedback sources, in the order of `kto binarize --list`; each is imported on first use."""

from __future__ import annotations

import importlib

from kto_cli.data.formats.source import Source

MODULES = {
    "hh-rlhf": "formats.hh_rlhf",
    "shp": "formats.shp",
    "oasst": "formats.oasst",
    "ultrafeedback": "formats.ultrafeedback",
    "alpaca-eval": "formats.alpaca_eval",
    "halos": "formats.halos",
    "trl": "formats.trl",
    "llama-factory": "formats.llama_factory",
    "log": "log.format",
    "open-webui": "products.open_webui",
    "chat-ui": "products.chat_ui",
    "librechat": "products.librechat",
    "openai-preference": "products.openai_preference",
    "langfuse": "products.langfuse",
    "langsmith": "products.langsmith",
    "argilla": "products.argilla",
    "label-studio": "products.label_studio",
    "mlflow": "products.mlflow",
    "phoenix": "products.phoenix",
    "dify": "products.dify",
    "gradio": "products.gradio",
    "anything-llm": "products.anything_llm",
    "sql": "products.sql",
}


def source(name: str) -> Source:
    """Source by its name in `MODULES`."""
    found: Source = importlib.import_module(f"kto_cli.data.{MODULES[name]}").SOURCE
    return found


def all_sources() -> list[Source]:
    """All named sources."""
    return [source(name) for name in MODULES]
