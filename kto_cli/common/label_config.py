"""Settings of `kto label`. The defaults live here alone; the flags read them."""

from __future__ import annotations

from dataclasses import dataclass

from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import require

ALL_ADDRESSES = ("", "0.0.0.0", "::", "*")
"""Hosts that are no single address: which requests are meant for the page could not be told."""


@dataclass(frozen=True)
class LabelConfig:
    """Settings of `kto label`."""

    sources: tuple[str, ...]
    """A file of answers, or a checkpoint that kto eval has evaluated, or two of them; `reference` or `target` as the
    second are the answers that were saved beside."""
    rows: bool = False
    """Show the validation rows of a checkpoint's data instead of its answers."""
    one_at_a_time: bool = False
    """Show two answers to one prompt one after the other instead of side by side."""
    out: str | None = None
    """The file of labels; default: NAME.labels.jsonl in this folder."""
    data: str | None = None
    """The dataset that a checkpoint was evaluated on, where it has moved."""
    seed: int = 0
    """Random seed of the order of items and answers; each person has an order of their own."""
    host: str = "127.0.0.1"
    """An address of this machine."""
    port: int = 8420
    """0: any that is free."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.sources) <= 2:
            raise BadFlag(f"kto label takes one or two sources, not {len(self.sources)}.", "See kto label --help.")
        if self.rows and len(self.sources) == 2:
            raise BadFlag("--rows goes with one checkpoint.", "Both were evaluated on the same rows: name one of them.")
        require(0 <= self.port <= 65535, "--port", self.port, "0 to 65535")
        require(
            self.host not in ALL_ADDRESSES and ":" not in self.host,
            "--host",
            self.host or "''",
            "one IPv4 address of this machine, such as 127.0.0.1",
        )
