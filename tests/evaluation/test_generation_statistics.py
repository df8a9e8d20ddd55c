"""What answers look like, against counts by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.statistics.intervals import wilson
from kto_cli.evaluation.answers.records import Answer, Decoding
from kto_cli.evaluation.answers.statistics import describe, distinct, ramble, repetition

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=15).map(" ".join), min_size=1, max_size=6)


def answers(*facts):
    return [Answer(text, tokens, ended) for text, tokens, ended in facts]


def test_repetition_by_hand():
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no no no no no no") == pytest.approx(2 / 3)
    assert repetition("one two three four five") == 0
    assert math.isnan(repetition("only three words"))


@settings(max_examples=60, deadline=None)
@given(text=st.lists(st.sampled_from("ab"), max_size=20).map(" ".join))
def test_repetition_is_the_share_of_stretches_seen_before(text):
    words = text.split()
    stretches = [" ".join(words[start : start + 4]) for start in range(max(0, len(words) - 3))]
    seen = [stretch in stretches[:place] for place, stretch in enumerate(stretches)]
    if seen:
        assert repetition(text) == pytest.approx(sum(seen) / len(seen))
    else:
        assert math.isnan(repetition(text))


def test_distinct_by_hand():
    """Of 'a b a' and 'a c': 3 of 5 words; 3 of 3 pairs. Cut to 4 words: 'a b' and 'a c', 3 of 4."""
    texts = ["a b a", "a c"]
    assert distinct(texts, 1, 5) == pytest.approx(3 / 5)
    assert distinct(texts, 2, 5) == 1
    assert distinct(texts, 1, 4) == pytest.approx(3 / 4)
    assert math.isnan(distinct(texts, 3, 4))


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, length=st.integers(1, 3), words=st.integers(0, 60))
def test_distinct_against_a_count(texts, length, words):
    limit = max(most for most in range(16) if sum(min(most, len(text.split())) for text in texts) <= words)
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        kept = text.split()[:limit]
        grams.update(tuple(kept[place : place + length]) for place in range(len(kept) - length + 1))
    value = distinct(texts, length, words)
    if grams:
        assert value == pytest.approx(len(grams) / sum(grams.values()))
    else:
        assert math.isnan(value)


def test_length_alone_does_not_decide_distinct():
    """The same words at random, four times as many: pooled whole they look poorer, cut to equal words they do not."""
    generator = torch.Generator().manual_seed(0)

    def some(count):
        draws = torch.randint(200, (30, count), generator=generator).tolist()
        return [" ".join(map(str, row)) for row in draws]

    short, long = some(20), some(80)
    assert distinct(long, 1, 10**9) < 0.5 * distinct(short, 1, 10**9)
    assert distinct(long, 1, 600) == pytest.approx(distinct(short, 1, 600), rel=0.1)


def test_everything_said_of_models():
    policy = answers(("a b c d a b c d", 8, False), ("yes", 1, True), ("", 0, True), ("x y z w v", 6, True))
    reference = answers(("a b", 2, True), ("no", 1, True), ("well", 1, True), ("p q r s", 4, True))
    found = describe({"policy": policy, "reference": reference}, Decoding(8), "padded")
    assert (found["engine"], found["prompts"], found["decoding"]["temperature"]) == ("padded", 4, 0.7)
    assert found["distinct_over_words"] == 8
    ours = found["models"]["policy"]
    assert (ours["answers"], ours["tokens_mean"], ours["tokens_median"], ours["longest"]) == (4, 3.75, 3.5, 8)
    assert (ours["ended"], ours["empty"], ours["repetition_answers"]) == (0.75, 1, 2)
    assert ours["ended_wilson"] == wilson(3, 4)
    assert ours["repetition"] == pytest.approx((1 / 5 + 0) / 2)
    low, high = ours["tokens_mean_interval"]
    assert 0 <= low < 3.75 < high <= 8
    against = found["against_reference"]["policy"]
    assert against["tokens"]["difference"] == pytest.approx((6 + 0 - 1 + 2) / 4)
    assert against["ended"]["difference"] == pytest.approx(-0.25)
    assert against["repetition"]["difference"] == pytest.approx(0), "only the prompt where both have four words"
    assert found["against_target"] == {}
    assert found["sentence"].startswith("Answers are 1.9x as long as the reference's and 25 % did not end")


def test_differences_are_paired():
    """Prompts that call for 1 to 100 tokens, one more from the policy each time: the difference is sure."""
    lengths = range(1, 101)
    policy = answers(*[("w", length + 1, True) for length in lengths])
    reference = answers(*[("w", length, True) for length in lengths])
    found = describe({"policy": policy, "reference": reference, "target": reference}, Decoding(), "padded")
    for base in ("against_reference", "against_target"):
        assert found[base]["policy"]["tokens"] == {"difference": 1.0, "interval": [1.0, 1.0]}
    low, high = found["models"]["policy"]["tokens_mean_interval"]
    error = 1.645 * 28.87 / 10
    assert low == pytest.approx(51.5 - error, abs=0.7)
    assert high == pytest.approx(51.5 + error, abs=0.7)


def side(tokens, ended, repeated=0.0):
    return {"tokens_mean": tokens, "ended": ended, "repetition": repeated}


@pytest.mark.parametrize(
    ("policy", "reference", "sentence"),
    [
        (
            side(84, 0.62),
            side(40, 0.99),
            "Answers are 2.1x as long as the reference's and 38 % did not end by themselves in 128 tokens: it rambles.",
        ),
        (
            side(40, 1.0),
            side(40, 1.0),
            "Answers are as long as the reference's and all ended by themselves: it does not ramble.",
        ),
        (
            side(100, 0.2, 0.4),
            side(90, 0.9, 0.1),
            "Answers are 1.1x as long as the reference's and 80 % did not end by themselves in 128 tokens; 40 % of "
            "their stretches of 4 words are repeated: it rambles.",
        ),
        (
            side(128, 0.0),
            side(128, 0.0),
            "Answers are as long as the reference's and 100 % did not end by themselves in 128 tokens, as the "
            "reference's often do: raise --max-new-tokens to tell whether it rambles.",
        ),
        (
            side(60, 0.995, math.nan),
            side(20, 1.0, math.nan),
            "Answers are 3.0x as long as the reference's and under 1 % did not end by themselves in 128 tokens: it "
            "does not ramble.",
        ),
    ],
    ids=["rambles", "same", "repeats", "both cut", "long but ends"],
)
def test_in_words(policy, reference, sentence):
    assert ramble(policy, reference, 128, ended=[-0.4, -0.05]) == sentence


def test_it_is_not_said_to_ramble_by_chance():
    """Of four answers two ended, of the other four none: the paired interval holds 0."""
    said = Answer("a b c", 3, True), Answer("a b c", 20, False)
    few = {"reference": [said[0], said[1], said[1], said[0]], "policy": [said[1]] * 4}
    many = {name: given * 20 for name, given in few.items()}
    assert "too few answers to tell" in describe(few, Decoding(max_new_tokens=20), "padded")["sentence"]
    assert describe(many, Decoding(max_new_tokens=20), "padded")["sentence"].endswith("it rambles.")


def test_answers_to_different_prompts_are_refused():
    with pytest.raises(ValueError, match="different prompts"):
        describe({"policy": answers(("a", 1, True)), "reference": []}, Decoding(), "padded")
