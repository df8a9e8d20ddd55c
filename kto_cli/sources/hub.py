"""What comes from the Hugging Face Hub, and what to do where it cannot be reached."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.errors import BadInput

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PROBE_SECONDS = 5.0


class Unreachable(Exception):
    """The Hub does not answer; says why."""


def answers(endpoint: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether the Hub's front page answers within `seconds`.

    It needs no permission, so a 403 or 407 is a wall in between, and a 5xx the Hub being down. In a thread,
    because looking up a name has no time limit of its own.
    """
    result: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                result.append(True)
        except urllib.error.HTTPError as error:
            result.append(error.code not in (403, 407) and error.code < 500)
        except (OSError, ValueError, http.client.HTTPException):
            result.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(result and result[0])


def why_unreachable() -> str | None:
    """Why the Hub cannot be reached, in words; None where it can."""
    for flag in OFFLINE_FLAGS:
        if os.environ.get(flag, "").upper() in ("1", "TRUE", "YES", "ON"):
            return f"{flag} is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return None if answers(endpoint) else f"no answer from {endpoint}"


def snapshot(hub_id: str, subsets: Sequence[str]) -> Path:
    """The folder of the subsets' raw files: downloaded, or offline from the cache where it has them all.

    Raises:
        Unreachable: the Hub cannot be reached and its cache lacks a subset.
        BadInput: the Hub refuses (no such dataset, no permission).
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    reason = why_unreachable()
    patterns = [f"{subset}/*.jsonl*" for subset in subsets]
    try:
        folder = Path(
            snapshot_download(hub_id, repo_type="dataset", allow_patterns=patterns, local_files_only=reason is not None)
        )
    except LocalEntryNotFoundError as error:
        raise Unreachable(reason or first_line(error)) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            raise Unreachable(first_line(error)) from error
        raise BadInput(
            f"The Hub refuses {hub_id}: {first_line(error)}.", "Use --from PATH for a local copy."
        ) from error
    except Exception as error:
        network = isinstance(error, (ConnectionError, TimeoutError))
        if network or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests"):
            raise Unreachable(first_line(error)) from error
        raise
    if reason and not all(any((folder / subset).glob("*.jsonl*")) for subset in subsets):
        raise Unreachable(reason)
    return folder


def table_rows(hub_id: str, columns: Sequence[str]) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """(all column names, rows with the named columns that are there) of a dataset's train split.

    `hub_id` may be a local folder: `datasets` reads both the same way.

    Raises:
        BadInput: no such dataset, no permission, no split `train`, or the Hub cannot be reached.
    """
    import datasets

    if not Path(hub_id).exists() and (reason := why_unreachable()):
        raise BadInput(f"{hub_id} is no file here, and the Hub cannot be reached ({reason}).", "Give a local file.")
    try:
        data = datasets.load_dataset(hub_id, split="train")
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        raise BadInput(f"The dataset {hub_id} cannot be read: {first_line(error)}.", "Check its name.") from error
    names = list(data.column_names or [])
    return names, iter(data.select_columns([name for name in names if name in columns]))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
