"""What exporters do to answers: cut at a length, newlines lost, JSON kept as text, half of the reasoning."""

from __future__ import annotations

import json
import random

import numpy
import pytest
from test_doctor import by_name, columns_of

from kto_cli.data.audit.checks import examine, fix_mask
from kto_cli.data.audit.cut_answers import cut_rows
from kto_cli.data.audit.exporter_damage import Shape, shape_of
from kto_cli.data.audit.found import Found
from kto_cli.data.audit.text_checks import look

TEXT = "the museum is open every day but on Monday and tickets can be bought at the door or on its site"
WORDS = TEXT.split()


def answers(count: int, longest: int, seed: int = 0) -> list[str]:
    """Answers of many lengths, in sentences."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        text, length = "", int(draw.lognormvariate(5.5, 0.7)) + 10
        while len(text) < min(length, longest):
            text += " ".join(draw.choices(WORDS, k=draw.randint(4, 14))).capitalize() + ". "
        made.append(text.strip())
    return made


def table_of(texts: list[str], sources: list[int] | None = None):
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    rows = [
        {
            "prompt": n,
            "completion": numbers[text],
            "label": n % 2,
            "chars": len(text),
            "shape": shape_of(text),
            "source": sources[n] if sources else 0,
        }
        for n, text in enumerate(texts)
    ]
    return columns_of(rows, numpy.zeros((len(rows), 4), numpy.uint64))


def cut_at_word(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3].rsplit(" ", 1)[0] + "..."


CUTS = {
    "at 300 characters": lambda text: text[:300],
    "at 500 characters and ...": lambda text: text if len(text) <= 500 else text[:500] + "...",
    "at 400 characters, the last …": lambda text: text if len(text) <= 400 else text[:399] + "…",
    "at a word": lambda text: cut_at_word(text, 400),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("seed", range(3))
def test_answers_cut_by_an_exporter(cut, seed):
    whole = answers(400, 3000, seed)
    texts = [CUTS[cut](text) for text in whole]
    columns = table_of(texts)
    expected = [n for n, text in enumerate(texts) if text != whole[n]]
    rows, limits = cut_rows(columns, numpy.arange(len(texts)))
    # an answer that ended within the limit by itself, or in a sentence's end, may be one more or less
    assert len(numpy.setxor1d(rows, expected)) <= 0.02 * len(expected)
    assert limits == [max(len(texts[n]) for n in expected)]
    finding = by_name(columns)["cut_answers"]
    assert finding.warns
    assert finding.advice == "export the whole answers; --fix cut-answers drops them"
    dropped = fix_mask(columns, frozenset(["cut-answers"]))["cut-answers"]
    assert numpy.flatnonzero(dropped).tolist() == rows.tolist()
    assert "cut_answers" not in by_name(columns, among=~dropped, fixes=frozenset(["cut-answers"]))


def test_each_source_has_a_limit_of_its_own():
    one, two, three = (
        [text[:limit] for text in answers(200, 3000, seed)] for seed, limit in enumerate((300, 500, 10**6))
    )
    columns = table_of([*one, *two, *three], [0] * 200 + [1] * 200 + [2] * 200)
    assert by_name(columns, ("a", "b", "c"))["cut_answers"].facts == {"limits": [300, 500]}


@pytest.mark.parametrize(
    "texts",
    [
        answers(400, 3000),
        answers(40, 3000),
        [f"{text[:-1]}..." if n % 3 else text for n, text in enumerate(answers(300, 3000))],
        ["yes", "no", "maybe so"] * 50,
        [
            f"Item {n:04d} is sold out and will be back in the shop within about two weeks, or so we were told by them"
            for n in range(60)
        ],
        [*answers(300, 300), *(answers(1, 3000, 1) * 12)],
        [*answers(300, 300), *(f"{n} " + "x" * 396 + "." for n in range(10, 18))],
    ],
    ids=[
        "lengths of all kinds",
        "few",
        "ellipses at all lengths",
        "labels",
        "one length",
        "one answer often",
        "whole sentences",
    ],
)
def test_answers_that_were_not_cut(texts):
    assert "cut_answers" not in by_name(table_of(texts))


LISTS = [
    "Here is how to make tea. 1. Boil the water. 2. Warm the pot. 3. Add the leaves. 4. Wait. " + "It is simple. " * 30,
    "You need: - two eggs - flour; - milk. - Sugar. - salt. Also: - butter. - a pan. - patience! "
    + "Then mix it. " * 30,
    "Use this: ```python print(1) ``` and run it in the shell of your choice. " + "It prints a number. " * 30,
]


def test_lost_newlines():
    flat = [f"{n}: {text}" for n in range(4) for text in LISTS]
    whole = [text.replace(". ", ".\n") for text in flat]
    prose = [text + " and so on" * 40 for text in answers(40, 3000)]
    found = by_name(table_of([*flat, *prose, *whole], [0] * 52 + [1] * 12), ("a", "b"))["lost_newlines"]
    assert found.rows.tolist() == list(range(12))
    assert found.warns
    assert "lost_newlines" not in by_name(table_of([*flat, *whole]))
    assert "lost_newlines" not in by_name(table_of(prose))


@pytest.mark.parametrize(
    ("prompt", "answer", "is_found"),
    [
        ("Any tea?", json.dumps({"content": "Green.", "model": "m"}), True),
        ("Any tea?", json.dumps([{"type": "text", "text": "Green."}]), True),
        ("Any tea?", "{'content': 'Green.', 'done': True}", True),
        ("Any tea?", json.dumps('Green.\nOr "black".'), True),
        ("Any tea? Answer as JSON.", json.dumps({"tea": "green"}), False),
        ('Any tea? {"tea": ...}', json.dumps({"tea": "green"}), False),
        ("Which numbers?", "[1, 2, 3]", False),
        ("Any tea?", '"Green."', False),
        ("Any tea?", "{green}", False),
        ("Any tea?", "[Green](https://example.org)", False),
    ],
)
def test_answers_that_are_json(prompt, answer, is_found):
    assert bool(look(prompt, answer) & Found.JSON_ANSWER) is is_found


def test_prompts_that_are_json():
    asked = {"role": "user", "content": json.dumps({"question": "Any tea?", "locale": "en"})}
    assert look((asked,), "Green.") == Found.JSON_PROMPT
    assert (
        look(({"role": "system", "content": json.dumps({"a": 1})}, {"role": "user", "content": "Tea?"}), "Green.") == 0
    )


@pytest.mark.parametrize(
    ("answer", "is_found"),
    [
        ("First the tea.\\n\\nThen the cake.\\n- and so on", True),
        ("1. Tea\\n2. Cake\\n3. More", True),
        ("First the tea.\nThen \\n\\n the cake. \\nNo", False),
        ("Use `\\n\\n` to end a paragraph, \\nLike that.", False),
        ("In LaTeX \\nabla and \\neq and \\nu are commands.", False),
        ("C:\\new\\notes\\now.txt", False),
    ],
)
def test_escaped_newlines(answer, is_found):
    assert bool(look("?", answer) & Found.ESCAPED) is is_found


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("and so it is four.\n</think>\n\nFour.", Found.HALF_THOUGHT),
        ("<think>\nTwo and two, let me see", Found.HALF_THOUGHT),
        ("[THINK]Two and two, let me see", Found.HALF_THOUGHT),
        ("two and two</reasoning>Four.", Found.HALF_THOUGHT),
        ("<think>\n\n</think>\n\nFour.", Found.NO_THOUGHT),
        ("<think></think>Four.", Found.NO_THOUGHT),
        ("<think>Two and two.</think>Four.", 0),
        ("The model writes `</think>` at the end.", 0),
        ("I think so.", 0),
        ("It opens with <think> and ends with </think>, as the paper says.", 0),
    ],
)
def test_reasoning(answer, found):
    assert look("What is two and two?", answer) == found


def test_shapes():
    assert shape_of("Green.") == 0
    assert shape_of("Green") == Shape.UNENDED
    assert shape_of("Gree...") == shape_of("Gree…") == Shape.TRAILS
    assert shape_of("Green tea.\n" * 50) == Shape.LINES
    assert not examine(table_of([]), ("one",))
