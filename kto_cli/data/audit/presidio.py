"""Values that Microsoft's Presidio sees in a text, such as names and places; an optional package."""

from __future__ import annotations

from kto_cli.common.errors import BadInput
from kto_cli.common.install import install_extra
from kto_cli.data.audit.scrub import Finder, Named

NAME = "presidio"
LEAST_SCORE = 0.5
"""Presidio's own certainty; below it most are ordinary words."""
KINDS = ("PERSON", "LOCATION", "NRP", "US_SSN", "US_PASSPORT", "US_DRIVER_LICENSE", "MEDICAL_LICENSE", "CRYPTO")
"""Its kinds beyond those that forms find; of dates and addresses of the web it finds far too many."""


def finder() -> Finder:
    """A finder that asks Presidio's analyzer, in English.

    Raises:
        BadInput: it is not installed.
    """
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError as error:
        what = "--scrub-model presidio needs presidio-analyzer, which is not installed."
        raise BadInput(what, f"{install_extra('presidio')}.") from error
    analyzer = AnalyzerEngine()

    def find(text: str) -> list[Named]:
        found = analyzer.analyze(text=text, language="en", entities=[*KINDS], score_threshold=LEAST_SCORE)
        return [Named((one.start, one.end), one.entity_type.lower()) for one in found]

    return find
