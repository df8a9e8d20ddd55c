"""The README.md of a finished run: what was done to which model with which rows, and what came of it."""

from __future__ import annotations

from typing import Any

import jinja2

from kto_cli import __version__
from kto_cli.common.screen import number
from kto_cli.common.tables import LABELS, span
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.training.loss_flags import loss_words

KTO_LINK = "[KTO](https://arxiv.org/abs/2402.01306)"
_CARD = """---
library_name: {{ "peft" if adapters else "transformers" }}
{%- if base_model %}
base_model: {{ base_model }}
{%- endif %}
tags: [kto, alignment{{ ", lora" if settings.config.adapters }}]
---

# {{ start.name }}, aligned with {{ loss_name }}

Trained with {{ loss_link }} by `kto` {{ version }}.

{{ verdict.sentence }}
{% for warning in verdict.warnings %}
- Warning: {{ warning }}
{%- endfor %}

| | |
| --- | --- |
{%- if reference is not sameas start %}
| starts from | {{ start.words }} |
{%- endif %}
| reference model | {{ reference.words }} |
| rows | {{ train_rows }} for training, {{ validation_rows }} for validation |
| steps | {{ settings.total_steps }} of {{ settings.config.batch_size }} rows |
{%- if step != settings.total_steps %}
| model of step | {{ step }}, that with the lowest validation loss |
{%- endif %}
| learns | {{ learns }} |
| loss | {{ loss }} |
| lambda_d, lambda_u | {{ settings.weights.lambda_d|number }}, {{ settings.weights.lambda_u|number }} |
| learning rate | {{ settings.learning_rate|number }} ({{ settings.config.schedule }}) |
| longest sequence | {{ max_length }} tokens |
| dtype | {{ dtype }} |
{%- if settings.config.chat_template_kwargs %}
| arguments of the chat template | `{{ settings.config.chat_template_kwargs|spelled }}`: inference must pass the same |
{%- endif %}
{% if validation %}
Validation rows ({{ validation.rows }}), with 90 % intervals over prompts:

| | value | interval |
| --- | --- | --- |
{%- for name in names %}
| {{ labels.get(name, name) }} | {{ validation[name]|number }} | {{ validation[name ~ "_interval"]|span }} |
{%- endfor %}
{% endif %}
{% if adapters and below.adapters %}
These adapters belong on {{ below.words }}; alone on the base they are another model:

```python
model = PeftModel.from_pretrained(base, "{{ below.adapters[0].name }}", adapter_name="stage1")
{%- for folder in below.adapters[1:] %}
model.load_adapter("{{ folder.name }}", "stage{{ loop.index + 1 }}")
{%- endfor %}
model.load_adapter("this folder", "default")
model.base_model.set_adapter([{% for _ in below.adapters %}"stage{{ loop.index }}", {% endfor %}"default"])
```
{% endif %}
RunSettings, versions and fingerprints are in `kto_config.json`, every step in `metrics.jsonl`.
"""


def model_card(settings: Any, prepared: Any, validation: dict[str, Any] | None, verdict: Any, *, step: int) -> str:
    """Markdown; `step` is the one that the model is of."""
    config = settings.config
    adapters = config.adapters and not config.merge
    below = prepared.below(config)
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # Markdown, not HTML
    environment.filters |= {"number": number, "span": span, "spelled": spelled_kwargs}
    return environment.from_string(_CARD).render(
        settings=settings,
        step=step,
        loss=loss_words(settings.loss),
        loss_name="KTO" if settings.config.loss == "kto" else settings.config.loss,
        loss_link=KTO_LINK if settings.config.loss == "kto" else f"the loss {settings.config.loss}",
        start=prepared.source,
        reference=prepared.reference,
        base_model=below.name if below.on_hub else None,
        below=below,
        adapters=adapters,
        learns=what_learns(config),
        version=__version__,
        verdict=verdict,
        train_rows=len(prepared.train),
        validation_rows=len(prepared.validation),
        max_length=prepared.max_length,
        dtype=prepared.precision.name,
        validation=validation,
        labels=LABELS,
        names=[name for name in LABELS if name in (validation or {})],
    )


def what_learns(config: Any) -> str:
    """Which weights of the model a run changes."""
    if not config.adapters:
        return "all weights"
    kind = "DoRA" if config.dora else "LoRA"
    four_bit = ", over weights of 4 bits" if config.load_in_4bit else ""
    merged = ", merged into the weights" if config.merge else ""
    if config.continue_adapter:
        return f"the adapter it starts from{four_bit}{merged}"
    return f"{kind} adapters of rank {config.lora_r}, alpha {config.alpha}, on {config.lora_targets}{four_bit}{merged}"
