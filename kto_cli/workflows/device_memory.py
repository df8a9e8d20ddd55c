"""`kto train --dry-run --device-memory GB`: whether a run fits such a card, from the model's config alone.

No weight and no row is read, so it also answers for a model that does not fit here, or was not downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import readable
from kto_cli.model import lora
from kto_cli.model.folder import read_config
from kto_cli.model.lengths import greatest_length
from kto_cli.model.load import model_of_shapes
from kto_cli.model.locate import locate_model
from kto_cli.model.memory_need import MARGIN
from kto_cli.model.model_sizes import MemoryOptions, ModelSizes
from kto_cli.model.precision import planned_precision
from kto_cli.model.source import locate_base, located_below
from kto_cli.training.dry_run.shapes import Prediction, other_ways, predict
from kto_cli.training.settings import resolve_options

GIGABYTE = 1e9


def run(flags: Mapping[str, Any], *, gigabytes: float, config_file: str | None, screen: Screen) -> dict[str, Any]:
    """Predicts whether a run fits a card of so many gigabytes (10^9 bytes).

    Returns:
        `device_memory`, `fits`, `micro_batch_tokens`, `longest_row`, `parameters`, `memory` (bytes by part), `ways`.

    Raises:
        BadInput: it does not fit; says what does. BadModel: the model's config cannot be read.
    """
    config, _ = resolve_options(flags, config_file=config_file, resume=False)
    _, folder = locate_model(config.model, weights=False)
    base = locate_base(folder, weights=False)
    read_config(base)
    model = model_of_shapes(base, trust_remote_code=config.trust_remote_code)
    if config.continue_adapter and lora.is_adapter(folder):
        config, folder = lora.as_new(config, folder, model), located_below(folder, weights=False)
    frozen = _weights_of_adapters(folder, model) if config.lora_r else 0
    sizes = ModelSizes.of(model, config.lora_targets)
    sizes = sizes._replace(other=sizes.other + frozen)
    precision, card = planned_precision(config.dtype), gigabytes * GIGABYTE
    longest = greatest_length(config.max_length, model.config)
    options = MemoryOptions.of(config, precision)
    found = predict(sizes, options, card, longest=longest, asked=config.micro_batch_tokens)
    ways = {name: predict(sizes, way, card, longest=longest) for name, way in other_ways(options)}
    margin = int(MARGIN * card)
    result = {
        "device_memory": int(card),
        "fits": found.fits,
        "micro_batch_tokens": found.tokens,
        "longest_row": longest,
        "dtype": precision.name,
        "parameters": sizes.total,
        "memory": {**found.need._asdict(), "margin": margin, "total": found.need.total + margin},
        "ways": [way.as_dict() for way in ways.values()],
    }
    _show(screen, result, ways)
    if not found.fits:
        raise BadInput(f"This run would not fit: {_too_much(found, result)}.", _advice(found, ways), details=result)
    screen.say(
        f"It is predicted to fit, with micro-batches of {found.words}. This is from sizes alone and was "
        "never compared with a GPU; on the machine itself, --dry-run alone measures."
    )
    return result


def _weights_of_adapters(folder: Path, model: Any) -> int:
    """Weights of the adapters of a model, all but the whole model below them."""
    weights = 0
    while lora.is_adapter(folder):
        as_new = lora.as_new(TrainConfig(), folder, model)
        weights += (as_new.lora_r or 0) * ModelSizes.of(model, as_new.lora_targets).adapted
        folder = located_below(folder, weights=False)
    return weights


def _show(screen: Screen, result: dict[str, Any], ways: Mapping[str, Prediction]) -> None:
    card = readable(result["device_memory"])
    lines = [["parameters", f"{result['parameters']:,}"], ["--dtype", result["dtype"]]]
    lines += [[f"memory: {name}", readable(size)] for name, size in result["memory"].items()]
    screen.table(f"This run on a card of {card}", ["", "about"], lines)
    screen.table("Other ways on such a card", ["", "micro-batches"], [[name, way.words] for name, way in ways.items()])


def _too_much(found: Prediction, result: dict[str, Any]) -> str:
    """How much it takes, and of what."""
    total, card = readable(result["memory"]["total"]), readable(result["device_memory"])
    return f"it takes {total} with a margin of {MARGIN:.0%}, and the card has {card}"


def _advice(found: Prediction, ways: Mapping[str, Prediction]) -> str:
    """The next step: the first way that fits one card and learns as much, else adapters, else more cards."""
    same = [name for name, way in ways.items() if way.fits and way.options.rank == found.options.rank]
    fitting = same or [name for name, way in ways.items() if way.fits]
    if found.options in (ways[name].options for name in fitting):
        return "Use a smaller --micro-batch-tokens."
    steps = [f"Use {fitting[0].removeprefix('all weights, ').replace(',', '')}"] if fitting else []
    if found.cards:
        steps.append(f"{'or ' if steps else 'Use '}{found.cards} such cards with FSDP2")
    return ", ".join(steps or ["Use a larger card"]) + "."
