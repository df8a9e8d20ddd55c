"""Variable-length attention against a softmax over each token's own path, in float64, by the reference kernel; and the
CUDA operators' names, arguments and shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from paths import HEADS, KEY_HEADS, WIDTH, conversations, heads, naive, operands, tries
from torch import Tensor

from kto_cli.core.batches import Batch, continuation, pack
from kto_cli.core.rows import TokenSequence
from kto_cli.model import varlen_attention as varlen
from kto_cli.model import varlen_plan
from kto_cli.model.varlen_attention import varlen_attention
from kto_cli.model.varlen_kernels import EFFICIENT, FLASH, REFERENCE, Attended, Kernel
from kto_cli.model.varlen_plan import Plan, make_call, make_plan

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def attended(operands: list[Tensor], plan: Plan, past: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """By the reference kernel, in the layout of `naive`."""
    query, key, value = (part[0].transpose(0, 1) for part in operands)
    if past is not None:
        key, value = (torch.cat([some[0].transpose(0, 1), part]) for some, part in zip(past, (key, value), strict=True))
    return varlen_attention(query, key, value, plan, REFERENCE).transpose(0, 1)[None]


def check(batch: Batch, plan: Plan, seed: int, window: int | None = None) -> None:
    """Output and all three gradients, to rounding of float64."""
    ours, theirs = ([part.requires_grad_() for part in operands(batch, seed)] for _ in range(2))
    found, expected = attended(ours, plan), naive(*theirs, batch, window=window)
    torch.testing.assert_close(found, expected, **EXACT)
    weights = heads(batch.input_ids.numel(), HEADS, 99)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-11, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(tries())
def test_one_call_is_the_softmax_over_each_path(rows: list[TokenSequence]):
    batch, _ = pack(rows)
    plan = make_plan(batch.layout)
    assert plan.shared is None
    check(batch, plan, 0)


@pytest.mark.parametrize("most", [0, 1, 1.5])
@settings(max_examples=30, deadline=None)
@given(rows=tries())
def test_shared_spans_read_in_place_change_nothing(most: float, rows: list[TokenSequence]):
    """With all shared spans in place (0: at least), with as many as keep the copies below `most` times the tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen_plan, "MOST_COPIES", most)
        batch, _ = pack(rows)
        plan = make_plan(batch.layout, merges=True)
    if most == 0:
        assert (plan.shared is None) == (not batch.layout.shared)
    check(batch, plan, 1)


@pytest.mark.parametrize("window", [1, 2, 4, 9])
@settings(max_examples=15, deadline=None)
@given(rows=tries())
def test_a_window_counts_back_along_the_path(window: int, rows: list[TokenSequence]):
    batch, _ = pack(rows)
    plan = make_plan(batch.layout, window=window, merges=True)
    cut = batch.layout.longest > window
    assert plan.own.window == (window if cut else None)
    check(batch, plan, 2, window if cut else None)


@pytest.mark.parametrize("most", [0, 4])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("seed", range(8))
def test_a_continuation_reads_the_batch_before(
    seed: int, window: int | None, most: int, monkeypatch: pytest.MonkeyPatch
):
    """Prefixes are chains of spans of the batch before and of this one."""
    monkeypatch.setattr(varlen_plan, "MOST_COPIES", most)
    some = conversations(seed)
    first, prompts = pack(some)
    _, key, value = operands(first, seed)
    swapped = zip(some, reversed(some), strict=True)
    batch = continuation([TokenSequence(row.prompt, other.completion) for row, other in swapped], prompts)
    tokens = first.input_ids.numel()
    plan = make_plan(batch.layout, window=window, merges=True, past=tokens, gradient=False)
    own = operands(batch, seed + 100)
    with torch.no_grad():
        found = attended(own, plan, (key, value))
    torch.testing.assert_close(found, naive(*own, batch, (key, value), window), **EXACT)


@pytest.mark.parametrize("most", [0, 4])
def test_its_gradient_is_the_numeric_one(most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(varlen_plan, "MOST_COPIES", most)
    batch, _ = pack(conversations(3))
    plan = make_plan(batch.layout, merges=True)
    assert (plan.shared is None) == (most == 4)
    some = [part.requires_grad_() for part in operands(batch, 1)]
    assert torch.autograd.gradcheck(lambda *parts: attended(list(parts), plan), some, fast_mode=True)


def test_the_gradient_of_the_gather_is_that_of_index_select():
    """A token without copies, with one and with three."""
    tokens = torch.tensor([3, 0, 3, 1, 3], dtype=torch.int32)
    gather = varlen_plan._gather(tokens, 5, gradient=True)
    rows = torch.randn(5, 2, 4, dtype=torch.float64, requires_grad=True)
    copies = torch.randn(5, 2, 4, dtype=torch.float64)
    rows.index_select(0, tokens).backward(copies)
    assert varlen._summed((copies,), gather).equal(rows.grad)


def test_without_prefixes_nothing_is_gathered():
    batch, _ = pack([TokenSequence((token, 5), (6, 7)) for token in (1, 2, 3)])
    assert make_plan(batch.layout).keys is None


@pytest.mark.parametrize("system", [800, 1500, 4000])
def test_copies_of_a_long_system_prompt_are_bounded(system: int):
    """32 rows, two of each prompt of 75 tokens (the first the same in all), completions of 66 that are read, below a
    system prompt: each row has one segment. Gathered whole, that is system + 141 keys a segment. With the system prompt
    in place, 140 keys a segment, but for the first, which contains it, and the system prompt + 1 once more."""
    root = (*range(5, 5 + system), 1)
    rows = [TokenSequence((*root, 9000 + row // 2, *range(73)), (9000 + row, *range(66))) for row in range(32)]
    batch, _ = pack(rows)
    assert batch.input_ids.numel() == system + 1 + 16 * (74 + 2 * 66)
    assert len(make_plan(batch.layout).keys.tokens) == 32 * (system + 141)
    plan = make_plan(batch.layout, merges=True)
    assert len(plan.keys.tokens) == (system + 141) + 31 * 140 + (system + 1)
    assert plan.shared_keys == system + 1


def test_rows_of_two_a_prompt_are_gathered_whole():
    """As of hh-rlhf: copies are a third of the tokens, so one call does it."""
    rows = [TokenSequence((row // 2, *range(74)), (row, *range(66))) for row in range(32)]
    batch, _ = pack(rows)
    plan = make_plan(batch.layout, merges=True)
    assert plan.shared is None
    assert len(plan.keys.tokens) == 32 * 141 < 1.4 * batch.input_ids.numel()


# --- which kernel -------------------------------------------------------------------------------------------------


def half(
    width: int = 8, key_heads: int = 2, value_width: int | None = None, dtype: torch.dtype = torch.bfloat16
) -> Any:
    """Operands of a layer, [1, heads, tokens, width]."""
    tokens = torch.zeros(1, 4, 3, width, dtype=dtype), torch.zeros(1, key_heads, 3, width, dtype=dtype)
    return *tokens, torch.zeros(1, key_heads, 3, value_width or width, dtype=dtype)


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the compute capability that is found."""

    def found(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return found


def test_the_kernel_for_a_card_and_a_dtype(capability: Any):
    """Flash attention from Ampere on for half precision and widths it knows; float32 and older cards the other one."""
    capability(8, 0)
    assert varlen._on_cuda(half()[0]) is FLASH
    assert varlen._on_cuda(half(256, dtype=torch.float16)[0]) is FLASH
    assert varlen._on_cuda(half(264)[0]) is varlen._on_cuda(half(12)[0]) is None
    assert varlen._on_cuda(half(12, dtype=torch.float32)[0]) is EFFICIENT
    assert varlen._on_cuda(half(dtype=torch.float64)[0]) is None
    capability(7, 5)
    assert varlen._on_cuda(half(dtype=torch.float16)[0]) is EFFICIENT
    assert varlen._on_cuda(half()[0]) is None, "no bfloat16 before Ampere"


def broken(what: str) -> Kernel:
    """The reference with a fault."""

    def forward(*given: Any) -> tuple[Tensor, ...]:
        if what == "raises":
            raise RuntimeError("no such kernel")
        if what == "upper left":  # causal attention aligned at the wrong corner
            return REFERENCE.forward(*given[:3], given[3]._replace(key_starts=given[3].query_starts), given[4])
        return REFERENCE.forward(*given)

    def backward(*given: Any) -> tuple[Tensor, ...]:
        d_query, d_key, d_value = REFERENCE.backward(*given)
        return d_query, d_key * (0.5 if what == "wrong gradient" else 1), d_value

    return Kernel(what, forward, backward, merges=True, compiles=False)


@pytest.mark.parametrize("what", ["sound", "raises", "upper left", "wrong gradient"])
def test_a_kernel_is_tried_before_it_is_used(what: str, monkeypatch: pytest.MonkeyPatch):
    kernel = broken(what)
    monkeypatch.setitem(varlen.KERNELS, "cpu", lambda query: kernel)
    for windowed in (None, 4):
        assert varlen.kernel_for(*half(dtype=torch.float32), windowed) is (kernel if what == "sound" else None)


def test_values_of_another_width_have_no_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(varlen.KERNELS, "cpu", lambda query: REFERENCE)
    assert varlen.kernel_for(*half(), None) is REFERENCE
    assert varlen.kernel_for(*half(value_width=16), None) is None


# --- the operators of CUDA ----------------------------------------------------------------------------------------

POSITIONAL = {
    "_flash_attention_forward": "query key value cum_seq_q cum_seq_k max_q max_k dropout_p is_causal return_debug_mask",
    "_flash_attention_backward": (
        "grad_out query key value out logsumexp cum_seq_q cum_seq_k max_q max_k dropout_p is_causal"
    ),
    "_efficient_attention_forward": (
        "query key value bias cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k dropout_p custom_mask_type "
        "compute_log_sumexp"
    ),
    "_efficient_attention_backward": (
        "grad_out_ query key value bias out cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k logsumexp dropout_p "
        "philox_seed philox_offset custom_mask_type bias_requires_grad"
    ),
    "_embedding_bag_forward_only": (
        "weight indices offsets scale_grad_by_freq mode sparse per_sample_weights include_last_offset"
    ),
}
"""Arguments given by position, as this torch has to name them."""
NAMED = {
    "_flash_attention_forward": {"scale", "window_size_left", "window_size_right"},
    "_flash_attention_backward": {"scale", "window_size_left", "window_size_right"},
    "_efficient_attention_forward": {"scale", "window_size"},
    "_efficient_attention_backward": {"scale", "window_size"},
}


@pytest.mark.parametrize("name", POSITIONAL)
def test_this_torch_has_the_operators(name: str):
    """A torch that moves or renames an argument fails here, and not on somebody's GPU."""
    arguments = getattr(torch.ops.aten, name).default._schema.arguments
    expected = POSITIONAL[name].split()
    assert [argument.name for argument in arguments][: len(expected)] == expected
    assert {argument.name for argument in arguments} >= NAMED.get(name, set())
    rest = {argument.name for argument in arguments[len(expected) :] if not argument.has_default_value()}
    assert rest in (set(), {"rng_state", "unused"}, {"philox_seed", "philox_offset"}), "what forward returns"


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(("kernel", "dtype"), [(FLASH, torch.bfloat16), (EFFICIENT, torch.float32)])
@pytest.mark.parametrize("most", [0, 4])
def test_the_operators_take_and_give_these_shapes(
    most: int, kernel: Kernel, dtype: torch.dtype, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    """On the meta device, forward and backward, with shared spans in place and without."""
    monkeypatch.setattr(varlen_plan, "MOST_COPIES", most)
    batch, _ = pack(conversations(3))
    plan = make_plan(batch.layout, window=window, merges=kernel.merges).to(torch.device("meta"))
    tokens = batch.input_ids.numel()
    some = [
        torch.empty(tokens, count, WIDTH, dtype=dtype, device="meta", requires_grad=True)
        for count in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    found = varlen_attention(*some, plan, kernel)
    assert (found.shape, found.dtype) == ((tokens, HEADS, WIDTH), dtype)
    if not kernel.compiles:
        return  # torch's own shape function of its backward pass lacks an argument
    found.sum().backward()
    assert [(part.grad.shape, part.grad.dtype) for part in some] == [(part.shape, dtype) for part in some]


def test_a_call_is_one_on_the_device():
    """A plan that was moved has the numbers of the one on the CPU."""
    batch, _ = pack(conversations(3))
    plan = make_plan(batch.layout)
    moved = plan.to(torch.device("cpu"))
    for part, other in zip(plan, moved, strict=True):
        for mine, its in zip(part or (), other or (), strict=True) if isinstance(part, tuple) else ():
            assert mine.equal(its) if isinstance(mine, Tensor) else mine == its
    assert make_call([2, 3], [4, 5], causal=True).query_starts.tolist() == [0, 2, 5]


@pytest.mark.parametrize("kernel", [FLASH, EFFICIENT], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("asked", ["off", "preferred", "required"])
def test_a_backward_pass_is_deterministic_unless_nobody_asked(kernel, asked, monkeypatch):
    """The kernels read torch's mode: where determinism is only preferred, they warn and take the other algorithm."""
    seen = []

    def backward(*operands, **options):
        warns = torch.is_deterministic_algorithms_warn_only_enabled()
        seen.append("preferred" if warns else "required" if torch.are_deterministic_algorithms_enabled() else "off")
        return [torch.zeros(1, 3, 2, 8)] * 4 if kernel is EFFICIENT else [torch.zeros(3, 2, 8)] * 3

    for name in ("_flash_attention_backward", "_efficient_attention_backward"):
        monkeypatch.setattr(torch.ops.aten, name, backward)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.use_deterministic_algorithms(asked != "off", warn_only=asked == "preferred")
        some = torch.zeros(3, 2, 8)
        attended = Attended(some, some, some, some, torch.zeros(2, 3), (some, some))
        kernel.backward(some, attended, make_call((3,), (3,), causal=True), 1.0)
        assert torch.is_deterministic_algorithms_warn_only_enabled() == (asked == "preferred")
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    assert seen == ["off" if asked == "off" else "required"]
