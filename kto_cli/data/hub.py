"""Downloads of datasets from the Hugging Face Hub, or from its cache when the Hub cannot be reached."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from itertools import chain
from pathlib import Path

from kto_cli.common.errors import BadInput, first_line
from kto_cli.data.readers.jsonl import Record

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PROBE_SECONDS = 5.0
GIVE_TOKEN = "`hf auth login`, or the environment variable HF_TOKEN"
"""How the Hub learns who asks."""


class Unreachable(Exception):
    """The Hub cannot be reached; the message is the reason."""


def answers(endpoint: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether the Hub's front page answers within `seconds`.

    The page needs no permission, so a 403 or 407 comes from a proxy or firewall, and a 5xx means that the Hub is down.
    The request runs in a thread, because DNS lookups have no time limit.
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
    """Reason why the Hub cannot be reached; None if it can."""
    for flag in OFFLINE_FLAGS:
        if os.environ.get(flag, "").upper() in ("1", "TRUE", "YES", "ON"):
            return f"{flag} is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return None if answers(endpoint) else f"no answer from {endpoint}"


def snapshot(hub_id: str, files: Sequence[str], subsets: Sequence[str]) -> Path:
    """Folder with a dataset's raw files, of some subsets or all: downloaded, or from the cache when offline.

    Args:
        files: patterns of file names.

    Raises:
        Unreachable: the Hub cannot be reached, and its cache lacks a subset (or all files, if no subset is given).
        BadInput: the Hub refuses (no such dataset, no permission).
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    reason = why_unreachable()
    wanted = [patterns_of(files, subset) for subset in subsets] or [list(files)]
    try:
        folder = Path(
            snapshot_download(
                hub_id, repo_type="dataset", allow_patterns=list(chain(*wanted)), local_files_only=reason is not None
            )
        )
    except LocalEntryNotFoundError as error:
        raise Unreachable(reason or first_line(error)) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            raise Unreachable(first_line(error)) from error
        what = f"The Hub refuses access to {hub_id}: {words_of(error)}."
        raise BadInput(what, f"Say who you are: {GIVE_TOKEN}; or use --from PATH for a local copy.") from error
    except Exception as error:
        network = isinstance(error, (ConnectionError, TimeoutError))
        if network or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests"):
            raise Unreachable(first_line(error)) from error
        raise
    if reason and not all(map(partial(holds, folder), wanted)):
        raise Unreachable(reason)
    return folder


def is_network(error: BaseException) -> bool:
    """Whether an exception comes of the network, by the libraries that speak to the Hub."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore")


def words_of(error: BaseException) -> str:
    """The Hub's own words in an error, without a full stop."""
    from huggingface_hub.errors import HfHubHTTPError

    words = None
    if isinstance(error, HfHubHTTPError):
        words = error.response.headers.get("X-Error-Message") or error.server_message
    return " ".join((words or first_line(error)).split()).rstrip(".")


def _unreadable(hub_id: str, error: Exception) -> BadInput:
    """The error for a dataset that cannot be taken as it is: the configs or splits it has, or why it is refused."""
    import datasets

    python = "In Python, kto_cli.binarize(datasets.load_dataset({})) takes one of them."
    if "Config name is missing" in str(error):
        names = datasets.get_dataset_config_names(hub_id)
        what = f"The dataset {hub_id} has {len(names)} configs: {_some(names)}."
        return BadInput(what, python.format(f'"{hub_id}", "{names[0]}", split="train"'))
    if "Unknown split" in str(error):
        names = datasets.get_dataset_split_names(hub_id)
        what = f"The dataset {hub_id} has no split train, only {_some(names)}."
        return BadInput(what, python.format(f'"{hub_id}", split="{names[0]}"'))
    what = f"The dataset {hub_id} cannot be read: {words_of(error)}."
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return BadInput(what, f"Check its name; for a gated or private one say who you are: {GIVE_TOKEN}.")
    return BadInput(what, "Give its files instead, downloaded with `hf download --repo-type dataset`.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")


def patterns_of(files: Sequence[str], subset: str) -> list[str]:
    """Patterns of a subset's files: the subset is a folder, or a file's name without its suffix."""
    return [f"{subset}.*", f"*/{subset}.*", *(f"{above}{subset}/{file}" for above in ("", "*/") for file in files)]


def holds(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether any file below a folder matches one of the patterns."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def table_records(hub_id: str) -> tuple[list[str], Iterator[Record]]:
    """(column names, rows) of a dataset's train split; `hub_id` may be a local folder too.

    Raises:
        BadInput: no such dataset, no permission, no split `train`, or the Hub cannot be reached.
    """
    import datasets

    if not Path(hub_id).exists() and (reason := why_unreachable()):
        raise BadInput(f"{hub_id} is not a local file, and the Hub cannot be reached ({reason}).", "Give a local file.")
    try:
        data = datasets.load_dataset(hub_id, split="train")
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        raise _unreadable(hub_id, error) from error
    rows = (Record(f"{hub_id}:row {index}", row) for index, row in enumerate(data, start=1))
    return list(data.column_names or []), rows
