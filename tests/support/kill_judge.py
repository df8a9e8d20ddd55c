"""Judges some comparisons in a process of its own, to be killed: URL CACHE JUDGED_ANSWERS WORKERS."""

from __future__ import annotations

import sys
from pathlib import Path

from kto_cli.common.errors import Interrupted
from kto_cli.evaluation.judge.comparisons import Comparison
from kto_cli.evaluation.judge.judge import judge_all
from kto_cli.evaluation.judge.server_judge import ServerJudge
from kto_cli.evaluation.judge.store import VerdictStore
from kto_cli.evaluation.server.client import CallBudget, ChatServer
from kto_cli.evaluation.server.keys import key_for


def comparisons(count: int) -> list[Comparison]:
    return [
        Comparison(f"{place}", f"Question {place}?", f"Ours {place}.", f"Theirs {place}.") for place in range(count)
    ]


def main() -> None:
    url, cache, count, workers = sys.argv[1:]
    server = ChatServer(url, key=key_for(url), calls=CallBudget(10_000))
    judge = ServerJudge(server, "judge-1")
    store = VerdictStore(Path(cache), judge.identity)
    try:
        judge_all(judge, comparisons(int(count)), store, workers=int(workers))
    except Interrupted as stopped:
        print(stopped)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
