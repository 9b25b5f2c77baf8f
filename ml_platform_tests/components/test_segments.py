"""A source with segments: each lands and is judged by itself, and the whole follows when all are there."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.components.automation import united
from ml_platform.components.source import landed_asset, raw_asset, united_asset
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.errors import SpecError
from ml_platform.core.settings import Settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins

pytestmark = pytest.mark.usefixtures("s3_port")

DAY = date(2024, 1, 2)
ORDERS = """
type: ml_platform.components.Source
attributes:
  name: orders
  start_date: 2024-01-01
  segments: [de, fr, us]
  key: [id]
  event_time: at
  columns:
    id: {type: int64}
    at: {type: timestamp}
  policies:
    values_fit_their_types: {on_failure: quarantine, up_to: 0.5}
"""


@pytest.fixture
def orders(tmp_path: Path) -> Catalog:
    (tmp_path / "defs" / "orders").mkdir(parents=True)
    (tmp_path / "defs" / "orders" / "defs.yaml").write_text(ORDERS)
    return load_catalog(tmp_path / "defs")


class World:
    def __init__(self, catalog: Catalog, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.instance, self.landing, self.lake = instance, ObjectStore.at(settings), Lake.at(settings)
        self.landing.ensure_bucket()
        source = catalog.sources["orders"]
        feeds = catalog.feeds_of(source)
        assets = [one for feed in feeds for one in (landed_asset(feed), raw_asset(feed, catalog))]
        resources = {"origins": Origins(self.landing), "lake": self.lake}
        self.definitions = dg.Definitions(assets=[*assets, united_asset(source, catalog)], resources=resources)

    def land(self, segment: str, *rows: str) -> None:
        content = "id,at\n" + "".join(f"{row},{DAY}T10:00:00\n" for row in rows)
        self.landing.write(f"orders/{segment}/{DAY}/a.csv", content.encode())

    def make(self, *keys: str) -> bool:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        selection = [dg.AssetKey(key.split("/")) for key in keys]
        return job.execute_in_process(
            asset_selection=selection, partition_key=DAY.isoformat(), instance=self.instance, raise_on_error=False
        ).success


@pytest.fixture
def world(orders: Catalog, settings: Settings) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(orders, settings, instance)


SEGMENTS = ("orders/de/raw", "orders/fr/raw", "orders/us/raw")


def test_graph_fans_out_and_in(world: World, orders: Catalog) -> None:
    graph = world.definitions.resolve_asset_graph()
    whole = graph.get(dg.AssetKey(["orders", "raw"]))
    assert {key.to_user_string() for key in whole.parent_keys} == set(SEGMENTS)
    assert {graph.get(dg.AssetKey(key.split("/"))).group_name for key in SEGMENTS} == {"orders"}
    assert united(orders) == [whole.key]
    assert list(orders.feeds) == ["orders/de", "orders/fr", "orders/us"]


def test_rows_of_all_segments_become_one_table(world: World) -> None:
    for number, segment in enumerate(("de", "fr", "us")):
        world.land(segment, str(number), str(number + 10))
    assert world.make(*SEGMENTS, "orders/raw")
    rows = world.lake.read_table("orders/raw", [DAY])
    assert rows.select(["id", "segment"]).to_pydict() == {
        "id": [0, 10, 1, 11, 2, 12],
        "segment": ["de", "de", "fr", "fr", "us", "us"],
    }
    inputs = world.lake.require("orders/raw", DAY).inputs
    assert [one.name for one in inputs] == [f"{key} [{DAY}]" for key in SEGMENTS]


def test_broken_segment_keeps_the_others_but_not_the_whole_waiting(world: World) -> None:
    world.land("de", "1")
    world.land("fr", "x", "y", "z")
    world.land("us", "3")
    assert not world.make(*SEGMENTS, "orders/raw")
    assert [world.lake.manifest(key, DAY) is not None for key in (*SEGMENTS, "orders/raw")] == [
        True,
        False,
        True,
        False,
    ]
    world.land("fr", "2")
    assert world.make("orders/fr/raw")
    assert world.make("orders/raw")
    assert world.lake.require("orders/raw", DAY).rows == 3


def test_whole_is_as_good_as_its_worst_segment(world: World) -> None:
    world.land("de", "1")
    world.land("fr", "x", "4", "5")
    world.land("us", "3")
    assert world.make(*SEGMENTS, "orders/raw")
    assert world.lake.require("orders/raw", DAY).tags["quality"] == "degraded"


def test_key_in_two_segments_is_a_red_check_of_the_whole(world: World) -> None:
    for segment in ("de", "fr", "us"):
        world.land(segment, "7")
    assert not world.make(*SEGMENTS, "orders/raw")
    assert world.lake.manifest("orders/raw", DAY) is None
    record = world.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(["orders", "raw"]), "keys_are_unique"), limit=1
    )
    assert record[0].status.value == "FAILED"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("  origin: {type: sql, url_variable: X, table: orders}", "an sql origin has none"),
        ("  references: {id: {source: orders, column: id}}", "no other source without segments 'orders'"),
    ],
)
def test_segments_where_they_cannot_be_are_refused(tmp_path: Path, change: str, problem: str) -> None:
    (tmp_path / "defs.yaml").write_text(f"{ORDERS}{change}\n")
    with pytest.raises(SpecError, match=problem):
        load_catalog(tmp_path)
