"""A hint on the loss, from what is known of the model that training starts from."""

from __future__ import annotations

from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.objectives import needs_mismatched
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.training.run.run_dir import RunDir, read_settings


def hint_at_zero_point(loss: LossSettings, prepared: Prepared, screen: Screen) -> None:
    """Says that z_ref may be 0 where the reference was fine-tuned on the rows of this run."""
    directory = RunDir(prepared.source.folder)
    if not needs_mismatched(loss) or not loss.reference or prepared.reference is not prepared.source:
        return
    if not directory.started:
        return
    try:
        stored = read_settings(directory)
    except BadInput:
        return  # a hint is all that is lost
    if stored["train"].get("loss") == "sft" and stored["data"]["fingerprint"] == prepared.data.fingerprint:
        screen.note(
            f"{prepared.source.name} was fine-tuned on these very rows: z_ref may be set to 0 (paper v5, section 4.1): "
            "--reference-point zero, which saves the pass over mismatched completions."
        )
