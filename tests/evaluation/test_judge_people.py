"""A judge compared with people: which pairs, from where, and what is said of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from labelling import rows_of, served, write_lines

from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.common.eval_config import PAIRS, EvalConfig
from kto_cli.core.statistics.judge_errors import corrected, one_rate, two_rates
from kto_cli.core.statistics.win_rates import JudgedComparison, judged
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.texts import question
from kto_cli.evaluation.judge.comparisons import Comparison
from kto_cli.evaluation.judge.people import (
    Preference,
    against_people,
    preferences_in_file,
    preferences_of_rows,
)

SIDES = ("a", "b")


def test_pairs_of_validation_rows(pico_data):
    data = load_data_dir(pico_data)
    found = preferences_of_rows(data, 100)
    labels = {row.completion[0]["content"]: row.label for row in data.validation}  # type: ignore[index]
    assert len(found) == len({row.prompt_id for row in data.validation}) == 4
    for each in found:
        assert (labels[each.comparison.model], labels[each.comparison.baseline]) == (True, False)
    assert preferences_of_rows(data, 2) == found[:2]
    assert preferences_of_rows(data, 0) == []


def test_pairs_of_a_file_are_those_on_which_people_agree_that_one_is_better(tmp_path):
    """Chats and texts; people agree on the first three, call the fourth both good, and contradict each other on the
    fifth."""
    prompts = [[{"role": "user", "content": f"q {index}"}] if index % 2 else f"q {index}" for index in range(5)]
    rows = [{"prompt": each, "completions": [f"one {index}", f"two {index}"]} for index, each in enumerate(prompts)]
    out = tmp_path / "labels.jsonl"
    with served(write_lines(tmp_path / "a.jsonl", rows), out) as page:
        for name in ("ana", "ben"):
            while item := page.state(name)["item"]:
                texts = [answer[0]["text"] for answer in item["answers"]]
                number = int(texts[0].split()[1])
                wanted = "two" if number == 4 and name == "ben" else "one"
                first = texts[0].startswith(wanted)
                page.label(name, "both" if number == 3 else "first" if first else "second")
    before = out.read_bytes()
    out.write_bytes(before + b'{"prompt": "q')  # somebody is labelling
    found = preferences_in_file(out)
    assert out.read_bytes() == before + b'{"prompt": "q'
    said = {(each.comparison.model, each.comparison.baseline) for each in found}
    assert said == {(f"one {index}", f"two {index}") for index in range(3)}
    asked = {each.comparison.model: each.comparison.prompt for each in found}
    assert all(question(prompt) == f"q {text.split()[1]}" for text, prompt in asked.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "There is no file"),
        ("", "nobody called one of two answers better"),
        ('{"prompt": "p"}\n', "is not a label of kto label"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    path = tmp_path / "labels.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=said):
        preferences_in_file(path)


def made(right: int, wrong: int, better: str = "", worse: str = "") -> tuple[list[Preference], list[JudgedComparison]]:
    """Pairs of which the judge is for the preferred answer, and for the other one."""
    preferences = [Preference(Comparison(str(index), "p", "x", "y"), better, worse) for index in range(right + wrong)]
    verdicts = [judged(str(index), (float(index < right),) * 2, "x", "y") for index in range(right + wrong)]
    return preferences, verdicts


def test_agreement_and_the_corrected_win_rate():
    preferences, verdicts = made(32, 8)
    verdicts[0] = verdicts[0]._replace(model_first=None)
    outcomes = [1.0] * 60 + [0.0] * 40
    found = against_people(outcomes, preferences, verdicts, sides=SIDES, source="validation rows")
    assert (found["pairs"], found["unreadable"], found["by_side"]) == (39, 1, False)
    assert found["agreement"] == pytest.approx(31 / 39)
    expected = corrected(outcomes, one_rate([1.0] * 31 + [0.0] * 8))
    assert {name: found[name] for name in expected} == expected
    assert found["sentence"].startswith(
        "The judge prefers what people prefer in 79% [67%, 88%] of 39 pairs (validation rows);"
    )
    assert f"corrected for that, the win rate is {found['win_rate']:.1%} [" in found["sentence"]


def test_pairs_of_the_very_sides_show_the_errors_on_each_side():
    """The judge favours a: right in 19 of 20 where people prefer a's answer, in 12 of 20 where they prefer b's."""
    for_a, for_b = made(19, 1, "a", "b"), made(12, 8, "b", "a")
    outcomes = [1.0] * 60 + [0.0] * 40
    found = against_people(outcomes, for_a[0] + for_b[0], for_a[1] + for_b[1], sides=SIDES, source="labels.jsonl")
    expected = corrected(outcomes, two_rates([1.0] * 19 + [0.0], [1.0] * 12 + [0.0] * 8))
    assert found["by_side"] is True
    assert found["win_rate"] == expected["win_rate"] == pytest.approx((0.6 + 0.6 - 1) / (0.95 + 0.6 - 1))
    few = against_people(outcomes, for_a[0] + for_b[0][:9], for_a[1] + for_b[1][:9], sides=SIDES, source="x")
    others = against_people(outcomes, for_a[0] + for_b[0], for_a[1] + for_b[1], sides=("a", "c"), source="x")
    assert (few["by_side"], others["by_side"]) == (False, False)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (8, 1, "fewer than ten comparisons, or pairs of people"),
        (20, 20, "not shown to do better than guessing"),
        (0, 0, "on no pair"),
    ],
)
def test_what_cannot_be_corrected_is_said(right, wrong, said):
    found = against_people([1.0] * 50 + [0.0] * 50, *made(right, wrong), sides=SIDES, source="x")
    assert said in found["sentence"]
    assert math.isnan(found["win_rate"])


def test_a_judge_on_this_machine_is_compared_by_default_and_a_server_when_asked():
    local, server = {"judge_model": "m"}, {"judge_model": "m", "judge_url": "http://localhost:1/v1"}
    assert EvalConfig().pairs == 0
    assert EvalConfig(**local).pairs == PAIRS
    assert EvalConfig(**local, judge_pairs=7).pairs == 7
    assert EvalConfig(**local, judge_labels="x").pairs == 0
    assert EvalConfig(**server).pairs == 0
    assert EvalConfig(**server, judge_pairs=7).pairs == 7
    both = {**local, "judge_pairs": 1, "judge_labels": "x"}
    for flags in ({"judge_pairs": 3}, {"judge_labels": "x"}, {**local, "judge_pairs": -1}, both):
        with pytest.raises(BadFlag):
            EvalConfig(**flags)  # type: ignore[arg-type]


def test_labels_of_pairs_have_what_is_needed(tmp_path):
    """A row says whose answer it is, so that the two sides of a comparison are found again."""
    rows = [{"prompt": "q", "completions": ["one", "two"], "model": "m"}]
    with served(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "l.jsonl") as page:
        page.label("ana", "first")
    [found] = preferences_in_file(tmp_path / "l.jsonl")
    assert (found.better, found.worse) == ("m", "m")
    assert json.dumps(rows_of(Path(tmp_path / "l.jsonl"))[0])
