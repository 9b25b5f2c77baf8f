"""The tutorial, as somebody new follows it: a regression on CSV files of their own, and a look at it from Python."""

import re
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from typer.testing import CliRunner

import ml_platform as mp
from ml_platform.cli import app
from ml_platform.components.project import project_definitions
from ml_platform.core.errors import BundleError, FeatureError, LakeError, RegistryError
from ml_platform.core.settings import Settings
from ml_platform.library import LoadedModel
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version

PAGE = (Path(__file__).parents[2] / "docs" / "first-model.md").read_text()
FIRST, DAYS = date(2026, 9, 1), 20


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, s3_port: int, mlflow_url: str
) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance]]:
    """The project of the tutorial, with its files landed and everything made of them up to the evaluation."""
    root = tmp_path_factory.mktemp("tutorial") / "shop"
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setattr(sys, "path", [*sys.path])
        variables = {
            "ML_PLATFORM_HOME": str(root / "home"),
            "ML_PLATFORM_S3_PORT": str(s3_port),
            "ML_PLATFORM_LANDING": "s3://tutorial-landing",
            "MLFLOW_TRACKING_URI": mlflow_url,
            "ML_PLATFORM_EXECUTOR": "in_process",
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("ML_PLATFORM_PROJECT", raising=False)
        ok(CliRunner().invoke(app, ["init", "shop", "--into", str(root)]))
        for path, text in written(PAGE).items():
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text)
        patch.chdir(root)
        ok(CliRunner().invoke(app, ["check"]))
        land(root.parent / "data")
        ok(CliRunner().invoke(app, ["land", "--input", str(root.parent / "data")]))
        patch.setenv("ML_PLATFORM_PROJECT", "shop")  # as the code location does for itself
        defs = project_definitions("shop")
        make(defs, instance, "sales/raw", FIRST, FIRST + timedelta(days=DAYS - 1))
        make(defs, instance, "features/shop_week", FIRST + timedelta(days=1), FIRST + timedelta(days=DAYS))
        for noun in ("training_set", "candidate", "evaluation"):
            make(defs, instance, f"units/{noun}", FIRST + timedelta(days=DAYS))
        yield defs, instance
        for module in [one for one in sys.modules if one.split(".")[0] == "shop"]:
            del sys.modules[module]


def written(page: str) -> dict[str, str]:
    """What the page has one write, by path: the block of code after the path is named."""
    return dict(re.findall(r"`(shop/[\w/]+\.(?:yaml|py))`[^`]*(?:\[[^`]*)?```(?:yaml|python)\n(.*?)```", page, re.S))


def ok(result: object) -> None:
    assert getattr(result, "exit_code", 1) == 0, getattr(result, "output", "")


def land(folder: Path) -> None:
    random, number = np.random.default_rng(1), 0
    usual = random.uniform(2, 30, 40)
    for day in (FIRST + timedelta(days=n) for n in range(DAYS)):
        lines = ["sale_id,sold_at,shop_id,price,units"]
        for _ in range(120):
            shop, price = random.integers(0, 40), round(random.uniform(1, 9), 2)
            units = max(0, int(usual[shop] * (1.5 - price / 10) + random.normal(0, 2)))
            lines.append(f"{number},{day}T{random.integers(0, 24):02d}:30:00,{shop},{price},{units}")
            number += 1
        (folder / "sales" / str(day)).mkdir(parents=True)
        (folder / "sales" / str(day) / "till.csv").write_text("\n".join(lines) + "\n")


def make(defs: dg.Definitions, instance: dg.DagsterInstance, key: str, first: date, last: date | None = None) -> None:
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={dg.AssetKey(key.split("/"))})
    tags = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last or first)}
    if last is None:
        assert job.execute_in_process(instance=instance, partition_key=str(first)).success
    else:
        assert job.execute_in_process(instance=instance, tags=tags).success


def test_page_has_everything_that_one_writes_and_it_is_little() -> None:
    files = written(PAGE)
    assert {*files} == {
        "shop/defs/sales/defs.yaml", "shop/defs/features/defs.yaml", "shop/features.py", "shop/defs/units/defs.yaml"
    }  # fmt: skip
    lines = [line for text in files.values() for line in text.splitlines() if line.strip()]
    assert len(lines) <= 25


def test_it_is_trained_gated_and_good(shop: tuple[dg.Definitions, dg.DagsterInstance]) -> None:
    _, instance = shop
    (check,) = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(["units", "evaluation"]), "r2_is_above_minimum"), limit=1
    )
    assert check.status.value == "SUCCEEDED"


def test_what_was_made_is_read_in_a_line_each(shop: tuple[dg.Definitions, dg.DagsterInstance]) -> None:
    project = mp.project()
    assert len(project.table("sales/raw", FIRST)) == 120
    assert len(project.table("sales/raw", slice("2026-09-02", "2026-09-04"))) == 360
    assert len(project.table("sales/raw", ["2026-09-02", FIRST])) == 240
    assert len(project.table("sales/raw")) == 120 * DAYS
    assert {"shop_id", "mean_units", "sales_7d"} <= {*project.features("shop_week").columns}
    assert {*project.training_set("units")["split"]} == {"train", "validation"}
    week = project.compute("shop_week", FIRST + timedelta(days=7), {"sales": project.table("sales/raw")})
    assert week.equals(project.features("shop_week", FIRST + timedelta(days=7)))


def test_what_is_not_there_is_said(shop: tuple[dg.Definitions, dg.DagsterInstance]) -> None:
    project = mp.project()
    with pytest.raises(LakeError, match="sales/row: has no partition"):
        project.table("sales/row")
    with pytest.raises(LakeError, match="this partition does not exist"):
        project.table("sales/raw", "2020-01-01")
    with pytest.raises(FeatureError, match="did you mean `shop_week`"):
        project.compute("shop_weak", FIRST, {})
    with pytest.raises(RegistryError, match="units: has no champion"):
        project.model("units@champion")


def test_model_scores_a_frame_as_it_was_judged(shop: tuple[dg.Definitions, dg.DagsterInstance]) -> None:
    project = mp.project()
    day = FIRST + timedelta(days=DAYS)
    files = project.lake.read_files("units/candidate", day)
    loaded = LoadedModel(Version("units", "1", "digest", str(day), "run", "source"), bundle.unpack(files, "units"))
    rows = project.training_set("units")
    scores = loaded.score(rows)
    assert np.corrcoef(scores, rows["label"])[0, 1] > 0.8
    with pytest.raises(BundleError, match="the frame lacks mean_units"):
        loaded.score(rows.drop(columns=["mean_units"]))


def test_reading_a_project_needs_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    assert "fraud_detection" in mp.project().catalog.models
    assert Settings().home == mp.project().settings.home
