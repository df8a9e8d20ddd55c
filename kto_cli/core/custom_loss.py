"""A loss of the user's: a function, named MODULE:FUNCTION, of a whole effective batch's log-probs.

    def my_loss(values: Values, settings: LossSettings) -> Tensor

returns the losses of the batch's units, [units]; their mean is minimized. It must be differentiable in `values.logps`
and pure: equal values give equal losses. It may couple rows as it likes, since it always sees all of them;
micro-batches, processes and resuming are exact without its doing.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[[Any, Any], "Tensor"]
"""(values, settings) -> [units]."""


@functools.cache
def custom_loss(name: str) -> Function:
    """The function; modules are searched in the working directory first.

    Raises:
        ImportError: no such module. AttributeError: no such function. What the module itself raises.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        found: Function = getattr(importlib.import_module(module), function)
    finally:
        sys.path.pop(0)
    return found


def file_of(name: str) -> str:
    """The file that the function's module was read from."""
    return getattr(sys.modules[name.partition(":")[0]], "__file__", None) or "a module without a file"
