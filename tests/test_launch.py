"""What a launcher may and may not decide."""

from __future__ import annotations

import pytest

from kto_cli.launch import processes_asked_for


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("python accelerate launch --num_processes 2 -m kto_cli train", 2),
        ("python accelerate launch --num_processes=3 -m kto_cli train", 3),
        ("python accelerate launch --num-processes 4 -m kto_cli train", 4),
        ("python accelerate launch -m kto_cli train --num_processes 2", 1),
        ("python accelerate launch --num_processes -m kto_cli train", 1),
        ("bash", 1),
    ],
)
def test_processes_asked_for(command, count):
    """Only what stands before the module is accelerate's."""
    assert processes_asked_for(command.split()) == count


def test_a_launcher_decides_neither_precision_nor_accumulation(monkeypatch):
    """`accelerate config` may say bf16 and 4 accumulation steps: the loss would be divided by 4 a second time, and the
    policy would not be the reference at step 0."""
    from accelerate.state import AcceleratorState, GradientState

    from kto_cli.preparation import start_accelerator

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    accelerator = start_accelerator()
    assert accelerator.mixed_precision == "no"
    assert accelerator.gradient_accumulation_steps == 1
