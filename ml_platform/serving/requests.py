"""From the body of a request to the arrays that a bundle scores.

A request is checked by itself, so that what is wrong with it fails nobody else. Then the rows of several requests become
columns together: one look-up, one matrix.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import Any

import jiter
import numpy as np

from ml_platform.core.errors import RequestError
from ml_platform.registry.bundle import InputSchema
from ml_platform.resources.online_store import OnlineStore

MAX_ROWS = 10_000
MAX_VALUES = 4_000_000  # of a body: read, a value takes a hundred bytes where it was two
MAX_STRING = 4_096  # characters, unless the server's settings say otherwise
EXPLAINED = "see /docs or GET /models/<model>"
NUMBERS = {float, int}
# Strings as objects: an array of numpy's own strings has for each the room that the longest one takes.
NULLS: dict[str, Any] = {"timestamp": None, "bool": None, "string": None}  # of all others NaN
DTYPES = {"timestamp": "datetime64[us]", "bool": "bool", "string": "object"}

Row = Mapping[str, Any]


def parsed(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. NaN and Infinity pass here, so that the field that has them can be named.

    Raises:
        RequestError: if it is none, nested deeper than 200 levels, has a key twice, or more than `MAX_VALUES` values.
    """
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise RequestError("request body", f"has more than {MAX_VALUES} values", "send several requests")
    try:
        content = jiter.from_json(body, catch_duplicate_keys=True)
    except ValueError as error:
        problem = f"is no JSON that can be read: {_clipped(str(error), 300)}"
        raise RequestError("request body", problem, "send a JSON object") from error
    if not isinstance(content, dict):
        raise RequestError("request body", f"is {_kind(content)}, not an object", "send {'entities': [...]}")
    return content


def rows_of(content: Any, field: str) -> list[dict[str, Any]]:
    """A field of a body as rows.

    Raises:
        RequestError: if it is no list of objects, empty, or longer than `MAX_ROWS`.
    """
    if not isinstance(content, list) or not content:
        raise RequestError(f"field {field!r}", f"must be a list of rows, not {_kind(content)}", EXPLAINED)
    if len(content) > MAX_ROWS:
        raise RequestError(f"field {field!r}", f"has {len(content)} rows (at most {MAX_ROWS})", "send several requests")
    for position, row in enumerate(content):
        if not isinstance(row, dict):
            raise RequestError(f"row {position} of {field!r}", f"must be an object, not {_kind(row)}", EXPLAINED)
    return content


@dataclass(frozen=True)
class Checked:
    """Rows of one request, every value of the right type: column by column what was sent, row by row the features.

    `features` is None where they are to be looked up, by the `ids` of each view. `identity` says which rows these are: ids, and
    the key where it was sent.
    """

    rows: Sequence[Row]
    request: dict[str, list[Any]]
    features: list[list[float]] | None
    ids: dict[str, list[int | str | None]]
    identity: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Columns:
    """The rows of several requests: what a bundle scores, by name, and beside it the features [rows, features].

    Of the views that were looked up: the moment that each one's features are `as_of`, and by row those that knew its entity.
    """

    values: dict[str, np.ndarray]
    features: np.ndarray
    as_of: dict[str, datetime]
    known: list[list[str]]


@dataclass(frozen=True)
class Checker:
    """Checks rows against the input schema of one bundle; strings have `most_characters` at most."""

    schema: InputSchema
    most_characters: int = MAX_STRING

    # Once a bundle: to ask the schema for them costs each request as much as its features do.
    @cached_property
    def features(self) -> tuple[str, ...]:
        return tuple(self.schema.features)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.schema.entities)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Of values that come without names."""
        return (*self.features, *self.schema.request)

    @cached_property
    def _id_types(self) -> dict[str, str]:
        return {view.entity: "string" if view.entity_type == "string" else "int64" for view in self.schema.views}

    @cached_property
    def _identity_types(self) -> dict[str, str]:
        return {**self.schema.key, **self._id_types}

    @cached_property
    def _features_as_set(self) -> frozenset[str]:
        return frozenset(self.features)

    @cached_property
    def _of_entities(self) -> dict[str, None]:
        return dict.fromkeys([*self.schema.entities, *self.schema.request, *self.schema.key])

    @cached_property
    def _of_rows(self) -> dict[str, None]:
        return dict.fromkeys([*self.schema.request, *self.schema.features, *self.schema.entities, *self.schema.key])

    def looks_up(self, rows: Sequence[Row]) -> bool:
        """Whether rows of which this is not said are to be looked up: their first has an id, and no feature."""
        first = rows[0]
        return any(name in first for name in self.ids) and self._features_as_set.isdisjoint(first)

    def entities(self, rows: Sequence[Row]) -> Checked:
        """Rows that give ids and request columns, and their key if they like.

        Raises:
            RequestError: naming row and field, if one is missing, unknown or of the wrong type; naming the rolling views,
                if the model has any.
        """
        if self.schema.rolling:
            problem = f"{', '.join(self.schema.rolling)} has features of single events, which cannot be looked up by id"
            next_step = "send `rows` with every feature; GET /models/<model> lists them"
            raise RequestError("field 'entities'", problem, next_step)
        _only(rows, self._of_entities)
        for name in self.ids:
            for position, row in enumerate(rows):
                _required(row, position, name)
        identity = self._identity(rows)
        ids = {view.name: identity[view.entity] for view in self.schema.views}
        return Checked(rows, self._request(rows), None, ids, identity)

    def rows(self, rows: Sequence[Row]) -> Checked:
        """Rows that give every feature themselves; null stands for the feature's default. Ids and key may be given too.

        Raises:
            RequestError: naming row and field, if one is missing, unknown or of the wrong type.
        """
        _only(rows, self._of_rows)
        features = [self._features(row, position) for position, row in enumerate(rows)]
        return Checked(rows, self._request(rows), features, {}, self._identity(rows))

    def columns(self, batch: Sequence[Checked], store: OnlineStore) -> Columns:
        """The rows of several requests as columns, defaults where an id is unknown.

        Raises:
            FeatureError: if the online store cannot be read.
        """
        as_of: dict[str, datetime] = {}
        rows: list[list[float]] = []
        known: list[list[str]] = []
        looked_up = self._looked_up([one for one in batch if one.features is None], store, as_of)
        for one in batch:
            features, knowing = next(looked_up) if one.features is None else (one.features, [[] for _ in one.rows])
            rows += features
            known += knowing
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(self.features))
        values = dict(zip(self.features, matrix.T, strict=True))
        for name, type_ in self.schema.request.items():
            of_name = [value for one in batch for value in one.request[name]]
            dtype = DTYPES.get(type_, "float64")
            if dtype == "bool" and name in self._nullable:
                dtype = "object"  # numpy's has no null
            values[name] = np.array(of_name, dtype=dtype)
        return Columns(values, matrix, as_of, known)

    def _looked_up(
        self, batch: Sequence[Checked], store: OnlineStore, as_of: dict[str, datetime]
    ) -> Iterator[tuple[list[list[float]], list[list[str]]]]:
        """For every request its rows of features, and for each row the views that knew its entity."""
        features: list[list[list[float]]] = [[[] for _ in one.rows] for one in batch]
        known: list[list[list[str]]] = [[[] for _ in one.rows] for one in batch]
        for view in self.schema.views if batch else ():
            ids = {id_ for one in batch for id_ in one.ids[view.name] if id_ is not None}
            found = store.read(view.name, view.entity, ids, view.features)
            as_of[view.name] = found.as_of
            defaults = list(view.features.values())
            values = {
                id_: [d if (v := row[name]) is None else v for name, d in view.features.items()]
                for id_, row in found.rows.items()
            }
            for rows, knowing, one in zip(features, known, batch, strict=True):
                for row, by, id_ in zip(rows, knowing, one.ids[view.name], strict=True):
                    row += values.get(id_, defaults)  # type: ignore[arg-type]  # nobody, None, is in no store
                    if id_ in values:
                        by.append(view.name)
        yield from zip(features, known, strict=True)

    def _request(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        return {name: self._request_column(rows, name, type_) for name, type_ in self.schema.request.items()}

    def _request_column(self, rows: Sequence[Row], name: str, type_: str) -> list[Any]:
        check = {"timestamp": _time, "bool": _flag, "string": self._text}.get(type_, _number)
        if name in self._nullable:
            null = NULLS.get(type_, float("nan"))
            given = [_required(row, position, name) for position, row in enumerate(rows)]
            return [null if value is None else check(value, at, name) for at, value in enumerate(given)]
        return [check(_required(row, position, name), position, name) for position, row in enumerate(rows)]

    @cached_property
    def _nullable(self) -> frozenset[str]:
        return frozenset(self.schema.nullable)

    def _identity(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Ids, and what of the key was sent, each as what it is, null where it is not there."""
        return {
            name: [self._identifying(row.get(name), position, name, type_) for position, row in enumerate(rows)]
            for name, type_ in self._identity_types.items()
            if name in self._id_types or any(name in row for row in rows)
        }

    def _identifying(self, value: Any, position: int, name: str, type_: str) -> Any:
        if value is None:
            return None
        check = {"timestamp": _time, "bool": _flag, "string": self._text}.get(type_)
        if check:
            return check(value, position, name)
        if type_ != "int64":
            return _number(value, position, name)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            raise _error(position, name, f"must be a 64-bit integer, not {_shown(value)}")
        return value

    def _text(self, value: Any, position: int, name: str) -> str:
        if not isinstance(value, str):
            raise _error(position, name, f"must be a string, not {_shown(value)}")
        if len(value) > self.most_characters:
            problem = f"has {len(value)} characters (at most {self.most_characters}): {_shown(value)}"
            raise _error(position, name, problem)
        return value

    @cached_property
    def _pick(self) -> itemgetter:
        return itemgetter(*self.features)

    def _features(self, row: Row, position: int) -> list[float]:
        if len(self.features) > 1:
            try:
                values = self._pick(row)
                # Nearly always true, and much faster than to look at every value by itself.
                if NUMBERS.issuperset(map(type, values)) and math.isfinite(math.fsum(values)):
                    return list(values)
            except (KeyError, OverflowError, ValueError):
                pass  # what is wrong is said below
        given = ((name, _required(row, position, name)) for name in self.features)
        defaults = self.schema.features
        return [defaults[name] if value is None else _number(value, position, name) for name, value in given]


def _only(rows: Sequence[Row], allowed: Mapping[str, None]) -> None:
    for position, row in enumerate(rows):
        if not row.keys() <= allowed.keys():
            unknown = next(name for name in row if name not in allowed)
            raise _error(
                position, _clipped(unknown, 100), f"is not a field of this model; there are {', '.join(allowed)}"
            )


def _required(row: Row, position: int, name: str) -> Any:
    if name not in row:
        raise _error(position, name, "is missing")
    return row[name]


def _number(value: Any, position: int, name: str) -> float:
    # JSON has no NaN, but the parser accepts it; bool is an int in Python, but not a number that a client means.
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except OverflowError:
        pass  # an integer beyond float64: refused like any other value that is not a finite number
    raise _error(position, name, f"must be a finite number, not {_shown(value)}")


def _flag(value: Any, position: int, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _error(position, name, f"must be true or false, not {_shown(value)}")


def _time(value: Any, position: int, name: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        return (time.astimezone(UTC) if time.tzinfo else time).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"must be an ISO 8601 time such as 2018-06-01T12:30:00, not {_shown(value)}"
        raise _error(position, name, problem) from error


def _error(position: int, field: str, problem: str) -> RequestError:
    return RequestError(f"row {position}, field {field!r}", problem, EXPLAINED)


def _shown(value: Any) -> str:
    """The beginning of a value that a client sent, whatever it is: a very long integer cannot even be printed."""
    if isinstance(value, list | dict):
        return _kind(value)
    return repr("a very long integer" if isinstance(value, int) and abs(value) >= 2**200 else _clipped(str(value), 40))


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _kind(value: Any) -> str:
    """What a JSON value is, in the words of JSON."""
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return {dict: "an object", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
