"""Monitoring as an asset: scored days in a lake, the training set that the version was judged on, and a registry."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from ml_platform.components.feature_view import compute_day
from ml_platform.components.graph import asset_key, daily
from ml_platform.components.monitoring import monitoring_asset
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec, TrainingSpec
from ml_platform.core.spec.monitoring import MonitoringSpec
from ml_platform.features.engine import Embedded
from ml_platform.monitoring.report import MonitoringReport
from ml_platform.registry.versions import Version
from ml_platform.resources.assembly import assembled
from ml_platform.resources.lake import Lake
from ml_platform_tests.components import test_predictions
from ml_platform_tests.components.test_predictions import Champion
from ml_platform_tests.conftest import NO_LOGS, lake_of
from ml_platform_tests.registry.test_bundle import make_bundle

MODEL = "fraud_detection"
KEY = keys.monitoring(MODEL)
TRAINED, FIRST, LAST = date(2018, 5, 10), date(2018, 5, 14), date(2018, 5, 23)


class Registered(Champion):
    """A registry whose champion can be found by its number, and that takes figures."""

    figures: Mapping[str, float] | None = None

    def find(self, _: str, number: str) -> Version | None:
        return self.version if self.version and self.version.number == number else None

    def log_figures(self, version: Version, figures: Mapping[str, float], day: date) -> None:
        self.figures = figures


@pytest.fixture(scope="module")
def spec(catalog: Catalog) -> ModelSpec:
    training = TrainingSpec(window_days=2, validation_days=6, embargo_days=0)
    # Of a small world's scores, which nobody trained, few are expected to be right.
    monitoring = MonitoringSpec(slices=("tx_amount",), performance_days=3, min_positives=5, share_change=0.2)
    return catalog.models[MODEL].model_copy(update={"training": training, "monitoring": monitoring})


@pytest.fixture(scope="module")
def registry(catalog: Catalog) -> Registered:
    return Registered(make_bundle(catalog))


@pytest.fixture(scope="module")
def lake(
    tmp_path_factory: pytest.TempPathFactory,
    catalog: Catalog,
    spec: ModelSpec,
    landed_files: list[tuple[str, date, pa.Table]],
    registry: Registered,
) -> Lake:
    """On the last day amounts come in cents of what they were."""
    files = [
        (source, day, broken(rows) if (source, day) == ("transactions", LAST) else rows)
        for source, day, rows in landed_files
    ]
    lake = lake_of(Settings(home=tmp_path_factory.mktemp("lake")), files)
    for view in catalog.snapshot_views(spec):
        for day in day_range(TRAINED - timedelta(days=15), LAST):
            compute_day(view, day, catalog, lake, Embedded())
    made = assembled(lake, Embedded(), catalog, spec, TRAINED)
    lake.write_table(keys.training_set(MODEL), TRAINED, made.table, [])
    scored = {
        "dagster/asset_partition_range_start": FIRST.isoformat(),
        "dagster/asset_partition_range_end": LAST.isoformat(),
    }
    test_predictions.materialize(catalog, lake, registry, scored)
    return lake


def broken(rows: pa.Table) -> pa.Table:
    position = rows.column_names.index("tx_amount")
    return rows.set_column(position, "tx_amount", pa.array(rows["tx_amount"].to_numpy() / 100))


def materialize(
    catalog: Catalog, spec: ModelSpec, lake: Lake, registry: Champion, first: date, last: date
) -> dg.ExecuteInProcessResult:
    given = {"lake": lake, "engine": Embedded(), "registry": registry}
    resources = {name: dg.ResourceDefinition.hardcoded_resource(one) for name, one in given.items()}
    days = {"dagster/partition": first.isoformat()}
    if first != last:
        days = {
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        }
    return dg.materialize([monitoring_asset(spec, catalog)], tags=days, resources=resources)


def report(lake: Lake, day: date) -> MonitoringReport:
    return MonitoringReport.from_json(lake.read_files(KEY, day)["report.json"])


def test_broken_unit_is_a_red_check_that_names_the_column_and_the_run_stays_green(
    catalog: Catalog, spec: ModelSpec, lake: Lake, registry: Registered
) -> None:
    result = materialize(catalog, spec, lake, registry, LAST, LAST)
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    drift = checks["features_have_not_drifted"]
    assert not drift.passed
    assert drift.severity == dg.AssetCheckSeverity.ERROR
    assert "tx_amount" in (drift.description or "")
    found = report(lake, LAST)
    drifted = {one.column for one in found.drifts if one.outcome == "alarm"}
    assert drifted == {"tx_amount"}, "what is computed of the days before has not moved"
    assert json.loads(found.to_json()) == json.loads(lake.read_files(KEY, LAST)["report.json"])
    assert registry.figures
    assert registry.figures["largest_drift_psi"] > 1


def test_range_has_a_report_a_day_and_sound_days_have_no_drift(
    catalog: Catalog, spec: ModelSpec, lake: Lake, registry: Registered
) -> None:
    before = LAST - timedelta(days=1)
    result = materialize(catalog, spec, lake, registry, before - timedelta(days=1), before)
    assert result.success
    for day in (before - timedelta(days=1), before):
        found = report(lake, day)
        assert found.checks["features_have_not_drifted"][0] == "ok", found.checks["features_have_not_drifted"]
        assert found.checks["traffic_is_usual"][0] == "ok"
        assert found.estimated_days == ((day - timedelta(days=2)).isoformat(), day.isoformat())
        # Labels take seven days, and no day before FIRST was scored.
        known = day - timedelta(days=7)
        assert found.realised_days == (max(FIRST, known - timedelta(days=2)).isoformat(), known.isoformat())
        assert found.realised[0].rows > 0
        assert any(one.rows_of.startswith("tx_amount in") for one in found.realised)


def test_what_cannot_be_judged_is_a_warning_and_never_passed(
    catalog: Catalog, spec: ModelSpec, lake: Lake, registry: Registered
) -> None:
    """Labels of the first scored day are not known before a week has gone by."""
    strict = spec.model_copy(update={"monitoring": MonitoringSpec(min_rows=100_000)})
    result = materialize(catalog, strict, lake, registry, FIRST, FIRST)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert "no_slice_performs_worse" not in checks
    for name in ("features_have_not_drifted", "scores_have_not_drifted", "realised_performance_holds"):
        assert not checks[name].passed
        assert checks[name].severity == dg.AssetCheckSeverity.WARN
        assert (checks[name].description or "").startswith("not enough data")
    assert report(lake, FIRST).realised_days is None


def test_nothing_is_watched_before_a_version_is_deployed(catalog: Catalog, spec: ModelSpec, lake: Lake) -> None:
    result = materialize(catalog, spec, lake, Champion(None), FIRST + timedelta(days=1), FIRST + timedelta(days=1))
    assert result.success
    assert not lake.manifest(KEY, FIRST + timedelta(days=1))


def test_day_is_watched_once_it_is_scored_whatever_labels_do(catalog: Catalog, spec: ModelSpec) -> None:
    asset = monitoring_asset(spec, catalog)
    scored, labels = asset_key(keys.predictions(MODEL)), asset_key(keys.raw("fraud_labels"))
    parents = [dg.AssetSpec(key, partitions_def=daily(FIRST)) for key in (scored, labels)]
    resources: dict[str, Any] = dict.fromkeys(("lake", "engine", "registry"), object())
    definitions = dg.Definitions(assets=[*parents, asset], resources=resources)
    with dg.instance_for_test(overrides=NO_LOGS) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(scored, partition=LAST.isoformat()))
        noon = datetime(LAST.year, LAST.month, LAST.day, 12, tzinfo=UTC)
        result = dg.evaluate_automation_conditions(definitions, instance, evaluation_time=noon)
        assert set(result.get_requested_partitions(asset_key(KEY))) == {LAST.isoformat()}
