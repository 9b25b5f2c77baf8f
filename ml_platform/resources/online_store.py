"""The online store: the newest snapshot of every feature view, read by entity id on the request path.

Embedded it is a SQLite file of our own; behind Feast it is what Feast has, here SQLite or Redis (feast_store.py).
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from ml_platform.core import keys
from ml_platform.core.errors import FeatureError, SettingsError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.features.feast_repo import without_password

MATERIALIZE = f"materialize {keys.ONLINE_STORE}"


@dataclass(frozen=True)
class Found:
    """Feature values by entity id, and the moment that they are as of; ids without a row are left out."""

    as_of: datetime
    rows: Mapping[int | str, Mapping[str, float | int | None]]


class OnlineStore(Protocol):
    """One writer, the step of features/online_store; any number of readers, in other processes and on many threads."""

    def write(self, view: FeatureViewSpec, rows: pa.Table, as_of: datetime) -> bool:
        """Replace a view's rows (entity and features) by those as of a moment; False if newer ones are already there."""
        ...

    def read(self, view: str, entity: str, ids: Iterable[int | str], features: Iterable[str]) -> Found:
        """What is known about these ids.

        Raises:
            FeatureError: if the store cannot be read or has no such view: that is no reason to answer with defaults.
        """
        ...

    def as_of(self, view: str) -> datetime:
        """The moment that the view's rows are as of.

        Raises:
            FeatureError: if the store cannot be read, or the view was never written.
        """
        ...


def online_store_at(settings: Settings) -> OnlineStore:
    """The store at the address in the settings.

    Raises:
        SettingsError: if it is no address of a store, or one of Feast's, which is not installed.
    """
    url = settings.online_store_url
    if url.startswith("sqlite:///"):
        return SqliteStore(Path(url.removeprefix("sqlite:///")))
    if not url.startswith(("feast+sqlite:///", "redis://", "rediss://")):
        problem = f"{without_password(url)!r} is not [feast+]sqlite:///<path> or redis[s]://<host>"
        raise SettingsError("ML_PLATFORM_ONLINE_STORE", problem, "export ML_PLATFORM_ONLINE_STORE=...")
    try:
        from ml_platform.resources.feast_store import FeastStore  # it imports Feast
    except ImportError as error:
        raise SettingsError("ML_PLATFORM_ONLINE_STORE", str(error), "pip install 'ml-platform[feast]'") from error
    return FeastStore(settings)


def never_written(view: str) -> FeatureError:
    return FeatureError(f"{keys.ONLINE_STORE} [{view}]", "the view was never written", MATERIALIZE)


class SqliteStore:
    """A file with one table a view, replaced in one transaction: a reader sees the old snapshot or the new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections = threading.local()

    def write(self, view: FeatureViewSpec, rows: pa.Table, as_of: datetime) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name, entity, features = view.name, view.entity, list(view.features)
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS views (view TEXT PRIMARY KEY, as_of TEXT NOT NULL)")
            stored = connection.execute("SELECT as_of FROM views WHERE view = ?", (name,)).fetchone()
            if stored and datetime.fromisoformat(stored[0]) > as_of:
                connection.execute("ROLLBACK")
                return False
            columns = ", ".join(f'"{feature}"' for feature in features)
            connection.execute(f'DROP TABLE IF EXISTS "{name}"')
            connection.execute(f'CREATE TABLE "{name}" ("{entity}" PRIMARY KEY, {columns}) WITHOUT ROWID')
            marks = ", ".join("?" for _ in range(len(features) + 1))
            values = (rows[column].to_pylist() for column in (entity, *features))
            connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', zip(*values, strict=True))
            connection.execute("INSERT OR REPLACE INTO views VALUES (?, ?)", (name, as_of.isoformat()))
            connection.execute("COMMIT")
        return True

    def read(self, view: str, entity: str, ids: Iterable[int | str], features: Iterable[str]) -> Found:
        wanted, names = list(set(ids)), list(features)
        # Qualified, since SQLite takes a bare "name" that is no column for a string.
        columns = ", ".join(f'"{view}"."{name}"' for name in (entity, *names))
        marks = ", ".join("?" for _ in wanted)
        select = f'SELECT {columns} FROM "{view}" WHERE "{view}"."{entity}" IN ({marks})'
        with self._reading(view) as connection:
            as_of = _as_of(connection, view)
            rows = {row[0]: dict(zip(names, row[1:], strict=True)) for row in connection.execute(select, wanted)}
        return Found(as_of, rows)

    def as_of(self, view: str) -> datetime:
        with self._reading(view) as connection:
            return _as_of(connection, view)

    @contextmanager
    def _reading(self, view: str) -> Iterator[sqlite3.Connection]:
        """This thread's connection, for reading the store as it is at one moment."""
        try:
            if not hasattr(self._connections, "open"):
                self._connections.open = sqlite3.connect(
                    f"file:{self.path}?mode=ro", uri=True, timeout=5, isolation_level=None
                )
            connection = self._connections.open
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()
        except sqlite3.Error as error:
            raise FeatureError(
                f"{keys.ONLINE_STORE} [{view}]", f"cannot be read at {self.path}: {error}", MATERIALIZE
            ) from error


def _as_of(connection: sqlite3.Connection, view: str) -> datetime:
    found = connection.execute("SELECT as_of FROM views WHERE view = ?", (view,)).fetchone()
    if found is None:
        raise never_written(view)
    return datetime.fromisoformat(found[0])
