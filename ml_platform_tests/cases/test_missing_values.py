"""Missing values that are NaN to one library and null to the next."""

import pyarrow as pa
import pytest

from ml_platform_tests.cases.case import Case, csv, parquet

NAN = float("nan")
CASES = [
    Case("duckdb/duckdb#7541", "NaN is greater than every limit", {"value": {"type": "float64", "max": 0.9}},
         {"a.parquet": parquet(pa.array([0.5, NAN]))}, rows=[(0.5,), (None,)]),
    Case("duckdb/duckdb#14239", "and the greatest of all values", {"value": "float32"},
         {"a.parquet": parquet(pa.array([NAN, -1.0], pa.float32()))}, rows=[(None,), (-1.0,)]),
    Case("ianozsvald/dtype_diet#1", "whole numbers with a missing one are floats", {"value": "int16"},
         {"a.parquet": parquet(pa.array([1.0, NAN, 3.0]))}, rows=[(1,), (None,), (3,)]),
    Case("duckdb/duckdb#7803", "it is missing where a value is required", {"value": {"type": "float64", "nullable": False}},
         {"a.csv": csv("value", "NaN")}, red={"required_values_are_present": "value: null where a value is required"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_missing_values(case: Case) -> None:
    case.hold()
