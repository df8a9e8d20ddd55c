"""Public functions of the package: `binarize`, `train` and `evaluate`, for Python code and for the command line.

Each takes the settings of its command as keywords, named as the flags are (`--learning-rate` is `learning_rate`). Runs
are resumed and evaluated from files, so objects in memory are first written below the cache folder, under a hash of
their contents.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.cache import default_cache
from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.files import file_sha256, files_below, make_folder, saying_disk_full, text_hash
from kto_cli.common.screen import Screen
from kto_cli.data.dataset import MANIFEST

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Feedback: TypeAlias = str | Path | Dataset
    Model: TypeAlias = str | Path | PreTrainedModel

DATASET = "dataset.parquet"

Result: TypeAlias = dict[str, Any]
Record: TypeAlias = Mapping[str, Any]


def binarize(
    sources: Feedback | Sequence[Feedback],
    *,
    out: str | Path | None = None,
    screen: Screen | None = None,
    **settings: Any,
) -> Result:
    """Feedback becomes desirable and undesirable rows in a data folder, as `kto binarize` does it.

    Args:
        sources: files, names of formats, NAME:PATH, Hub ids, or a `datasets.Dataset` with the columns of any of them
            (prompt, completion and label; or chosen and rejected); one or several.
        out: the data folder; by default data/NAME below the working directory.
        settings: as in `kto binarize --help`, for instance validation=0.1, desirable="stars >= 4".

    Returns:
        The object that `kto binarize --json` prints: among others `out`, the counts `desirable`, `undesirable`,
        `validation`, `dropped` and `rejected`, and `findings`.

    Raises:
        KtoError: a source, a setting or the output folder cannot be used; what is left cannot be learned from.
    """
    from kto_cli.workflows import binarize as workflow

    given = [sources] if isinstance(sources, (str, Path)) or _is_dataset(sources) else list(sources)
    if out is None and any(map(_is_dataset, given)):
        raise BadInput("A dataset in memory has no name for its data folder.", "Give one with out=.")
    paths = tuple(str(_dataset_file(one) if _is_dataset(one) else one) for one in given)
    config = BinarizeConfig(sources=paths, out=None if out is None else str(out), **settings)
    return workflow.run(config, screen or Screen())


def train(
    data: Feedback | None = None,
    model: Model | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config_file: str | Path | None = None,
    resume: bool = False,
    on_record: Callable[[Record], None] | None = None,
    screen: Screen | None = None,
    **settings: Any,
) -> Result:
    """A model is aligned with the KTO loss, as `kto train` does it.

    Args:
        data: a data folder, or a `datasets.Dataset` to binarize first; by default the only folder in data/.
        model: a Hugging Face model folder or Hub id, or a loaded model (then with its `tokenizer`), which is copied and
            stays as it is; or the folder of an adapter. It is where the policy starts, and unless reference="..." names
            another model, the reference.
        config_file: YAML or JSON with settings, which keywords override.
        resume: continue the unfinished run in `out`.
        on_record: called after each step with what is appended to metrics.jsonl (in the main process).
        settings: as in `kto train --help`, for instance out="aligned", beta=0.1, lora_r=16.

    Returns:
        The object that `kto train --json` prints: `checkpoint`, `steps`, `rows`, `validation`, `verdict`, `sentence`,
        `warnings`.

    Raises:
        KtoError: a setting, the data or the model cannot be used, or a number is not finite. Interrupted: Ctrl-C.
    """
    from kto_cli.workflows import train as workflow

    screen = screen or Screen()
    if data is not None:
        settings["data"] = str(_dataset_folder(data, screen) if _is_dataset(data) else data)
    if model is not None:
        settings["model"] = _model_folder(model, tokenizer)
    file = None if config_file is None else str(config_file)
    return workflow.run(settings, config_file=file, resume=resume, screen=screen, on_record=on_record)


def evaluate(
    checkpoint: Model | Sequence[Model] = "checkpoint",
    *,
    data: Feedback | None = None,
    reference: Model | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    screen: Screen | None = None,
    **settings: Any,
) -> Result:
    """A checkpoint is compared with its reference on validation rows, as `kto eval` does it; several with each other.

    Args:
        checkpoint: a run directory, a step of one, a model folder, a Hub id, or a loaded model (then with its
            `tokenizer`); several are compared on the same rows.
        data: a data folder, or a `datasets.Dataset` to binarize first; by default the run's own.
        reference: likewise a model; by default the run's own.
        settings: as in `kto eval --help`, for instance samples=16, report_only=True.

    Returns:
        The object that `kto eval --json` prints: of one checkpoint its metrics, `verdict`, `warnings`,
        `samples` and `report`; of several `checkpoints` and `comparisons`.

    Raises:
        KtoError: a checkpoint, the data or a setting cannot be used.
    """
    from kto_cli.workflows import compare
    from kto_cli.workflows import evaluate as workflow

    given = list(checkpoint) if isinstance(checkpoint, Sequence) and not isinstance(checkpoint, str) else [checkpoint]
    screen = screen or Screen()
    folder = None if data is None else str(_dataset_folder(data, screen) if _is_dataset(data) else data)
    model = None if reference is None else _model_folder(reference, tokenizer)
    configs = [
        EvalConfig(checkpoint=_model_folder(one, tokenizer), data=folder, model=model, **settings) for one in given
    ]
    if configs[0].report_only:
        reports = [workflow.report_only(config, screen) for config in configs]
        return reports[0] if len(reports) == 1 else {"checkpoints": reports}
    return workflow.run(configs[0], screen) if len(configs) == 1 else compare.run(configs, screen)


# --- objects in memory as files ----------------------------------------------------------------


def _is_dataset(value: Any) -> bool:
    """Whether the value is a `datasets.Dataset`, without importing `datasets`.

    Raises:
        BadInput: it is a `DatasetDict`.
    """
    if isinstance(value, Mapping):
        splits = ", ".join(map(str, value))
        raise BadInput(f"A dataset with several splits ({splits}) is not taken.", 'Give one, as in dataset["train"].')
    return hasattr(value, "to_parquet")


def _dataset_file(dataset: Any) -> Path:
    """A Parquet copy of a dataset."""
    return _stored("datasets", lambda folder: dataset.to_parquet(str(folder / DATASET))) / DATASET


def _dataset_folder(dataset: Any, screen: Screen) -> Path:
    """A data folder of a dataset, binarized with the default settings unless it is there already."""
    file = _dataset_file(dataset)
    folder = file.with_name("data")
    if not (folder / MANIFEST).is_file():
        binarize(file, out=folder, screen=screen)
    return folder


def _model_folder(model: Any, tokenizer: Any) -> str:
    """A model's name or folder; of a loaded model the folder of a copy."""
    if isinstance(model, (str, Path)):
        return str(model)
    if tokenizer is None:
        raise BadInput("A loaded model needs its tokenizer.", "Give it with tokenizer=.")

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return str(_stored("models", write))


def _stored(kind: str, write: Callable[[Path], Any]) -> Path:
    """A folder below the cache that `write` fills, named by the hash of its files."""
    parent = default_cache() / kind
    make_folder(parent)
    with saying_disk_full(parent), tempfile.TemporaryDirectory(dir=parent) as temporary:
        filled = Path(temporary, "files")
        filled.mkdir()
        write(filled)
        folder = parent / text_hash(*(f"{name} {file_sha256(path)}" for name, path in files_below(filled).items()))
        if not folder.exists():
            os.replace(filled, folder)
    return folder
