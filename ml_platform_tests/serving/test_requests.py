"""Requests become columns, or an error that names row and field."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.core.errors import FeatureError, RequestError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureSpec, FeatureViewSpec, ViewInputSpec
from ml_platform.registry.bundle import InputSchema, ViewSchema
from ml_platform.resources.online_store import OnlineStore, SqliteStore, online_store_at
from ml_platform.serving.requests import Checker, Row
from ml_platform_tests.stores import at_store  # noqa: F401  # a fixture

SCHEMA = InputSchema(
    {"amount": "float64", "at": "timestamp"}, (ViewSchema("activity", "user", "int64", {"clicks": -1.0, "age": 0.0}),)
)
VIEW = FeatureViewSpec(
    name="activity",
    entity="user",
    function="somewhere.activity",
    inputs={"visits": ViewInputSpec(window_days=1)},
    features={"clicks": FeatureSpec(default=-1.0), "age": FeatureSpec()},
)
APRIL = datetime(2018, 4, 1, tzinfo=UTC)
ENTITY = {"user": 7, "amount": 5, "at": "2018-04-01T12:00:00"}
ROW = {"amount": 5.0, "at": "2018-04-01T12:00:00", "clicks": 3, "age": None}


def from_entities(
    schema: InputSchema, rows: Sequence[Row], store: OnlineStore
) -> tuple[dict[str, np.ndarray], dict[str, datetime]]:
    checker = Checker(schema)
    columns, as_of, _ = checker.columns([checker.entities(rows)], store)
    return columns, as_of


def from_rows(schema: InputSchema, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    checker = Checker(schema)
    return checker.columns([checker.rows(rows)], SqliteStore(Path("no look-up")))[0]


@pytest.fixture
def store(at_store: Settings) -> OnlineStore:  # noqa: F811
    store = online_store_at(at_store)
    rows = pa.table({"user": [7, 8], "clicks": pa.array([3.0, None]), "age": [1.0, 2.0]})
    store.write(VIEW, rows, APRIL)
    return store


def test_features_are_looked_up_and_unknown_or_null_ones_get_their_defaults(store: OnlineStore) -> None:
    users = (8, 99, None)
    columns, as_of = from_entities(SCHEMA, [ENTITY, *({**ENTITY, "user": user} for user in users)], store)
    assert columns["clicks"].tolist() == [3.0, -1.0, -1.0, -1.0]
    assert columns["age"].tolist() == [1.0, 2.0, 0.0, 0.0]
    assert columns["amount"].tolist() == [5.0, 5.0, 5.0, 5.0]
    assert as_of == {"activity": APRIL}


def test_model_with_rolling_features_answers_full_rows_and_says_so_to_ids(store: OnlineStore) -> None:
    schema = InputSchema(SCHEMA.request, SCHEMA.views, {"click_windows": {"clicks_1d": -2.0}})
    assert InputSchema.from_json(schema.to_json()) == schema
    assert from_rows(schema, [{**ROW, "clicks_1d": None}])["clicks_1d"].tolist() == [-2.0]
    with pytest.raises(RequestError, match=r"'clicks_1d': is missing"):
        from_rows(schema, [ROW])
    with pytest.raises(RequestError, match=r"click_windows has features of single events.*Next: send `rows`"):
        from_entities(schema, [ENTITY], store)


def test_schema_of_a_bundle_from_before_rolling_views_is_read() -> None:
    content = json.loads(SCHEMA.to_json())
    del content["rolling"]
    assert InputSchema.from_json(json.dumps(content).encode()) == SCHEMA


def test_full_rows_need_no_store_and_null_is_the_default() -> None:
    columns = from_rows(SCHEMA, [ROW])
    assert (columns["clicks"].tolist(), columns["age"].tolist()) == ([3.0], [0.0])


@pytest.mark.parametrize("text", ["2018-04-01T12:00:00", "2018-04-01T12:00:00Z", "2018-04-01T14:00:00+02:00"])
def test_times_are_utc_unless_they_say_otherwise(text: str) -> None:
    assert from_rows(SCHEMA, [{**ROW, "at": text}])["at"][0] == np.datetime64("2018-04-01T12:00:00", "us")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": float("nan")}, "amount"),
        ({"amount": 10**400}, "amount"),
        ({"amount": [1]}, "amount"),
        ({"at": "yesterday"}, "at"),
        ({"at": 5}, "at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "at"),
        ({"clicks": "many"}, "clicks"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_value_names_row_and_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match=rf"^row 1, field '{field}'"):
        from_rows(SCHEMA, [ROW, {**ROW, **change}])


@pytest.mark.parametrize("missing", ["amount", "at", "clicks"])
def test_missing_field_is_named(missing: str) -> None:
    with pytest.raises(RequestError, match=f"field '{missing}': is missing"):
        from_rows(SCHEMA, [{key: value for key, value in ROW.items() if key != missing}])


@pytest.mark.parametrize("user", [1.5, True, 2**63, [1], "7"])
def test_impossible_id_is_named(store: OnlineStore, user: Any) -> None:
    with pytest.raises(RequestError, match="field 'user': must be a 64-bit integer"):
        from_entities(SCHEMA, [{**ENTITY, "user": user}], store)


def test_store_that_cannot_be_read_is_no_reason_for_defaults(tmp_path: Path) -> None:
    with pytest.raises(FeatureError):
        from_entities(SCHEMA, [ENTITY], SqliteStore(tmp_path / "nothing.db"))


def test_flags_and_string_ids_are_taken_as_what_they_are(tmp_path: Path) -> None:
    schema = InputSchema({"vip": "bool"}, (ViewSchema("activity", "name", "string", {"clicks": -1.0}),))
    store = SqliteStore(tmp_path / "online.db")
    view = VIEW.model_copy(update={"entity": "name", "features": {"clicks": FeatureSpec()}})
    store.write(view, pa.table({"name": ["ann"], "clicks": [3.0]}), APRIL)
    columns, _ = from_entities(schema, [{"name": "ann", "vip": True}], store)
    assert (columns["clicks"].tolist(), columns["vip"].dtype) == ([3.0], np.dtype(bool))
    with pytest.raises(RequestError, match="field 'vip': must be true or false"):
        from_entities(schema, [{"name": "ann", "vip": 1}], store)
    with pytest.raises(RequestError, match="field 'name': must be a string"):
        from_entities(schema, [{"name": 7, "vip": True}], store)
