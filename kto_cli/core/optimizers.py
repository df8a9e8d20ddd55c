"""AdamW for bfloat16 weights: the optimizer keeps the lower 16 bits of each float32 weight as state.

A bfloat16 number has 8 significant bits: an update below 1/512 of a weight rounds to nothing, as nearly all updates do
at the learning rates of alignment (1e-6 to 1e-5). A bfloat16 number is a float32 number without its lower 16 bits, so
16 more bits per weight make it exact (Split-SGD-BF16, Kalamkar et al., arXiv 2005.04680). Kahan summation
(arXiv 2010.06192) takes the same two bytes but rounds its compensation to 8 bits: it lost 5 % of 3,000 updates of
1e-6, these 16 bits lose none. No random numbers are drawn, so a run resumes bit for bit without a generator's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

CHUNK_ELEMENTS = 1 << 18
"""Weights updated at once on a CPU: their float32 copies (4 MiB) stay in its cache."""
GPU_CHUNK_ELEMENTS = 1 << 26
"""Weights updated at once on a GPU: few large kernels, with temporaries of at most a gigabyte."""


class SplitAdamW(torch.optim.Optimizer):
    """torch's fused AdamW on float32 weights stored as two 16-bit halves.

    The upper half is the parameter (the nearest bfloat16 number), the lower half is optimizer state:

        bits(weight) = bits(parameter) * 2^16 + low_bits          low_bits in -2^15 .. 2^15 - 1

    State per parameter: `low_bits` (int16), `exp_avg` (bfloat16), `exp_avg_sq` (float32). The second moment must not
    be bfloat16: it shrinks by 1/1000 a step, less than half a unit in the last place, and so would never shrink.
    Ten bytes a parameter with the weight itself, where float32 AdamW takes twelve.
    Gradients may be bfloat16 or float32.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-5,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, which must be bfloat16."""
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.dtype != torch.bfloat16:
                raise ValueError(f"SplitAdamW is for bfloat16 parameters, not {parameter.dtype}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a `state_dict` bit for bit; the base class would cast the state to the weights' dtype."""
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                self.state[parameter][name] = value.detach().clone().to(parameter.device)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """AdamW on one parameter, chunk by chunk, so that only one chunk is copied to float32 at a time."""
        state = self.state[parameter]
        if not state:
            # On the device, as torch's fused AdamW has it: from the host each chunk's copy would wait for the device.
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["low_bits"] = torch.zeros_like(parameter, dtype=torch.int16)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        tensors = (parameter, parameter.grad, *(state[name] for name in ("low_bits", "exp_avg", "exp_avg_sq")))
        size = GPU_CHUNK_ELEMENTS if parameter.is_cuda else CHUNK_ELEMENTS
        for upper, gradient, lower, first, second in zip(*(_flat(t).split(size) for t in tensors), strict=True):
            weights, moment = join_halves(upper, lower), first.float()
            adamw(
                [weights],
                [gradient.float()],
                [moment],
                [second],
                [],
                [state["step"].clone()],
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            first.copy_(moment)
            split_halves(weights, upper, lower)
        state["step"] += 1


def join_halves(upper: Tensor, lower: Tensor) -> Tensor:
    """[elements] bfloat16 and int16 halves -> float32 weights, to which `upper` is the nearest bfloat16 number."""
    return upper.view(torch.int16).int().bitwise_left_shift_(16).add_(lower).view(torch.float32)


def split_halves(weights: Tensor, upper: Tensor, lower: Tensor) -> None:
    """Writes the halves of float32 weights into `upper` and `lower`; ties round up, so `lower` fits."""
    bits = weights.view(torch.int32)
    lower.copy_(bits)  # the lower 16 bits, read as a signed number
    upper.view(torch.int16).copy_((bits - lower).bitwise_right_shift_(16))


def _flat(tensor: Tensor) -> Tensor:
    """[elements] view without a copy; of a sharded tensor this process's part."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.view(-1)
