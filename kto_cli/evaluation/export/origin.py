"""The model that a checkpoint was made from: its name without paths of this machine, and its licence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_text
from kto_cli.data.hub import is_network, why_unreachable
from kto_cli.model.source import ModelSource
from kto_cli.model.written_files import run_settings_of

CARD = "README.md"
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/[^/]+$")
"""End of the path of a model in the Hub's cache."""


class Origin(NamedTuple):
    """The whole model below all adapters, or the one that a run of all weights started from."""

    name: str
    """A Hub id, or the last part of a folder's path."""
    on_hub: bool
    license: str | None
    """As the Hub spells it; None where it is not known."""
    folder: Path | None
    """Where it is on this machine."""


def origin_of(source: ModelSource, base: str | None, license: str | None) -> Origin:
    """The origin of a checkpoint.

    Args:
        base: its Hub id, if the user names it. license: the licence that the user names.
    """
    name, path = _start(source)
    hub_id = base or hub_id_of(name, path)
    return Origin(
        hub_id or Path(name).name,
        hub_id is not None,
        license or _license_in(path) or (_license_on_hub(hub_id) if hub_id else None),
        path if path.is_dir() else None,
    )


def hub_id_of(name: str, folder: Path) -> str | None:
    """The Hub id of a model: its own name, or that of the snapshot in the Hub's cache; None for other folders."""
    if found := _SNAPSHOT.search(folder.as_posix()):
        return f"{found['owner']}/{found['name']}"
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")
    return name if is_id and not Path(name).expanduser().is_dir() else None


def _start(source: ModelSource) -> tuple[str, Path]:
    """Name and folder of the first model: below the adapters, then below the runs that trained all weights."""
    while source.below is not None:
        source = source.below
    name, folder = source.name, source.folder
    seen: set[Path] = set()
    while folder.is_dir() and folder.resolve() not in seen:
        seen.add(folder.resolve())
        settings = run_settings_of(folder)
        part: Any = settings.get("start", settings.get("reference"))
        if not isinstance(part, dict):
            break
        name, folder = str(part["name"]), Path(part["folder"])
    return name, folder


def _license_in(folder: Path) -> str | None:
    """The licence that a model card in the folder names."""
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(read_text(folder / CARD, "a model card"), ignore_metadata_errors=True)
    except (BadInput, ValueError):  # none, or one of another form
        return None
    found = card.data.get("license")
    return found if isinstance(found, str) else None


def _license_on_hub(hub_id: str) -> str | None:
    """The licence that the Hub knows; None offline or where it refuses."""
    if why_unreachable() is not None:
        return None
    from huggingface_hub import model_info

    try:
        card = model_info(hub_id, timeout=10).card_data
    except Exception as error:
        if not is_network(error):  # the Hub's refusals are errors of the network too
            raise
        return None
    found = card.get("license") if card is not None else None
    return found if isinstance(found, str) else None
