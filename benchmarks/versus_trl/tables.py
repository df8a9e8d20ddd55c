"""What train_vs_trl.py shows people."""

from __future__ import annotations

from typing import Any

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bfloat16 FLOPs a second on the data sheets."""
SENTENCES = {
    "online_ratio": "times TRL's rows/s, TRL running its reference in every step",
    "precomputed_ratio": "times TRL's rows/s, TRL's reference precomputed",
    "one_epoch_ratio": "times TRL's online rows/s, kto's precompute of every row counted in",
    "default_ratio": "times TRL's rows/s with its defaults (online, gradient checkpointing)",
    "precompute_ratio": "times TRL's rows/s in the reference pass alone",
    "floor_ratio": "times the floor",
    "memory_ratio": "times less peak memory above the loaded model than TRL online",
    "working_memory_ratio": "the same, gradients and AdamW's moments taken off both",
    "bfloat16_ratio": "times kto's float32 speed, in bfloat16",
}


def show(name: str, result: dict[str, Any]) -> None:
    """One model's table."""
    from rich.console import Console
    from rich.table import Table

    size = f"{result['parameters'] / 1e6:,.1f}M parameters, vocabulary {result['shape']['vocabulary']:,}"
    table = Table(title=f"{name}: {size}, head {result['head_share_of_flops']:.0%} of the floor's FLOPs")
    for column in ("", "seconds", "rows/s", "tokens/s", "GFLOP/row", "peak MiB", "working MiB"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for way, numbers in result["ways"].items():
        table.add_row(
            way,
            f"{numbers['seconds']:.2f}",
            f"{numbers['rows_per_second']:,.2f}",
            f"{numbers['tokens_per_second']:,.0f}",
            f"{numbers['flops_per_row'] / 1e9:,.1f}" if "flops_per_row" in numbers else "",
            *(f"{numbers[n] / 2**20:,.0f}" if n in numbers else "" for n in ("peak_bytes", "working_bytes")),
        )
    floor = result["floor"]
    if "seconds" in floor:
        gemm = f" ({floor['flops_per_second'] / 1e9:,.0f} GFLOP/s)"
        table.add_row(f"floor{gemm}", f"{floor['seconds']:.2f}", "", "", f"{floor['flops_per_row'] / 1e9:,.1f}")
    Console(width=120).print(table)


def show_ratios(outcome: dict[str, Any]) -> None:
    """The ratios in words, and what they depend on."""
    for name, sentence in SENTENCES.items():
        if outcome[name] is not None:
            print(f"{outcome[name]:8.2f} {sentence}")
    machine = outcome["machine"]
    if machine["trl"] is None:
        print("TRL was left out.")
    for name, case in outcome["cases"].items():
        found = utilization(machine["device"], case)
        if found is not None:
            print(f"{found:8.1%} of the GPU's peak: kto step, {name} (the floor's FLOPs only)")
    print(
        f"{machine['device']}, {machine['processors']} processors, torch {machine['torch']}; rows of {machine['rows']}"
    )


def utilization(device: str, case: dict[str, Any]) -> float | None:
    """MFU of kto's step: the floor's FLOPs a second over the data sheet's; None where the device is unknown."""
    peak = next((value for name, value in PEAKS.items() if name in device), None)
    numbers = case["ways"]["kto step"]
    return peak and case["floor"]["flops_per_row"] * numbers["rows_per_second"] / peak
