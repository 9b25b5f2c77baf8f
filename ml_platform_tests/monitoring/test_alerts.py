"""Each cause is told once to each channel, and its end once, whatever is restarted, silenced, explained or broken meanwhile."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ml_platform.monitoring.alerts import (
    SETTLED,
    Alert,
    Message,
    Silence,
    State,
    broken_channels,
    deliver,
    explanations,
    observe,
)
from ml_platform.monitoring.messages import body, title
from ml_platform_tests.selection import examples

DAY, CHANNELS = 86_400.0, ("mail", "chat")
LATE = Alert("data_late", "transactions/raw", "2026-01-02 is not there", about=("transactions",))
VIEW = Alert("data_late", "features/cards", "it is late", follows_from=("features/cards", "transactions/raw"))


class World:
    """Channels that note what they take, and looks at what is wrong; every tick reads the state of the one before."""

    def __init__(self, channels: Sequence[str] = ("mail",)) -> None:
        self.channels, self.now, self.kept = tuple(channels), 1_700_000_000.0, State().to_json()
        self.wrong: list[Alert] = []
        self.unseen: set[tuple[str, str]] = set()
        self.silences: list[Silence] = []
        self.broken: set[str] = set()
        self.taken: list[Message] = []

    @property
    def state(self) -> State:
        return State.from_json(self.kept)

    def tick(self, seconds: float = 30.0) -> list[str]:
        """The titles of what was taken."""
        self.now, before = self.now + seconds, len(self.taken)
        state = observe(self.state, self.wrong, self.unseen, lambda _: self.channels, self.silences, self.now)
        self.keep(state)
        deliver(state, self.now, self.send, self.keep)
        return [title(message) for message in self.taken[before:]]

    def send(self, message: Message) -> str:
        if message.channel in self.broken:
            return "nobody answers"
        self.taken.append(message)
        return ""

    def keep(self, state: State) -> None:
        self.kept = state.to_json()

    def rest(self) -> list[str]:
        """Ticks until nothing is left to do."""
        return [said for _ in range(5) for said in self.tick(2 * 3_600)]


def failed(day: int, error: str = "") -> Alert:
    reason = error or f"column 'a{day}' is missing in part-{day:08x} of [2026-01-{day:02d}]: {day} of 10 rows"
    return Alert("run_failed", "features/cards", reason, parts=(f"2026-01-{day:02d}",))


def test_forty_failed_partitions_of_one_fault_are_one_message() -> None:
    world = World()
    world.wrong = [failed(day) for day in range(1, 29)]
    (said,) = world.tick()
    assert said == "warning: run failed: features/cards [28 partitions, 2026-01-01 to 2026-01-28]"
    world.wrong.append(failed(29))
    assert world.tick() == [], "one more of the same is nothing new"
    world.wrong.append(failed(1, "the disk is full"))
    assert world.tick() == ["warning: run failed: features/cards [2026-01-01]"], "another fault is"


def test_one_fault_of_many_things_is_one_message() -> None:
    world = World()
    world.wrong = [Alert("run_failed", f"features/view{n}", "S3 is away", next_step="look") for n in range(12)]
    (said,) = world.tick()
    assert said == "warning: run failed: features/view0 and 11 more"
    text = body(world.taken[0])
    assert text.count("S3 is away") == 10
    assert "and 2 more: ml-platform alerts list" in text
    assert "next: look" in text


def test_end_is_told_once_and_after_it_has_settled() -> None:
    world = World()
    world.wrong = [LATE]
    assert world.tick() == ["critical: data late: transactions/raw"]
    world.wrong = []
    assert world.tick(30) == []
    world.wrong = [LATE]
    assert world.tick() == [], "it comes and goes, and is one alert"
    world.wrong = []
    assert world.tick() == []
    assert world.tick(SETTLED) == ["over: data late: transactions/raw"]
    assert world.rest() == []
    assert world.state.open == {}
    world.wrong = [LATE]
    assert world.tick() == ["critical: data late: transactions/raw"], "the same fault another time is told again"


def test_what_could_not_be_looked_at_is_not_over() -> None:
    world = World()
    world.wrong = [LATE]
    world.tick()
    world.wrong, world.unseen = [], {(LATE.kind, LATE.subject)}
    assert world.rest() == []
    world.unseen = set()
    assert world.rest() == ["over: data late: transactions/raw"]


def test_source_that_is_late_explains_what_follows_from_it() -> None:
    world = World()
    model = Alert("data_late", "fraud/predictions", "late", follows_from=(*VIEW.follows_from, "fraud/predictions"))
    world.wrong = [model, VIEW, LATE]
    assert world.tick() == ["critical: data late: transactions/raw"]
    assert {other.subject for other in explanations(world.state, world.now).values()} <= {LATE.subject, VIEW.subject}
    world.wrong = [VIEW]
    assert {*world.rest()} == {"over: data late: transactions/raw", "critical: data late: features/cards"}


def test_two_that_follow_from_each_other_do_not_wait_for_each_other() -> None:
    world = World()
    world.wrong = [Alert("data_late", one, f"{one} is late", follows_from=("ab", "cd")) for one in ("ab", "cd")]
    assert len(world.tick()) == 2


def test_what_has_ended_while_the_channel_was_away_is_told_as_over_alone() -> None:
    world = World()
    world.broken, world.wrong = {"mail"}, [LATE]
    world.tick()
    world.broken, world.wrong = set(), []
    assert world.tick() == [], "whether it is over is not known yet"
    assert world.tick(SETTLED) == ["over: data late: transactions/raw"]
    assert world.rest() == []


def test_patience_begins_anew_when_the_explanation_is_gone() -> None:
    world = World()
    world.wrong = [Alert(**{**VIEW.__dict__, "patience": 600.0}), LATE]
    world.tick()
    world.tick(1_000)
    world.wrong = world.wrong[:1]
    assert world.tick(SETTLED) == []
    assert world.tick(SETTLED) == ["over: data late: transactions/raw"]
    assert world.tick(500) == []
    assert world.tick(100) == ["critical: data late: features/cards"]


def test_trouble_that_passes_is_told_to_nobody() -> None:
    world = World()
    world.wrong = [Alert("run_failed", "a/raw", "S3 is away", patience=600.0)]
    assert world.tick() == []
    assert world.tick(599) == []
    world.wrong = []
    assert world.rest() == []
    assert world.state.open == {}


def test_silence_ends_by_itself() -> None:
    world = World()
    world.wrong = [LATE]
    world.silences = [Silence("1", "transactions*", world.now + 100, "ann", "known")]
    assert world.tick(50) == []
    assert world.tick(49) == []
    assert world.tick(1) == ["critical: data late: transactions/raw"]
    world.silences = [Silence("2", LATE.id, world.now + DAY, "ann", "known")]
    world.wrong = []
    assert world.rest() == ["over: data late: transactions/raw"], "whoever was told is told of the end"


def test_broken_channel_is_retried_seen_and_loses_nothing() -> None:
    world = World(CHANNELS)
    world.broken, world.wrong = {"mail"}, [LATE, failed(1)]
    assert len(world.tick()) == 2, "the other channel is told"
    assert world.state.channels["mail"].failures == 1, "of two messages one is tried"
    (alert,) = broken_channels(world.state)
    assert (alert.subject, alert.severity) == ("channel/mail", "critical")
    assert "nobody answers" in alert.reason
    world.tick(29)
    assert world.state.channels["mail"].failures == 1
    world.tick(1)
    world.tick(30)
    assert world.state.channels["mail"].failures == 2, "the delay grows"
    world.wrong = [failed(1)]
    assert world.rest() == ["over: data late: transactions/raw"]
    world.broken = set()
    said = world.rest()
    assert sorted(said) == ["over: data late: transactions/raw", "warning: run failed: features/cards [2026-01-01]"]
    assert (world.state.channels, list(broken_channels(world.state))) == ({}, [])


def test_message_has_reason_value_limit_link_and_next_command() -> None:
    world = World()
    world.wrong = [
        Alert(
            "gate_rejected",
            "fraud/evaluation",
            "auc is 0.7",
            value="0.7",
            limit="0.8",
            parts=("2026-01-05",),
            link="http://dagster/assets/fraud/evaluation",
            next_step="ml-platform show fraud",
        )
    ]
    assert world.tick() == ["warning: gate rejected: fraud/evaluation [2026-01-05]"]
    assert body(world.taken[0]).splitlines() == [
        "fraud/evaluation [2026-01-05]: auc is 0.7",
        "value: 0.7; limit: 0.8",
        "since 2023-11-14 22:13 UTC",
        "see http://dagster/assets/fraud/evaluation",
        "next: ml-platform show fraud",
        f"silence: ml-platform alerts silence {world.wrong[0].id} --for 4h --reason ...",
    ]


def test_storm_comes_in_portions() -> None:
    world = World()
    world.wrong = [Alert("run_failed", f"v{n}", f"error {chr(97 + n)}") for n in range(25)]
    assert [len(world.tick()) for _ in range(3)] == [20, 5, 0]


def test_state_of_another_release_is_read_and_junk_is_refused() -> None:
    world = World()
    world.wrong = [LATE]
    world.tick()
    newer = world.kept.replace('"kind"', '"colour": "red", "kind"')
    assert State.from_json(newer) == world.state
    for junk in ("", "[]", "{}", '{"open": {"a": 1}, "channels": {}}'):
        with pytest.raises(ValueError, match=r"."):
            State.from_json(junk)


FAULTS = [
    LATE,
    VIEW,
    failed(1),
    Alert("run_failed", "a/raw", "S3 is away", patience=300.0),
    Alert("rollout_stuck", "fraud/deployment", "no labels", follows_from=(*VIEW.follows_from, "x")),
]


class Anything(RuleBasedStateMachine):
    """Faults come and go, channels break, somebody silences: and each channel hears of every fault and its end by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(CHANNELS)

    @rule(number=st.integers(0, len(FAULTS) - 1))
    def fault_comes_or_goes(self, number: int) -> None:
        fault = FAULTS[number]
        wrong = self.world.wrong
        self.world.wrong = [one for one in wrong if one != fault] if fault in wrong else [*wrong, fault]

    @rule(name=st.sampled_from(CHANNELS))
    def channel_breaks_or_is_mended(self, name: str) -> None:
        self.world.broken ^= {name}

    @rule(pattern=st.sampled_from(["transactions*", "run_failed", "*"]), seconds=st.sampled_from([10.0, 500.0, DAY]))
    def somebody_silences(self, pattern: str, seconds: float) -> None:
        self.world.silences.append(Silence("1", pattern, self.world.now + seconds, "ann", ""))

    @rule(number=st.integers(0, len(FAULTS) - 1))
    def something_cannot_be_looked_at(self, number: int) -> None:
        self.world.unseen ^= {(FAULTS[number].kind, FAULTS[number].subject)}

    @rule(seconds=st.sampled_from([1.0, 30.0, SETTLED, 600.0, 7_200.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.world.tick(seconds)

    @invariant()
    def nobody_hears_anything_twice(self) -> None:
        for name in CHANNELS:
            for fault in FAULTS:
                heard = [
                    m.over for m in self.world.taken if m.channel == name for o in m.alerts if o.alert.id == fault.id
                ]
                # The end alone is heard of what began and ended while the channel was away.
                assert all(one or after for one, after in pairwise(heard))

    def teardown(self) -> None:
        world = self.world
        world.broken, world.unseen, world.silences = set(), set(), []
        world.rest()
        for name in CHANNELS:
            for fault in FAULTS:
                heard = [m.over for m in world.taken if m.channel == name for o in m.alerts if o.alert.id == fault.id]
                explained = any(one.subject in fault.follows_from and one != fault for one in world.wrong)
                if fault in world.wrong and not explained:
                    assert heard, f"{name} never heard of {fault.subject}"
                    assert not heard[-1], f"{name} believes that {fault.subject} is over"
                elif fault not in world.wrong and heard:
                    assert heard[-1], f"{name} never heard of the end of {fault.subject}"
        world.wrong = []
        world.rest()
        assert (world.rest(), world.state) == ([], State())


Anything.TestCase.settings = examples(150, stateful_step_count=30, deadline=None)
TestAnything = Anything.TestCase
