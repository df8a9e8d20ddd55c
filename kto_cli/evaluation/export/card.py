"""README.md of an export: what was trained on how many rows, and what came of it; no path of a machine, no row."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from kto_cli import __version__
from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_object
from kto_cli.common.screen import number
from kto_cli.common.tables import LABELS, span
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.data.dataset import MANIFEST
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.export.origin import Origin
from kto_cli.evaluation.files import METRICS, WIN_RATE, read_part, read_result
from kto_cli.evaluation.report.evidence import number_or_nan, with_nan
from kto_cli.training.loss_flags import loss_words
from kto_cli.training.run.model_card import KTO_LINK, what_learns
from kto_cli.training.run.run_dir import RunDir

Facts = list[tuple[str, str]]
_TEXT = """---
{{ card_data }}
---

# {{ title }}

{{ origin }}, aligned with {{ link }} on thumbs-up / thumbs-down feedback by `kto` {{ version }}.

| | |
| --- | --- |
{%- for name, value in facts %}
| {{ name }} | {{ value }} |
{%- endfor %}
{% if results %}
Results on {{ rows }} validation rows{% if intervals %}, with 90 % intervals over prompts{% endif %}:

| | value | interval |
| --- | --- | --- |
{%- for name, value, interval in results %}
| {{ name }} | {{ value }} | {{ interval }} |
{%- endfor %}
{% endif %}
## Use

```python
{{ usage }}
```
{% if served %}
```sh
{{ served }}
```
{% endif %}"""


def export_card(
    title: str,
    checkpoint: Checkpoint,
    origin: Origin,
    weights_id: str,
    *,
    is_adapter: bool,
    weights: str,
    served: list[str],
) -> str:
    """Markdown with the Hub's metadata.

    Args:
        weights_id: fingerprint of the checkpoint, which its results must be of. weights: how they are stored, in words.
        served: lines that serve the export.
    """
    from huggingface_hub import ModelCard, ModelCardData

    settings = checkpoint.settings or {}
    train = settings.get("train", {})
    validation = _validation(checkpoint, weights_id)
    loss = str(train.get("loss", "kto")) if settings else ""
    data = ModelCardData(
        base_model=origin.name if origin.on_hub else None,
        library_name="peft" if is_adapter else "transformers",
        license=origin.license,
        pipeline_tag="text-generation",
        tags=["kto", "alignment", *(["lora"] if is_adapter else [])],
        ignore_metadata_errors=True,
    )
    card = ModelCard.from_template(
        data,
        template_str=_TEXT,
        title=title,
        origin=origin.name,
        version=__version__,
        link=KTO_LINK if loss in ("", "kto") else f"the loss {loss}",
        facts=[*_facts(settings), ("weights", weights)],
        results=_results(validation) + _win_rate(checkpoint),
        rows=validation.get("rows"),
        intervals=any(name.endswith("_interval") for name in validation),
        usage=_usage(origin, is_adapter, train.get("chat_template_kwargs")),
        served="\n".join(served),
    )
    return str(card).rstrip("\n") + "\n"


def _facts(settings: dict[str, Any]) -> Facts:
    """The data and the settings of the run; none without a run."""
    if not settings:
        return []
    known = {field.name for field in fields(TrainConfig)}
    train = TrainConfig(**{name: value for name, value in settings["train"].items() if name in known})
    chosen, data = settings["chosen"], settings["data"]
    found = [("rows", f"{data['train_rows']:,} for training, {data['validation_rows']:,} for validation")]
    found += _of_manifest(settings)
    if "loss" in chosen:
        found.append(("loss", loss_words(LossSettings(**chosen["loss"]))))
    found += [
        ("lambda_d, lambda_u", f"{number(chosen['lambda_d'])}, {number(chosen['lambda_u'])}"),
        ("learns", what_learns(train)),
        ("steps", f"{chosen['total_steps']:,} of {train.batch_size} rows"),
        ("learning rate", f"{number(chosen['learning_rate'])} ({train.schedule})"),
        ("longest sequence", f"{chosen['max_length']:,} tokens"),
        ("arithmetic", str(chosen["dtype"])),
    ]
    if train.chat_template_kwargs:
        spelled = spelled_kwargs(train.chat_template_kwargs)
        found.append(("arguments of the chat template", f"`{spelled}`: each request must pass the same"))
    return found


def _of_manifest(settings: dict[str, Any]) -> Facts:
    """Labels of the rows and names of their sources, where the run's dataset is still there."""
    try:
        manifest = read_object(Path(settings["data"]["folder"]) / MANIFEST, "a dataset's manifest")
    except BadInput:
        return []
    found = []
    if isinstance(manifest.get("desirable"), int) and isinstance(manifest.get("undesirable"), int):
        labels = f"{manifest['desirable']:,} desirable, {manifest['undesirable']:,} undesirable"
        found.append(("labels of training rows", labels))
    return found


def _validation(checkpoint: Checkpoint, weights_id: str) -> dict[str, Any]:
    """Numbers of the validation rows: of `kto eval` for these weights, else of the run's last validation."""
    results = read_result(checkpoint.eval_folder / METRICS)
    if results.get("weights") == weights_id and isinstance(results.get("metrics"), dict):
        return dict(with_nan(results["metrics"]))
    if checkpoint.run is None:
        return {}
    named = re.fullmatch(r"step-(\d+)", checkpoint.folder.name)
    lines = [line for line in RunDir(checkpoint.run).read_metrics() if "validation" in line]
    lines = [line for line in lines if named is None or line["step"] <= int(named[1])]
    return dict(with_nan(lines[-1]["validation"])) if lines else {}


def _results(validation: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for name, label in LABELS.items():
        value = number_or_nan(validation.get(name))
        if value == value:  # not NaN
            interval = validation.get(f"{name}_interval")
            found.append((label, number(value), span(interval) if isinstance(interval, list) else "-"))
    return found


def _win_rate(checkpoint: Checkpoint) -> list[tuple[str, str, str]]:
    """The judge's win rate, if it is of the same evaluation."""
    of = read_result(checkpoint.eval_folder / METRICS).get("of")
    found = with_nan(read_part(checkpoint.eval_folder, WIN_RATE, of))
    value, interval = number_or_nan(found.get("win_rate")), found.get("interval")
    if value != value or not isinstance(interval, list):
        return []
    rival = {"target": "the data's desirable completions", "reference": "the reference"}
    baseline = rival.get(str(found.get("baseline")), "another model")
    return [(f"win rate over {baseline}, by a judge", number(value), span(interval))]


def _usage(origin: Origin, is_adapter: bool, template_kwargs: dict[str, Any] | None) -> str:
    """Lines of Python that load the export in its own folder."""
    extra = f", **{template_kwargs!r}" if template_kwargs else ""
    model = f'AutoModelForCausalLM.from_pretrained("{origin.name if is_adapter else "."}")'
    return "\n".join(
        [
            *(["from peft import PeftModel"] if is_adapter else []),
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained(".")  # this folder, or its id on the Hub',
            f'model = PeftModel.from_pretrained({model}, ".")' if is_adapter else f"model = {model}",
            'messages = [{"role": "user", "content": "Hello"}]',
            "ids = tokenizer.apply_chat_template(",
            f'    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{extra}',
            ")",
            'print(tokenizer.decode(model.generate(**ids)[0, ids["input_ids"].shape[1] :]))',
        ]
    )
