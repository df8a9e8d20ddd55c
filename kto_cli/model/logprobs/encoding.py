"""The rows of a run in tokens, as each part of it reads them: training, the served model, its loss, the reference."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadModel
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.common.words import plural
from kto_cli.data.dataset import TRAIN, VALIDATION, DataDir
from kto_cli.model.load import end_ids
from kto_cli.model.tokens.cached import tokenized_rows
from kto_cli.model.tokens.chat_template import PROBE
from kto_cli.model.tokens.control_text import ControlTexts, retemplated, with_control_text, without_control_text
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.encoding_report import EncodingReport
from kto_cli.model.tokens.pair_ids import crowded_notes
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.validation_rows import ValidationRows


class RowsInTokens(NamedTuple):
    """All rows, and the tokenizers of the two models that are asked."""

    train: EncodedRows
    validated: ValidationRows
    tokenizer: Any
    """The reference's."""
    served_tokenizer: Any
    """That of the trained model: with control texts its chat template writes the desirable one."""
    date: datetime.date | None
    """The date that the chat template writes; None if it writes none."""


@dataclass(frozen=True)
class RowEncoding:
    """What decides the tokens of rows besides the tokenizer."""

    config: ModelConfig
    data: DataDir
    tokenizer_folder: Path
    model: Any
    max_length: int
    accelerator: Any
    screen: Screen

    def encoder(self, tokenizer: Any, control: tuple[str, str] | None = None) -> Encoder:
        """An encoder of this run."""
        named = self.config.template_date
        return Encoder(
            tokenizer,
            max_length=self.max_length,
            end_ids=end_ids(self.model),
            date=datetime.date.fromisoformat(named) if named else None,
            template_kwargs=self.config.chat_template_kwargs,
            control=control,
        )

    def rows(self, file: str, encoder: Encoder) -> tuple[EncodedRows, EncodingReport]:
        """The rows of a file."""
        root, folder = cache_folder(self.config), self.tokenizer_folder
        return tokenized_rows(root, self.data, file, encoder, folder, self.accelerator, self.screen)

    def said_rows(self, file: str, encoder: Encoder) -> tuple[EncodedRows, int]:
        """The rows of a file, and how many are chats; tells what became of them.

        Raises:
            BadModel: they use tokens that the model does not know.
        """
        what = "training" if file == TRAIN else "validation"
        rows, report = self.rows(file, encoder)
        self.screen.note(*report.notes(what))
        self.screen.warn(*crowded_notes(rows, what))
        refuse_unknown_tokens(rows, encoder.tokenizer, self.model)
        return rows, report.chats


def encode_rows(
    encoding: RowEncoding, tokenizer: Any, *, needs_train: bool, fallback: bool, control: tuple[str, str] | None
) -> RowsInTokens:
    """Encodes the rows of a run.

    Args:
        fallback: the tokenizer's chat template is ours. control: texts at the end of the prompts of desirable and of
            undesirable rows.
    """
    plain = tokenizer
    if control is not None:
        plain = retemplated(tokenizer, without_control_text)
        if encoding.config.chat_template:  # the run's own copy of the given template, which wrote the text
            tokenizer = plain
        encoding.screen.note(_about_texts(ControlTexts(*control)))
    encoder = encoding.encoder(plain, control)
    train, chats = encoding.said_rows(TRAIN, encoder) if needs_train else (EncodedRows(), 0)
    served = encoder if control is None else encoding.encoder(plain, (control[0], control[0]))
    validation, more = encoding.said_rows(VALIDATION, served)
    _say_of_template(encoder, encoding.screen, chats=bool(chats + more) and not fallback)
    validated, served_tokenizer = ValidationRows.alike(validation), tokenizer
    if control is not None:
        validated = _read_three_ways(encoding, validation, tokenizer, served, encoder)
        served_tokenizer = retemplated(plain, partial(with_control_text, text=control[0]))
    return RowsInTokens(train, validated, tokenizer, served_tokenizer, encoder.date)


def _read_three_ways(
    encoding: RowEncoding, validation: EncodedRows, tokenizer: Any, served: Encoder, own: Encoder
) -> ValidationRows:
    probe = [({"role": "user", "content": PROBE},)]
    # A completion is cut where the served one is: the reference has as many tokens less as its prompts are shorter.
    longer = len(served.prompt_ids(probe)[0]) - len(encoding.encoder(tokenizer).prompt_ids(probe)[0])
    shorter = replace(encoding, max_length=encoding.max_length - max(0, longer))
    reference, _ = shorter.rows(VALIDATION, shorter.encoder(tokenizer))
    found, left = ValidationRows.matched(validation, reference, encoding.rows(VALIDATION, own)[0])
    if left:
        encoding.screen.note(
            f"{plural(left, 'validation row')} left out: behind the control text less of the completion fits."
        )
    return found


def _about_texts(control: ControlTexts) -> str:
    return (
        f"Control texts: prompts end with {control.good!r} (desirable rows) or {control.bad!r} (undesirable rows). "
        f"Validation log-ratios compare the model as it is served, asked with {control.good!r} whatever the label, "
        "with the reference asked without; the loss reads each row behind its own text."
    )


def _say_of_template(encoder: Encoder, screen: Screen, *, chats: bool) -> None:
    """What the chat template is given, warns of and, where there are `chats`, does."""
    if encoder.template_kwargs:
        given = spelled_kwargs(encoder.template_kwargs)
        screen.note(f"The chat template is given {given}: inference must pass the same.")
    screen.warn(*encoder.warnings())
    screen.note(*(encoder.notes() if chats else ()))


def refuse_unknown_tokens(rows: EncodedRows, tokenizer: Any, model: Any) -> None:
    """Rows may use no token that the model has no embedding of, as when tokens were added to the tokenizer alone.

    Raises:
        BadModel: some do; names the tokens.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= known:
        return
    unknown = [{token for token in (*row.own.prompt, *row.own.completion) if token >= known} for row in rows]
    if count := sum(map(bool, unknown)):
        names = tokenizer.convert_ids_to_tokens(sorted(set().union(*unknown))[:5])
        raise BadModel(
            f"The tokenizer has {len(tokenizer):,} tokens and the model embeddings of {known:,}: "
            f"{plural(count, 'row')} with tokens that the model does not know ({', '.join(names)}).",
            "Give a model that was resized to its tokenizer (resize_token_embeddings), or the tokenizer it was trained "
            "with.",
        )
