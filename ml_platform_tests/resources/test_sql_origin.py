from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from ml_platform.core.errors import LandingError, SettingsError
from ml_platform.core.spec import SourceSpec, SqlOrigin
from ml_platform.data.contract import fit, misfit
from ml_platform.data.formats import open_file
from ml_platform.data.landing import LandedObject, Origin
from ml_platform.resources import sql_origin
from ml_platform.resources.sql_origin import SqlRows
from ml_platform_tests.processes import free_port
from ml_platform_tests.servers import POSTGRES_PASSWORD as PASSWORD
from ml_platform_tests.stores import POSTGRES

NOW = datetime(2024, 3, 10, 12, tzinfo=UTC)


class Database:
    """An empty database, and the URL by which a source finds it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_postgres = url.startswith("postgresql")
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)

    def run(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%") if self.is_postgres else statement)

    def customers(self, *rows: tuple[int, str, str], type: str = "timestamp") -> None:
        """A table with rows of (id, event time, time of change); times are literals."""
        self.run(f"CREATE TABLE IF NOT EXISTS customers (id bigint, seen_at {type}, updated_at {type}, name text)")
        for number, seen, updated in rows:
            self.run(f"INSERT INTO customers VALUES ({number}, '{seen}', '{updated}', 'n{number}')")


@pytest.fixture
def postgres(postgres_url: str) -> Database:
    name = f"rows_{uuid4().hex[:8]}"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return Database(postgres_url.replace("/postgres", f"/{name}"))


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/rows.db")


@pytest.fixture(params=["sqlite", POSTGRES])
def database(request: pytest.FixtureRequest) -> Database:
    return request.getfixturevalue(request.param)


def a_source(**changes: Any) -> SourceSpec:
    columns = {"id": "int64", "seen_at": "timestamp", "updated_at": "timestamp", "name": "string"}
    values = {
        "name": "customers",
        "start_date": date(2024, 3, 1),
        "key": ["id"],
        "event_time": "seen_at",
        "columns": {name: {"type": kind} for name, kind in columns.items()},
        "origin": {"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers", "changed_at": "updated_at"},
    }
    return SourceSpec.model_validate({**values, **changes})


def opened(database: Database | str, source: SourceSpec, now: datetime = NOW) -> SqlRows:
    assert isinstance(source.origin, SqlOrigin)
    url = database if isinstance(database, str) else database.url
    return SqlRows.at(source, source.origin, {"WAREHOUSE_URL": url}, lambda: now)


def listed(origin: Origin, source: SourceSpec) -> list[LandedObject]:
    """All objects, as a caller finds them page by page."""
    found: list[LandedObject] = []
    for _ in range(100):
        page = origin.page(source, found[-1].key if found else "")
        found += page.objects
        if not page.more:
            return found
        assert page.objects, "an empty page with more after it would be asked for again and again"
    raise AssertionError("the pages have no end")


def days(objects: Sequence[LandedObject]) -> dict[str, int]:
    return {found.key.split("/")[1]: found.size for found in objects}


def fetched(origin: SqlRows, source: SourceSpec, day: date, folder: Path) -> pa.Table:
    (found,) = origin.of_day(source, day)
    origin.fetch(source, found, folder / "rows.parquet")
    return pq.read_table(folder / "rows.parquet")


# --- days -------------------------------------------------------------------------------------------------------------


def test_each_day_with_rows_is_one_object(database: Database) -> None:
    database.customers(
        (1, "2024-03-01 00:00:00", "2024-03-02 01:00:00"),
        (2, "2024-03-01 23:59:59.999999", "2024-03-04 02:30:00"),
        (3, "2024-03-03 12:00:00", "2024-03-03 13:00:00"),
    )
    source = a_source()
    origin = opened(database, source)
    found = listed(origin, source)
    assert [(o.key, o.size, o.last_modified) for o in found] == [
        ("customers/2024-03-01/rows.parquet", 2, datetime(2024, 3, 4, 2, 30, tzinfo=UTC)),
        ("customers/2024-03-03/rows.parquet", 1, datetime(2024, 3, 3, 13, tzinfo=UTC)),
    ]
    assert all(len(o.etag) == 32 for o in found)
    assert origin.of_day(source, date(2024, 3, 1)) == found[:1]
    assert origin.of_day(source, date(2024, 3, 2)) == []
    assert listed(opened(database, source), source) == found


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE customers SET name = 'new', updated_at = '2024-03-06 00:00:00' WHERE id = 1",
        "INSERT INTO customers VALUES (9, '2024-03-01 08:00:00', '2024-03-01 00:00:00', 'late')",
        "DELETE FROM customers WHERE id = 1",
    ],
)
def test_a_change_shows_in_the_etag_of_its_day_alone(database: Database, change: str) -> None:
    database.customers(
        (1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"),
        (2, "2024-03-01 11:00:00", "2024-03-02 00:00:00"),
        (3, "2024-03-02 11:00:00", "2024-03-02 12:00:00"),
    )
    source = a_source()
    origin = opened(database, source)
    before = listed(origin, source)
    database.run(change)
    after = listed(origin, source)
    assert [o.key for o in before] == [o.key for o in after]
    assert before[0].etag != after[0].etag
    assert before[1] == after[1]


def test_without_changed_at_rows_are_counted_and_the_newest_event_is_the_time(database: Database) -> None:
    database.customers((1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"))
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    origin = opened(database, source)
    (before,) = listed(origin, source)
    assert before.last_modified == datetime(2024, 3, 1, 10, tzinfo=UTC)
    database.run("UPDATE customers SET updated_at = '2024-03-05 00:00:00'")
    assert listed(origin, source) == [before]
    database.run("INSERT INTO customers VALUES (2, '2024-03-01 11:00:00', '2024-03-02 00:00:00', 'n')")
    assert listed(origin, source)[0].etag != before.etag


def test_changed_at_may_be_a_number(database: Database) -> None:
    database.run(
        "CREATE TABLE customers (id bigint, seen_at timestamp, version bigint)",
        "INSERT INTO customers VALUES (1, '2024-03-01 10:00:00', 7)",
    )
    source = a_source(
        origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers", "changed_at": "version"}
    )
    (found,) = listed(opened(database, source), source)
    assert found.last_modified == datetime(2024, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(("delay_days", "newest"), [(0, "2024-03-09"), (3, "2024-03-06")])
def test_days_that_are_not_due_are_not_there_yet(database: Database, delay_days: int, newest: str) -> None:
    database.customers(*((d, f"2024-03-{d:02} 00:00:00", f"2024-03-{d:02} 00:00:00") for d in range(1, 13)))
    source = a_source(delay_days=delay_days)
    origin = opened(database, source)
    found = listed(origin, source)
    assert found[-1].key == f"customers/{newest}/rows.parquet"
    assert origin.of_day(source, date.fromisoformat(newest)) == found[-1:]
    assert origin.of_day(source, date.fromisoformat(newest) + timedelta(days=1)) == []
    assert origin.page(source, found[-1].key).objects == ()
    a_day_later = opened(database, source, NOW.replace(hour=0) + timedelta(days=1))
    assert len(a_day_later.page(source, found[-1].key).objects) == 1


def test_days_before_the_start_date_and_rows_without_time_are_not_there(database: Database) -> None:
    database.customers(
        (1, "2024-02-29 23:59:59", "2024-03-01 00:00:00"), (2, "2024-03-01 00:00:00", "2024-03-01 00:00:00")
    )
    database.run("INSERT INTO customers VALUES (3, NULL, NULL, 'n')")
    source = a_source()
    origin = opened(database, source)
    assert days(listed(origin, source)) == {"2024-03-01": 1}
    assert origin.of_day(source, date(2024, 2, 29)) == []


def test_pages_end_after_a_year_and_skip_gaps_of_years(database: Database) -> None:
    dates = [
        date(2010, 1, 1),
        date(2010, 12, 31),
        date(2011, 1, 1),
        date(2011, 1, 2),
        date(2019, 6, 1),
        date(2024, 3, 9),
    ]
    database.customers(*((n, f"{day} 10:00:00", f"{day} 10:00:00") for n, day in enumerate(dates)))
    source = a_source(start_date=date(2005, 1, 1))
    origin = opened(database, source)
    pages, after = [], ""
    while True:
        page = origin.page(source, after)
        pages.append([o.key.split("/")[1] for o in page.objects])
        if not page.more:
            break
        after = page.objects[-1].key
    assert pages == [["2010-01-01", "2010-12-31", "2011-01-01"], ["2011-01-02"], ["2019-06-01"], ["2024-03-09"]]


def test_a_page_may_begin_with_a_day(database: Database) -> None:
    database.customers(*((d, f"2024-03-0{d} 00:00:00", f"2024-03-0{d} 00:00:00") for d in range(1, 5)))
    source = a_source()
    assert list(days(opened(database, source).page(source, "customers/2024-03-03").objects)) == [
        "2024-03-03",
        "2024-03-04",
    ]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_fetch_gives_the_rows_of_the_day_in_order_of_the_key(database: Database, tmp_path: Path) -> None:
    database.customers(
        (4, "2024-03-02 23:59:59.999999", "2024-03-03 00:00:00"),
        (3, "2024-03-02 00:00:00", "2024-03-03 00:00:00"),
        (2, "2024-03-01 23:59:59.999999", "2024-03-03 00:00:00"),
        (1, "2024-03-03 00:00:00", "2024-03-03 00:00:00"),
    )
    source = a_source()
    rows = fetched(opened(database, source), source, date(2024, 3, 2), tmp_path)
    assert rows.to_pydict() == {
        "id": [3, 4],
        "seen_at": [datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 2, 23, 59, 59, 999999, UTC)],
        "updated_at": [datetime(2024, 3, 3, tzinfo=UTC)] * 2,
        "name": ["n3", "n4"],
    }
    assert misfit(source, open_file("rows.parquet", tmp_path / "rows.parquet", 1 << 30)) == ""


def test_times_with_zones_lie_in_their_day_in_utc(database: Database, tmp_path: Path) -> None:
    database.customers(
        (1, "2024-03-02T00:30:00+02:00", "2024-03-05T00:30:00+02:00"),
        (2, "2024-03-02T00:00:00+00:00", "2024-03-03T00:00:00Z"),
        (3, "2024-03-02T23:30:00-01:00", "2024-03-03T00:00:00Z"),
        (4, "2024-03-02T23:59:59.999999Z", "2024-03-03T00:00:00Z"),
        type="timestamptz",
    )
    source = a_source()
    origin = opened(database, source)
    found = listed(origin, source)
    assert days(found) == {"2024-03-01": 1, "2024-03-02": 2, "2024-03-03": 1}
    assert found[0].last_modified == datetime(2024, 3, 4, 22, 30, tzinfo=UTC)
    rows = fetched(origin, source, date(2024, 3, 2), tmp_path)
    assert rows["id"].to_pylist() == [2, 4]
    assert rows["seen_at"].to_pylist() == [
        datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 2, 23, 59, 59, 999999, UTC),
    ]  # fmt: skip


def test_the_event_time_may_be_a_date(database: Database, tmp_path: Path) -> None:
    database.customers((1, "2024-03-02", "2024-03-02"), type="date")
    source = a_source()
    origin = opened(database, source)
    assert [(o.size, o.last_modified) for o in listed(origin, source)] == [(1, datetime(2024, 3, 2, tzinfo=UTC))]
    assert fetched(origin, source, date(2024, 3, 2), tmp_path)["seen_at"].to_pylist() == [
        datetime(2024, 3, 2, tzinfo=UTC)
    ]


def test_a_big_day_is_written_batch_by_batch(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_origin, "BATCH_ROWS", 10)
    database.customers()
    values = ", ".join(f"({n}, '2024-03-01 10:00:00', '2024-03-01 10:00:00', 'n')" for n in range(95))
    database.run(f"INSERT INTO customers VALUES {values}")
    source = a_source()
    cursors = []
    origin = opened(database, source)
    event.listen(origin.engine, "before_cursor_execute", lambda _, cursor, *__: cursors.append(type(cursor).__name__))
    rows = fetched(origin, source, date(2024, 3, 1), tmp_path)
    assert rows["id"].to_pylist() == list(range(95))
    assert pq.read_metadata(tmp_path / "rows.parquet").num_row_groups == 10
    if database.is_postgres:
        assert cursors[-1] == "ServerCursor", "the driver would read the whole answer at once"


def test_types_are_kept_with_nulls_unicode_and_undeclared_columns(database: Database, tmp_path: Path) -> None:
    blob = "'\\x00ff'::bytea" if database.is_postgres else "x'00ff'"
    true = "true" if database.is_postgres else "1"
    database.run(
        f"CREATE TABLE customers (id bigint, seen_at timestamp, amount numeric(12, 2), ratio double precision, "
        f'active boolean, name text, "Größe 100%:x" smallint, content {"bytea" if database.is_postgres else "blob"})',
        "INSERT INTO customers VALUES (1, '2024-03-01 10:00:00', NULL, NULL, NULL, NULL, NULL, NULL)".replace(
            "%", "%%"
        ),
        f"INSERT INTO customers VALUES (2, '2024-03-01 10:00:00', 1234567890.25, 0.5, {true}, 'Zoë 🦊 ''x''', 7, {blob})",
    )
    columns = {"id": "int64", "seen_at": "timestamp", "amount": "float64", "ratio": "float64", "active": "bool"}
    source = a_source(
        columns={name: {"type": kind, "nullable": name != "id"} for name, kind in columns.items()},
        origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"},
    )
    rows = fetched(opened(database, source), source, date(2024, 3, 1), tmp_path)
    assert rows.to_pylist()[0] == dict.fromkeys(rows.column_names) | {
        "id": 1,
        "seen_at": datetime(2024, 3, 1, 10, tzinfo=UTC),
    }
    amount = Decimal("1234567890.25")
    assert rows.to_pylist()[1] == {
        "id": 2, "seen_at": datetime(2024, 3, 1, 10, tzinfo=UTC), "amount": amount if database.is_postgres else float(amount),
        "ratio": 0.5, "active": True, "name": "Zoë 🦊 'x'", "Größe 100%:x": 7, "content": b"\x00\xff",
    }  # fmt: skip
    assert misfit(source, open_file("rows.parquet", tmp_path / "rows.parquet", 1 << 30)) == ""


def test_a_first_batch_without_any_value_has_the_type_of_the_later_ones(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_origin, "BATCH_ROWS", 2)
    database.run("CREATE TABLE customers (id bigint, seen_at timestamp, score double precision, note text, never text)")
    for n in range(6):
        values = "0.5, 'later'" if n == 5 else "NULL, NULL"
        database.run(f"INSERT INTO customers VALUES ({n}, '2024-03-01 10:00:00', {values}, NULL)")
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    rows = fetched(opened(database, source), source, date(2024, 3, 1), tmp_path)
    assert rows["score"].to_pylist() == [None] * 5 + [0.5]
    assert rows["note"].to_pylist() == [None] * 5 + ["later"]
    assert rows.schema.field("never").type == pa.string()


def test_a_query_is_read_like_a_table(database: Database, tmp_path: Path) -> None:
    database.customers(
        (1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"), (2, "2024-03-01 11:00:00", "2024-03-02 00:00:00")
    )
    query = """
        SELECT id, seen_at, updated_at, name || ' 5% :not_a_parameter' AS name, 'a:b' AS "group" FROM customers
        WHERE name LIKE 'n%' AND id > 1 -- the rest are tests"""
    source = a_source(
        origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "query": query, "changed_at": "updated_at"}
    )
    origin = opened(database, source)
    assert days(listed(origin, source)) == {"2024-03-01": 1}
    rows = fetched(origin, source, date(2024, 3, 1), tmp_path).to_pylist()
    assert [(row["id"], row["name"], row["group"]) for row in rows] == [(2, "n2 5% :not_a_parameter", "a:b")]
    assert origin.url("customers/2024-03-01/rows.parquet") == "sql://WAREHOUSE_URL/customers/2024-03-01"


def test_a_table_may_be_in_a_schema_and_have_the_name_of_a_keyword(database: Database, tmp_path: Path) -> None:
    schema = "public" if database.is_postgres else "main"
    database.run(
        f'CREATE TABLE {schema}."order" (id bigint, seen_at timestamp)',
        f"INSERT INTO {schema}.\"order\" VALUES (1, '2024-03-01 10:00:00')",
    )
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": f"{schema}.order"})
    origin = opened(database, source)
    assert fetched(origin, source, date(2024, 3, 1), tmp_path)["id"].to_pylist() == [1]
    assert origin.url("customers/2024-03-01/rows.parquet") == f"sql://WAREHOUSE_URL/{schema}.order/2024-03-01"


def test_sums_are_floats_unless_whole_numbers_are_declared(postgres: Database, tmp_path: Path) -> None:
    query = f"""SELECT 1::numeric AS id, timestamp '2024-03-01 10:00' AS seen_at, sum(x) AS total, avg(x) AS mean,
        sum(y) AS whole FROM (VALUES (0.10, {2**62}), (0.25, {2**61 + 1})) AS v(x, y)"""
    columns = {"id": "int64", "seen_at": "timestamp", "whole": "int64"}
    source = a_source(
        columns={name: {"type": kind} for name, kind in columns.items()},
        origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "query": query},
    )
    (row,) = fetched(opened(postgres, source), source, date(2024, 3, 1), tmp_path).to_pylist()
    assert (row["total"], row["mean"], row["whole"]) == (0.35, 0.175, 2**62 + 2**61 + 1)
    assert isinstance(row["total"], float)
    assert misfit(source, open_file("rows.parquet", tmp_path / "rows.parquet", 1 << 30)) == ""


def test_types_that_arrow_has_not_are_text(postgres: Database, tmp_path: Path) -> None:
    postgres.run(
        "CREATE TYPE mood AS ENUM ('fine')",
        "CREATE TABLE customers (id bigint, seen_at timestamp, u uuid, j jsonb, a int[], m mood, d date)",
        "INSERT INTO customers VALUES (1, '2024-03-01 10:00:00', '00000000-0000-0000-0000-000000000001', "
        "'{\"a\": [1]}', '{1,2}', 'fine', '2024-03-01')",
    )
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    (row,) = fetched(opened(postgres, source), source, date(2024, 3, 1), tmp_path).to_pylist()
    assert [row[name] for name in "ujamd"] == [
        "00000000-0000-0000-0000-000000000001", '{"a": [1]}', "{1,2}", "fine", date(2024, 3, 1),
    ]  # fmt: skip


def test_a_value_that_has_no_place_in_its_type_is_named(postgres: Database, tmp_path: Path) -> None:
    postgres.run(
        "CREATE TABLE customers (id bigint, seen_at timestamp, amount numeric)",
        "INSERT INTO customers VALUES (1, '2024-03-01 10:00:00', 'Infinity')",
    )
    columns = {
        name: {"type": kind} for name, kind in (("id", "int64"), ("seen_at", "timestamp"), ("amount", "float64"))
    }
    source = a_source(columns=columns, origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    with pytest.raises(
        LandingError, match=r"column 'amount' has a value that is no decimal256.*Next: .*`origin.query`"
    ):
        fetched(opened(postgres, source), source, date(2024, 3, 1), tmp_path)


def test_texts_that_are_no_times_and_mixed_columns_of_sqlite_stay_text(sqlite: Database, tmp_path: Path) -> None:
    sqlite.run(
        "CREATE TABLE customers (id bigint, seen_at text, updated_at text, name, mixed, number)",
        "INSERT INTO customers VALUES (1, '2024-03-01 10:00:00', 'yesterday', 'a', 1, 1)",
        "INSERT INTO customers VALUES (2, '2024-03-01T10:00:00Z', '2024-03-01', 'b', 'x', 2.5)",
    )
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    rows = fetched(opened(sqlite, source), source, date(2024, 3, 1), tmp_path)
    assert rows["seen_at"].to_pylist() == [datetime(2024, 3, 1, 10, tzinfo=UTC)] * 2
    assert rows["updated_at"].to_pylist() == ["yesterday", "2024-03-01"]
    assert rows["mixed"].to_pylist() == ["1", "x"]
    assert rows["number"].to_pylist() == [1.0, 2.5]
    assert "updated_at" in misfit(source, open_file("rows.parquet", tmp_path / "rows.parquet", 1 << 30))


# --- times that say no day --------------------------------------------------------------------------------------------


def in_sqlite(sqlite: Database, *times: Any, **values: list[Any]) -> SourceSpec:
    """A table of SQLite with these times as they are, and its source."""
    names = ["id", "seen_at", *values]
    with sqlite.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE customers ({', '.join(names)})")
        for number, row in enumerate(zip(times, *values.values(), strict=True)):
            marks = ", ".join("?" * len(names))
            connection.exec_driver_sql(f"INSERT INTO customers VALUES ({marks})", (number, *row))
    kinds = {"id": "int64", "seen_at": "timestamp"}
    return a_source(
        columns={name: {"type": kind} for name, kind in kinds.items()},
        origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"},
    )


def test_times_of_sqlite_are_those_of_the_rule_for_texts(sqlite: Database, tmp_path: Path) -> None:
    times = ["2024-03-01 10:00:00", "2024-03-01 10:00:00 UTC", "2024-03-01 10:00:00 +0000 UTC", "2024-03-01T12:00:00+0200",
             "2024-03-01T10:00:00.000000000Z", "2024-03-02 00:30:00+02:00", "2024-03-01", "2024-03-01 10:00:00.000001"]  # fmt: skip
    source = in_sqlite(sqlite, *times)
    origin = opened(sqlite, source)
    assert days(listed(origin, source)) == {"2024-03-01": 8}
    assert origin.without_day(source) == []
    found = fetched(origin, source, date(2024, 3, 1), tmp_path)["seen_at"].to_pylist()
    ten = datetime(2024, 3, 1, 10, tzinfo=UTC)
    assert found == [ten] * 5 + [
        ten + timedelta(hours=12, minutes=30),
        ten.replace(hour=0),
        ten + timedelta(microseconds=1),
    ]


@pytest.mark.parametrize(
    "time",
    ["02/01/2024", 1709287200, 1709287200.5, "1709287200", 2460371, "2460371.5", "10:00", "now", "2024-02-30", "2024-02-30 10:00:00",
     "2024-03-01 24:00:00", "2024-03-01 10:00:00.0000001", "yesterday", None, b"2024-03-01", "", "20240301"],
)  # fmt: skip
def test_row_whose_time_says_no_day_is_a_stray(sqlite: Database, time: Any) -> None:
    source = in_sqlite(sqlite, "2024-03-01 10:00:00", time)
    origin = opened(sqlite, source)
    assert days(listed(origin, source)) == {"2024-03-01": 1}
    (stray,) = origin.without_day(source)
    assert (stray.object.key, stray.object.size) == ("customers: rows without a day", 1)
    assert stray.problem.startswith("a row whose seen_at says no day: ")


def test_strays_are_counted_and_one_is_shown(database: Database) -> None:
    database.customers((1, "2024-03-01 10:00:00", "2024-03-01 10:00:00"))
    database.run(
        "INSERT INTO customers VALUES (2, NULL, NULL, 'a')", "INSERT INTO customers VALUES (3, NULL, NULL, 'b')"
    )
    source = a_source()
    (stray,) = opened(database, source).without_day(source)
    assert (stray.object.size, stray.problem) == (2, "2 rows whose seen_at says no day: null")


def test_times_without_end_say_no_day_in_postgres(postgres: Database) -> None:
    postgres.customers((1, "2024-03-01 10:00:00", "2024-03-01 10:00:00"), (2, "infinity", "2024-03-01 10:00:00"))
    source = a_source()
    origin = opened(postgres, source)
    assert days(listed(origin, source)) == {"2024-03-01": 1}
    assert origin.without_day(source)[0].problem == "a row whose seen_at says no day: 'infinity'"


def test_table_of_which_no_row_has_a_day_says_why(sqlite: Database) -> None:
    source = in_sqlite(sqlite, 1709287200, 1709287201)
    with pytest.raises(
        LandingError,
        match=r"has no day: 2 rows whose seen_at says no day: '1709287201'\. Next: origin.query: .*unixepoch",
    ):
        opened(sqlite, source).page(source, "")


def test_empty_table_and_one_of_days_to_come_are_no_mistake(database: Database) -> None:
    database.customers()
    source = a_source()
    assert listed(opened(database, source), source) == []
    database.customers((1, "2024-03-11 10:00:00", "2024-03-11 10:00:00"))
    database.run("INSERT INTO customers VALUES (2, NULL, NULL, 'a')")
    assert listed(opened(database, source), source) == []


@pytest.mark.parametrize(("kind", "value", "mend"), [("bigint", "1709287200", "to_timestamp"), ("text", "'2024-03-01'", "::timestamptz")])  # fmt: skip
def test_event_time_that_is_no_time_in_postgres_is_named(postgres: Database, kind: str, value: str, mend: str) -> None:
    postgres.run(f"CREATE TABLE customers (id bigint, seen_at {kind})", f"INSERT INTO customers VALUES (1, {value})")
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    with pytest.raises(LandingError, match=rf"event_time 'seen_at' is {kind} there, .*Next: origin.query: .*{mend}"):
        opened(postgres, source).page(source, "")


# --- values that would be rounded -------------------------------------------------------------------------------------


def test_numerics_come_exactly_and_nan_as_null(postgres: Database, tmp_path: Path) -> None:
    postgres.run(
        "CREATE TABLE customers (id bigint, seen_at timestamp, a numeric, b numeric(5, 2))",
        "INSERT INTO customers VALUES (1, '2024-03-01', 9007199254740993, 'NaN'), (2, '2024-03-01', 'NaN', 0.5), "
        "(3, '2024-03-01', 1.0 / 3, NULL)",
    )
    columns = {"id": "int64", "seen_at": "timestamp", "a": "float64", "b": "float64"}
    source = a_source(
        columns={name: {"type": kind, "nullable": True} if name in "ab" else {"type": kind} for name, kind in columns.items()},
        origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"},
    )  # fmt: skip
    rows = fetched(opened(postgres, source), source, date(2024, 3, 1), tmp_path)
    assert rows["b"].to_pylist() == [None, Decimal("0.50"), None]
    assert rows["a"].to_pylist()[:2] == [Decimal(2**53 + 1), None]
    table, (offence,) = fit(source, rows, pa.schema([]))
    assert table["a"].to_pylist() == [None, None, 1 / 3]
    assert offence.rows.tolist() == [0]


def test_times_beyond_the_calendar_are_refused_row_by_row(postgres: Database, tmp_path: Path) -> None:
    postgres.customers(
        (1, "2024-03-01 10:00:00", "infinity"), (2, "2024-03-01 10:00:00", "0044-03-15 00:00:00 BC"),
        (3, "2024-03-01 10:00:00", "9999-12-31 23:59:59.999999"), (4, "2024-03-01 10:00:00", "20000-01-01"),
    )  # fmt: skip
    source = a_source(origin={"type": "sql", "url_variable": "WAREHOUSE_URL", "table": "customers"})
    rows = fetched(opened(postgres, source), source, date(2024, 3, 1), tmp_path)
    table, offences = fit(source, rows, pa.schema([]))
    assert table["updated_at"].to_pylist() == [None, None, datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), None]
    assert [one.rows.tolist() for one in offences] == [[0, 1, 3]]


def test_long_integers_beside_floats_are_not_rounded(sqlite: Database, tmp_path: Path) -> None:
    source = in_sqlite(sqlite, "2024-03-01", "2024-03-01", short=[1, 0.5], long=[2**53 + 1, 0.5])
    rows = fetched(opened(sqlite, source), source, date(2024, 3, 1), tmp_path)
    assert rows["short"].to_pylist() == [1.0, 0.5]
    assert rows["long"].to_pylist() == ["9007199254740993", "0.5"]


# --- changes while it is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE customers SET updated_at = '2024-03-06 00:00:00'",
        "INSERT INTO customers VALUES (9, '2024-03-01 08:00:00', '2024-03-01 00:00:00', 'late')",
        "DELETE FROM customers",
    ],
)
def test_a_day_that_is_not_what_was_found_is_refused(database: Database, tmp_path: Path, change: str) -> None:
    database.customers((1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"))
    source = a_source()
    origin = opened(database, source)
    (found,) = listed(origin, source)
    database.run(change)
    with pytest.raises(LandingError, match=r"^sql://WAREHOUSE_URL/customers/2024-03-01: was changed while it was read"):
        origin.fetch(source, found, tmp_path / "rows.parquet")


def test_rows_that_arrive_during_the_read_are_not_in_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not database.is_postgres:
        database.run("PRAGMA journal_mode = WAL")  # otherwise SQLite lets nobody write meanwhile
    database.customers((1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"))
    source = a_source()
    origin = opened(database, source)
    described: Callable[..., Any] = origin._described

    def interrupted(*arguments: Any) -> Any:
        database.customers((2, "2024-03-01 10:00:00", "2024-03-02 00:00:00"))
        return described(*arguments)

    monkeypatch.setattr(origin, "_described", interrupted)
    assert fetched(origin, source, date(2024, 3, 1), tmp_path)["id"].to_pylist() == [1]
    assert origin.of_day(source, date(2024, 3, 1))[0].size == 2


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_missing_variable_is_named() -> None:
    source = a_source()
    assert isinstance(source.origin, SqlOrigin)
    with pytest.raises(SettingsError, match=r"^WAREHOUSE_URL: is not set.*'customers'.*Next: export WAREHOUSE_URL="):
        SqlRows.at(source, source.origin, {})


@pytest.mark.parametrize(
    "url",
    [
        f"{PASSWORD} is no URL",
        f"postgresql+psycopg://me:half@{PASSWORD}@host/db",
        f"postgresql+psycopg://me:half:{PASSWORD}",
        f"postgresql+psycopg://me@host:{PASSWORD}/db",
    ],
)
def test_a_url_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="^WAREHOUSE_URL: holds no SQLAlchemy URL") as caught:
        opened(url, a_source())
    assert PASSWORD not in _everything(caught.value)


@pytest.mark.parametrize("kind", ["mysql", "nothing"])
def test_databases_of_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(SettingsError, match=f"^WAREHOUSE_URL: .* of a {kind} database, not of postgresql or sqlite"):
        opened(f"{kind}://me:{PASSWORD}@host/db", a_source())


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^WAREHOUSE_URL: .*pg8000.*Next: .*ml-platform\[postgres\]"):
        opened("postgresql+pg8000://me:secret@host/db", a_source())


def test_mistakes_in_the_origin_are_told_from_a_database_that_is_down(database: Database) -> None:
    database.customers((1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"))
    base = {"type": "sql", "url_variable": "WAREHOUSE_URL"}
    for wrong, named in (
        ({"table": "nowhere"}, "nowhere"),
        ({"table": "customers", "changed_at": "nothing"}, "nothing"),
        ({"query": "SELECT id FROM customers"}, "seen_at"),
        ({"query": "SELEKT 1"}, "syntax error"),
    ):
        source = a_source(origin=base | wrong)
        with pytest.raises(LandingError, match=rf"^sql://WAREHOUSE_URL/.*{named}.*Next: mend `origin`") as caught:
            listed(opened(database, source), source)
        assert isinstance(caught.value.__cause__, SQLAlchemyError)
        assert PASSWORD not in _everything(caught.value)


def test_a_database_that_is_down_is_named_by_its_variable(database: Database, tmp_path: Path) -> None:
    down = f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{free_port()}/postgres"
    url = down if database.is_postgres else f"sqlite:///{tmp_path}/no/such/folder.db"
    source = a_source()
    with pytest.raises(LandingError, match="^sql://WAREHOUSE_URL/customers: .*export WAREHOUSE_URL") as caught:
        listed(opened(url, source), source)
    assert PASSWORD not in _everything(caught.value)


def test_a_wrong_password_is_not_shown(postgres: Database) -> None:
    source = a_source()
    wrong = postgres.url.replace(PASSWORD, "wrong-secret")
    with pytest.raises(LandingError, match="password authentication failed") as caught:
        listed(opened(wrong, source), source)
    assert "wrong-secret" not in _everything(caught.value)


def test_a_connection_that_was_lost_is_made_anew(postgres: Database) -> None:
    postgres.customers((1, "2024-03-01 10:00:00", "2024-03-02 00:00:00"))
    source = a_source()
    origin = opened(postgres, source)
    before = listed(origin, source)
    postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    assert listed(origin, source) == before


def _everything(error: BaseException | None) -> str:
    """What an error and its causes say."""
    text = ""
    while error is not None:
        text += f"{error!s} {error!r}\n"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text
