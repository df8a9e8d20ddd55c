"""Feedback made for tests in the form of every source, sound and broken, with the rows that each record counts for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.files import file_sha256
from kto_cli.common.screen import Screen
from kto_cli.data.dataset import load_data_dir
from kto_cli.workflows.binarize import run

WORDS = ("fern", "kettle", "bicycle", "parrot", "violin", "map", "lantern", "spoon")
SOUND = 6
"""Numbers below this are sound records, others are broken in the way of their number."""


class Made(NamedTuple):
    """A record (or, as text, a line that is not JSON) and how many rows it counts for."""

    record: Any
    rows: int


class Form(NamedTuple):
    """How the records of a source are made and given to `kto binarize`."""

    make: Callable[[int, int], Made]
    """(which kind, place in the file) -> record; kinds below SOUND are sound."""
    kinds: int
    file: str
    options: dict[str, Any] = {}  # noqa: RUF012


class Recorder(Screen):
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, *texts: str) -> None:
        self.notes.extend(texts)

    def warn(self, *texts: str) -> None:
        self.warnings.extend(texts)


def binarize(*sources: str, out: Path | None, screen: Screen | None = None, **options: Any) -> dict[str, Any]:
    """`kto binarize` without its command line."""
    config = BinarizeConfig(sources, out=None if out is None else str(out), **options)
    return run(config, screen or Recorder())


def question(kind: int) -> str:
    """One of a few prompts, so that rows share them."""
    return f"How do I look after my {WORDS[kind % len(WORDS)]}?"


def chat(*texts: str) -> list[dict[str, str]]:
    """Turns of a user and an assistant."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def good(place: int) -> str:
    return f"Gladly, in {place % 5} steps."


def bad(place: int) -> str:
    return f"No {place % 4}."


def hh(kind: int, place: int) -> Made:
    """Turns of depth 1 or 2 below a few first turns."""
    head = f"\n\nHuman: {question(kind)}\n\nAssistant:"
    if kind % 2:
        head += f" Well.\n\nHuman: And then, for {place % 3} days?\n\nAssistant:"
    pair = {"chosen": f"{head} {good(place)}", "rejected": f"{head} {bad(place)}"}
    broken: list[Any] = [
        "{broken",
        [pair],
        {"chosen": pair["chosen"]},
        {**pair, "rejected": 3},
        {**pair, "rejected": pair["chosen"]},
        {**pair, "rejected": head},
        {"chosen": "Hello.", "rejected": "Hello?"},
        {**pair, "rejected": "\n\nHuman: Another?\n\nAssistant: No."},
    ]
    return Made(pair if kind < SOUND else broken[kind - SOUND], 2)


def shp(kind: int, place: int) -> Made:
    """Either comment is the better one, by three times or more."""
    record = {
        **{"history": question(kind), "human_ref_A": good(place), "human_ref_B": bad(place), "labels": 1},
        **{"score_A": 9, "score_B": 3, "post_id": f"p{kind}", "domain": "askhr_train"},
    }
    if place % 2:
        record |= {"human_ref_A": bad(place), "human_ref_B": good(place), "labels": 0, "score_A": 1, "score_B": 4}
    broken: list[Any] = [
        "[1, 2",
        None,
        {**record, "labels": 2},
        {**record, "score_A": 5, "score_B": 5},
        {**record, "labels": 1 - record["labels"]},
        {**record, "history": " "},
        {**record, "score_A": 5 - record["labels"] * 2, "score_B": 3 + record["labels"] * 2},
        {**record, "labels": 1, "score_A": 4, "score_B": 3},
    ]
    return Made(record if kind < SOUND else broken[kind - SOUND], 2)


def oasst(kind: int, place: int) -> Made:
    """A tree whose root has one to six replies."""

    def reply(number: int, **more: Any) -> dict[str, Any]:
        own = {"message_id": f"{place}-{number}", "role": "assistant", "rank": number, "replies": []}
        return {**own, "text": f"{good(place)} So {number}.", "emojis": {"+1": number, "-1": kind % 3}, **more}

    replies = [reply(number) for number in range(kind % SOUND + 1)]
    if kind >= SOUND:
        faults: list[dict[str, Any]] = [
            {"text": " "},
            {"rank": None},
            {"deleted": True},
            {"role": "nobody"},
            {"text": replies[0]["text"]},
            {"rank": 0},
            {"rank": -3},
            {"review_result": False},
        ]
        replies.append(reply(7, **faults[kind - SOUND]))
    root = {"message_id": f"t{place}", "role": "prompter", "text": question(place), "lang": "en", "replies": replies}
    return Made({"message_tree_id": f"t{place}", "tree_state": "ready_for_export", "prompt": root}, len(replies))


def ultrafeedback(kind: int, place: int) -> Made:
    """Up to six completions of different scores."""
    answers: list[Any] = [
        {"response": f"{good(place)} {number}", "overall_score": float(number + 1)}
        for number in range(kind % SOUND + 1)
    ]
    record = {"instruction": question(place), "completions": answers}
    broken: list[tuple[Any, int]] = [
        ("{", 4),
        ([], 4),
        ({**record, "completions": None}, 4),
        ({**record, "instruction": ""}, len(answers)),
        ({**record, "completions": [*answers, {"response": "x", "overall_score": None}]}, len(answers) + 1),
        ({**record, "completions": [*answers, {"response": "x", "overall_score": 11}]}, len(answers) + 1),
        ({**record, "completions": [*answers, "x"]}, len(answers) + 1),
        ({**record, "completions": []}, 0),
    ]
    return Made(record, len(answers)) if kind < SOUND else Made(*broken[kind - SOUND])


def alpaca_eval(kind: int, place: int) -> Made:
    """Either output is the better one."""
    record = {
        **{"instruction": question(kind), "output_1": good(place), "output_2": bad(place)},
        **{"preference": 1.25 if place % 2 else 2},
    }
    broken: list[Any] = [
        "text",
        7,
        {**record, "preference": 1.5},
        {**record, "preference": None},
        {**record, "preference": 3},
        {**record, "output_1": record["output_2"]},
        {**record, "output_2": ""},
        {**record, "instruction": ["?"]},
    ]
    return Made(record if kind < SOUND else broken[kind - SOUND], 2)


def halos(kind: int, place: int) -> Made:
    """All three types."""
    prompt, answer = chat(question(kind)), [{"role": "assistant", "content": good(place)}]
    other = [{"role": "assistant", "content": bad(place)}]
    binary = {"type": "binary_feedback", "prompt": prompt, "output": answer, "label": bool(place % 2), "reward": 0.5}
    pair = {"type": "pairwise_feedback", "prompt": prompt, "output_A": answer, "output_B": other, "label": place % 2}
    scalar = {"type": "scalar_feedback", "prompt": prompt, "output": answer, "reward": place % 5}
    sound = [(binary, 1), (pair, 2), (scalar, 1)]
    broken: list[tuple[Any, int]] = [
        ("text", 1),
        ({**binary, "type": "samples"}, 1),
        ({**binary, "label": "good"}, 1),
        ({**pair, "label": None}, 2),
        ({**pair, "output_B": answer}, 2),
        ({**pair, "reward_A": 1, "reward_B": 1}, 2),
        ({**scalar, "reward": None}, 1),
        ({**scalar, "reward": "much"}, 1),
    ]
    return Made(*(sound[kind % 3] if kind < SOUND else broken[kind - SOUND]))


def trl(kind: int, place: int) -> Made:
    """Unpaired rows; see `hh` for pairs."""
    row = {"prompt": question(kind), "completion": (good if place % 2 else bad)(place), "label": bool(place % 2)}
    broken: list[Any] = [
        "null and void",
        "[]",
        {**row, "label": None},
        {**row, "label": "yes"},
        {**row, "completion": ""},
        {**row, "prompt": [{"role": "assistant", "content": "?"}]},
        {**row, "completion": "\ud800"},
        {key: value for key, value in row.items() if key != "prompt"},
    ]
    return Made(row if kind < SOUND else broken[kind - SOUND], 1)


def llama_factory(kind: int, place: int) -> Made:
    """Chats with a tag; a file holds either these or pairs."""
    human = {"from": "human", "value": question(kind)}
    answer = {"from": "gpt", "value": (good if place % 2 else bad)(place)}
    tagged = {"conversations": [human, answer], "kto_tag": bool(place % 2)}
    broken: list[Any] = [
        3,
        {**tagged, "kto_tag": None},
        {**tagged, "kto_tag": "good"},
        {**tagged, "conversations": [human]},
        {**tagged, "conversations": [answer, human]},
        {**tagged, "conversations": None},
        {**tagged, "conversations": [human, {"from": "gpt", "value": ""}]},
        {**tagged, "conversations": [human, {"from": "function_call", "value": "{}"}]},
    ]
    return Made(tagged if kind < SOUND else broken[kind - SOUND], 1)


def log(kind: int, place: int) -> Made:
    """Stars of a product."""
    row = {"prompt": question(kind), "completion": (good if place % 2 else bad)(place), "stars": 5 if place % 2 else 1}
    broken: list[Any] = [
        "stars",
        {**row, "stars": 3},
        {**row, "stars": None},
        {**row, "stars": "n/a"},
        {**row, "completion": None},
        {**row, "prompt": 4},
        {**row, "prompt": ""},
        "{}",
    ]
    return Made(row if kind < SOUND else broken[kind - SOUND], 1)


def open_webui(kind: int, place: int) -> Made:
    """A thumb on the first or second answer of a chat of two."""
    texts = (question(kind), (good if place % 2 else bad)(place), "Really?", "Yes.")
    turns = [
        {"id": f"m{index}", "parentId": f"m{index - 1}" if index else None, **turn}
        for index, turn in enumerate(chat(*texts))
    ]
    tree = {"messages": {turn["id"]: turn for turn in turns}, "currentId": "m3"}
    row: dict[str, Any] = {
        **{"type": "rating", "data": {"rating": 1 if place % 2 else -1}, "meta": {"message_id": "m1"}},
        **{"snapshot": {"chat": {"chat": {"history": tree}}}},
    }
    cut = {"messages": {name: turn for name, turn in tree["messages"].items() if name != "m0"}}
    broken: list[Any] = [
        "thumb",
        {**row, "data": {"rating": None}},
        {**row, "data": {"rating": 4}},
        {**row, "data": None},
        {**row, "meta": {"message_id": "m9"}},
        {**row, "meta": {"message_id": "m2"}},
        {**row, "snapshot": {"chat": {"chat": {"history": cut}}}},
        {**row, "snapshot": None},
    ]
    return Made(row if kind < SOUND else broken[kind - SOUND], 1)


def chat_ui(kind: int, place: int) -> Made:
    """Conversations of one or two rated answers."""
    turns = [
        {"id": str(index), "from": turn["role"], "content": turn["content"]}
        for index, turn in enumerate(chat(question(kind), good(place), "And?", bad(place)))
    ]
    turns[1]["score"], turns[3]["score"] = (1, -1) if place % 2 else (-1, 0)
    row = {"_id": f"c{place}", "messages": turns}
    of_user = [{**turns[0], "score": 1}, *turns[1:]]
    broken: list[tuple[Any, int]] = [
        ("{", 1),
        ({**row, "messages": None}, 1),
        ({**row, "messages": ["hello"]}, 1),
        ({**row, "messages": turns[:1]}, 1),
        ({**row, "messages": [*turns[:3], {**turns[3], "score": 5}]}, 2),
        ({**row, "messages": of_user}, 2 + place % 2),
        ({**row, "messages": [turns[0], {**turns[1], "ancestors": ["7"]}]}, 1),
        ({**row, "messages": [turns[0], {**turns[1], "files": ["a.png"]}]}, 1),
    ]
    return Made(row, 1 + place % 2) if kind < SOUND else Made(*broken[kind - SOUND])


def openai_preference(kind: int, place: int) -> Made:
    """Either answer is the better one."""
    one, other = ([{"role": "assistant", "content": text(place)}] for text in (good, bad))
    row = {"input": {"messages": chat(question(kind))}, "preferred_output": one, "non_preferred_output": other}
    broken: list[Any] = [
        "[",
        {**row, "input": None},
        {**row, "input": "Tea?"},
        {**row, "input": {**row["input"], "tools": [{"type": "function"}]}},
        {**row, "preferred_output": other},
        {**row, "preferred_output": []},
        {**row, "non_preferred_output": None},
        {**row, "input": {"messages": chat("Tea?", "Yes.")}},
    ]
    return Made(row if kind < SOUND else broken[kind - SOUND], 2)


FORMS: dict[str, Form] = {
    "hh-rlhf": Form(hh, SOUND + 8, "raw.jsonl"),
    "shp": Form(shp, SOUND + 8, "raw.jsonl"),
    "oasst": Form(oasst, SOUND + 8, "raw.jsonl"),
    "ultrafeedback": Form(ultrafeedback, SOUND + 8, "raw.jsonl"),
    "alpaca-eval": Form(alpaca_eval, SOUND + 8, "raw.json"),
    "halos": Form(halos, SOUND + 8, "raw.json", {"threshold": "2"}),
    "trl": Form(trl, SOUND + 8, "raw.jsonl"),
    "llama-factory": Form(llama_factory, SOUND + 8, "raw.json"),
    "open-webui": Form(open_webui, SOUND + 8, "raw.json"),
    "chat-ui": Form(chat_ui, SOUND + 8, "raw.jsonl"),
    "openai-preference": Form(openai_preference, SOUND + 8, "raw.jsonl"),
    "log": Form(log, SOUND + 8, "raw.jsonl", {"desirable": "stars >= 4", "undesirable": "stars <= 2"}),
}


def made(source: str, kinds: Sequence[int]) -> list[Made]:
    """A sound record of each of the six kinds twice, so that there is something to learn from, then those asked for."""
    form = FORMS[source]
    return [form.make(kind, place) for place, kind in enumerate((*range(SOUND), *range(SOUND), *kinds))]


def write(folder: Path, source: str, records: Sequence[Made]) -> str:
    """The records as a raw file; returns what to type for it."""
    path = folder / FORMS[source].file
    values = [one.record for one in records]
    if path.suffix == ".json":
        path.write_text(json.dumps(values), encoding="utf-8")
    else:
        lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return f"{source}:{path}"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def is_of(line: dict[str, Any], place: int) -> bool:
    """Whether a row or a reject is of the record at a place (from 1) of its file."""
    origin = line["origin"].partition(" message")[0].partition(" completion")[0]
    return origin.partition(":")[2] in (str(place), f"item {place}")


def both_splits(folder: Path) -> list[dict[str, Any]]:
    """All rows of a dataset."""
    return table(folder / "train.parquet") + table(folder / "validation.parquet")


def first_turn(row: dict[str, Any]) -> str:
    """What a conversation starts with."""
    return row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][0]["content"]


def check_whole(folder: Path, result: dict[str, Any], rows_in: int) -> None:
    """All counts of a written dataset: in the result, the manifest, the tables, and what is listed line by line."""
    train, validation = table(folder / "train.parquet"), table(folder / "validation.parquet")
    of_rejects: dict[str, Counter[str]] = {"rejected": Counter(), "dropped": Counter()}
    for line in lines_of(folder / "rejects.jsonl"):
        assert line["origin"]
        assert line["detail"]
        of_rejects[line["kind"]][line["reason"]] += line["rows"]
    assert of_rejects == {"rejected": result["rejected"], "dropped": result["dropped_reasons"]}
    lost = sum(sum(counts.values()) for counts in of_rejects.values())
    assert result["rows_in"] == rows_in == len(train) + len(validation) + lost
    assert result["dropped"] == sum(result["dropped_reasons"].values())
    for rows, name in ((train, "train"), (validation, "validation")):
        labels = Counter(row["label"] for row in rows)
        assert result["splits"][name] == {"desirable": labels[True], "undesirable": labels[False]}
    assert (result["desirable"], result["undesirable"]) == tuple(result["splits"]["train"].values())
    assert result["validation"] == len(validation)
    kept = {row["id"]: row["origin"] for row in (*train, *validation)}
    assert len(kept) == len(train) + len(validation)
    found: Counter[str] = Counter()
    for line in lines_of(folder / "findings.jsonl"):
        assert kept[line["id"]] == line["origin"]
        assert line.get("other", line["id"]) in kept
        found[line["finding"]] += 1
    assert found == {one["finding"]: one["rows"] for one in result["findings"] if one["rows"]}
    manifest = load_data_dir(folder).manifest
    assert {key: manifest[key] for key in result if key != "out"} == json.loads(
        json.dumps({key: value for key, value in result.items() if key != "out"})
    )
    assert manifest["files"] == {name: file_sha256(folder / name) for name in manifest["files"]}
    assert not {row["prompt_id"] for row in train} & {row["prompt_id"] for row in validation}
    assert not {str(row["prompt"]) for row in train} & {str(row["prompt"]) for row in validation}
