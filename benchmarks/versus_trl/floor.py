"""The least a KTO step can cost: FLOPs that no way around is known for, at the speed this machine multiplies.

Counted are matrix products alone, forward 2 FLOPs a multiply-add, backward twice the forward:

- policy, forward and backward, over real tokens: every prompt once in an effective batch, every completion once;
- policy, forward only, over the mismatched completions, their prompts' keys and values at hand;
- attention over the pairs of positions that causality allows;
- the head at the positions that predict a completion token.

The reference is cached, so it costs nothing; nor do norms, softmax, the optimizer, or anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from versus_trl.shapes import Shape

ATTENTION = "attention"
_HEAD_ELEMENTS = 1 << 26
"""Most logits of a measured head product."""

Flops = Counter[str]
"""Product -> FLOPs; products are named as `gemm_rates` names them."""


class Work(NamedTuple):
    """What one effective batch holds, in tokens and in pairs of positions that attend."""

    prompts: int
    completions: int
    mismatched: int
    prompt_pairs: int
    completion_pairs: int
    mismatched_pairs: int


def work_of(rows: Sequence[dict[str, Any]]) -> Work:
    """Rows with `prompt`, `completion` and `mismatched` token ids; equal prompts and equal pairs count once."""
    prompts = {tuple(row["prompt"]) for row in rows}
    pairs = {(tuple(row["prompt"]), tuple(row["mismatched"])) for row in rows}
    return Work(
        prompts=sum(map(len, prompts)),
        completions=sum(len(row["completion"]) for row in rows),
        mismatched=sum(len(completion) for _, completion in pairs),
        prompt_pairs=sum(triangle(len(prompt)) for prompt in prompts),
        completion_pairs=sum(attended(len(row["prompt"]), len(row["completion"])) for row in rows),
        mismatched_pairs=sum(attended(len(prompt), len(completion)) for prompt, completion in pairs),
    )


def triangle(length: int) -> int:
    """Pairs (position, position not after it)."""
    return length * (length + 1) // 2


def attended(prompt: int, completion: int) -> int:
    """Pairs that a completion's positions add behind its prompt."""
    return completion * prompt + triangle(completion)


def floor_flops(shape: Shape, work: Work) -> Flops:
    """The FLOPs of the step described above."""
    flops = forward_flops(
        shape,
        tokens=work.prompts + work.completions + work.mismatched,
        pairs=work.prompt_pairs + work.completion_pairs + work.mismatched_pairs,
        scored=work.completions + work.mismatched,
    )
    return flops + backward_flops(
        shape,
        tokens=work.prompts + work.completions,
        pairs=work.prompt_pairs + work.completion_pairs,
        scored=work.completions,
    )


def forward_flops(shape: Shape, *, tokens: int, pairs: int, scored: int) -> Flops:
    """One forward: body over `tokens`, attention over `pairs` of positions, head at `scored` positions."""
    flops: Flops = Counter()
    for linear in shape.linears:
        flops[_name(linear, "forward")] += 2 * shape.layers * linear[0] * linear[1] * tokens
    # Scores and their product with the values: 2 products of `heads * head_width` multiply-adds a pair.
    flops[ATTENTION] += 2 * 2 * shape.layers * shape.hidden * pairs
    flops[_name((shape.vocabulary, shape.hidden), "forward")] += 2 * shape.vocabulary * shape.hidden * scored
    return flops


def backward_flops(shape: Shape, *, tokens: int, pairs: int, scored: int) -> Flops:
    """The backward of `forward_flops`: a product for the inputs' gradient, one for the weights'."""
    flops: Flops = Counter()
    for name, count in forward_flops(shape, tokens=tokens, pairs=pairs, scored=scored).items():
        if name == ATTENTION:
            flops[name] += 2 * count
        else:
            flops[name.replace("forward", "input gradient")] += count
            flops[name.replace("forward", "weight gradient")] += count
    return flops


def head_share(shape: Shape, flops: Flops) -> float:
    """The head's share of the FLOPs."""
    head = f"{shape.vocabulary}x{shape.hidden} "
    return sum(count for name, count in flops.items() if name.startswith(head)) / flops.total()


def padded_flops(
    shape: Shape, rows: Sequence[dict[str, Any]], *, micro_batch: int, passes: dict[str, int], head_everywhere: bool
) -> int:
    """What a trainer spends that pads `micro_batch` rows to the longest and runs prompts with every completion.

    Mismatched completions are the micro-batch's own, rotated by one, as TRL's are; attention is counted as causal.

    Args:
        passes: how often the rows and the mismatched pairs are run forward (`own`, `mismatched`), and the rows
            backward (`backward`), whose FLOPs are twice a forward's.
    """
    total = 0
    for start in range(0, len(rows), micro_batch):
        part = rows[start : start + micro_batch]
        prompts = [len(row["prompt"]) for row in part]
        completions = [len(row["completion"]) for row in part]
        rotated = completions[-1:] + completions[:-1]
        for lengths, times in (
            (completions, passes["own"] + 2 * passes["backward"]),
            (rotated, passes["mismatched"]),
        ):
            longest = max(prompt + length for prompt, length in zip(prompts, lengths, strict=True))
            padded = len(part) * longest
            scored = padded if head_everywhere else sum(lengths)
            pairs = len(part) * triangle(longest)
            total += times * forward_flops(shape, tokens=padded, pairs=pairs, scored=scored).total()
    return total


def floor_seconds(flops: Flops, rates: dict[str, float]) -> float:
    """Each product's FLOPs at its measured FLOPs a second."""
    return sum(count / rates[name] for name, count in flops.items())


def _name(linear: tuple[int, int], kind: str) -> str:
    return f"{linear[0]}x{linear[1]} {kind}"


# --- measured -----------------------------------------------------------------------------------


def gemm_rates(shape: Shape, *, tokens: int, length: int, dtype: Any, device: Any) -> dict[str, float]:
    """FLOPs a second of every product, at `tokens` positions, attention at sequences of `length`."""
    import torch

    def random(*sizes: int) -> Any:
        return torch.randn(*sizes, dtype=dtype, device=device)

    rates = {}
    head = (shape.vocabulary, shape.hidden)
    for linear in {*shape.linears, head}:
        positions = min(tokens, _HEAD_ELEMENTS // shape.vocabulary) if linear == head else tokens
        weight, inputs, outputs = random(*linear), random(positions, linear[1]), random(positions, linear[0])
        # Into memory that is there: a page the system gives for the first time would count as multiplying.
        targets = torch.empty_like(outputs), torch.empty_like(inputs), torch.empty_like(weight)
        products = {
            "forward": lambda w=weight, x=inputs, out=targets[0]: torch.mm(x, w.T, out=out),
            "input gradient": lambda w=weight, y=outputs, out=targets[1]: torch.mm(y, w, out=out),
            "weight gradient": lambda x=inputs, y=outputs, out=targets[2]: torch.mm(y.T, x, out=out),
        }
        for kind, product in products.items():
            rates[_name(linear, kind)] = 2 * linear[0] * linear[1] * positions / _seconds(product, device)
    batch = max(1, tokens // length) * shape.heads
    queries, keys, scores = (
        random(batch, length, shape.head_width),
        random(batch, shape.head_width, length),
        random(batch, length, length),
    )
    seconds = _seconds(lambda: (queries @ keys, scores @ queries), device)
    rates[ATTENTION] = 4 * batch * length * length * shape.head_width / seconds
    return rates


def _seconds(product: Any, device: Any, least: float = 0.3) -> float:
    """Median time of one call, over at least `least` seconds."""
    import statistics
    import time

    import torch

    def finished() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    product()
    began, times = finished(), []
    while len(times) < 3 or finished() - began < least:
        start = finished()
        product()
        times.append(finished() - start)
    return statistics.median(times)
