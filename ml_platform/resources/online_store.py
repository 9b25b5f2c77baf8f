"""The online store: the newest snapshot of every feature view, read by entity id on the request path. Embedded: SQLite."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from ml_platform.core.errors import FeatureError, SettingsError
from ml_platform.core.settings import Settings


class OnlineStore:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections = threading.local()

    @classmethod
    def at(cls, settings: Settings) -> "OnlineStore":
        url = settings.online_store_url
        if not url.startswith("sqlite:///"):
            raise SettingsError(
                "ML_PLATFORM_ONLINE_STORE", f"{url!r} is not sqlite:///<path>", "export ML_PLATFORM_ONLINE_STORE=..."
            )
        return cls(Path(url.removeprefix("sqlite:///")))

    def write(self, view: str, entity: str, rows: pa.Table, as_of: datetime) -> bool:
        """Replace a view's rows by those as of a moment, all at once; False if newer ones are already there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        features = [name for name in rows.column_names if name != entity]
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS views (view TEXT PRIMARY KEY, as_of TEXT NOT NULL)")
            stored = connection.execute("SELECT as_of FROM views WHERE view = ?", (view,)).fetchone()
            if stored and datetime.fromisoformat(stored[0]) > as_of:
                connection.execute("ROLLBACK")
                return False
            columns = ", ".join(f'"{name}"' for name in features)
            connection.execute(f'DROP TABLE IF EXISTS "{view}"')
            connection.execute(f'CREATE TABLE "{view}" ("{entity}" PRIMARY KEY, {columns}) WITHOUT ROWID')
            marks = ", ".join("?" for _ in range(len(features) + 1))
            table = rows.select([entity, *features])
            connection.executemany(
                f'INSERT INTO "{view}" VALUES ({marks})', zip(*(c.to_pylist() for c in table.columns), strict=True)
            )
            connection.execute("INSERT OR REPLACE INTO views VALUES (?, ?)", (view, as_of.isoformat()))
            connection.execute("COMMIT")
        return True

    def read(
        self, view: str, entity: str, ids: Iterable[int | str], features: Iterable[str]
    ) -> dict[int | str, Mapping[str, float | int | None]]:
        """Feature values by entity id; ids without a row are left out.

        Raises:
            FeatureError: if the store cannot be read or has no such view: that is no reason to answer with defaults.
        """
        wanted, names = list(set(ids)), list(features)
        # Qualified, since SQLite takes a bare "name" that is no column for a string.
        columns = ", ".join(f'"{view}"."{name}"' for name in (entity, *names))
        marks = ", ".join("?" for _ in wanted)
        with self._reading(view) as connection:
            rows = connection.execute(f'SELECT {columns} FROM "{view}" WHERE "{view}"."{entity}" IN ({marks})', wanted)
            return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}

    def as_of(self, view: str) -> datetime:
        """The moment that the view's rows are as of."""
        with self._reading(view) as connection:
            found = connection.execute("SELECT as_of FROM views WHERE view = ?", (view,)).fetchone()
        if found is None:
            raise FeatureError(
                f"features/online_store [{view}]", "the view was never written", "materialize features/online_store"
            )
        return datetime.fromisoformat(found[0])

    @contextmanager
    def _reading(self, view: str) -> Iterator[sqlite3.Connection]:
        try:
            if not hasattr(self._connections, "open"):
                self._connections.open = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5)
            yield self._connections.open
        except sqlite3.Error as error:
            raise FeatureError(
                f"features/online_store [{view}]",
                f"cannot be read at {self.path}: {error}",
                "materialize features/online_store",
            ) from error
