"""Commands that install optional packages: kto is not on PyPI, so they name the source it was installed from."""

from __future__ import annotations

import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kto_cli.common.read import parse_json


def install_extra(extra: str) -> str:
    """The pip command that adds one of kto's extras."""
    origin = _origin()
    url = str(origin.get("url", ""))
    version_control = origin.get("vcs_info")
    if isinstance(version_control, dict):
        requirement = f"kto[{extra}] @ {version_control.get('vcs')}+{url}@{version_control.get('commit_id')}"
        return f"pip install {shlex.quote(requirement)}"
    source = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else Path(__file__).parents[2]
    if not (source / "pyproject.toml").is_file():
        return f"pip install '.[{extra}]' in the folder with kto's source"
    editable = "-e " if (origin.get("dir_info") or {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{source}[{extra}]')}"


def _origin() -> dict[str, Any]:
    """pip's direct_url.json: what kto was installed from; empty if unknown."""
    try:
        found = parse_json(distribution("kto").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
