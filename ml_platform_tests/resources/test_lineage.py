"""The retrain decision from what the lake holds: past trainings, alarms of monitored days, and labels to learn from."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec, TrainingSpec
from ml_platform.core.spec.monitoring import MonitoringSpec
from ml_platform.monitoring.retrain import Alarm, AwaitLabels, Held, Train, to_json
from ml_platform.resources import lineage
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import ALARMS, ongoing_alarms, training_decision
from ml_platform.training.overrides import OVERRIDES

MODEL, SINCE = "fraud_detection", date(2018, 5, 1)
ROWS = pa.table({"n": list(range(100))})
# Rows are fitted on from 7 days of labels, 2 of validation and 1 of embargo after their own day on.
TRAINING = TrainingSpec(window_days=5, validation_days=2, embargo_days=1, cadence="monthly")


@pytest.fixture
def spec(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """Complete inputs, and five days' worth of labels to wait for."""
    monkeypatch.setattr(lineage, "training_fingerprint", lambda *_: "inputs")
    watched = MonitoringSpec(min_labelled_rows=500)
    return catalog.models[MODEL].model_copy(update={"training": TRAINING, "monitoring": watched})


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """Trained as of the day before the drift, a fortnight ago; monitored from then on."""
    lake = Lake.at(settings)
    now = lake.clock()
    lake.clock = lambda: now - timedelta(days=14)
    tags = {"inputs_fingerprint": "before"}
    lake.write_table(keys.training_set(MODEL), SINCE - ONE_DAY, ROWS, [], tags)
    lake.clock = lambda: now
    return lake


def land(lake: Lake, last: date) -> None:
    for day in day_range(SINCE - 3 * ONE_DAY, last):
        lake.write_table(keys.raw("transactions"), day, ROWS, [])
        alarms = [Alarm("drift", day, "amounts are cents")] if day >= SINCE else []
        lake.write_files(
            keys.monitoring(MODEL), day, {"report.json": b"{}"}, [], {"version": "1", ALARMS: to_json(alarms)}
        )
        if (known := day - timedelta(days=7)) >= SINCE - 3 * ONE_DAY:
            lake.write_table(keys.raw("fraud_labels"), known, ROWS, [])


def test_alarm_lasts_since_the_first_day_that_had_it(lake: Lake) -> None:
    assert ongoing_alarms(lake, MODEL) == []
    land(lake, SINCE + 4 * ONE_DAY)
    assert ongoing_alarms(lake, MODEL) == [Alarm("drift", SINCE, "amounts are cents")]


def test_drift_is_trained_on_when_enough_of_its_labels_can_be_fitted_on(
    lake: Lake, catalog: Catalog, spec: ModelSpec
) -> None:
    first = SINCE + timedelta(days=7 + 2 + 1 + 1)  # as of which a row of the first day is fitted on
    land(lake, first + 3 * ONE_DAY - ONE_DAY)  # four days of five
    waits = training_decision(lake, catalog, spec)
    assert isinstance(waits, AwaitLabels)
    assert "has 400" in waits.reason
    assert f"not before the training as of {first}" in waits.reason
    land(lake, first + 4 * ONE_DAY - ONE_DAY)
    due = training_decision(lake, catalog, spec)
    assert isinstance(due, Train)
    assert (due.trigger, due.training_date) == ("drift", first + 4 * ONE_DAY)
    lake.write_table(keys.training_set(MODEL), SINCE, ROWS, [], {"inputs_fingerprint": "again"})
    assert isinstance(training_decision(lake, catalog, spec), Held), "that was a moment ago"


def test_training_with_overrides_makes_none_the_less_due(lake: Lake, catalog: Catalog, spec: ModelSpec) -> None:
    newest = SINCE + timedelta(days=40)
    land(lake, newest - ONE_DAY)
    due = training_decision(lake, catalog, spec)
    assert isinstance(due, Train)
    assert (due.trigger, due.training_date) == ("cadence", newest)
    lake.write_table(keys.training_set(MODEL), newest, ROWS, [], {OVERRIDES: '{"training.seed": 3}'})
    assert training_decision(lake, catalog, spec) == due
    lake.write_table(keys.training_set(MODEL), newest, ROWS, [], {"inputs_fingerprint": "inputs"})
    assert not isinstance(training_decision(lake, catalog, spec), Train)
