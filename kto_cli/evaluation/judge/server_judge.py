"""A judge behind an OpenAI-compatible server."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit

from kto_cli.common.errors import Interrupted
from kto_cli.common.words import plural
from kto_cli.data.texts import Text
from kto_cli.evaluation.judge.comparisons import Comparison, JudgeQuestion, Vote
from kto_cli.evaluation.judge.judge import Asked, Tick
from kto_cli.evaluation.judge.question import FOR_WHAT, WORDING, Side, parse, question_text
from kto_cli.evaluation.judge.store import Value, VerdictStore
from kto_cli.evaluation.server.client import ChatServer, ServerFault, Stopped

ATTEMPTS = 3
"""Replies to one question before it counts as unreadable."""
ROOM, MORE_ROOM = 256, 4096
"""Tokens of a reply: enough for a sentence and the verdict; and for a model that reasons first."""
WARMTH = 0.7
"""Temperature of the second and third attempts: at 0 another seed changes nothing."""
_KEPT = 4000
"""Characters stored of a reply, its end."""
_RENAMED = re.compile(r"max_(?:completion_)?tokens")
_OF_THIS_ONE = re.compile(r"context|too long|content.?(?:filter|policy|management)", re.IGNORECASE)
"""Complaints about one question (too long, filtered), not about all."""
_MODEL_FIRST: dict[Side, Vote] = {"A": "model", "B": "baseline", "tie": "tie"}
_BASELINE_FIRST: dict[Side, Vote] = {"A": "baseline", "B": "model", "tie": "tie"}


class ServerJudge:
    """Asks a chat model, in both orders, in as many threads as wanted.

    A reply that cannot be read is asked for again, with another seed and some temperature; after three the question is
    unreadable and the comparison is dropped from the win rate.
    """

    def __init__(
        self,
        server: ChatServer,
        model: str,
        *,
        for_what: str = FOR_WHAT,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.server = server
        self.model = model
        self.for_what = for_what
        self._say = say
        self._lock = threading.Lock()
        self._room = ROOM
        self._renamed = False
        self._omitted: set[str] = set()
        self.refused = 0
        """Questions of this run that the server did not take: too long, or filtered."""
        self._questions: dict[Asked, JudgeQuestion] = {}

    @property
    def identity(self) -> tuple[str, ...]:
        """Host (without port), model, criteria, wording. What is behind a name on a server is the user's to know."""
        return "server", urlsplit(self.server.url).hostname or "", self.model, self.for_what, str(WORDING)

    @property
    def overhead(self) -> int:
        """Characters of the question itself."""
        return len(question_text(JudgeQuestion("", "", ""), self.for_what))

    def check_prompts(self, prompts: Sequence[Text]) -> None:
        """It reads any: a prompt is text within its question."""

    def asked(self, comparison: Comparison) -> tuple[Asked, Asked]:
        """The question in both orders."""
        model_first, baseline_first = comparison.questions()
        with self._lock:
            self._questions |= {model_first.parts: model_first, baseline_first.parts: baseline_first}
        return model_first.parts, baseline_first.parts

    def is_answered(self, answers: Sequence[Value]) -> bool:
        """One could be read, or three could not, or the server will not take the question."""
        return len(answers) >= ATTEMPTS or any(answer["verdict"] or "refused" in answer for answer in answers)

    def votes(self, answers: tuple[Sequence[Value], Sequence[Value]]) -> tuple[Vote | None, Vote | None]:
        """From the sides of the two orders."""
        first, second = (next((answer["verdict"] for answer in some if answer["verdict"]), None) for some in answers)
        return (_MODEL_FIRST[first] if first else None), (_BASELINE_FIRST[second] if second else None)

    def ask(self, todo: Sequence[Asked], store: VerdictStore, *, workers: int, tick: Tick) -> None:
        """Asks in threads. After Ctrl-C or a fault no new request is sent; replies under way are awaited and stored.

        Raises:
            Interrupted: Ctrl-C. KtoError: the first thread's that gave up.
        """
        pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="judge")
        ended = False
        try:
            for finished in as_completed([pool.submit(self._ask_until_readable, asked, store) for asked in todo]):
                finished.result()
                tick(1)
            ended = True
        except KeyboardInterrupt:
            self._say("Waiting for the judge's answers that are under way.")
            raise Interrupted(
                f"Stopped after {plural(self.server.calls.used, 'call')} to the judge. Every verdict is kept; the same "
                "command continues from here."
            ) from None
        finally:
            if not ended:
                self.server.stop()
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask_until_readable(self, asked: Asked, store: VerdictStore) -> None:
        """Asks one question until a reply can be read, and stores each. A truncated reply is no verdict and gets more
        room the next time; if that helps, later questions have it at once."""
        key, room = store.key(*asked), self._room
        while not self.is_answered(earlier := store.get(key)):
            try:
                reply, ended = self._ask(self._questions[asked], attempt=len(earlier), room=room)
            except Stopped:
                return
            except ServerFault as fault:
                if fault.status != 400 or not _OF_THIS_ONE.search(fault.message):
                    raise
                self._note_refusal(fault.message)
                store.add([(key, {"verdict": None, "refused": fault.message})])
                return
            verdict = parse(reply) if ended else None
            if verdict:
                self._room = max(self._room, room)
            elif not ended:
                room = MORE_ROOM
            store.add([(key, {"verdict": verdict, "reply": reply[-_KEPT:]})])

    def _ask(self, question: JudgeQuestion, *, attempt: int, room: int) -> tuple[str, bool]:
        """(the reply, whether it came to its end)."""
        while True:
            payload = self.payload(question, attempt=attempt, room=room)
            try:
                answer = self.server.complete(payload)
            except ServerFault as fault:
                if fault.status not in (400, 422) or not self._adapt(fault.message, payload):
                    raise
                continue
            choice = answer["choices"][0]
            content = choice["message"].get("content")
            return content if isinstance(content, str) else "", choice.get("finish_reason") != "length"

    def _note_refusal(self, message: str) -> None:
        with self._lock:
            self.refused += 1
            if self.refused > 1:
                return
        self._say(f"The judge's server refuses a question, which counts as unreadable: {message}")

    def payload(self, question: JudgeQuestion, *, attempt: int = 0, room: int = ROOM) -> dict[str, Any]:
        """The request. One user message: some templates know no system's."""
        settings = {"temperature": WARMTH if attempt else 0, "seed": attempt}
        longest = "max_completion_tokens" if self._renamed else "max_tokens"
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": question_text(question, self.for_what)}],
            longest: room,
            **{name: value for name, value in settings.items() if name not in self._omitted},
        }

    def _adapt(self, message: str, payload: dict[str, Any]) -> bool:
        """Omits or renames parameters that the server does not accept; returns whether that changed anything."""
        with self._lock:
            if "max_tokens" in payload and _RENAMED.search(message) and not _OF_THIS_ONE.search(message):
                if not self._renamed:
                    self._renamed = True
                    self._say("The judge's server takes max_completion_tokens, not max_tokens.")
                return True
            for name in ("temperature", "seed"):
                if name in payload and name in message:
                    if name not in self._omitted:
                        self._omitted.add(name)
                        self._say(f"The judge's server takes no {name}: verdicts may differ from run to run.")
                    return True
        return False
