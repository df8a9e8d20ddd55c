"""Label or score of a row: from two rules, a label column or a score column."""

from __future__ import annotations

from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.counts import count_label
from kto_cli.data.formats.labels import (
    BY_NUMBER,
    DESIRABLE,
    UNDESIRABLE,
    finite,
    is_missing,
    label_value,
    spell_cell,
    spell_value,
    way_in,
)
from kto_cli.data.formats.records import RowFault
from kto_cli.data.log.cell_path import NotApplicable, cell_of
from kto_cli.data.log.columns import rules_of
from kto_cli.data.log.rule_eval import number_in_cell
from kto_cli.data.log.rules import Rule

Values = dict[str, Any]
NUMBERS = "numbers"
"""All numbers of a score column, in the counts of its values."""


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
        count_label(name, spell_value(cell), f"no_{kind}")
        raise NoFeedback(f"no_{kind}", f"{name} is {empty(cell)}")
    if isinstance(cell, NotApplicable):
        raise RowFault("label_not_accepted" if config.label_column else "score_not_a_number", cell.detail)
    return label_value(cell, name) if config.label_column else by_score(name, cell)


def by_rules(values: Values, config: BinarizeConfig) -> bool:
    """Label by two rules; a row to which one of them is not applicable is rejected whatever the other gives."""
    outcome = "rule_not_applicable"
    try:
        good, bad = truths(values, config)
        outcome = "matches_both" if good and bad else DESIRABLE if good else UNDESIRABLE if bad else "matches_neither"
    finally:
        for name, cell in cells(values, config):
            count_label(name, value_for_counts(name, cell, config), outcome)
    if good and bad:
        raise RowFault("matches_both", f"both rules are true of it: {spelled_cells(values, config)}")
    if not good and not bad:
        raise NoFeedback("matches_neither", f"neither rule is true of it: {spelled_cells(values, config)}")
    return good is True


def truths(values: Values, config: BinarizeConfig) -> tuple[bool | None, bool | None]:
    """Values of --desirable and --undesirable for a row. `else` is unknown if the other rule is, as a row without
    feedback is not negative; without --undesirable no row is."""
    desirable, undesirable = rules_of(config)
    good, bad = truth("--desirable", desirable, values), truth("--undesirable", undesirable, values)
    if desirable is None:
        return None if bad is None else not bad, bad
    if undesirable is None:
        return good, None if good is None or config.undesirable is None else not good
    return good, bad


def truth(option: str, rule: Rule | None, values: Values) -> bool | None:
    """Value of a rule for a row; None: unknown, or no rule."""
    found = None if rule is None else rule.value(values)
    if isinstance(found, NotApplicable):
        raise RowFault("rule_not_applicable", f"{option}: {found.detail}")
    return found


def cells(values: Values, config: BinarizeConfig) -> list[tuple[str, Any]]:
    """(column, cell) of the rules' columns, at most four."""
    names = dict.fromkeys(name for rule in rules_of(config) if rule for name in rule.columns)
    return [(name, cell_of(values, name)) for name in [*names][:4]]


def value_for_counts(name: str, cell: Any, config: BinarizeConfig) -> str:
    """Value of a cell in the counts of values; prose, of which a rule asks only for a part, is one value."""
    if isinstance(cell, NotApplicable):
        return "not applicable"
    is_prose = all(name in rule.prose for rule in rules_of(config) if rule and name in rule.columns)
    return "text" if is_prose and isinstance(cell, str) and not is_missing(cell) else spell_value(cell)


def spelled_cells(values: Values, config: BinarizeConfig) -> str:
    """Cells of the rules' columns as text."""
    return ", ".join(
        cell.detail
        if isinstance(cell, NotApplicable)
        else f"{name} is {empty(cell) if is_missing(cell) else spell_cell(cell)}"
        for name, cell in cells(values, config)
    )


def empty(cell: Any) -> str:
    """An empty cell for a message; a placeholder such as N/A is named."""
    return f"empty ({cell.strip()})" if isinstance(cell, str) and cell.strip() else "empty"


def by_score(name: str, cell: Any) -> float:
    """Score of a cell."""
    number = finite(number_in_cell(cell))
    if number is not None:
        count_label(name, NUMBERS, BY_NUMBER)
    else:
        count_label(name, spell_value(cell), "score_not_a_number")
        hint = "; a decimal sign is a point" if isinstance(cell, str) and "," in cell else way_in(cell, name)
        raise RowFault("score_not_a_number", f"{name} is {spell_cell(cell)}, not a number{hint}")
    return number
