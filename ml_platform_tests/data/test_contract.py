"""Values of a batch: each has its declared type, or its row is named."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ml_platform.core.spec import SourceSpec
from ml_platform.data.contract import fit

NONE = pa.schema([])


def source(type_: str) -> SourceSpec:
    columns = {"id": {"type": "int64"}, "value": {"type": type_, "nullable": True}, "at": {"type": "timestamp"}}
    return SourceSpec.model_validate(
        {"name": "rows", "start_date": date(2024, 1, 1), "key": ["id"], "event_time": "at", "columns": columns}
    )


def fitted(type_: str, values: list[Any], found: pa.DataType) -> tuple[list[Any], list[int], list[str]]:
    """The values as the contract has them, which rows do not fit, and the rules that say so."""
    times = [datetime(2024, 1, 1, tzinfo=UTC)] * len(values)
    rows = pa.table({"id": range(len(values)), "value": pa.array(values, found), "at": times})
    table, offences = fit(source(type_), rows, NONE)
    return (
        table["value"].to_pylist(),
        [row for one in offences for row in one.rows.tolist()],
        [one.rule for one in offences],
    )


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("int8", "-128", -128),
        ("int16", "32767", 32_767),
        ("int32", "7.0", 7),
        ("int64", " 9007199254740993 ", 9_007_199_254_740_993),
        ("float32", " 0.5 ", 0.5),
        ("float64", "1e-3", 0.001),
        ("bool", "true", True),
        ("timestamp", "2024-01-01T10:00:00+02:00", datetime(2024, 1, 1, 8, tzinfo=UTC)),
        ("timestamp", "2024-01-01 10:00", datetime(2024, 1, 1, 10, tzinfo=UTC)),
    ],
)
def test_text_becomes_its_type_beside_text_that_does_not(type_: str, text: str, value: object) -> None:
    """The one bad value makes the whole column go the slow way, in which every type has to be known."""
    assert fitted(type_, [text, "what?", None], pa.string())[:2] == ([value, None, None], [1])


@pytest.mark.parametrize(
    ("type_", "written", "words"),
    [
        ("int64", "what?", "no whole number"),
        ("int8", "-129", "beyond int8, -128 to 127"),
        ("float32", "what?", "no number"),
        ("float32", "16777217", "no float32 without loss: beyond 16777216 it has only some of the numbers"),
        ("float64", "1e400", "beyond float64"),
        ("float64", "1e-400", "nearer to zero than a float64 can be"),
        ("bool", "what?", "neither true nor false"),
        ("timestamp", "what?", "no time such as 2024-03-01T12:30:00Z"),
        ("timestamp", "2024-02-30", "no time within the years 1 to 9999"),
        ("timestamp", "2024-02-03 00:00:00.0000001", "a time with more than microseconds"),
    ],
)
def test_rule_says_why_and_shows_the_value(type_: str, written: str, words: str) -> None:
    rows = pa.table({"id": [1], "value": [written], "at": [datetime(2024, 1, 1, tzinfo=UTC)]})
    (offence,) = fit(source(type_), rows, NONE)[1]
    assert (offence.rule, offence.shown) == (f"value: {words}", repr(written))


@pytest.mark.parametrize(
    ("type_", "found", "values", "wanted", "unfit"),
    [
        ("int32", pa.int64(), [1, 2**31, None, -(2**31)], [1, None, None, -(2**31)], [1]),
        ("int64", pa.uint64(), [1, 2**63, None], [1, None, None], [1]),
        ("int64", pa.float64(), [2.0, 2.5, -0.5, None, float("nan")], [2, None, None, None, None], [1, 2]),
        ("int32", pa.decimal128(5, 1), [Decimal("0.5"), Decimal("3.0"), None], [None, 3, None], [0]),
    ],
)
def test_number_that_would_not_come_back_the_same_does_not_fit(
    type_: str, found: pa.DataType, values: list[Any], wanted: list[Any], unfit: list[int]
) -> None:
    assert fitted(type_, values, found)[:2] == (wanted, unfit)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_time_without_a_zone_is_utc_also_beside_one_that_does_not_fit(zone: str | None) -> None:
    ten = datetime(2024, 1, 1, 10, tzinfo=UTC)
    whole, cut = int(ten.timestamp()) * 10**9, int(ten.timestamp()) * 10**9 + 1
    values, unfit, _ = fitted("timestamp", [whole, cut, None], pa.timestamp("ns", zone))
    assert (values, unfit) == ([ten, None, None], [1])
    assert values[0].utcoffset() == timedelta(0)
