"""The loss of a run from its flags: names resolved, flags that mean nothing refused. No torch: the CLI reads it."""

from __future__ import annotations

import difflib
import json
from typing import Any

from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import require
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LOSSES, POINTS, VALUES, LossKind, LossSettings, is_custom, kind_of

_FIELDS = {"value": "value", "reference_point": "point"}
"""Settings whose field of `LossSettings` has another name."""
PPO = ("ppo_gamma", "ppo_lambda", "ppo_clip", "ppo_critic", "ppo_penalty")
TEXTS = ("control_good", "control_bad")
BOUNDS = ("humanline_low", "humanline_high")
NUMBERS = ("label_smoothing", "ipo_tau", "slic_delta", "slic_lambda", "simpo_gamma", "orpo_lambda", *PPO)


def loss_kind(config: TrainConfig) -> LossKind:
    """The loss of `--loss`, after every flag was compared with it.

    Raises:
        BadFlag: no such loss, value or point; a flag that does nothing with this loss.
    """
    if not is_custom(config.loss):
        _refuse_unknown("--loss", config.loss, tuple(LOSSES))
    kind = kind_of(config.loss)
    _refuse_unknown("--value", config.value, VALUES)
    _refuse_unknown("--reference-point", config.reference_point, POINTS)
    for name in ("beta", "lambda_d", "lambda_u", *_FIELDS, *NUMBERS, *TEXTS):
        if getattr(config, name) is not None and _FIELDS.get(name, name) not in kind.settings:
            flag = "--" + name.replace("_", "-")
            raise BadFlag(f"{flag} does nothing with --loss {config.loss}.", f"Leave it out, or take {_with(name)}.")
    if config.reference == "none" and "reference" not in kind.settings:
        raise BadFlag(f"--reference none does nothing with --loss {config.loss}.", "Leave it out.")
    if config.reference == "none" and config.reference_point not in (None, "mismatched"):
        raise BadFlag(
            f"--reference none compares with mismatched completions: not with --reference-point "
            f"{config.reference_point}.",
            "Leave one of them out.",
        )
    if config.sft_weight and kind.tokens and not kind.per_token:
        raise BadFlag(
            f"--sft-weight does nothing with --loss {config.loss}, which is that term alone.", "Leave it out."
        )
    _refuse_idle_reference(config, kind)
    if kind.control:
        _refuse_equal_texts(config)
    for flag, fits in (("--dtype", config.dtype != "bfloat16-pure"), ("--optimizer", "8bit" not in config.optimizer)):
        if kind.per_token and not fits:
            raise BadFlag(
                f"{flag} {getattr(config, flag[2:])} is not for --loss {config.loss}, whose value head learns in "
                "float32.",
                "Leave it out.",
            )
    if kind.unit == "pair" and config.batch_size < 2:
        raise BadFlag(f"--batch-size 1 has no room for a pair, the unit of --loss {config.loss}.", "Take 2 or more.")
    return kind


def _refuse_idle_reference(config: TrainConfig, kind: LossKind) -> None:
    """Refuses a reference that moves, or bounds around it, where the loss reads none."""
    none = config.reference == "none"
    words = f"--loss {config.loss}{' --reference none' * none}"
    if config.humanline and (none or not kind.clamps):
        if is_custom(config.loss):
            why = "may read other numbers than log-ratios"
        else:
            why = "clips ratios itself" if kind.per_token else "reads no log-ratios"
        raise BadFlag(f"--humanline does nothing with {words}, which {why}.", "Leave it out.")
    if config.humanline and config.sft_weight:
        raise BadFlag("--sft-weight reads log-probs, which --humanline bounds.", "Leave one of them out.")
    if config.sync_reference_every is not None and (none or not kind.reference):
        raise BadFlag(f"--sync-reference-every does nothing with {words}, which reads no reference.", "Leave it out.")


def loss_settings(config: TrainConfig, *, lambda_d: float, lambda_u: float) -> LossSettings:
    """The numbers of the loss, defaults filled in."""
    kind = loss_kind(config)
    names = (*NUMBERS, *TEXTS, *BOUNDS)
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return LossSettings(
        beta=config.beta or (1.0 if config.reference == "none" else kind.beta) or 1.0,
        lambda_d=lambda_d,
        lambda_u=lambda_u,
        loss=config.loss,
        value=config.value or kind.value,
        point=config.reference_point or kind.point,
        reference=config.reference != "none",
        sft_weight=config.sft_weight,
        humanline=config.humanline,
        **given,
    )


def setting_in_force(config: TrainConfig, name: str) -> Any:
    """A setting of the config; of the loss's own settings that are not given, its default; None for no arguments."""
    value = None if getattr(config, name) == {} else getattr(config, name)
    if value is not None or name not in ("beta", *_FIELDS, *NUMBERS, *TEXTS, *BOUNDS):
        return value
    kind = kind_of(config.loss)
    defaults = {**LossSettings._field_defaults, "beta": kind.beta, "value": kind.value, "point": kind.point}
    return defaults[_FIELDS.get(name, name)]


def loss_words(settings: LossSettings) -> str:
    """Name and settings of a loss, as `dpo (beta 0.1)`."""
    kind = settings.kind
    parts = [f"value {settings.value}", f"reference point {settings.point}"] if kind.is_unpaired else []
    parts += [
        f"{name.replace('_', ' ')} {getattr(settings, name):g}"
        for name in ("beta", *NUMBERS)
        if name in kind.settings and (getattr(settings, name) or name != "label_smoothing")
    ]
    parts += [f"texts {_quoted(settings.control_good)} and {_quoted(settings.control_bad)}"] if kind.control else []
    parts += [f"humanline {settings.humanline_low:g} to {settings.humanline_high:g}"] if settings.humanline else []
    parts += [] if settings.reference else ["no reference"]
    parts += [f"sft weight {settings.sft_weight:g}"] if settings.sft_weight else []
    return f"{settings.loss} ({', '.join(parts)})" if parts else settings.loss


def control_texts(config: TrainConfig) -> tuple[str, str] | None:
    """Texts at the end of the prompts of desirable and of undesirable rows, where the loss asks for some."""
    return loss_settings(config, lambda_d=1.0, lambda_u=1.0).control


def _refuse_equal_texts(config: TrainConfig) -> None:
    good, bad = (setting_in_force(config, name) for name in TEXTS)
    for name, text in zip(TEXTS, (good, bad), strict=True):
        require(bool(text), "--" + name.replace("_", "-"), "''", "a text that says the class, such as ' Good:'")
    if good == bad:
        raise BadFlag(
            f"--control-good and --control-bad are both {_quoted(good)}: they say nothing of a row's class.",
            "Give two different texts.",
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _refuse_unknown(flag: str, value: Any, known: tuple[str, ...]) -> None:
    if value is None or value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Take one of {', '.join(known)}."
    raise BadFlag(f"{flag} {value} is not known.", hint)


def _with(name: str) -> str:
    """The losses that take a setting."""
    found = [loss for loss, kind in LOSSES.items() if _FIELDS.get(name, name) in kind.settings]
    return f"--loss {found[0]}" if len(found) == 1 else f"one of --loss {', '.join(found)}"
