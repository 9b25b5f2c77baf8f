# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The simulator has the figures of the published one."""

import math
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.days import start_of
from ml_platform.examples.fraud.simulate import (
    CARD_FRAUD_FACTOR,
    DRIFTS,
    Population,
    daily_files,
    drifted,
    simulate,
)

FIRST = date(2018, 4, 1)


def test_full_size_has_the_published_figures() -> None:
    """183 days: 1.76 to 1.79 M rows over seeds, 0.84 to 0.86 % fraud; limits leave room for this seed."""
    table = simulate(Population(), 183, FIRST, seed=0)
    scenarios = dict(zip(*(c.to_pylist() for c in pc.value_counts(table["tx_fraud_scenario"]).flatten()), strict=True))
    assert 1_740_000 < table.num_rows < 1_810_000
    assert 0.0080 < pc.mean(table["tx_fraud"]).as_py() < 0.0090
    assert 935 <= scenarios[1] <= 1_128
    assert 8_500 <= scenarios[2] <= 9_900
    assert 4_400 <= scenarios[3] <= 5_000


def test_small_population_keeps_the_fraud_share(simulated: pa.Table) -> None:
    assert 0.006 < pc.mean(simulated["tx_fraud"]).as_py() < 0.011


def test_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    small = Population.scaled(100)
    assert simulate(small, 5, FIRST, 1).equals(simulate(small, 5, FIRST, 1))
    assert not simulate(small, 5, FIRST, 1).equals(simulate(small, 5, FIRST, 2))


def test_more_days_leave_the_earlier_ones_as_they_are() -> None:
    """Or landing one more day would overwrite all the days before it."""
    small = Population.scaled(300)
    longer = simulate(small, 30, FIRST, 1)
    shorter = simulate(small, 20, FIRST, 1)
    assert longer.slice(0, shorter.num_rows).equals(shorter)


def test_rows_are_in_time_order_within_their_days(simulated: pa.Table) -> None:
    times = simulated["tx_datetime"].to_numpy()
    assert (times[1:] >= times[:-1]).all()
    assert simulated["transaction_id"].to_pylist() == list(range(simulated.num_rows))
    assert pc.max(simulated["tx_datetime"]).as_py().date() <= FIRST + timedelta(days=59)


def test_genuine_amounts_stay_below_the_limit(simulated: pa.Table) -> None:
    genuine = simulated.filter(pc.equal(simulated["tx_fraud"], 0))
    assert pc.max(genuine["tx_amount"]).as_py() <= 220
    compromised = simulated.filter(pc.equal(simulated["tx_fraud_scenario"], 3))
    assert pc.mean(compromised["tx_amount"]).as_py() > CARD_FRAUD_FACTOR / 2 * pc.mean(genuine["tx_amount"]).as_py()


def test_labels_are_a_late_source_and_transactions_do_not_know_them(simulated: pa.Table) -> None:
    files = list(daily_files(simulated, timedelta(days=7)))
    transactions = [day for source, day, _ in files if source == "transactions"]
    labels = [day for source, day, _ in files if source == "fraud_labels"]
    assert len(transactions) == 60
    assert max(labels) == max(transactions) - timedelta(days=7)
    assert all(
        "fraud" not in name for source, _, table in files for name in table.column_names if source == "transactions"
    )
    assert sum(table.num_rows for source, _, table in files if source == "transactions") == simulated.num_rows


def test_drift_changes_what_it_says_from_its_day_on(simulated: pa.Table) -> None:
    since = FIRST + timedelta(days=40)
    start = pa.scalar(start_of(since), pa.timestamp("us", tz="UTC"))
    late = pc.greater_equal(simulated["tx_datetime"], start)
    for kind in DRIFTS:
        made = drifted(simulated, kind, since, seed=1)
        assert made.schema == simulated.schema
        assert made["transaction_id"] == simulated["transaction_id"]
        assert made.filter(pc.invert(late)) == simulated.filter(pc.invert(late))
        assert made.filter(late) != simulated.filter(late), kind
    amount = pc.mean(simulated.filter(late)["tx_amount"]).as_py()
    for kind, factor in (("amounts", 2.0), ("unit", 0.01)):
        moved = drifted(simulated, kind, since, seed=1).filter(late)
        assert math.isclose(pc.mean(moved["tx_amount"]).as_py(), factor * amount, rel_tol=0.02)
    frauds = drifted(simulated, "labels", since, seed=1).filter(late)
    assert pc.mean(frauds["tx_fraud"]).as_py() > 4 * pc.mean(simulated.filter(late)["tx_fraud"]).as_py()
