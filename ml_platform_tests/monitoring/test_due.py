import random
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.monitoring.due import FIRST_DELAY, LONGEST_DELAY, Again, Ask, Part, decide

DAY = date(2018, 4, 1)
TRAINING = ("m/training_set", "m/candidate", "m/evaluation")


def parts(assets: tuple[str, ...], days: int = 1) -> frozenset[Part]:
    return frozenset((asset, DAY + timedelta(days=n)) for asset in assets for n in range(days))


def failed(name: str = "a", at: float = 0.0, missing: frozenset[Part] | None = None, **fields: object) -> Ask:
    asked = parts(TRAINING)
    given: dict = {"ending": "trouble", "ended": at + 10.0, "why": "S3 is away", **fields}
    return Ask(name, at, asked, asked if missing is None else missing, **given)


def test_what_trouble_left_undone_is_asked_for_again_after_a_while_and_no_more_than_that() -> None:
    ask = failed(missing=parts(TRAINING[1:]))
    early = decide([ask], 10.0 + FIRST_DELAY - 1)
    assert not early.again
    assert early.reasons == (
        "m/candidate [2018-04-01], m/evaluation [2018-04-01] is asked for again at 00:00:40 UTC, try 2: S3 is away",
    )
    assert decide([ask], 10.0 + FIRST_DELAY).again == (Again(("m/candidate", "m/evaluation"), (DAY, DAY), ask),)


@pytest.mark.parametrize(
    ("tries", "delay"), [(1, 30.0), (2, 60.0), (4, 240.0), (8, LONGEST_DELAY), (300, LONGEST_DELAY)]
)
def test_delays_grow_up_to_an_hour(tries: int, delay: float) -> None:
    ask = failed(tries=tries)
    assert not decide([ask], 10.0 + delay - 1).again
    assert decide([ask], 10.0 + delay).again


def test_a_mistake_is_said_once_and_never_asked_for_again() -> None:
    decision = decide([failed(ending="mistake", why="gate said no")], 1e9)
    assert decision.again == ()
    assert decision.reasons == (
        "m/candidate [2018-04-01], m/evaluation [2018-04-01], m/training_set [2018-04-01] "
        "is not asked for again until its inputs change: gate said no",
    )
    assert decision.settled == {"a"}


@pytest.mark.parametrize("ending", ["open", "made", "trouble", "mistake"])
def test_what_somebody_has_asked_for_since_is_theirs(ending: str) -> None:
    later = failed("b", at=20.0, ending=ending, ended=1e9)
    decision = decide([failed("a"), later], 1e6)
    assert decision.again == ()
    assert "a" in decision.settled


def test_what_is_open_or_made_needs_nothing() -> None:
    assert decide([failed(ending="open"), failed("b", ending="made")], 1e9).again == ()


def test_days_with_gaps_and_assets_with_other_days_are_requests_of_their_own() -> None:
    week = [DAY + timedelta(days=n) for n in (0, 1, 3)]
    missing = frozenset([("a/raw", day) for day in week] + [("b/raw", day) for day in week] + [("c", None)])
    ask = Ask("a", 0.0, missing, missing, "trouble", 0.0)
    wanted = decide([ask], 1e9).again
    assert wanted == (
        Again(("a/raw", "b/raw"), (week[0], week[1]), ask),
        Again(("a/raw", "b/raw"), (week[2], week[2]), ask),
        Again(("c",), None, ask),
    )


@dataclass
class World:
    """Runs that crash before they start, between parts, after a write, before its event; and who looks after them."""

    rng: random.Random
    now: float = 0.0
    lake: dict[Part, int] = field(default_factory=dict)  # how often it was written
    dagster: set[Part] = field(default_factory=set)
    asks: list[Ask] = field(default_factory=list)

    def run(self, asked: frozenset[Part], tries: int, crashes: bool) -> None:
        self.now += 1
        told = set[Part]()
        stop = self.rng.randrange(2 * len(asked) + 1) if crashes else 2 * len(asked) + 1
        for number, part in enumerate(sorted(asked, key=str)):
            if 2 * number >= stop:
                break
            self.lake[part] = self.lake.get(part, 0) + 1
            if 2 * number + 1 < stop:  # else it dies after the write, before the event
                told.add(part)
        self.dagster |= told
        ending = "made" if told == asked else "trouble"
        self.asks.append(Ask(str(len(self.asks)), self.now, asked, asked - told, ending, self.now, tries))

    def look(self) -> list[Again]:
        """What a tick does: report what is written, then decide."""
        for number, ask in enumerate(self.asks):
            written = {part for part in ask.missing if part in self.lake}
            self.dagster |= written
            self.asks[number] = replace(ask, missing=ask.missing - written)
        return list(decide(self.asks, self.now).again)


@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(0, 8))
def test_after_any_crashes_everything_is_made_once_and_dagster_knows_it(
    rng: random.Random, days: int, crashes: int
) -> None:
    world, asked = World(rng), parts(TRAINING, days)
    world.run(asked, 1, crashes=crashes > 0)
    for round_ in range(60):
        world.now += LONGEST_DELAY
        for one in world.look():
            first, last = one.days or (DAY, DAY)
            among = {first + timedelta(days=n) for n in range((last - first).days + 1)}
            again = frozenset((asset, day) for asset in one.assets for day in among)
            world.run(again, one.after.tries + 1, crashes=round_ < crashes)
    assert world.dagster == asked
    assert world.lake == dict.fromkeys(asked, 1)
    assert not world.look()
