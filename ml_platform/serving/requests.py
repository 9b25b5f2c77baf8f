"""From the rows of a request to the arrays that a bundle scores, by id or in full."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ml_platform.core.errors import RequestError
from ml_platform.registry.bundle import InputSchema, ViewSchema
from ml_platform.resources.online_store import OnlineStore

Row = Mapping[str, Any]


def from_entities(
    schema: InputSchema, rows: Sequence[Row], store: OnlineStore
) -> tuple[dict[str, np.ndarray], dict[str, datetime]]:
    """Columns for rows that give ids and request columns; features are looked up, defaults where an id is unknown.

    Returns:
        The columns, and the moment that each view's features are as of.

    Raises:
        RequestError: naming row and field, if one is missing, unknown or of the wrong type; naming the rolling views, if
            the model has any.
        FeatureError: if the online store cannot be read.
    """
    if schema.rolling:
        problem = f"{', '.join(schema.rolling)} has features of single events, which cannot be looked up by id"
        raise RequestError(
            "field 'entities'", problem, "send `rows` with every feature; GET /models/<model> lists them"
        )
    _only(rows, [*schema.entities, *schema.request])
    columns = {name: _request_column(rows, name, type_) for name, type_ in schema.request.items()}
    as_of: dict[str, datetime] = {}
    for view in schema.views:
        ids = [_entity(row, position, view) for position, row in enumerate(rows)]
        found = store.read(view.name, view.entity, [id_ for id_ in ids if id_ is not None], view.features)
        as_of[view.name] = found.as_of
        for name, default in view.features.items():
            values = (found.rows[id_][name] if id_ is not None and id_ in found.rows else None for id_ in ids)
            columns[name] = np.array([default if value is None else value for value in values], dtype=np.float64)
    return columns, as_of


def from_rows(schema: InputSchema, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Columns for rows that give every feature themselves; null stands for the feature's default.

    Raises:
        RequestError: naming row and field, if one is missing, unknown or of the wrong type.
    """
    _only(rows, [*schema.request, *schema.features, *schema.entities])
    columns = {name: _request_column(rows, name, type_) for name, type_ in schema.request.items()}
    for name, default in schema.features.items():
        values = (_required(row, position, name) for position, row in enumerate(rows))
        columns[name] = np.array(
            [default if value is None else _number(value, position, name) for position, value in enumerate(values)],
            dtype=np.float64,
        )
    return columns


def _only(rows: Sequence[Row], allowed: list[str]) -> None:
    for position, row in enumerate(rows):
        if unknown := sorted(set(row) - set(allowed)):
            raise _error(
                position, unknown[0], f"is not a field of this model; there are {', '.join(dict.fromkeys(allowed))}"
            )


def _required(row: Row, position: int, name: str) -> Any:
    if name not in row:
        raise _error(position, name, "is missing")
    return row[name]


def _request_column(rows: Sequence[Row], name: str, type_: str) -> np.ndarray:
    values = [_required(row, position, name) for position, row in enumerate(rows)]
    if type_ == "timestamp":
        return np.array([_time(value, position, name) for position, value in enumerate(values)], dtype="datetime64[us]")
    if type_ == "bool":
        return np.array([_flag(value, position, name) for position, value in enumerate(values)], dtype=bool)
    if type_ == "string":
        return np.array([_text(value, position, name) for position, value in enumerate(values)])
    return np.array([_number(value, position, name) for position, value in enumerate(values)], dtype=np.float64)


def _number(value: Any, position: int, name: str) -> float:
    # JSON has no NaN, but Python's parser accepts it; bool is an int in Python, but not a number that a client means.
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except OverflowError:
        pass  # an integer beyond float64: refused like any other value that is not a finite number
    raise _error(position, name, f"must be a finite number, not {str(value)[:40]!r}")


def _flag(value: Any, position: int, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _error(position, name, f"must be true or false, not {str(value)[:40]!r}")


def _text(value: Any, position: int, name: str) -> str:
    if isinstance(value, str):
        return value
    raise _error(position, name, f"must be a string, not {str(value)[:40]!r}")


def _entity(row: Row, position: int, view: ViewSchema) -> int | str | None:
    """The id by which to look up; null, as in training, is nobody."""
    value = _required(row, position, view.entity)
    if value is None:
        return None
    if view.entity_type == "string":
        return _text(value, position, view.entity)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise _error(position, view.entity, f"must be a 64-bit integer, not {str(value)[:40]!r}")
    return value


def _time(value: Any, position: int, name: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        return (time.astimezone(UTC) if time.tzinfo else time).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError) as error:
        raise _error(
            position, name, f"must be an ISO 8601 time such as 2018-06-01T12:30:00, not {str(value)[:40]!r}"
        ) from error


def _error(position: int, field: str, problem: str) -> RequestError:
    return RequestError(f"row {position}, field {field!r}", problem, "see /docs or GET /models/<model>")
