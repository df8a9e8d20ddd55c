"""Label or score of a row: from two rules, a label column or a score column."""

from __future__ import annotations

import math
import shlex
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.labels import WORDS, as_number, is_missing
from kto_cli.data.formats.records import RowFault
from kto_cli.data.log.columns import rules_of
from kto_cli.data.log.rule_ast import spell_column, spell_text
from kto_cli.data.log.rule_eval import NotApplicable, cell_of, number_in_cell, spell_cell
from kto_cli.data.log.rules import Rule

Values = dict[str, Any]


class NoFeedback(Exception):
    """A well-formed row without feedback; becomes a `Dropped`, never an error for the user."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def label_or_score(values: Values, config: BinarizeConfig) -> bool | float:
    """Label of a row, or its number.

    Raises:
        NoFeedback: `matches_neither`, `no_label` or `no_score`.
        RowFault: for the reasons in format.py.
    """
    if config.desirable is not None:
        return by_rules(values, config)
    name = config.label_column or config.score_column
    if name is None:
        raise NoFeedback("no_label", "no column that says whether it is good")
    cell = cell_of(values, name)
    kind = "label" if config.label_column else "score"
    if is_missing(cell):
        raise NoFeedback(f"no_{kind}", f"{name} is empty")
    if isinstance(cell, NotApplicable):
        raise RowFault("label_not_accepted" if config.label_column else "score_not_a_number", cell.detail)
    return by_label(name, cell) if config.label_column else by_score(name, cell)


def by_rules(values: Values, config: BinarizeConfig) -> bool:
    """Label by two rules; a row to which one of them is not applicable is rejected whatever the other gives."""
    desirable, undesirable = rules_of(config)
    good, bad = truth("--desirable", desirable, values), truth("--undesirable", undesirable, values)
    if desirable is None:
        good = opposite(bad)
    if undesirable is None:
        bad = opposite(good)
    if good and bad:
        raise RowFault("matches_both", f"both rules are true of it: {cells(values, config)}")
    if not good and not bad:
        raise NoFeedback("matches_neither", f"neither rule is true of it: {cells(values, config)}")
    return good is True


def truth(option: str, rule: Rule | None, values: Values) -> bool | None:
    """Value of a rule for a row; None: unknown, or no rule."""
    found = None if rule is None else rule.value(values)
    if isinstance(found, NotApplicable):
        raise RowFault("rule_not_applicable", f"{option}: {found.detail}")
    return found


def opposite(other: bool | None) -> bool | None:
    """Value of `else`: unknown if the other rule is, as a row without feedback is not negative."""
    return None if other is None else not other


def cells(values: Values, config: BinarizeConfig) -> str:
    """Cells of the rules' columns as text, at most four."""
    names = dict.fromkeys(name for rule in rules_of(config) if rule for name in rule.columns)
    found = []
    for name in [*names][:4]:
        cell = cell_of(values, name)
        if isinstance(cell, NotApplicable):
            found.append(cell.detail)
        else:
            found.append(f"{name} is {'empty' if is_missing(cell) else spell_cell(cell)}")
    return ", ".join(found)


def by_label(name: str, cell: Any) -> bool | float:
    """Label of a cell, or its number, whose meaning depends on the whole column."""
    if isinstance(cell, bool):
        return cell
    number = finite(as_number(cell))
    if number is not None:
        return number
    word = WORDS.get(cell.strip().casefold()) if isinstance(cell, str) else None
    if word is not None:
        return word
    detail = f"{name} is {spell_cell(cell)}, none of true, false, 1, 0"
    if isinstance(cell, str) and len(cell) <= 40 and cell.isprintable():
        rule = f"{spell_column(name)} == {spell_text(cell)}"
        # a shell expands these characters within double quotes
        quoted = shlex.quote(rule) if set(rule) & set('`$"!\\') else f'"{rule}"'
        detail += f"; a rule says what it means: --desirable {quoted} or --undesirable {quoted}"
    raise RowFault("label_not_accepted", detail)


def by_score(name: str, cell: Any) -> float:
    """Score of a cell."""
    number = finite(number_in_cell(cell))
    if number is None:
        raise RowFault("score_not_a_number", f"{name} is {spell_cell(cell)}, not a number")
    return number


def finite(number: float | None) -> float | None:
    """A number as a finite float; None if it is not one."""
    try:
        return None if number is None or not math.isfinite(number) else float(number)
    except OverflowError:
        return None
