"""What a server serves, compared with a checkpoint: the server is asked, then base and checkpoint compute it here.

In float32, one sequence at a time, with the model's own logits: nothing of kto's engine stands between the numbers.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.export_config import ExportConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.rows import EncodedRow
from kto_cli.core.statistics.served import Agreement, Fit, ServedVerdict, agreement, fit, served_verdict
from kto_cli.data.texts import Text, turn_text
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question
from kto_cli.evaluation.answers.server import served_model
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.export.requests import ServedAnswer, answer_to, logps_of
from kto_cli.evaluation.prompts import choose_prompts
from kto_cli.evaluation.server.client import CallBudget, ChatServer
from kto_cli.evaluation.server.keys import ENGINE_KEY, key_for
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.lengths import independent_length
from kto_cli.model.load import end_ids
from kto_cli.model.logprobs.prepare import Prepared, prepare
from kto_cli.model.tokens.encoder import Encoder

MOST = 48
"""Tokens of an answer."""
CALLS = 20
"""Requests for each row at most, retries included."""


class Checked(NamedTuple):
    """The verdict and the numbers that it was made from."""

    verdict: ServedVerdict
    served: str
    """The model's name on the server."""
    logps: Agreement | None
    answers: Fit


@dataclass(frozen=True)
class _Rows:
    """What is compared: validation rows, and prompts as a server renders them today."""

    rows: list[EncodedRow]
    texts: list[Text]
    """[rows] their prompts."""
    tokens: list[list[int]]
    """[rows] of whole prompts: a server drops no turns."""
    encoder: Encoder
    ends: tuple[int, ...]


class _Computed(NamedTuple):
    """What a model here makes of the rows and of the server's answers."""

    logps: list[Tensor]
    regrets: list[Tensor]
    same: int


def check_served(config: ExportConfig, checkpoint: Checkpoint, exported: str | None, screen: Screen) -> Checked:
    """Compares what a server serves with the checkpoint.

    Args:
        exported: folder or Hub id that the checkpoint was exported to in this command.

    Raises:
        KtoError: no validation rows, the server cannot be reached or has no such model, or a model cannot be loaded.
    """
    assert config.check is not None
    asked, loss = _settings(config, checkpoint)
    has_base = checkpoint.settings is not None or checkpoint.is_adapter
    key, calls = key_for(config.check, ENGINE_KEY), CallBudget(CALLS * max(10, config.rows), flag="--rows")
    with ChatServer(config.check, key=key, key_name=ENGINE_KEY, calls=calls, say=screen.note) as client:
        client.reach()
        name = config.served_as or _name_on(client, checkpoint, exported)
        screen.note(f"Asking {client.url} for {name}")
        accelerator = start_accelerator()
        prepared = prepare(
            asked,
            accelerator,
            screen,
            needs_train=False,
            merged=checkpoint.merged_reference,
            control=None if loss is None else loss.control,
        )
        rows = _rows(prepared, asked, config.rows)
        with screen.progress("asking the server", 2 * len(rows.rows)):
            served = logps_of(client, name, [row.own for row in rows.rows])
            screen.tick(len(rows.rows))
            answers = _answers(client, name, rows, screen)
    device = accelerator.device
    with screen.progress("computing the same here", None):
        base = _computed(prepared.model.to(device), rows, answers) if has_base else None
        model = checkpoint.load_in_place_of_reference(prepared, asked) if has_base else prepared.model
        trained = _computed(model.to(device), rows, answers)
    if not sum(map(len, trained.regrets)):
        raise BadInput(f"{client.url} answered none of {plural(len(answers), 'prompt')}.", "Does it generate at all?")
    differ = sum(answer.prompt_tokens not in (None, len(ids)) for answer, ids in zip(answers, rows.tokens, strict=True))
    logps = None if served is None else agreement(served, trained.logps, base and base.logps)
    found = fit(
        trained.regrets,
        base and base.regrets,
        same=trained.same,
        base_same=base.same if base else 0,
        prompts_differ=differ,
    )
    return Checked(served_verdict(logps, found), name, logps, found)


def _settings(config: ExportConfig, checkpoint: Checkpoint) -> tuple[EvalConfig, LossSettings | None]:
    """Settings of the models here, and the run's loss; a whole model without a run has no base."""
    asked = EvalConfig(
        checkpoint=checkpoint.name,
        data=config.data,
        dtype="float32",
        trust_remote_code=config.trust_remote_code,
        cache=config.cache,
    )
    if checkpoint.settings is None and not checkpoint.is_adapter:
        return replace(asked, model=str(checkpoint.folder)), None
    return checkpoint.fill(asked)


def _name_on(client: ChatServer, checkpoint: Checkpoint, exported: str | None) -> str:
    """The model's name on the server: that of the export or the checkpoint; else the only one that is listed."""
    listed = client.models()
    if len(listed) == 1:
        return listed[0]
    try:
        return served_model(exported or checkpoint.name, Path(exported or checkpoint.folder), client)
    except BadInput as error:
        raise BadInput(error.what, "Say which one it is with --served-as.") from error


def _rows(prepared: Prepared, asked: EvalConfig, count: int) -> _Rows:
    """The rows to compare, with a prompt each.

    Raises:
        BadData: there are no validation rows.
    """
    if not prepared.validated.served:
        raise BadData(f"{prepared.data.folder} has no validation rows to ask about.", "Name others with --data.")
    prompts = choose_prompts(prepared.validated, prepared.data, count)
    tokenizer = prepared.served_tokenizer
    ends = tuple(sorted({*end_ids(prepared.model), tokenizer.eos_token_id}))
    encoder = Encoder(
        tokenizer,
        max_length=prepared.max_length,
        end_ids=ends,
        date=datetime.date.today(),
        template_kwargs=asked.chat_template_kwargs,
    )
    tokens = [list(ids) for ids in encoder.prompt_ids(prompts.texts)]
    context = independent_length(prepared.model.config)
    kept = [index for index, ids in enumerate(tokens) if context is None or len(ids) + MOST <= context]
    if not kept:
        raise BadData("No validation prompt leaves room for an answer in the model's context.", "Name other rows.")
    rows, texts = [prompts.rows[index] for index in kept], [prompts.texts[index] for index in kept]
    return _Rows(rows, texts, [tokens[index] for index in kept], encoder, ends)


def _answers(client: ChatServer, name: str, rows: _Rows, screen: Screen) -> list[ServedAnswer]:
    found = []
    for text in rows.texts:
        found.append(answer_to(client, name, text, most=MOST, template_kwargs=rows.encoder.template_kwargs))
        screen.tick()
    return found


def _text(answer: ServedAnswer) -> str:
    text = answer.completion if isinstance(answer.completion, str) else turn_text(answer.completion)
    return text.strip()


def _computed(model: Any, rows: _Rows, answers: Sequence[ServedAnswer]) -> _Computed:
    """Log-probs of the rows' completions, and regrets of the served answers."""
    own = _greedy(model, rows)
    logps = [_scored(model, row.own.prompt, row.own.completion)[0] for row in rows.rows]
    same = [one.text == _text(answer) for one, answer in zip(own, answers, strict=True)]
    regrets = [
        torch.zeros(one.tokens + one.ended) if equal else _regret(model, rows, ids, answer)
        for one, equal, ids, answer in zip(own, same, rows.tokens, answers, strict=True)
    ]
    return _Computed(logps, regrets, sum(same))


def _greedy(model: Any, rows: _Rows) -> list[Answer]:
    """The model's own greedy answers."""
    subject = AnsweringModel(
        "the model", Path(), rows.encoder.tokenizer, rows.ends, independent_length(model.config), lambda: model
    )
    questions = [Question(str(index), ids, []) for index, ids in enumerate(rows.tokens)]
    found = dict(Padded(subject).answers(questions, Decoding(max_new_tokens=MOST, temperature=0, top_p=1.0)))
    return [found[index] for index in range(len(questions))]


def _regret(model: Any, rows: _Rows, prompt: list[int], answer: ServedAnswer) -> Tensor:
    """[tokens] the best token's log-prob less the answered token's. Some servers strip white space: both are tried."""
    text = answer.completion
    spellings = [text, " " + text] if isinstance(text, str) else [text, {**text, "content": " " + text["content"]}]
    completions = [one if isinstance(one, str) else (one,) for one in spellings]
    tried = []
    for encoded in rows.encoder.encode_completions(completions):
        ids = list(encoded.ids) if answer.ended else list(encoded.ids)[:-2]  # the end, and a token that may be a part
        if ids:
            _, left = _scored(model, prompt, ids, ends=rows.ends if answer.ended else ())
            tried.append(left)
    return min(tried, key=lambda left: left.sum().item()) if tried else torch.zeros(0)


@torch.no_grad()
def _scored(
    model: Any, prompt: Sequence[int], completion: Sequence[int], *, ends: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """[tokens] log-probs of the completion, and how far each is below the best token's.

    Args:
        ends: any of these tokens may stand for the last one.
    """
    ids = torch.tensor([[*prompt, *completion]], device=model.device)
    logps = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    own = logps.gather(1, ids[0, len(prompt) :, None])[:, 0]
    below = logps.max(-1).values - own
    if ends:
        below[-1] = logps[-1].max() - logps[-1, list(ends)].max()
    return own.cpu(), below.cpu()
