# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""A day as a whole, on simulated cards: each kind of drift is found by what it is, and days without any are left alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.spec import ModelSpec
from ml_platform.core.spec.monitoring import MonitoringSpec
from ml_platform.examples.fraud.simulate import Drift, Population, drifted, simulate
from ml_platform.monitoring.report import MonitoringReport, Scored, Watched, monitored
from ml_platform.training.training_set import LABEL

FIRST, CUSTOMERS = date(2018, 4, 1), 1_000
SINCE = FIRST + timedelta(days=40)
LAST = FIRST + timedelta(days=54)
WATCHED = Watched(["tx_amount", "times_usual"], ["tx_amount"], {})


@dataclass(frozen=True)
class World:
    """Cards with what each usually spends, and a model of that."""

    rows: Scored

    def of_days(self, first: date, last: date) -> Scored:
        return self.rows.of((self.rows.days >= first.toordinal()) & (self.rows.days <= last.toordinal()))


def world(kind: Drift | None, seed: int = 5) -> World:
    table = simulate(Population.scaled(CUSTOMERS), (LAST - FIRST).days + 1, FIRST, seed)
    table = drifted(table, kind, SINCE, seed) if kind else table
    amount, customer = table["tx_amount"].to_numpy(), table["customer_id"].to_numpy()
    label = table["tx_fraud"].to_numpy().astype(np.int64)
    days = table["tx_datetime"].to_numpy().astype("datetime64[D]").astype(np.int64) + date(1970, 1, 1).toordinal()
    past = days < FIRST.toordinal() + 14
    spent = np.bincount(customer[past], amount[past], CUSTOMERS)
    spent /= np.maximum(np.bincount(customer[past], minlength=CUSTOMERS), 1)
    times = amount / np.maximum(spent[customer], 1.0)
    x = np.column_stack([np.log1p(amount), np.log1p(times), times > 3])
    fitted = (days >= FIRST.toordinal() + 14) & (days < FIRST.toordinal() + 28)
    scores = LogisticRegression(max_iter=1_000).fit(x[fitted], label[fitted]).predict_proba(x)[:, 1]
    return World(Scored({"tx_amount": amount, "times_usual": times, LABEL: label}, scores, days))


def reports(spec: ModelSpec, one: World, days: Sequence[date]) -> list[MonitoringReport]:
    reference = one.of_days(FIRST + timedelta(days=28), FIRST + timedelta(days=34))
    week = timedelta(days=6)
    made = []
    for day in days:
        known = day - timedelta(days=7)
        recent, mature = one.of_days(day - week, day), one.of_days(max(known - week, FIRST + 2 * week), known)
        made.append(monitored(spec, day, ("1", "2018-05-06"), WATCHED, reference, recent, mature))
    return made


def alarms(report: MonitoringReport) -> set[str]:
    return {name for name, (outcome, _) in report.checks.items() if outcome == "alarm"}


@pytest.fixture(scope="module")
def spec(catalog: Catalog) -> ModelSpec:
    return catalog.models["fraud_detection"].model_copy(update={"monitoring": MonitoringSpec(metric="roc_auc")})


def test_days_without_drift_are_left_alone(spec: ModelSpec) -> None:
    found = [alarms(one) for one in reports(spec, world(None), list(day_range(FIRST + timedelta(days=35), LAST)))]
    assert len(found) == 20
    assert sum(bool(one) for one in found) <= 1, found


@pytest.mark.parametrize("kind", ["amounts", "unit"])
def test_amounts_that_move_are_found_on_the_first_day_and_named(spec: ModelSpec, kind: Drift) -> None:
    drifting = world(kind)
    (before, first) = reports(spec, drifting, [SINCE - timedelta(days=1), SINCE])
    assert "features_have_not_drifted" not in alarms(before)
    assert "features_have_not_drifted" in alarms(first)
    assert "tx_amount" in first.checks["features_have_not_drifted"][1]
    assert [(one.trigger, one.since) for one in first.alarms if one.trigger == "drift"] == [("drift", SINCE)]


def test_frauds_that_are_more_frequent_are_found_once_their_labels_are_there(spec: ModelSpec) -> None:
    """No feature says so: a few rows in a hundred are others."""
    drifting = world("labels")
    unlabelled, labelled = reports(spec, drifting, [SINCE + timedelta(days=1), LAST])
    assert "labels_are_as_frequent" not in alarms(unlabelled)
    assert "labels_are_as_frequent" in alarms(labelled)
    assert "features_have_not_drifted" not in alarms(labelled)


def test_estimate_before_labels_is_near_what_they_say_later(spec: ModelSpec) -> None:
    one = world(None)
    (before,) = reports(spec, one, [SINCE])
    (after,) = reports(spec, one, [SINCE + timedelta(days=7)])
    estimated, realised = before.estimated[0], after.realised[0]
    assert before.estimated_days == after.realised_days, "the same rows"
    assert estimated.low is not None
    assert estimated.high is not None
    assert realised.value is not None
    assert estimated.low < realised.value < estimated.high


def test_report_survives_being_written(spec: ModelSpec) -> None:
    (made,) = reports(spec, world("unit"), [SINCE])
    assert MonitoringReport.from_json(made.to_json()) == made


def test_version_without_reference_is_judged_by_nothing(spec: ModelSpec) -> None:
    one = world(None)
    none = one.of_days(FIRST - timedelta(days=1), FIRST - timedelta(days=1))
    found = monitored(spec, SINCE, ("1", "2018-05-06"), WATCHED, none, one.of_days(SINCE, SINCE), none)
    assert {outcome for outcome, _ in found.checks.values()} == {"not_enough_data"}
