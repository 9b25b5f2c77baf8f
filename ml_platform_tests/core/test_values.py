"""What a single value is, by its declared type; `data/test_values.py` holds the doors to it."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from ml_platform.core.values import ColumnType, of_json, of_text

EXACT = 2**53
NO_FLOAT64 = f"no float64 without loss: beyond {EXACT} it has only some of the numbers"
NO_FLOAT32 = "no float32 without loss: beyond 16777216 it has only some of the numbers"
SKIPPED = f"beyond {EXACT}, where a float stands for several whole numbers"


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("float64", "9007199254740992", float(EXACT)), ("float64", "9007199254740994", float(EXACT + 2)),
        ("float64", "0.1", 0.1), ("float64", "4.611686018427388e+18", 2.0**62), ("float64", "1e23", 1e23),
        ("float64", "4611686018427387904", 2.0**62), ("float64", "123456789.123456789123", 123456789.12345679),
        ("float32", "16777216", 16_777_216.0), ("float32", "16777218.0", 16_777_218.0), ("float32", "0.1", 0.10000000149011612),
        ("float32", "3.4028234663852886e38", 3.4028234663852886e38), ("float32", "1e-45", 1.401298464324817e-45),
        ("float64", "5e-324", 5e-324), ("float64", "0e-999", 0.0), ("float32", "-0.0", -0.0),
        ("int8", "-128", -128), ("int64", "9223372036854775807", 2**63 - 1), ("int64", "9007199254740992.0", EXACT),
        ("int64", "000000000000000000000000000000000000000000000005", 5),
    ],
)  # fmt: skip
def test_text_stands_for_exactly_this(type_: ColumnType, text: str, value: Any) -> None:
    assert of_text(type_, text) == value


@pytest.mark.parametrize(
    ("type_", "text", "reason"),
    [
        ("float64", "9007199254740993", NO_FLOAT64), ("float64", "9007199254740993.0", NO_FLOAT64), ("float64", "9007199254740993.5", NO_FLOAT64),
        ("float64", "9.007199254740993e15", NO_FLOAT64), ("float64", "4611686018427388000", NO_FLOAT64),
        ("float64", "-9007199254740993", NO_FLOAT64), ("float64", "100000000000000000000000", NO_FLOAT64),
        ("float32", "16777217", NO_FLOAT32), ("float32", "16777217.0", NO_FLOAT32), ("float32", "1.6777217e7", NO_FLOAT32),
        ("float32", "9007199254740993", NO_FLOAT64.replace("float64", "float32")), ("float32", "123456790", NO_FLOAT32),
        ("float64", "1e400", "beyond float64"), ("float32", "1e39", "beyond float32"), ("float64", "9" * 400, "beyond float64"),
        ("float64", "1e-400", "nearer to zero than a float64 can be"), ("float32", "-1e-50", "nearer to zero than a float32 can be"),
        ("float64", "1e99999999999999999999999", "beyond float64"), ("float64", "1e-99999999999999999999999", "nearer to zero than a float64 can be"),
        ("int8", "128", "beyond int8, -128 to 127"), ("int64", "9223372036854775808", f"beyond int64, {-(2**63)} to {2**63 - 1}"),
        ("int64", "9" * 5_000, f"beyond int64, {-(2**63)} to {2**63 - 1}"), ("int64", "9007199254740994.0", SKIPPED),
        ("int32", "5.5", "no whole number"), ("int32", "inf", "no whole number"), ("float64", "five", "no number"),
        ("timestamp", "2024-03-01T10:00:00.1234567Z", "a time with more than microseconds"),
        ("timestamp", "2024-04-31", "no time within the years 1 to 9999"), ("timestamp", "soon", "no time such as 2024-03-01T12:30:00Z"),
    ],
)  # fmt: skip
def test_text_stands_for_nothing_and_this_is_why(type_: ColumnType, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        of_text(type_, text)


@pytest.mark.parametrize(
    ("type_", "value", "found"),
    [
        ("int64", 5.0, 5), ("int64", Decimal("5.00"), 5), ("int64", float(EXACT), EXACT), ("int64", Decimal(EXACT + 1), EXACT + 1),
        ("float64", 5, 5.0), ("float64", Decimal("0.1"), 0.1), ("float32", 0.1, 0.10000000149011612), ("float64", float("inf"), float("inf")),
        ("float64", Decimal("Infinity"), float("inf")), ("int8", float("nan"), None), ("float64", Decimal("NaN"), None),
        ("bool", True, True), ("string", "", ""), ("timestamp", date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC)),
        ("timestamp", datetime(2024, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 3, 1, tzinfo=UTC)),
        ("timestamp", datetime(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC)), ("timestamp", "2024-03-01 UTC", datetime(2024, 3, 1, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_value_with_a_type_stands_for_exactly_this(type_: ColumnType, value: Any, found: Any) -> None:
    assert of_json(type_, value) == found


@pytest.mark.parametrize(
    ("type_", "value", "reason"),
    [
        ("int64", True, "true or false, not a number"), ("int64", "5", "a string, not a number"), ("int64", [5], "a list, not a number"),
        ("int64", {"a": 5}, "an object, not a number"), ("int64", date(2024, 3, 1), "a time, not a number"),
        ("int64", float(EXACT + 2), SKIPPED), ("int64", 5.5, "no whole number"), ("int64", float("inf"), "no whole number"),
        ("int64", Decimal("5.5"), "no whole number"), ("int64", 10**400, f"beyond int64, {-(2**63)} to {2**63 - 1}"),
        ("float64", EXACT + 1, NO_FLOAT64), ("float64", Decimal(EXACT + 1), NO_FLOAT64), ("float64", 10**400, "beyond float64"),
        ("float32", 16_777_217, NO_FLOAT32), ("float32", 16_777_217.0, NO_FLOAT32), ("float32", 1e300, "beyond float32"),
        ("float64", Decimal("1e-400"), "nearer to zero than a float64 can be"), ("bool", 1, "a number, not true or false"),
        ("bool", "true", "a string, not true or false"), ("string", 5, "a number, not a string"), ("string", False, "true or false, not a string"),
        ("timestamp", 1_709_287_200, "a number, not a time"), ("timestamp", "", "no time such as 2024-03-01T12:30:00Z"),
        ("timestamp", " 2024-03-01", "no time such as 2024-03-01T12:30:00Z"),
        ("timestamp", datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))), "no time within the years 1 to 9999"),
    ],
)  # fmt: skip
def test_value_with_a_type_stands_for_nothing_and_this_is_why(type_: ColumnType, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        of_json(type_, value)
