# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""A standard Feast client, in a folder that `ml-platform feast` has written, sees what the platform sees."""

import os
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from feast import FeatureStore
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.components.online_store import newest, publish
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.settings import Settings
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Embedded, read
from ml_platform.features.feast_repo import objects
from ml_platform.features.point_in_time import as_of_column, join_snapshots
from ml_platform.features.views import AS_OF, compute, input_days, view_inputs
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import online_store_at
from ml_platform_tests.processes import BIN
from ml_platform_tests.servers import REDIS_PASSWORD as PASSWORD
from ml_platform_tests.stores import FEAST, at_store  # noqa: F401  # a fixture

DAYS = [date(2018, 5, 10), date(2018, 5, 11), date(2018, 5, 13)]  # the 12th was never computed
STAMP = pa.timestamp("us", tz="UTC")
NOBODY = 1_000_000


@pytest.fixture(scope="module")
def snapshots(
    catalog: Catalog, landed_files: list[tuple[str, date, pa.Table]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[date, pa.Table]]:
    """Both views as of all days; every day lacks some entities that the others have."""
    lake, engine, sources = Lake.at(Settings(home=tmp_path_factory.mktemp("raw"))), Embedded(), catalog.sources
    for source, day, rows in landed_files:
        lake.write_table(keys.raw(source), day, rows, [])
    made: dict[str, dict[date, pa.Table]] = {}
    for view in catalog.snapshot_views():
        for number, day in enumerate(DAYS):
            raw = {
                name: lake.dataset(keys.raw(name), days, arrow_schema(sources[name]))
                for name in view.inputs
                if (days := input_days(view, sources[name], day))
            }
            table = compute(view, day, sources, view_inputs(view, day, sources, raw, engine), engine).read_all()
            ids = table[view.entity].to_numpy()
            made.setdefault(view.name, {})[day] = table.filter(ids % 7 != number)
    return made


@pytest.fixture
def world(
    processes: None,
    at_store: Settings,  # noqa: F811
    snapshots: dict[str, dict[date, pa.Table]],
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """A lake with all snapshots, and an online store."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(at_store.home))
    monkeypatch.setenv("ML_PLATFORM_ONLINE_STORE", at_store.online_store)
    monkeypatch.setenv("REDIS_PASSWORD", f'"{PASSWORD}"'.replace(",", "\\u002c"))
    lake = Lake.at(at_store)
    for view, days in snapshots.items():
        for day, table in days.items():
            lake.write_table(keys.feature_view(view), day, table, [])
    return at_store


def feast(folder: Path, *arguments: str) -> str:
    """What Feast's own program says."""
    done = subprocess.run([str(BIN / "feast"), *arguments], cwd=folder, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def applied(folder: Path) -> FeatureStore:
    """A client of the generated folder, after `feast apply`."""
    written = CliRunner().invoke(app, ["feast", str(folder)])
    assert written.exit_code == 0, written.output
    feast(folder, "apply")
    return FeatureStore(repo_path=str(folder))


def references(catalog: Catalog) -> list[str]:
    return [f"{view.name}:{feature}" for view in catalog.snapshot_views() for feature in view.features]


def events(catalog: Catalog, simulated: pa.Table) -> pa.Table:
    """Transactions from before the first snapshot to after the last; some at the borders of days, some of nobody."""
    source = catalog.sources["transactions"]
    times = simulated[source.event_time]
    first, last = (pa.scalar(start_of(day), times.type) for day in (date(2018, 5, 9), date(2018, 5, 15)))
    some = simulated.filter(pc.and_(pc.greater_equal(times, first), pc.less(times, last)))
    rng = np.random.default_rng(0)
    some = some.take(np.sort(rng.choice(some.num_rows, 400, replace=False)))
    at = some[source.event_time].to_pylist()
    borders = [start_of(day) + timedelta(days=end) for day in DAYS for end in (0, 1)]
    near = [border + timedelta(microseconds=step) for border in borders for step in (-1, 0, 1)]
    at += [moment for moment in near for _ in range(14)]
    customers = some["customer_id"].to_pylist() + [*range(14)] * len(near)
    terminals = some["terminal_id"].to_pylist() + [*range(14)] * len(near)
    customers[:3], terminals[3:6] = [NOBODY] * 3, [NOBODY] * 3
    ids = {"customer_id": pa.array(customers, pa.int32()), "terminal_id": pa.array(terminals, pa.int32())}
    return pa.table({"event": pa.array(range(len(at))), "at": pa.array(at, STAMP), **ids})


@pytest.mark.parametrize("at_store", ["sqlite"], indirect=True)
def test_historical_features_are_those_of_our_own_join(
    world: Settings, catalog: Catalog, simulated: pa.Table, tmp_path: Path
) -> None:
    rows, engine, lake = events(catalog, simulated), Embedded(), Lake.at(world)
    views = catalog.snapshot_views()
    tables = {view.name: engine.table(lake.dataset(keys.feature_view(view.name), DAYS)) for view in views}
    ours = read(engine, join_snapshots(engine.table(rows), "at", views, tables, engine).order_by("event"))
    client = applied(tmp_path / "repository")
    asked = rows.to_pandas().rename(columns={"at": "event_timestamp"})
    theirs = client.get_historical_features(asked, references(catalog)).to_df().sort_values("event")
    assert theirs["event"].tolist() == ours["event"].to_pylist()
    for view in views:
        missing = pc.is_null(ours[as_of_column(view.name)]).to_numpy()
        assert 50 < missing.sum() < len(missing) - 50
        for name in view.features:
            values = theirs[name].to_numpy(dtype=np.float64, na_value=np.nan)
            assert (np.isnan(values) == missing).all()
            np.testing.assert_array_equal(values[~missing], ours[name].to_numpy()[~missing])


@pytest.mark.parametrize("at_store", FEAST, indirect=True)
def test_online_features_are_those_that_the_asset_has_published(
    world: Settings, catalog: Catalog, snapshots: dict[str, dict[date, pa.Table]], tmp_path: Path
) -> None:
    store = online_store_at(world)
    for view in catalog.snapshot_views():
        store.write(view, snapshots[view.name][DAYS[0]].drop_columns([AS_OF]), start_of(DAYS[0]))
        day, rows = newest(view, Lake.at(world))
        assert day == DAYS[-1]
        publish(view, day, rows, store)
    client = applied(tmp_path / "repository")
    for view in catalog.snapshot_views():
        entity = str(view.entity)
        expected: dict[Any, Any] = {row[entity]: row for row in snapshots[view.name][DAYS[-1]].to_pylist()}
        gone = set(snapshots[view.name][DAYS[0]][entity].to_pylist()) - set(expected)
        assert len(gone) > 5
        asked = [*expected, *gone, NOBODY]
        answer = client.get_online_features([f"{view.name}:{name}" for name in view.features], {entity: asked})
        found = answer.to_dict()
        for name in view.features:
            assert found[name] == [expected[id_][name] if id_ in expected else None for id_ in asked]
    # And what `feast apply` did is no trouble to the platform.
    for view in catalog.snapshot_views():
        assert online_store_at(world).as_of(view.name) == start_of(DAYS[-1])
        assert store.write(view, snapshots[view.name][DAYS[-1]].drop_columns([AS_OF]), datetime(2018, 6, 1, tzinfo=UTC))
        assert store.as_of(view.name) == datetime(2018, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("at_store", ["feast+sqlite"], indirect=True)
def test_folder_defines_what_the_platform_itself_applies(world: Settings, catalog: Catalog, tmp_path: Path) -> None:
    client = applied(tmp_path / "repository")
    for entity, view in objects(catalog, world):
        assert client.get_entity(entity.name) == entity
        assert client.get_feature_view(view.name) == view
    listed = feast(tmp_path / "repository", "feature-views", "list")
    assert all(view.name in listed for view in catalog.snapshot_views())
