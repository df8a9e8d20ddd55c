"""Figure 2 of the KTO paper, drawn from the functions themselves: value functions that losses imply."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kto_cli.common.files import replacing
from kto_cli.core.theory.constructions import ppo_value
from kto_cli.core.value_functions import VALUE_FUNCTIONS, kahneman_tversky

FIGURE = "value_functions.svg"
END = 4.0
"""Units of z to each side; beta is 1, as in the paper's figure."""


def _slic(z: Tensor) -> Tensor:
    return (z - 1).clamp(max=0)


CURVES: tuple[tuple[str, str, str, Callable[[Tensor], Tensor]], ...] = (
    ("Kahneman-Tversky (.88, 2.25)", "#000000", "--", lambda z: -kahneman_tversky(z)),
    ("KTO", "#0072b2", "-", lambda z: -VALUE_FUNCTIONS["logistic"](z)),
    ("DPO", "#d55e00", "-", logsigmoid),
    ("SLiC, delta 1", "#009e73", "-", _slic),
    ("PPO-Clip, A = +1", "#cc79a7", "-", ppo_value(1.0)),
    ("PPO-Clip, A = -1", "#cc79a7", ":", ppo_value(-1.0)),
)
"""Name, colour (told apart by colour-blind readers too), line and v."""


def curves() -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (z, v(z) - v(0)), as drawn."""
    z = torch.linspace(-END, END, 801, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    return {name: (z, value(z) - value(zero)) for name, _, _, value in CURVES}


def write_figure(folder: Path) -> Path:
    """Writes the figure into `folder` as SVG: value_functions.svg."""
    path = folder / FIGURE
    with replacing(path) as temporary:
        temporary.write_text(figure(), encoding="utf-8")
    return path


def figure() -> str:
    """The SVG's text, the same on every call."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kto", "font.size": 10}):
        drawn = Figure(figsize=(6.6, 4.2), layout="constrained")
        axes = drawn.add_subplot()
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.axvline(0, color="#999999", linewidth=0.8)
        for (name, (z, values)), (_, color, line, _) in zip(curves().items(), CURVES, strict=True):
            axes.plot(z.numpy(), values.numpy(), line, color=color, label=name, linewidth=1.8)
        axes.set(
            xlim=(-END, END), ylim=(-4.2, 3.2), xlabel="reward less the reference point, z", ylabel="value, v(z) - v(0)"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
        raw = io.StringIO()
        drawn.savefig(raw, format="svg", metadata={"Date": None})
    return raw.getvalue()
