"""What `kto outcome` shows: tables of shares and differences, and what they mean in sentences."""

from __future__ import annotations

from typing import Any

from kto_cli.common.outcome_config import OutcomeConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.statistics.outcome import POWER

MOST_STRATA = 10
"""Kinds of prompts that are shown; outcome.json has all."""
LONGEST = 60
"""Characters of a name that are shown where it need not be told from others."""


def show(result: dict[str, Any], config: OutcomeConfig, screen: Screen) -> None:
    """Shows shares, differences, the mix of prompts, and a sentence for each version."""
    screen.table(
        f"Desirable answers by {config.by}"
        if config.by
        else f"Desirable answers before {config.before_after}, and after ({config.time_column})",
        ("version", "answers", "rated", "% rated", "desirable", "% desirable", "90 %"),
        [version_cells(one) for one in result["versions"]],
    )
    is_mixed = config.mix is not None
    screen.table(
        f"Points against {result['baseline']}",
        (
            *("version", "% desirable", "90 %", *(("at one mix", "90 %") if is_mixed else ())),
            *("% rated", "90 %", "verdict"),
        ),
        [difference_cells(one, is_mixed) for one in result["differences"]],
    )
    if is_mixed:
        names, strata = [one["version"] for one in result["versions"]], result["mix"]["strata"]
        part = f" (the first {MOST_STRATA} of {len(strata):,} kinds)" if len(strata) > MOST_STRATA else ""
        screen.table(
            f"Rated answers by {config.mix}: how many, % desirable{part}",
            ("kind", *names),
            [stratum_cells(one, names) for one in strata[:MOST_STRATA]],
        )
    for one in result["differences"]:
        for text in sentences(one, result["baseline"], config):
            screen.say(text)
    screen.say(intervals_sentence(result["versions"], config))


def shortened(name: str) -> str:
    """The start of a name, in one line."""
    return " ".join(name.split())[:LONGEST]


def percent(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in points of a percent."""
    return "-" if value is None else f"{100 * value:+.1f}"


def span(interval: list[float] | None, *, signed: bool) -> str:
    """An interval in percent or points."""
    return "-" if interval is None else " to ".join((points if signed else percent)(edge) for edge in interval)


def version_cells(one: dict[str, Any]) -> list[Any]:
    """A version's line."""
    shares = [percent(one["share"]), span(one["interval"], signed=False)]
    return [one["version"], one["answers"], one["rated"], percent(one["rated_share"]), one["desirable"], *shares]


def difference_cells(one: dict[str, Any], is_mixed: bool) -> list[Any]:
    """A difference's line."""
    parts = [one, *([one["mix"]] if is_mixed else []), one["rated"]]
    cells = [text for part in parts for text in (points(part["difference"]), span(part["interval"], signed=True))]
    return [one["version"], *cells, one["verdict"]]


def stratum_cells(one: dict[str, Any], names: list[str]) -> list[Any]:
    """The line of a kind of prompt."""
    counts = [one["versions"][name] for name in names]
    return [
        shortened(one["stratum"]) or "-",
        *(
            f"{each['rated']:,}, {percent(each['desirable'] / each['rated'])}" if each["rated"] else "0"
            for each in counts
        ),
    ]


def sentences(one: dict[str, Any], baseline: str, config: OutcomeConfig) -> list[str]:
    """What a difference means."""
    verdict, name = one["verdict"], one["version"]
    seen = f"{points(one['difference'])} points ({span(one['interval'], signed=True)})"
    if verdict in ("rose", "fell"):
        found = [f"{name}: thumbs {verdict} against {baseline}, by {seen}."]
    elif verdict == "not settled":
        found = [f"{name}: not settled against {baseline}, {seen}. {needed(one)}"]
    else:
        found = [f"{name}: too few ratings to compare with {baseline}, {seen}: a version has under ten users or chats."]
    if config.mix is not None:
        found += mix_sentences(one, config.mix)
    low, high = one["rated"]["interval"]
    if low > 0 or high < 0:
        direction = "more" if low > 0 else "fewer"
        found.append(
            f"{name}: {direction} answers are rated than of {baseline} ({points(one['rated']['difference'])} points): "
            "who rates may have changed, not what they think."
        )
    return found


def needed(one: dict[str, Any]) -> str:
    """Ratings that would settle a difference."""
    more = one["more_ratings"]
    ways = []
    if more["both"]:
        ways.append(f"{plural(more['both'], 'more rating')} in the present proportion")
    if more["second"]:
        ways.append(f"{plural(more['second'], 'rating')} of {one['version']} alone")
    settled = f"The ratings at hand settle {100 * more['detectable']:.1f} points with a chance of {POWER:.0%}."
    if not ways:
        return settled
    only = "" if more["second"] else f"; no number of {one['version']} alone is enough"
    return f"If it is as large as seen, {' or '.join(ways)} would settle it{only}. {settled}"


def mix_sentences(one: dict[str, Any], column: str) -> list[str]:
    """Whether the mix of prompts explains a difference."""
    mix, name = one["mix"], one["version"]
    if mix["difference"] is None:
        return [f"{name}: no kind of prompt ({column}) has ratings of both versions; one mix cannot be compared."]
    found = []
    if mix["verdict"] != one["verdict"]:
        found.append(
            f"{name}: at one mix of {column} it is {mix['verdict']} ({points(mix['difference'])} points): "
            "the kinds of prompts have changed too."
        )
    if mix["not_compared"]:
        kinds = plural(len(mix["not_compared"]), "kind")
        found.append(f"{name}: one mix covers {mix['covered']:.0%} of the ratings; {kinds} of {column} lack a version.")
    return found


def intervals_sentence(versions: list[dict[str, Any]], config: OutcomeConfig) -> str:
    """How intervals take in that ratings are alike."""
    ways = "conversations and users" if config.user is not None else "conversations"
    effects = [one["design_effect"] for one in versions if one["design_effect"] is not None]
    text = f"Intervals: 90 %, for ratings that are alike within {ways}"
    worth = "" if max(effects) < 1.2 else f"; {max(effects):.1f} ratings say as much as one that is independent"
    hint = "" if config.user is not None else " (--user takes in users)"
    return f"{text}{worth}{hint}."
