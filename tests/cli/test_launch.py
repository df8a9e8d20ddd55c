"""What a launcher may and may not decide."""

from __future__ import annotations

import pytest

from kto_cli.cli import launch
from kto_cli.cli.launch import number_asked_for
from kto_cli.common.errors import BadInput


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
    assert number_asked_for(command.split(), "num_processes") == count


def test_processes_asked_for_in_a_config_file(tmp_path):
    """The command line wins over the file that it names."""
    (tmp_path / "cpu.yaml").write_text("distributed_type: MULTI_CPU\nnum_machines: 1\nnum_processes: 2\n")
    command = f"python accelerate launch --config_file {tmp_path / 'cpu.yaml'}".split()
    assert number_asked_for([*command, "-m", "kto_cli", "train"], "num_processes") == 2
    assert number_asked_for([*command, "--num_processes", "3", "-m", "kto_cli", "train"], "num_processes") == 3


def test_machines_without_gpus_are_not_left_alone(monkeypatch):
    """accelerate would start one process on each machine, and each would train on its own."""
    monkeypatch.setattr(launch, "_parent_command", lambda: ["accelerate", "launch", "--num_machines", "2", "kto_cli"])
    monkeypatch.setattr(launch, "_has_gpu", lambda: False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(BadInput, match="torchrun"):
        launch.start_missing_processes()


def test_a_launcher_decides_neither_precision_nor_accumulation(monkeypatch):
    """`accelerate config` may say bf16 and 4 accumulation steps: the loss would be divided by 4 a second time, and the
    policy would not be the reference at step 0."""
    from accelerate.state import AcceleratorState, GradientState

    from kto_cli.model.distributed.start import start_accelerator

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    accelerator = start_accelerator()
    assert accelerator.mixed_precision == "no"
    assert accelerator.gradient_accumulation_steps == 1
