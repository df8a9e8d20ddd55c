"""Estimates on validation rows, of many resamples at once, and the interval of each."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings, is_custom
from kto_cli.core.losses import signs_and_weights
from kto_cli.core.objectives import Values, context, unit_losses
from kto_cli.core.pairs import pairing_of
from kto_cli.core.statistics.auc import (
    auc,
    length_adjusted_auc,
    rank_scores,
    ranked_auc,
    similar_length_auc,
    similar_length_counts,
    similar_length_pairs,
)
from kto_cli.core.statistics.intervals import (
    RESAMPLES,
    cluster_numbers,
    copies_in,
    copies_in_class,
    drawn_share,
    mean_interval,
)
from kto_cli.core.statistics.robust import Trimmed
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.shares import Share, all_pairs, auc_variance, share_variance
from kto_cli.core.value_functions import VALUE_FUNCTIONS

ROW_BUDGET = 10_000_000
"""Rows drawn by a whole bootstrap at most: above 10,000 rows there are fewer resamples, but at least 100."""
NEVER_NEGATIVE = ("loss", "z_ref", "moved_nats")
SHARES = ("accuracy", "paired_accuracy", "auc", "auc_length", "auc_length_matched", "auc_length_adjusted")


class Estimator:
    """All estimates of many resamples at once; sorting is done once, for all of them.

    `kl` is the mean log-ratio of the mismatched completions in nats, before the clamp that makes it z_ref. Its
    completions are from the data, not sampled from the policy, so it may be negative. The estimates in nats are trimmed
    (`Trimmed`): few rows cannot move them far. `moved_nats` is the size of a row's log-ratio.
    """

    def __init__(self, scores: Scores, settings: LossSettings) -> None:
        self.settings = settings
        self.desirable, self.lengths = scores.desirable, scores.lengths.double()
        self.log_ratios, self.mismatched = scores.log_ratios.double(), scores.mismatched_log_ratios.double()
        self.values = _values(scores, settings)
        longer = length_direction(scores) == "longer"
        self.by_length = rank_scores(self.lengths if longer else -self.lengths, self.desirable)
        self.by_ratio = rank_scores(self.log_ratios, self.desirable)
        self.alike = similar_length_pairs(self.log_ratios, self.lengths, self.desirable)
        self.winners, self.pairs = pair_outcomes(scores)
        self.members = {"desirable": self.desirable, "undesirable": ~self.desirable}
        self.trimmed = {"moved_nats": Trimmed(self.log_ratios.abs()), "kl_trimmed": Trimmed(self.mismatched)}
        self.of_class = {
            name: (Trimmed(self.log_ratios[rows]), Trimmed(self.log_ratios[rows], self.lengths[rows].clamp(min=1)))
            for name, rows in self.members.items()
        }
        clusters, self.prompts = cluster_numbers(scores.prompt_ids)
        self.class_prompts = {name: len(clusters[rows].unique()) for name, rows in self.members.items()}
        self.copies, self.class_copies = copies_in(clusters), copies_in_class(self.desirable, clusters)
        self.pair_prompts = len(clusters[self.pairs].unique())
        self.pair_copies = copies_in(clusters[self.pairs])

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        """[resamples] each, from [resamples, rows] how often each contains a row; NaN in one without a class.

        Returns:
            kl; of the loss, where it defines them, loss, z_ref, accuracy; reward, log_ratio, log_ratio_per_token
            _desirable and _undesirable, margin, margin_nats, moved_nats, kl_trimmed; auc, auc_length,
            auc_length_matched, auc_length_adjusted and (rows in pairs) paired_accuracy.
        """
        found = self.of_loss(weights) | {name: each.ratio(weights) for name, each in self.trimmed.items()}
        for name, rows in self.members.items():
            of_class = weights[:, rows].double()
            each, per_token = self.of_class[name]
            found[f"reward_{name}"] = self.settings.beta * (of_class @ self.log_ratios[rows]) / of_class.sum(1)
            found[f"log_ratio_{name}"] = each.ratio(of_class)
            found[f"log_ratio_per_token_{name}"] = per_token.ratio(of_class)
        found["margin"] = found["reward_desirable"] - found["reward_undesirable"]
        found["margin_nats"] = found["log_ratio_desirable"] - found["log_ratio_undesirable"]
        found["auc"] = ranked_auc(self.by_ratio, weights)
        found["auc_length"] = ranked_auc(self.by_length, weights)
        found["auc_length_matched"] = similar_length_auc(self.alike, weights)
        found["auc_length_adjusted"] = length_adjusted_auc(self.log_ratios, self.lengths, self.desirable, weights)
        if len(self.pairs):
            of_pairs = weights[:, self.pairs]
            found["paired_accuracy"] = (of_pairs * self.winners).sum(1) / of_pairs.sum(1)
        return found

    def of_loss(self, weights: Tensor) -> dict[str, Tensor]:
        """Means over all rows: [resamples, rows] -> [resamples]; what the loss leaves undefined is absent.

        The reference point is that of the resampled rows themselves.
        """
        settings, kl = self.settings, (weights @ self.mismatched) / weights.sum(1)
        found = {"kl": kl}
        if not settings.reference or is_custom(settings.loss) or settings.kind.per_token:
            # compares log-probs a token; is defined on whole batches, by code that is not run here; has a value head
            return found
        if settings.kind.is_unpaired:
            point = self._point(weights, kl)
            signs, row_weights = signs_and_weights(self.desirable, settings, dtype=torch.float64)
            margins = settings.beta * signs * (self.log_ratios - point)
            losses = row_weights * VALUE_FUNCTIONS[settings.value](margins)
            correct = ((signs * (self.log_ratios - point)).sign() + 1) / 2
            found["loss"] = (weights * losses).sum(1) / weights.sum(1)
            found["accuracy"] = (weights * correct).sum(1) / weights.sum(1)
            if settings.point != "zero":
                found["z_ref"] = (weights * point).sum(1) / weights.sum(1) if point.shape[1] > 1 else point[:, 0]
        elif self.values is not None:
            members = self._learned()
            if not len(members):
                return found
            each = weights[:, members].double()
            given = context(settings, self.values)
            losses = unit_losses(settings._replace(sft_weight=0.0), self.values, given)
            losses = losses if settings.kind.unit == "pair" else losses[members]
            divisor = self.lengths[members].double() if settings.kind.tokens else torch.ones(len(members))
            found["loss"] = (each @ losses) / (each @ divisor.double())
        if settings.sft_weight and self.values is not None and "loss" in found:
            each = weights[:, self.desirable].double()
            likelihood = (each @ self.values.logps[self.desirable]) / (each @ self.lengths[self.desirable].double())
            found["loss"] = found["loss"] - settings.sft_weight * likelihood
        return found

    def _learned(self) -> Tensor:
        """Indices of the rows that the loss is of, one of each pair."""
        if self.settings.kind.unit == "pair":
            assert self.values is not None
            return self.values.winners
        return torch.arange(len(self.desirable)) if self.settings.kind.control else self.desirable.nonzero()[:, 0]

    def _point(self, weights: Tensor, kl: Tensor) -> Tensor:
        """[resamples, 1 or rows] the reference point."""
        if self.settings.point == "mismatched":
            return kl.clamp(min=0)[:, None]
        if self.settings.point == "zero":
            return torch.zeros(1, 1, dtype=torch.float64)
        if self.settings.point == "mean-reward":
            return ((weights @ self.log_ratios) / weights.sum(1))[:, None]
        means = {
            name: (weights[:, rows].double() @ self.log_ratios[rows]) / weights[:, rows].sum(1)
            for name, rows in self.members.items()
        }
        up, down = (means[name].nan_to_num(0.0).clamp(min=0)[:, None] for name in ("undesirable", "desirable"))
        return torch.where(self.desirable, up, down)

    def share(self, name: str, value: float, drawn: Tensor) -> Share:
        """An AUC or accuracy with its [resamples]."""
        if name == "accuracy":
            variance = partial(share_variance, trials=len(self.desirable))
            return drawn_share(value, drawn, variance, prompts=self.prompts, copies=self.copies)
        if name == "paired_accuracy":
            variance = partial(share_variance, trials=len(self.pairs))
            return drawn_share(value, drawn, variance, prompts=self.pair_prompts, copies=self.pair_copies)
        counts = (
            similar_length_counts(self.alike)
            if name == "auc_length_matched"
            else all_pairs(int(self.desirable.sum()), int((~self.desirable).sum()))
        )
        variance, prompts = partial(auc_variance, counts=counts), min(self.class_prompts.values())
        return drawn_share(value, drawn, variance, prompts=prompts, copies=self.class_copies)

    def interval(self, name: str, value: float, drawn: Tensor) -> list[float]:
        """The 90 % interval of an estimate from its [resamples]."""
        if name in SHARES:
            return self.share(name, value, drawn).interval()
        prompts = self.class_prompts.get(name.rpartition("_")[2], self.prompts)
        if name.startswith("margin"):
            prompts = min(self.class_prompts.values())
        low, high = mean_interval(value, drawn, prompts)
        return [max(0.0, low) if name in NEVER_NEGATIVE else low, high]


def _values(scores: Scores, settings: LossSettings) -> Values | None:
    """What losses of log-probs and of pairs read; None where the log-probs are not known."""
    if scores.logps is None:
        return None
    signs, weights = signs_and_weights(scores.desirable, settings, dtype=torch.float64)
    names, labels = scores.pair_ids, scores.desirable.tolist()
    logps = scores.logps.double()
    references = logps - scores.log_ratios.double()
    pairs = pairing_of(names if settings.kind.unit == "pair" else [None] * len(labels), labels).indices(labels)
    return Values(logps, references, signs, weights, scores.lengths.double(), *pairs)


def length_direction(scores: Scores) -> str:
    """Whether desirable completions are "longer" or "shorter"."""
    return "longer" if auc(-scores.lengths.double(), scores.desirable) < 0.5 else "shorter"


def pair_outcomes(scores: Scores) -> tuple[Tensor, Tensor]:
    """Pairs: [pairs] of 1 / 0.5 / 0 (the desirable row has the higher reward), and the desirable row's index."""
    log_ratios = scores.log_ratios.double()
    sides: dict[str, dict[bool, int]] = {}
    for row, (pair, label) in enumerate(zip(scores.pair_ids, scores.desirable.tolist(), strict=True)):
        if pair is not None:
            sides.setdefault(pair, {})[label] = row
    whole = [(side[True], side[False]) for side in sides.values() if len(side) == 2]
    up = torch.tensor([first for first, _ in whole], dtype=torch.int64)
    down = torch.tensor([second for _, second in whole], dtype=torch.int64)
    return ((log_ratios[up] - log_ratios[down]).sign() + 1) / 2, up


def resamples_for(rows: int) -> int:
    """Number of bootstrap resamples for so many rows."""
    return min(RESAMPLES, max(100, ROW_BUDGET // max(1, rows)))
