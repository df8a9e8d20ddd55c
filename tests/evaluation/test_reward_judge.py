"""The judge on this machine: its scores against one text at a time, its labels, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SAMPLE

from kto_cli.common.errors import BadModel
from kto_cli.evaluation.judge import reward_judge
from kto_cli.evaluation.judge.comparisons import Comparison, Verdicts
from kto_cli.evaluation.judge.judge import estimate, judge_all
from kto_cli.evaluation.judge.reward_judge import RewardJudge, score_weights
from kto_cli.evaluation.judge.store import VerdictStore

CHAT = (
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Go"},
)
JUDGED_ANSWERS = [
    Comparison("1", "What is a prime?", "A number with two divisors.", "It is blue."),
    Comparison("2", CHAT, "Gone.", "I would rather not go, because it rains and I have no coat to wear."),
    Comparison("3", "Say a word.", "Word.", "Word."),
    Comparison("4", "What is a prime?", "It is blue.", "A number with two divisors."),
]


def made(
    folder: Path, *, family: str = "Llama", pad: int | None = 0, labels: dict[int, str] | None = None, **extra: Any
) -> Path:
    """A pico model with a classification head (random, but the same in each run) and the built-in tokenizer."""
    import transformers

    config, kind = getattr(transformers, f"{family}Config"), getattr(transformers, f"{family}ForSequenceClassification")
    labels = labels or {0: "LABEL_0"}
    sizes = {"vocab_size": 2048, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    names = {"id2label": labels, "label2id": {name: place for place, name in labels.items()}}
    model = kind(config(**sizes, **heads, **names, pad_token_id=pad, **extra))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SAMPLE / "model" / name, folder / name)
    return folder


def test_scores_of_a_bfloat16_judge_are_not_rounded_to_bfloat16(tmp_path):
    """The body computes in bfloat16, the head in float32: no two of these scores are equal, and all lie near those of
    float32. Rounded to bfloat16's 8 bits, scores near each other become ties."""
    folder = made(tmp_path / "judge")
    half, exact = RewardJudge(folder, dtype=torch.bfloat16), RewardJudge(folder)
    rows = [half.encode("What is a prime?", f"A number like {number}.") for number in range(20)]
    found, expected = half.scores(rows), exact.scores(rows)
    assert next(half.model.model.parameters()).dtype == torch.bfloat16
    assert half.model.score.weight.dtype == torch.float32
    assert len(set(found.tolist())) == 20
    assert not torch.equal(found, found.bfloat16().double())
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert half.identity != exact.identity


def test_a_soft_cap_is_kept_where_transformers_takes_sdpa(tmp_path, monkeypatch):
    """As transformers before 5.21 does for Gemma 2; its sdpa leaves the cap out, and later ones refuse it."""
    from transformers.models.gemma2 import modeling_gemma2 as gemma2

    folder, ids = made(tmp_path, family="Gemma2", head_dim=8, attn_logit_softcapping=0.1), torch.arange(3, 40)[None]
    capped = gemma2.Gemma2ForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    monkeypatch.setattr(gemma2.Gemma2PreTrainedModel, "_supports_sdpa", True)
    loaded = reward_judge._load(folder, torch.float32)
    torch.testing.assert_close(loaded(ids).logits, capped(ids).logits)


def naive(folder: Path, comparison: Comparison, answer: str) -> torch.Tensor:
    """[labels] the logits of one text alone: no batch, no padding, the head on the last token by hand."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    turns = (
        [{"role": "user", "content": comparison.prompt}]
        if isinstance(comparison.prompt, str)
        else list(comparison.prompt)
    )
    turns.append({"role": "assistant", "content": answer})
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    with torch.no_grad():
        return model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).double()


@pytest.mark.parametrize("pad", [0, None])
def test_scores_are_those_of_each_text_alone(tmp_path, pad):
    folder = made(tmp_path / "judge", pad=pad)
    judge = RewardJudge(folder)
    rows = [
        judge.encode(comparison.prompt, answer)
        for comparison in JUDGED_ANSWERS
        for answer in (comparison.model, comparison.baseline)
    ]
    alone = torch.cat(
        [
            naive(folder, comparison, answer)
            for comparison in JUDGED_ANSWERS
            for answer in (comparison.model, comparison.baseline)
        ]
    )
    found = judge.scores(rows)
    assert found.tolist() == pytest.approx(alone.tolist(), abs=1e-5)
    assert found.std() > 0.1
    assert len({len(row["input_ids"]) for row in rows}) > 3


def test_no_score_depends_on_the_texts_beside_it(tmp_path):
    """Beyond 24 tokens this judge rotates the positions of a whole batch differently: it reads no more of a text."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "factor": 4.0, "rope_theta": 10000.0}
    rotation = {"rope_type": "longrope", "original_max_position_embeddings": 24, **factors}
    judge = RewardJudge(made(tmp_path / "judge", rope_parameters=rotation))
    rows = [judge.encode("Say it.", answer) for answer in ("Yes.", "No, not at all, " * 8)]
    assert [len(row["input_ids"]) for row in rows] == [11, 24]
    assert judge.shortened == 1
    alone = [judge.scores([row]).item() for row in rows]
    assert judge.scores(rows).tolist() == pytest.approx(alone, abs=1e-5)


def test_the_higher_score_wins_and_equal_ones_tie(tmp_path):
    """Comparison 4 is comparison 1 with swapped sides: its winner is the other; the same text twice is a tie."""
    folder = made(tmp_path / "judge")
    judge = RewardJudge(folder)
    store = VerdictStore(tmp_path, judge.identity)
    assert estimate(judge, JUDGED_ANSWERS, store)[:3] == (0, 0, 1)
    ticks: list[int] = []
    found = judge_all(judge, JUDGED_ANSWERS, store, tick=ticks.append)
    assert sum(ticks) == 4
    for comparison, verdicts in zip(JUDGED_ANSWERS, found, strict=True):
        ours, theirs = (naive(folder, comparison, answer).item() for answer in (comparison.model, comparison.baseline))
        winner = "tie" if comparison.identical else "model" if ours > theirs else "baseline"
        assert verdicts == Verdicts(comparison.id, winner, winner)
    assert {found[0].model_first, found[3].model_first} == {"model", "baseline"}
    assert judge.votes(([{"score": 1.5}], [{"score": 1.5}])) == ("tie", "tie")


def test_scores_are_kept(tmp_path, monkeypatch):
    folder = made(tmp_path / "judge")
    judge = RewardJudge(folder)
    found = judge_all(judge, JUDGED_ANSWERS, VerdictStore(tmp_path, judge.identity))
    again = RewardJudge(folder)
    monkeypatch.setattr(again, "scores", None)
    store = VerdictStore(tmp_path, again.identity)
    assert estimate(again, JUDGED_ANSWERS, store).cached == 4
    assert judge_all(again, JUDGED_ANSWERS, store) == found
    other = made(tmp_path / "other", rope_theta=500.0)
    assert RewardJudge(other).identity != judge.identity


def test_small_batches_give_the_same(tmp_path, monkeypatch):
    judge = RewardJudge(made(tmp_path / "judge"))
    whole = judge_all(judge, JUDGED_ANSWERS, VerdictStore(tmp_path / "a", judge.identity))
    monkeypatch.setattr(reward_judge, "TOKENS_A_BATCH", 40)
    store = VerdictStore(tmp_path / "b", judge.identity)
    ticks: list[int] = []
    assert judge_all(judge, JUDGED_ANSWERS, store, tick=ticks.append) == whole
    assert len(ticks) >= 2


@pytest.mark.parametrize(("labels", "sign"), [({0: "bad", 1: "Good"}, 1), ({0: "CHOSEN", 1: "rejected"}, -1)])
def test_two_labels_are_a_difference(tmp_path, labels, sign):
    folder = made(tmp_path / "judge", labels=labels)
    judge = RewardJudge(folder)
    logits = naive(folder, JUDGED_ANSWERS[0], JUDGED_ANSWERS[0].model)
    found = judge.scores([judge.encode(JUDGED_ANSWERS[0].prompt, JUDGED_ANSWERS[0].model)])
    assert found.item() == pytest.approx(sign * (logits[1] - logits[0]).item(), abs=1e-5)


def config(labels: dict[str, str] | None, head: str = "LlamaForSequenceClassification") -> dict[str, Any]:
    return {"architectures": [head], **({} if labels is None else {"id2label": labels})}


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {"0": "LABEL_0", "1": "LABEL_1"},
        {"0": "good", "1": "helpful"},
        {"0": "good", "1": "neutral"},
        {"0": "bad", "1": "neutral", "2": "good"},
        {"0": "toxicity"},
    ],
)
def test_labels_that_do_not_say_what_is_better_are_refused(labels):
    with pytest.raises(BadModel, match="do not say which answer is better"):
        score_weights(config(labels), Path("judge"))


def test_labels_are_taken_in_the_order_of_their_numbers():
    assert score_weights(config({"1": "negative", "0": "positive"}), Path("judge")) == (1.0, -1.0)


def test_a_chat_model_is_to_be_served():
    with pytest.raises(BadModel, match=r"no classification head \(LlamaForCausalLM\).* --judge-url"):
        RewardJudge(SAMPLE / "model")


def test_a_head_without_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = made(tmp_path / "judge")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match=r"lacks weights: score\.weight"):
        RewardJudge(folder)


def test_scores_that_are_no_numbers_are_refused(tmp_path, monkeypatch):
    judge = RewardJudge(made(tmp_path / "judge"))
    monkeypatch.setattr(judge, "scores", lambda rows: torch.full((len(rows),), torch.nan, dtype=torch.float64))
    with pytest.raises(BadModel, match="not numbers"):
        judge_all(judge, JUDGED_ANSWERS, VerdictStore(tmp_path, judge.identity))


def test_what_is_too_long_loses_its_beginning(tmp_path):
    judge = RewardJudge(made(tmp_path / "judge"))
    long = judge.encode("word " * 2000, "The end.")
    short = judge.encode("word", "The end.")
    assert (len(long["input_ids"]), judge.shortened) == (512, 1)
    assert long["input_ids"][-4:] == short["input_ids"][-4:]


def test_that_texts_were_shortened_is_said(tmp_path):
    said: list[str] = []
    judge = RewardJudge(made(tmp_path / "judge"), say=said.append)
    said.clear()
    judge_all(judge, [Comparison("long", "word " * 2000, "Yes.", "No.")], VerdictStore(tmp_path, judge.identity))
    assert said == ["2 texts lost their beginning: the judge reads 512 tokens."]


def test_an_encoder_without_a_chat_template_reads_pairs(tmp_path):
    """BERT: [CLS] prompt [SEP] answer [SEP], with segments; against one text at a time."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path / "judge"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz?."]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=len(words), num_labels=1, max_position_embeddings=64, initializer_range=0.5, **sizes
    )
    model = BertForSequenceClassification(settings).eval()
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    said: list[str] = []
    judge = RewardJudge(folder, say=said.append)
    assert "pair of texts" in said[0]
    texts = [("what is it?", "blue."), ("go", "a longer answer than the other one."), ("go", "no")]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        alone = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in texts]
    rows = [judge.encode(*pair) for pair in texts]
    assert 1 in rows[0]["token_type_ids"]
    assert judge.scores(rows).tolist() == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == 3


def test_prompts_a_template_refuses_are_said_before_anything_is_answered(tmp_path):
    """A template that raises for a system message: how many prompts, in its own words, before the answers."""
    folder = made(tmp_path / "judge")
    path = folder / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    path.write_text(refusal + path.read_text())
    judge = RewardJudge(folder)
    system = ({"role": "system", "content": "Be brief."}, *CHAT)
    judge.check_prompts(["What is a prime?", CHAT])
    with pytest.raises(
        BadModel, match=r"cannot read 2 of 3 prompts; .* of the first: System role not supported\. Give"
    ):
        judge.check_prompts([CHAT, system, system])
