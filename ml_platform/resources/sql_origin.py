# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer methods than the library has.
"""Rows of a database, on PostgreSQL or SQLite: the origin of sources that are a table or a query.

A day that has rows is handed over as one object, `<source>/<day>/rows.parquet`, once it is over and `delay_days` old. Rows
without an event time belong to no day. SQLite has no type for times: they are ISO texts there, in any zone or, without
one, in UTC. The size of an object is its number of rows.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DataError, OperationalError, ProgrammingError, SQLAlchemyError

from ml_platform.core import digest
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.errors import LandingError, SettingsError
from ml_platform.core.spec import SourceSpec, SqlOrigin
from ml_platform.data.contract import arrow_schema
from ml_platform.data.landing import LandedObject, Page, day_prefix

BATCH_ROWS = 100_000
PAGE_DAYS = 366

# What makes the statements of a transaction see the database as of one moment, and times as UTC.
_SNAPSHOT = {
    "postgresql": ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'"),
    "sqlite": ("BEGIN",),
}

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_DATE_OID, _NUMERIC_OID = 1082, 1700
_POSTGRES_TYPES = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    25: pa.string(),
    700: pa.float32(),
    701: pa.float64(),
    1042: pa.string(),  # char(n)
    1043: pa.string(),  # varchar
    _DATE_OID: pa.date32(),
    1114: _TIMESTAMP,
    1184: _TIMESTAMP,  # with time zone
}


@dataclass(frozen=True)
class _Column:
    """How a column is asked for, and what it is in the file."""

    name: str
    expression: sa.ColumnElement[Any]
    type: pa.DataType


class SqlRows:
    """One source's rows in one database. `clock` says when a day is over; `origin.url_variable` stands for its URL."""

    def __init__(self, source: SourceSpec, origin: SqlOrigin, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self.origin = origin
        self.engine = engine
        self.clock = clock
        self.address = f"sql://{origin.url_variable}/{origin.table or source.name}"

    @classmethod
    def at(
        cls,
        source: SourceSpec,
        origin: SqlOrigin,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> "SqlRows":
        """The rows at the URL that the environment has; nothing is connected yet.

        Raises:
            SettingsError: if the variable is missing or holds no URL of a database that can be read here.
        """
        variable = origin.url_variable
        example = f"export {variable}=postgresql+psycopg://user:password@host/database"
        if not (url := environment.get(variable)):
            raise SettingsError(variable, f"is not set, but source {source.name!r} reads the database there", example)
        try:
            parts = sa.make_url(url)
        except (ArgumentError, ValueError):
            parts = None
        # A password with a bare @ is cut in two, and what comes after it would be shown as the host.
        if parts is None or "@" in (parts.host or ""):
            problem = "holds no SQLAlchemy URL (in passwords, @ : / are written %40 %3A %2F)"
            raise SettingsError(variable, problem, example) from None
        if (kind := parts.get_backend_name()) not in _SNAPSHOT:
            problem = f"holds the URL of a {kind} database, not of {' or '.join(_SNAPSHOT)}"
            raise SettingsError(variable, problem, example)
        try:
            engine = sa.create_engine(parts, pool_pre_ping=True)
        except (ImportError, ArgumentError) as error:
            raise SettingsError(variable, str(error), "pip install 'ml-platform[postgres]'") from error
        return cls(source, origin, engine, clock)

    def url(self, key: str) -> str:
        return f"{self.address}/{key.split('/')[1]}"

    def page(self, source: SourceSpec, after: str) -> Page:
        """The days with rows among the 366 that begin with the first such day after `after`, an object's key or ''."""
        last = self._last_due(source)
        with self._snapshot("be listed") as connection:
            first = self._next_day(connection, source, _first_day(source, after), last)
            if first is None:
                return Page((), False)
            end = min(last, first + timedelta(days=PAGE_DAYS - 1))
            return Page(tuple(self._landed(connection, source, first, end)), end < last)

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        if not source.start_date <= day <= self._last_due(source):
            return []
        with self._snapshot("be listed") as connection:
            return self._landed(connection, source, day, day)

    def fetch(self, source: SourceSpec, found: LandedObject, target: Path) -> None:
        """Write the day's rows, all columns, ordered by key and event time; only one batch of them is in memory."""
        day = _day_of(source, found.key)
        with self._snapshot("be read") as connection:
            if [now.etag for now in self._landed(connection, source, day, day)] != [found.etag]:
                raise LandingError(self.url(found.key), "was changed while it was read", "it is tried again")
            described = self._described(connection, source)
            rows = self._rows(source, *described)
            of_day = self._within(rows.c[source.event_time], day, day)
            if self._is_postgres:
                declared = {name: column.type for name, column in source.columns.items()}
                columns = [_postgres_column(rows.c[name], described[name], declared.get(name)) for name in described]
            else:
                columns = _sqlite_columns(source, rows, described, of_day, connection)
            order = (rows.c[name] for name in (*source.key, source.event_time))
            statement = sa.select(*(column.expression for column in columns)).where(of_day).order_by(*order)
            answer = connection.execute(statement, execution_options={"yield_per": BATCH_ROWS})
            schema = pa.schema([(column.name, column.type) for column in columns])
            with pq.ParquetWriter(target, schema) as writer:
                for batch in answer.partitions(BATCH_ROWS):
                    arrays = [
                        self._array(column, values)
                        for column, values in zip(columns, zip(*batch, strict=True), strict=True)
                    ]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))

    # --- days ---------------------------------------------------------------------------------------------------------

    def _last_due(self, source: SourceSpec) -> date:
        """The newest day that is over and `delay_days` old."""
        return (self.clock().astimezone(UTC) - timedelta(days=source.delay_days)).date() - ONE_DAY

    def _next_day(self, connection: sa.Connection, source: SourceSpec, first: date, last: date) -> date | None:
        """The first day that has rows."""
        rows = self._rows(source)
        time = rows.c[source.event_time]
        day = sa.func.date(time)
        # PostgreSQL finds the first time with an index; texts of several zones are not in the order of their times.
        order = time if self._is_postgres else day
        found = connection.scalar(sa.select(day).where(self._within(time, first, last)).order_by(order).limit(1))
        return None if found is None else date.fromisoformat(str(found))

    def _landed(self, connection: sa.Connection, source: SourceSpec, first: date, last: date) -> list[LandedObject]:
        """One object for each day from `first` to `last` that has rows."""
        rows = self._rows(source)
        time = rows.c[source.event_time]
        day = sa.func.date(time)
        changed = sa.func.max(rows.c[self.origin.changed_at]) if self.origin.changed_at else sa.null()
        statement = sa.select(day, sa.func.count(), changed, sa.func.max(time)).select_from(rows)
        statement = statement.where(self._within(time, first, last)).group_by(day).order_by(day)
        landed = []
        for found, count, changed_at, newest in connection.execute(statement):
            start = date.fromisoformat(str(found))  # SQLite has texts
            key, etag = _key(source, start), digest.of_json([count, changed_at])[:32]
            modified = _moment(changed_at) or _moment(newest) or start_of(start)
            landed.append(LandedObject(key, etag, count, modified))
        return landed

    def _within(self, time: sa.ColumnElement[Any], first: date, last: date) -> sa.ColumnElement[bool]:
        """Whether a time lies in the days from `first` to `last`."""
        if not self._is_postgres:
            return sa.func.date(time).between(first.isoformat(), last.isoformat())
        begin, end = (sa.literal(start_of(day), sa.DateTime(timezone=True)) for day in (first, last + ONE_DAY))
        return sa.and_(time >= begin, time < end)

    # --- columns ------------------------------------------------------------------------------------------------------

    def _rows(self, source: SourceSpec, *names: str) -> sa.FromClause:
        """The table or query, with these columns and the ones that the source's days are made from."""
        made_from = (*source.key, source.event_time, *filter(None, [self.origin.changed_at]))
        columns = [sa.column(name) for name in dict.fromkeys((*names, *made_from))]
        if self.origin.table:
            schema, _, table = self.origin.table.rpartition(".")
            return sa.table(table, *columns, schema=schema or None)
        # Colons are no parameters; the new line ends a comment.
        text = sa.text(str(self.origin.query).replace(":", r"\:") + "\n")
        return text.columns(*columns).subquery("origin")

    def _described(self, connection: sa.Connection, source: SourceSpec) -> dict[str, Any]:
        """All columns there are: name -> what the driver says of it."""
        everything = sa.select(sa.literal_column("*")).select_from(self._rows(source)).limit(0)
        with connection.execute(everything) as answer:
            described = answer.cursor.description if answer.cursor else ()
            return dict(zip(answer.keys(), described, strict=True))

    def _array(self, column: _Column, values: Sequence[Any]) -> pa.Array:
        try:
            if pa.types.is_timestamp(column.type):
                values = [datetime.fromisoformat(value) if isinstance(value, str) else value for value in values]
            if pa.types.is_boolean(column.type):
                values = [None if value is None else bool(value) for value in values]
            return pa.array(values, column.type)
        except (ValueError, TypeError, OverflowError) as error:
            problem = f"column {column.name!r} has a value that is no {column.type}: {error}"
            raise LandingError(self.address, problem, "convert or leave out such values in `origin.query`") from error

    # --- transactions -------------------------------------------------------------------------------------------------

    @property
    def _is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def _snapshot(self, attempt: str) -> Iterator[sa.Connection]:
        """A transaction that reads the database as of one moment, with times in UTC."""
        try:
            with self.engine.connect() as connection:
                for statement in _SNAPSHOT[self.engine.dialect.name]:
                    connection.exec_driver_sql(statement)
                yield connection
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            mistaken = isinstance(error, ProgrammingError | DataError) or (
                isinstance(error, OperationalError) and getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR"
            )
            next_step = "mend `origin`" if mistaken else f"start the database, or export {self.origin.url_variable}"
            raise LandingError(self.address, f"could not {attempt}: {reason}", next_step) from error


def _postgres_column(column: sa.ColumnElement[Any], described: Any, declared: str | None) -> _Column:
    """By the type that PostgreSQL says; what Arrow has no type for is text."""
    name = str(column.key)
    if described.type_code == _NUMERIC_OID:
        precision, scale = described.precision, described.scale
        if precision is not None and 0 <= scale <= precision <= 38:
            return _Column(name, column, pa.decimal128(precision, scale))
        # Numerics without precision, as sums are, are floats, unless whole numbers are declared: those stay exact.
        if declared in ("int8", "int16", "int32", "int64"):
            return _Column(name, column, pa.decimal128(38, 9))
        return _Column(name, sa.cast(column, sa.Double), pa.float64())
    if described.type_code == _DATE_OID and declared == "timestamp":
        return _Column(name, sa.cast(column, sa.DateTime(timezone=True)), _TIMESTAMP)
    if kind := _POSTGRES_TYPES.get(described.type_code):
        return _Column(name, column, kind)
    return _Column(name, sa.cast(column, sa.Text), pa.string())


def _sqlite_columns(
    source: SourceSpec,
    rows: sa.FromClause,
    names: Iterable[str],
    of_day: sa.ColumnElement[bool],
    connection: sa.Connection,
) -> list[_Column]:
    """By the values that the day has, since SQLite has types of values, not of columns."""
    default = {field.name: field.type for field in arrow_schema(source)}
    kinds = {name: _sqlite_kind(rows.c[name], default.get(name)) for name in names}
    statement = sa.select(*(sa.func.group_concat(kind.distinct()) for kind in kinds.values())).where(of_day)
    found = zip(kinds, connection.execute(statement).one(), strict=True)
    return [_sqlite_column(rows.c[name], set(of_values.split(",")), default.get(name)) for name, of_values in found]


def _sqlite_kind(column: sa.ColumnElement[Any], declared: pa.DataType | None) -> sa.ColumnElement[str]:
    """The type of a value. Times and booleans have none of their own there; they are told from the declared type."""
    kind = sa.func.typeof(column)
    if declared == _TIMESTAMP:
        return sa.case((sa.and_(kind == "text", sa.func.datetime(column).is_not(None)), "timestamp"), else_=kind)
    if declared == pa.bool_():
        return sa.case((sa.and_(kind == "integer", column.in_((0, 1))), "boolean"), else_=kind)
    return kind


def _sqlite_column(column: sa.ColumnElement[Any], kinds: set[str], declared: pa.DataType | None) -> _Column:
    """Values of kinds that have no type in common are text."""
    name = str(column.key)
    match sorted(kinds - {"null"}):
        case []:
            return _Column(name, column, declared or pa.string())
        case ["timestamp"]:
            return _Column(name, column, _TIMESTAMP)
        case ["boolean"]:
            return _Column(name, column, pa.bool_())
        case ["blob"]:
            return _Column(name, column, pa.binary())
        case ["integer"] | ["boolean", "integer"]:
            return _Column(name, column, pa.int64())
        case ["real"] | ["integer", "real"] | ["boolean", "real"] | ["boolean", "integer", "real"]:
            return _Column(name, sa.cast(column, sa.Float), pa.float64())
        case _:
            return _Column(name, sa.cast(column, sa.Text), pa.string())


def _key(source: SourceSpec, day: date) -> str:
    return f"{day_prefix(source.name, day)}rows.parquet"


def _day_of(source: SourceSpec, key: str) -> date:
    return date.fromisoformat(key.removeprefix(f"{source.name}/")[:10])


def _first_day(source: SourceSpec, after: str) -> date:
    """The first day whose object comes after the key."""
    try:
        day = _day_of(source, after)
    except ValueError:
        return source.start_date
    return max(source.start_date, day if after < _key(source, day) else day + ONE_DAY)


def _moment(value: Any) -> datetime | None:
    """A time of the database in UTC; None if the value is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return start_of(value) if isinstance(value, date) else None
