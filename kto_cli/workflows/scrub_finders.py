"""What `kto binarize --scrub-model` names: a token classification model, or Presidio."""

from __future__ import annotations

from kto_cli.data.audit import presidio
from kto_cli.data.audit.scrub import Finder


def finders(name: str | None) -> list[Finder]:
    """The finder of a name; none without one.

    Raises:
        BadInput: Presidio is not installed. BadModel: the model cannot be loaded, or has no classes of values.
    """
    if name is None:
        return []
    if name == presidio.NAME:
        return [presidio.finder()]
    from kto_cli.model.token_classes import finder_of

    return [finder_of(name)]
