# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LandingError
from ml_platform.core.settings import Settings
from ml_platform.examples.fraud.producer import from_folder, produce, simulated
from ml_platform.local.producer import Order, land
from ml_platform.resources.object_store import ObjectStore

WEEK = timedelta(days=7)


@pytest.fixture
def folder(tmp_path: Path, simulated: pa.Table) -> Path:
    """Daily files as in the handbook's data set: naive times, and columns that only hindsight knows."""
    for n in range(10):
        start, stop = (
            pa.scalar(date(2018, 4, 1 + n + k), pa.date32()).cast(pa.timestamp("us", tz="UTC")) for k in (0, 1)
        )
        times = simulated["tx_datetime"]
        day = simulated.filter(pa.compute.and_(pa.compute.greater_equal(times, start), pa.compute.less(times, stop)))
        naive = day["tx_datetime"].cast(pa.timestamp("us"))
        pq.write_table(day.set_column(1, "tx_datetime", naive), tmp_path / f"2018-04-{1 + n:02d}.parquet")
    return tmp_path


def test_folder_becomes_two_sources_and_the_label_is_split_off(folder: Path) -> None:
    files = from_folder(folder, None, None, WEEK)
    assert [day for source, day, _ in files if source == "fraud_labels"] == [date(2018, 4, d) for d in (1, 2, 3)]
    transactions = [table for source, _, table in files if source == "transactions"]
    assert len(transactions) == 10
    assert transactions[0].column_names == ["transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount"]


def test_range_is_respected_and_a_missing_day_named(folder: Path) -> None:
    assert len(from_folder(folder, date(2018, 4, 2), date(2018, 4, 4), WEEK)) == 3
    with pytest.raises(LandingError, match="has no file for 2018-04-11"):
        from_folder(folder, None, date(2018, 4, 12), WEEK)
    with pytest.raises(LandingError, match="no files named"):
        from_folder(folder / "nothing", None, None, WEEK)


def test_landed_files_lie_where_the_sensor_looks(s3_port: int, settings: Settings) -> None:
    store = ObjectStore.at(settings)
    files = simulated(9, 50, date(2018, 4, 1), 1, WEEK)
    assert len(list(land(files, store))) == 11
    keys = [found.key for found in store.objects("")]
    assert keys[0] == "fraud_labels/2018-04-01/fraud_labels.parquet"
    assert len(keys) == 11


def test_order_with_drift_has_it_on_its_last_days(catalog: Catalog) -> None:
    order = Order(days=10, size=200, drift="unit", drift_days=2)
    sound, drifting = (
        {day: rows for source, day, rows in produce(catalog, one) if source == "transactions"}
        for one in (replace(order, drift=""), order)
    )
    assert [day for day in sound if sound[day] != drifting[day]] == sorted(sound)[-2:]
    with pytest.raises(LandingError, match="is no kind of drift.*amounts, unit, labels"):
        produce(catalog, replace(order, drift="tides"))
