"""`ml-platform spin`: a view's day as its author sees it, and nothing in the lake is touched."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app, spin
from ml_platform.components.feature_view import compute_day
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError, SpecError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.features.engine import Embedded
from ml_platform.resources.lake import Lake
from ml_platform_tests.components.test_feature_view import DAY, VIEW, changed
from ml_platform_tests.conftest import lake_of


@pytest.fixture
def lake(settings: Settings, landed_files: list[tuple[str, date, pa.Table]], monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake with the raw days that DAY looks back on, and later ones; the command finds it."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    recent = [file for file in landed_files if file[0] == "transactions" and file[1] >= DAY - timedelta(days=30)]
    return lake_of(settings, recent)


def told(*arguments: str, status: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["spin", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def files_of(lake: Lake) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns) for path in Path(lake.root).rglob("*") if path.is_file()}


def test_day_is_computed_judged_and_shown_and_the_lake_stays_as_it_is(lake: Lake, tmp_path: Path) -> None:
    before = files_of(lake)
    found = told(f"features/{VIEW}", DAY.isoformat(), "--rows", "2", "--save", str(tmp_path / "out"))
    assert files_of(lake) == before
    assert len(found["checks"]) == 6
    assert all(check["passed"] for check in found["checks"].values())
    assert found["lake"]["words"] == "the lake does not have the day"
    assert {one["column"] for one in found["features"]} >= {"customer_mean_amount_30d", "customer_last_amount"}
    assert len(found["sample"]) == 2
    assert (tmp_path / "out" / "features.parquet").exists()


def test_what_differs_from_the_lake_is_said_by_feature(
    lake: Lake, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_day(catalog.views[VIEW], DAY, catalog, lake, Embedded())
    assert "the same values" in told(VIEW, DAY.isoformat())["lake"]["words"]
    other = changed(catalog, "in_cents", customer_total_30d=None)
    monkeypatch.setattr(spin, "world", lambda: (Settings(), other, lake))
    found = told(VIEW, DAY.isoformat())
    assert list(found["lake"]["differ"]) == ["customer_mean_amount_30d"]
    assert found["lake"]["differ"]["customer_mean_amount_30d"] == found["rows"]


def test_failed_check_that_blocks_is_the_status(lake: Lake, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = catalog.views[VIEW].model_dump(exclude_defaults=True) | {"name": VIEW}
    given["features"]["customer_max_amount_7d"] = {"min": 0, "max": 0.01}
    strict = replace(catalog, views={**catalog.views, VIEW: FeatureViewSpec.model_validate(given)})
    monkeypatch.setattr(spin, "world", lambda: (Settings(), strict, lake))
    assert not told(VIEW, DAY.isoformat(), status=1)["checks"]["values_are_in_range"]["passed"]


def test_default_is_the_newest_day_whose_inputs_are_all_there(lake: Lake) -> None:
    newest = lake.days(keys.raw("transactions"))[-1]
    assert told(VIEW, "--rows", "0")["day"] == str(date.fromordinal(newest.toordinal() + 1))


@pytest.mark.parametrize(
    ("name", "words"),
    [("customer_activty", "did you mean `customer_activity`"), ("transaction_request", "is computed in the request")],
)
def test_wrong_name_gets_the_right_one(lake: Lake, name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        CliRunner().invoke(app, ["spin", name], catch_exceptions=False)


def test_without_inputs_it_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    with pytest.raises(LakeError, match="no day of the newest has all its inputs"):
        CliRunner().invoke(app, ["spin", VIEW], catch_exceptions=False)


def test_people_get_tables_and_one_line_a_check(lake: Lake) -> None:
    output = CliRunner().invoke(app, ["spin", VIEW, DAY.isoformat()], catch_exceptions=False).stdout
    assert "ok     no_future_information" in output
    assert "first rows" in output
    assert " rows in " in output
