# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""A view that looks into the future is found out, by what it says when there is none."""

from datetime import date, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.features.engine import Embedded
from ml_platform.features.health import Verdict
from ml_platform.features.leakage import no_future_information
from ml_platform.features.views import MOMENT, ViewInput, compute, view_inputs
from ml_platform_tests.features.computing import Days, by_day

DAY = date(2018, 5, 20)
HOUR = 3_600_000_000


def fraction_of_the_day(transactions: ViewInput) -> ir.Table:
    """Counts the day's transactions, those to come included."""
    rows = transactions.table
    return rows.mutate(customer_window_transactions_1d=rows.count().over(group_by="customer_id"))


def next_amount(transactions: ViewInput) -> ir.Table:
    """What the customer will spend within the next six hours."""
    rows = transactions.table
    soon = ibis.range_window(group_by="customer_id", order_by=MOMENT, preceding=0, following=6 * HOUR)
    return rows.mutate(customer_window_transactions_1d=rows.tx_amount.sum().over(soon))


def undelayed_frauds(transactions: ViewInput, fraud_labels: ViewInput) -> ir.Table:
    """The fraud share of the terminal up to now, as if labels came at once."""
    rows = transactions.table.left_join(fraud_labels.table.select("transaction_id", "is_fraud"), "transaction_id")
    month = transactions.window(30, "terminal_id")
    return rows.mutate(terminal_window_fraud_share_30d=rows.is_fraud.mean().over(month))


@pytest.fixture(scope="module")
def raw(landed_files: list[tuple[str, date, pa.Table]]) -> Days:
    return by_day(landed_files)


def judged(
    catalog: Catalog,
    raw: Days,
    folder: Path,
    name: str,
    function: str | None,
    feature: str | None,
    early_labels: int = 0,
) -> Verdict:
    """The check on a day of a view whose function is another; labels may have come earlier than they should."""
    view = catalog.views[name]
    if function:
        given = view.model_dump() | {"function": f"{__name__}.{function}"}
        view = FeatureViewSpec.model_validate(given | {"features": {feature: view.features[feature or ""]}})
    tables = {}
    for source in view.inputs:
        last = DAY if source == "transactions" else DAY - timedelta(days=7 - early_labels)
        if view.kind == "snapshot" and not early_labels:
            last -= timedelta(days=1)
        tables[source] = pa.concat_tables([rows for day, rows in raw[source].items() if day <= last])
    engine = Embedded()
    inputs = view_inputs(view, DAY, catalog.sources, tables, engine)
    pq.write_table(compute(view, DAY, catalog.sources, inputs, engine).read_all(), folder / "made.parquet")
    return no_future_information(view, DAY, catalog.sources, inputs, pads.dataset(folder / "made.parquet"), engine)


@pytest.mark.parametrize("view", ["customer_activity", "terminal_risk", "customer_windows", "terminal_windows"])
def test_built_in_views_say_the_same_without_the_future(catalog: Catalog, raw: Days, tmp_path: Path, view: str) -> None:
    assert judged(catalog, raw, tmp_path, view, None, None).passed


@pytest.mark.parametrize(
    ("view", "function", "feature"),
    [
        ("customer_windows", "fraction_of_the_day", "customer_window_transactions_1d"),
        ("customer_windows", "next_amount", "customer_window_transactions_1d"),
    ],
)
def test_view_that_counts_what_is_to_come_is_found_out(
    catalog: Catalog, raw: Days, tmp_path: Path, view: str, function: str, feature: str
) -> None:
    verdict = judged(catalog, raw, tmp_path, view, function, feature)
    assert not verdict.passed
    assert feature in verdict.words


def test_rolling_view_that_does_not_heed_the_delay_of_labels_is_found_out(
    catalog: Catalog, raw: Days, tmp_path: Path
) -> None:
    """Its labels are those that are known at the end of the day: seven days before, up to the same hour of the day."""
    found = judged(catalog, raw, tmp_path, "terminal_windows", "undelayed_frauds", "terminal_window_fraud_share_30d")
    assert not found.passed


def test_snapshot_whose_inputs_reach_beyond_its_day_is_found_out(catalog: Catalog, raw: Days, tmp_path: Path) -> None:
    """As it would be if a view were given days that it must not read."""
    verdict = judged(catalog, raw, tmp_path, "terminal_risk", None, None, early_labels=3)
    assert not verdict.passed
    assert "terminal_frauds_30d" in verdict.words
    assert "of fraud_labels" in verdict.words


def test_day_without_events_has_nothing_to_compare(catalog: Catalog, raw: Days, tmp_path: Path) -> None:
    earlier = {name: {d: rows for d, rows in days.items() if start_of(d) < start_of(DAY)} for name, days in raw.items()}
    assert judged(catalog, earlier, tmp_path, "customer_windows", None, None).words == "there are no events"
