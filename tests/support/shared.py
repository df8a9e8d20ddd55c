"""Where this machine keeps the real models, tokenizers and oracle cases; a test that needs them skips elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared(*parts: str) -> Path:
    """A file or folder below $KTO_SHARED, or below the `shared` folder beside the checkout; skips where absent."""
    path = Path(os.environ.get("KTO_SHARED") or ROOT.parent / "shared").joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} here (set KTO_SHARED)")
    return path
