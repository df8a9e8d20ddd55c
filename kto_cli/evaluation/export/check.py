"""What a server serves, compared with a checkpoint: the server is asked, then base and checkpoint compute it here.

In float32, one sequence at a time, with the model's own logits: nothing of kto's engine stands between the numbers.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.export_config import ExportConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.served import Agreement, Fit, ServedVerdict, agreement, fit, served_verdict
from kto_cli.evaluation.answers.server import served_model
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.export.local import AskedRows, computed, spoken_answers
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
    """Of the rows' completions."""
    answers: Fit
    answered: Agreement | None
    """Log-probs of the answers."""


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
    spoken = spoken_answers(rows, answers)
    device = accelerator.device
    with screen.progress("computing the same here", None):
        base = computed(prepared.model.to(device), rows, answers, spoken) if has_base else None
        model = checkpoint.load_in_place_of_reference(prepared, asked) if has_base else prepared.model
        trained = computed(model.to(device), rows, answers, spoken)
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
    answered = agreement([one.logps for one in spoken], trained.answered, base and base.answered) if spoken else None
    return Checked(served_verdict(logps, found, answered), name, logps, found, answered)


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


def _rows(prepared: Prepared, asked: EvalConfig, count: int) -> AskedRows:
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
    return AskedRows(rows, texts, [tokens[index] for index in kept], encoder, ends, MOST)


def _answers(client: ChatServer, name: str, rows: AskedRows, screen: Screen) -> list[ServedAnswer]:
    found = []
    for text in rows.texts:
        found.append(answer_to(client, name, text, most=MOST, template_kwargs=rows.encoder.template_kwargs))
        screen.tick()
    return found
