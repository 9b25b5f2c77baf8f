"""When a training is due: by date, by new days, by changed inputs, by an alarm; and what holds an alarm back."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ModelSpec, TrainingSpec
from ml_platform.core.spec.monitoring import MonitoringSpec
from ml_platform.monitoring.retrain import (
    Alarm,
    AwaitLabels,
    Held,
    Seen,
    Train,
    Training,
    Wait,
    decide,
    from_json,
    one_cause,
    ongoing,
    to_json,
)

NEW, LAST = date(2018, 6, 10), date(2018, 6, 3)
NOW = datetime(2018, 6, 10, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=30)
DAY = timedelta(days=1)
DRIFT = Alarm("drift", date(2018, 6, 2), "amounts are cents")


@pytest.fixture(scope="module")
def spec(catalog: Catalog) -> ModelSpec:
    return catalog.models["fraud_detection"]


def decision(
    spec: ModelSpec, known: list[date], inputs: str | None, trained: dict[date, str], **more: Any
) -> Train | Wait:
    past = {day: Training(fingerprint, LONG_AGO) for day, fingerprint in trained.items()}
    return decide(spec, Seen(NOW, known, lambda _: inputs, past, **more))


def alarmed(spec: ModelSpec, rows_a_day: int = 500, trained_at: datetime = LONG_AGO, **changes: Any) -> Train | Wait:
    """Trained four days ago, so that nothing is due by cadence, with drift since a day before that."""
    trained = {NEW - 4 * DAY: Training("x", trained_at)}

    def rows(first: date, last: date) -> int:
        return rows_a_day * max(0, (last - first).days + 1)

    seen = Seen(NOW, [NEW], lambda _: "y", trained, lambda: [DRIFT], 5, rows)
    return decide(spec, replace(seen, **changes))


# --- by date and by inputs --------------------------------------------------------------------------------------------


def test_first_training_is_due_as_soon_as_inputs_are_complete(spec: ModelSpec) -> None:
    assert decision(spec, [LAST, NEW], "x", {}) == Train(NEW, "the model has never been trained", "x", "first")
    assert isinstance(decision(spec, [LAST, NEW], None, {}), Wait)
    assert isinstance(decision(spec, [], "x", {}), Wait)


def test_next_training_is_due_by_cadence(spec: ModelSpec) -> None:
    assert isinstance(decision(spec, [NEW], "x", {LAST: "old"}), Train)
    assert isinstance(decision(spec, [date(2018, 6, 9)], "x", {LAST: "old"}), Wait)


def test_changed_inputs_make_the_same_date_due_again(spec: ModelSpec) -> None:
    found = decision(spec, [LAST], "new", {LAST: "old"})
    assert isinstance(found, Train)
    assert "have changed" in found.reason
    assert isinstance(decision(spec, [LAST], "old", {LAST: "old"}), Wait)


def test_so_many_new_days_make_a_training_due(spec: ModelSpec) -> None:
    every_three = spec.model_copy(update={"training": TrainingSpec(cadence="monthly", new_days=3)})
    found = decision(every_three, [LAST + 3 * DAY], "x", {LAST: "old"})
    assert isinstance(found, Train)
    assert found.trigger == "new_days"
    assert isinstance(decision(every_three, [LAST + 2 * DAY], "x", {LAST: "old"}), Wait)


def scheduled(spec: ModelSpec, now: datetime, trained_at: datetime, newest: date = NEW) -> Train | Wait:
    at_two = TrainingSpec(schedule="0 2 * * 0", time_zone="Europe/Berlin")
    past = {LAST: Training("x", trained_at)}
    return decide(spec.model_copy(update={"training": at_two}), Seen(now, [newest], lambda _: "y", past))


def test_schedule_is_due_at_its_moment_in_its_time_zone_and_once(spec: ModelSpec) -> None:
    two_in_berlin = datetime(2018, 6, 10, 0, 0, tzinfo=UTC)  # a Sunday, summer time
    before = scheduled(spec, two_in_berlin - timedelta(seconds=1), two_in_berlin - 3 * DAY)
    assert isinstance(before, Wait)
    assert "2018-06-10 02:00 CEST" in before.reason
    after = scheduled(spec, two_in_berlin + timedelta(seconds=1), two_in_berlin - 3 * DAY)
    assert isinstance(after, Train)
    assert after.trigger == "schedule"
    again = scheduled(spec, two_in_berlin + timedelta(hours=1), two_in_berlin + timedelta(minutes=10))
    assert isinstance(again, Wait)


def test_hour_that_daylight_saving_leaves_out_or_repeats_trains_once(spec: ModelSpec) -> None:
    """In Berlin there was no 02:30 on 2018-03-25, and two of them on 2018-10-28."""
    training = TrainingSpec(schedule="30 2 * * *", time_zone="Europe/Berlin")
    daily = spec.model_copy(update={"training": training})
    for midnight in (datetime(2018, 3, 24, 23, tzinfo=UTC), datetime(2018, 10, 27, 22, tzinfo=UTC)):
        trained_at, trainings = midnight, 0
        for quarter in range(1, 4 * 12):
            now = midnight + quarter * timedelta(minutes=15)
            seen = Seen(now, [NEW], lambda _: "y", {LAST: Training("x", trained_at)})
            if isinstance(decide(daily, seen), Train):
                trained_at, trainings = now, trainings + 1
        assert trainings == 1, midnight


def test_schedule_waits_for_a_day_that_is_new(spec: ModelSpec) -> None:
    at_two = spec.model_copy(update={"training": TrainingSpec(schedule="0 2 * * 0")})
    found = decide(at_two, Seen(NOW, [LAST], lambda _: "x", {LAST: Training("x", NOW - 3 * DAY)}))
    assert type(found) is Wait
    assert "due since 2018-06-10 02:00 UTC; waits for a day after 2018-06-03" in found.reason


@pytest.mark.parametrize("wrong", [{"schedule": "at two"}, {"schedule": "0 0 2 * * 0"}, {"time_zone": "Mars/Base"}])
def test_schedule_that_is_none_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="is no"):
        TrainingSpec.model_validate(wrong)


# --- by alarm ---------------------------------------------------------------------------------------------------------


def test_alarm_asks_for_a_training_that_can_learn_from_it(spec: ModelSpec) -> None:
    found = alarmed(spec)
    assert isinstance(found, Train)
    assert found.trigger == "drift"
    assert "amounts are cents" in found.reason
    assert "2,000 labelled rows" in found.reason


def test_alarm_waits_for_labels_to_learn_from(spec: ModelSpec) -> None:
    found = alarmed(spec, rows_a_day=100)
    assert isinstance(found, AwaitLabels)
    assert "waits for 1,000 labelled rows of 2018-06-02 or after to fit on, has 400" in found.reason
    assert "not before the training as of 2018-06-07" in found.reason


def test_alarm_that_a_training_has_learned_from_asks_for_no_other(spec: ModelSpec) -> None:
    early = Alarm("drift", date(2018, 5, 20), "amounts are cents")
    found = alarmed(spec, alarms=lambda: [early])
    assert type(found) is Wait
    assert "knew of it" in found.reason


def test_cooldown_holds_an_alarm(spec: ModelSpec) -> None:
    found = alarmed(spec, trained_at=NOW - timedelta(hours=23))
    assert isinstance(found, Held)
    assert "2018-06-10 13:00 UTC" in found.reason
    assert isinstance(alarmed(spec, trained_at=NOW - timedelta(hours=24)), Train)


def test_budget_of_the_week_holds_an_alarm_until_it_is_free(spec: ModelSpec) -> None:
    def spent(*days_ago: int) -> Train | Wait:
        past = {NEW - (4 + n) * DAY: Training("x", NOW - ago * DAY) for n, ago in enumerate(days_ago)}
        return alarmed(spec, trained=past)

    held = spent(2, 4, 6)
    assert isinstance(held, Held)
    assert "2018-06-11 12:00 UTC" in held.reason
    assert isinstance(spent(2, 4, 7), Train)


def test_budget_of_nothing_holds_every_alarm(spec: ModelSpec) -> None:
    none = spec.model_copy(update={"monitoring": MonitoringSpec(max_retrains_per_week=0)})
    assert isinstance(alarmed(none), Held)


def test_cadence_is_held_by_neither(spec: ModelSpec) -> None:
    past = {LAST - n * DAY: Training("x", NOW - timedelta(minutes=n)) for n in range(5)}
    found = decide(spec, Seen(NOW, [NEW], lambda _: "y", past))
    assert isinstance(found, Train)
    assert found.trigger == "cadence"


def test_alarm_that_is_not_asked_for_trains_nothing(spec: ModelSpec) -> None:
    other = spec.model_copy(update={"monitoring": MonitoringSpec(retrain_on=("realised_performance",))})
    assert type(alarmed(other)) is Wait


def test_reason_is_part_of_a_request(spec: ModelSpec) -> None:
    by_drift, by_cadence = alarmed(spec), decision(spec, [NEW], "y", {LAST: "old"})
    assert isinstance(by_drift, Train)
    assert isinstance(by_cadence, Train)
    assert (by_drift.training_date, by_drift.inputs) == (by_cadence.training_date, by_cadence.inputs)
    assert by_drift.identity != by_cadence.identity


@given(st.integers(0, 3_000), st.integers(0, 20), st.integers(0, 10))
def test_decision_is_the_same_when_asked_again_and_trains_only_with_enough_to_learn(
    catalog: Catalog, rows: int, hours: int, ago: int
) -> None:
    spec = catalog.models["fraud_detection"]
    found = alarmed(spec, rows, NOW - timedelta(days=ago, hours=hours))
    assert found == alarmed(spec, rows, NOW - timedelta(days=ago, hours=hours))
    if isinstance(found, Train):
        assert rows * 4 >= spec.monitoring.min_labelled_rows
        assert ago >= 1


# --- what goes on -----------------------------------------------------------------------------------------------------


def test_alarm_goes_on_since_the_first_day_without_a_gap() -> None:
    def day(number: int, *triggers: str, version: str = "2") -> tuple[str, list[Alarm]]:
        return version, [Alarm(t, date(2018, 6, number), f"{t} {number}") for t in triggers]  # type: ignore[arg-type]

    found = ongoing([day(9, "drift", "realised_performance"), day(8, "drift"), day(7), day(6, "drift")])
    assert {one.trigger: one.since.day for one in found} == {"drift": 8, "realised_performance": 9}
    assert found[0].words == "drift 9", "what is said is the newest"
    assert ongoing([day(9), day(8, "drift")]) == [], "it is over"
    assert ongoing([day(9, "drift"), day(8, "drift", version="1")])[0].since.day == 9, "another version's"
    assert ongoing([]) == []


def test_no_more_days_are_read_than_an_alarm_lasts() -> None:
    read = []

    def days():
        for number in (9, 8, 7, 6):
            read.append(number)
            yield "1", [DRIFT] if number > 7 else []

    ongoing(days())
    assert read == [9, 8, 7]


def test_alarms_survive_being_written() -> None:
    assert from_json(to_json([DRIFT])) == [DRIFT]


def test_many_models_that_alarm_on_one_source_are_one_fault_and_no_training() -> None:
    models = [f"m{n}" for n in range(50)]
    sources = dict.fromkeys(models, "transactions") | {"other": "orders"}
    held = one_cause(dict.fromkeys(models, "drift") | {"other": "drift", "m0": "cadence"}, sources)
    assert held.keys() == set(models[1:])
    assert "49 models on transactions" in held["m1"]
    assert one_cause(dict.fromkeys(models, "cadence"), sources) == {}
    assert one_cause(dict.fromkeys(models[:3], "drift"), sources) == {}
