"""The table of docs/losses.md, from the code."""

from __future__ import annotations

from kto_cli.core.loss_kinds import LOSSES, LossKind, LossSettings

DEFAULTS = LossSettings._field_defaults


def table() -> str:
    """Markdown."""
    lines = [
        "| `--loss` | loss of a unit | unit | settings (default) | rate | source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(cells(name, kind))} |" for name, kind in LOSSES.items()]
    return "\n".join(lines)


def cells(name: str, kind: LossKind) -> list[str]:
    """One line's."""
    unit = "desirable row" if kind.classes == "desirable" else kind.unit
    formula = kind.formula.replace("|", r"\lvert ")
    return [f"`{name}`", f"${formula}$", unit, ", ".join(settings(kind)) or "-", f"{kind.rate:g}", kind.source]


def settings(kind: LossKind) -> list[str]:
    """Flags and their defaults."""
    flags = {"point": "--reference-point"}
    found = []
    for name in kind.settings:
        if name == "reference":
            continue
        own = {"beta": kind.beta, "value": kind.value, "point": kind.point}
        default = own.get(name, DEFAULTS.get(name))
        if name.startswith("lambda"):
            default = "by class counts" if kind.weighted else 1
        if name.startswith("control"):
            default = f"`{default}`".replace("|", r"\|")
        found.append(f"`{flags.get(name, '--' + name.replace('_', '-'))}` ({default})")
    return found
