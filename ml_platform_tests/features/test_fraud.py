# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false, reportReturnType=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The fraud views against straightforward pandas, on simulated days."""

from datetime import date, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform_tests.features.computing import by_day, day_of

DAY = date(2018, 5, 20)


def snapshot(catalog: Catalog, view: str, files: list[tuple[str, date, pa.Table]], day: date = DAY) -> pd.DataFrame:
    spec = catalog.views[view]
    return day_of(spec, day, catalog.sources, by_day(files)).to_pandas().set_index(spec.entity)


@pytest.fixture(scope="session")
def history(simulated: pa.Table) -> pd.DataFrame:
    return simulated.to_pandas()


def within(history: pd.DataFrame, end: date, days: int) -> pd.DataFrame:
    stop = pd.Timestamp(start_of(end))
    return history[(history.tx_datetime < stop) & (history.tx_datetime >= stop - pd.Timedelta(days=days))]


def test_customer_activity_equals_pandas(catalog: Catalog, landed_files: list, history: pd.DataFrame) -> None:
    found = snapshot(catalog, "customer_activity", landed_files)
    expected = within(history, DAY, 30).groupby("customer_id").tx_amount
    assert list(found.index) == sorted(expected.groups)
    for days in (1, 7, 30):
        recent = within(history, DAY, days).groupby("customer_id").tx_amount
        pd.testing.assert_series_equal(
            found[f"customer_transactions_{days}d"],
            recent.count().reindex(found.index).fillna(0.0),
            check_names=False,
            check_dtype=False,
            check_index_type=False,
        )
        pd.testing.assert_series_equal(
            found[f"customer_mean_amount_{days}d"],
            recent.mean().reindex(found.index).fillna(0.0),
            check_names=False,
            rtol=1e-9,
            check_index_type=False,
        )
    pd.testing.assert_series_equal(
        found["customer_std_amount_30d"],
        expected.std(ddof=0),
        check_names=False,
        rtol=1e-9,
        atol=1e-9,
        check_index_type=False,
    )


def test_terminal_risk_counts_only_frauds_whose_labels_are_known(
    catalog: Catalog, landed_files: list, history: pd.DataFrame
) -> None:
    found = snapshot(catalog, "terminal_risk", landed_files)
    known_until = DAY - timedelta(days=7)
    for days in (1, 7, 30):
        share = within(history, known_until, days).groupby("terminal_id").tx_fraud.mean()
        pd.testing.assert_series_equal(
            found[f"terminal_fraud_share_{days}d"],
            share.reindex(found.index).fillna(0.0),
            check_names=False,
            rtol=1e-9,
            check_index_type=False,
        )
    assert found["terminal_frauds_30d"].sum() == within(history, known_until, 30).tx_fraud.sum() > 0


def test_labels_younger_than_their_delay_change_nothing(catalog: Catalog, landed_files: list) -> None:
    """Even a producer that is early cannot leak: the view does not read days that are not known yet."""
    early = [
        (source, day, table if source != "fraud_labels" or day < DAY - timedelta(days=7) else _all_fraud(table))
        for source, day, table in landed_files
    ]
    pd.testing.assert_frame_equal(
        snapshot(catalog, "terminal_risk", landed_files), snapshot(catalog, "terminal_risk", early)
    )


def _all_fraud(table: pa.Table) -> pa.Table:
    return table.set_column(2, "is_fraud", pc.cast(pc.add(pc.multiply(table["is_fraud"], 0), 1), pa.int8()))


def test_first_days_without_any_known_label_have_the_defaults(catalog: Catalog, landed_files: list) -> None:
    found = snapshot(catalog, "terminal_risk", landed_files, date(2018, 4, 5))
    assert len(found) > 0
    assert (found["terminal_fraud_share_30d"] == 0).all()
    assert (found["terminal_days_since_fraud"] == 60).all()
