"""Feast's online store: the same snapshots where Feast's own clients find them."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException
from feast.infra.key_encoding_utils import serialize_entity_key, serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, compute_table_id
from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from ml_platform.core import keys
from ml_platform.core.errors import FeatureError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.features.feast_repo import PROJECT, feast_view, local_files, store_settings, without_password
from ml_platform.resources.online_store import MATERIALIZE, Found, never_written

OFFLINE = {"type": "remote", "host": "none"}

BATCH_ROWS = 5_000
_ENTITY_KEYS = 3  # the version of how Feast writes ids


class WholeFileRegistryStore(FileRegistryStore):
    """Feast empties its file before it writes it, and a reader would find no views."""

    def _write_registry(self, registry_proto: Registry) -> None:
        hidden = copy(self)
        hidden._filepath = self._filepath.with_name(f".{self._filepath.name}.{uuid4().hex}")
        FileRegistryStore._write_registry(hidden, registry_proto)
        hidden._filepath.replace(self._filepath)


class FeastStore:
    """Rows are replaced one by one, and the snapshot's moment is recorded in Feast's registry when all of them are.

    A reader in between may get rows of two snapshots; each is whole, and `Found.as_of` is the older one's moment.
    """

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet.

        Raises:
            SettingsError: if ML_PLATFORM_ONLINE_STORE is no address of a store.
        """
        self.settings = settings
        self.url = without_password(settings.online_store_url)
        self._content = store_settings(settings)
        self._is_redis = self._content["online_store"]["type"] == "redis"
        self._opened: FeatureStore | None = None
        self._opening = threading.Lock()

    def write(self, view: FeatureViewSpec, rows: pa.Table, as_of: datetime) -> bool:
        with self._translated(view.name, "written"):
            for path in local_files(self._content):
                path.parent.mkdir(parents=True, exist_ok=True)
            store = self._open()
            store.refresh_registry()
            known = self._known(store, view, rows)
            if (recorded := known.most_recent_end_time) and recorded > as_of:
                return False
            kept = set()
            for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
                entries = [*_entries(view, batch, as_of)]
                store.provider.online_write_batch(store.config, known, entries, None)
                kept.update(serialize_entity_key(key, _ENTITY_KEYS) for key, *_ in entries)
            self._forget_others(store, known, kept)
            store.registry.apply_materialization(known, PROJECT, as_of, as_of)
        return True

    def read(self, view: str, entity: str, ids: Iterable[int | str], features: Iterable[str]) -> Found:
        wanted, names = list(set(ids)), list(features)
        if not wanted:
            return Found(self.as_of(view), {})
        with self._translated(view, "read"):
            store = self._existing(view)
            answer = store.get_online_features([f"{view}:{name}" for name in names], {entity: wanted})
            found = answer.to_dict(include_event_timestamps=True)
            moments = found[f"{names[0]}__ts"]  # 0 where there is no row
            present = [position for position, moment in enumerate(moments) if moment]
            if not present:
                if self._is_redis and not _redis(store).dbsize():
                    problem = f"Redis at {self.url} is empty: it has lost what was written"
                    raise FeatureError(f"{keys.ONLINE_STORE} [{view}]", problem, MATERIALIZE)
                return Found(self.as_of(view), {})
        rows = {wanted[position]: {name: found[name][position] for name in names} for position in present}
        return Found(datetime.fromtimestamp(min(moments[position] for position in present), UTC), rows)

    def as_of(self, view: str) -> datetime:
        with self._translated(view, "read"):
            recorded = self._existing(view).get_feature_view(view, allow_registry_cache=True).most_recent_end_time
        if recorded is None:
            raise never_written(view)
        return recorded

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> FeatureStore:
        with self._opening:  # Feast opens its parts when they are first used, by as many threads as do
            if self._opened is None:
                registry = self._content["registry"]
                if registry["path"].startswith("s3://") and (endpoint := self.settings.s3_endpoint_url):
                    os.environ.setdefault("FEAST_S3_ENDPOINT_URL", endpoint)  # Feast has no other way to be told
                elif "://" not in registry["path"]:
                    whole = f"{__name__}.{WholeFileRegistryStore.__name__}"
                    registry = {**registry, "registry_store_type": whole}
                online = self._content["online_store"]
                if self._is_redis:  # otherwise a snapshot that was made again would not replace the former one
                    online = {**online, "skip_dedup": True}
                # Feast imports the offline store that it is told of, which nobody asks here; this one needs nothing.
                parts = {"registry": registry, "online_store": online, "offline_store": OFFLINE}
                store = FeatureStore(config=RepoConfig(**{**self._content, **parts}))
                _ = store.registry, store.provider
                self._opened = store
            return self._opened

    def _existing(self, view: str) -> FeatureStore:
        """The store for readers, who must not create its files."""
        if self._opened is None and (missing := [path for path in local_files(self._content) if not path.exists()]):
            next_step = f"{MATERIALIZE}, or export ML_PLATFORM_FEAST_REGISTRY=... as the process that did"
            raise FeatureError(f"{keys.ONLINE_STORE} [{view}]", f"there is no {missing[0]}", next_step)
        return self._opened or self._open()

    def _known(self, store: FeatureStore, view: FeatureViewSpec, rows: pa.Table) -> FeatureView:
        """The view as the registry has it, which is made to be what the platform has."""
        entity, declared = feast_view(view, str(rows.schema.field(str(view.entity)).type), self.settings)
        try:
            known = store.get_feature_view(view.name)
            declared.materialization_intervals = list(known.materialization_intervals)
            if known == declared and store.get_entity(entity.name) == entity:
                return known
        except FeatureViewNotFoundException:
            pass
        if not self._is_redis:
            with closing(sqlite3.connect(self._content["online_store"]["path"], timeout=30)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # otherwise readers would wait for the writer
        store.apply([entity, declared])
        return store.get_feature_view(view.name)

    # --- rows that are no longer there --------------------------------------------------------------------------------

    def _forget_others(self, store: FeatureStore, view: FeatureView, kept: set[bytes]) -> None:
        """Remove the rows of all other entities. Feast has no way to remove a single row, so this goes past it."""
        if self._is_redis:
            _forget_in_redis(store, view, kept)
        else:
            _forget_in_sqlite(self._content["online_store"]["path"], view, kept)

    @contextmanager
    def _translated(self, view: str, attempt: str) -> Iterator[None]:
        try:
            yield
        except FeatureError:
            raise
        except Exception as error:  # whatever Feast, its registry and its stores raise
            reason = " ".join(str(error).split())[:300]
            problem = f"cannot be {attempt} at {self.url}: {type(error).__name__}: {reason}"
            next_step = f"start Redis, or {MATERIALIZE}" if self._is_redis else MATERIALIZE
            raise FeatureError(f"{keys.ONLINE_STORE} [{view}]", problem, next_step) from error


def _entries(
    view: FeatureViewSpec, batch: pa.RecordBatch, as_of: datetime
) -> Iterator[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]:
    """Rows as Feast's stores take them."""
    entity = str(view.entity)
    ids = batch.column(entity).to_pylist()
    columns = {
        name: [_value(value, feature.type == "int64") for value in batch.column(name).to_pylist()]
        for name, feature in view.features.items()
    }
    for position, id_ in enumerate(ids):
        value = Value(string_val=id_) if isinstance(id_, str) else Value(int64_val=id_)
        key = EntityKey(join_keys=[entity], entity_values=[value])
        yield key, {name: values[position] for name, values in columns.items()}, as_of, None


def _value(value: float | int | None, whole: bool) -> Value:
    if value is None:
        return Value()
    return Value(int64_val=int(value)) if whole else Value(double_val=value)


def _forget_in_sqlite(path: str, view: FeatureView, kept: set[bytes]) -> None:
    table = compute_table_id(PROJECT, view)
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        stored = {key for (key,) in connection.execute(f'SELECT DISTINCT entity_key FROM "{table}"')}
        gone = ((key,) for key in stored - kept)
        connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', gone)
        # Features that the view had before: Feast would take their moment for the row's.
        features = [feature.name for feature in view.features]
        marks = ", ".join("?" for _ in features)
        connection.execute(f'DELETE FROM "{table}" WHERE feature_name NOT IN ({marks})', features)


def _forget_in_redis(store: FeatureStore, view: FeatureView, kept: set[bytes]) -> None:
    """A key is the entity's name, the id's type, length and value, and the project; a field is a feature of one view."""
    client = _redis(store)
    prefix, project = serialize_entity_key_prefix(view.join_keys, _ENTITY_KEYS), PROJECT.encode()
    fields = [f"_ts:{view.name}", *(_mmh3(f"{view.name}:{feature.name}") for feature in view.features)]
    start = len(prefix) + 8
    with client.pipeline(transaction=False) as pipe:
        for found in client.scan_iter(prefix + b"*" + project, count=BATCH_ROWS):
            length = int.from_bytes(found[len(prefix) + 4 : start], "little")
            is_ours = len(found) == start + length + len(project)  # not of a project whose name ends like ours
            if is_ours and found.removesuffix(project) not in kept:
                pipe.hdel(found, *fields)
            if len(pipe) >= BATCH_ROWS:
                pipe.execute()
        pipe.execute()


def _redis(store: FeatureStore) -> Any:
    """Feast's own client."""
    provider: Any = store.provider
    return provider.online_store._get_client(store.config.online_store)
