"""Settings of `kto export`. The defaults live here alone; the flags read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from kto_cli.common.errors import BadFlag
from kto_cli.common.eval_config import is_url
from kto_cli.common.model_config import require

OLLAMA, GGUF, HUB = "ollama", "gguf", "hub:"
StoredDtype: TypeAlias = Literal["stored", "float32", "bfloat16", "float16"]
STORED_DTYPES: tuple[str, ...] = get_args(StoredDtype)
ROWS = 10
"""Validation rows that `--check` asks a server about."""


@dataclass(frozen=True)
class ExportConfig:
    """Settings of `kto export`."""

    checkpoint: str = "checkpoint"
    """A run directory, a step of one, a Hugging Face model folder or a Hub id."""
    to: str | None = None
    """A new folder, hub:OWNER/NAME, ollama or gguf."""
    out: str | None = None
    """The folder of --to ollama and --to gguf; default: the checkpoint's name with -ollama or -gguf behind it."""
    merge: bool = False
    """Write a whole model: the adapters merged into the weights below them."""
    dtype: str = "stored"
    """Of the weights that --merge writes; stored: as the base has them on disk."""
    base: str | None = None
    """Hub id of the model below the adapter, where kto knows it as a folder of this machine."""
    license: str | None = None
    """Licence of the exported model, as the Hub spells it; default: that of the base, where it is known."""
    public: bool = False
    """Make a new repository of the Hub public."""
    llama_cpp: str | None = None
    """Folder of llama.cpp, whose converters write GGUF; default: those on the PATH."""
    check: str | None = None
    """URL of an OpenAI-compatible server: compare what it serves with the checkpoint."""
    served_as: str | None = None
    """The checkpoint's name on that server; default: the one that fits among those it lists."""
    rows: int = ROWS
    """Validation rows to compare."""
    data: str | None = None
    """A folder written by `kto binarize` with the rows to compare; default: that of the run."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    cache: str | None = None
    """Folder of cached tokenized rows; default: $KTO_CACHE or ~/.cache/kto."""

    def __post_init__(self) -> None:
        if self.to is None and self.check is None:
            raise BadFlag(
                "Nothing to do: neither --to nor --check is given.",
                f"Name where to export to: --to FOLDER, {HUB}OWNER/NAME, {OLLAMA} or {GGUF}.",
            )
        require(self.to != "", "--to", "''", f"a folder, {HUB}OWNER/NAME, {OLLAMA} or {GGUF}")
        require(self.dtype in STORED_DTYPES, "--dtype", self.dtype, f"one of {', '.join(STORED_DTYPES)}")
        require(self.rows >= 1, "--rows", self.rows, "1 or above")
        require(
            self.check is None or is_url(self.check), "--check", self.check, "a URL such as http://localhost:8000/v1"
        )
        if self.to is not None and self.to.startswith(HUB):
            require(re.fullmatch(r"[\w.-]+/[\w.-]+", self.hub_id) is not None, "--to", self.to, f"{HUB}OWNER/NAME")
        self._refuse_idle_flags()

    @property
    def hub_id(self) -> str:
        """OWNER/NAME of `--to hub:OWNER/NAME`; empty for another target."""
        return self.to.removeprefix(HUB) if self.to is not None and self.to.startswith(HUB) else ""

    def _refuse_idle_flags(self) -> None:
        """Refuses flags that would do nothing."""
        exports, converts = self.to is not None, self.to in (OLLAMA, GGUF)
        idle = {
            "--merge": (self.merge, exports, "--to"),
            "--dtype": (self.dtype != "stored", self.merge, "--merge"),
            "--base": (self.base is not None, exports, "--to"),
            "--license": (self.license is not None, exports, "--to"),
            "--public": (self.public, bool(self.hub_id), f"--to {HUB}OWNER/NAME"),
            "--out": (self.out is not None, converts, f"--to {OLLAMA} or {GGUF}"),
            "--llama-cpp": (self.llama_cpp is not None, converts, f"--to {OLLAMA} or {GGUF}"),
            "--served-as": (self.served_as is not None, self.check is not None, "--check"),
            "--rows": (self.rows != ROWS, self.check is not None, "--check"),
            "--data": (self.data is not None, self.check is not None, "--check"),
        }
        for flag, (given, used, needs) in idle.items():
            if given and not used:
                raise BadFlag(f"{flag} does nothing without {needs}.", f"Add {needs}, or leave it out.")
