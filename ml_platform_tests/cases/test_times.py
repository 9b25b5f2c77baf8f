"""Times that wrap round, are cut off, or are not read as the times that they are."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from ml_platform_tests.cases.case import Case, csv, parquet

TIME = {"value": "timestamp"}
TOO_FINE = {"values_fit_their_types": "value: a time with more than microseconds"}


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def spark(*values: Any, unit: str = "us") -> dict[str, bytes]:
    return {"a.parquet": parquet(pa.array(values, pa.timestamp(unit)), use_deprecated_int96_timestamps=True)}


CASES = [
    Case("apache/datafusion#1360", "the year 9999 in Spark's old type overflows", TIME,
         spark(datetime(9999, 12, 31, 2), datetime(9998, 12, 31, 2), datetime(2021, 6, 9, 3, 2, 37)),
         rows=[(at(9999, 12, 31, 2),), (at(9998, 12, 31, 2),), (at(2021, 6, 9, 3, 2, 37),)]),
    Case("StarRocks/starrocks#22355", "and its last microseconds", TIME, spark(datetime(9999, 12, 31, 23, 59, 59, 999_900)),
         rows=[(at(9999, 12, 31, 23, 59, 59, 999_900),)]),
    Case("NVIDIA/cudf#8070", "years before 1677 and after 2262 become others", TIME,
         spark(datetime(723, 3, 21, 14, 20, 13, 781_000), datetime(8669, 7, 20, 4, 45, 57, 730_000)),
         rows=[(at(723, 3, 21, 14, 20, 13, 781_000),), (at(8669, 7, 20, 4, 45, 57, 730_000),)]),
    Case("duckdb/duckdb#25857", "its nanoseconds are cut off", TIME, spark(1_709_287_200_123_456_700, 1_709_287_200_123_456_000, unit="ns"),
         rows=[(at(2024, 3, 1, 10, 0, 0, 123_456),)], red=TOO_FINE),
    Case("NVIDIA/cudf#9393", "nanoseconds are cut off", TIME, {"a.parquet": parquet(pa.array([9_123_456_789, 9_123_456_000], pa.timestamp("ns")))},
         rows=[(at(1970, 1, 1, 0, 0, 9, 123_456),)], red=TOO_FINE),
    Case("ranaroussi/pystore#25", "of texts too", TIME, {"a.csv": csv("value", "2019-06-15 00:00:12.868214001+00:00")}, red=TOO_FINE),
    Case("yesodweb/persistent#328", "a zone in letters", TIME, {"a.csv": csv("value", "2014-11-30 05:15:25.395343 UTC")},
         rows=[(at(2014, 11, 30, 5, 15, 25, 395_343),)]),
    Case("valderman/selda#170", "an offset without a colon", TIME, {"a.csv": csv("value", "2021-09-30 10:00:00+0200")},
         rows=[(at(2021, 9, 30, 8),)]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_times(case: Case) -> None:
    case.hold()
