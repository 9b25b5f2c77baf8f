# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Bad files: the partition is not written, the check says why, the landed object stays, and other days go on."""

import io
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ml_platform.components.feature_view import compute_day
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import FeatureError
from ml_platform.core.spec import ViewInputSpec
from ml_platform.features.engine import Embedded
from ml_platform.local.producer import DailyTable
from ml_platform.resources.ledger import accounts_of
from ml_platform_tests.scenarios.conftest import Platform


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def unreadable(table: pa.Table) -> bytes:
    return parquet(table)[:-100]


def missing_column(table: pa.Table) -> bytes:
    return parquet(table.drop_columns(["tx_amount"]))


def wrong_type(table: pa.Table) -> bytes:
    return parquet(table.set_column(4, "tx_amount", pc.cast(table["tx_amount"], pa.string())))


def duplicate_id(table: pa.Table) -> bytes:
    return parquet(pa.concat_tables([table, table.slice(0, 1)]))


def other_day(table: pa.Table) -> bytes:
    times = pc.add(table["tx_datetime"], pa.scalar(timedelta(days=1)))
    return parquet(
        pa.concat_tables(
            [table.slice(1), table.set_column(1, "tx_datetime", times.cast(pa.timestamp("us", tz="UTC"))).slice(0, 1)]
        )
    )


BAD: list[tuple[Callable[[pa.Table], bytes], str]] = [
    (unreadable, "objects_are_readable"),
    (missing_column, "schema_conforms"),
    (wrong_type, "schema_conforms"),
    (duplicate_id, "keys_are_unique"),
    (other_day, "event_times_are_in_partition"),
]


@pytest.fixture(scope="module")
def week(platform: Platform, demo_files: list[DailyTable]) -> Platform:
    """Seven days land at once; days 2 to 6 are bad, each in its own way."""
    transactions = [file for file in demo_files if file[0] == "transactions"][:7]
    platform.land([transactions[0], transactions[6]])
    for (make_bad, _), (_, day, table) in zip(BAD, transactions[1:6], strict=True):
        platform.landing.write(f"transactions/{day}/transactions.parquet", make_bad(table))
    (result,) = [platform.run(request) for request in platform.arrivals()]
    assert not result.success
    return platform


def test_good_days_of_the_same_run_are_there_and_recorded(week: Platform) -> None:
    assert week.lake.days("transactions/raw") == [date(2018, 4, 1), date(2018, 4, 7)]
    assert week.instance.get_materialized_partitions(dg.AssetKey(["transactions", "raw"])) == {
        "2018-04-01",
        "2018-04-07",
    }
    assert set(week.checks("transactions/raw", date(2018, 4, 7)).values()) == {True}


@pytest.mark.parametrize(("number", "check"), [(n, check) for n, (_, check) in enumerate(BAD)])
def test_bad_day_is_not_written_and_its_check_is_red_with_reason_and_sample(
    week: Platform, number: int, check: str
) -> None:
    day = date(2018, 4, 2 + number)
    assert week.lake.manifest("transactions/raw", day) is None
    assert not list((week.settings.home / "lake" / "transactions" / "raw").rglob(f"date={day}/*"))
    assert week.checks("transactions/raw", day)[check] is False
    assert week.checks("transactions/raw", day)["every_object_is_accounted_for"] is True
    assert [o.key for o in week.landing.objects(f"transactions/{day}/")] == [f"transactions/{day}/transactions.parquet"]
    evaluation = latest(week, check, day)
    assert evaluation.description
    assert evaluation.metadata["offending"].value >= 1
    assert "|" in evaluation.metadata["sample"].value


@pytest.mark.parametrize("number", range(len(BAD)))
def test_objects_of_a_bad_day_are_kept_whole_with_the_reason(week: Platform, number: int) -> None:
    day = date(2018, 4, 2 + number)
    (landed,) = week.landing.objects(f"transactions/{day}/")
    assert list(week.lake.read_files("quarantine/transactions", day).values()) == [week.landing.read(landed.key)]
    (account,) = accounts_of(week.lake, "transactions", day)
    assert (account.object, account.etag) == (landed.key, landed.etag)
    assert account.held.startswith(BAD[number][1])


def latest(platform: Platform, check: str, day: date) -> Any:
    """Dagster's record of the check's latest evaluation."""
    key = dg.AssetCheckKey(dg.AssetKey(["transactions", "raw"]), check)
    history = platform.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    event = next(r.event for r in history if r.partition == day.isoformat() and r.event)
    assert event.dagster_event
    return event.dagster_event.event_specific_data


def test_mended_file_is_noticed_and_makes_its_day(week: Platform, demo_files: list[DailyTable]) -> None:
    _, day, table = [file for file in demo_files if file[0] == "transactions"][1]
    week.landing.write(f"transactions/{day}/transactions.parquet", parquet(table))
    (request,) = week.arrivals()
    assert request.partition_key == day.isoformat()
    assert week.run(request).success
    assert set(week.checks("transactions/raw", day).values()) == {True}
    assert week.lake.manifest("quarantine/transactions", day) is None


def test_days_that_were_judged_without_it_are_judged_again_and_start_nothing(week: Platform) -> None:
    """Keys are unique within seven days, so the days after the mended one looked back on nothing."""
    before = week.lake.require("transactions/raw", date(2018, 4, 7))
    requests = {request.partition_key: request for request in week.arrivals()}
    assert set(requests) == {"2018-04-05", "2018-04-07"}, "the others are bad, whatever other days hold"
    assert not week.run(requests["2018-04-05"]).success
    assert week.run(requests["2018-04-07"]).success
    after = week.lake.require("transactions/raw", date(2018, 4, 7))
    assert after.content_hash == before.content_hash
    assert after.inputs != before.inputs
    assert week.arrivals() == []


def test_bad_overwrite_leaves_the_old_partition_in_force(week: Platform, demo_files: list[DailyTable]) -> None:
    day = date(2018, 4, 1)
    before = week.lake.require("transactions/raw", day)
    week.landing.write(f"transactions/{day}/transactions.parquet", b"<html>503</html>")
    (request,) = week.arrivals()
    assert not week.run(request).success
    assert week.lake.require("transactions/raw", day) == before
    assert week.checks("transactions/raw", day)["objects_are_readable"] is False


def test_few_bad_values_are_set_aside_and_the_day_goes_on_as_degraded(
    week: Platform, demo_files: list[DailyTable]
) -> None:
    _, day, table = [file for file in demo_files if file[0] == "transactions"][1]
    amounts = pc.if_else(pc.equal(table["transaction_id"], pc.min(table["transaction_id"])), -1.0, table["tx_amount"])
    week.landing.write(f"transactions/{day}/transactions.parquet", parquet(table.set_column(4, "tx_amount", amounts)))
    (request,) = week.arrivals()
    assert week.run(request).success
    manifest = week.lake.require("transactions/raw", day)
    assert (manifest.rows, manifest.tags["quality"]) == (table.num_rows - 1, "degraded")
    checks = week.checks("transactions/raw", day)
    assert [check for check, passed in checks.items() if not passed] == ["values_are_allowed"]
    assert latest(week, "values_are_allowed", day).severity == dg.AssetCheckSeverity.WARN
    quarantined = pq.read_table(io.BytesIO(week.lake.read_files("quarantine/transactions", day)["rows.parquet"]))
    assert quarantined["tx_amount"].to_pylist() == ["-1"]


def test_range_with_a_degraded_day_is_a_green_run(week: Platform, demo_files: list[DailyTable]) -> None:
    week.land([file for file in demo_files if file[0] == "transactions"][:1])
    days = {"dagster/asset_partition_range_start": "2018-04-01", "dagster/asset_partition_range_end": "2018-04-02"}
    assert week.materialize([dg.AssetKey(["transactions", "raw"])], tags=days).success
    assert week.checks("transactions/raw", date(2018, 4, 1))["values_are_allowed"] is True
    assert week.checks("transactions/raw", date(2018, 4, 2))["values_are_allowed"] is False


def test_view_that_wants_good_days_refuses_a_degraded_one(week: Platform, catalog: Catalog) -> None:
    view = catalog.views["customer_activity"]
    wants_good = ViewInputSpec(window_days=30, quality="good")
    strict = view.model_copy(update={"inputs": {"transactions": wants_good}})
    with pytest.raises(
        FeatureError, match=r"transactions/raw \[2018-04-02\] is degraded.*quarantine show transactions"
    ):
        compute_day(strict, date(2018, 4, 3), catalog, week.lake, Embedded())
    assert compute_day(view, date(2018, 4, 3), catalog, week.lake, Embedded()).metadata


def test_object_that_is_not_read_is_a_warning_beside_good_rows_also_when_it_comes_later(week: Platform) -> None:
    day = date(2018, 4, 7)
    before = week.lake.require("transactions/raw", day)
    week.landing.write(f"transactions/{day}/hour=05/p.csv", b"transaction_id\n1\n")
    week.landing.write(f"transactions/{day}/_SUCCESS", b"")
    (request,) = [request for request in week.arrivals() if request.partition_key == day.isoformat()]
    assert week.run(request).success
    manifest = week.lake.require("transactions/raw", day)
    assert (manifest.content_hash, manifest.tags["quality"]) == (before.content_hash, "degraded")
    assert week.checks("transactions/raw", day)["everything_is_recognised"] is False
    assert week.checks("transactions/raw", day)["every_object_is_accounted_for"] is True
    evaluation = latest(week, "everything_is_recognised", day)
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert "hour=05/p.csv: lies in a folder within the day's" in evaluation.description
    stray = accounts_of(week.lake, "transactions", day)[-1]
    assert (stray.object, stray.bytes) == (f"transactions/{day}/hour=05/p.csv", 17)
    week.landing.client.delete_object(
        Bucket=week.landing.bucket, Key=f"{week.landing.prefix}transactions/{day}/hour=05/p.csv"
    )
    (request,) = [request for request in week.arrivals() if request.partition_key == day.isoformat()]
    assert week.run(request).success
    assert week.checks("transactions/raw", day)["everything_is_recognised"] is True


def test_day_whose_only_object_is_not_read_is_red_and_not_asked_for_again(week: Platform) -> None:
    day = date(2018, 4, 20)
    week.landing.write(f"transactions/{day}/transactions.xlsx", b"PK")
    (request,) = [request for request in week.arrivals() if request.partition_key == day.isoformat()]
    assert not week.run(request).success
    assert week.checks("transactions/raw", day)["everything_is_recognised"] is False
    assert [(one.object[-5:], one.bytes) for one in accounts_of(week.lake, "transactions", day)] == [(".xlsx", 2)]
    assert [request for request in week.arrivals() if request.partition_key == day.isoformat()] == []


def test_failed_check_is_not_tried_again(week: Platform) -> None:
    for request in week.arrivals():  # days that look back on the changed ones
        week.run(request)
    assert week.arrivals() == []
