"""The contract: every rule red for its own reason, with counts and a sample."""

import io
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ColumnSpec, SourceSpec
from ml_platform.data.contract import CHECKS, Inspection, arrow_schema, inspect

DAY = date(2018, 4, 1)


@pytest.fixture(scope="session")
def source(catalog: Catalog) -> SourceSpec:
    return catalog.sources["transactions"]


def rows(n: int = 10, **columns: Any) -> pa.Table:
    good = {
        "transaction_id": list(range(n)),
        "tx_datetime": [datetime(2018, 4, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(n)],
        "customer_id": pa.array([1] * n, pa.int32()),
        "terminal_id": pa.array([2] * n, pa.int32()),
        "tx_amount": [float(i) for i in range(n)],
    }
    return pa.table({**good, **columns})


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def look(source: SourceSpec, *tables: pa.Table | bytes) -> Inspection:
    contents = [table if isinstance(table, bytes) else parquet(table) for table in tables]
    return inspect(source, DAY, [(f"o{n}.parquet", content) for n, content in enumerate(contents)])


def only_failure(inspection: Inspection) -> tuple[str, int, str]:
    assert inspection.table is None
    assert [finding.check for finding in inspection.findings] == list(CHECKS)
    failures = [finding for finding in inspection.failed if not finding.problem.startswith("not evaluated")]
    assert len(failures) == 1, failures
    return failures[0].check, failures[0].offending, failures[0].problem


def test_good_rows_become_the_table_in_key_order(source: SourceSpec) -> None:
    inspection = look(source, rows(4).slice(2), rows(4).slice(0, 2))
    assert inspection.failed == ()
    assert inspection.table is not None
    assert inspection.table["transaction_id"].to_pylist() == [0, 1, 2, 3]
    assert inspection.table.schema == arrow_schema(source)


def test_unreadable_object(source: SourceSpec) -> None:
    check, count, problem = only_failure(look(source, rows(), b"<html>"))
    assert (check, count) == ("objects_are_readable", 1)
    assert problem.startswith("o1.parquet: not a readable Parquet file")


def test_text_that_is_not_utf8_is_unreadable(source: SourceSpec) -> None:
    table = rows().append_column("note", pa.array([b"\xff"] * 10).view(pa.string()))
    assert only_failure(look(source, table))[0] == "objects_are_readable"


def test_check_that_cannot_be_evaluated_does_not_pass(source: SourceSpec) -> None:
    """A rule that fails on the values themselves must not count as kept."""
    broken = ColumnSpec.model_construct(type="string", nullable=False, min=0.0, max=None, allowed=None)
    text = source.model_copy(update={"columns": {**source.columns, "note": broken}})
    inspection = look(text, rows().append_column("note", pa.array(["x"] * 10)))
    assert only_failure(inspection)[:2] == ("values_are_allowed", 10)


def test_missing_column(source: SourceSpec) -> None:
    check, _, problem = only_failure(look(source, rows().drop_columns(["terminal_id"])))
    assert check == "schema_conforms"
    assert "column 'terminal_id' is missing" in problem


@pytest.mark.parametrize("values", [["1.0"] * 10, [True] * 10, [datetime(2018, 4, 1, tzinfo=UTC)] * 10])
def test_wrong_type(source: SourceSpec, values: list[Any]) -> None:
    check, _, problem = only_failure(look(source, rows(tx_amount=values)))
    assert check == "schema_conforms"
    assert "column 'tx_amount' has type" in problem


def test_integer_that_does_not_fit(source: SourceSpec) -> None:
    check, _, problem = only_failure(look(source, rows(customer_id=pa.array([2**40] * 10, pa.int64()))))
    assert check == "schema_conforms"
    assert "does not fit int32" in problem


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_null_or_nan_in_a_required_column(source: SourceSpec, bad: float | None) -> None:
    inspection = look(source, rows(tx_amount=pa.array([bad, *range(9)], pa.float64())))
    assert only_failure(inspection)[:2] == ("required_values_are_present", 1)


@pytest.mark.parametrize("bad", [-1.0, 1e9, float("inf")])
def test_value_out_of_range(source: SourceSpec, bad: float) -> None:
    inspection = look(source, rows(tx_amount=[bad, *map(float, range(9))]))
    assert only_failure(inspection)[:2] == ("values_are_allowed", 1)
    assert next(f for f in inspection.findings if f.check == "values_are_allowed").sample[0]["tx_amount"] == bad


def test_value_that_is_not_among_the_allowed(catalog: Catalog) -> None:
    labels = catalog.sources["fraud_labels"]
    table = rows(3).select(["transaction_id", "tx_datetime"]).append_column("is_fraud", pa.array([0, 1, 2], pa.int8()))
    assert only_failure(look(labels, table))[:2] == ("values_are_allowed", 1)


def test_duplicate_key_across_objects(source: SourceSpec) -> None:
    inspection = look(source, rows(), rows(1))
    assert only_failure(inspection)[:2] == ("keys_are_unique", 2)


def test_row_of_another_day(source: SourceSpec) -> None:
    times = [datetime(2018, 4, 2, tzinfo=UTC), *[datetime(2018, 4, 1, 23, 59, 59, 999_999, tzinfo=UTC)] * 9]
    assert only_failure(look(source, rows(tx_datetime=times)))[:2] == ("event_times_are_in_partition", 1)


def test_no_objects_at_all_is_not_a_pass(source: SourceSpec) -> None:
    inspection = look(source)
    assert inspection.table is None
    assert {finding.check for finding in inspection.failed} == set(CHECKS) - {"objects_are_readable", "schema_conforms"}


def test_checks_after_a_failed_one_are_not_evaluated_and_do_not_pass(source: SourceSpec) -> None:
    inspection = look(source, b"junk")
    assert not any(finding.passed for finding in inspection.findings if finding.check != "schema_conforms")


def test_times_without_a_zone_are_utc_and_other_zones_are_converted(source: SourceSpec) -> None:
    naive = rows(tx_datetime=pa.array([datetime(2018, 4, 1, 0, i) for i in range(10)], pa.timestamp("ms")))
    berlin = rows(tx_datetime=rows()["tx_datetime"].cast(pa.timestamp("us", tz="Europe/Berlin")))
    for table in (naive, berlin):
        found = look(source, table).table
        assert found is not None
        assert found["tx_datetime"][1].as_py() == datetime(2018, 4, 1, 0, 1, tzinfo=UTC)


def test_undeclared_column_is_reported_and_left_out(source: SourceSpec) -> None:
    inspection = look(source, rows().append_column("channel", pa.array(["web"] * 10)))
    assert inspection.undeclared_columns == ("channel",)
    assert inspection.table is not None
    assert "channel" not in inspection.table.column_names


@given(st.integers(1, 4), st.permutations(range(12)))
def test_table_does_not_depend_on_how_rows_are_spread_over_objects(
    source: SourceSpec, objects: int, order: list[int]
) -> None:
    shuffled = rows(12).take(order)
    spread = [
        shuffled.slice(start * 12 // objects, (start + 1) * 12 // objects - start * 12 // objects)
        for start in range(objects)
    ]
    found, expected = look(source, *spread).table, look(source, rows(12)).table
    assert found is not None
    assert found.equals(expected)
