"""Times in tables that a database does not take for times: the rows are found, or are said to be missing."""

import sqlite3
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ml_platform.core.spec import SourceSpec, SqlOrigin
from ml_platform.resources.sql_origin import SqlRows

CASES = [
    ("yesodweb/persistent#328", "2014-11-30 05:15:25.395343 UTC", date(2014, 11, 30)),
    ("valderman/selda#170", "2021-09-30 01:00:00+0200", date(2021, 9, 29)),
    ("brody2consult/cordova-sqlite-storage#295", "2015-06-27T10:58:24.000Z", date(2015, 6, 27)),
    ("doctrine/dbal#1934", "2013-05-20 00:56", date(2013, 5, 20)),
    ("doctrine/dbal#1934", "foo", None),
    ("xerial/sqlite-jdbc#490", "", None),
    ("rusqlite/rusqlite#433", "2018-11-22", date(2018, 11, 22)),
]


@pytest.mark.parametrize(("thread", "time", "day"), CASES)
def test_row_is_of_its_day_or_a_stray(tmp_path: Path, thread: str, time: Any, day: date | None) -> None:
    with sqlite3.connect(tmp_path / "rows.db") as database:
        database.execute("CREATE TABLE rows (id INTEGER, at DATETIME)")
        database.executemany("INSERT INTO rows VALUES (?, ?)", [(1, "2000-01-01"), (2, time)])
    database.close()
    source = SourceSpec.model_validate(
        {
            "name": "rows",
            "start_date": "2000-01-01",
            "key": ["id"],
            "event_time": "at",
            "columns": {"id": {"type": "int64"}, "at": {"type": "timestamp"}},
            "origin": {"type": "sql", "url_variable": "URL", "table": "rows"},
        }
    )
    assert isinstance(source.origin, SqlOrigin)
    url = {"URL": f"sqlite:///{tmp_path}/rows.db"}
    origin = SqlRows.at(source, source.origin, url, lambda: datetime(2024, 4, 1, tzinfo=UTC))
    days, after = [], ""
    while (page := origin.page(source, after)).objects:
        days += [found.key.split("/")[1] for found in page.objects]
        after = page.objects[-1].key
    assert days == ["2000-01-01", *([day.isoformat()] if day else [])], thread
    assert [stray.object.size for stray in origin.without_day(source)] == ([] if day else [1])
    origin.engine.dispose()
