# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Days of a feature view: judged before they are written, computed again only where something is new."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import dagster as dg
import ibis.expr.types as ir
import pyarrow as pa
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ml_platform.components.feature_view import compute_day, view_asset
from ml_platform.components.graph import asset_key, daily
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.examples.fraud import features as fraud
from ml_platform.features.engine import Embedded
from ml_platform.features.views import ViewInput
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import view_is_current
from ml_platform_tests.conftest import NO_LOGS, lake_of

VIEW = "customer_activity"
KEY = keys.feature_view(VIEW)
DAY = date(2018, 5, 20)
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def with_total(transactions: ViewInput) -> ir.Table:
    """The view with a feature more."""
    rows = fraud.customer_activity(transactions)
    return rows.mutate(customer_total_30d=rows.customer_transactions_30d * rows.customer_mean_amount_30d)


def in_cents(transactions: ViewInput) -> ir.Table:
    """The same features, one of which means something else."""
    rows = fraud.customer_activity(transactions)
    return rows.mutate(customer_mean_amount_30d=rows.customer_mean_amount_30d * 100)


def forgetful(transactions: ViewInput) -> ir.Table:
    """The view without the customers of whom it knows only one transaction of the last day."""
    return fraud.customer_activity(replace(transactions, table=transactions.table.filter(~transactions.since(1))))


@pytest.fixture
def lake(settings: Settings, landed_files: list[tuple[str, date, pa.Table]]) -> Lake:
    """A lake with 60 raw days."""
    return lake_of(settings, landed_files)


def changed(catalog: Catalog, function: str | None = None, **features: Mapping[str, Any] | None) -> Catalog:
    """The catalog with the view as changed; a feature that is None is left out."""
    given: dict[str, Any] = catalog.views[VIEW].model_dump(exclude_defaults=True) | {"name": VIEW}
    if function:
        given["function"] = f"{__name__}.{function}"
    given["features"] = {n: f for n, f in {**given["features"], **features}.items() if f is not None}
    return replace(catalog, views={**catalog.views, VIEW: FeatureViewSpec.model_validate(given)})


def make(catalog: Catalog, lake: Lake, day: date = DAY) -> tuple[Any, dict[str, bool]]:
    outcome = compute_day(catalog.views[VIEW], day, catalog, lake, Embedded())
    return outcome, {check.name: check.passed for check in outcome.checks}


def test_sound_day_passes_every_check_and_says_by_what_it_was_judged(catalog: Catalog, lake: Lake) -> None:
    outcome, checks = make(catalog, lake)
    assert all(checks.values())
    assert len(checks) == 6
    assert outcome.metadata["raw_days"] == "transactions: 2018-04-20 to 2018-05-19"


def test_day_computed_again_from_the_same_inputs_stays_the_very_partition_that_it_was(
    catalog: Catalog, lake: Lake
) -> None:
    first, _ = make(catalog, lake)
    before = lake.require(KEY, DAY)
    again, _ = make(catalog, lake)
    assert lake.require(KEY, DAY) == before
    assert not first.unchanged
    assert again.unchanged


def test_new_feature_is_backfilled_agrees_with_the_old_ones_and_only_then_counts_as_current(
    catalog: Catalog, lake: Lake
) -> None:
    days = list(day_range(DAY - timedelta(days=3), DAY))
    for day in days:
        make(catalog, lake, day)
    wider = changed(catalog, "with_total", customer_total_30d={})
    view = wider.views[VIEW]
    assert not view_is_current(lake.manifest, wider, view, DAY)
    tags = {RANGE_START: days[0].isoformat(), RANGE_END: days[-1].isoformat()}
    given = {"lake": lake, "engine": Embedded()}
    resources = {name: dg.ResourceDefinition.hardcoded_resource(one) for name, one in given.items()}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([view_asset(view, wider)], tags=tags, resources=resources, instance=instance)
        (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "same_inputs_give_same_values"][
            -1:
        ]
    assert result.success
    assert check.passed
    assert all(view_is_current(lake.manifest, wider, view, day) for day in days)
    row = lake.read_table(KEY, [DAY]).to_pylist()[0]
    assert row["customer_total_30d"] == pytest.approx(
        row["customer_transactions_30d"] * row["customer_mean_amount_30d"]
    )


def test_feature_that_changes_its_meaning_is_a_warning(catalog: Catalog, lake: Lake) -> None:
    make(catalog, lake)
    outcome, checks = make(changed(catalog, "in_cents"), lake)
    assert [name for name, passed in checks.items() if not passed] == ["same_inputs_give_same_values"]
    assert not outcome.broken
    assert outcome.metadata
    (words,) = [check.description for check in outcome.checks if not check.passed]
    assert words.startswith("customer_mean_amount_30d differs in ")


def test_day_with_a_value_out_of_range_is_not_written_and_the_old_one_stays(catalog: Catalog, lake: Lake) -> None:
    make(catalog, lake)
    before = lake.require(KEY, DAY)
    outcome, checks = make(changed(catalog, customer_transactions_30d={"max": 2}), lake)
    assert [name for name, passed in checks.items() if not passed] == ["values_are_in_range"]
    assert outcome.metadata is None
    assert outcome.broken
    assert lake.require(KEY, DAY) == before


def test_day_with_too_many_defaults_is_not_written(catalog: Catalog, lake: Lake) -> None:
    outcome, _ = make(changed(catalog, customer_mean_amount_1d={"max_null_share": 0.01}), lake)
    assert [check.name for check in outcome.broken] == ["nulls_are_within_limits"]
    assert lake.manifest(KEY, DAY) is None


def test_view_that_forgets_the_newest_entities_is_a_warning(catalog: Catalog, lake: Lake) -> None:
    rows = lake.read_table(keys.raw("transactions"), [DAY - timedelta(days=1)])
    stranger = pa.array([10**6] * rows.num_rows, pa.int32())
    position = rows.schema.get_field_index("customer_id")
    lake.write_table(
        keys.raw("transactions"), DAY - timedelta(days=1), rows.set_column(position, "customer_id", stranger), []
    )
    assert make(catalog, lake)[1]["entities_are_covered"]
    outcome, checks = make(changed(catalog, "forgetful"), lake)
    assert not checks["entities_are_covered"]
    assert outcome.metadata


def test_distribution_is_held_against_the_week_before_once_windows_are_full(catalog: Catalog, lake: Lake) -> None:
    for day in day_range(DAY - timedelta(days=7), DAY - timedelta(days=1)):
        outcome, checks = make(catalog, lake, day)
        assert checks["distribution_is_normal"]
        (words,) = [check.description for check in outcome.checks if check.name == "distribution_is_normal"]
        assert words.startswith("not judged")
    yesterday = DAY - timedelta(days=1)
    rows = lake.read_table(keys.raw("transactions"), [yesterday])
    assert make(catalog, lake)[1]["distribution_is_normal"]
    lake.write_table(keys.raw("transactions"), yesterday, rows.slice(0, 3), [])
    outcome, checks = make(catalog, lake)
    assert not checks["distribution_is_normal"]
    assert outcome.metadata


def test_raw_day_that_changes_asks_for_exactly_the_days_that_read_it(catalog: Catalog) -> None:
    """Fifty days are made; then the tenth is overwritten with other content, and the eleventh with the same."""
    view, first = catalog.views[VIEW], date(2018, 4, 1)
    raw, features = asset_key(keys.raw("transactions")), asset_key(KEY)
    days = [day.isoformat() for day in day_range(first, first + timedelta(days=49))]

    def event(key: dg.AssetKey, day: str, version: str) -> dg.AssetMaterialization:
        return dg.AssetMaterialization(key, partition=day, tags={DATA_VERSION_TAG: version})

    assets = [dg.AssetSpec(raw, partitions_def=daily(first)), view_asset(view, catalog)]
    definitions = dg.Definitions(assets=assets, resources={"lake": object(), "engine": object()})
    with dg.instance_for_test(overrides=NO_LOGS) as instance:
        for day in days:
            instance.report_runless_asset_event(event(raw, day, "one"))
        for day in days[1:]:
            instance.report_runless_asset_event(event(features, day, "one"))
        before = dg.evaluate_automation_conditions(definitions, instance)
        instance.report_runless_asset_event(event(raw, days[9], "two"))
        instance.report_runless_asset_event(event(raw, days[10], "one"))
        after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert sorted(filter(None, after.get_requested_partitions(features))) == days[10:40]
