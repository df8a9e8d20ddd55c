"""`kto export --check`: a stub of an OpenAI-compatible server with real tiny models in it."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import tokenizers
import torch
import transformers
from conftest import SAMPLE, call, error_line, make_dataset
from evaluated import here
from judge_server import JudgeServer, serving
from served_model import ServedModel

from kto_cli.core.statistics.served import Agreement, Fit, agreement, fit, served_verdict
from kto_cli.evaluation.export import check, local
from kto_cli.evaluation.export.requests import ServedAnswer

BASE = str(SAMPLE / "model")
OTHER_TEMPLATE = (
    "{% for m in messages %}{{ 'the ' + m.role + ' wrote ' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' and so' }}{% endif %}"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs from the built-in model, which answers in words."""
    folder = tmp_path_factory.mktemp("runs")
    with here(folder):
        make_dataset(folder, 24, validation=0.3)
        given = ("--data", "set", "--model", BASE, "--batch-size", 8)
        for name, flags in {
            "whole": ("--max-steps", 3, "--learning-rate", 0.003),
            "lora": ("--max-steps", 3, "--learning-rate", 0.02, "--lora-r", 4),
        }.items():
            ran = call("train", *given, *flags, "--out", name)
            assert ran.code == 0, ran.err
        yield folder


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(check, "MOST", 20)


def loaded(name: str):
    """(model, tokenizer) of a run, an adapter on its base."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)


def checked(server: JudgeServer, name: str, *words: object):
    server.models = [name]
    return call("export", name, "--check", server.url, "--rows", 4, *words, "--json")


@pytest.mark.parametrize(
    ("name", "echo"), [("whole", True), pytest.param("lora", True, marks=pytest.mark.slow), ("lora", False)]
)
def test_the_checkpoint_is_recognized(place, name, echo):
    """A whole model and an adapter; with log-probs the difference is rounding alone."""
    with serving(ServedModel(*loaded(name), echo=echo)) as server:
        found = checked(server, name).json["check"]
    assert found["verdict"] == "trained", found
    assert found["answers"]["same"] == found["answers"]["answers"]
    assert found["answers"]["regret"] == 0
    assert found["answers"]["prompts_differ"] == 0
    if echo:
        assert found["logps"]["difference"] < 1e-4
        assert found["logps"]["share"] == pytest.approx(1, abs=1e-3)
    else:
        assert found["logps"] is None


@pytest.mark.parametrize(
    ("name", "echo"), [pytest.param("whole", False, marks=pytest.mark.slow), ("lora", True), ("lora", False)]
)
def test_the_base_in_its_place_is_caught(place, name, echo):
    with serving(ServedModel(*loaded(BASE), echo=echo)) as server:
        ran = checked(server, name)
    line = error_line(ran)
    assert "The base is served, without what was trained" in line
    assert "--served-as" in line
    assert ran.code == 1


@pytest.mark.parametrize("echo", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_wrong_chat_template_is_caught(place, echo):
    """Log-probs of token ids do not see it; greedy answers do."""
    with serving(ServedModel(*loaded("whole"), template=OTHER_TEMPLATE, echo=echo)) as server:
        ran = checked(server, "whole")
    assert "chat template" in error_line(ran)
    assert "4 of 4 prompts" in error_line(ran)


def test_log_probs_of_answers_tell_a_short_run_from_its_base(place):
    """Where base and checkpoint answer alike and the server gives no log-probs of prompts, as llama.cpp."""
    words = ("--data", "set", "--model", BASE, "--max-steps", 1, "--learning-rate", 1e-5)
    assert call("train", *words, "--out", "bit").code == 0
    for name, word in (("bit", "trained"), (BASE, "base")):
        with serving(ServedModel(*loaded(name), echo=False, spoken=True)) as server:
            server.models = ["bit"]
            ran = call("export", "bit", "--check", server.url, "--rows", 4, "--json")
        found = json.loads(ran.out)["check"]
        assert (found["verdict"], found["logps"]) == (word, None), found
        assert found["answered"]["share"] == pytest.approx(float(word == "trained"), abs=0.02)


def test_an_export_without_its_run_has_no_base(place):
    """Then the difference alone decides: the checkpoint is recognized, anything else is not."""
    assert call("export", "whole", "--to", "out").code == 0
    with serving(ServedModel(*loaded("whole"))) as server:
        found = checked(server, "out", "--data", "set").json["check"]
        assert (found["verdict"], found["logps"]["share"]) == ("trained", None)
    with serving(ServedModel(*loaded(BASE))) as server:
        assert "Another model is served" in error_line(checked(server, "out", "--data", "set"))


@pytest.mark.slow
def test_another_run_is_caught(place):
    with serving(ServedModel(*loaded("lora"))) as server:
        assert error_line(checked(server, "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.25])
def test_a_part_of_an_adapter_is_caught(place, scale):
    """Training moved these answers by 5.7 nats a token, where log-probs are far from linear: half the adapter's scale
    is still 0.83 of the change."""
    model, tokenizer = loaded("lora")
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {key: whole * scale for key, whole in module.scaling.items()}
    with serving(ServedModel(model, tokenizer)) as server:
        assert "Something between base and checkpoint" in error_line(checked(server, "lora"))


@pytest.mark.slow
def test_white_space_and_counts_of_the_server_decide_nothing(place):
    with serving(ServedModel(*loaded("whole"), echo=False, strip=True, counts=False)) as server:
        assert checked(server, "whole").json["check"]["verdict"] == "trained"


def test_the_check_is_not_the_next_step_of_one_that_makes_it(place, tmp_path):
    plain = call("export", "whole", "--to", tmp_path / "plain")
    assert "Then compare: kto export whole --check" in plain.out
    with serving(ServedModel(*loaded("whole"))) as server:
        server.models = ["whole"]
        words = ("--check", server.url, "--served-as", "whole", "--rows", 4)
        ran = call("export", "whole", "--to", tmp_path / "checked", *words)
    assert ran.code == 0, ran.err
    assert "Then compare" not in ran.out


def test_several_models_need_a_name(place):
    with serving(ServedModel(*loaded("whole"))) as server:
        server.models = ["pico", "support"]
        ran = call("export", "whole", "--check", server.url)
        assert "--served-as" in error_line(ran)
        named = call("export", "whole", "--check", server.url, "--served-as", "support", "--json").json
    assert named["check"]["model"] == "support"
    assert {asked["model"] for asked in server.asked if "prompt" in asked} == {"support"}


def test_a_server_that_is_down_is_one_line(place):
    with serving(ServedModel(*loaded("whole"))) as server:
        url = server.url
    assert "cannot be reached" in error_line(call("export", "whole", "--check", url))


# --- numbers ------------------------------------------------------------------------------------


def rows_of(count: int = 10, tokens: int = 30, *, moved: float = 0.3) -> tuple[list, list]:
    """Log-probs of checkpoint and base: training moved each token by `moved` times a normal draw."""
    random = torch.Generator().manual_seed(1)
    trained = [-torch.rand(tokens, generator=random, dtype=torch.float64) for _ in range(count)]
    base = [row + moved * torch.randn(tokens, generator=random, dtype=torch.float64) for row in trained]
    return trained, base


def noisy(rows, noise):
    random = torch.Generator().manual_seed(2)
    return [row + noise * torch.randn(row.shape, generator=random, dtype=torch.float64) for row in rows]


GOOD = Fit(answers=10, same=10, base_same=2, regret=0.0, base_regret=0.3, prompts_differ=0, difference_se=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.015, 0.12, 0.25])
def test_rounding_hides_neither_checkpoint_nor_base(noise):
    """Noise of 16, 8 and 4 bits beside a change of 0.24 nats a token (0.3 sqrt(2 / pi))."""
    trained, base = rows_of()
    found = agreement(noisy(trained, noise), trained, base)
    assert found.difference == pytest.approx(noise * math.sqrt(2 / math.pi), rel=0.15, abs=1e-9)
    assert found.change == pytest.approx(0.3 * math.sqrt(2 / math.pi), rel=0.15)
    assert found.share == pytest.approx(1, abs=3 * found.share_se + 1e-9)
    assert served_verdict(found, GOOD).word == "trained"
    assert served_verdict(agreement(noisy(base, noise), trained, base), GOOD).word == "base"


def test_a_share_is_a_least_squares_coefficient():
    """[1, 2] . [2, 2] / [2, 2] . [2, 2] = 6 / 8 where s - b is [1, 2] and t - b is [2, 2]."""
    zero = [torch.zeros(2), torch.zeros(2)]
    found = agreement([torch.tensor([1.0, 2.0])] * 2, [torch.tensor([2.0, 2.0])] * 2, zero)
    assert found.share == pytest.approx(6 / 8)
    assert found.share_se == 0


def test_a_run_that_moved_nothing_cannot_be_told_from_its_base():
    trained, base = rows_of(moved=0.005)
    found = served_verdict(agreement(noisy(trained, 0.12), trained, base), GOOD)
    assert found.word == "unsure"
    same = torch.zeros(5)
    assert served_verdict(agreement([same] * 3, [same] * 3, [same] * 3), GOOD).word == "unsure"


def test_another_model_is_neither():
    trained, base = rows_of()
    assert served_verdict(agreement([row - 1 for row in trained], trained, base), GOOD).word == "other"
    assert served_verdict(agreement([row - 1 for row in trained], trained, None), GOOD).word == "other"
    assert served_verdict(agreement(noisy(trained, 0.01), trained, None), GOOD).word == "trained"


@pytest.mark.parametrize(
    ("difference", "change", "share", "word"),
    [
        (0.006, 0.05, 0.81, "trained"),
        (0.04, 0.3, 1.0, "trained"),
        (0.045, 0.3, 0.95, "trained"),
        (0.76, 5.7, 0.94, "trained"),
        (1.2, 5.7, 0.83, "partly"),
        (2.6, 5.7, 0.58, "partly"),
        (1.2, 20.0, 0.99, "partly"),
    ],
)
def test_rounding_is_told_from_a_part_of_what_was_trained(difference, change, share, word):
    """16, 8 and 4 bits as measured, then half and a quarter of an adapter; the same of the base. Between the sizes of
    rounding the sentence says what else it may be."""
    found = Agreement(300, difference, change, change, share, 0.01)
    verdict = served_verdict(found, GOOD)
    assert verdict.word == word
    assert ("few bits" in verdict.sentence) == (difference == 0.76)
    mirrored = served_verdict(Agreement(300, change, difference, change, 1 - share, 0.01), GOOD)
    assert mirrored.word == {"trained": "base"}.get(word, word)


@pytest.mark.parametrize(
    ("same", "base_same", "regret", "base", "differ", "word"),
    [
        (10, 2, 0.0, 0.3, 0, "trained"),
        (5, 2, 0.01, 0.3, 10, "trained"),
        (2, 10, 0.3, 0.0, 0, "base"),
        (5, 5, 0.001, 0.002, 0, "unsure"),
        (10, 10, 0.0, 0.0, 0, "unsure"),
        (6, 10, 0.001, 0.0, 0, "base"),
        (10, 6, 0.0, 0.001, 0, "trained"),
        (0, 0, 0.4, 0.5, 0, "other"),
        (0, 0, 0.4, 0.5, 10, "template"),
        (10, 0, 0.0, math.nan, 0, "trained"),
        (0, 0, 0.4, math.nan, 0, "other"),
    ],
)
def test_verdicts_by_answers_alone(same, base_same, regret, base, differ, word):
    """By regret; where that is alike, by answers that are all of one of the two."""
    assert served_verdict(None, Fit(10, same, base_same, regret, base, differ, 0.0)).word == word


def regrets(*each: float) -> list[torch.Tensor]:
    """Of answers of 41 tokens, one of which has all of it."""
    return [torch.tensor([value, *[0.0] * 40]) for value in each]


def test_regrets_of_a_few_tokens_decide_nothing():
    """SmolLM2-135M-Instruct: one answer of ten, spelled otherwise, held most of both regrets; it was the base's word
    for word, and the export of a short run was called its base."""
    unlike = fit(regrets(8.4, 0.3, 0.1, 0.3), regrets(0.0, 0.4, 0.2, 0.4), same=0, base_same=1, prompts_differ=0)
    assert unlike.regret - unlike.base_regret > 0.01
    assert served_verdict(None, unlike).word == "unsure"
    alike = fit(regrets(1.0, 1.1, 0.9), regrets(0.1, 0.2, 0.1), same=0, base_same=0, prompts_differ=0)
    assert served_verdict(None, alike).word == "base"


def test_the_standard_error_of_regrets_is_the_jackknifes():
    """Means without each of 1, 2, 3 are 2.5, 2, 1.5, of variance 1/6: sqrt(2 * 1/6)."""
    one, other = [torch.tensor([value]) for value in (1.0, 2.0, 3.0)], [torch.zeros(1)] * 3
    found = fit(one, other, same=0, base_same=0, prompts_differ=0)
    assert found.difference_se == pytest.approx((1 / 3) ** 0.5)


def test_an_empty_line_may_be_one_token():
    """The tokenizer splits before it merges, and spells it with two; the model was trained to say it with one."""
    vocabulary = {".": 0, "\u010a": 1, "\u010a\u010a": 2, "2": 3}
    bare = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("\u010a", "\u010a")]))
    bare.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = tokenizers.decoders.ByteLevel()
    spell = transformers.PreTrainedTokenizerFast(tokenizer_object=bare)

    def encoded(texts):
        return [SimpleNamespace(ids=[*spell(text).input_ids, 9]) for text in texts]

    rows = SimpleNamespace(
        encoder=SimpleNamespace(tokenizer=spell, encode_completions=encoded), vocabulary=spell.get_vocab()
    )
    found = local._spellings(rows, ServedAnswer(".\n\n2", ended=True, prompt_tokens=None))
    assert [0, 1, 1, 3] in found
    assert [0, 2, 3] in found
    assert {spell.decode(ids) for ids in found} == {".\n\n2"}


def test_log_probs_of_answers_decide_only_where_answers_do_not():
    trained, base = rows_of()
    alike, apart = Fit(10, 5, 5, 0.001, 0.001, 0, 0.0), Fit(10, 5, 2, 0.0, 0.3, 0, 0.02)
    for served, word in ((trained, "trained"), (base, "base"), ([row - 3 for row in base], "unsure")):
        assert served_verdict(None, alike, agreement(served, trained, base)).word == word
    assert served_verdict(None, apart, agreement(base, trained, base)).word == "trained"


def test_right_weights_with_answers_of_another_kind_mean_the_template():
    right = Agreement(300, 0.01, 0.3, 0.3, 1.0, 0.01)
    assert served_verdict(right, Fit(10, 0, 0, 0.4, 0.5, 10, 0.02)).word == "template"
    assert served_verdict(right, Fit(10, 6, 0, 0.02, 0.5, 0, 0.02)).word == "trained"


def test_regrets_are_means_over_tokens():
    found = fit([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])], None, same=1, base_same=0, prompts_differ=0)
    assert found.regret == 0.25
    assert math.isnan(found.base_regret)
