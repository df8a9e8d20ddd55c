"""Near-duplicate prompts: sketches against the exact Jaccard index, clusters against a naive search."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT, shared

from kto_cli.data.audit.minhash import ALIKE, HASHES, KEY_BITS, WIDTH, asked, features, folded_words, sketches
from kto_cli.data.audit.near_duplicates import _ones, agree, joined, near_duplicates

SYLLABLES = ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu"]
WORDS = [one + two for one in SYLLABLES for two in SYLLABLES]
MANY_WORDS = [one + two + three for one in WORDS for two in SYLLABLES for three in SYLLABLES]


def jaccard(left: str, right: str) -> float:
    """The exact index, of words and neighbouring words."""
    (one, two) = (set(words) | set(pairwise(words)) for words in map(folded_words, (left, right)))
    return len(one & two) / len(one | two)


def sketch(prompt) -> tuple[int, ...]:
    return tuple(sketches([prompt])[0].tolist())


def estimate(left: str, right: str) -> float:
    one, two = sketch(left), sketch(right)
    return 1 - 2 * sum((a ^ b).bit_count() for a, b in zip(one[:2], two[:2], strict=True)) / HASHES


def sentence(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def together(*prompts) -> bool:
    return len(set(near_duplicates(sketches(prompts)).tolist())) == 1


LONG = "Can you tell me how I should bake a cake for 12 people, with no sugar in it?"


@pytest.mark.parametrize(
    "other",
    [
        LONG.upper(),
        LONG.replace(" ", "  \n"),
        LONG.replace(",", "").rstrip("?"),
        LONG.replace("12", "200"),
        LONG.replace("cake", "pie"),
        "So: " + LONG,
    ],
)
def test_variants_of_a_prompt_are_together(other):
    assert together(LONG, other)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("What is 2+2?", "what is  2+2", True),
        ("What is 2+2?", "What is 2+3?", False),
        ("What is 2*7?", "What is 2-7?", False),
        ("Is it C++?", "Is it C?", False),
        ("Yes", "yes!!", True),
        ("Yes", "No", False),
        ("???", "!!!", False),
        ("👍", "👎", False),
        ("What’s up ...", "what's up", True),
        (
            "What’s the best way to get from my house to the airport?",
            "what's the best way to get from my house to the airport",
            True,
        ),
        ("今天天气怎么样？我们去哪里吃饭", "今天天气怎么样,我们去哪里吃饭!", True),
        ("今天天气怎么样？我们去哪里吃饭", "你好世界，请告诉我怎么学习中文", False),
        ("", "", True),
    ],
)
def test_short_prompts_and_other_scripts(left, right, same):
    assert together(left, right) is same


def test_only_what_the_user_said_counts():
    system = {"role": "system", "content": "You are a helpful assistant who answers every question in a friendly way."}
    ask = {"role": "user", "content": LONG}
    answer = {"role": "assistant", "content": "Sure! What kind?"}
    more = {"role": "user", "content": "Chocolate."}
    assert asked((system, ask, answer, more)) == f"{LONG}\nChocolate."
    assert sketch((system, ask)) == sketch((ask,)) == sketch(LONG)
    assert sketch((ask, answer, more)) == sketch((ask, {**answer, "content": "Other"}, more))


def test_folding():
    assert folded_words("Don't STOP: it’s 12,345.60 km, e.g. C++ or 5% of $3!") == (
        b"dont stop its 0 0 0 km e g c++ or 0% of $0".split()
    )
    text = "Über die Straße — 100 Äpfel, ﬁnden wir's heute"
    assert folded_words(text) == "über die strasse 0 äpfel finden wirs heute".encode().split()
    assert folded_words("ＦＵＬＬ width １２ a b c d e")[:3] == [b"full", b"width", b"0"]
    assert len(folded_words("word " * 5000)) == 1024
    assert [len(hashes) for hashes in features([[b"a", b"b", b"c"], [b"d"]])] == [5, 1]


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_has_a_sketch_that_case_of_ascii_and_spaces_do_not_change(text):
    made = sketch(text)
    assert len(made) == WIDTH
    assert all(0 <= number < 1 << 64 for number in made)
    assert max(made[2:]) < 1 << (3 * KEY_BITS)
    assert sketch(f"  {text}\n") == made
    if text.isascii():
        assert sketch(text.swapcase()) == made


def test_sketches_are_the_same_everywhere():
    """Pinned, and in a process with another hash seed."""
    code = f"from kto_cli.data.audit.minhash import sketches; print(tuple(sketches([{LONG!r}])[0].tolist()))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={"PYTHONHASHSEED": "7"}, timeout=60
    )
    assert ran.stdout.strip() == str(sketch(LONG)), ran.stderr
    assert sketch(LONG) == PINNED


PINNED = (1516500768857426562, 2289375101247482939, 2961281996703190683, 5279319262955808236)


def test_the_bits_tell_the_jaccard_index():
    """The estimate is unbiased with the deviation of 128 bits: 2 sqrt(p (1 - p) / 128), p = (1 + Jaccard) / 2."""
    rng = random.Random(1)
    scores = defaultdict(list)
    for _ in range(400):
        words = rng.sample(MANY_WORDS, 48)
        kept = rng.choice([0, 12, 20, 23])
        left, right = " ".join(words[:24]), " ".join([*words[:kept], *words[24 : 48 - kept]])
        scores[kept].append(estimate(left, right) - jaccard(left, right))
    for kept, errors in scores.items():
        assert abs(numpy.mean(errors)) < 0.03, kept
        assert numpy.std(errors) < 0.11, kept


def test_clusters_against_a_naive_search():
    """Among 300 prompts and variants: pairs well above the threshold are together, well below it apart."""
    rng = random.Random(3)
    prompts = [sentence(rng, rng.randint(10, 40)) for _ in range(150)]
    for prompt in prompts[:75]:
        words = prompt.split()
        words[rng.randrange(len(words))] = "zebra"
        prompts.append(" ".join(words))
    prompts += [prompt.upper() for prompt in prompts[75:150]]
    clusters = near_duplicates(sketches(prompts))
    alike = missed = wrong = 0
    for i in range(len(prompts)):
        for j in range(i):
            exact, same = jaccard(prompts[i], prompts[j]), clusters[i] == clusters[j]
            alike += exact >= ALIKE + 0.1
            missed += exact >= ALIKE + 0.1 and not same
            wrong += exact < ALIKE - 0.25 and same
    assert alike >= 120
    assert missed <= 0.05 * alike
    assert wrong == 0


def test_a_cluster_is_called_after_its_first_prompt():
    rng = random.Random(5)
    one, two = sentence(rng, 20), sentence(rng, 20)
    assert near_duplicates(sketches([two, one, two.upper(), one + "!", "yes", two])).tolist() == [0, 1, 0, 1, 4, 0]
    assert near_duplicates(sketches([])).tolist() == []
    assert near_duplicates(sketches(["x"])).tolist() == [0]


def test_chains_do_not_run_away():
    """Each prompt differs from the one before in one word of 20, the last shares none with the first."""
    rng = random.Random(7)
    fresh = rng.sample(MANY_WORDS, 80)
    words, chain = fresh[60:], []
    for n in range(60):
        words[n % 20] = fresh[n]
        chain.append(" ".join(words))
    rng.shuffle(chain)
    clusters = near_duplicates(sketches(chain))
    for n, first in enumerate(clusters):
        assert n == first or estimate(chain[n], chain[first]) >= 0.5 - 1e-9
    assert 3 <= len(set(clusters.tolist())) <= 12


def test_prompts_beside_a_prompt_change_nothing_in_its_sketch():
    rng = random.Random(4)
    prompts = ["x", *(sentence(rng, count) for count in (1, 7, 8, 9, 40, 1500)), "", "é" * 9, LONG]
    assert sketches(prompts).tolist() == [list(sketch(prompt)) for prompt in prompts]
    assert sketches([]).shape == (0, WIDTH)


def test_a_key_that_all_share_links_nothing_by_itself():
    made = numpy.random.RandomState(0).randint(0, 2**62, (5000, WIDTH)).astype(numpy.uint64)
    made[:, 2:] = made[0, 2:]
    assert len(numpy.unique(near_duplicates(made))) == 5000


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_join_makes_connected_components(edges):
    parents = numpy.arange(16)
    for start in range(0, len(edges), 7):
        part = numpy.array(edges[start : start + 7]).reshape(-1, 2)
        parents = joined(parents, part[:, 0], part[:, 1])
    naive = list(range(16))
    for _ in range(16):
        for left, right in edges:
            naive[left] = naive[right] = min(naive[left], naive[right])
    assert parents.tolist() == naive


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_ones(numbers):
    assert _ones(numpy.array(numbers, numpy.uint64)).tolist() == [number.bit_count() for number in numbers]


def test_agreeing_is_a_count_of_bits():
    """At Jaccard 0.7, (1 - 0.7) / 2 of 128 bits may differ: 19."""
    zero = [0, 0, 0, 0]
    made = numpy.array([zero, [(1 << 19) - 1, 0, 0, 0], [(1 << 10) - 1, (1 << 10) - 1, 0, 0]], numpy.uint64)
    assert agree(made, numpy.array([0, 0, 0]), numpy.array([0, 1, 2]), 0.7).tolist() == [True, True, False]


def test_real_prompts():
    """hh-rlhf prompts and their variants: recall, and what is merged though the exact index says no."""
    rng = random.Random(0)
    path = shared("data", "hh-rlhf", "harmless-base_test.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [re.split(r"\n\n(?:Human|Assistant):", json.loads(line)["chosen"])[1] for line in file]
    prompts = list(dict.fromkeys(text.strip() for text in texts))[:1200]
    long = [number for number, prompt in enumerate(prompts) if len(prompt.split()) >= 12]
    variants, owners = [], []
    for number in long:
        words = prompts[number].split()
        at = rng.randrange(len(words))
        variants += [prompts[number].swapcase(), " ".join([*words[:at], "zebra", *words[at + 1 :]])]
        owners += [number, number]
    clusters = near_duplicates(sketches([*prompts, *variants]))
    found = clusters[len(prompts) :] == clusters[owners]
    assert found[::2].mean() >= 0.999
    assert found[1::2].mean() >= 0.93
    originals = clusters[: len(prompts)]
    pairs = [(n, first) for n, first in enumerate(originals) if n != first and first < len(prompts)]
    assert all(jaccard(prompts[n], prompts[first]) > 0.4 for n, first in pairs)
