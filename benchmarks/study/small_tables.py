"""Tables of the small worlds in Markdown, from their results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.study.contrasts import Difference, difference, holm
from benchmarks.study.markdown import markdown
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.trials import AS_IT_IS, SEEDS, STARTS, TUNING_SEED, Condition

Result = dict[str, Any]


class Group(NamedTuple):
    """A condition with its results at the chosen rate, by seed."""

    condition: Condition
    found: list[Result]

    def mean(self, name: str) -> float:
        """Of a number over the seeds."""
        return statistics.mean(one[name] for one in self.found)

    @property
    def rewards(self) -> list[list[float]]:
        """[seeds][prompts], in percentage points."""
        return [[one / 10 for one in result["rewards"]] for result in self.found]


def small_tables(results: Sequence[Result]) -> dict[str, str]:
    """All tables of one world by name; a table without results is left out."""
    groups = grouped(results)
    found = {name: comparison(name, groups) for name in QUESTIONS if any(key.startswith(f"{name} /") for key in groups)}
    if "family" in found:
        found |= {"length": length(groups, results), "rates": rates(results)}
    return found


def grouped(results: Sequence[Result]) -> dict[str, Group]:
    """Conditions with results that count, by full name; those that lack a seed which others have are left out."""
    by_name: dict[str, list[Result]] = {}
    for one in results:
        if one["seed"] in SEEDS:
            by_name.setdefault(f"{one['table']} / {one['name']}", []).append(one)
    seeds = max(map(len, by_name.values()), default=0)
    conditions = [one for make in QUESTIONS.values() for one in make()]
    return {
        one.full_name: Group(one, sorted(by_name[one.full_name], key=lambda found: found["seed"]))
        for one in conditions
        if len(by_name.get(one.full_name, ())) == seeds > 0
    }


def comparison(table: str, groups: dict[str, Group]) -> str:
    """A table: its conditions, those that they are compared with first, and the differences."""
    wanted = [one for one in QUESTIONS[table]() if one.full_name in groups]
    others = {one.against for one in wanted if one.against in groups} - {one.full_name for one in wanted}
    shown = [groups[name] for name in (*sorted(others), *(one.full_name for one in wanted))]
    compared = {one.full_name: gap(groups, one) for one in wanted if one.against in groups}
    adjusted = dict(zip(compared, holm([one.p for one in compared.values()]), strict=True))
    length_auc = statistics.mean(group.mean("auc_length") for group in shown)
    header = (
        "condition", "rate", "reward", "greedy", "minus", "difference", "p (Holm)", "KL",
        f"AUC (of length {length_auc:.2f})", "margin", "tokens", "ended", "distinct",
    )  # fmt: skip
    rows = []
    for group in shown:
        name = group.condition.full_name
        own = compared.get(name)
        rows.append((
            said(group.condition, table), f"{group.found[0]['rate']:g}", percent(group.mean("reward")),
            percent(group.mean("reward_greedy")), said_against(group.condition, table) if own else "",
            said_difference(own), said_p(adjusted.get(name)), f"{group.mean('kl'):.0f}",
            f"{group.mean('auc'):.3f}", f"{group.mean('margin'):+.1f}", f"{group.mean('tokens'):.0f}",
            f"{group.mean('ended'):.0%}", f"{group.mean('distinct'):.2f}",
        ))  # fmt: skip
    return markdown(header, rows)


def gap(groups: dict[str, Group], condition: Condition) -> Difference:
    """Of a condition and the one that it is compared with."""
    return difference(groups[condition.full_name].rewards, groups[condition.against].rewards)


def length(groups: dict[str, Group], results: Sequence[Result]) -> str:
    """How long the answers of the family are, and whether they end and repeat; the starts first."""
    header = ("model", "tokens, at most 64", "ended", "by seed", "repeated 4-grams", "distinct trigrams", "reward")
    starts = [Group(Condition(STARTS, one["name"], ()), [one]) for one in results if one["seed"] == AS_IT_IS]
    family = [group for name, group in groups.items() if group.condition.table == "family"]
    rows = [
        (group.condition.name, f"{group.mean('tokens'):.0f}", f"{group.mean('ended'):.0%}", by_seed(group, "ended"),
         f"{group.mean('repeated'):.0%}", f"{group.mean('distinct'):.2f}", percent(group.mean("reward")))
        for group in (*starts, *family)
    ]  # fmt: skip
    return markdown(header, rows)


def by_seed(group: Group, name: str) -> str:
    """A share's least and greatest value over the seeds."""
    found = [one[name] for one in group.found]
    return f"{min(found):.0%} to {max(found):.0%}" if len(found) > 1 else ""


def rates(results: Sequence[Result]) -> str:
    """Reward on validation prompts by learning rate, and KL in brackets."""
    tried = [one for one in results if one["seed"] == TUNING_SEED]
    columns = sorted({one["rate"] for one in tried})
    lines: dict[tuple[str, str], dict[float, str]] = {}
    for one in tried:
        cell = f"{percent(one['reward'])} ({one['kl']:.0f})"
        lines.setdefault((one["table"], one["name"]), {})[one["rate"]] = cell
    rows = [(name, *(cells.get(rate, "") for rate in columns)) for (_, name), cells in lines.items()]
    return markdown(("condition", *(f"{rate:g}" for rate in columns)), rows)


def said(condition: Condition, table: str) -> str:
    """The condition's name, with its table if that is another one."""
    return condition.name if condition.table == table else f"{condition.name} ({condition.table})"


def said_against(condition: Condition, table: str) -> str:
    """What it is compared with."""
    other, _, name = condition.against.partition(" / ")
    return name if other == table else f"{name} ({other})"


def said_difference(one: Difference | None) -> str:
    """Such as "+1.2 [-0.3, +2.7]"."""
    return "" if one is None else f"{one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"


def said_p(p: float | None) -> str:
    """Three digits, as far as they tell p from 0."""
    return "" if p is None else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def percent(reward: float) -> str:
    """A reward in percentage points."""
    return f"{100 * reward:.1f}"
