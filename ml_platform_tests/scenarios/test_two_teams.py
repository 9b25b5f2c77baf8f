"""Two teams' projects in one workspace: two code locations, one lake with a prefix each, one model server for both."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.cli.init import init
from ml_platform.core import keys
from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import SpecError
from ml_platform.core.project import find_projects
from ml_platform.core.settings import Settings
from ml_platform.resources.lake import Lake

BIN = Path(sys.executable).parent
ORDERS = """\
type: ml_platform.components.Source
attributes:
  name: orders
  start_date: 2026-09-01
  key: [order_id]
  event_time: at
  columns: {order_id: {type: int64}, at: {type: timestamp}, shop_id: {type: int64}, units: {type: int64}}
"""
SHOP_WEEK = """\
type: ml_platform.components.FeatureView
attributes:
  name: shop_week
  entity: shop_id
  function: team_buyers.features.shop_week
  inputs: {orders: {window_days: 7}}
  features: {units_7d: {}}
"""
FUNCTION = """\
def shop_week(orders):
    return orders.table.group_by("shop_id").agg(units_7d=orders.table.units.sum())
"""
PROJECT = "---\ntype: ml_platform.components.Project\nattributes: {{prefix: {prefix}, reads: [{reads}]}}\n"


def put(path: Path, text: str, mode: str = "w") -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open(mode) as file:
        file.write(text)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sellers declare orders; buyers have a view of them."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    for team in ("team_sellers", "team_buyers"):
        init(team, "empty", tmp_path / team)
        reads = "team_sellers" if team == "team_buyers" else ""
        put(tmp_path / team / team / "defs" / "platform" / "defs.yaml", PROJECT.format(prefix=team, reads=reads), "a")
    put(tmp_path / "team_sellers" / "team_sellers" / "defs" / "orders" / "defs.yaml", ORDERS)
    put(tmp_path / "team_buyers" / "team_buyers" / "defs" / "shop_week" / "defs.yaml", SHOP_WEEK)
    put(tmp_path / "team_buyers" / "team_buyers" / "features.py", FUNCTION)
    locations = "".join(
        f"  - python_module: {{module_name: {team}.definitions, location_name: {team}, working_directory: {team}}}\n"
        for team in ("team_sellers", "team_buyers")
    )
    put(tmp_path / "workspace.yaml", f"load_from:\n{locations}")
    yield tmp_path
    for module in [one for one in sys.modules if one.startswith("team_")]:
        del sys.modules[module]


def test_in_the_folder_of_the_workspace_both_are_meant(workspace: Path) -> None:
    assert [project.package for project in find_projects()] == ["team_sellers", "team_buyers"]
    catalog = catalog_at(Settings(home=workspace / "home"))
    assert {*catalog.own_sources} == {"orders"}
    assert {*catalog.views} == {"shop_week"}
    assert catalog.foreign == frozenset()
    result = CliRunner().invoke(app, ["check"])
    assert (result.exit_code, "1 sources, 1 feature views" in result.output) == (0, True), result.output


def test_tables_lie_below_their_projects_prefix_and_are_read_by_the_other(workspace: Path) -> None:
    settings = Settings(home=workspace / "home", project="team_buyers")
    catalog, lake = catalog_at(settings), Lake.at(settings)
    assert catalog.foreign == {"orders"}
    assert not catalog.feeds, "they are ingested by their owners"
    sellers = Lake.at(settings.model_copy(update={"project": "team_sellers"}))
    day, rows = date(2026, 9, 1), pa.table({"order_id": [1]})
    sellers.write_table(keys.raw("orders"), day, rows, [])
    assert lake.read_table(keys.raw("orders"), [day]) == rows
    assert (workspace / "home" / "lake" / "team_sellers" / "orders" / "raw" / "date=2026-09-01").is_dir()
    assert lake.table_folder("features/shop_week").endswith("/team_buyers/features/shop_week")
    assert sellers.table_folder("quarantine/orders").endswith("/team_sellers/quarantine/orders")


def test_name_that_both_declare_is_refused_with_both_files(workspace: Path) -> None:
    put(workspace / "team_buyers" / "team_buyers" / "defs" / "orders" / "defs.yaml", ORDERS)
    with pytest.raises(SpecError) as error:
        catalog_at(Settings(home=workspace / "home"))
    assert all(f"{team}/defs/orders/defs.yaml" in str(error.value) for team in ("team_sellers", "team_buyers"))
    with pytest.raises(SpecError, match="'orders' is declared in"):
        catalog_at(Settings(home=workspace / "home", project="team_buyers"))


def test_project_that_is_not_there_to_read_is_said_with_its_line(workspace: Path) -> None:
    path = workspace / "team_buyers" / "team_buyers" / "defs" / "platform" / "defs.yaml"
    path.write_text(path.read_text().replace("reads: [team_sellers]", "reads: [team_selers]"))
    with pytest.raises(SpecError, match="team_selers"):
        catalog_at(Settings(home=workspace / "home", project="team_buyers"))


@pytest.mark.processes
def test_dagster_loads_both_and_the_view_of_one_follows_the_source_of_the_other(workspace: Path) -> None:
    environment = {**os.environ, "ML_PLATFORM_HOME": str(workspace / "home")}
    done = subprocess.run(
        [str(BIN / "dagster"), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=workspace, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = (
        "from team_buyers.definitions import defs; import dagster as dg\n"
        "graph = defs.resolve_asset_graph()\n"
        "view, raw = graph.get(dg.AssetKey(['features', 'shop_week'])), graph.get(dg.AssetKey(['orders', 'raw']))\n"
        "print(sorted(k.to_user_string() for k in view.parent_keys), raw.is_external, raw.partitions_def is not None)"
    )
    path = os.pathsep.join([str(workspace / "team_buyers"), environment.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workspace, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout.strip() == "['orders/raw'] True True", found.stderr
