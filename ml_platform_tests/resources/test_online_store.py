# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""Every kind of online store, on a real SQLite file and a real Redis."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
import redis

from ml_platform.core.errors import FeatureError, SettingsError
from ml_platform.core.settings import EMBEDDED_S3_CREDENTIALS, Settings
from ml_platform.core.spec import FeatureSpec, FeatureViewSpec, ViewInputSpec
from ml_platform.resources import feast_store
from ml_platform.resources.feast_store import FeastStore
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.online_store import Found, OnlineStore, SqliteStore, online_store_at
from ml_platform_tests.processes import eventually, free_port
from ml_platform_tests.servers import REDIS_PASSWORD as PASSWORD
from ml_platform_tests.stores import FEAST, at_store  # noqa: F401  # a fixture

JUNE, JULY = datetime(2018, 6, 1, tzinfo=UTC), datetime(2018, 7, 1, tzinfo=UTC)
VIEW = FeatureViewSpec(
    name="activity",
    entity="user",
    function="somewhere.activity",
    inputs={"visits": ViewInputSpec(window_days=1)},
    features={"clicks": FeatureSpec(), "visits": FeatureSpec(type="int64")},
)
OTHER = VIEW.model_copy(update={"name": "other"})


def rows(*clicks: float | None) -> pa.Table:
    """Users 0, 1, ... with twice as many visits as clicks."""
    visits = pa.array([None if value is None else int(2 * value) for value in clicks], pa.int64())
    return pa.table({"user": pa.array(range(len(clicks)), pa.int32()), "clicks": pa.array(clicks), "visits": visits})


def values(clicks: float) -> dict[str, float | int]:
    return {"clicks": clicks, "visits": int(2 * clicks)}


def read(store: OnlineStore, *ids: int) -> Found:
    return store.read("activity", "user", ids, ["clicks", "visits"])


@pytest.fixture
def store(at_store: Settings) -> OnlineStore:  # noqa: F811
    return online_store_at(at_store)


def test_known_ids_are_found_and_unknown_ones_left_out(store: OnlineStore) -> None:
    assert store.write(VIEW, rows(1.5, 2.5), JUNE)
    assert read(store, 0, 1, 1, 99, -1, 2**62) == Found(JUNE, {0: values(1.5), 1: values(2.5)})
    assert store.read("activity", "user", [1], ["visits"]) == Found(JUNE, {1: {"visits": 5}})
    assert read(store, 99) == read(store) == Found(JUNE, {})


def test_value_that_is_null_is_none(store: OnlineStore) -> None:
    store.write(VIEW, rows(None, 2.5), JUNE)
    assert read(store, 0, 1).rows == {0: {"clicks": None, "visits": None}, 1: values(2.5)}


def test_ids_may_be_strings(store: OnlineStore) -> None:
    named = rows(1, 2).set_column(0, "user", pa.array(["ann", "bob,=é"]))
    store.write(VIEW, named, JUNE)
    assert store.read("activity", "user", ["bob,=é", "eve"], ["clicks"]) == Found(JUNE, {"bob,=é": {"clicks": 2}})


def test_newer_rows_replace_all_older_ones(store: OnlineStore) -> None:
    store.write(VIEW, rows(1, 2), JUNE)
    store.write(OTHER, rows(3, 4), JUNE)
    store.write(VIEW, rows(9), JULY)
    assert read(store, 0, 1) == Found(JULY, {0: values(9)})
    assert store.as_of("activity") == JULY
    assert store.read("other", "user", [0, 1], ["clicks"]) == Found(JUNE, {0: {"clicks": 3}, 1: {"clicks": 4}})


def test_snapshot_that_was_made_again_replaces_the_former_one(store: OnlineStore) -> None:
    store.write(VIEW, rows(1, 2, 3), JUNE)
    assert store.write(VIEW, rows(7, 8), JUNE)
    assert read(store, 0, 1, 2) == Found(JUNE, {0: values(7), 1: values(8)})


def test_older_rows_never_replace_newer_ones(store: OnlineStore) -> None:
    store.write(VIEW, rows(9), JULY)
    assert not store.write(VIEW, rows(1), JUNE)
    assert read(store, 0) == Found(JULY, {0: values(9)})


def test_view_may_get_other_features(store: OnlineStore) -> None:
    store.write(VIEW, rows(1), JUNE)
    less = VIEW.model_copy(update={"features": {"clicks": FeatureSpec()}})
    store.write(less, rows(2).drop_columns(["visits"]), JULY)
    assert store.read("activity", "user", [0], ["clicks"]) == Found(JULY, {0: {"clicks": 2}})
    with pytest.raises(FeatureError, match="visits"):
        read(store, 0)
    store.write(VIEW, rows(3), JULY)
    assert read(store, 0) == Found(JULY, {0: values(3)})


def test_feature_that_the_store_does_not_have_is_an_error(store: OnlineStore) -> None:
    store.write(VIEW, rows(1), JUNE)
    with pytest.raises(FeatureError, match="never_written"):
        store.read("activity", "user", [0], ["never_written"])


def test_missing_store_or_view_is_an_error_not_a_default(store: OnlineStore) -> None:
    with pytest.raises(FeatureError, match="materialize features/online_store"):
        read(store, 1)
    store.write(OTHER, rows(1), JUNE)
    with pytest.raises(FeatureError, match=r"\[activity\]"):
        read(store, 1)
    with pytest.raises(FeatureError, match=r"\[activity\]"):
        store.as_of("activity")


def test_reader_sees_what_another_process_has_written(at_store: Settings) -> None:  # noqa: F811
    writer, reader = online_store_at(at_store), online_store_at(at_store)
    writer.write(VIEW, rows(1, 2), JUNE)
    assert read(reader, 0) == Found(JUNE, {0: values(1)})
    writer.write(VIEW, rows(3), JULY)
    assert read(reader, 0, 1) == Found(JULY, {0: values(3)})
    eventually(lambda: reader.as_of("activity") == JULY, timeout=10)


def test_readers_on_many_threads_get_whole_rows_while_there_is_a_writer(
    at_store: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feast_store, "BATCH_ROWS", 7)
    writer, reader = online_store_at(at_store), online_store_at(at_store)
    writer.write(VIEW, rows(*[1.0] * 50), JUNE)
    seen: list[Found] = []
    errors: list[Exception] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                seen.append(read(reader, len(seen) % 50))
        except Exception as error:  # noqa: BLE001  # the test shows it
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for day in range(1, 6):
        writer.write(VIEW, rows(*[float(day)] * 50), datetime(2018, 6, day, tzinfo=UTC))
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(seen) > 50
    for found in seen:
        (row,) = found.rows.values()
        assert row == values(found.as_of.day)


# --- SQLite -----------------------------------------------------------------------------------------------------------


def test_writer_that_dies_leaves_the_old_rows(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "online.db")
    store.write(VIEW, rows(1), JUNE)
    with pytest.raises(Exception, match="UNIQUE"):
        store.write(VIEW, pa.concat_tables([rows(2), rows(3)]), JULY)
    assert read(store, 0) == Found(JUNE, {0: values(1)})


# --- Feast ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_store", FEAST, indirect=True)
def test_writer_that_dies_has_published_nothing_and_is_mended_by_the_next(
    at_store: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = FeastStore(at_store)
    store.write(VIEW, rows(1, 2, 3), JUNE)
    monkeypatch.setattr(feast_store, "BATCH_ROWS", 1)
    write, left = store._open().provider.online_write_batch, [1]

    def die_later(*arguments: object) -> None:
        if not left:
            raise OSError("no more")
        left.pop()
        write(*arguments)

    monkeypatch.setattr(store._open().provider, "online_write_batch", die_later)
    with pytest.raises(FeatureError, match="cannot be written at .*no more"):
        store.write(VIEW, rows(7, 8), JULY)
    assert store.as_of("activity") == JUNE
    assert read(store, 0, 1, 2) == Found(JUNE, {0: values(7), 1: values(2), 2: values(3)})
    monkeypatch.undo()
    store.write(VIEW, rows(7, 8), JULY)
    assert read(store, 0, 1, 2) == Found(JULY, {0: values(7), 1: values(8)})


@pytest.mark.parametrize("registry", ["sqlite:///{home}/registry.sqlite", "s3://{bucket}/registry.db"])
def test_registry_may_be_a_database_or_an_object(
    registry: str, s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), EMBEDDED_S3_CREDENTIALS, strict=True):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(
        boto3, "DEFAULT_SESSION", None
    )  # it keeps the credentials of whatever test was first to need some
    monkeypatch.delenv("FEAST_S3_ENDPOINT_URL", raising=False)
    bucket = f"{tmp_path.name.replace('_', '-').lower()}-registry"
    settings = Settings(
        home=tmp_path,
        s3_port=s3_port,
        landing=f"s3://{bucket}",
        online_store=f"feast+sqlite:///{tmp_path}/online.db",
        feast_registry=registry.format(home=tmp_path, bucket=bucket),
    )
    ObjectStore.at(settings).ensure_bucket()
    writer, reader = FeastStore(settings), FeastStore(settings)
    writer.write(VIEW, rows(1, 2), JUNE)
    assert reader.as_of("activity") == JUNE
    writer.write(VIEW, rows(3), JULY)
    assert read(reader, 0, 1) == Found(JULY, {0: values(3)})
    eventually(lambda: reader.as_of("activity") == JULY, timeout=15)


def test_rows_of_other_projects_are_left_alone(redis_url: str, redis_port: int, tmp_path: Path) -> None:
    store = FeastStore(Settings(home=tmp_path, online_store=redis_url))
    store.write(VIEW, rows(1, 2), JUNE)
    client: Any = redis.Redis(port=redis_port, db=3, password=PASSWORD)
    ours = client.keys()
    for key in ours:
        client.hset(key.replace(b"ml_platform", b"no_ml_platform"), mapping=client.hgetall(key))
    store.write(VIEW, rows(), JULY)
    assert not set(ours) & set(client.keys())
    assert len(client.keys()) == 2


def test_redis_that_has_lost_everything_is_an_error(redis_url: str, redis_port: int, tmp_path: Path) -> None:
    store = FeastStore(Settings(home=tmp_path, online_store=redis_url))
    store.write(VIEW, rows(1), JUNE)
    redis.Redis(port=redis_port, password=PASSWORD).flushall()
    with pytest.raises(FeatureError, match="is empty: it has lost what was written. Next: materialize"):
        read(store, 0)


def test_redis_that_does_not_answer_is_named_without_its_password(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://someone:secret@127.0.0.1:{port}/0"
    for attempt in (lambda s: s.write(VIEW, rows(1), JUNE), lambda s: read(s, 0)):
        with pytest.raises(FeatureError, match=f"someone:[*]{{3}}@127.0.0.1:{port}/0: .*Next: start Redis") as caught:
            attempt(FeastStore(Settings(home=tmp_path, online_store=url)))
        assert "secret" not in str(caught.value)
    wrong = redis_url.replace("shown", "guessed")
    with pytest.raises(FeatureError, match="cannot be written at redis://:[*]{3}@.*Authentication"):
        FeastStore(Settings(home=tmp_path / "other", online_store=wrong)).write(VIEW, rows(1), JUNE)


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://:secret@host:port", "redis://host/users", "rediss://:a#secret@host", "mysql://a:secret@b"],
)
def test_impossible_address_names_the_variable_and_no_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="^ML_PLATFORM_ONLINE_STORE: ") as caught:
        online_store_at(Settings(home=tmp_path, online_store=url))
    assert "secret" not in str(caught.value)


def test_entity_that_feast_cannot_look_up_by_is_named(tmp_path: Path) -> None:
    store = FeastStore(Settings(home=tmp_path, online_store=f"feast+sqlite:///{tmp_path}/online.db"))
    halves = rows(1).set_column(0, "user", pa.array([0.5]))
    with pytest.raises(FeatureError, match="features/activity: Feast looks up by .*user is double"):
        store.write(VIEW, halves, JUNE)


def test_feast_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "feast", None)
    monkeypatch.delitem(sys.modules, "ml_platform.resources.feast_store")
    with pytest.raises(SettingsError, match=r"Next: pip install 'ml-platform\[feast\]'"):
        online_store_at(Settings(home=tmp_path, online_store=f"feast+sqlite:///{tmp_path}/online.db"))


@pytest.mark.processes
def test_store_opens_where_duckdb_and_ibis_are_not_installed(at_store: Settings) -> None:  # noqa: F811
    """As in the model server's image."""
    online_store_at(at_store).write(VIEW, rows(5.0), JUNE)
    code = """
import sys
for missing in ("duckdb", "ibis"):
    sys.modules[missing] = None
from ml_platform.core.settings import load_settings
from ml_platform.resources.online_store import online_store_at
print(online_store_at(load_settings()).read("activity", "user", [0], ["clicks"]).rows)
"""
    variables = {
        "ML_PLATFORM_HOME": str(at_store.home),
        "ML_PLATFORM_ONLINE_STORE": at_store.online_store_url,
        "ML_PLATFORM_FEAST_REGISTRY": at_store.feast_registry_url,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "5.0" in done.stdout
