"""A check: a name, what was found, and whether that is as it should be."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MARK = "JSON "
"""Begins the lines of a group's output that are checks."""


@contextmanager
def check(name: str) -> Iterator[dict[str, Any]]:
    """Prints what the body puts into the yielded dict; an exception is a result too.

    `ok` is True unless the body sets it; None says that there was nothing to check.
    """
    found: dict[str, Any] = {"check": name, "ok": True}
    began = time.perf_counter()
    try:
        yield found
    except Exception as error:  # noqa: BLE001  (whatever it is, the next check runs)
        found["ok"] = False
        found["error"] = f"{type(error).__name__}: {str(error)[:600]}"
        found["where"] = traceback.format_exc().strip().splitlines()[-7:-1]
        traceback.print_exc()  # to stderr, which the driver keeps
    finally:
        found["took_s"] = round(time.perf_counter() - began, 2)
        print(MARK + json.dumps(found, default=str), flush=True)
