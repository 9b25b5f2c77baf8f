# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer functions than it has.
"""What the prediction log has of a row, and rows as a table."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from ml_platform.rollout.traffic import Arm

PIECE_ROWS = 250
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("version", pa.string()),
        ("arm", pa.string()),
        ("entity", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("error", pa.string()),
        ("latency_ms", pa.float64()),
    ]
)
# What the columns begin with of what is named by the model: inputs, and per view of when it was and whether it knew the entity.
INPUT, AS_OF, KNOWN = "input_", "as_of_", "known_"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row that was scored, or that could not be. `scores` is for several classes, `score` for all else.

    `inputs` are request columns, ids, and the key where it was sent. `features` float64 [features] are inputs too, whose `names` rows
    of one version share. `as_of` has the moment of each view that was looked up, `known` those that knew the row's entity.
    """

    request_id: str
    time: datetime
    version: str
    arm: Arm
    entity: str
    latency_ms: float
    score: float | None = None
    scores: Sequence[float] | None = None
    error: str = ""
    inputs: Mapping[str, Any] | None = None
    features: np.ndarray | None = None
    names: tuple[str, ...] = ()
    as_of: Mapping[str, datetime] | None = None
    known: Sequence[str] = ()

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        inputs = sum(len(value) if isinstance(value, str) else 40 for value in (self.inputs or {}).values())
        features = 0 if self.features is None else self.features.nbytes
        return 500 + len(self.entity) + len(self.error) + inputs + features + 8 * len(self.scores or ())


def as_table(predictions: Sequence[Prediction]) -> pa.Table:
    """Predictions as a table, each input in a column of its own. Piece by piece, since requests wait as long as one takes."""
    pieces = [SCHEMA.empty_table()]
    for _, alike in itertools.groupby(predictions, key=lambda one: one.names):
        rows = list(alike)
        pieces += [_piece(rows[first : first + PIECE_ROWS]) for first in range(0, len(rows), PIECE_ROWS)]
    return together(pieces)


def _piece(rows: Sequence[Prediction]) -> pa.Table:
    columns = {name: [getattr(one, name) for one in rows] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA)
    if rows[0].names:
        matrix = np.array([one.features for one in rows])
        for name, values in zip(rows[0].names, matrix.T, strict=True):
            table = table.append_column(INPUT + name, pa.array(np.ascontiguousarray(values)))
    for name in dict.fromkeys(name for one in rows for name in one.inputs or ()):
        table = table.append_column(INPUT + name, _column([(one.inputs or {}).get(name) for one in rows]))
    for view in dict.fromkeys(view for one in rows for view in one.as_of or ()):
        moments = [(one.as_of or {}).get(view) for one in rows]
        known = [None if moment is None else view in one.known for one, moment in zip(rows, moments, strict=True)]
        table = table.append_column(AS_OF + view, pa.array(moments, pa.timestamp("us", tz="UTC")))
        table = table.append_column(KNOWN + view, pa.array(known, pa.bool_()))
    return table


def _column(values: Sequence[Any]) -> pa.Array:
    """Values of one name. Of different types they are text, as is what has no type in Parquet."""
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return _texts(values)


def _texts(values: Sequence[Any]) -> pa.Array:
    texts = [None if value is None else str(value).encode(errors="backslashreplace").decode() for value in values]
    return pa.array(texts, pa.string())


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables below each other; a column whose types cannot be told as one is text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError:
        types: dict[str, set[pa.DataType]] = {}
        for field in (field for table in tables for field in table.schema):
            types.setdefault(field.name, set()).add(field.type)
        mixed = {name for name, of_name in types.items() if len(of_name) > 1 and name.startswith(INPUT)}
        return pa.concat_tables([_as_text(table, mixed) for table in tables], promote_options="permissive")


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for position, name in enumerate(table.column_names):
        if name in names:
            table = table.set_column(position, name, _texts(table[name].to_pylist()))
    return table
