"""Rows of a dataset that do not fit a model's context, found before training.

`kto binarize --model` uses it: the encoder of training, on the files just written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from kto_cli.common.words import plural
from kto_cli.data.dataset import TRAIN, VALIDATION, Row, read_batches
from kto_cli.model.lengths import greatest_length
from kto_cli.model.load import load_config, load_tokenizer
from kto_cli.model.locate import locate_model
from kto_cli.model.source import locate_base, locate_tokenizer
from kto_cli.model.tokens.build_store import unfit
from kto_cli.model.tokens.encoder import LEAST_COMPLETION, Encoder

DROPPED, TRUNCATED, SHORTENED, REFUSED = "does_not_fit", "answer_truncated", "prompt_shortened", "template_refuses"
ADVICE = {
    DROPPED: "kto train drops them; raise --max-length",
    TRUNCATED: "kto train truncates the answer and drops its end-of-turn token; raise --max-length",
    SHORTENED: "kto train drops the prompt's oldest turns; raise --max-length",
    REFUSED: "kto train drops them; give another template with kto train --chat-template FILE",
}
BATCH = 512
"""Rows read at once."""


@dataclass
class FitReport:
    """How many rows of a dataset fit, and how many do not."""

    max_length: int
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rows that do not fit, by what happens to them."""

    def findings(self) -> list[dict[str, Any]]:
        """Findings in the form of the data audit (data/audit)."""
        details = {
            DROPPED: "leave no room for their answer",
            TRUNCATED: "lose the end of their answer",
            SHORTENED: "lose the oldest turns of their prompt",
            REFUSED: "cannot be written with the chat template",
        }
        return [
            {
                "finding": name,
                "severity": "warning",
                "rows": self.counts[name],
                "summary": f"{self.counts[name]:,} of {plural(self.rows, 'row')} {detail}"
                + (f" in {plural(self.max_length, 'token')}" if name != REFUSED else ""),
                "advice": ADVICE[name],
            }
            for name, detail in details.items()
            if self.counts[name]
        ]


def encoder_of(model: str, max_length: int | None, template_kwargs: Mapping[str, Any] | None = None) -> Encoder:
    """Encoder with the tokenizer of a model folder or Hub id, and the maximum length of `kto train`.

    Raises:
        BadModel, BadInput: no such model, no usable tokenizer, or a longer length than the model takes.
    """
    _, folder = locate_model(model)
    tokenizer, _ = load_tokenizer(locate_tokenizer(folder), chat_template=None, trust_remote_code=None)
    model_config = load_config(locate_base(folder, weights=False), trust_remote_code=None)
    longest = greatest_length(max_length, model_config)
    return Encoder(tokenizer, max_length=longest, template_kwargs=template_kwargs)


def examine_fit(
    folder: Path, encoder: Encoder, note_row: Callable[[dict[str, Any]], None], tick: Callable[[int], None]
) -> FitReport:
    """Checks every row of the two files in `folder`; calls `note_row` with a finding for each that does not fit."""
    fit = FitReport(encoder.max_length)
    for file in (TRAIN, VALIDATION):
        for rows in read_batches(folder / file, BATCH):
            fit.rows += len(rows)
            for row, name, detail in _misfits(rows, encoder):
                fit.counts[name] += 1
                note_row({"id": row.id, "origin": row.origin, "finding": name, "detail": detail})
            tick(len(rows))
    return fit


def _misfits(rows: list[Row], encoder: Encoder) -> Iterator[tuple[Row, str, str]]:
    """Yields (row, finding, detail) for rows that do not fit."""
    completions = encoder.encode_completions([row.completion for row in rows])
    own = [len(completion.ids) for completion in completions]
    names: dict[str, int] = {}
    numbers = [names.setdefault(row.prompt_id, len(names)) for row in rows]
    fitted = encoder.fit_prompts([row.prompt for row in rows], own, numbers)
    lengths = numpy.array([len(prompt.ids) for prompt in fitted])
    both = encoder.refusals([row.prompt for row in rows], [row.completion for row in rows])
    for row, completion, prompt, why, empty, no_room in zip(
        rows, completions, fitted, both, *unfit(lengths, numpy.array(own), encoder.max_length), strict=True
    ):
        room = encoder.max_length - len(prompt.ids)
        tokens = len(completion.ids)
        sizes = f"prompt {len(prompt.ids):,} tokens, answer {tokens:,}"
        if refused := prompt.refused or completion.refused or why:
            yield row, REFUSED, f"the chat template cannot be used: {refused}"
        elif empty:
            yield row, DROPPED, "the prompt has no tokens"
        elif no_room:
            yield row, DROPPED, f"{sizes}: there is room for fewer than {LEAST_COMPLETION} tokens of the answer"
        elif tokens > room:
            yield row, TRUNCATED, f"{sizes}: {tokens - room:,} of the answer do not fit"
        elif prompt.dropped:
            yield row, SHORTENED, f"{sizes}, {prompt.dropped:,} of the oldest turns dropped"
