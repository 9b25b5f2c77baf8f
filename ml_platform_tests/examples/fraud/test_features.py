# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false, reportReturnType=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The fraud views against straightforward pandas, on simulated days."""

import itertools
from datetime import date, datetime, timedelta

import numpy as np
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


# --- against a plain loop over small histories --------------------------------------------------------------------------


def days_before(moment: datetime, time: datetime) -> float:
    return (moment - time) / timedelta(days=1)


def test_unusual_amounts_and_the_newest_one_are_what_a_plain_loop_finds(
    catalog: Catalog, landed_files: list, history: pd.DataFrame
) -> None:
    found, end = snapshot(catalog, "customer_activity", landed_files), start_of(DAY)
    seen = 0
    for customer, rows in within(history, DAY, 30).groupby("customer_id"):
        median, row = rows.tx_amount.median(), found.loc[customer]
        large = rows[rows.tx_amount > 3 * median]
        assert row.customer_median_amount_30d == pytest.approx(median)
        assert row.customer_last_amount in set(rows[rows.tx_datetime == rows.tx_datetime.max()].tx_amount)
        for days in (3, 7, 14):
            recent = large[large.tx_datetime >= pd.Timestamp(end) - pd.Timedelta(days=days)]
            assert row[f"customer_large_amounts_{days}d"] == len(recent)
        since = days_before(end, large.tx_datetime.max()) if len(large) else 60
        assert row.customer_days_since_large == pytest.approx(since)
        seen += len(large) > 0
    assert seen > 10


def test_run_of_frauds_and_last_labels_of_a_terminal_are_what_a_plain_loop_finds(
    catalog: Catalog, landed_files: list, history: pd.DataFrame
) -> None:
    found, end = snapshot(catalog, "terminal_risk", landed_files), start_of(DAY)
    known = within(history, DAY - timedelta(days=7), 30).sort_values(["tx_datetime", "transaction_id"])
    runs = 0
    for terminal, rows in known.groupby("terminal_id"):
        newest_first = list(zip(rows.tx_fraud, rows.tx_datetime, strict=True))[::-1]
        run = list(itertools.takewhile(lambda one: one[0] == 1, newest_first))
        row = found.loc[terminal]
        assert row.terminal_last_labels_fraud_share == pytest.approx(np.mean([fraud for fraud, _ in newest_first[:5]]))
        assert row.terminal_fraud_run == len(run)
        assert row.terminal_fraud_run_days == pytest.approx(days_before(end, run[-1][1]) if run else 60)
        runs += len(run) > 1
    assert runs > 3


def test_bursts_are_what_a_plain_loop_finds_strictly_before_each_transaction(
    catalog: Catalog, landed_files: list, history: pd.DataFrame
) -> None:
    rows = day_of(catalog.views["customer_bursts"], DAY, catalog.sources, by_day(landed_files)).to_pandas()
    history = history.set_index("transaction_id")
    of_customer = dict(list(history.groupby("customer_id")))
    seen = 0
    for _, row in rows.iloc[::7].iterrows():
        now, mine = row.tx_datetime, of_customer[history.loc[row.transaction_id].customer_id]
        recent = before(mine, now, 30)
        assert row.customer_before_transactions_1d == len(before(mine, now, 1))
        assert row.customer_before_transactions_7d == len(before(mine, now, 7))
        assert row.customer_before_transactions_30d == len(recent)
        assert row.customer_before_amount_1d == pytest.approx(before(mine, now, 1).tx_amount.sum())
        if len(recent):
            assert row.customer_before_median_30d == pytest.approx(recent.tx_amount.median())
            assert row.customer_hours_since_last == pytest.approx(hours(now - recent.tx_datetime.max()))
        else:
            assert row.customer_hours_since_last == 720
        times_median = pd.Series({n: times_its_median(mine, one) for n, one in recent.iterrows()}, dtype=float)
        usual = recent.tx_amount[~(times_median > 3)]
        assert row.customer_usual_mean_30d == pytest.approx(usual.mean() if len(usual) else 0)
        assert row.customer_usual_std_30d == pytest.approx(usual.std(ddof=0) if len(usual) else 0, abs=1e-6)
        for days in (1, 3, 7, 14):
            last = times_median[before(mine, now, days).index]
            assert row[f"customer_before_large_{days}d"] == (last > 3).sum()
            if days > 1:
                most = last.max() if last.notna().any() else 0
                assert row[f"customer_before_most_times_median_{days}d"] == pytest.approx(most)
        large = recent.tx_datetime[times_median > 3]
        large = large[large > now - pd.Timedelta(days=14)]
        assert row.customer_hours_since_large == pytest.approx(hours(now - large.max()) if len(large) else 720)
        assert row.customer_hours_since_first_large == pytest.approx(hours(now - large.min()) if len(large) else 720)
        seen += len(large) > 1
    assert seen > 3


def before(mine: pd.DataFrame, now: pd.Timestamp, days: int) -> pd.DataFrame:
    return mine[(mine.tx_datetime < now) & (mine.tx_datetime > now - pd.Timedelta(days=days))]


def times_its_median(mine: pd.DataFrame, one: pd.Series) -> float:
    return one.tx_amount / max(before(mine, one.tx_datetime, 30).tx_amount.median(), 1.0)


def hours(time: pd.Timedelta) -> float:
    return time / pd.Timedelta(hours=1)


def test_known_frauds_of_a_terminal_are_what_a_plain_loop_finds_at_each_transaction(
    catalog: Catalog, landed_files: list, history: pd.DataFrame
) -> None:
    found = day_of(catalog.views["terminal_frauds"], DAY, catalog.sources, by_day(landed_files)).to_pandas()
    history = history.sort_values(["tx_datetime", "transaction_id"])
    terminal = history.set_index("transaction_id").terminal_id
    of_terminal = dict(list(history.groupby("terminal_id")))
    runs = over = 0
    for _, row in found.iterrows():
        now, mine = row.tx_datetime, of_terminal[terminal[row.transaction_id]]
        then = now - pd.Timedelta(days=7)
        known = mine[(mine.tx_datetime <= then) & (mine.tx_datetime > then - pd.Timedelta(days=30))]
        frauds, genuine = known[known.tx_fraud == 1], known[known.tx_fraud == 0]
        for days in (7, 14, 30):
            assert row[f"terminal_known_frauds_{days}d"] == (frauds.tx_datetime > then - pd.Timedelta(days=days)).sum()
        for days in (1, 7, 30):
            labels = known.tx_fraud[known.tx_datetime > then - pd.Timedelta(days=days)]
            assert row[f"terminal_known_fraud_share_{days}d"] == pytest.approx(labels.mean() if len(labels) else 0)
        run = list(itertools.takewhile(lambda one: one[0] == 1, zip(known.tx_fraud[::-1], known.tx_datetime[::-1], strict=True)))  # fmt: skip
        assert row.terminal_known_fraud_run == len(run)
        assert row.terminal_days_since_run_began == pytest.approx(days_before(now, run[-1][1]) if run else 60)
        first = frauds.tx_datetime.min()
        assert row.terminal_days_since_first_known_fraud == pytest.approx(
            days_before(now, first) if len(frauds) else 60
        )
        newest = genuine.tx_datetime.max()
        assert row.terminal_days_since_known_genuine == pytest.approx(days_before(now, newest) if len(genuine) else 60)
        assert row.terminal_least_known_fraud_amount_30d == (frauds.tx_amount.min() if len(frauds) else 1000)
        runs += len(run) > 1
        over += bool(len(frauds) and not run)
    assert runs > 3
    assert over > 3


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
