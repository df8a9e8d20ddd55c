"""Launches of several processes: which are accepted, and how the model is sharded (gathering.py gathers it).

DDP         every process holds the full model; accelerate wraps it
FSDP2       every process holds a slice of every weight, gradient and moment (fsdp.py)
ZeRO-3      the same by DeepSpeed (zero.py)
others      refused: not tested
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kto_cli.common.errors import BadInput, BadModel
from kto_cli.common.model_config import AUTO_TOKENS
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.distributed import zero
from kto_cli.model.distributed.fsdp import shard, sharding_asked_for
from kto_cli.model.distributed.gathering import full, is_dtensor


def refuse_untested(environment: Mapping[str, str]) -> None:
    """Launch settings that kto has not been tested with are refused.

    Raises:
        BadInput: names the setting and what to use in its place.
    """

    def on(name: str) -> bool:
        return environment.get(name, "false").lower() in ("1", "true", "yes")

    instead = "Use FSDP, which shards the same tensors: distributed_type: FSDP with fsdp_version: 2."
    for name, what in (
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "a parallelism_config (tensor, context or sequence parallel)"),
    ):
        if on(name):
            raise BadInput(f"The accelerate config asks for {what}, which kto has not been tested with.", instead)
    zero.refuse_untested(environment)
    if not on("ACCELERATE_USE_FSDP"):
        return
    if environment.get("FSDP_VERSION", "1") != "2":
        raise BadInput("The accelerate config asks for FSDP version 1.", "Set fsdp_version: 2 in its fsdp_config.")
    for name, key in (
        ("FSDP_ACTIVATION_CHECKPOINTING", "fsdp_activation_checkpointing"),
        ("FSDP_OFFLOAD_PARAMS", "fsdp_offload_params"),
        ("FSDP_IGNORED_MODULES", "fsdp_ignored_modules"),
    ):
        if environment.get(name, "false").lower() not in ("false", "none", ""):
            hint = "; kto's own is --gradient-checkpointing on." if "checkpointing" in key else "."
            raise BadInput(f"The accelerate config sets {key}, which kto does not follow.", f"Remove it there{hint}")
    if environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in ("true", "full_shard", "1"):
        raise BadInput(
            "The accelerate config sets fsdp_reshard_after_forward: false, which keeps full weights between passes.",
            "Set it to true, or launch without FSDP.",
        )


def unwrapped(wrapped: Any) -> Any:
    """The model inside DDP's or DeepSpeed's wrapper; itself without one."""
    return getattr(wrapped, "module", wrapped)


def unwrapped_optimizer(wrapped: Any) -> Any:
    """The torch optimizer inside accelerate's wrapper; itself without one."""
    return getattr(wrapped, "optimizer", wrapped)


@contextlib.contextmanager
def joined_as_ddp() -> Iterator[None]:
    """accelerate joins the processes and leaves the sharding to kto, in the same way on GPUs and on CPUs.

    Every process loads the full model: else all but the first would leave their weights unset until a broadcast, which
    accelerate does and kto does not.
    """
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    try:
        yield
    finally:
        os.environ.update(hidden)


def launch_kind(processes: int) -> str:
    """The kind of launch in a word, for kto_config.json."""
    if processes == 1:
        return "one process"
    if zero.asked_for(os.environ):
        return "ZeRO-3"
    return "FSDP2" if sharding_asked_for(processes) else "DDP"


def shards(processes: int) -> int:
    """Processes over which the model is sharded; 1 where each holds all of it."""
    return processes if launch_kind(processes) in ("FSDP2", "ZeRO-3") else 1


# --- wrapping --------------------------------------------------------------------------------


def to_devices(scorer: nn.Module, accelerator: Any) -> Any:
    """The scorer on its devices: full on this process's, or sharded over those of all processes."""
    sharding = sharding_asked_for(accelerator.num_processes)
    if sharding is None:
        return scorer.to(accelerator.device)
    return shard(scorer, sharding)


def is_sharded(scorer: Any) -> bool:
    """Whether FSDP2 or DeepSpeed shards the model: every process then takes part in every forward pass."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(scorer, FSDPModule) or zero.is_engine(scorer)


def wrap(accelerator: Any, scorer: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """The scorer and the optimizer wrapped for training; a scorer sharded by FSDP2 needs no wrapper.

    Raises:
        BadModel: DeepSpeed cannot shard it.
    """
    if accelerator.num_processes > 1 and zero.asked_for(os.environ):
        engine, wrapped = zero.shard(scorer, optimizer)
        refuse_uneven_rounds(engine)
        return engine, wrapped
    if not is_sharded(scorer):
        return accelerator.prepare(scorer, optimizer)
    assert all(is_dtensor(parameter) for group in optimizer.param_groups for parameter in group["params"])
    return scorer, optimizer


def refuse_uneven_rounds(scorer: Any) -> None:
    """A sharded model takes part in every forward pass of every process, so all must run equally many.

    Raises:
        BadModel: the model is read one sequence at a time.
    """
    if is_sharded(scorer) and unwrapped(scorer).plain:
        raise BadModel(
            "This model's head is not one kto can read directly, and such a model cannot be sharded.",
            "Launch without FSDP or DeepSpeed: every process then holds the full model.",
        )


def backward(accelerator: Any, scorer: Any, loss: Tensor, *, last: bool) -> None:
    """Adds to the gradient; it is complete after the `last` micro-batch."""
    if zero.is_engine(scorer):
        zero.backward(scorer, loss, last=last)
    else:
        accelerator.backward(loss)


def clip(accelerator: Any, scorer: Any, optimizer: Any, limit: float) -> float:
    """Clips the gradient to `limit` and returns its norm before that, over all processes."""
    if isinstance(optimizer, zero.ZeroOptimizer):
        return optimizer.clip(limit)
    parameters = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    return float(full(accelerator.clip_grad_norm_(parameters, limit)))


def refuse_untested_combinations(processes: int, config: TrainConfig) -> None:
    """Combinations of options that were not tested on several processes are refused.

    Raises:
        BadInput: names it.
    """
    if processes == 1:
        return
    if config.dtype == "bfloat16-pure":
        raise BadInput("--dtype bfloat16-pure is for one process so far.", "Use --dtype bfloat16.")
    if launch_kind(processes) == "DDP":
        return
    for flag, given in (
        ("--merge", config.merge),
        ("--compile", config.compile),
        ("--load-in-4bit", config.load_in_4bit),
        ("--loss ppo-offline", config.loss == "ppo-offline"),
        ("--humanline", config.humanline),
        ("--sync-reference-every", config.sync_reference_every is not None),
        (f"--optimizer {config.optimizer}", config.optimizer != "adamw"),
        ("--micro-batch-tokens auto", config.micro_batch_tokens == AUTO_TOKENS),
    ):
        if given:
            raise BadInput(f"{flag} needs the full model in every process.", "Remove it, or launch with DDP.")
    if config.adapters and zero.asked_for(os.environ):
        raise BadInput("Adapters have not been tested with DeepSpeed ZeRO-3.", "Use FSDP2 or DDP.")
    if config.reference_model is not None and zero.asked_for(os.environ):
        raise BadInput("--reference has not been tested with DeepSpeed ZeRO-3.", "Use FSDP2 or DDP.")


def refuse_different_inputs(accelerator: Any, facts: Mapping[str, Any]) -> None:
    """All processes must see the same data, model and run: on several machines each reads its own disk.

    Raises:
        BadInput: names what differs.
    """
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    everyone = gather_object([dict(facts)])
    differing = [name for name in facts if any(other[name] != everyone[0][name] for other in everyone)]
    if differing:
        raise BadInput(
            f"The processes of this launch do not see the same {', '.join(differing)}.",
            "On several machines, --data, --model and --out must be folders with the same contents on all.",
        )
