"""An export uploaded to the Hugging Face Hub, through huggingface_hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, first_line
from kto_cli.data.hub import GIVE_TOKEN, is_network, why_unreachable, words_of
from kto_cli.evaluation.export.folder import MARK

BARE = (".gitattributes", "README.md")
"""Files of a repository that nothing was uploaded to."""


def open_hub(hub_id: str) -> Any:
    """The Hub's interface, after checks that need no upload.

    Raises:
        BadInput: the Hub cannot be reached, there is no token, or the repository holds anything but an earlier export.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if reason := why_unreachable():
        raise BadInput(f"{hub_id} cannot be uploaded: {reason}.", "Export to a folder, or try again online.")
    if get_token() is None:
        raise BadInput(f"{hub_id} cannot be uploaded: the Hub does not know who you are.", f"Say it: {GIVE_TOKEN}.")
    api = HfApi()
    try:
        with _refusals(hub_id):
            held = api.list_repo_files(hub_id)
    except RepositoryNotFoundError:
        return api
    if MARK not in held and any(name not in BARE for name in held):
        raise BadInput(f"{hub_id} is there already, and not an earlier export.", "Give another name.")
    return api


def upload(api: Any, hub_id: str, folder: Path, *, public: bool) -> str:
    """Creates the repository, private unless asked otherwise, and uploads a folder in one commit; returns its URL.

    Files of an earlier export that this one lacks are removed.

    Raises:
        BadInput: the Hub refuses.
    """
    with _refusals(hub_id):
        url = api.create_repo(hub_id, private=not public, exist_ok=True)
        api.upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Exported by kto", delete_patterns=["*"])
    return str(url)


@contextmanager
def _refusals(hub_id: str) -> Iterator[None]:
    """Context manager that turns what the Hub refuses, and a network that fails, into one line each.

    Raises:
        BadInput: with the Hub's own words. RepositoryNotFoundError: as it is.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError:
        raise
    except HFValidationError as error:
        raise BadInput(f"{hub_id} is no name of the Hub: {first_line(error)}.", "Give another name.") from error
    except HfHubHTTPError as error:
        step = f"May this token write there? {GIVE_TOKEN}."
        raise BadInput(f"The Hub refused {hub_id}: {words_of(error)}.", step) from error
    except Exception as error:
        if not is_network(error):
            raise
        raise BadInput(f"{hub_id} cannot be uploaded: {first_line(error)}.", "Run the same command again.") from error
