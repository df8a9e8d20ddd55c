"""Checkpoints of a run: written by all processes of a launch, loaded by any number of them.

Usually one process writes a model folder and the optimizer's state. Under FSDP2 with fsdp_state_dict_type:
SHARDED_STATE_DICT (accelerate's default) every process writes its own slices (shards.py). One process, DDP
and FSDP2 can load both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_tensors
from kto_cli.model import lora
from kto_cli.model.distributed import fsdp, gathering, processes
from kto_cli.model.distributed.gathering import ReadRows
from kto_cli.model.load import load_model
from kto_cli.training.run.model_folder import ModelWriter
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.run.shards import Slice, Slices, slice_file, write_slices
from kto_cli.training.run.step_folders import StepFolders

MOMENTS = "optimizer.safetensors"
"""The optimizer's state."""
VALUE_HEAD = "value_head.safetensors"
"""Part of a checkpoint of offline PPO, and of no finished model."""
REFERENCE = "reference.safetensors"
"""The weights of a reference that moves, of what is trained; likewise."""


def save_snapshot(
    directory: RunDir,
    engine: Any,
    model: Any,
    writer: ModelWriter,
    state: dict[str, Any],
    reference: Mapping[str, Tensor],
) -> None:
    """Writes a checkpoint, completely or not at all; all processes must call.

    Args:
        reference: weights of a reference that moves; empty where it has not moved.

    Raises:
        DiskFull: no space left; earlier checkpoints are untouched. BadInput: a process cannot see the folder.
    """
    accelerator, optimizer = engine.accelerator, processes.unwrapped_optimizer(engine.optimizer)
    sharding = fsdp.sharding_asked_for(accelerator.num_processes)
    if sharding and sharding.sharded_files:
        _save_slices(directory, accelerator, model, writer, optimizer, state)
    else:
        # the main process writes everything; sharded tensors are gathered for it first
        main, head = accelerator.is_main_process, processes.unwrapped(engine.scorer).value_head
        weights = gathering.gathered_weights(model, keep=main)
        moments = gathering.gathered_moments(optimizer, keep=main)
        parts = {MOMENTS: moments, VALUE_HEAD: {} if head is None else head.state_dict(), REFERENCE: reference}
        if main:
            _save_whole(directory, model, writer, state, weights, parts)
    accelerator.wait_for_everyone()


def _save_whole(
    directory: RunDir, model: Any, writer: ModelWriter, state: dict[str, Any], weights: Any, parts: Mapping[str, Any]
) -> None:
    """The model's files and, beside them, one for each part that has tensors."""
    with directory.writing_step(state["step"], state) as (folder, _):
        writer.write(folder, model, weights)
        for name, tensors in parts.items():
            if tensors or name == MOMENTS:
                _write(tensors, folder / name)


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path)


def save_best(directory: RunDir, engine: Any, model: Any, writer: ModelWriter, state: dict[str, Any]) -> None:
    """Writes the weights of the step with the lowest validation loss, in place of the one before; all processes must
    call.

    Raises:
        DiskFull: no space left; the one before is untouched.
    """
    main = engine.accelerator.is_main_process
    weights = gathering.gathered_weights(model, keep=main)
    if main:
        with directory.best.writing(state["step"], {**state, "rows": 0, "tokens": 0}, others=0) as (folder, _):
            writer.write(folder, model, weights)
    engine.accelerator.wait_for_everyone()


def _save_slices(
    directory: RunDir, accelerator: Any, model: Any, writer: ModelWriter, optimizer: Any, state: dict[str, Any]
) -> None:
    """Each process writes its slices; the folder gets its final name when all have."""
    slices = _own_slices(model, optimizer, main=accelerator.is_main_process)
    if not accelerator.is_main_process:
        _write_own(accelerator, None, slices)
        return
    with directory.writing_step(state["step"], state) as (folder, hashes):
        writer.write_without_weights(folder, model)
        hashes |= _write_own(accelerator, folder, slices)


def _own_slices(model: Any, optimizer: Any, *, main: bool) -> dict[str, Slice]:
    """This process's rows of all sharded tensors; the main process has all others (scalars) too."""
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = {f"model.{name}": parameter.detach() for name, parameter in learned.items()}
    tensors |= {f"optimizer.{name}": value for name, value in gathering.flat_optimizer_state(optimizer).items()}
    sharded = {name: tensor for name, tensor in tensors.items() if gathering.is_dtensor(tensor)}
    slices = {name: Slice(*gathering.local_rows(tensor)) for name, tensor in sharded.items()}
    return slices | {name: Slice(tensor) for name, tensor in tensors.items() if main and name not in sharded}


def _write_own(accelerator: Any, folder: Path | None, slices: dict[str, Slice]) -> dict[str, str]:
    """Writes this process's slices to the main process's folder; returns the checksums of all processes' files.

    Raises:
        BadInput: this process does not see that folder.
    """
    from accelerate.utils import broadcast_object_list, gather_object

    (shared,) = broadcast_object_list([str(folder)])
    if not Path(shared).is_dir():
        raise BadInput(
            f"Process {accelerator.process_index} does not see {shared}, where it must write its part of a checkpoint.",
            "Put --out where all machines see it, or set fsdp_state_dict_type: FULL_STATE_DICT.",
        )
    path = slice_file(Path(shared), accelerator.process_index, accelerator.num_processes)
    return dict(gather_object([(path.name, write_slices(path, slices))]))


# --- loading --------------------------------------------------------------------------------


def latest_step(folders: StepFolders, accelerator: Any) -> tuple[Path | None, dict[str, Any], list[str]]:
    """`StepFolders.latest`, found by the main process for all of them."""
    from accelerate.utils import broadcast_object_list

    found = folders.latest() if accelerator.is_main_process else None
    return broadcast_object_list([found])[0]


def load_weights(folder: Path, model: Any, *, trust_remote_code: bool) -> None:
    """Loads the weights of a model folder that a run wrote; all processes must call.

    Raises:
        BadInput, BadModel: something in it cannot be read.
    """
    if lora.is_adapted(model):
        own, weights = lora.tensors(model), read_tensors(folder / lora.WEIGHTS, "the adapters")
    else:
        own = model.state_dict(keep_vars=True)
        weights = load_model(folder, trust_remote_code=trust_remote_code).state_dict()
    gathering.put_weights({name: own[name] for name in weights}, _rows_of(weights))


def load_snapshot(folder: Path, engine: Any, model: Any, *, trust_remote_code: bool) -> None:
    """Loads weights, the value head's if the loss has one, and optimizer state of the checkpoint in `folder`.

    Raises:
        BadInput, BadModel: something in it cannot be read.
    """
    optimizer, head = processes.unwrapped_optimizer(engine.optimizer), processes.unwrapped(engine.scorer).value_head
    if head is not None:
        head.load_state_dict(read_tensors(folder / VALUE_HEAD, "the value head"))
    slices = Slices(folder)
    if slices.names("model."):
        own = model.state_dict(keep_vars=True)
        wanted = {name: own[name] for name in slices.names("model.")}
        gathering.put_weights(wanted, lambda *rows: slices.rows(f"model.{rows[0]}", *rows[1:]))
        names = slices.names("optimizer.")
        gathering.put_moments(optimizer, names, lambda *rows: slices.rows(f"optimizer.{rows[0]}", *rows[1:]))
        return
    load_weights(folder, model, trust_remote_code=trust_remote_code)
    moments = read_tensors(folder / MOMENTS, "the optimizer's state")
    gathering.put_moments(optimizer, list(moments), _rows_of(moments))


def stored_reference(folder: Path) -> Mapping[str, Tensor]:
    """Weights of the reference in a checkpoint; empty where it had not moved.

    Raises:
        BadInput: they cannot be read.
    """
    path = folder / REFERENCE
    return read_tensors(path, "the reference's weights") if path.is_file() else {}


def refuse_slices(folder: Path) -> None:
    """A checkpoint in slices can be resumed, but is not a model to load.

    Raises:
        BadInput: the folder is one.
    """
    if Slices(folder).names("model."):
        raise BadInput(
            f"{folder} has the slices of several processes, not a model.",
            f"Finish the run (kto train --resume --out {folder.parent.parent}); the finished model can be loaded.",
        )


def _rows_of(tensors: Mapping[str, Tensor]) -> ReadRows:
    def read(name: str, start: int, stop: int) -> Tensor:
        tensor = tensors[name]
        return tensor[start:stop] if tensor.ndim else tensor

    return read
