# pyright: reportAttributeAccessIssue=false
"""Rules that no single row can break: keys that repeat, and references that lead nowhere.

They are queries on the day's staged Parquet file, and name the rows that break the rule by their position in it. DuckDB
works in bounded memory and puts the rest on disk, beside the file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

MEMORY = "384MB"
KEYS_AT_ONCE = 2_000_000


def repeated_keys(staged: Path, rows: int, key: Sequence[str]) -> np.ndarray:
    """Rows whose key an earlier row of the file has."""
    columns = _columns(key)
    parts = rows // KEYS_AT_ONCE + 1  # a part of the keys at a time: memory does not grow with the rows
    with _engine(staged) as engine:
        engine.execute(f"CREATE TABLE repeated AS SELECT {columns} FROM staged LIMIT 0")
        for part in range(parts):
            engine.execute(
                f"INSERT INTO repeated SELECT {columns} FROM staged WHERE hash({columns}) % {parts} = {part}"
                f" GROUP BY {columns} HAVING count(*) > 1"
            )
        return _positions(
            engine,
            f'SELECT "_position" FROM (SELECT "_position", row_number() OVER (PARTITION BY {columns} ORDER BY "_position")'
            f' AS "_nth" FROM staged SEMI JOIN repeated USING ({columns})) WHERE "_nth" > 1',
        )


def keys_among(staged: Path, key: Sequence[str], others: "pads.Dataset") -> np.ndarray:
    """Rows whose key one of the other rows has.

    Of the others only those between the least and the greatest key are read: where keys grow with time, that is none.
    """
    first = _columns(key[:1])
    with _engine(staged, others) as engine:
        bounds = engine.execute(f"SELECT min({first}), max({first}) FROM staged").fetchone()
        return _positions(
            engine,
            f'SELECT "_position" FROM staged SEMI JOIN (SELECT {_columns(key)} FROM others WHERE {first} BETWEEN ? AND ?)'
            f" AS others USING ({_columns(key)})",
            bounds,
        )


def values_not_among(staged: Path, column: str, others: "pads.Dataset", other_column: str) -> np.ndarray:
    """Rows whose value in `column`, if it has one, does not occur in the other rows."""
    with _engine(staged, others) as engine:
        return _positions(
            engine,
            f'SELECT "_position" FROM staged ANTI JOIN others ON staged."{column}" = others."{other_column}"'
            f' WHERE staged."{column}" IS NOT NULL',
        )


@contextmanager
def _engine(staged: Path, others: "pads.Dataset | None" = None) -> Iterator[Any]:
    import duckdb

    spill = staged.with_name(f"{staged.name}.spill")
    options = {"memory_limit": MEMORY, "temp_directory": str(spill), "preserve_insertion_order": False}
    with duckdb.connect(config=options) as engine:
        path = str(staged).replace("'", "''")
        engine.execute(
            'CREATE VIEW staged AS SELECT *, file_row_number AS "_position"'
            f" FROM read_parquet('{path}', file_row_number = true)"
        )
        if others is not None:
            engine.register("others", others)
        yield engine


def _positions(engine: Any, query: str, values: Sequence[Any] = ()) -> np.ndarray:
    return np.sort(engine.execute(query, list(values)).fetchnumpy()["_position"].astype(np.int64))


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
