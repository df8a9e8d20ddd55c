"""kto: align language models with desirable / undesirable feedback (KTO, arXiv 2402.01306).

The names in `__all__` are public and documented in docs/python.md; all else may change. They are imported when they are
first used, so that `import kto_cli` loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Interrupted", "KtoError", "__version__", "binarize", "evaluate", "kto_loss", "train"]

if TYPE_CHECKING:
    from kto_cli.common.errors import Interrupted, KtoError
    from kto_cli.core.losses import kto_loss
    from kto_cli.workflows.api import binarize, evaluate, train

_PUBLIC = {
    "Interrupted": "kto_cli.common.errors",
    "KtoError": "kto_cli.common.errors",
    "binarize": "kto_cli.workflows.api",
    "evaluate": "kto_cli.workflows.api",
    "kto_loss": "kto_cli.core.losses",
    "train": "kto_cli.workflows.api",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kto_cli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
