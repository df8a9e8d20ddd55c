"""DeepSpeed ZeRO-3: weights, gradients and moments sharded by DeepSpeed's own engine.

kto drives it directly, not through accelerate, which needs GPUs for it, steps inside `backward` and knows the
gradient's norm only after the update. From the accelerate config only `zero_stage: 3` is followed; what would change
numbers or was not tested is refused. Checkpoints are gathered, so they equal those of any other launch. The reference
pass runs before the model is sharded: each device must have room for the full model (FSDP2 does not need that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kto_cli.common.errors import BadInput
from kto_cli.common.screen import stdout_kept_free


def asked_for(environment: Mapping[str, str]) -> bool:
    """Whether the launch uses DeepSpeed."""
    return environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def refuse_untested(environment: Mapping[str, str]) -> None:
    """All of DeepSpeed but plain ZeRO-3 is refused.

    Raises:
        BadInput: names the setting, or that DeepSpeed is missing.
    """
    if not asked_for(environment):
        return
    prefix = "ACCELERATE_DEEPSPEED_"
    if environment.get(prefix + "CONFIG_FILE", "none").lower() != "none":
        raise BadInput(
            "The accelerate config names a deepspeed_config_file, which kto does not read.",
            "Set zero_stage: 3 in deepspeed_config instead.",
        )
    if environment.get(prefix + "ZERO_STAGE", "") != "3":
        raise BadInput(
            "The accelerate config asks for DeepSpeed without zero_stage: 3; kto has not been tested with it.",
            "Set zero_stage: 3, or launch with FSDP (fsdp_version: 2) or with neither (DDP).",
        )
    for name in ("OFFLOAD_OPTIMIZER_DEVICE", "OFFLOAD_PARAM_DEVICE"):
        if environment.get(prefix + name, "none").lower() != "none":
            raise BadInput(
                f"The accelerate config sets {name.lower()}, which kto has not been tested with.", "Set it to none."
            )
    try:
        with stdout_kept_free():
            import deepspeed  # noqa: F401
    except ImportError:
        raise BadInput(
            "The accelerate config asks for DeepSpeed, which is not installed.", "pip install deepspeed"
        ) from None


class ZeroOptimizer:
    """The optimizer of a DeepSpeed engine, with the interface of a torch optimizer."""

    def __init__(self, engine: Any, parameters: list[nn.Parameter]) -> None:
        self.engine = engine
        self.parameters = parameters
        """Those that learn, in the order of the optimizer given to DeepSpeed."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Where the learning rate is set."""
        return self.engine.optimizer.param_groups

    def step(self) -> None:
        """Clips to the limit given to `clip`, updates, and drops the gradient."""
        self.engine.step()

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Drops the gradient."""
        self.engine.optimizer.zero_grad(set_to_none=set_to_none)

    def clip(self, limit: float) -> float:
        """The gradient's norm over all processes; the coming step clips it to `limit`."""
        stage3 = self.engine.optimizer
        stage3.clip_grad = 0.0 if limit == float("inf") else limit
        norms = torch.stack([torch.as_tensor(norm, dtype=torch.float64) for norm in stage3._get_norm_groups()])
        # DeepSpeed gives -1 for a norm that is not finite.
        return float("nan") if bool((norms < 0).any()) else float(norms.norm())

    def make_moments(self) -> None:
        """Adam's state, all zero, where DeepSpeed leaves it to the first step."""
        inner = self.engine.optimizer.optimizer
        for flat in self.engine.optimizer.fp32_partitioned_groups_flat:
            if not inner.state[flat]:
                counter = torch.zeros((), device=flat.device if inner.defaults.get("fused") else "cpu")
                moments = {name: torch.zeros_like(flat) for name in ("exp_avg", "exp_avg_sq")}
                inner.state[flat] = {"step": counter, **moments}

    def steps_taken(self) -> list[Tensor]:
        """Adam's own counters, one for each flat group of DeepSpeed's."""
        return [state["step"] for state in self.engine.optimizer.optimizer.state.values() if "step" in state]


def shard(scorer: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, ZeroOptimizer]:
    """Hands a scorer and its fresh optimizer to DeepSpeed."""
    import deepspeed

    deepspeed.utils.logger.setLevel("ERROR")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # DeepSpeed makes the moments with a trial step, which must change nothing ...
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": 3},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 40,
    }
    with stdout_kept_free():
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), auto_mpi_discovery=False)
        engine, *_ = deepspeed.initialize(model=scorer, optimizer=optimizer, config=config)
    wrapped = ZeroOptimizer(engine, parameters)
    for counter in wrapped.steps_taken():
        counter.zero_()  # ... and must not count
    return engine, wrapped


def backward(engine: Any, loss: Tensor, *, last: bool) -> None:
    """Adds to the gradient; it is complete after the `last` micro-batch."""
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss)


def is_engine(scorer: Any) -> bool:
    """Whether the scorer is a DeepSpeed engine."""
    return hasattr(scorer, "set_gradient_accumulation_boundary")


def is_partitioned(tensor: Any) -> bool:
    """Whether DeepSpeed shards the tensor."""
    return hasattr(tensor, "ds_id")


# --- state -----------------------------------------------------------------------------------


def full(parameter: Any) -> Tensor:
    """A sharded parameter gathered; all processes must call."""
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(parameter).detach().clone()


def gathered_moments(optimizer: ZeroOptimizer) -> dict[str, Tensor]:
    """Adam's state as one process would hold it: "3.exp_avg" is parameter 3's first moment; all must call."""
    from deepspeed.utils import safe_get_full_optimizer_state

    found: dict[str, Tensor] = {}
    step = optimizer.steps_taken()[0].detach().cpu()
    for index, parameter in enumerate(optimizer.parameters):
        found[f"{index}.step"] = step.clone()
        for name in ("exp_avg", "exp_avg_sq"):
            found[f"{index}.{name}"] = safe_get_full_optimizer_state(parameter, name).detach().cpu().clone()
    return found


def put_weights(parameters: Mapping[str, Any], read: Callable[[str], Tensor]) -> None:
    """Fills sharded parameters, and the copies that the optimizer updates; all must call."""
    import deepspeed
    from deepspeed.utils import safe_set_full_fp32_param

    for name, parameter in parameters.items():
        value = read(name)
        with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0), torch.no_grad():
            parameter.copy_(value)
        safe_set_full_fp32_param(parameter, value)


def put_moments(optimizer: ZeroOptimizer, read: Callable[[str], Tensor]) -> None:
    """Restores what `gathered_moments` returned; all must call."""
    from deepspeed.utils import safe_set_full_optimizer_state

    optimizer.make_moments()
    for index, parameter in enumerate(optimizer.parameters):
        for name in ("exp_avg", "exp_avg_sq"):
            safe_set_full_optimizer_state(parameter, read(f"{index}.{name}"), name)
    for counter in optimizer.steps_taken():
        counter.copy_(read("0.step"))
