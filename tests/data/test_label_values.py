"""Cells of logs and tables as people have them: near values, empty ones, chats as text, columns in pairs."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from binarizing import Recorder, adds_up, binarize, write_lines

from kto_cli.common.errors import BadData, BadInput, KtoError
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.formats.column_names import is_negative, opposite_of
from kto_cli.data.formats.labels import fold, is_missing


def write_csv(path: Path, *rows: list[str], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def log_of(folder: Path, values: list[Any], column: str = "thumb", kind: str = "csv") -> Path:
    """A log with one row per value; prompts and answers are numbered."""
    if kind == "csv":
        rows = [[f"Q{number}", f"A{number}", str(value)] for number, value in enumerate(values)]
        return write_csv(folder / "log.csv", ["question", "answer", column], *rows)
    rows_of = [{"question": f"Q{n}", "answer": f"A{n}", column: value} for n, value in enumerate(values)]
    return write_lines(folder / "log.jsonl", *rows_of)


def labels_of(folder: Path) -> dict[str, bool]:
    """Answer -> label of the rows of a dataset."""
    return {row.completion[0]["content"]: row.label for row in load_data_dir(folder).train}  # type: ignore[index]


def run(path: Path | str, out: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Result and notes of a run on a log."""
    screen = Recorder()
    result = binarize(path, out, screen, validation=0, **options)
    assert adds_up(result)
    return result, screen.notes


def options_in(text: str) -> dict[str, str]:
    """The rules that a message proposes, as a shell would hand them over."""
    words = shlex.split(text[text.index("--desirable '") :])
    return {"desirable": words[1], "undesirable": words[3]}


# --- values near the one that a rule names ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (["yes", "Yes", "YES", "yes ", " Yes.", "ｙｅｓ", "no", "No", "never"], "thumb == 'yes'"),
        (["up", "Up", "UP\t", "up!", "\u200bup", '"up"', "down", "Down", "upper"], "thumb in ('up', 'good')"),
        (["👍", "👍🏽", "👍\ufe0f", "👍 ", "👍", "👍", "👎", "👎🏿", "-"], "thumb == '👍'"),
        (["5", "5.0", " 5", "5.", "+5", "05", "4", "50", "5 of 5"], "thumb == '5'"),
    ],
)
def test_else_never_takes_a_variant_of_the_named_value(tmp_path, values, rule):
    """The first six values are spellings of the named one: desirable, and listed; the others, if not empty, are not."""
    _, notes = run(f"log:{log_of(tmp_path, values)}", tmp_path / "out", desirable=rule, undesirable="else")
    expected = {f"A{n}": n < 6 for n, value in enumerate(values) if not is_missing(value)}
    assert labels_of(tmp_path / "out") == expected
    [line] = [note for note in notes if note.startswith("thumb: ")]
    assert "Read in another spelling: " in line
    flipped = tmp_path / "flipped"
    run(f"log:{tmp_path / 'log.csv'}", flipped, desirable="else", undesirable=rule)
    assert labels_of(flipped) == {answer: not label for answer, label in expected.items()}


EMPTY = ["", " ", "NaN", "nan", "None", "NULL", "null", "N/A", "n/a", "NA", "-", "--", "<NA>", "#N/A", "\\N"]


@pytest.mark.parametrize("undesirable", ["else", "thumb != 'up'", "thumb == 'down'"])
def test_empty_cells_have_no_label_and_are_shown(tmp_path, undesirable):
    path = log_of(tmp_path, ["up", "down", *EMPTY])
    result, notes = run(f"log:{path}", tmp_path / "out", desirable="thumb == 'up'", undesirable=undesirable)
    assert labels_of(tmp_path / "out") == {"A0": True, "A1": False}
    assert result["dropped_reasons"] == {"matches_neither": len(EMPTY)}
    [line] = [note for note in notes if note.startswith("thumb: ")]
    assert line.startswith("thumb: empty 2 (matches_neither), up 1 (desirable), down 1 (undesirable), NaN 1 (matches")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_empty_cells_of_label_and_score_columns_are_dropped(tmp_path, kind):
    path = log_of(tmp_path, ["true", "false", *EMPTY], kind=kind)
    result, _ = run(f"log:{path}", tmp_path / "labels", label_column="thumb")
    assert (result["dropped_reasons"], result["rejected"]) == ({"no_label": len(EMPTY)}, {})
    path = log_of(tmp_path, ["5", "1.5", *EMPTY, "4,5"], kind=kind)
    result, notes = run(f"log:{path}", tmp_path / "scores", score_column="thumb", threshold="3")
    assert (result["dropped_reasons"], result["rejected"]) == ({"no_score": len(EMPTY)}, {"score_not_a_number": 1})
    assert any('"4,5" x 1 (score_not_a_number)' in note for note in notes)


def test_values_with_their_counts_are_shown_where_some_did_not_match(tmp_path):
    """The line of issue 12: up 108, down 78, empty 14, UP 1; here with rules for the two."""
    values = ["up"] * 108 + ["down"] * 78 + [""] * 14 + ["UP", "Sideways"]
    rules = {"desirable": "thumb == 'up'", "undesirable": "thumb == 'down'"}
    result, notes = run(f"log:{log_of(tmp_path, values)}", tmp_path / "out", **rules)
    assert (
        "thumb: up 108 (desirable), down 78 (undesirable), empty 14 (matches_neither), UP 1 (desirable), "
        "Sideways 1 (matches_neither). Read in another spelling: UP as up."
    ) in notes
    assert (result["desirable"], result["undesirable"], result["dropped"]) == (109, 78, 15)
    with pytest.raises(BadData, match=r"thumb: up 108, down 78, UP 1, Sideways 1 \(all label_not_accepted\)|empty 14"):
        binarize(f"log:{tmp_path / 'log.csv'}", tmp_path / "no", label_column="thumb")


def test_many_values_and_prose_are_not_listed(tmp_path):
    values = [f"comment number {number}, thanks" for number in range(1500)] + ["useless"] * 3
    path = log_of(tmp_path, values)
    _, notes = run(f"log:{path}", tmp_path / "a", desirable="thumb contains 'thanks'", undesirable="else")
    assert "thumb: text 1,503 (1,500 desirable, 3 undesirable)." in notes
    _, notes = run(f"log:{path}", tmp_path / "b", desirable="thumb != 'useless'", undesirable="thumb == 'useless'")
    [line] = [note for note in notes if note.startswith("thumb: ")]
    assert line.startswith("thumb: useless 3 (undesirable), ")
    assert "other values" in line
    assert len(line) < 1000


# --- proposals: pasted as they are, they give right labels ----------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("column", "values", "good"),
    [
        ("helpful", ["yes", "Yes", "YES", "yes ", "no", "No"], [1, 1, 1, 1, 0, 0]),
        ("thumb", ["up", "down", "", "UP", "N/A", "sideways"], [1, 0, None, 1, None, None]),
        ("Was it good?", ["ja", "nein", "it's", "Ja."], [1, 0, None, 1]),
        ("is_bad", ["yes", "no", "no"], [0, 1, 1]),
        ("rating", ["GOOD", "BAD", "--"], [1, 0, None]),
        ("rating", ["thumbs_up", "thumbs-down", "Thumbs Up"], [1, 0, 1]),
        ("verdict", ["hallucinated", "correct"], [0, 1]),
        ("rating", [1, -1, 0, 1], [1, 0, None, 1]),
        ("rating", ["👍", "👎", "👍🏽"], [1, 0, 1]),
        ("rating", [":+1:", ":-1:", ":+1: "], [1, 0, 1]),
        ("rating", ["✅", "❌", "✔\ufe0f", "✗", "?"], [1, 0, 1, 0, None]),
        ("$x`y", ["good", "bad"], [1, 0]),
        ("mixed", [True, "yes", False, "no"], [1, 1, 0, 0]),
        ("mixed", [1, "yes", 0, "no"], [1, 1, 0, 0]),
        ("mixed", ["yes", True, 1, "no", 0], [1, 1, 1, 0, 0]),
        ("mixed", ["yes", 1, "no", 0, "TRUE", "good"], [1, 1, 0, 0, 1, 1]),
        ("mixed", ["up", 1, 0, False, "x", "Up"], [1, 1, 0, 0, None, 1]),
        ("rating", ["1", "\u22121", "up", "down"], [1, 0, 1, 0]),
    ],
)
def test_proposed_rules_pasted_as_they_are_label_right(tmp_path, kind, column, values, good):
    path = log_of(tmp_path, values, column, kind)
    option = (
        {"label_column": column} if not is_negative(column) else {"desirable": "question == 'x'", "undesirable": "else"}
    )
    if is_negative(column):
        option = {"desirable": f"{column} == 'x'", "undesirable": f"{column} == 'y'"}
    screen = Recorder()
    try:
        binarize(f"log:{path}", tmp_path / "first", screen, **option)
        [proposal] = [note for note in screen.notes if "--desirable" in note]
    except KtoError as error:
        proposal = error.next_step or error.what
    rules = options_in(proposal)
    run(f"log:{path}", tmp_path / "out", **rules)
    assert labels_of(tmp_path / "out") == {f"A{n}": bool(label) for n, label in enumerate(good) if label is not None}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_number_of_a_scale_has_no_certain_meaning(tmp_path, kind):
    """1 of 5 stars is not good, whatever words stand beside it: the proposal asks where good begins."""
    path = log_of(tmp_path, ["good", 5, 4, "bad", 1, 2, "", "green"], "thumb", kind)
    with pytest.raises(BadData, match="with NUMBER where numbers begin to be desirable") as caught:
        binarize(f"log:{path}", tmp_path / "out", label_column="thumb")
    rules = {option: rule.replace("NUMBER", "4") for option, rule in options_in(str(caught.value)).items()}
    result, _ = run(f"log:{path}", tmp_path / "out", **rules)
    assert labels_of(tmp_path / "out") == {f"A{n}": n < 3 for n in range(6)}
    assert (result["dropped_reasons"], result["rejected"]) == ({"matches_neither": 1}, {"rule_not_applicable": 1})


def test_a_column_in_two_notations_stops_the_run_and_a_slip_does_not(tmp_path):
    path = log_of(tmp_path, ["yes", 1, "no", 0, "TRUE", "good"])
    with pytest.raises(BadData, match=r"3 of 6 rows have a label in words.*Say what the values mean: --desirable"):
        binarize(f"log:{path}", tmp_path / "out", label_column="thumb")
    assert not (tmp_path / "out").exists()
    screen = Recorder()
    result = binarize(f"log:{log_of(tmp_path, ['yes', *[1, 0] * 5])}", tmp_path / "out", screen, label_column="thumb")
    assert result["rejected"] == {"label_not_accepted": 1}
    assert "Say what the values mean: --desirable 'thumb in (\"yes\", 1)' --undesirable 'thumb == 0'" in screen.warnings
    rules = {"desirable": "thumb == 1", "undesirable": "thumb == 0"}
    result, _ = run(f"log:{tmp_path / 'log.csv'}", tmp_path / "rules", **rules)
    assert result["rejected"] == {"rule_not_applicable": 1}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rules_that_fit_no_value_are_met_with_rules_that_do(tmp_path, kind):
    """`helpful == true` of "yes" is not applicable, "good" of "up" is nothing."""
    for rule, opposite in (("helpful == true", "helpful == false"), ("helpful == 'good'", "helpful == 'bad'")):
        path = log_of(tmp_path, ["yes", "no", "YES"], "helpful", kind)
        with pytest.raises(BadData) as caught:
            binarize(f"log:{path}", tmp_path / "out", desirable=rule, undesirable=opposite)
        run(f"log:{path}", tmp_path / "out", overwrite=True, **options_in(str(caught.value)))
        assert labels_of(tmp_path / "out") == {"A0": True, "A1": False, "A2": True}
        shutil.rmtree(tmp_path / "out")


def test_a_table_of_thumbs_in_numbers_is_shown_the_command_for_it(tmp_path):
    rows = [{"prompt": f"Q{n}", "completion": f"A{n}", "label": label} for n, label in enumerate([1, -1, 0, 1])]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(BadData, match="label: 1 x 2, -1 x 1, 0 x 1") as caught:
        binarize(path, tmp_path / "out")
    run(f"log:{path}", tmp_path / "out", **options_in(caught.value.next_step))
    assert labels_of(tmp_path / "out") == {"A0": True, "A1": False, "A3": True}


def test_nothing_is_proposed_where_the_rules_fit(tmp_path):
    path = log_of(tmp_path, ["up", "down", "sideways", "up", ""])
    _, notes = run(f"log:{path}", tmp_path / "out", desirable="thumb == 'up'", undesirable="thumb == 'down'")
    assert not any("--desirable" in note for note in notes)
    rows = [
        {"question": f"Q{n}", "answer": f"A{n}", "a": a, "b": b} for n, (a, b) in enumerate([("yes", 1), ("no", 0)])
    ]
    rows.append({"question": "Q2", "answer": "A2", "a": "no", "b": 1})
    rules = {"desirable": "a == 'yes' and b == 1", "undesirable": "a == 'no' and b == 0"}
    _, notes = run(f"log:{write_lines(tmp_path / 'a.jsonl', *rows)}", tmp_path / "two", **rules)
    assert not any("--desirable" in note for note in notes)


def test_no_rules_are_proposed_for_values_without_a_certain_meaning(tmp_path):
    path = log_of(tmp_path, ["red", "blue", "red"])
    with pytest.raises(BadData) as caught:
        binarize(f"log:{path}", tmp_path / "out", label_column="thumb")
    assert "--desirable" not in str(caught.value)
    assert "thumb: red 2, blue 1 (all label_not_accepted)." in str(caught.value)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_table_with_other_labels_is_shown_the_command_for_it(tmp_path, kind):
    """FAULTS 7.9: a label "up" in JSONL had no next step."""
    texts = [{"prompt": f"Q{n}", "completion": f"A{n}"} for n in range(4)]
    if kind == "chat":
        texts = [
            {"messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": f"A{n}"}]}
            for n in range(4)
        ]
    labels = ["up", "down", "up", "Down"]
    path = write_lines(tmp_path / "my rows.jsonl", *({**row, "label": x} for row, x in zip(texts, labels, strict=True)))
    with pytest.raises(BadData) as caught:
        binarize(path, tmp_path / "out")
    assert "label: up 2, down 1, Down 1 (all label_not_accepted)." in caught.value.what
    words = shlex.split(caught.value.next_step[caught.value.next_step.index("kto binarize") :])
    assert words[2] == f"log:{path}"
    run(words[2], tmp_path / "out", **options_in(caught.value.next_step))
    assert labels_of(tmp_path / "out") == {"A0": True, "A1": False, "A2": True, "A3": False}


# --- columns that mean the opposite, or come in two -----------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "yes", "no"),
    [
        (("thumbs_up", "thumbs_down"), 1, 0),
        (("thumbs_up", "thumbs_down"), True, False),
        (("thumbsUp", "thumbsDown"), "true", "false"),
        (("liked", "disliked"), "yes", "no"),
        (("Up Votes", "Down Votes"), 3, 0),
        (("is_good", "is_bad"), "x", ""),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_two_columns_of_feedback_need_two_rules_which_are_proposed(tmp_path, names, yes, no, kind):
    """A row with neither thumb has no feedback; taken by thumbs_up alone it would be undesirable."""
    rows = [["question", "answer", *names]]
    rows += [[f"Q{n}", f"A{n}", up, down] for n, (up, down) in enumerate([(yes, no), (no, yes), (no, no), (yes, no)])]
    if kind == "csv":
        path = write_csv(tmp_path / "log.csv", *([str(cell) for cell in row] for row in rows))
    else:
        path = write_lines(tmp_path / "log.jsonl", *(dict(zip(rows[0], row, strict=True)) for row in rows[1:]))
    for label_column in (*names, *([None] if names[0] in ("thumbs_up", "thumbsUp", "liked") else [])):
        with pytest.raises(BadInput, match="two columns of feedback") as caught:
            binarize(f"log:{path}", tmp_path / "out", label_column=label_column)
    result, _ = run(f"log:{path}", tmp_path / "out", **options_in(str(caught.value)))
    assert labels_of(tmp_path / "out") == {"A0": True, "A1": False, "A3": True}
    assert result["dropped_reasons"] == {"matches_neither": 1}


@pytest.mark.parametrize("column", ["is_bad", "thumbs_down", "hallucinated", "has_error", "Is Toxic", "not_helpful"])
@pytest.mark.parametrize(("yes", "no"), [(1, 0), (True, False), ("yes", "no")])
def test_a_label_column_that_means_bad_is_refused_with_rules(tmp_path, column, yes, no):
    path = log_of(tmp_path, [yes, no, yes], column, "jsonl")
    with pytest.raises(BadInput, match="by its name") as caught:
        binarize(f"log:{path}", tmp_path / "out", label_column=column)
    run(f"log:{path}", tmp_path / "out", **options_in(str(caught.value)))
    assert labels_of(tmp_path / "out") == {"A0": False, "A1": True, "A2": False}


def test_a_score_column_that_means_bad_is_refused_with_rules(tmp_path):
    path = log_of(tmp_path, ["0.9", "0.1"], "toxicity")
    with pytest.raises(BadInput, match="a high toxicity, by its name, is bad") as caught:
        binarize(f"log:{path}", tmp_path / "out", score_column="toxicity", threshold="0.5")
    run(f"log:{path}", tmp_path / "out", **options_in(str(caught.value)))
    assert labels_of(tmp_path / "out") == {"A0": False, "A1": True}


def test_names_that_mean_bad_and_names_that_do_not():
    bad = ["isBad", "thumbs-down", "n_dislikes", "Flagged", "unhelpful", "not_good", "user_reported"]
    good = [
        "label",
        "good",
        "resolved",
        "thumbs_up",
        "not_flagged",
        "error_free",
        "feedback",
        "stars",
        "complaint_resolved",
    ]
    assert [name for name in bad if not is_negative(name)] == []
    assert [name for name in good if is_negative(name)] == []
    assert opposite_of("thumbs_up", ["a", "ThumbsDown"]) == "ThumbsDown"
    assert opposite_of("stars", ["a", "b"]) is None


# --- chats and lists in cells -----------------------------------------------------------------------------------


def numpy_text(value: Any) -> str:
    import numpy

    return str(numpy.array(value, dtype=object))


def chat(number: int, answer: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    asked = [
        {"role": "system", "content": 'It\'s "short".\nAlways [1], {2}.'},
        {"role": "user", "content": f"What's {number}?"},
    ]
    return asked, [{"role": "assistant", "content": answer}]


SCORES = [{"name": "thumbs", "value": 1, "note": None}, {"name": "tone", "value": 3}]


@pytest.mark.parametrize("write", [list, json.dumps], ids=["list", "text"])
@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("scores[name='thumb'].value", "no item of scores has the name 'thumb', they have thumbs, tone."),
        ("scores[key='thumbs'].value", "the items of scores have no key, they have the fields name, value, note."),
        ("scores[name='thumbs'].val", "scores[name='thumbs'] has the fields name, value, note."),
        ("scores[name='thumbs'].note", "scores[name='thumbs'] has that field, without a value."),
        ("scores[7].value", "scores has 2 items at most."),
        ("meta.user.vote", "meta.user has the fields id."),
    ],
)
def test_a_path_that_leads_nowhere_is_met_with_what_is_there(tmp_path, write, path, there):
    rows = [
        {"question": f"Q{n}", "answer": f"A{n}", "scores": write(SCORES), "meta": {"user": {"id": 1}}} for n in range(3)
    ]
    file, screen = write_lines(tmp_path / "a.jsonl", *rows), Recorder()
    with pytest.raises(BadData, match="matches_neither"):
        binarize(f"log:{file}", tmp_path / "out", screen, desirable=f"{path} == 1", undesirable="else")
    assert f"{path} is empty in all rows: {there}" in screen.notes


@pytest.mark.parametrize(
    "path", ["scores[name=thumbs].value", "scores['thumbs']", "scores[name='thumbs'", "scores[].value"]
)
def test_a_path_without_quotes_or_bracket_is_met_with_the_syntax(tmp_path, path):
    file = write_lines(tmp_path / "a.jsonl", {"question": "Q", "answer": "A", "scores": SCORES})
    for options in ({"desirable": f"{path} == 1", "undesirable": "else"}, {"label_column": path}):
        with pytest.raises(
            BadInput, match=r'rite an item of a list as votes\[0\] or scores\[name="thumbs"\], with the text'
        ):
            binarize(f"log:{file}", tmp_path / "out", **options)


@pytest.mark.parametrize("write", [json.dumps, repr, numpy_text], ids=["json", "python", "numpy"])
@pytest.mark.parametrize("file", ["csv", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("layout", ["prompt", "messages", "pairs", "log", "log messages", "halos"])
def test_chats_written_as_text_in_cells_are_chats(tmp_path, write, file, layout):
    """The same rows as lists and as text, in each file and layout, give the same dataset, and the text is said."""
    rows: list[dict[str, Any]] = []
    for number in range(4):
        asked, good = chat(number, f"Yes {number}.")
        bad = chat(number, f"No, it's {number}")[1]
        answer, label = (good, True) if number % 2 else (bad, False)
        rows.append(
            {
                "prompt": {"prompt": asked, "completion": answer, "label": label},
                "messages": {"messages": asked + answer, "label": label},
                "pairs": {"chosen": asked + good, "rejected": asked + bad},
                "log": {"question": asked, "answer": answer[0], "label": label},
                "log messages": {"chat": {"messages": asked + answer}, "label": label},
                "halos": {"type": "binary_feedback", "prompt": asked, "output": answer, "label": int(label)},
            }[layout]
        )
    as_text = [
        {
            name: write(cell) if isinstance(cell, list) else repr(cell) if isinstance(cell, dict) else cell
            for name, cell in row.items()
        }
        for row in rows
    ]
    if file in ("csv", "tsv"):
        cells = [[str(cell) for cell in row.values()] for row in as_text]
        path = write_csv(tmp_path / f"a.{file}", list(rows[0]), *cells, delimiter="," if file == "csv" else "\t")
    elif file == "parquet":
        import pyarrow
        from pyarrow import parquet

        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(as_text), path)
    else:
        path = tmp_path / f"a.{file}"
        path.write_text(json.dumps(as_text) if file == "json" else "\n".join(map(json.dumps, as_text)))
    if layout == "halos" and file not in ("jsonl", "json"):
        pytest.skip("halos has JSON alone")
    source = "log:" if layout.startswith("log") else "halos:" if layout == "halos" else ""
    native = write_lines(tmp_path / "native.jsonl", *rows)
    result, notes = run(f"{source}{path}", tmp_path / "text")
    run(f"{source}{native}", tmp_path / "native")
    found, expected = (
        [(row.prompt, row.completion, row.label) for row in load_data_dir(tmp_path / name).train]
        for name in ("text", "native")
    )
    assert found == expected
    assert len(found) == (8 if layout == "pairs" else 4)
    assert any("chats written as text in a cell" in note.lower() for note in notes)
    assert sum(result["decisions"].values()) >= 4


def test_answers_that_are_json_stay_text(tmp_path):
    """An answer may quote a chat, a list or an object: only one that fits its prompt is read as a chat."""
    answers = [
        '[{"role": "user", "content": "Hi"}]',
        json.dumps({"messages": [*chat(1, "A")[0], *chat(1, "A")[1]]}),
        '["a", "b"]',
        '{"from": "Bonn", "to": "Rome"}',
        "[{'role': 'manager', 'content': 'Anna'}]",
        '{"role": "admin"}',
        "[1, 2, 3]",
        "{not json}",
        "array of roles {x}",
    ]
    rows = [{"prompt": f"Q{n}", "completion": text, "label": n % 2 == 0} for n, text in enumerate(answers)]
    result, notes = run(write_lines(tmp_path / "a.jsonl", *rows), tmp_path / "out")
    assert list(labels_of(tmp_path / "out")) == answers
    assert "Answers that are the JSON of a chat other than their prompt's, kept as text: 2." in notes
    assert [one["finding"] for one in result["findings"] if one["finding"].startswith("json_")] == ["json_answers"]
    assert not any("JSON of an object" in note for note in notes)


def test_a_truncated_chat_is_rejected(tmp_path):
    """Dify cuts answers at 500 characters: half a list is neither a chat nor an answer."""
    rows = [{"prompt": f"Q{n}", "completion": f"A{n}", "label": n > 1} for n in range(4)]
    rows[1]["completion"] = '[{"role": "assistant", "content": "Yes, it'
    rows[2]["prompt"] = "[{'role': 'user', 'content': 'What"
    result, _ = run(write_lines(tmp_path / "a.jsonl", *rows), tmp_path / "out")
    assert result["rejected"] == {"not_messages": 2}


def test_lists_of_texts_are_turns(tmp_path):
    """Votes over two models, as LMSYS publishes them: a list of questions and two of answers."""
    rows = [
        {"prompt": json.dumps([f"Q{n}"]), "a": json.dumps([f"A{n}"]), "b": json.dumps([f"B{n}"]), "win": n % 2}
        for n in range(2)
    ]
    rows.append({"prompt": '["P1", "P2"]', "a": '["X1", "X2"]', "b": '["X1", "Y2"]', "win": 1})
    rows.append({"prompt": '["P1", "P2"]', "a": '["X1", "X2"]', "b": '["Y1", "Y2"]', "win": 1})
    rows.append({"prompt": '["P1", null]', "a": '["X1", "X2"]', "b": '["Y1", "Y2"]', "win": 1})
    options = {"completion_column": "a", "other_column": "b", "desirable": "win == 1", "undesirable": "win == 0"}
    result, _ = run(f"log:{write_lines(tmp_path / 'v.jsonl', *rows)}", tmp_path / "out", **options)
    data = load_data_dir(tmp_path / "out").train
    chats = [([turn["content"] for turn in row.prompt], row.completion[0]["content"], row.label) for row in data]  # type: ignore[index,misc]
    assert sorted(chats, key=str) == sorted(
        [
            *((["Q0"], "A0", False), (["Q0"], "B0", True), (["Q1"], "A1", True), (["Q1"], "B1", False)),
            *((["P1", "X1", "P2"], "X2", True), (["P1", "X1", "P2"], "Y2", False)),
        ],
        key=str,
    )
    assert result["rejected"] == {"answer_not_one_turn": 2, "missing_field": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2]", [1, 2]),
        ("['a' 'b']", ["a", "b"]),
        ("[nan 1]", [None, 1]),
        ("array([{'a': 1}, {'b': 2}], dtype=object)", [{"a": 1}, {"b": 2}]),
        ("{'a': array(['x', 'y'], dtype=object), 'b': None}", {"a": ["x", "y"], "b": None}),
        ("[('a', 1), ('b', 2)]", [("a", 1), ("b", 2)]),
        ("[a, b]", None),
        ("[__import__('os').system('x')]", None),
        ("[" * 10_000 + "]" * 10_000, None),
        ('{"a": 1, "a": 2}', None),
        ("plain", None),
        ("", None),
        ("[1] and [2]", None),
    ],
)
def test_structures_in_text(text, value):
    assert structure_of(text) == value


# --- system messages, joined prompts, parts of cells, ignored columns ----------------------------------------------


def test_instruction_and_input_are_one_prompt_and_it_is_said(tmp_path):
    rows = [
        {"instruction": "Kind?", "input": text, "output": f"A{n}", "label": n > 0}
        for n, text in enumerate(["x", "", None, "N/A"])
    ]
    rows[2]["instruction"] = "Alone?"
    _, notes = run(f"log:{write_lines(tmp_path / 'a.jsonl', *rows)}", tmp_path / "out")
    prompts = [row.prompt[0]["content"] for row in load_data_dir(tmp_path / "out").train]  # type: ignore[index]
    assert prompts == ["Kind?\n\nx", "Kind?", "Alone?", "Kind?\n\nN/A"]
    assert "The prompt is instruction and input, joined by a blank line where both have text." in notes
    rows_of = [{"question": "Q", "context": f"C{n}", "answer": f"A{n}", "label": n > 0} for n in range(2)]
    path = write_lines(tmp_path / "b.jsonl", *rows_of)
    run(f"log:{path}", tmp_path / "joined", prompt_column="context+question")
    assert load_data_dir(tmp_path / "joined").train[0].prompt[0]["content"] == "C0\n\nQ"  # type: ignore[index]
    with pytest.raises(BadInput, match="no column 'contxt'"):
        binarize(f"log:{path}", tmp_path / "no", prompt_column="contxt+question")


def test_a_system_column_is_the_system_message(tmp_path):
    rows = [
        {"System Prompt": s, "question": f"Q{n}", "answer": f"A{n}", "label": n > 0}
        for n, s in enumerate(["Be kind.", None, " "])
    ]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    _, notes = run(f"log:{path}", tmp_path / "out")
    assert any("system message from System Prompt" in note for note in notes)
    roles = [[turn["role"] for turn in row.prompt] for row in load_data_dir(tmp_path / "out").train]  # type: ignore[misc]
    assert roles == [["system", "user"], ["user"], ["user"]]
    _, notes = run(f"log:{path}", tmp_path / "plain", text=True)
    assert "Columns ignored: System Prompt." in notes
    with pytest.raises(BadInput, match="no system message"):
        binarize(f"log:{path}", tmp_path / "no", text=True, system_column="System Prompt")


def test_a_system_column_beside_a_whole_chat(tmp_path):
    def row(number: int, system: str, *before: str) -> dict[str, Any]:
        turns = [("user", f"Q{number}"), ("assistant", f"A{number}")]
        turns = [*(("system", text) for text in before), *turns]
        return {"persona": system, "chat": [{"role": r, "content": c} for r, c in turns], "label": number > 0}

    rows = [row(0, "Kind."), row(1, "Kind.", "Kind."), row(2, "Kind.", "Rude.")]
    result, _ = run(f"log:{write_lines(tmp_path / 'a.jsonl', *rows)}", tmp_path / "out", system_column="persona")
    systems = [row.prompt[0]["content"] for row in load_data_dir(tmp_path / "out").train]  # type: ignore[index]
    assert systems == ["Kind.", "Kind."]
    assert result["rejected"] == {"two_system_messages": 1}


@pytest.mark.parametrize("kind", ["labels", "chats", "pairs"])
def test_a_system_column_of_a_table_in_trl_columns(tmp_path, kind):
    """The system message stands before the prompt; another one in the chat rejects the row."""

    def row(number: int, system: Any) -> dict[str, Any]:
        asked, answer = chat(number, f"A{number}")
        asked = [turn for turn in asked if turn["role"] != "system"]
        texts: dict[str, dict[str, Any]] = {
            "labels": {"prompt": f"Q{number}", "completion": f"A{number}", "label": number % 2},
            "chats": {"messages": asked + answer, "label": number % 2},
            "pairs": {"prompt": asked, "chosen": answer, "rejected": chat(number, "No.")[1]},
        }
        return texts[kind] | {"system": system}

    rows = [row(0, "Kind."), row(1, "Kind."), row(2, " "), row(3, None)]
    if kind == "chats":
        rows.append(row(4, "Kind."))
        rows[-1]["messages"].insert(0, {"role": "system", "content": "Rude."})
    result, notes = run(write_lines(tmp_path / "a.jsonl", *rows), tmp_path / "out")
    found = [row.prompt[0] for row in load_data_dir(tmp_path / "out").train]
    systems = [turn["content"] for turn in found if turn["role"] == "system"]  # type: ignore[index]
    assert systems == ["Kind."] * (4 if kind == "pairs" else 2)
    assert result["rejected"] == ({"two_system_messages": 1} if kind == "chats" else {})
    assert "Records whose system message is their column system: 2." in notes
    if kind == "labels":
        _, notes = run(tmp_path / "a.jsonl", tmp_path / "text", text=True)
        assert "Columns ignored: system." in notes


def test_columns_that_are_not_read_are_named(tmp_path):
    rows = [{"id": n, "question": f"Q{n}", "answer": f"A{n}", "fb": {"up": n}, "lang": "en"} for n in range(2)]
    rules = {"desirable": "fb.up == 1", "undesirable": "fb.up == 0"}
    _, notes = run(f"log:{write_lines(tmp_path / 'a.jsonl', *rows)}", tmp_path / "out", **rules)
    assert "Columns ignored: id, lang." in notes


def test_answers_by_a_path_into_lists(tmp_path):
    rows = [
        {"q": f"Q{n}", "response": {"choices": [{"message": {"content": f"A{n}"}}]}, "votes": [n, 0]} for n in range(2)
    ]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    answer = "response.choices[0].message.content"
    rules = {"desirable": "votes[0] == 1", "undesirable": "votes[0] == 0"}
    run(f"log:{path}", tmp_path / "out", prompt_column="q", completion_column=answer, **rules)
    assert labels_of(tmp_path / "out") == {"A0": False, "A1": True}
    with pytest.raises(BadData, match=r"response is an object, neither text nor .* as in response\.choices"):
        binarize(f"log:{path}", tmp_path / "no", prompt_column="q", completion_column="response", **rules)
    with pytest.raises(BadData, match=r"votes is \[0, 0\], none of .* as in votes\[0\]"):
        binarize(f"log:{path}", tmp_path / "no", prompt_column="q", completion_column=answer, label_column="votes")


# --- messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        (
            "nohead.csv",
            "Is it open?,Until six.,yes\nAny tea?,Green.,no\n",
            {"label_column": "good"},
            "has no header: add one",
        ),
        ("nohead.csv", "Is it open?,Until six.,yes\nAny tea?,Green.,no\n", {}, "has no header: add one"),
        (
            "num.jsonl",
            '{"question": "2+2?", "answer": 4, "good": true}\n',
            {"label_column": "good"},
            "answer is the number 4, neither text nor",
        ),
        (
            "two.csv",
            "question,query,answer,good\na,b,c,1\n",
            {"label_column": "good"},
            "or join them: --prompt-column question+query",
        ),
    ],
)
def test_messages_name_the_cause(tmp_path, name, text, options, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(KtoError) as caught:
        binarize(f"log:{path}", tmp_path / "out", **options)
    assert message in str(caught.value)


def test_known_names_in_other_spellings(tmp_path):
    for header in (
        "Question,Answer,Feedback",
        "USER_QUERY,Model Response,Thumbs Up",
        "userMessage,assistantMessage,isLabel",
    ):
        path = tmp_path / "a.csv"
        path.write_text(f"{header}\nQ0,A0,true\nQ1,A1,false\n")
        options = {} if "is" not in header else {"label_column": "isLabel"}
        run(f"log:{path}", tmp_path / "out", overwrite=True, **options)
        assert labels_of(tmp_path / "out") == {"A0": True, "A1": False}


def test_a_table_is_met_with_the_source_that_reads_it(tmp_path):
    rows = [{"conversations": [{"from": "human", "value": "Any tea?"}], "chosen": "Green.", "rejected": "Tea?"}]
    path = write_lines(tmp_path / "lf.jsonl", *rows)
    with pytest.raises(BadInput, match="kto binarize llama-factory:"):
        binarize(path, tmp_path / "out")
    pairs = [{"question": f"Q{n}", "chosen": f"A{n}", "rejected": f"B{n}", "system": "S"} for n in range(2)]
    path = write_lines(tmp_path / "orca.jsonl", *pairs)
    with pytest.raises(BadInput, match="kto binarize log:") as caught:
        binarize(path, tmp_path / "out")
    words = shlex.split(str(caught.value)[str(caught.value).index("kto binarize") :])
    options = {
        word[2:].replace("-", "_"): words[index + 1] for index, word in enumerate(words) if word.startswith("--")
    }
    run(words[2], tmp_path / "out", **options)
    assert labels_of(tmp_path / "out") == {"A0": True, "B0": False, "A1": True, "B1": False}


def test_a_header_written_again_is_no_row_of_any_file(tmp_path):
    rows = [{"question": "Q0", "answer": "A0", "thumb": "up"}, {"question": "Q1", "answer": "A1", "thumb": "down"}]
    again = {name: name for name in rows[0]}
    path = write_lines(tmp_path / "a.jsonl", rows[0], again, rows[1])
    result, _ = run(f"log:{path}", tmp_path / "out", desirable="thumb == 'up'", undesirable="else")
    assert result["rejected"] == {"repeated_header": 1}
    assert labels_of(tmp_path / "out") == {"A0": True, "A1": False}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("yes", " Yes.", True),
        ("1", "1.0", True),
        ("1", "-1", False),
        ("a_b", "a b", False),
        ("C", "C++", False),
        ("C", "C#", False),
        ("ß", "SS", True),
        ("...", "!!!", False),
    ],
)
def test_fold(one, other, same):
    assert (fold(one) == fold(other)) is same
