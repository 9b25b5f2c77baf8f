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
from ml_platform.features.transforms import Transforms
from ml_platform.registry.bundle import InputSchema, ViewSchema
from ml_platform.resources.online_store import OnlineStore, SqliteStore, online_store_at
from ml_platform.serving import requests
from ml_platform.serving.requests import Checker, Row, parsed
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
    columns = checker.columns([checker.entities(rows)], store)
    return columns.values, columns.as_of


def from_rows(schema: InputSchema, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    checker = Checker(schema)
    return checker.columns([checker.rows(rows)], SqliteStore(Path("no look-up"))).values


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


def test_is_known_is_looked_up_like_any_feature_and_a_stranger_has_0(at_store: Settings) -> None:  # noqa: F811
    view = FeatureViewSpec.model_validate({**VIEW.model_dump(), "is_known": True})
    store = online_store_at(at_store)
    rows = pa.table({"user": [7], "clicks": [3.0], "age": [1.0], "activity_is_known": [1.0]})
    store.write(view, rows, APRIL)
    defaults = {name: feature.default for name, feature in view.features.items()}
    schema = InputSchema(SCHEMA.request, (ViewSchema("activity", "user", "int64", defaults),))
    columns, _ = from_entities(schema, [{**ENTITY, "user": user} for user in (7, 99, None)], store)
    assert columns["activity_is_known"].tolist() == [1.0, 0.0, 0.0]
    assert from_rows(schema, [{**ROW, "activity_is_known": None}])["activity_is_known"].tolist() == [0.0]


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


@pytest.mark.parametrize("user", [1.5, True, 2**63, [1] * 1_000, "7", {"a": 1}])
def test_ids_beside_full_rows_are_checked_too(user: Any) -> None:
    assert from_rows(SCHEMA, [{**ROW, "user": 7}, {**ROW, "user": None}, ROW])["age"].tolist() == [0.0] * 3
    with pytest.raises(RequestError, match="row 1, field 'user': must be a 64-bit integer") as refused:
        from_rows(SCHEMA, [ROW, {**ROW, "user": user}])
    assert len(str(refused.value)) < 300


TEXTS = InputSchema({"note": "string"}, (ViewSchema("activity", "name", "string", {"clicks": -1.0}),))


def test_strings_take_the_room_that_they_have_and_no_more() -> None:
    """Padded to the longest, these would have 400 MB."""
    rows = [{"note": "x" * 10_000 if number == 0 else "x", "clicks": 1.0} for number in range(10_000)]
    checker = Checker(TEXTS, most_characters=10_000)
    notes = checker.columns([checker.rows(rows)], SqliteStore(Path("no look-up"))).values["note"]
    assert notes.dtype == np.dtype(object)
    assert notes.nbytes == 80_000
    assert notes.tolist() == [row["note"] for row in rows]


@pytest.mark.parametrize("field", ["note", "name"])
@pytest.mark.parametrize("form", ["rows", "entities"])
def test_string_that_is_too_long_is_named_and_not_repeated(field: str, form: str) -> None:
    checker = Checker(TEXTS, most_characters=10)
    row: dict[str, Any] = {"note": "x", "name": "y", **({"clicks": 1.0} if form == "rows" else {})}
    assert getattr(checker, form)([row | {field: "z" * 10}])
    with pytest.raises(RequestError, match=rf"row 0, field '{field}': has 1000 characters \(at most 10\)") as refused:
        getattr(checker, form)([row | {field: "z" * 1_000}])
    assert len(str(refused.value)) < 300


def test_key_that_is_very_long_is_not_repeated() -> None:
    with pytest.raises(RequestError, match="is not a field of this model") as refused:
        from_rows(SCHEMA, [{**ROW, "x" * 1_000_000: 1}])
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"rows": [], "rows": []}', "rows"),
        (b'{"rows": [{"amount": 5, "at": "now", "amount": 50}]}', "amount"),
        (b'{"rows": [{"a": {"deep": [{"b": 1, "b": 1}]}}]}', "b"),
        (b'{"rows": [{"amount": 5, "\\u0061mount": 50}]}', "amount"),
    ],
)
def test_key_that_is_there_twice_is_refused_by_name(body: bytes, key: str) -> None:
    with pytest.raises(RequestError, match=f'duplicate key "{key}"'):
        parsed(body)


def test_key_that_is_there_twice_and_very_long_is_not_repeated() -> None:
    with pytest.raises(RequestError, match="duplicate key") as refused:
        parsed(b'{"%s": 1, "%s": 2}' % (b"x" * 100_000, b"x" * 100_000))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("piece", [b"{},", b"[],", b"1,", b'"",', b"[[],{}],"])
def test_body_of_too_many_values_is_refused_before_it_is_read(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_VALUES", 1_000)
    assert parsed(b'{"rows": [' + piece * 100 + b"1]}")
    with pytest.raises(RequestError, match="more than 1000 values"):
        parsed(b'{"rows": [' + piece * 2_000 + b"1]}")


KEYED = InputSchema(
    {"amount": "float64"},
    (ViewSchema("activity", "user", "int64", {"clicks": -1.0}),),
    key={"order": "string", "at": "timestamp", "user": "int64"},
)


def test_key_and_ids_identify_a_row_and_need_not_be_sent() -> None:
    checker = Checker(KEYED)
    row = {"amount": 5, "user": 7}
    keyed = {**row, "order": "a-1", "at": "2018-04-01T12:00:00+02:00"}
    assert checker.entities([row]).identity == {"user": [7]}
    whole = {"order": ["a-1", None], "at": [datetime(2018, 4, 1, 10), None], "user": [7, 7]}
    assert checker.entities([keyed, row]).identity == whole
    assert checker.rows([{**keyed, "clicks": 1}, {**row, "clicks": 1}]).identity == whole
    assert checker.rows([{"amount": 5, "clicks": 1}]).identity == {"user": [None]}


@pytest.mark.parametrize("wrong", [{"order": 7}, {"order": "x" * 5_000}, {"at": "noon"}, {"user": "7"}])
def test_impossible_key_is_named(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(RequestError, match=f"row 0, field '{field}'"):
        Checker(KEYED).entities([{"amount": 5, "user": 7, **wrong}])


def test_views_that_know_an_entity_are_told_by_row(store: OnlineStore) -> None:
    checker = Checker(SCHEMA)
    asked = checker.entities([{**ENTITY, "user": user} for user in (7, 99, None)])
    columns = checker.columns([checker.rows([ROW]), asked], store)
    assert columns.known == [[], ["activity"], [], []]


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


def test_null_of_a_nullable_column_is_what_it_is_in_training_and_of_any_other_is_refused() -> None:
    types = {"age": "int64", "at": "timestamp", "vip": "bool", "note": "string", "amount": "float64"}
    schema = InputSchema(types, (), nullable=("age", "at", "vip", "note"))
    schema = InputSchema.from_json(schema.to_json())
    row = {"age": 5, "at": "2024-01-01T12:00:00Z", "vip": True, "note": "x", "amount": 1.0}
    columns = from_rows(schema, [row, {**row, "age": None, "at": None, "vip": None, "note": None}])
    defaults = {"a": 40.0, "b": -1.0, "c": 0.5, "d": 0.0}
    expressions = {"a": "age", "b": "hour(at)", "c": "where(vip, 1, 0)", "d": "is_null(note)"}
    transforms = Transforms((), expressions, (0.0,) * 4, (1.0,) * 4, defaults=defaults)
    np.testing.assert_allclose(np.sinh(transforms.apply(columns)), [[5, 12, 1, 0], [40, -1, 0.5, 1]], rtol=1e-5)
    with pytest.raises(RequestError, match="amount.*must be a finite number, not null|amount.*None"):
        from_rows(schema, [{**row, "amount": None}])
