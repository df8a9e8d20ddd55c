"""Models found: a local folder, the built-in model, or one of the Hub, downloaded; else why there is none."""

from __future__ import annotations

from pathlib import Path

from kto_cli.common import files
from kto_cli.common.errors import BadModel, first_line
from kto_cli.data.hub import GIVE_TOKEN, is_network, why_unreachable, words_of

HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.spm", "*.py")
"""Files of a Hub model that are downloaded. Its Python code belongs to it; it is run with --trust-remote-code alone."""


def locate_model(name: str | None, *, weights: bool = True) -> tuple[str, Path]:
    """(name, folder) of a local model, the built-in tiny model (None), or a model of the Hub, downloaded.

    Args:
        weights: of a Hub model; else its other files alone are downloaded.

    Raises:
        BadModel: there is no such folder; the Hub has no such model or refuses it (its reason), or cannot be reached.
    """
    if name is None:
        return "built-in", files.sample_data() / "model"
    folder = Path(name).expanduser()
    if folder.is_dir():
        return name, folder
    if folder.is_file():
        raise BadModel(f"{name} is a file, not a model folder.", f"Give its folder: {folder.parent}")
    if "huggingface.co/" in name:
        raise BadModel(f"{name} is an address.", f"Give the model's id: {_id_in(name)}")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise BadModel(f"{name} is not a model folder.", "Give a folder with config.json and model.safetensors.")
    return name, _downloaded(name, [pattern for pattern in HUB_FILES if weights or pattern != "*.safetensors"])


def _id_in(address: str) -> str:
    """OWNER/NAME of https://huggingface.co/OWNER/NAME/tree/main."""
    return "/".join(address.partition("huggingface.co/")[2].split("/")[:2])


def _downloaded(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with files.saying_disk_full(Path(HF_HUB_CACHE)):
            return Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError as error:
        raise BadModel(f"{name} is neither a folder nor a Hub id.", "Give a model folder with --model.") from error
    except LocalEntryNotFoundError as error:  # of several causes: the Hub's refusal of a file is one
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(name, error.__cause__) from error
        raise _unreachable(name, error) from error
    except HfHubHTTPError as error:
        raise _refused(name, error) from error
    except Exception as error:
        if not is_network(error):
            raise
        raise _unreachable(name, error) from error


def _refused(name: str, error: BaseException) -> BadModel:
    """The Hub's refusal: its own words, and what helps."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    reason = words_of(error)
    if isinstance(error, GatedRepoError):
        return BadModel(
            f"The Hub has {name}, but only for those who accepted its terms: {reason}.",
            f"Accept them on https://huggingface.co/{name}, then say who you are: {GIVE_TOKEN}.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return BadModel(
            f"The Hub has no model {name}, or it is private: {reason}.",
            f"Check the spelling; for a private model say who you are: {GIVE_TOKEN}.",
        )
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return BadModel(f"The Hub refused {name}: {reason}.", f"It may need a token: {GIVE_TOKEN}.")
    return BadModel(f"The Hub did not give {name} (status {status}): {reason}.", "Try again later.")


def _unreachable(name: str, error: BaseException) -> BadModel:
    reason = why_unreachable()
    if reason is None:
        return BadModel(f"The model {name} cannot be downloaded: {first_line(error)}.", "Try again.")
    return BadModel(
        f"There is no folder {name}, and the Hub cannot be reached to look for a model of that name ({reason}).",
        "Check the path, or give a local model folder.",
    )
