"""Whether a server serves the model that was trained: its numbers compared with the checkpoint's and its base's.

Two measures, both in nats a token:

    difference   mean |s - t| of log-probs of the same tokens: s of the server, t of the checkpoint. Measured with
                 SmolLM2-135M-Instruct, a hard case because it is small: 0.04 in bfloat16 arithmetic, 0.006 for
                 weights merged in bfloat16, 0.045 for weights of 8 bits (Q8_0), 0.76 for 4 bits (Q4_0).
    regret       mean of (the best token's log-prob - the answered token's), both of the checkpoint, over tokens that
                 the server answered greedily: 0 for the checkpoint itself, up to ties that rounding decides.

The base is what is served most often by mistake, and a short run is close to it. So the server's numbers are searched
for the change that training made, t - b with b of the base: `share` is the least-squares coefficient of s - b on t - b,
1 for the checkpoint, 0 for the base, between them for an adapter at a part of its scale: 0.5 at half of it while
log-probs are close to linear, 0.83 where training moved them by 5.7. Rounding spreads it around these values, and
weights of few bits lose some of it: there the difference tells the two apart, which is 1.2 for that half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 0.05
"""Nats a token: a larger difference is not rounding to 16 or 8 bits."""
OTHER = 0.3
"""Nats a token: with a larger difference it is another model, or one of so few bits that it is another."""
FEW_BITS = 1.0
"""Nats a token: with a larger difference it is not even rounding to 4 bits, however much training changed."""
REGRET = 0.05
"""Nats a token: a larger regret is not that of ties. SmolLM2-135M-Instruct has 0.003 in bfloat16, 0.002 with 8 bits,
0.38 with 4 bits; 0.08 without its default system message, 0.36 with another template."""
ALIKE = 0.005
"""Nats a token: where checkpoint and base differ by less in what they think of the answers, these cannot tell them."""
TOLERANCE = 0.25
"""How far `share` may be from 1 or 0: bfloat16 weights of SmolLM2-135M-Instruct served 0.81 of a short run."""
SURE = 0.15
"""Largest standard error of `share` with which it tells checkpoint and base apart."""
ERRORS = 2.0
"""Standard errors by which the regrets of checkpoint and base must differ to tell them apart: a few tokens, on which
rounding or another spelling of an answer decides, hold most of a regret."""


class Agreement(NamedTuple):
    """Log-probs of the same tokens by server, checkpoint and base; NaN without a base."""

    tokens: int
    difference: float
    """Mean |server - checkpoint|."""
    base_difference: float
    """Mean |server - base|."""
    change: float
    """Mean |checkpoint - base|."""
    share: float
    """Served of the change that training made."""
    share_se: float
    """Over rows (jackknife)."""


class Fit(NamedTuple):
    """Greedy answers of the server as checkpoint and base see them; NaN without a base."""

    answers: int
    same: int
    """Answers that are the checkpoint's word for word."""
    base_same: int
    """Those that are the base's."""
    regret: float
    base_regret: float
    prompts_differ: int
    """Prompts that the server counts another number of tokens in."""
    difference_se: float
    """Standard error of the difference between the regrets, over answers (jackknife)."""


class ServedVerdict(NamedTuple):
    """One word, a sentence, and the next step."""

    word: str
    """trained, base, partly, template, other or unsure."""
    sentence: str
    next_step: str = ""


def agreement(served: Sequence[Tensor], trained: Sequence[Tensor], base: Sequence[Tensor] | None) -> Agreement:
    """Compares log-probs: [rows] of [tokens]."""
    s, t = (torch.cat([part.double() for part in parts]) for parts in (served, trained))
    difference = (s - t).abs().mean().item()
    if base is None:
        return Agreement(len(s), difference, math.nan, math.nan, math.nan, math.nan)
    b = torch.cat([part.double() for part in base])
    rows = list(zip(served, trained, base, strict=True))
    ups = torch.stack([((one - low).double() * (two - low).double()).sum() for one, two, low in rows])
    downs = torch.stack([((two - low).double() ** 2).sum() for one, two, low in rows])
    share, error = _ratio(ups, downs)
    return Agreement(len(s), difference, (s - b).abs().mean().item(), (t - b).abs().mean().item(), share, error)


def _ratio(ups: Tensor, downs: Tensor) -> tuple[float, float]:
    """sum(ups) / sum(downs) and its standard error by the jackknife over rows."""
    up, down = ups.sum(), downs.sum()
    if down == 0:
        return math.nan, math.inf
    left_out = (up - ups) / (down - downs)
    return (up / down).item(), _jackknife(left_out)


def _jackknife(left_out: Tensor) -> float:
    """Standard error of a number, from [parts] the same without each part; infinite where one cannot be had."""
    if len(left_out) < 2 or not left_out.isfinite().all():
        return math.inf
    return float(((len(left_out) - 1) * left_out.var(correction=0)).sqrt())


def fit(
    regrets: Sequence[Tensor], base: Sequence[Tensor] | None, *, same: int, base_same: int, prompts_differ: int
) -> Fit:
    """Means over all answered tokens of [answers] of [tokens]."""
    mean = torch.cat(list(regrets)).double().mean().item()
    if base is None:
        return Fit(len(regrets), same, base_same, mean, math.nan, prompts_differ, math.nan)
    of_base = torch.cat(list(base)).double().mean().item()
    error = _jackknife(_means_without_each(regrets) - _means_without_each(base))
    return Fit(len(regrets), same, base_same, mean, of_base, prompts_differ, error)


def _means_without_each(parts: Sequence[Tensor]) -> Tensor:
    """[parts] means over all tokens but those of one part, for the jackknife; not finite for a single part."""
    sums = torch.stack([part.double().sum() for part in parts])
    counts = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    return (sums.sum() - sums) / (counts.sum() - counts)


def served_verdict(logps: Agreement | None, answers: Fit, answered: Agreement | None = None) -> ServedVerdict:
    """The verdict.

    Args:
        logps: of the rows' tokens; None where the server gives none of a prompt. answered: of its answers' tokens; some
            servers round or scale them, so they decide only between checkpoint and base, where the answers are alike.
    """
    if logps is None:
        by_answers = _by_answers(answers)
        if by_answers.word != "unsure" or answered is None:
            return by_answers
        by_answered = _by_logps(answered)
        return by_answered if by_answered.word in ("trained", "base") else by_answers
    by_logps = _by_logps(logps)
    if by_logps.word not in ("trained", "unsure") or answers.regret <= REGRET:
        return by_logps
    counted = (
        f", and the server counts other tokens in {answers.prompts_differ} of {answers.answers} prompts"
        if answers.prompts_differ
        else ""
    )
    return ServedVerdict(
        "template",
        f"The weights are right, but chats are answered otherwise (regret {answers.regret:.2g} nats a token){counted}: "
        "the server renders them with another chat template.",
        "Give the server the exported chat_template.jinja, and its arguments if the run had some.",
    )


def _by_logps(found: Agreement) -> ServedVerdict:
    numbers = f"log-probs differ by {found.difference:.2g} nats a token from the checkpoint's"
    other = ServedVerdict(
        "other",
        f"Another model is served, or one of so few bits that it is another: {numbers}.",
        "Is it the exported folder, and the name that it was given on the server?",
    )
    if math.isnan(found.base_difference):
        if found.difference > OTHER:
            return other
        if found.difference > ROUNDING:
            return ServedVerdict(
                "unsure",
                f"It cannot be told: {numbers}, more than rounding to 16 bits, and what training changed is not known.",
                "Give the run, not its export: kto export RUN --check URL.",
            )
        return ServedVerdict("trained", f"What is served is what was trained: {numbers}.")
    if min(found.difference, found.base_difference) > max(OTHER, found.change):
        return other
    moved = f"training changed them by {found.change:.2g}, and {found.share:.2f} of that is served"
    if found.share_se > SURE:
        return ServedVerdict(
            "unsure",
            f"It cannot be told: {numbers}, and training changed them by only {found.change:.2g}: the base would look "
            "the same.",
            "Ask about more rows (--rows), or serve in a wider dtype.",
        )
    if _near(0, found, found.base_difference):
        return ServedVerdict(
            "base",
            f"The base is served, without what was trained: {numbers} and by {found.base_difference:.2g} from the "
            f"base's; {moved}.",
            "Is the adapter loaded, and asked for by its name (--served-as)?",
        )
    if not _near(1, found, found.difference):
        return ServedVerdict(
            "partly",
            f"Something between base and checkpoint is served, or beyond: {numbers}; {moved}.",
            "Is it another step, or an adapter at another scale? Arithmetic of 16 bits loses small changes: try "
            "--merge, or float32.",
        )
    return ServedVerdict(
        "trained", f"What is served is what was trained: {numbers}{_rounding(found.difference)}; {moved}."
    )


def _near(share: float, found: Agreement, difference: float) -> bool:
    """Whether what is served is the model with this share but for rounding, given its difference from it."""
    return abs(found.share - share) <= max(TOLERANCE, 3 * found.share_se) and difference <= FEW_BITS


def _rounding(difference: float) -> str:
    return " (as weights of few bits do, or an adapter close to its scale)" if difference > ROUNDING else ""


def _by_answers(found: Fit) -> ServedVerdict:
    numbers = (
        f"{found.same} of {found.answers} greedy answers are the checkpoint's word for word, regret "
        f"{found.regret:.2g} nats a token"
    )
    if math.isnan(found.base_regret):
        fits_checkpoint, best = True, found.regret
    else:
        numbers += f"; of the base {found.base_same}, regret {found.base_regret:.2g}"
        fits_checkpoint, best = found.regret <= found.base_regret, min(found.regret, found.base_regret)
    if best > REGRET:
        return _not_answers(found, numbers)
    alike = abs(found.regret - found.base_regret) < max(ALIKE, ERRORS * found.difference_se)
    if alike and (found.same == found.answers) == (found.base_same == found.answers):
        return ServedVerdict(
            "unsure",
            f"It cannot be told: {numbers}. Checkpoint and base find these answers about as good.",
            "Ask about more rows (--rows), or serve with log-probs of prompts (vLLM: echo in /v1/completions).",
        )
    if not fits_checkpoint:
        return ServedVerdict(
            "base",
            f"The base is served, without what was trained: {numbers}.",
            "Is the adapter loaded, and asked for by its name (--served-as)?",
        )
    return ServedVerdict("trained", f"What is served answers as what was trained: {numbers}.")


def _not_answers(found: Fit, numbers: str) -> ServedVerdict:
    """The verdict on answers that are neither the checkpoint's nor the base's."""
    if found.prompts_differ:
        return ServedVerdict(
            "template",
            f"Not what was trained: {numbers}. The server counts other tokens in {found.prompts_differ} of "
            f"{found.answers} prompts: it renders chats with another chat template.",
            "Give the server the exported chat_template.jinja, and its arguments if the run had some.",
        )
    return ServedVerdict(
        "other",
        f"Not what was trained: {numbers}. Another model is served, or chats are rendered with another template.",
        "Is it the exported folder with its chat_template.jinja, and the name that it was given on the server?",
    )
