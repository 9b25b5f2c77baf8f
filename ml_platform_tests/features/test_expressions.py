import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.errors import FeatureError
from ml_platform.features.expressions import Expression

COLUMNS = {
    "x": np.array([1.0, -2.0, 0.0]),
    "t": np.array(["2018-04-01T06:59:59", "2018-04-02T07:00:00", "1969-12-31T23:00:00"], dtype="datetime64[us]"),
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x", [1, -2, 0]),
        ("-x + 2 * x / 4", [-0.5, 1, 0]),
        ("maximum(x, 0.5)", [1, 0.5, 0.5]),
        ("hour(t)", [6, 7, 23]),
        ("hour(t) <= 6", [1, 0, 0]),
        ("day_of_week(t)", [6, 0, 2]),
        ("(x > 0) | (x < -1)", [1, 1, 0]),
        ("where(x > 0, 1, abs(x))", [1, 2, 0]),
    ],
)
def test_values(text: str, values: list[float]) -> None:
    assert Expression("f", text)(COLUMNS).tolist() == values


def test_columns_are_those_that_the_text_names() -> None:
    assert Expression("f", "maximum(x, y) / x").columns == ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "x.real",
        "x[0]",
        "lambda: 1",
        "open(x)",
        "'a'",
        "x if x else 1",
        "[x]",
        "x +",
        "1 < x < 2",
        "maximum(x, out=x)",
        "maximum(x, x, x)",
        "abs(x, x)",
        "where(x)",
        "hour()",
        "x + " * 600 + "x",
        "(" * 300 + "x" + ")" * 300,
        "-" * 80 + "x",
        "9" * 6_000,
        "9007199254740993",
        "x\0",
        "",
    ],
)
def test_anything_else_is_refused_when_parsed(text: str) -> None:
    with pytest.raises(FeatureError, match="feature f: expression"):
        Expression("f", text)


def test_no_expression_writes_to_its_columns() -> None:
    columns = {"a": np.array([1.0]), "b": np.array([2.0]), "c": np.array([3.0])}
    Expression("f", "maximum(a, b) + minimum(b, c)")(columns)
    assert {name: values.tolist() for name, values in columns.items()} == {"a": [1.0], "b": [2.0], "c": [3.0]}


@pytest.mark.parametrize("text", ["s + 1", "t * t", "hour(s)", "sqrt(s)", "t & x"])
def test_what_cannot_be_computed_is_an_error_of_the_feature(text: str) -> None:
    columns = {**COLUMNS, "s": np.array(["a", "b", "c"])}
    with pytest.raises(FeatureError, match="feature f: expression .* cannot be computed"):
        Expression("f", text)(columns)


@given(st.lists(st.datetimes(), min_size=1))
def test_hour_and_day_of_week_are_those_of_the_calendar(times: list) -> None:
    columns = {"t": np.array(times, dtype="datetime64[us]")}
    assert Expression("f", "hour(t)")(columns).tolist() == [time.hour for time in times]
    assert Expression("f", "day_of_week(t)")(columns).tolist() == [time.weekday() for time in times]


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "float32", "float64"])
def test_numbers_are_float64_whatever_type_their_column_has(kind: str) -> None:
    units, cents = np.array([100, 127], kind), np.array([120, 125], kind)
    assert Expression("f", "units * cents")({"units": units, "cents": cents}).tolist() == [12_000.0, 15_875.0]
    assert Expression("f", "units + cents")({"units": units, "cents": cents}).tolist() == [220.0, 252.0]
    assert Expression("f", "units - 128")({"units": units}).tolist() == [-28.0, -1.0]
    assert Expression("f", "where(units > 100, units * cents, 0 - units)")(
        {"units": units, "cents": cents}
    ).tolist() == [-100.0, 15_875.0]


def test_large_products_of_int32_do_not_overflow() -> None:
    rows = {"units": np.array([100_000], np.int32), "unit_cents": np.array([89_231], np.int32)}
    assert Expression("f", "units * unit_cents")(rows).tolist() == [8_923_100_000.0]


def test_unsigned_numbers_may_become_negative_and_truth_values_are_numbers() -> None:
    rows = {"a": np.array([1, 2], np.uint8), "b": np.array([True, False])}
    assert Expression("f", "0 - a")(rows).tolist() == [-1.0, -2.0]
    assert Expression("f", "b + b")(rows).tolist() == [2.0, 0.0]
    assert Expression("f", "b & (a > 0)")(rows).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("is_null(a)", [0.0, 1.0]),
        ("fill_null(a, 7)", [1.0, 7.0]),
        ("is_null(b)", [0.0, 1.0]),
        ("fill_null(b, 7) * 2", [4.0, 14.0]),
        ("is_null(s)", [0.0, 1.0]),
        ("is_null(t)", [0.0, 1.0]),
        ("fill_null(hour(t), 0 - 1)", [12.0, -1.0]),
        ("fill_null(day_of_week(t), 9)", [0.0, 9.0]),
        ("a + b", [3.0, np.nan]),
        ("hour(t)", [12.0, np.nan]),
    ],
)
def test_null_is_null_until_the_expression_says_what_it_is(text: str, expected: list[float]) -> None:
    rows = {
        "a": np.array([1.0, np.nan]),
        "b": np.array([2, None], object),
        "s": np.array(["x", None], object),
        "t": np.array(["2024-01-01T12:00", "NaT"], "datetime64[us]"),
    }
    np.testing.assert_array_equal(Expression("f", text)(rows), expected)


def test_columns_whose_null_is_one_of_the_whole_are_told_apart() -> None:
    expression = Expression("f", "where(is_null(a), fill_null(b, c), a / d)")
    assert expression.columns == ["a", "b", "c", "d"]
    assert expression.bare == ["c", "a", "d"]
