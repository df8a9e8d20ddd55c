"""The reference's log-probs of single tokens: stored beside the sums, for the losses that read them alone."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from conftest import call, error_line

from kto_cli.model.logprobs.reference_cache import ReferenceCache, TokenCache

KEYS = numpy.array([numpy.void(bytes([number]) * 16) for number in range(3)])
LENGTHS = numpy.array([2, 1, 3])


def opened(folder: Path) -> TokenCache:
    return TokenCache(folder, numbers="model float32")


def stored(cache: TokenCache) -> list[float | None]:
    return [None if number != number else number for number in cache.read(KEYS, LENGTHS).tolist()]


def floats(*numbers: float) -> numpy.ndarray:
    return numpy.array(numbers, "f4")


def test_tokens_of_unequal_sequences_are_stored_in_the_folder_of_the_sums(tmp_path):
    cache, sums = opened(tmp_path), ReferenceCache(tmp_path, numbers="model float32")
    cache.append([(bytes(KEYS[2]), floats(-1, -2, -3)), (bytes(KEYS[0]), floats(-4, -5))])
    assert stored(opened(tmp_path)) == [-4.0, -5.0, None, -1.0, -2.0, -3.0]
    assert cache.folder == sums.folder
    sums.append([(bytes(KEYS[0]), -9.0, 2)])
    assert ReferenceCache(tmp_path, numbers="model float32").read(KEYS)[0].tolist()[0] == -9.0
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".segment", ".tokens"]


def test_another_model_or_another_length_is_not_read(tmp_path):
    """The checksum is the model's, and the count must be the completion's."""
    cache = opened(tmp_path)
    cache.append([(bytes(KEYS[0]), floats(-4, -5, -6))])
    assert stored(opened(tmp_path)) == [None] * 6
    other = TokenCache(tmp_path, numbers="other float32")
    other.folder = cache.folder
    assert numpy.isnan(other.read(KEYS[:1], numpy.array([3]))).all()


def test_of_two_writers_the_first_value_counts(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    stored(first), stored(second)
    first.append([(bytes(KEYS[1]), floats(-1))])
    second.append([(bytes(KEYS[1]), floats(-2)), (bytes(KEYS[0]), floats(-4, -5))])
    for reader in (first, second, opened(tmp_path)):
        assert stored(reader) == [-4.0, -5.0, -1.0, None, None, None]


def test_a_damaged_frame_is_left_out_and_its_segment_written_anew(tmp_path):
    cache = opened(tmp_path)
    cache.append([(bytes(KEYS[0]), floats(-4, -5))])
    cache.append([(bytes(KEYS[1]), floats(-1))])
    (segment,) = cache.folder.glob("*.tokens")
    damaged = bytearray(segment.read_bytes())
    damaged[-20] ^= 1
    segment.write_bytes(damaged)
    again = opened(tmp_path)
    assert stored(again) == [-4.0, -5.0, None, None, None, None]
    assert again.fixed == [segment.name]
    assert stored(opened(tmp_path)) == [-4.0, -5.0, None, None, None, None]


def words(given: list[str], home: Path, loss: str) -> list[object]:
    return [*given, "--cache", home / "cache", "--loss", loss]


def test_only_a_loss_of_tokens_computes_them(given, tmp_path):
    """`kto precompute` computes all that the run will read; other losses neither read nor write tokens."""
    kto = call("precompute", *words(given, tmp_path, "kto"), "--json").json
    assert not list((tmp_path / "cache").rglob("*.tokens"))
    dpo = call("precompute", *words(given, tmp_path, "dpo"), "--json").json
    assert not list((tmp_path / "cache").rglob("*.tokens"))
    ppo = call("precompute", *words(given, tmp_path, "ppo-offline"), "--json").json
    assert list((tmp_path / "cache").rglob("*.tokens"))
    assert dpo["computed"] == 0
    assert ppo["sequences"] == dpo["sequences"], "those of the training rows are scored again, for their tokens"
    assert 0 < ppo["computed"] < ppo["sequences"]
    alone = call("precompute", *words(given, tmp_path / "alone", "ppo-offline"), "--json").json
    assert (alone["computed"], alone["cached"]) == (alone["sequences"], 0), "one pass gives tokens and sums"
    run = ["train", "--max-steps", 1, "--out"]
    said = call(*run, tmp_path / "run", *words(given, tmp_path, "ppo-offline")).err
    assert f"0 computed, {ppo['sequences']} cached" in said
    said = call(*run, tmp_path / "kto", *words(given, tmp_path, "kto")).err
    assert f"0 computed, {kto['sequences']} cached" in said


def test_tokens_that_do_not_add_up_to_the_stored_sums_stop_the_run(given, tmp_path, monkeypatch):
    """As where one of the two kinds of values is another model's; the folder to remove is named."""
    assert call("precompute", *words(given, tmp_path, "kto")).code == 0
    before = TokenCache.append
    monkeypatch.setattr(
        TokenCache, "append", lambda self, values: before(self, [(key, logps - 0.1) for key, logps in values])
    )
    ran = call("precompute", *words(given, tmp_path, "ppo-offline"))
    line = error_line(ran)
    assert "do not add up to the stored sums" in line
    assert str(tmp_path / "cache") in line.replace("\n", "")


@pytest.mark.parametrize("budget", [60, 8192])
def test_the_stored_tokens_are_the_models_own(given, pico, tmp_path, budget):
    """One sequence at a time, softmax over everything; whatever the micro-batches."""
    import torch
    from transformers import AutoModelForCausalLM

    from kto_cli.common.screen import Screen
    from kto_cli.common.train_config import TrainConfig
    from kto_cli.model.distributed.start import start_accelerator
    from kto_cli.model.logprobs.needed import Needed
    from kto_cli.model.logprobs.prepare import make_scorer, prepare
    from kto_cli.model.logprobs.reference import reference_logps

    config = TrainConfig(data=given[1], model=given[3], cache=str(tmp_path), micro_batch_tokens=budget)
    accelerator, screen = start_accelerator(), Screen(quiet=True)
    prepared = prepare(config, accelerator, screen)
    rows = prepared.train + prepared.validation
    scorer = make_scorer(prepared, accelerator, screen)
    found, _ = reference_logps(prepared, rows, lambda: scorer, config, accelerator, screen, Needed(tokens=True))
    model = AutoModelForCausalLM.from_pretrained(pico)
    assert len(found.tokens.starts) == len(prepared.train) + 1
    for at in range(0, len(prepared.train), 5):
        row = prepared.train[at]
        for (prompt, completion), tokens in ((row.own, found.tokens), (row.mismatched, found.mismatched_tokens)):
            with torch.no_grad():
                logps = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
            naive = [logps[len(prompt) - 1 + place, token].item() for place, token in enumerate(completion)]
            assert tokens.take([at]).values.tolist() == pytest.approx(naive, abs=2e-5)


def test_a_model_whose_head_is_not_plain_is_refused():
    """Its own logits are read, and its hidden states are not at hand."""
    import one_step

    from kto_cli.common.errors import BadModel
    from kto_cli.core.batches import pad
    from kto_cli.model.scorer import CompletionScorer

    scorer = CompletionScorer(one_step.pico_model())
    batch = pad([row.own for row in one_step.some_rows(2)])
    assert scorer(*batch, per_token=True)[0].shape == batch.targets.shape
    scorer.plain = True
    with pytest.raises(BadModel, match="--loss ppo-offline and --humanline read single tokens"):
        scorer(*batch, per_token=True)
