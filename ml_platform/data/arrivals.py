"""Arrivals: which days have content that was not handled yet, found with a few LIST calls a tick, and which to make now.

`look` reads on in the sources' listings: at every tick in what is recent, and with the calls that are left in one sweep
over all the history, so that an overwritten old object is found after (pages of history / calls left) ticks. `plan` turns
what was found into requests for runs. What both have to remember is a Watch. It may be lost at any time: then everything
is found again, and what the lake has handled is not asked for again.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

from ml_platform.core import digest
from ml_platform.core.days import ONE_DAY, consecutive_ranges, day_range
from ml_platform.core.errors import LandingError
from ml_platform.core.spec import SourceSpec
from ml_platform.data.landing import PATTERN, Page, day_of, day_prefix, extend_fingerprint
from ml_platform.data.watch import DIGITS, Arrival, Pending, Rotation, Scan, Watch

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 30, 3600
_LAST_KEY = "\U0010ffff"  # sorts after every name


# --- look -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What one look found.

    Attributes:
        found: complete days whose content is another than the known one, by source and day.
        gone: pending days that have no objects any more.
        ignored: objects that belong to no day, with the reason.
        unreachable: by source, why its listing could not be read; it is read on from the same place at the next look.
        watch: the new state; the days found are not in it yet.
    """

    found: tuple[Arrival, ...]
    gone: frozenset[tuple[str, date]]
    ignored: tuple[str, ...]
    unreachable: dict[str, str]
    watch: Watch


class _Stretch(NamedTuple):
    """The part of a listing after the key `start`, up to `end`."""

    source: SourceSpec
    start: str
    end: str


def look(
    sources: Mapping[str, SourceSpec],
    watch: Watch,
    list_page: Callable[[SourceSpec, str], Page],
    budget: int,
    today: date,
) -> Look:
    """Read on in the listings, with at most `budget` (>= 1) calls of `list_page`; one call is kept for the sweep.

    With a budget of one, the recent days and the sweep take turns. Pending days that are not recent are read along with
    the recent ones, once a run was asked for: they may have changed before it read them.
    """
    recent: dict[str, _Stretch] = {}
    history: dict[str, _Stretch] = {}
    for name, source in sources.items():
        start = watch.recent_start(source)
        recent[name] = _Stretch(source, start, _LAST_KEY)
        if start:
            history[name] = _Stretch(source, "", start)
        tried = (day for day, pending in watch.pending.get(name, {}).items() if pending.tries)
        for first, last in consecutive_ranges(day for day in tried if day_prefix(name, day) < start):
            after = day_prefix(name, first)
            recent[after] = _Stretch(source, after, day_prefix(name, last + ONE_DAY))
    eye = _Eye(watch, list_page, today)
    share = max(budget - 1, 1 - watch.looks % 2)
    recent_rotation, left = eye.read_on(watch.recent, recent, share, finish_first=False)
    sweep_rotation, _ = eye.read_on(watch.sweep, history, budget - share + left, finish_first=True)
    return Look(
        found=tuple(eye.found[which] for which in sorted(eye.found)),
        gone=frozenset(eye.gone),
        ignored=tuple(eye.ignored),
        unreachable=eye.unreachable,
        watch=replace(watch, recent=recent_rotation, sweep=sweep_rotation),
    )


class _Eye:
    """The state of one look."""

    def __init__(self, watch: Watch, list_page: Callable[[SourceSpec, str], Page], today: date) -> None:
        self.watch, self.list_page, self.today = watch, list_page, today
        self.found: dict[tuple[str, date], Arrival] = {}
        self.gone: set[tuple[str, date]] = set()
        self.ignored: list[str] = []
        self.unreachable: dict[str, str] = {}

    def read_on(
        self, rotation: Rotation, stretches: Mapping[str, _Stretch], calls: int, finish_first: bool
    ) -> tuple[Rotation, int]:
        """Each stretch in its turn, at most once; returns also the calls that are left.

        A stretch that is not finished is the first one at the next look if `finish_first`, so that a full rotation takes
        no longer than its pages; otherwise the last one, so that a long stretch does not keep the others waiting.
        """
        last, scans = rotation.last, {name: scan for name, scan in rotation.scans.items() if name in stretches}
        for name in sorted(stretches, key=lambda name: (name <= rotation.last, name)):
            stretch = stretches[name]
            if not calls:
                break
            if stretch.source.name in self.unreachable:
                continue
            scan = scans.pop(name, None) or Scan(stretch.start)
            while scan and calls and stretch.source.name not in self.unreachable:
                calls -= 1
                try:
                    scan = self.read_page(stretch, scan)
                except LandingError as error:
                    self.unreachable[stretch.source.name] = str(error)
            if scan:
                scans[name] = scan
            if not (scan and finish_first) or stretch.source.name in self.unreachable:
                last = name
        return Rotation(last, scans), calls

    def read_page(self, stretch: _Stretch, scan: Scan) -> Scan | None:
        """Take in the next page; None at the end of the stretch."""
        source, _, end = stretch
        page = self.list_page(source, scan.after)
        keys = [scan.after, *(found.key for found in page.objects)]
        if (page.more and not page.objects) or any(one >= other for one, other in pairwise(keys)):
            problem = f"the listing after {scan.after!r} does not go on in the order of its keys"
            raise LandingError(source.name, problem, "mend `page` of its origin")
        arrival, chain, there = scan.arrival, scan.chain, set[date]()
        for found in page.objects:
            if found.key >= end:
                break
            day = day_of(source.name, found.key)
            if day is None:
                self.ignored.append(f"{found.key}: not {source.name}/{PATTERN}")
            elif not source.start_date <= day <= self.today:
                self.ignored.append(f"{found.key}: its day is not within {source.start_date} to {self.today}")
            else:
                if arrival and arrival.day != day:
                    self.complete(arrival)
                    arrival, chain = None, ""
                chain = extend_fingerprint(chain, found)
                files, size = (arrival.files, arrival.bytes) if arrival else (0, 0)
                newest = max(arrival.newest, found.last_modified) if arrival else found.last_modified
                arrival = Arrival(source.name, day, files + 1, size + found.size, newest, chain[:DIGITS])
                there.add(day)
        ended = not page.more or keys[-1] >= end
        passed = end if ended else keys[-1]
        for day in self.watch.pending.get(source.name, {}):
            if scan.after <= day_prefix(source.name, day) < passed and day not in there:
                self.gone.add((source.name, day))
        if not ended:
            return Scan(keys[-1], arrival, chain)
        if arrival:
            self.complete(arrival)
        return None

    def complete(self, arrival: Arrival) -> None:
        if self.watch.fingerprint(arrival.source, arrival.day) != arrival.fingerprint:
            self.found[arrival.source, arrival.day] = arrival


# --- plan -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """Days without gap that one run makes. Dagster runs no `run_key` twice."""

    source: str
    first: date
    last: date
    run_key: str


@dataclass(frozen=True)
class Plan:
    requests: tuple[Request, ...]
    watch: Watch


def plan(
    sources: Mapping[str, SourceSpec],
    look: Look,
    is_handled: Callable[[str, date, str], bool],
    busy: Collection[tuple[str, date]],
    ended: Collection[tuple[str, date]],
    now: float,
) -> Plan:
    """What to run after a look.

    Args:
        is_handled: whether (source, day, fingerprint) is what the lake has, made from what the lake has now.
        busy: days that some queued or running run is going to make.
        ended: days of runs that have ended since the last plan, whoever started them and however they ended.
        now: epoch seconds.
    """
    busy, watch = frozenset(busy), look.watch
    seen = {name: dict(watch.seen.get(name, {})) for name in sources}
    pending = {name: dict(watch.pending.get(name, {})) for name in sources}
    readers = _readers(sources)
    ask = cache(is_handled)

    def is_settled(name: str, day: date, fingerprint: str) -> bool:
        # What a day is now says nothing if a run is about to replace it, maybe with older content.
        return (name, day) not in busy and ask(name, day, fingerprint)

    def settle(name: str, day: date, fingerprint: str) -> None:
        """Done with a day; those that were judged by what it was before may have to be judged again."""
        pending[name].pop(day, None)
        seen[name][day] = fingerprint
        for reader, after in readers[name]:
            known = seen[reader].get(later := day + timedelta(days=after))
            if known and not is_settled(reader, later, known):
                pending[reader][later] = Pending(seen[reader].pop(later))

    found = {(arrival.source, arrival.day): arrival.fingerprint for arrival in look.found}
    for (name, day), fingerprint in found.items():
        seen[name].pop(day, None)
        pending[name][day] = Pending(fingerprint)
    for name, day in sorted(ended):
        known = seen.get(name, {}).get(day)
        if known and is_settled(name, day, known):
            settle(name, day, known)
        elif known and (name, day) not in busy:
            pending[name][day] = Pending(seen[name].pop(day))
    for name in sources:
        for day, (fingerprint, tries, _) in sorted(pending[name].items()):
            if (tries or (name, day) in found) and is_settled(name, day, fingerprint):
                settle(name, day, fingerprint)
            elif (name, day) in look.gone and (name, day) not in busy:
                del pending[name][day]

    asked: dict[tuple[str, date], Pending] = {}

    def is_unsettled(name: str, day: date) -> bool:
        first_try = pending[name].get(day, Pending("", 1)).tries == 0
        return first_try or (name, day) in busy or (name, day) in asked

    for name in _referenced_first(sources):
        for day, this in sorted(pending[name].items()):
            waits = (name, day) in busy or now < this.not_before
            if waits or any(is_unsettled(*referred) for referred in _referred(sources, name, day)):
                continue
            if ask(name, day, this.fingerprint):  # by a run that was not asked for here
                settle(name, day, this.fingerprint)
                continue
            wait = min(FIRST_RETRY_SECONDS * 2**this.tries, LONGEST_RETRY_SECONDS)
            pending[name][day] = Pending(this.fingerprint, this.tries + 1, now + wait)
            asked[name, day] = this

    looks = watch.looks + 1
    requests = []
    for name in sorted(sources):
        for first, last in consecutive_ranges(day for source, day in asked if source == name):
            content = [(day, *asked[name, day][:2]) for day in day_range(first, last)]
            requests.append(
                Request(name, first, last, f"{name}:{first}:{last}:{digest.of_json(content)[:DIGITS]}:{looks}")
            )
    return Plan(tuple(requests), replace(watch, looks=looks, planned_at=now, seen=seen, pending=pending))


def _readers(sources: Mapping[str, SourceSpec]) -> dict[str, list[tuple[str, int]]]:
    """By source, who looks back on a day of it: sources, and how many days later."""
    readers: dict[str, list[tuple[str, int]]] = {
        name: [(name, after) for after in range(1, source.unique_within_days)] for name, source in sources.items()
    }
    for name, source in sources.items():
        for reference in source.references.values():
            if reference.source in sources:
                readers[reference.source] += [(name, after) for after in range(reference.window_days)]
    return readers


def _referred(sources: Mapping[str, SourceSpec], name: str, day: date) -> Iterator[tuple[str, date]]:
    """Days of other sources that a day refers to."""
    for reference in sources[name].references.values():
        if reference.source in sources:
            for before in range(reference.window_days):
                yield reference.source, day - timedelta(days=before)


def _referenced_first(sources: Mapping[str, SourceSpec]) -> list[str]:
    referenced = {name: sorted({r.source for r in source.references.values()}) for name, source in sources.items()}
    return [name for name in TopologicalSorter(referenced).static_order() if name in sources]
