"""A folder owned by a launch: its main process holds the lock, and all processes are refused together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kto_cli.common.errors import KtoError
from kto_cli.common.owner import owning


@contextmanager
def owned(accelerator: Any, lock: Path, folder: Path, doing: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Context manager of `common.owner.owning` for all processes of a launch; all must enter.

    Raises:
        KtoError: as `owning`, in every process.
    """
    from accelerate.utils import broadcast_object_list

    with ExitStack() as held:
        refusal: KtoError | None = None
        if accelerator.is_main_process:
            try:
                held.enter_context(owning(lock, folder, doing, warn=warn))
            except KtoError as error:
                refusal = error
        (refusal,) = broadcast_object_list([refusal])
        if refusal is not None:
            raise refusal
        yield
