# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer methods than the library has.
"""Rows of a database, on PostgreSQL or SQLite: the origin of sources that are a table or a query.

A day that has rows is handed over as one object, `<source>/<day>/rows.parquet`, once it is over and `delay_days` old. Rows
whose event time says no day are strays of every day. SQLite has no type for times: they are texts there, by the rule for
texts of `core/values.py`. The size of an object is its number of rows.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from ml_platform.core.values import of_json
from ml_platform.data.landing import LandedObject, Page, Stray, day_prefix
from ml_platform.resources.sql_columns import (
    NUMBERS,
    TIMES,
    array,
    kind_of_postgres,
    know_times,
    of_postgres,
    of_sqlite,
    sqlite_day,
)

BATCH_ROWS = 100_000
PAGE_DAYS = 366

# What makes the statements of a transaction see the database as of one moment, and times as UTC.
_SNAPSHOT = {
    "postgresql": ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'"),
    "sqlite": ("BEGIN",),
}


class SqlRows:
    """One source's rows in one database. `clock` says when a day is over; `origin.url_variable` stands for its URL."""

    def __init__(self, source: SourceSpec, origin: SqlOrigin, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self.origin = origin
        self.engine = engine
        self._is_postgres = engine.dialect.name == "postgresql"
        if not self._is_postgres:
            know_times(engine)
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
            self._require_times(connection, source)
            first = self._next_day(connection, source, start := _first_day(source, after), last)
            if first is None:
                if start == source.start_date:
                    self._require_days(connection, source)
                return Page((), False)
            end = min(last, first + timedelta(days=PAGE_DAYS - 1))
            return Page(tuple(self._landed(connection, source, first, end)), end < last)

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        if not source.start_date <= day <= self._last_due(source):
            return []
        with self._snapshot("be listed") as connection:
            return self._landed(connection, source, day, day)

    def without_day(self, source: SourceSpec) -> list[Stray]:
        """The rows whose event time says no day; nobody knows which day they are missing from."""
        with self._snapshot("be listed") as connection:
            return self._without_day(connection, source)

    def fetch(self, source: SourceSpec, found: LandedObject, target: Path) -> None:
        """Write the day's rows, all columns, ordered by key and event time; only one batch of them is in memory."""
        day = _day_of(source, found.key)
        with self._snapshot("be read") as connection:
            if [now.etag for now in self._landed(connection, source, day, day)] != [found.etag]:
                raise LandingError(self.url(found.key), "was changed while it was read", "it is tried again")
            described = self._described(connection, source)
            rows = self._rows(source, *described)
            of_day = self._within(rows.c[source.event_time], day, day)
            columns = (of_postgres if self._is_postgres else of_sqlite)(source, rows, described, of_day, connection)
            order = (rows.c[name] for name in (*source.key, source.event_time))
            statement = sa.select(*(column.expression for column in columns)).where(of_day).order_by(*order)
            answer = connection.execute(statement, execution_options={"yield_per": BATCH_ROWS})
            schema = pa.schema([(column.name, column.type) for column in columns])
            with pq.ParquetWriter(target, schema) as writer:
                for batch in answer.partitions(BATCH_ROWS):
                    values = zip(*batch, strict=True)
                    arrays = [array(column, each, self.address) for column, each in zip(columns, values, strict=True)]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))

    # --- days ---------------------------------------------------------------------------------------------------------

    def _last_due(self, source: SourceSpec) -> date:
        """The newest day that is over and `delay_days` old."""
        return (self.clock().astimezone(UTC) - timedelta(days=source.delay_days)).date() - ONE_DAY

    def _next_day(self, connection: sa.Connection, source: SourceSpec, first: date, last: date) -> date | None:
        """The first day that has rows."""
        rows = self._rows(source)
        time = rows.c[source.event_time]
        day = self._day(time)
        # PostgreSQL finds the first time with an index; texts of several zones are not in the order of their times.
        order = time if self._is_postgres else day
        found = connection.scalar(sa.select(day).where(self._within(time, first, last)).order_by(order).limit(1))
        return None if found is None else date.fromisoformat(str(found))

    def _landed(self, connection: sa.Connection, source: SourceSpec, first: date, last: date) -> list[LandedObject]:
        """One object for each day from `first` to `last` that has rows."""
        rows = self._rows(source)
        time = rows.c[source.event_time]
        day = self._day(time)
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
            return sqlite_day(time).between(first.isoformat(), last.isoformat())
        begin, end = (sa.literal(start_of(day), sa.DateTime(timezone=True)) for day in (first, last + ONE_DAY))
        return sa.and_(time >= begin, time < end)

    def _day(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.date(time) if self._is_postgres else sqlite_day(time)

    def _says_no_day(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        if self._is_postgres:  # so that an index helps
            return sa.or_(time.is_(None), time.in_([sa.literal_column("'infinity'"), sa.literal_column("'-infinity'")]))
        return sqlite_day(time).is_(None)

    def _without_day(self, connection: sa.Connection, source: SourceSpec) -> list[Stray]:
        rows = self._rows(source)
        time = rows.c[source.event_time]
        text = sa.cast(time, sa.Text)
        statement = sa.select(sa.func.count(), sa.func.max(text)).select_from(rows).where(self._says_no_day(time))
        count, example = connection.execute(statement).one()
        if not count:
            return []
        key, words = f"{source.name}: rows without a day", f"{count:,} rows" if count > 1 else "a row"
        problem = f"{words} whose {source.event_time} says no day: {'null' if example is None else repr(example)}"
        return [Stray(LandedObject(key, str(count), count, self.clock()), problem)]

    def _require_times(self, connection: sa.Connection, source: SourceSpec) -> None:
        """PostgreSQL compares nothing else with times."""
        described = self._described(connection, source).get(source.event_time) if self._is_postgres else None
        if described is not None and (kind := kind_of_postgres(described)) not in TIMES:
            mend = f"to_timestamp({source.event_time})" if kind in NUMBERS else f"{source.event_time}::timestamptz"
            problem = f"event_time {source.event_time!r} is {kind} there, which is no type of times"
            raise LandingError(self.address, problem, f"origin.query: SELECT ..., {mend} AS {source.event_time}")

    def _require_days(self, connection: sa.Connection, source: SourceSpec) -> None:
        """A table whose rows all have no day would never be noticed."""
        rows = self._rows(source)
        some = sa.select(sa.literal(1)).select_from(rows).where(sa.not_(self._says_no_day(rows.c[source.event_time])))
        if (strays := self._without_day(connection, source)) and connection.scalar(some.limit(1)) is None:
            mend = (
                f"SELECT ..., datetime({source.event_time}, 'unixepoch') AS {source.event_time}, if it is epoch seconds"
            )
            raise LandingError(self.address, f"has no day: {strays[0].problem}", f"origin.query: {mend}")

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

    # --- transactions -------------------------------------------------------------------------------------------------

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
    try:
        found = of_json("timestamp", value)
    except ValueError:
        return None
    return found if isinstance(found, datetime) else None
