"""Lines to paste that serve an export."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadModel
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.evaluation.answers.vllm import rank_for_vllm
from kto_cli.evaluation.export.origin import Origin


def served_name(name: str) -> str:
    """A model's name on servers: the last part of a path or Hub id, in letters that every server takes."""
    last = re.sub(r"[^\w.-]+", "-", name.rstrip("/").rpartition("/")[2]).strip("-.")
    return last.lower() or "model"


def serving_lines(
    location: str,
    name: str,
    origin: Origin,
    base: Path | None,
    adapter: Path | None,
    template_kwargs: dict[str, Any] | None,
) -> list[str]:
    """Lines of a shell.

    Args:
        location: the exported folder or its Hub id. base: folder of the model below an adapter, on this machine.
        adapter: a folder of the adapter, if that is what is exported.
    """
    where, known = shlex.quote(location), shlex.quote(name)
    given = f" --default-chat-template-kwargs {shlex.quote(spelled_kwargs(template_kwargs))}" if template_kwargs else ""
    lines = [f"vllm serve {where} --served-model-name {known}{given}"]
    if adapter is not None:
        below = shlex.quote(origin.name if origin.on_hub or base is None else str(base))
        try:
            rank = rank_for_vllm(adapter, name)
        except BadModel:  # a kind of adapter that vLLM does not serve; merged, it does
            lines = []
        else:
            ranked = f" --max-lora-rank {rank}" if rank > VLLM_RANK else ""
            lines = [f"vllm serve {below} --enable-lora{ranked} --lora-modules {known}={where}{given}"]
    passed = f" --chat-template-kwargs {shlex.quote(spelled_kwargs(template_kwargs))}" if template_kwargs else ""
    loads = adapter is None or origin.on_hub  # transformers finds the base by the name in the adapter's config
    return [*lines, *([f"transformers serve {where}{passed}"] if loads else [])]


def llama_line(file: Path, base: Origin | None) -> str:
    """A line for llama.cpp's server; `base`: of a file that holds an adapter."""
    quoted = shlex.quote(str(file))
    if base is None:
        return f"llama-server -m {quoted}"
    return f"llama-server -m base.gguf --lora {quoted}   # base.gguf: {base.name} in GGUF"


VLLM_RANK = 16
"""The largest rank of adapters that vLLM takes without being told."""
