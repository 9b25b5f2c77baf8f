# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer methods than the library has.
"""Columns of PostgreSQL and SQLite as columns of a Parquet file: how they are asked for, and what their values are."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import event

from ml_platform.core.errors import LandingError
from ml_platform.core.spec import SourceSpec
from ml_platform.core.values import FLOATS, INTEGERS, of_text
from ml_platform.data.contract import arrow_schema

TIMESTAMP = pa.timestamp("us", tz="UTC")
_POSTGRES_TYPES = {
    16: ("boolean", pa.bool_()),
    17: ("bytea", pa.binary()),
    20: ("bigint", pa.int64()),
    21: ("smallint", pa.int16()),
    23: ("integer", pa.int32()),
    25: ("text", pa.string()),
    700: ("real", pa.float32()),
    701: ("double precision", pa.float64()),
    1042: ("char", pa.string()),
    1043: ("varchar", pa.string()),
    1082: ("date", pa.date32()),
    1114: ("timestamp", TIMESTAMP),
    1184: ("timestamptz", TIMESTAMP),
    1700: ("numeric", None),
}
TIMES = ("date", "timestamp", "timestamptz")
NUMBERS = ("bigint", "smallint", "integer", "real", "double precision", "numeric")
_ANY_NUMERIC = pa.decimal256(76, 38)
_NEVER = 2**63 - 1  # microseconds; stands for infinity, and is refused like all times beyond the year 9999
_DIGIT, _DAY = "[0-9]", "-".join(["[0-9]" * 4, "[0-9]" * 2, "[0-9]" * 2])
_CLOCK = ":".join([_DIGIT * 2] * 3)
_USUAL = (_DAY, f"{_DAY}[T ]{_CLOCK}", f"{_DAY}[T ]{_CLOCK}.{_DIGIT * 6}")


@dataclass(frozen=True)
class Column:
    """How a column is asked for, and what it is in the file."""

    name: str
    expression: sa.ColumnElement[Any]
    type: pa.DataType


def array(column: Column, values: Sequence[Any], address: str) -> pa.Array:
    """Values as the driver gives them.

    Raises:
        LandingError: naming the database's address and the column, if one has no place in the column's type.
    """
    try:
        if pa.types.is_timestamp(column.type):
            values = [of_text("timestamp", value) if isinstance(value, str) else value for value in values]
        elif pa.types.is_boolean(column.type):
            values = [None if value is None else bool(value) for value in values]
        elif pa.types.is_decimal(column.type):
            values = [None if isinstance(value, Decimal) and value.is_nan() else value for value in values]
        return pa.array(values, column.type)
    except (ValueError, TypeError, OverflowError) as error:
        problem = f"column {column.name!r} has a value that is no {column.type}: {error}"
        raise LandingError(address, problem, "convert or leave out such values in `origin.query`") from error


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def kind_of_postgres(described: Any) -> str:
    return _POSTGRES_TYPES.get(described.type_code, ("of another type", None))[0]


def of_postgres(
    source: SourceSpec,
    rows: sa.FromClause,
    described: Mapping[str, Any],
    of_day: sa.ColumnElement[bool],
    connection: sa.Connection,
) -> list[Column]:
    """By the type that PostgreSQL says; what Arrow has no type for is text."""
    declared = {name: column.type for name, column in source.columns.items()}
    beyond = _beyond_calendar(rows, described, of_day, connection)
    return [_postgres_column(rows.c[name], described[name], declared.get(name), name in beyond) for name in described]


def _beyond_calendar(
    rows: sa.FromClause, described: Mapping[str, Any], of_day: sa.ColumnElement[bool], connection: sa.Connection
) -> set[str]:
    """The columns with times that Python has none for: before the year 1, after 9999, infinite."""
    times = [name for name in described if kind_of_postgres(described[name]) in TIMES]
    least, most = (sa.literal_column(f"'{limit}'") for limit in ("0001-01-01", "9999-12-31"))
    found = connection.execute(
        sa.select(*(sa.func.bool_or(sa.not_(rows.c[name].between(least, most))) for name in times)).where(of_day)
    ).one()
    return {name for name, is_beyond in zip(times, found, strict=True) if is_beyond}


def _postgres_column(column: sa.ColumnElement[Any], described: Any, declared: str | None, is_beyond: bool) -> Column:
    name = str(column.key)
    kind, type_ = _POSTGRES_TYPES.get(described.type_code, ("", None))
    if kind == "numeric":
        precision, scale = described.precision, described.scale
        if precision is not None and 0 <= scale <= precision <= 38:
            return Column(name, column, pa.decimal128(precision, scale))
        # Numerics without precision, as sums are, stay exact where a number is declared.
        if declared in INTEGERS or declared in FLOATS:
            return Column(name, column, _ANY_NUMERIC)
        return Column(name, sa.cast(column, sa.Double), pa.float64())
    if kind in TIMES and is_beyond:
        micros = sa.cast(sa.extract("epoch", column) * 1_000_000, sa.BigInteger)
        return Column(name, sa.case((sa.func.isfinite(column), micros), else_=_NEVER), TIMESTAMP)
    if kind == "date" and declared == "timestamp":
        return Column(name, sa.cast(column, sa.DateTime(timezone=True)), TIMESTAMP)
    if type_ is not None:
        return Column(name, column, type_)
    return Column(name, sa.cast(column, sa.Text), pa.string())


# --- SQLite -----------------------------------------------------------------------------------------------------------


def know_times(engine: sa.Engine) -> None:
    """Give SQLite the rule for times; its own takes more for times, such as '10:00' and 2460371.5, and 30 February for March."""

    def utc_time(value: Any) -> str | None:
        try:
            found = of_text("timestamp", value) if isinstance(value, str) else None
        except ValueError:
            return None
        return found.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(found, datetime) else None

    def on_connect(connection: sqlite3.Connection, _: Any) -> None:
        connection.create_function("utc_time", 1, utc_time, deterministic=True)

    event.listen(engine, "connect", on_connect)


def sqlite_day(time: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """The day of a time as text; null if it is none. Usual texts are looked at without leaving SQLite."""
    text = sa.type_coerce(time, sa.Text)
    is_usual = sa.and_(
        sa.func.typeof(time) == "text",
        sa.or_(*(text.op("GLOB")(pattern) for pattern in _USUAL)),
        sa.func.date(text, "+0 days") == sa.func.substr(text, 1, 10),  # 30 February and 24 o'clock become another day
    )
    return sa.case((is_usual, sa.func.substr(text, 1, 10)), else_=sa.func.substr(sa.func.utc_time(time), 1, 10))


def of_sqlite(
    source: SourceSpec,
    rows: sa.FromClause,
    described: Mapping[str, Any],
    of_day: sa.ColumnElement[bool],
    connection: sa.Connection,
) -> list[Column]:
    """By the values that the day has, since SQLite has types of values, not of columns."""
    default = {field.name: field.type for field in arrow_schema(source)}
    kinds = {name: _sqlite_kind(rows.c[name], default.get(name)) for name in described}
    statement = sa.select(*(sa.func.group_concat(kind.distinct()) for kind in kinds.values())).where(of_day)
    found = zip(kinds, connection.execute(statement).one(), strict=True)
    return [_sqlite_column(rows.c[name], set(of_values.split(",")), default.get(name)) for name, of_values in found]


def _sqlite_kind(column: sa.ColumnElement[Any], declared: pa.DataType | None) -> sa.ColumnElement[str]:
    """The type of a value. Times and booleans have none of their own there; they are told from the declared type."""
    kind = sa.func.typeof(column)
    if declared == TIMESTAMP:
        return sa.case((sqlite_day(column).is_not(None), "timestamp"), else_=kind)
    if declared == pa.bool_():
        return sa.case((sa.and_(kind == "integer", column.in_((0, 1))), "boolean"), else_=kind)
    limit = FLOATS["float64"]
    is_long = sa.and_(kind == "integer", sa.or_(column > limit, column < -limit))
    return sa.case((is_long, "long"), else_=kind)


def _sqlite_column(column: sa.ColumnElement[Any], kinds: set[str], declared: pa.DataType | None) -> Column:
    """Values of kinds that have no type in common are text; so are long integers and floats."""
    name, kinds = str(column.key), kinds - {"null"}
    if not kinds:
        return Column(name, column, declared or pa.string())
    if kinds == {"timestamp"}:
        return Column(name, column, TIMESTAMP)
    if kinds == {"boolean"}:
        return Column(name, column, pa.bool_())
    if kinds == {"blob"}:
        return Column(name, column, pa.binary())
    if kinds <= {"boolean", "integer", "long"}:
        return Column(name, column, pa.int64())
    if kinds <= {"boolean", "integer", "real"}:
        return Column(name, sa.cast(column, sa.Float), pa.float64())
    return Column(name, sa.cast(column, sa.Text), pa.string())
