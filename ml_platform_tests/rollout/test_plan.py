from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.evaluation.gates import GateResult
from ml_platform.evaluation.report import ChampionReport, Report
from ml_platform.registry.versions import Aliases, Version
from ml_platform.rollout.plan import Hold, Keep, Promote, plan_deployment
from ml_platform_tests.evaluation.test_gates import REPORT


def version(number: int, training_date: str = "2024-01-01") -> Version:
    return Version("m", str(number), f"digest{number}", training_date, "run", "source")


def report(of: Version, against: Version | None = None) -> Report:
    champion = ChampionReport(against.number, {"average_precision": 0.5}) if against else None
    return replace(REPORT, bundle_digest=of.digest, champion=champion)


PASSED, FAILED = GateResult("good", True, "fine"), GateResult("bad", False, "0.1; at least 0.5 wanted")


def test_first_version_is_promoted() -> None:
    one = version(1)
    assert plan_deployment(one, Aliases(), report(one), [PASSED]) == Promote(Aliases(champion=one))


def test_better_version_replaces_the_champion_which_stays_as_previous() -> None:
    one, two = version(1), version(2)
    assert plan_deployment(two, Aliases(champion=one), report(two, one), [PASSED]) == Promote(Aliases(two, one))


def test_failed_gate_holds_with_its_reason() -> None:
    action = plan_deployment(version(2), Aliases(champion=version(1)), report(version(2)), [PASSED, FAILED])
    assert action == Hold("bad: 0.1; at least 0.5 wanted")
    twice = plan_deployment(version(2), Aliases(), report(version(2)), [FAILED, FAILED])
    assert twice == Hold("bad: 0.1; at least 0.5 wanted; bad: 0.1; at least 0.5 wanted")


def test_evaluation_of_another_bundle_does_not_count() -> None:
    assert isinstance(plan_deployment(version(2), Aliases(), report(version(1)), [PASSED]), Hold)


def test_version_that_was_never_compared_with_the_present_champion_is_held() -> None:
    """Two trainings at once, both evaluated while there was no champion: the second has to be evaluated again."""
    action = plan_deployment(version(2), Aliases(champion=version(1)), report(version(2)), [PASSED])
    assert action == Hold("it was evaluated against champion none, and the champion is version 1 now")


def test_champion_is_kept_when_deployed_again() -> None:
    one = version(1)
    assert plan_deployment(one, Aliases(champion=one), report(one), [PASSED]) == Keep()


def test_version_whose_run_changed_something_waits_for_a_hand_unless_the_model_file_allows_it() -> None:
    changed = replace(version(2), overrides='{"training.seed": 3}')
    held = plan_deployment(changed, Aliases(), report(changed), [PASSED], overrides_allowed=False)
    assert isinstance(held, Hold)
    assert held.reason.startswith('its run changed {"training.seed": 3} of the model file')
    assert "ml-platform promote m 2" in held.reason
    assert isinstance(plan_deployment(changed, Aliases(), report(changed), [PASSED]), Promote)
    plain = version(2)
    assert isinstance(plan_deployment(plain, Aliases(), report(plain), [PASSED], overrides_allowed=False), Promote)
    by_hand = Aliases(champion=changed)
    assert plan_deployment(changed, by_hand, report(changed), [PASSED], overrides_allowed=False) == Keep()


def test_backfilled_older_training_does_not_replace_a_newer_champion() -> None:
    old, new = version(2, "2023-12-01"), version(1, "2024-01-01")
    action = plan_deployment(old, Aliases(champion=new), report(old, new), [PASSED])
    assert isinstance(action, Hold)
    assert "later than 2023-12-01" in action.reason


def test_reason_to_hold_names_what_was_compared() -> None:
    one, two = replace(version(1), digest="1" * 20), replace(version(2), digest="2" * 20)
    action = plan_deployment(two, Aliases(), report(one), [PASSED])
    assert action == Hold("the evaluation is of bundle 111111111111, the version of 222222222222")
    gone = plan_deployment(two, Aliases(), report(two, one), [PASSED])
    assert gone == Hold("it was evaluated against champion 1, and the champion is none now")
    old = version(3, "2023-12-01")
    assert plan_deployment(old, Aliases(champion=one), report(old, one), [PASSED]) == Hold(
        "champion version 1 was trained as of 2024-01-01, later than 2023-12-01"
    )
    assert plan_deployment(old, Aliases(), report(old), [PASSED], challenger=one) == Hold(
        "a rollout is under way of version 1 was trained as of 2024-01-01, later than 2023-12-01"
    )


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=20))
def test_whatever_is_deployed_champion_and_previous_always_differ(history: list[tuple[int, bool]]) -> None:
    """Any history of good and bad versions: one champion at most, never also the previous one, never a bad one."""
    aliases = Aliases()
    for number, good in history:
        one = version(number)
        action = plan_deployment(one, aliases, report(one, aliases.champion), [PASSED if good else FAILED])
        if isinstance(action, Promote):
            assert good
            aliases = action.aliases
        assert aliases.champion is None or aliases.champion != aliases.previous
