# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# The stubs of Ibis, PyArrow and pandas know fewer methods than the libraries have.
"""The handbook's windows: as the book has them, as their definition says, and blind to what was not known yet."""

from datetime import date, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.imports import load_object
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.examples.fraud.handbook import WINDOWS
from ml_platform.examples.fraud.simulate import Population, daily_files, simulate
from ml_platform.features.engine import Embedded, read
from ml_platform.features.views import input_days, view_input
from ml_platform_tests.conftest import FIRST_DAY
from ml_platform_tests.examples.fraud import book
from ml_platform_tests.features.computing import Days, by_day, day_of
from ml_platform_tests.selection import examples

STAMP = pa.timestamp("us", tz="UTC")
DELAY = timedelta(days=7)
VIEWS = ("customer_windows", "terminal_windows")


@pytest.fixture(scope="module")
def history() -> pa.Table:
    """60 days of a population that is small enough for the book's way."""
    return simulate(Population.scaled(150), 60, FIRST_DAY, seed=11)


@pytest.fixture(scope="module")
def raw(history: pa.Table) -> Days:
    return by_day(list(daily_files(history, DELAY)))


def rolling(catalog: Catalog, view: str, raw: Days, day: date) -> pd.DataFrame:
    """One day by the platform's way: from the raw days that it needs, as far as there are any."""
    return day_of(catalog.views[view], day, catalog.sources, raw).to_pandas()


def over_all(catalog: Catalog, view: str, raw: Days) -> pd.DataFrame:
    """All days at once: what the view's function says, by transaction_id."""
    spec = catalog.views[view]
    known, engine = max(raw["transactions"]) + ONE_DAY, Embedded()
    inputs = {
        source: view_input(catalog.sources[source], pa.concat_tables(raw[source].values()), known, engine)
        for source in spec.inputs
    }
    rows = load_object(spec.function or "", "function")(**inputs)
    selected = rows.select(
        "transaction_id", **{name: rows[name].fill_null(0).cast("float64") for name in spec.features}
    )
    return read(engine, selected).to_pandas().set_index("transaction_id").sort_index()


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected[found.columns].loc[found.index], rtol=1e-9, atol=1e-9)


# --- as the book has them ---------------------------------------------------------------------------------------------


def test_customer_windows_are_those_of_the_book(catalog: Catalog, history: pa.Table, raw: Days) -> None:
    found = over_all(catalog, "customer_windows", raw)
    expected = book.customer_windows(history.to_pandas())
    # pandas shows the first of two transactions of a moment only itself, the last one both; ours go by time alone.
    moments = [expected.customer_id, expected.tx_datetime]
    expected[list(found.columns)] = expected[list(found.columns)].groupby(moments).transform("last")
    assert len(found) == history.num_rows
    assert_same(found, expected.set_index("transaction_id"))


def test_terminal_windows_are_those_of_the_book(catalog: Catalog, history: pa.Table, raw: Days) -> None:
    found = over_all(catalog, "terminal_windows", raw)
    expected = book.terminal_windows(history.to_pandas())
    assert len(found) == history.num_rows
    assert_same(found, expected.set_index("transaction_id"))
    assert (found.terminal_window_fraud_share_7d > 0).sum() > 50


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("day", [FIRST_DAY, date(2018, 4, 8), date(2018, 5, 9), date(2018, 5, 30)])
def test_day_from_its_raw_days_equals_all_history(catalog: Catalog, raw: Days, view: str, day: date) -> None:
    found = rolling(catalog, view, raw, day)
    assert set(found.transaction_id) == set(raw["transactions"][day]["transaction_id"].to_pylist())
    assert found.tx_datetime.is_monotonic_increasing
    assert_same(found.drop(columns="tx_datetime").set_index("transaction_id"), over_all(catalog, view, raw))


# --- as their definition says -----------------------------------------------------------------------------------------

# Steps of six hours: events of the same moment, and events exactly a window or a delay apart, are frequent.
EVENTS = st.lists(
    st.tuples(st.integers(0, 45 * 4), st.integers(1, 2), st.integers(1, 2), st.floats(0, 100), st.booleans()),
    min_size=1,
    max_size=12,
)
BUILT_IN = load_catalog(find_project(EXAMPLE).defs)
Event = tuple[int, int, int, float, bool]


def moment(event: Event) -> datetime:
    return start_of(FIRST_DAY) + timedelta(hours=6 * event[0])


def as_raw(events: list[Event], known: list[bool] | None = None) -> Days:
    """Events (steps, customer, terminal, amount, fraud) as two sources of one partition; `known` has other labels."""
    ids, times = pa.array(range(len(events)), pa.int64()), pa.array([moment(event) for event in events], STAMP)
    transactions = {
        "transaction_id": ids,
        "tx_datetime": times,
        "customer_id": pa.array([event[1] for event in events], pa.int32()),
        "terminal_id": pa.array([event[2] for event in events], pa.int32()),
        "tx_amount": pa.array([event[3] for event in events], pa.float64()),
    }
    frauds = pa.array([event[4] for event in events] if known is None else known).cast(pa.int8())
    labels = {"transaction_id": ids, "tx_datetime": times, "is_fraud": frauds}
    last = max(moment(event) for event in events).date()
    return {"transactions": {last: pa.table(transactions)}, "fraud_labels": {last: pa.table(labels)}}


def features(events: list[Event], known: list[bool] | None = None) -> pd.DataFrame:
    return pd.concat([over_all(BUILT_IN, view, as_raw(events, known)) for view in VIEWS], axis=1)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@examples(30)
@given(EVENTS)
def test_windows_are_what_a_plain_loop_finds(events: list[Event]) -> None:
    found = features(events)
    for row, event in enumerate(events):
        for days in WINDOWS:
            window, now = timedelta(days=days), moment(event)
            mine = [e[3] for e in events if e[1] == event[1] and now - window < moment(e) <= now]
            then = now - DELAY
            theirs = [e[4] for e in events if e[2] == event[2] and then - window < moment(e) <= then]
            assert found.loc[row, f"customer_window_transactions_{days}d"] == len(mine)
            assert found.loc[row, f"customer_window_mean_amount_{days}d"] == pytest.approx(mean(mine), abs=1e-9)
            assert found.loc[row, f"terminal_window_transactions_{days}d"] == len(theirs)
            assert found.loc[row, f"terminal_window_fraud_share_{days}d"] == pytest.approx(mean(theirs), abs=1e-9)


@examples(30)
@given(EVENTS, st.data())
def test_what_was_not_known_at_an_event_changes_none_of_its_features(events: list[Event], data: st.DataObject) -> None:
    """Later rows may be anything, and so may labels that are younger than they take."""
    row = data.draw(st.integers(0, len(events) - 1))
    now = moment(events[row])
    later = [n for n, event in enumerate(events) if moment(event) > now]
    changed = [(e[0], 3 - e[1], 3 - e[2], e[3] + 1, e[4]) if n in later else e for n, e in enumerate(events)]
    labels = [event[4] != (moment(event) > now - DELAY) for event in events]
    pd.testing.assert_series_equal(features(events).loc[row], features(changed, labels).loc[row])


def test_transactions_of_the_same_moment_all_see_each_other_whatever_their_order() -> None:
    """Other than in pandas, where the order of rows decides."""
    twins: list[Event] = [(8, 1, 1, 10.0, False), (8, 1, 2, 30.0, False)]
    for events in (twins, twins[::-1]):
        assert features(events).customer_window_transactions_1d.tolist() == [2.0, 2.0]
        assert features(events).customer_window_mean_amount_1d.tolist() == [20.0, 20.0]


# --- days -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_day_without_events_has_columns_and_no_rows(catalog: Catalog, raw: Days, view: str) -> None:
    day = date(2018, 5, 9)
    without = {**raw["transactions"], day: raw["transactions"][day].slice(0, 0)}
    found = rolling(catalog, view, {**raw, "transactions": without}, day)
    assert len(found) == 0
    assert list(found.columns) == ["transaction_id", "tx_datetime", *catalog.views[view].features]


def test_label_that_is_missing_counts_as_no_fraud_and_as_no_label(catalog: Catalog) -> None:
    """Two transactions a week before, one with a label."""
    events: list[Event] = [(0, 1, 1, 1.0, True), (1, 1, 1, 1.0, False), (30, 1, 1, 1.0, False)]
    raw = as_raw(events)
    (day, labels), *_ = raw["fraud_labels"].items()
    found = over_all(catalog, "terminal_windows", {**raw, "fraud_labels": {day: labels.slice(0, 1)}}).loc[2]
    assert found.terminal_window_transactions_7d == 2
    assert found.terminal_window_fraud_share_7d == 1.0


def test_day_reads_its_raw_days_up_to_itself_and_labels_as_late_as_they_are(catalog: Catalog) -> None:
    view, day = catalog.views["terminal_windows"], date(2018, 6, 30)
    transactions = input_days(view, catalog.sources["transactions"], day)
    labels = input_days(view, catalog.sources["fraud_labels"], day)
    assert (transactions[0], transactions[-1]) == (day - timedelta(days=37), day)
    assert (labels[0], labels[-1]) == (day - timedelta(days=37), day - timedelta(days=7))
