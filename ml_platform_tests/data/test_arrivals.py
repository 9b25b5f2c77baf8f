import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.days import day_range
from ml_platform.core.errors import LandingError
from ml_platform.core.spec import ColumnSpec, ReferenceSpec, SourceSpec
from ml_platform.data.arrivals import Look, Request, look, plan
from ml_platform.data.landing import PATTERN, LandedObject, Page, day_of, day_prefix, fingerprint
from ml_platform.data.watch import Arrival, Pending, Watch

START, TODAY = date(2024, 1, 1), date(2024, 12, 31)
TICK_SECONDS = 10

Day = tuple[str, date]


def source(name: str, unique_within_days: int = 1, **windows: int) -> SourceSpec:
    """`windows`: the days of other sources that it refers to."""
    references = {other: ReferenceSpec(source=other, column="at", window_days=days) for other, days in windows.items()}
    columns = {column: ColumnSpec(type="timestamp") for column in ("at", *windows)}
    return SourceSpec(
        name=name,
        start_date=START,
        key=("at",),
        event_time="at",
        columns=columns,
        unique_within_days=unique_within_days,
        references=references,
    )


def on(number: int) -> date:
    """Days are counted from 0, the start of all sources."""
    return START + timedelta(days=number)


@dataclass(eq=False)
class Run:
    days: list[Day]
    read: tuple[str, list[tuple[Day, str]]] | None = None  # what its first day will be written with


@dataclass
class World:
    """A bucket, a lake that knows which content each day was made from, and a Dagster that runs no run key twice."""

    sources: dict[str, SourceSpec]
    page_size: int = 3
    budget: int = 5
    today: date = TODAY
    now: float = 0
    cursor: str | None = None
    bucket: dict[str, LandedObject] = field(default_factory=dict)
    ledger: dict[Day, tuple[str, list[tuple[Day, str]]]] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    ended: set[Day] = field(default_factory=set)
    run_keys: set[str] = field(default_factory=set)
    asked: Counter[Day] = field(default_factory=Counter)
    looks: list[Look] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    """By call of list_page, the source."""

    @classmethod
    def of(cls, *sources: SourceSpec, page_size: int = 3, budget: int = 5) -> "World":
        return cls({one.name: one for one in sources}, page_size, budget)

    def put(self, name: str, number: int, file: str = "a", etag: str = "1") -> None:
        key = f"{day_prefix(name, on(number))}{file}.csv"
        self.bucket[key] = LandedObject(key, etag, 10, datetime(2024, 2, 1, tzinfo=UTC))

    def objects(self, name: str, day: date) -> list[LandedObject]:
        return [found for key, found in self.bucket.items() if key.startswith(day_prefix(name, day))]

    def days(self) -> set[Day]:
        """The days that have objects."""
        found = {(name, day_of(name, key)) for name in self.sources for key in self.bucket}
        return {(name, day) for name, day in found if day and START <= day <= self.today}

    def content(self, which: Day) -> str:
        return fingerprint(self.objects(*which))

    def list_page(self, source: SourceSpec, after: str) -> Page:
        self.listed.append(source.name)
        if source.name in self.unreachable:
            raise LandingError(source.name, "is away", "wait")
        keys = sorted(key for key in self.bucket if key.startswith(f"{source.name}/") and key > after)
        return Page(tuple(self.bucket[key] for key in keys[: self.page_size]), len(keys) > self.page_size)

    # --- the lake -----------------------------------------------------------------------------------------------------

    def looks_back_on(self, name: str, day: date) -> Iterator[Day]:
        own = self.sources[name]
        yield from ((name, day - timedelta(days=n)) for n in range(1, own.unique_within_days))
        yield from self.refers_to(name, day)

    def refers_to(self, name: str, day: date) -> Iterator[Day]:
        for reference in self.sources[name].references.values():
            yield from ((reference.source, day - timedelta(days=n)) for n in range(reference.window_days))

    def as_it_is(self, which: Day) -> tuple[str, list[tuple[Day, str]]]:
        """What a run would write in the ledger: what it was made from and judged by."""
        return self.content(which), [(d, self.ledger[d][0]) for d in self.looks_back_on(*which) if d in self.ledger]

    def is_handled(self, name: str, day: date, content: str) -> bool:
        judged_by = [(d, self.ledger[d][0]) for d in self.looks_back_on(name, day) if d in self.ledger]
        return self.ledger.get((name, day)) == (content, judged_by)

    # --- runs ---------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> set[Day]:
        return {which for run in self.runs for which in run.days}

    def begin(self, run: Run) -> None:
        run.read = self.as_it_is(run.days[0])

    def end(self, run: Run, days: int | None = None) -> None:
        """It succeeds, or fails after so many days."""
        for number, which in enumerate(run.days[:days]):
            self.ledger[which] = run.read if run.read and number == 0 else self.as_it_is(which)
        self.runs.remove(run)
        self.ended |= set(run.days)

    def end_all(self) -> None:
        for run in list(self.runs):
            self.end(run)

    # --- ticks --------------------------------------------------------------------------------------------------------

    def tick(self, launches: bool = True, keeps_cursor: bool = True) -> tuple[Request, ...]:
        """One tick of the sensor, in which what must never happen did not."""
        self.now += TICK_SECONDS
        busy, before, calls = self.busy, self.cursor, len(self.listed)
        ended, self.ended = self.ended, set()
        seen = look(self.sources, Watch.from_json(before), self.list_page, self.budget, self.today)
        made = plan(self.sources, seen, self.is_handled, busy, ended, self.now)
        assert len(self.listed) - calls <= self.budget
        assert Watch.from_json(made.watch.to_json()) == made.watch
        assert not any(set(made.watch.seen[name]) & set(made.watch.pending[name]) for name in self.sources)
        requested = [(one.source, day) for one in made.requests for day in day_range(one.first, one.last)]
        assert len(requested) == len(set(requested))
        for which in requested:
            assert which not in busy
            assert not self.is_handled(*which, made.watch.fingerprint(*which) or "")
            assert not {*busy, *requested} & set(self.refers_to(*which))
        for one in made.requests if launches else ():
            if one.run_key not in self.run_keys:
                self.run_keys.add(one.run_key)
                self.runs.append(Run([(one.source, day) for day in day_range(one.first, one.last)]))
                self.asked.update(self.runs[-1].days)
        if keeps_cursor:
            self.cursor = made.watch.to_json()
        self.looks.append(seen)
        return made.requests

    def settle(self) -> None:
        """Tick, with runs that succeed at once, until nothing is asked for in a row of ticks."""
        idle = 0
        for _ in range(2000):
            idle = 0 if self.tick() else idle + 1
            self.end_all()
            if idle == 10:
                return
        pytest.fail("something is asked for again and again")

    def until_asked(self) -> int:
        """Tick until something is asked for; returns how many ticks that took."""
        return next(number for number in range(1, 1000) if self.tick())

    def pending(self, name: str) -> dict[date, Pending]:
        return Watch.from_json(self.cursor).pending[name]

    def seen(self, name: str) -> dict[date, str]:
        return Watch.from_json(self.cursor).seen[name]


def ranges(requests: Collection[Request]) -> list[tuple[str, int, int]]:
    return [(one.source, (one.first - START).days, (one.last - START).days) for one in requests]


# --- finding ----------------------------------------------------------------------------------------------------------


def test_new_day_is_requested_once() -> None:
    world = World.of(source("clicks"))
    world.put("clicks", 0)
    assert ranges(world.tick()) == [("clicks", 0, 0)]
    assert world.looks[-1].found == (
        Arrival("clicks", on(0), 1, 10, datetime(2024, 2, 1, tzinfo=UTC), fingerprint(world.objects("clicks", on(0)))),
    )
    assert world.tick() == ()
    world.end_all()
    assert [world.tick() for _ in range(1000)] == [()] * 1000


def test_arrival_counts_all_files_of_a_day() -> None:
    world = World.of(source("clicks"), page_size=2)
    for file in "abcde":
        world.put("clicks", 0, file)
    key = f"{day_prefix('clicks', on(0))}c.csv"
    world.bucket[key] = LandedObject(key, "1", 1000, datetime(2024, 3, 1, tzinfo=UTC))
    world.tick()
    (arrival,) = world.looks[-1].found
    assert (arrival.files, arrival.bytes, arrival.newest) == (5, 1040, datetime(2024, 3, 1, tzinfo=UTC))
    assert arrival.fingerprint == fingerprint(reversed(world.objects("clicks", on(0))))


def test_backlog_of_183_days_is_one_request() -> None:
    world = World.of(source("clicks"), page_size=1000)
    for number in range(183):
        world.put("clicks", number)
    assert ranges(world.tick()) == [("clicks", 0, 182)]


def test_backlog_with_gaps_is_a_request_for_each_range() -> None:
    world = World.of(source("clicks"), page_size=1000)
    for number in (0, 1, 2, 9, 11, 12):
        world.put("clicks", number)
    assert ranges(world.tick()) == [("clicks", 0, 2), ("clicks", 9, 9), ("clicks", 11, 12)]


def test_late_and_out_of_order_days_are_requested_when_they_arrive() -> None:
    world = World.of(source("clicks"))
    for number in (30, 10, 29, 31, 0):
        world.put("clicks", number)
        assert ranges(world.tick()) == [("clicks", number, number)]
        world.end_all()


@pytest.mark.parametrize("number", [0, 40])
def test_changed_content_and_one_more_and_one_less_object_are_requested_again(number: int) -> None:
    world = World.of(source("clicks"), page_size=1000)
    for other in (0, 40):
        world.put("clicks", other)
    world.settle()
    world.put("clicks", number, etag="2")
    assert ranges(world.tick()) == [("clicks", number, number)]
    world.end_all()
    world.put("clicks", number, "b")
    assert ranges(world.tick()) == [("clicks", number, number)]
    world.end_all()
    del world.bucket[f"{day_prefix('clicks', on(number))}a.csv"]
    assert ranges(world.tick()) == [("clicks", number, number)]
    world.end_all()
    world.settle()
    assert world.asked["clicks", on(number)] == 4


def test_content_that_comes_back_runs_again() -> None:
    world = World.of(source("clicks"))
    for etag in "12121":
        world.put("clicks", 0, etag=etag)
        world.settle()
    assert world.asked["clicks", on(0)] == 5


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("clicks/2024-01-05/_SUCCESS", f"not clicks/{PATTERN}"),
        ("clicks/readme.txt", f"not clicks/{PATTERN}"),
        ("clicks/2023-12-31/a.csv", "its day is not within 2024-01-01 to 2024-12-31"),
        ("clicks/2025-01-01/a.csv", "its day is not within 2024-01-01 to 2024-12-31"),
    ],
)
def test_objects_outside_pattern_or_calendar_are_ignored_with_a_reason(key: str, reason: str) -> None:
    world = World.of(source("clicks"), page_size=1)
    world.put("clicks", 4, "a")
    world.put("clicks", 4, "z")
    world.bucket[key] = LandedObject(key, "1", 10, datetime(2024, 2, 1, tzinfo=UTC))
    assert ranges(world.tick()) == [("clicks", 4, 4)]
    assert world.looks[-1].ignored == (f"{key}: {reason}",)
    assert world.looks[-1].found[0].files == 2


def test_day_that_was_in_the_future_is_found_when_it_comes() -> None:
    world = World.of(source("clicks"))
    world.today = on(0)
    world.put("clicks", 1)
    assert world.tick() == ()
    world.today = on(1)
    assert ranges(world.tick()) == [("clicks", 1, 1)]


def test_day_that_pages_and_ticks_cut_is_found_once_and_whole() -> None:
    world = World.of(source("clicks"), page_size=1000)
    for file in range(5000):
        world.put("clicks", 0, f"{file}")
    world.put("clicks", 1)
    assert world.tick() == ()
    assert ranges(world.tick()) == [("clicks", 0, 1)]
    zero, _ = world.looks[-1].found
    assert (zero.files, zero.fingerprint) == (5000, world.content(("clicks", on(0))))
    world.settle()
    assert world.asked.total() == 2


# --- scans ------------------------------------------------------------------------------------------------------------


def test_every_tick_looks_at_all_recent_days_of_a_few_sources() -> None:
    world = World.of(*(source(name) for name in "abcd"), page_size=1000)
    for name in "abcd":
        for number in range(100):
            world.put(name, number)
    world.settle()
    for round_ in range(5):
        for name in "abcd":
            world.put(name, 93 + round_, etag=f"{round_ + 2}")
        assert [one.source for one in world.tick()] == [*"abcd"]
        world.end_all()


def test_many_sources_take_turns() -> None:
    names = [f"s{number:02}" for number in range(40)]
    world = World.of(*map(source, names))
    for name in names:
        world.put(name, 0)
    found = [one.source for _ in range(10) for one in world.tick()]
    assert found == names


def test_long_scan_does_not_keep_the_others_waiting() -> None:
    world = World.of(source("a"), source("b"), page_size=1)
    for number in range(100):
        world.put("a", number)
    world.tick()
    world.put("b", 0)
    assert ("b", 0, 0) in ranges(world.tick())


@pytest.mark.parametrize("number", [0, 57, 191])
def test_overwritten_old_object_is_found_within_pages_by_calls_ticks(number: int) -> None:
    page_size, days = 4, {"a": 200, "b": 40}
    world = World.of(source("a"), source("b"), page_size=page_size)
    for name, numbers in days.items():
        for day in range(numbers):
            world.put(name, day)
    world.settle()
    world.put("a", number, etag="2")
    # The 8 recent days of both sources take all calls but one, and the sweep reads one more page.
    pages = sum(-(-(numbers - 8) // page_size) + 1 for numbers in days.values())
    assert world.until_asked() <= pages
    assert world.runs[0].days == [("a", on(number))]


def test_sweep_takes_no_part_of_a_recent_day_for_the_whole() -> None:
    world = World.of(source("a"), page_size=4)
    for number in (0, 1, 50):
        for file in "xyz":
            world.put("a", number, file)
    world.settle()
    assert set(world.asked.values()) == {1}


def test_sweep_rereads_no_history_that_is_recent_or_of_a_removed_source() -> None:
    world = World.of(source("a"), source("b"), source("c"), page_size=1000)
    for number in (0, 7):
        world.put("a", number)
    for number in (0, 50):
        world.put("b", number)
        world.put("c", number)
    world.settle()
    del world.sources["c"]
    world.listed.clear()
    world.tick()
    assert sorted(world.listed) == ["a", "b", "b"]  # one full rotation a tick, though there are calls left
    assert set(Watch.from_json(world.cursor).seen) == {"a", "b"}


def test_budget_of_one_is_for_recent_days_and_sweep_in_turns() -> None:
    world = World.of(source("a"), page_size=1000, budget=1)
    for number in (0, 50):
        world.put("a", number)
    world.settle()
    for number in (0, 50, 0, 50):
        world.put("a", number, etag=f"{world.now}")
        assert any(world.tick() for _ in range(4))
        world.end_all()


def test_one_unreachable_source_does_not_stop_the_others() -> None:
    world = World.of(source("a"), source("b"), source("c"), page_size=1)
    for name in "abc":
        for number in (0, 1, 30, 31, 32):
            world.put(name, number)
    world.tick()
    world.unreachable = {"b"}
    found = [one.source for _ in range(30) for one in world.tick()]
    assert {*found} == {"a", "c"}
    assert world.looks[-1].unreachable == {"b": "b: is away. Next: wait"}
    world.end_all()
    for name in "ac":
        world.put(name, 0, etag="2")
    assert {one.source for _ in range(30) for one in world.tick()} == {"a", "c"}
    world.unreachable = set()
    world.settle()
    assert all(world.is_handled(*which, world.content(which)) for which in world.days())


def test_scan_goes_on_where_it_was_when_the_source_is_back() -> None:
    world = World.of(source("a"), page_size=1, budget=3)
    for number in range(6):
        world.put("a", number)
    world.tick()
    scans = Watch.from_json(world.cursor).recent.scans
    assert scans["a"].after == f"{day_prefix('a', on(1))}a.csv"
    world.unreachable = {"a"}
    world.tick()
    assert Watch.from_json(world.cursor).recent.scans == scans
    world.unreachable = set()
    world.tick()
    assert [arrival.day for arrival in world.looks[-1].found][:2] == [on(1), on(2)]


@pytest.mark.parametrize(
    "page",
    [
        Page((), True),
        Page(
            tuple(LandedObject(f"a/2024-01-0{n}/a.csv", "1", 1, datetime(2024, 1, 1, tzinfo=UTC)) for n in (2, 1)),
            False,
        ),
    ],
)
def test_listing_that_is_not_in_key_order_is_said_and_not_believed(page: Page) -> None:
    seen = look({"a": source("a")}, Watch(), lambda *_: page, 5, TODAY)
    assert seen.found == ()
    assert "does not go on in the order of its keys" in seen.unreachable["a"]


# --- requests ---------------------------------------------------------------------------------------------------------


def test_failed_run_is_asked_for_again_with_backoff() -> None:
    world = World.of(source("clicks"))
    world.put("clicks", 0)
    times = []
    for _ in range(2000):
        if world.tick():
            times.append(world.now)
        for run in list(world.runs):
            world.end(run, days=0)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
    world.now += 3600
    world.settle()
    assert world.seen("clicks") == {on(0): world.content(("clicks", on(0)))}


def test_only_the_days_that_failed_are_asked_for_again() -> None:
    world = World.of(source("clicks"), page_size=1000)
    for number in range(10):
        world.put("clicks", number)
    world.tick()
    world.end(world.runs[0], days=4)
    assert [ranges(world.tick()) for _ in range(3)] == [[], [], [("clicks", 4, 9)]]


def test_lost_cursor_requests_nothing_that_is_handled() -> None:
    world = World.of(source("clicks", unique_within_days=5), source("pages", clicks=3))
    for number in range(40):
        world.put("clicks", number)
        world.put("pages", number)
    world.settle()
    asked = world.asked.copy()
    world.put("clicks", 20, etag="2")
    for cursor in (
        None,
        "",
        "{",
        "[]",
        "null",
        '{"look": 3, "seen": {"clicks": {"2024-01-01": "a"}}}',
        '[2, {"looks": 1}]',
    ):
        world.cursor = cursor
        world.settle()
    assert {day.day for name, day in world.asked - asked if name == "clicks"} == {21, 22, 23, 24, 25}
    assert {day.day for name, day in world.asked - asked if name == "pages"} == {21, 22, 23}


def test_handled_day_is_known_at_once_after_a_lost_cursor_whatever_it_refers_to() -> None:
    world = World.of(source("a", b=1), source("b"))
    for name in "ab":
        world.put(name, 0)
    world.settle()
    world.put("b", 0, etag="2")
    world.tick()
    world.cursor = None
    world.tick()
    assert (set(world.seen("a")), set(world.pending("a"))) == ({on(0)}, set())


def test_lost_cursor_asks_for_no_day_that_is_being_made() -> None:
    world = World.of(source("clicks"))
    world.put("clicks", 0)
    world.tick()
    world.cursor = None
    assert [world.tick() for _ in range(100)] == [()] * 100
    world.end_all()
    world.settle()
    assert world.asked["clicks", on(0)] == 1


def test_day_that_changes_while_it_is_made_waits_and_is_made_again() -> None:
    world = World.of(source("clicks"))
    world.put("clicks", 0)
    world.tick()
    world.begin(world.runs[0])
    world.put("clicks", 0, etag="2")
    assert [world.tick() for _ in range(100)] == [()] * 100
    assert [tries for _, tries, _ in world.pending("clicks").values()] == [0]
    world.end_all()
    assert ranges(world.tick()) == [("clicks", 0, 0)]


def test_day_that_changes_before_its_run_reads_it_is_not_made_again() -> None:
    world = World.of(source("clicks"))
    for number in (0, 50):
        world.put("clicks", number)
    world.tick()
    for number in (0, 50):
        world.put("clicks", number, etag="2")
    world.tick()
    world.end_all()
    world.settle()
    assert world.asked.total() == 2


def test_old_day_that_changes_before_its_run_reads_it_is_read_again_before_it_is_asked_for_again() -> None:
    """The sweep, which would tell that the run has made what there is now, is far away."""
    world = World.of(source("clicks"), page_size=1)
    for number in range(200):
        world.put("clicks", number)
    world.settle()
    world.put("clicks", 100, "a", etag="2")
    world.until_asked()
    world.put("clicks", 100, "b")
    world.end_all()
    world.settle()
    assert world.asked["clicks", on(100)] == 2
    assert world.seen("clicks")[on(100)] == world.content(("clicks", on(100)))


def test_scan_of_a_day_that_is_handled_meanwhile_is_forgotten() -> None:
    world = World.of(source("clicks"), page_size=1, budget=2)
    for number in (0, 50):
        for file in "xyz":
            world.put("clicks", number, file)
    world.settle()
    world.put("clicks", 0, "x", etag="2")
    world.until_asked()
    for _ in range(4):
        world.tick()
    assert day_prefix("clicks", on(0)) in Watch.from_json(world.cursor).recent.scans
    world.end_all()
    world.settle()
    assert set(Watch.from_json(world.cursor).recent.scans) <= {"clicks"}


def test_content_that_comes_back_while_the_other_is_made_is_made_again() -> None:
    """What the lake has now says nothing while a run is about to replace it."""
    world = World.of(source("clicks"))
    world.put("clicks", 0, etag="1")
    world.settle()
    world.put("clicks", 0, etag="2")
    world.tick()
    world.begin(world.runs[0])
    world.put("clicks", 0, etag="1")
    world.tick()
    world.end_all()
    world.settle()
    assert world.is_handled("clicks", on(0), world.content(("clicks", on(0))))


def test_pending_day_that_has_no_objects_any_more_is_forgotten() -> None:
    world = World.of(source("clicks"), page_size=2)
    for number in range(60):
        world.put("clicks", number)
    world.settle()
    for number in (3, 55):
        world.put("clicks", number, etag="2")
        world.until_asked()
        del world.bucket[f"{day_prefix('clicks', on(number))}a.csv"]
        world.end(world.runs[0])
        world.settle()
        assert world.pending("clicks") == {}
        world.put("clicks", number, etag="2")
        world.until_asked()
        world.end_all()
        assert world.is_handled("clicks", on(number), world.content(("clicks", on(number))))


def test_run_key_is_the_same_if_a_tick_is_repeated_and_another_at_every_other() -> None:
    world = World.of(source("clicks"))
    world.put("clicks", 0)
    (first,) = world.tick(launches=False, keeps_cursor=False)
    (again,) = world.tick()
    assert first.run_key == again.run_key
    keys = {first.run_key}
    for etag in ("2", "1", "2", "1"):
        world.end_all()
        world.put("clicks", 0, etag=etag)
        keys.update(one.run_key for one in world.tick())
    assert len(keys) == 5


# --- looking back -----------------------------------------------------------------------------------------------------


def test_foreign_key_waits_for_what_it_refers_to() -> None:
    world = World.of(source("a", b=3), source("b"), page_size=1000)
    for number in (0, 1, 2, 3):
        world.put("a", number)
    world.put("b", 1)
    assert ranges(world.tick()) == [("a", 0, 0), ("b", 1, 1)]
    assert world.tick() == ()
    world.end_all()
    assert ranges(world.tick()) == [("a", 1, 3)]
    world.end_all()
    world.settle()
    assert set(world.asked.values()) == {1}


def test_foreign_key_waits_for_a_chain_of_sources() -> None:
    world = World.of(source("a", b=1), source("b", c=1), source("c"))
    for name in "abc":
        world.put(name, 0)
    for name in "cba":
        assert ranges(world.tick()) == [(name, 0, 0)]
        world.end_all()


def test_foreign_key_does_not_wait_for_ever_for_a_source_that_fails() -> None:
    world = World.of(source("a", b=1), source("b"))
    for name in "ab":
        world.put(name, 0)
    assert ranges(world.tick()) == [("b", 0, 0)]
    world.end(world.runs[0], days=0)
    assert ranges(world.tick()) == [("a", 0, 0)]
    world.end_all()
    world.settle()  # b succeeds at last, and a is judged by it
    assert world.asked == {("a", on(0)): 2, ("b", on(0)): 2}
    assert world.is_handled("a", on(0), world.content(("a", on(0))))


def test_foreign_key_waits_while_what_it_refers_to_is_made_again() -> None:
    world = World.of(source("a", b=1), source("b"))
    for name in "ab":
        world.put(name, 0)
    world.settle()
    world.put("a", 0, etag="2")
    world.put("b", 0, etag="2")
    assert ranges(world.tick()) == [("b", 0, 0)]
    world.end_all()
    assert ranges(world.tick()) == [("a", 0, 0)]


def test_foreign_key_waits_for_a_retry_that_is_due_at_the_same_tick() -> None:
    world = World.of(source("a", b=1), source("b"))
    world.put("b", 0)
    world.tick()
    world.end(world.runs[0], days=0)
    world.now += 30
    world.put("a", 0)
    assert ranges(world.tick()) == [("b", 0, 0)]


@pytest.mark.parametrize(("number", "judged_again"), [(0, [1, 2]), (5, [6, 7]), (9, [])])
def test_days_that_share_no_keys_with_an_earlier_day_are_asked_again_when_it_changes(
    number: int, judged_again: list[int]
) -> None:
    world = World.of(source("clicks", unique_within_days=3), page_size=1000)
    for day in range(10):
        world.put("clicks", day)
    world.settle()
    assert set(world.asked.values()) == {1}
    world.put("clicks", number, etag="2")
    world.settle()
    assert {which[1] for which, times in world.asked.items() if times > 1} == {on(n) for n in (number, *judged_again)}


def test_days_are_asked_again_also_if_the_days_between_are_missing() -> None:
    world = World.of(source("clicks", unique_within_days=3))
    for number in (0, 2, 3):
        world.put("clicks", number)
    world.settle()
    world.put("clicks", 0, etag="2")
    world.settle()
    assert world.asked == {("clicks", on(0)): 2, ("clicks", on(2)): 2, ("clicks", on(3)): 1}


def test_days_that_refer_to_a_day_are_asked_again_when_it_arrives_or_changes() -> None:
    world = World.of(source("a", b=2), source("b"), page_size=1000)
    for day in range(6):
        world.put("a", day)
    world.settle()
    world.put("b", 3)
    world.settle()
    world.put("b", 3, etag="2")
    world.settle()
    assert {which[1]: times for which, times in world.asked.items() if which[0] == "a"} == {
        on(n): 3 if n in (3, 4) else 1 for n in range(6)
    }


def test_run_by_hand_has_those_that_look_back_on_its_day_asked() -> None:
    """Nothing landed: a decision about the quarantine has changed what the day is."""
    world = World.of(source("a", b=1), source("b"))
    for name in "ab":
        world.put(name, 0)
    world.settle()
    content, _ = world.ledger["a", on(0)]
    world.ledger["a", on(0)] = (content, [])  # it was judged by something else
    assert world.tick() == ()
    world.ended = {("b", on(0))}
    assert ranges(world.tick()) == [("a", 0, 0)]


def test_run_by_hand_that_died_is_asked_for_again() -> None:
    world = World.of(source("a"))
    world.put("a", 0)
    world.settle()
    world.ledger["a", on(0)] = ("of another content", [])
    world.ended = {("a", on(0))}
    assert ranges(world.tick()) == [("a", 0, 0)]


def test_found_day_that_is_handled_has_those_that_look_back_on_it_asked() -> None:
    """Somebody ran the changed day by hand."""
    world = World.of(source("a", b=1), source("b"))
    for name in "ab":
        world.put(name, 0)
    world.settle()
    world.put("b", 0, etag="2")
    world.ledger["b", on(0)] = world.as_it_is(("b", on(0)))
    assert ranges(world.tick()) == [("a", 0, 0)]


# --- the cursor -------------------------------------------------------------------------------------------------------


def test_cursor_of_ten_years_of_a_hundred_sources_is_a_few_megabytes() -> None:
    days = dict.fromkeys(day_range(date(2015, 1, 1), date(2024, 12, 31)), "0123456789ab")
    watch = Watch(seen={f"source_{number}": days for number in range(100)})
    text = watch.to_json()
    assert len(text) < 5_000_000
    assert Watch.from_json(text) == watch


@given(
    st.dictionaries(st.dates(date(2024, 1, 1), date(2024, 3, 1)), st.text("0123456789abcdef", min_size=12, max_size=12))
)
def test_days_without_content_are_no_part_of_the_cursor(days: dict[date, str]) -> None:
    assert Watch.from_json(Watch(seen={"a": days}).to_json()).seen == {"a": days}


def test_cursor_of_another_version_is_an_empty_watch() -> None:
    text = Watch(looks=3).to_json()
    assert Watch.from_json(text).looks == 3
    assert Watch.from_json(json.dumps([2, *json.loads(text)[1:]])) == Watch()


# --- whatever happens -------------------------------------------------------------------------------------------------

NAMES, NUMBERS, FILES = st.sampled_from("abc"), st.sampled_from([-1, 0, 1, 2, 3, 9, 10, 18, 19, 20, 21]), "xyz"
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, NUMBERS, st.sampled_from(FILES), st.sampled_from("12")),
        st.tuples(st.just("delete"), NAMES, NUMBERS, st.sampled_from(FILES)),
        st.tuples(st.just("tick"), st.integers(1, 5)),
        st.tuples(st.just("tick whose cursor is lost")),
        st.tuples(st.just("tick that dies")),
        st.tuples(st.just("lose cursor")),
        st.tuples(st.just("begin"), st.integers(0, 5)),
        st.tuples(st.just("succeed"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("break"), NAMES),
        st.tuples(st.just("mend"), NAMES),
        st.tuples(st.just("wait")),
    ),
    max_size=50,
)


def happen(world: World, event: tuple) -> None:
    match event:
        case ("put", name, number, file, etag):
            world.put(name, number, file, etag)
        case ("delete", name, number, file):
            world.bucket.pop(f"{day_prefix(name, on(number))}{file}.csv", None)
        case ("tick", times):
            for _ in range(times):
                world.tick()
        case ("tick whose cursor is lost",):
            world.tick(keeps_cursor=False)
        case ("tick that dies",):
            world.tick(launches=False, keeps_cursor=False)
        case ("lose cursor",):
            world.cursor = None
        case ("begin", number) if world.runs:
            world.begin(world.runs[number % len(world.runs)])
        case ("succeed", number) if world.runs:
            world.end(world.runs[number % len(world.runs)])
        case ("fail", number, days) if world.runs:
            world.end(world.runs[number % len(world.runs)], days)
        case ("break", name):
            world.unreachable.add(name)
        case ("mend", name):
            world.unreachable.discard(name)
        case ("wait",):
            world.now += 3600


@given(EVENTS, st.integers(1, 5), st.integers(2, 3))
def test_in_the_end_every_day_is_handled_with_its_present_content_and_nothing_is_asked_for(
    events: list[tuple], budget: int, page_size: int
) -> None:
    world = World.of(
        source("a", unique_within_days=3), source("b", a=2), source("c", a=1, b=3), page_size=page_size, budget=budget
    )
    world.today = on(20)
    for event in events:
        happen(world, event)
    world.end_all()
    world.unreachable.clear()
    full_rotation = 2 * (len(world.bucket) + 2 * len(world.sources))
    for _ in range(10 * full_rotation):
        world.now += 3600
        world.tick()
        world.end_all()
    assert all(world.is_handled(*which, world.content(which)) for which in world.days())
    asked = world.asked.copy()
    for _ in range(full_rotation):
        world.now += 3600
        assert world.tick() == ()
    assert world.asked == asked
    watch = Watch.from_json(world.cursor)
    assert {*watch.recent.scans, *watch.sweep.scans} <= {*world.sources}
    assert not any(watch.pending.values())


@given(EVENTS, st.integers(2, 3))
def test_no_day_is_asked_for_more_often_than_it_changed_or_failed(events: list[tuple], page_size: int) -> None:
    """Of sources that look back on nothing, when every scan ends within its tick."""
    world = World.of(source("a"), source("b"), source("c"), page_size=page_size, budget=200)
    world.today = on(20)
    reasons: Counter[Day] = Counter()
    for event in events:
        before = {which: world.content(which) for which in world.days()}
        failing = Counter(world.busy) if event[0] == "fail" else Counter()
        happen(world, event)
        reasons += failing
        reasons.update(which for which in {*before, *world.days()} if before.get(which) != world.content(which))
        assert world.asked <= reasons
    world.end_all()
    world.unreachable.clear()
    for _ in range(20):
        world.now += 3600
        world.tick()
        world.end_all()
    assert world.asked <= reasons
    assert all(world.is_handled(*which, world.content(which)) for which in world.days())
