"""A server that echoes its key, in any spelling, split over the events of a stream too."""

from __future__ import annotations

import json

from kto_cli.common.secrets import MARK
from kto_cli.evaluation.server.keys import Key
from kto_cli.evaluation.server.replies import complaint

SECRET = "sk-JUDGE-0123456789-SECRET"


def test_a_key_split_over_the_events_of_a_stream():
    pieces = [SECRET[start : start + 3] for start in range(0, len(SECRET), 3)]
    events = [json.dumps({"id": "x", "choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    for body in ("\n\n".join(f"data: {event}" for event in events), "\n".join(events)):
        assert Key(SECRET).redact(complaint(body)) == MARK
