"""The decision about a step, and what any history of decisions comes to."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import AbortSpec, MetricLimitSpec, RolloutSpec, duration
from ml_platform.core.spec.rollout import Strategy
from ml_platform.registry.versions import Aliases, Version
from ml_platform.rollout.observations import Observed
from ml_platform.rollout.plan import PROOF_TIME, Abort, Advance, Finish, Wait, aliases_after, decide, follow, proven
from ml_platform.rollout.sequential import Interval, proportion
from ml_platform.rollout.standing import Record, Standing
from ml_platform.rollout.state import Event, Rollout
from ml_platform_tests.selection import examples

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIMITS = AbortSpec(
    error_rate=0.01, latency_p99_ms=100, score_psi=0.25, metric=MetricLimitSpec(name="brier", worse_by=0.01)
)
CANARY = RolloutSpec(strategy="canary", steps=(1, 50), bake="10m", max_wait="1h", min_requests=100, abort_if=LIMITS)
AB = RolloutSpec(strategy="ab", max_wait="1h", abort_if=AbortSpec(metric=MetricLimitSpec(name="brier")))
GOOD = Observed(1_000, 9_000, proportion(1, 1_000, 0.001), proportion(2, 1_000, 0.001), 20.0, 0.02)


def version(number: int) -> Version:
    return Version("m", str(number), f"digest{number}", "2026-01-01", "run", "source")


ONE, TWO = version(1), version(2)


def begun(spec: RolloutSpec = CANARY, before: Aliases | None = None) -> Rollout:
    return Rollout.begin(TWO, before or Aliases(champion=ONE, previous=version(9)), spec, NOW, "somebody")


def test_good_step_goes_on_and_the_last_one_finishes() -> None:
    first = begun()
    assert isinstance(decide(first, GOOD, NOW + 10 * MINUTE), Advance)
    second = follow(first, Advance("good"), GOOD, NOW + 10 * MINUTE, "me")
    assert (second.step, second.since, second.number) == (1, NOW + 10 * MINUTE, 1)
    assert second.last == Event(NOW + 10 * MINUTE, "advanced", "good", "me", {"stage": "1 %", **GOOD.figures()})
    assert isinstance(decide(second, GOOD, NOW + 11 * MINUTE), Wait)
    assert isinstance(decide(second, GOOD, NOW + 20 * MINUTE), Finish)


@pytest.mark.parametrize(
    ("observed", "now", "why"),
    [
        (GOOD, NOW + 9 * MINUTE, "0:09:00 of 10m"),
        (replace(GOOD, requests=99), NOW + 20 * MINUTE, "99 of 100 requests"),
        (replace(GOOD, errors=proportion(11, 1_000, 0.001)), NOW + 20 * MINUTE, "error rate: 0.011"),
        (replace(GOOD, score_psi=0.3), NOW + 20 * MINUTE, "PSI of the scores: 0.300 against 0.25"),
    ],
)
def test_step_that_is_not_ready_waits_and_in_the_end_the_champion_stays(
    observed: Observed, now: datetime, why: str
) -> None:
    waits = decide(begun(), observed, now)
    assert isinstance(waits, Wait)
    assert why in waits.reason
    late = decide(begun(), observed, NOW + timedelta(hours=1))
    assert isinstance(late, Abort) == (why != "0:09:00 of 10m")
    if isinstance(late, Abort):
        assert "not ready within max_wait, 1h" in late.reason


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        (replace(GOOD, requests=40, errors=proportion(20, 40, 0.001)), "error rate: 0.5"),
        (replace(GOOD, slow=proportion(200, 1_000, 0.001)), "share of requests slower than 100.0 ms: 0.2"),
        (replace(GOOD, score_psi=0.3, shifted=True), "PSI of the scores: 0.300 against 0.25"),
        (replace(GOOD, metric=Interval(0.03, 0.011, 0.05)), "brier worse than the champion's: 0.03"),
        (replace(GOOD, trouble="the server refused it"), "the server refused it"),
    ],
)
def test_what_is_certainly_bad_ends_the_rollout_at_once(observed: Observed, why: str) -> None:
    decision = decide(begun(), observed, NOW + MINUTE)
    assert isinstance(decision, Abort)
    assert why in decision.reason


def test_what_is_exactly_at_its_limit_is_within_it() -> None:
    at = replace(
        GOOD, errors=Interval(0.01, 0.01, 0.02), score_psi=0.25, shifted=True, metric=Interval(0.01, 0.01, 0.02)
    )
    assert isinstance(decide(begun(), at, NOW + 10 * MINUTE), Advance)
    as_good = replace(GOOD, metric=Interval(-0.01, -0.02, 0.0))
    assert isinstance(decide(begun(AB), as_good, NOW + 30 * MINUTE), Wait), "not better for certain"


def test_suspicion_is_waited_out_though_it_is_not_certain() -> None:
    """A value above its limit, whose interval reaches below it, ends nothing and lets nothing go on."""
    suspect = replace(GOOD, errors=Interval(0.02, 0.005, 0.04))
    assert decide(begun(), suspect, NOW + 20 * MINUTE) == Wait(
        "error rate: 0.02, for certain 0.005 to 0.04, against 0.01"
    )


def test_all_that_is_waited_for_and_all_that_is_broken_is_said() -> None:
    needs_labels = CANARY.model_copy(update={"min_labels": 5})
    few = replace(GOOD, requests=99, labels=4)
    assert decide(begun(needs_labels), few, NOW + 9 * MINUTE) == Wait(
        "0:09:00 of 10m, 99 of 100 requests, 4 of 5 labels"
    )
    unsure = replace(GOOD, metric=Interval(-0.01, -0.02, 0.01))
    assert decide(begun(AB), unsure, NOW + 30 * MINUTE) == Wait("not certain yet which one is better")
    broken = replace(GOOD, errors=Interval(0.5, 0.4, 0.6), score_psi=0.3, shifted=True)
    assert decide(begun(), broken, NOW + MINUTE) == Abort(
        "error rate: 0.5, for certain 0.4 to 0.6, against 0.01; PSI of the scores: 0.300 against 0.25"
    )


def test_proof_has_its_time_and_not_a_moment_more() -> None:
    proving = follow(begun(), Finish("good"), GOOD, NOW, "me")
    assert decide(proving, GOOD, NOW + PROOF_TIME) == Wait("its proof as champion")
    late = decide(proving, GOOD, NOW + PROOF_TIME + timedelta(microseconds=1))
    assert late == Abort("as champion it was not proven within 0:30:00")


def test_state_says_what_happened_when_why_by_whom_and_on_what_figures() -> None:
    later, figures = NOW + MINUTE, {"stage": "1 %", **GOOD.figures()}
    aborted = follow(begun(), Abort("bad"), GOOD, later, "me")
    assert (aborted.phase, aborted.last) == ("aborted", Event(later, "aborted", "bad", "me", figures))
    promoted = follow(begun(), Finish("good"), GOOD, later, "me")
    assert (promoted.phase, promoted.last) == ("proving", Event(later, "promoted", "good", "me", figures))
    finished = proven(promoted, "it scores alike", later, "you")
    assert (finished.phase, finished.last) == ("finished", Event(later, "proven", "it scores alike", "you"))
    assert decide(finished, GOOD, later) == Wait("it has finished")
    assert decide(aborted, GOOD, later) == Wait("it has aborted")


def test_candidate_alias_is_the_running_challengers_alone() -> None:
    before = Aliases(champion=ONE)
    assert aliases_after(begun(), before, TWO, lambda _: None) == before.nominated(TWO)
    finished = proven(follow(begun(), Finish("good"), GOOD, NOW, "me"), "it scores alike", NOW, "me")
    assert aliases_after(finished, before, TWO, lambda _: None) == before, "somebody has taken it back since"


def test_little_evidence_ends_nothing() -> None:
    """One error in ten requests is ten times the limit, and says little."""
    observed = replace(
        GOOD, requests=10, errors=proportion(1, 10, 0.001), score_psi=2.0, metric=Interval(0.3, -0.1, 0.7)
    )
    assert isinstance(decide(begun(), observed, NOW + MINUTE), Wait)


def test_a_b_ends_when_it_is_certain_which_one_is_better() -> None:
    late = NOW + 30 * MINUTE
    unsure, better, worse = (
        replace(GOOD, metric=interval)
        for interval in (Interval(-0.01, -0.02, 0.01), Interval(-0.02, -0.03, -0.01), Interval(0.02, 0.01, 0.03))
    )
    assert isinstance(decide(begun(AB), unsure, late), Wait)
    assert isinstance(decide(begun(AB), better, late), Finish)
    assert isinstance(decide(begun(AB), worse, NOW + MINUTE), Abort)
    undecided = decide(begun(AB), unsure, NOW + timedelta(hours=1))
    assert isinstance(undecided, Abort)
    assert "not certain yet which one is better" in undecided.reason


def test_shadow_comes_before_the_steps_and_answers_nobody() -> None:
    spec = RolloutSpec(strategy="shadow", steps=(10,))
    traffic = Standing(Aliases(champion=ONE), begun(spec), TWO).traffic()
    assert (traffic.shadow, traffic.challenger, traffic.arm("anybody")) == (True, TWO, "champion")
    second = follow(begun(spec), Advance(""), GOOD, NOW, "")
    assert Standing(Aliases(champion=ONE), second, TWO).traffic().share == 0.1
    assert isinstance(decide(begun(RolloutSpec(strategy="shadow")), GOOD, NOW + 10 * MINUTE), Finish)


def test_first_version_ever_has_nothing_to_be_compared_with() -> None:
    first = begun(CANARY, Aliases(candidate=TWO))
    assert first.phase == "proving"
    assert aliases_after(first, Aliases(candidate=TWO), TWO, version_of) == Aliases(champion=TWO)
    failed = follow(first, Abort("scores otherwise"), Observed(), NOW, "")
    assert aliases_after(failed, Aliases(champion=TWO), TWO, version_of) == Aliases()


def test_failed_proof_brings_back_what_was_there() -> None:
    before = Aliases(champion=ONE, previous=version(9), candidate=TWO)
    proving = follow(begun(), Finish(""), GOOD, NOW, "")
    promoted = aliases_after(proving, before, TWO, version_of)
    assert promoted == Aliases(champion=TWO, previous=ONE)
    failed = follow(proving, Abort("scores otherwise"), Observed(), NOW, "")
    assert aliases_after(failed, promoted, TWO, version_of) == Aliases(champion=ONE, previous=version(9))
    moved = Aliases(champion=version(5), previous=TWO)  # by somebody, in the meantime
    assert aliases_after(failed, moved, TWO, version_of) == moved
    assert isinstance(decide(proving, Observed(), NOW + PROOF_TIME + MINUTE), Abort)


def test_challenger_of_another_champion_gets_nothing() -> None:
    assert Standing(Aliases(champion=version(3)), begun(), TWO).traffic().challenger is None


def version_of(number: str) -> Version:
    return version(int(number))


# --- any history ------------------------------------------------------------------------------------------------------


@st.composite
def specs(draw: st.DrawFn) -> RolloutSpec:
    strategies: tuple[Strategy, ...] = ("shadow", "canary", "ab", "ramp")
    strategy = draw(st.sampled_from(strategies))
    steps = sorted(draw(st.sets(st.integers(1, 99), min_size=1, max_size=1 if strategy == "ab" else 5)))
    return RolloutSpec(
        strategy=strategy,
        steps=tuple(steps),
        bake=draw(st.sampled_from(["1s", "5m", "1h"])),
        max_wait=draw(st.sampled_from(["1h", "3h"])),
        min_requests=draw(st.integers(1, 500)),
        min_labels=draw(st.sampled_from([0, 50])),
        abort_if=LIMITS,
    )


def intervals(value: st.SearchStrategy[float]) -> st.SearchStrategy[Interval]:
    return st.tuples(value, st.floats(0, 0.1), st.floats(0, 0.1)).map(
        lambda v: Interval(v[0], v[0] - v[1], v[0] + v[2])
    )


observations = st.builds(
    Observed,
    requests=st.integers(0, 2_000),
    errors=st.none() | intervals(st.floats(0, 0.02)) | st.just(Interval(math.nan, 0.0, 1.0)),
    slow=st.none() | intervals(st.floats(0, 0.02)),
    score_psi=st.none() | st.floats(0, 0.3),
    shifted=st.booleans(),
    metric=st.none() | intervals(st.floats(-0.05, 0.02)),
    labels=st.integers(0, 200),
    trouble=st.just(""),
)
looks = st.lists(st.tuples(observations, st.integers(1, 40), st.booleans()), min_size=1, max_size=12)


@examples(2_000)
@given(specs(), looks)
def test_any_history_ends_with_one_champion_and_every_step_in_its_turn(
    spec: RolloutSpec, history: list[tuple[Observed, int, bool]]
) -> None:
    """The history is repeated until the rollout is over. Every state survives the registry's tag."""
    rollout, aliases, now, seen = begun(spec), Aliases(champion=ONE, candidate=TWO), NOW, [0]
    latest = (
        NOW
        + len(spec.stages) * duration(spec.max_wait)
        + PROOF_TIME
        + 2 * timedelta(minutes=40) * (len(spec.stages) + 1)
    )
    while not rollout.is_over:
        for observed, minutes, proof in history:
            now += minutes * MINUTE
            before = rollout
            if rollout.phase == "proving" and proof:
                rollout = proven(rollout, "", now, "")
            else:
                rollout = follow(rollout, decide(rollout, observed, now), observed, now, "")
            aliases = aliases_after(rollout, aliases, TWO, version_of)
            assert aliases.champion in (ONE, TWO)
            assert aliases.champion not in (aliases.previous, aliases.candidate)
            assert (aliases.champion == TWO) == (rollout.phase in ("proving", "finished"))
            assert rollout.number - before.number in (0, 1)
            if rollout != before:
                assert Record.from_json(Record(None, rollout).to_json()).rollout == rollout
            if rollout.step != seen[-1]:
                assert rollout.since - before.since >= duration(spec.bake)
                seen.append(rollout.step)
            if rollout.phase == "proving":
                assert rollout.step == len(spec.stages) - 1
        assert now < latest + timedelta(days=1)
        if now > latest:
            break
    assert rollout.is_over
    assert seen == list(range(len(seen)))
    if rollout.phase == "finished":
        assert len(seen) == len(spec.stages)
