"""What was asked for is due until it is there: which of what a run did not make is asked for again, and when.

Trouble with the outside passes, so that it is asked for again with growing delays. A red check or a mistake does not: it would
fail again. What somebody has asked for since is not asked for a second time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Literal

from ml_platform.core.days import consecutive_ranges

FIRST_DELAY, LONGEST_DELAY = 30.0, 3600.0  # seconds between the end of one try and the next
SHOWN = 300  # characters of an error

Part = tuple[str, date | None]  # an asset's key, and a day of it; None for an asset without days


@dataclass(frozen=True)
class Ask:
    """One time that parts of the graph were asked for, whoever did, and what became of it; times are epoch seconds.

    `missing` are those of the parts that neither it nor anybody after it has made. `tries` counts this one too.
    """

    id: str
    at: float
    parts: frozenset[Part]
    missing: frozenset[Part] = frozenset()
    ending: Literal["open", "made", "trouble", "mistake"] = "open"
    ended: float = 0.0
    tries: int = 1
    why: str = ""

    @property
    def next_try(self) -> float:
        return self.ended + min(FIRST_DELAY * 2 ** (self.tries - 1), LONGEST_DELAY)


@dataclass(frozen=True)
class Again:
    """What one run is to make: all of the assets, for all of the days."""

    assets: tuple[str, ...]
    days: tuple[date, date] | None
    after: Ask


@dataclass(frozen=True)
class Decision:
    """What to ask for now; why the rest waits or is left; and the asks that may be forgotten."""

    again: tuple[Again, ...]
    reasons: tuple[str, ...]
    settled: frozenset[str]


def decide(asks: Sequence[Ask], now: float) -> Decision:
    """What of the asks is due at a moment (epoch seconds)."""
    again, reasons, settled = list[Again](), list[str](), set[str]()
    for ask in sorted(asks, key=lambda ask: ask.at):
        if ask.ending not in ("trouble", "mistake"):
            continue
        since = (other.parts for other in asks if other.at > ask.at)
        left = ask.missing.difference(*since)
        if not left:
            settled.add(ask.id)
        elif ask.ending == "mistake":
            settled.add(ask.id)
            reasons.append(f"{words(left)} is not asked for again until its inputs change: {ask.why[:SHOWN]}")
        elif now < ask.next_try:
            when = f"{datetime.fromtimestamp(ask.next_try, UTC):%H:%M:%S} UTC"
            reasons.append(f"{words(left)} is asked for again at {when}, try {ask.tries + 1}: {ask.why[:SHOWN]}")
        else:
            again += _requests(left, ask)
    return Decision(tuple(again), tuple(reasons), frozenset(settled))


def words(parts: Iterable[Part]) -> str:
    """Parts in words: the assets with their first and last days."""
    said = []
    for asset, of_asset in groupby(sorted(parts, key=_order), key=lambda part: part[0]):
        days = [day for _, day in of_asset if day]
        said.append(asset if not days else f"{asset} [{days[0]}{'' if len(days) == 1 else f' to {days[-1]}'}]")
    return ", ".join(said)


def _requests(parts: Iterable[Part], after: Ask) -> list[Again]:
    """The fewest runs that make these parts and nothing else: assets with the same days go together."""
    days: dict[str, list[date]] = {}
    for asset, day in sorted(parts, key=_order):
        days.setdefault(asset, []).extend([day] if day else [])
    together: dict[tuple[date, ...], list[str]] = {}
    for asset, of_asset in days.items():
        together.setdefault(tuple(of_asset), []).append(asset)
    return [
        Again(tuple(assets), among, after)
        for of_assets, assets in together.items()
        for among in (consecutive_ranges(of_assets) if of_assets else [None])
    ]


def _order(part: Part) -> tuple[str, date]:
    return part[0], part[1] or date.min
