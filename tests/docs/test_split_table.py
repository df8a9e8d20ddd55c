"""What docs/feedback.md says of conversations that the prompts do not show."""

from __future__ import annotations

import random
import re

import pytest
from binarizing import binarize, write_lines
from conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "feedback.md"
CONVERSATIONS, TURNS = 2000, 5
COUNT = r" ([\d,]+)"
TABLE = re.findall(
    rf"^\| (their own turn|with the earlier turns) \| (0\.\d+) \|{COUNT} \|{COUNT} \|{COUNT}(?: \(([\d.]+) %\))? \|$",
    PAGE.read_text(),
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The same conversations with one turn in each prompt, and with the earlier turns too."""
    draw, words = random.Random(0), [f"w{number}" for number in range(5000)]
    single, whole = [], []
    for number in range(CONVERSATIONS):
        chat: list[dict[str, str]] = []
        for _ in range(TURNS):
            asked, answered = (" ".join(draw.choices(words, k=12)) for _ in range(2))
            cells = {"talk": number, "good": draw.random() < 0.7}
            single.append({**cells, "prompt": asked, "completion": answered})
            chat = [*chat, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
            whole.append({**cells, "messages": chat})
    folder = tmp_path_factory.mktemp("logs")
    return {
        "their own turn": write_lines(folder / "log.jsonl", *single),
        "with the earlier turns": write_lines(folder / "chats.jsonl", *whole),
    }


@pytest.mark.parametrize(("prompts", "share", "validation", "training", "dropped", "percent"), TABLE)
def test_the_table_says_what_is_dropped(logs, prompts, share, validation, training, dropped, percent):
    v = float(share)
    result = binarize(
        f"log:{logs[prompts]}", None, check=True, label_column="good", conversation_column="talk", validation=v
    )
    kept = result["desirable"] + result["undesirable"]
    assert [f"{count:,}" for count in (result["validation"], kept, result["dropped"])] == [
        validation,
        training,
        dropped,
    ]
    lost = result["dropped"] / (result["dropped"] + kept)
    assert f"{100 * lost:.1f}" == (percent or "0.0")
    assert lost == pytest.approx(0 if prompts != "their own turn" else 1 - (1 - v) ** (TURNS - 1), abs=0.03)


def test_the_table_has_each_kind_of_prompt():
    assert [row[0] for row in TABLE] == ["their own turn"] * 3 + ["with the earlier turns"]
