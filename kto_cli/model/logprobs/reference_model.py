"""The reference where it is another model than the one that is trained (--reference): checked, scored, given up."""

from __future__ import annotations

from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.encoding import refuse_unknown_tokens
from kto_cli.model.logprobs.needed import Needed
from kto_cli.model.logprobs.prepare import Prepared, load_with, make_scorer
from kto_cli.model.logprobs.reference import CacheUse, ReferenceLogps, reference_logps
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.source import ModelSource
from kto_cli.model.tokens.store import EncodedRows


def logps_of_other_reference(
    prepared: Prepared,
    rows: EncodedRows,
    config: ModelConfig,
    accelerator: Any,
    screen: Screen,
    needed: Needed,
) -> tuple[ReferenceLogps, CacheUse]:
    """Its log-probs, from the cache or computed; the model is in memory only while they are computed.

    Raises:
        BadInput: it has other tokens than the model that is trained.
    """
    refuse_other_tokens(prepared.reference, prepared.tokenizer, config)
    screen.note(f"The reference is {prepared.reference.words}, and training starts from {prepared.source.words}.")

    def load() -> CompletionScorer:
        with screen.progress("loading the reference", None):
            model = load_with(config, prepared.reference, prepared.precision).model
        refuse_unknown_tokens(rows, prepared.tokenizer, model)
        return make_scorer(prepared, accelerator, screen, model=model, sharded=True)

    return reference_logps(prepared, rows, load, config, accelerator, screen, needed)


def refuse_other_tokens(reference: ModelSource, tokenizer: Any, config: ModelConfig) -> None:
    """Refuses a reference whose tokenizer gives the tokens other numbers: its log-probs would be of other texts.

    Raises:
        BadInput: names a token.
    """
    other, _ = load_tokenizer(
        reference.tokenizer_folder, chat_template=None, trust_remote_code=config.trust_remote_code
    )
    own, theirs = tokenizer.get_vocab(), other.get_vocab()
    if own == theirs:
        return
    token = min((token for token in own | theirs if own.get(token) != theirs.get(token)), key=str)
    raise BadInput(
        f"--reference {reference.name} has other tokens than the model that is trained: {token!r} is "
        f"{theirs.get(token, 'not among them')} there and {own.get(token, 'not among them')} here.",
        "Give a reference with the same tokenizer.",
    )
