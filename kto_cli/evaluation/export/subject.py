"""What an export holds: the adapter as it is, a whole model, or one with its adapters merged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadFlag
from kto_cli.common.export_config import ExportConfig
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.export.card import export_card
from kto_cli.evaluation.export.commands import served_name, serving_lines
from kto_cli.evaluation.export.files import write_files
from kto_cli.evaluation.export.folder import Write
from kto_cli.evaluation.export.origin import Origin, origin_of
from kto_cli.model.source import MERGED, ModelSource, open_source

ADAPTER, WHOLE, MERGED_MODEL = "adapter", "model", "merged"
WORDS = {ADAPTER: "the adapter alone", WHOLE: "all", MERGED_MODEL: "all, adapters merged"}


@dataclass(frozen=True)
class Subject:
    """A checkpoint that is exported."""

    config: ExportConfig
    checkpoint: Checkpoint
    source: ModelSource
    origin: Origin
    what: str
    """ADAPTER, WHOLE or MERGED_MODEL."""

    @property
    def train(self) -> dict[str, Any]:
        """Settings of its run; empty without a run."""
        settings = self.checkpoint.settings
        return {} if settings is None else dict(settings["train"])

    @property
    def template_kwargs(self) -> dict[str, Any] | None:
        """Arguments of the chat template that each request must pass."""
        return self.train.get("chat_template_kwargs")

    @property
    def weights(self) -> str:
        """Which weights are written, and how."""
        if self.what != MERGED_MODEL:
            return WORDS[self.what]
        return f"{WORDS[self.what]} ({'dtype of the base' if self.config.dtype == 'stored' else self.config.dtype})"

    @property
    def facts(self) -> dict[str, Any]:
        """What the export was made from."""
        return {
            "what": self.what,
            "dtype": self.config.dtype,
            "base": self.origin.name,
            "fingerprint": self.source.fingerprint,
        }

    @property
    def write(self) -> Write:
        """Fills a folder with the model."""
        return partial(
            write_files,
            source=self.source,
            origin=self.origin,
            merge=self.config.merge,
            dtype=self.config.dtype,
            trust_remote_code=self.config.trust_remote_code,
        )

    def lines(self, where: str, *, base: Path | None = None) -> list[str]:
        """Lines that serve the export; `base`: folder of the base on this machine, if the Hub does not have it."""
        adapter = self.source.folder if self.what == ADAPTER else None
        return serving_lines(where, served_name(where), self.origin, base, adapter, self.template_kwargs)

    def card(self, where: str) -> str:
        """README.md of the export."""
        return export_card(
            served_name(where),
            self.checkpoint,
            self.origin,
            self.source.fingerprint.removesuffix(MERGED),
            is_adapter=self.what == ADAPTER,
            weights=self.weights,
            served=self.lines(where if self.config.hub_id else f"./{served_name(where)}"),
        )


def open_subject(config: ExportConfig, checkpoint: Checkpoint) -> Subject:
    """The checkpoint as the flags ask for it.

    Raises:
        BadFlag: --merge of a whole model, or an adapter on others without it. BadModel: as `open_source`.
    """
    in_4bit = checkpoint.settings is not None and bool(checkpoint.settings["train"].get("load_in_4bit"))
    source = open_source(str(checkpoint.folder), in_4bit=in_4bit, merged=config.merge)
    what = _what(config, source)
    return Subject(config, checkpoint, source, origin_of(source, config.base, config.license), what)


def _what(config: ExportConfig, source: ModelSource) -> str:
    if source.below is None:
        if config.merge:
            raise BadFlag(f"{source.name} is a whole model: there is nothing to merge.", "Leave out --merge.")
        return WHOLE
    if config.merge:
        return MERGED_MODEL
    if source.below.adapters:
        raise BadFlag(
            f"{source.words}: servers take one adapter on a whole model, and alone it is another model.",
            "Export a whole one with --merge.",
        )
    return ADAPTER
