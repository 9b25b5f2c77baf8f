# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""`features/online_store`: what it publishes, and how it finds out that the store says something else."""

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from ml_platform.components.online_store import SAMPLE, online_store_asset
from ml_platform.core import keys
from ml_platform.core.days import start_of
from ml_platform.core.errors import FeatureError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureSpec, FeatureViewSpec, ViewInputSpec
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import Found, SqliteStore, online_store_at
from ml_platform_tests.stores import at_store  # noqa: F401  # a fixture

FIRST, SECOND = date(2018, 6, 1), date(2018, 6, 2)
VIEWS = [
    FeatureViewSpec(
        name=name,
        entity=entity,
        function=f"somewhere.{name}",
        inputs={"visits": ViewInputSpec(window_days=1)},
        features={"clicks": FeatureSpec(), "visits": FeatureSpec(type="int64")},
    )
    for name, entity in (("activity", "user"), ("places", "town"))
]


def snapshot(lake: Lake, day: date, users: int) -> None:
    """Some users, and two towns."""
    for view, ids in zip(VIEWS, (pa.array(range(-1, users - 1), pa.int32()), pa.array(["Rome", "Oslo"])), strict=True):
        columns = {"clicks": [0.1 * n for n in range(len(ids))], "visits": pa.array(range(len(ids)), pa.int64())}
        as_of = pa.array([start_of(day)] * len(ids), pa.timestamp("us", tz="UTC"))
        table = pa.table({str(view.entity): ids, "as_of": as_of, **columns})
        lake.write_table(keys.feature_view(view.name), day, table, [])


def materialized(
    lake: Lake, store: Any, views: list[FeatureViewSpec] = VIEWS
) -> tuple[Mapping[str, Any], dg.AssetCheckEvaluation]:
    """Metadata and the check of one run."""
    resources = {"lake": dg.ResourceDefinition.hardcoded_resource(lake)}
    resources["store"] = dg.ResourceDefinition.hardcoded_resource(store)
    result = dg.materialize([online_store_asset(views)], resources=resources)
    (event,) = result.get_asset_materialization_events()
    (check,) = result.get_asset_check_evaluations()
    return {name: value.value for name, value in event.materialization.metadata.items()}, check


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(Settings(home=tmp_path))


def test_newest_snapshots_are_published_and_read_back(at_store: Settings, lake: Lake) -> None:  # noqa: F811
    store = online_store_at(at_store)
    metadata, check = materialized(lake, store)
    assert (metadata["activity"], check.passed) == ("no snapshot yet", True)
    snapshot(lake, FIRST, 2 * SAMPLE)
    snapshot(lake, SECOND, SAMPLE + 50)
    metadata, check = materialized(lake, store)
    assert (metadata["activity"], metadata["places"]) == ("250 rows as of 2018-06-02", "2 rows as of 2018-06-02")
    assert (check.passed, check.blocking, check.description) == (True, False, None)
    assert store.read("places", "town", ["Oslo"], ["clicks", "visits"]).rows == {"Oslo": {"clicks": 0.1, "visits": 1}}


def test_newer_rows_stay_and_the_check_says_that_the_lake_has_others(at_store: Settings, lake: Lake) -> None:  # noqa: F811
    store = online_store_at(at_store)
    snapshot(lake, SECOND, 3)
    materialized(lake, store)
    lake.remove(keys.feature_view("activity"), SECOND)
    lake.remove(keys.feature_view("places"), SECOND)
    snapshot(lake, FIRST, 3)
    metadata, check = materialized(lake, store)
    assert metadata["activity"] == "kept newer rows as of 2018-06-02"
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "activity: rows as of 2018-06-02, where the lake has 2018-06-01" in str(check.description)


def test_feature_that_the_snapshot_does_not_have_yet_is_left_out(
    at_store: Settings,  # noqa: F811
    lake: Lake,
) -> None:
    store = online_store_at(at_store)
    snapshot(lake, FIRST, 3)
    newer = {**VIEWS[0].features, "age": FeatureSpec(default=40.0)}
    _, check = materialized(lake, store, [VIEWS[0].model_copy(update={"features": newer}), VIEWS[1]])
    assert check.passed
    assert store.read("activity", "user", [1], ["visits"]).rows == {1: {"visits": 2}}
    with pytest.raises(FeatureError, match="age"):
        store.read("activity", "user", [1], ["age"])


class Lying(SqliteStore):
    """A store that changes what it has found."""

    change: Callable[[dict[Any, Any]], dict[Any, Any]]

    def read(self, view: str, entity: str, ids: Any, features: Any) -> Found:
        found = super().read(view, entity, ids, features)
        return Found(found.as_of, self.change({id_: dict(row) for id_, row in found.rows.items()}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: dict([*rows.items()][1:]), "activity: no row for 1 of 3 ids; places: no row for 1 of 2 ids"),
        (
            lambda rows: {id_: {**row, "clicks": row["clicks"] + 1e-6} for id_, row in rows.items()},
            "clicks differs for 3",
        ),
        (lambda rows: {id_: {**row, "visits": None} for id_, row in rows.items()}, "visits differs for 3 of 3 ids"),
        (
            lambda rows: rows if "Rome" in rows else {**rows, -2: {"clicks": 0.0, "visits": 0}},
            "activity: a row for -2, which the lake does not have",
        ),
    ],
)
def test_store_that_says_something_else_fails_the_check(
    lake: Lake, tmp_path: Path, change: Callable[[dict[Any, Any]], dict[Any, Any]], words: str
) -> None:
    store = Lying(tmp_path / "online.db")
    store.change = change
    snapshot(lake, FIRST, 3)
    _, check = materialized(lake, store)
    assert not check.passed
    assert words in str(check.description)
