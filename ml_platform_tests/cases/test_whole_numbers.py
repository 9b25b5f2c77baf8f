"""Whole numbers that pass through a float and come out as others."""

import pyarrow as pa
import pytest

from ml_platform_tests.cases.case import Case, csv, json, parquet

INT, FLOAT = {"value": "int64"}, {"value": "float64"}
LOSS = {"values_fit_their_types": "no float64 without loss"}
MAYBE_ANOTHER = {"values_fit_their_types": "where a float stands for several whole numbers"}
BIG = 1_582_218_195_625_938_945

CASES = [
    Case("pandas-dev/pandas#32134", "a missing value beside it takes the last digit", INT,
         {"a.csv": csv("value", str(BIG), "", "5")}, rows=[(BIG,), (None,), (5,)]),
    Case("pandas-dev/pandas#30268", "the same in memory", INT,
         {"a.parquet": parquet(pa.array([9_999_999_999_999_999, None, 123_123_123_123_123_123]))},
         rows=[(9_999_999_999_999_999,), (None,), (123_123_123_123_123_123,)]),
    Case("pandas-dev/pandas#32134", "what was written after it had happened", INT,
         {"a.csv": csv("value", f"{float(BIG):.1f}", "5.0")}, rows=[(5,)], red=MAYBE_ANOTHER),
    Case("numpy/numpy#15094", "an int64 and its double are not the same number", FLOAT,
         {"a.parquet": parquet(pa.array([9_340_351_261_291_575]))}, red=LOSS),
    Case("numpy/numpy#15094", "nor is it as text", FLOAT, {"a.csv": csv("value", "9340351261291575")}, red=LOSS),
    Case("numpy/numpy#15094", "nor in JSON", FLOAT, {"a.jsonl": json("9340351261291575", "9340351261291575.0")},
         red={"values_fit_their_types": "2 of 2 rows; value: no float64 without loss"}),
    Case("pandas-dev/pandas#58929", "128 whole numbers are one double", INT,
         {"a.parquet": parquet(pa.array([float(995_279_394_541_916_024)]))}, red=MAYBE_ANOTHER),
    Case("rakaly/jomini#57", "an identity beyond int64", FLOAT, {"a.jsonl": json("18446744073709351616")}, red=LOSS),
    Case("rakaly/jomini#57", "and as an int64", INT, {"a.jsonl": json("18446744073709351616")}, red={"values_fit_their_types": "beyond int64"}),
    Case("xarray-contrib/xarray-spatial#2570", "a limit that is compared as a float", {"value": {"type": "int64", "max": 2**60}},
         {"a.parquet": parquet(pa.array([2**60, 2**60 + 1, None]))}, rows=[(2**60,), (None,)],
         red={"values_are_allowed": f"value: more than max, {2**60}: {2**60 + 1}"}),
    Case("xarray-contrib/xarray-spatial#3056", "allowed values that are compared as floats", {"value": {"type": "int64", "allowed": [2**53]}},
         {"a.parquet": parquet(pa.array([2**53 + 1, None, 2**53]))}, rows=[(None,), (2**53,)],
         red={"values_are_allowed": "value: not among allowed, 9007199254740992: 9007199254740993"}),
    Case("apache/spark#18945", "24 bits of a float32", {"value": "float32"}, {"a.parquet": parquet(pa.array([16_777_216, 16_777_217]))},
         rows=[(16_777_216.0,)], red={"values_fit_their_types": "no float32 without loss: beyond 16777216"}),
    Case("apache/spark#18945", "of a double too", {"value": "float32"}, {"a.parquet": parquet(pa.array([16_777_217.0, 0.1]))},
         rows=[(pa.scalar(0.1, pa.float32()).as_py(),)], red={"values_fit_their_types": "no float32 without loss: beyond 16777216"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_whole_numbers(case: Case) -> None:
    case.hold()
