"""`ml-platform inspect` as a user gives it, on a real lake; Dagster is not there, or answers what a test says."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml_platform.cli import inspect
from ml_platform.core import keys
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_results import Judgement, Known
from ml_platform.resources.lake import Lake
from ml_platform_tests.conftest import FIRST_DAY
from ml_platform_tests.processes import free_port
from ml_platform_tests.test_cli import error, said

MODEL, PNG = "fraud_detection", b"\x89PNG..."
SET, EVALUATION = keys.training_set(MODEL), keys.evaluation(MODEL)


@pytest.fixture
def lake(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A training set and its evaluation, and nobody where Dagster should be."""
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_PORT", str(free_port()))
    monkeypatch.setattr("ml_platform.resources.dagster_api.PAUSES", ())
    lake = Lake.at(environment)
    rows = pa.table({"id": [70_001, 70_002, 70_003], "share": [0.25, None, float("nan")], "name": ["a", "b", "c"]})
    made = lake.write_table(SET, FIRST_DAY, rows, [], {"seed": "7"})
    files = {"report.json": b'{"auc": 0.875, "gates": [1, 2]}', "roc.png": PNG}
    lake.write_files(EVALUATION, FIRST_DAY, files, [made.as_input(SET, FIRST_DAY)])
    return lake


def json_of(*arguments: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(said("inspect", *arguments, "--json"), parse_constant=refuse)


def cells(text: str, first: str) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    return next(row for row in rows if row[0] == first)


def test_one_page_has_manifest_columns_rows_and_files(lake: Lake) -> None:
    text = said("inspect", SET)
    assert text.startswith(f"{SET} [{FIRST_DAY}]\n")
    assert cells(text, "content hash")[1] == lake.require(SET, FIRST_DAY).content_hash
    assert cells(text, "tags seed")[1] == "7"
    assert cells(text, "share")[:4] == ["share", "double", "2", "1"]
    assert ["id", "70001", "70002", "70003"] in [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()
    ]


def test_dagster_that_cannot_be_reached_is_said_and_the_rest_is_shown(lake: Lake) -> None:
    text = said("inspect", EVALUATION, str(FIRST_DAY))
    assert "nothing from Dagster: dagster: no Dagster answers at" in text
    assert "1 of 1 inputs are current" in text
    assert cells(text, "report.json")[2] == "auc 0.875, gates (2)"
    assert "no Dagster answers" in json_of(EVALUATION)["dagster"]["problem"]


def test_input_that_has_changed_is_the_first_line_of_its_table(lake: Lake) -> None:
    new = lake.write_table(SET, FIRST_DAY, pa.table({"id": [1]}), [])
    text = said("inspect", EVALUATION)
    assert "0 of 1 inputs are current" in text
    assert cells(text, f"{SET} [{FIRST_DAY}]")[3] == f"has changed: is {new.content_hash}"


def test_programs_get_the_same_as_json_with_nothing_that_json_lacks(lake: Lake) -> None:
    found = json_of(SET, "--rows", "3")
    assert (found["asset"], found["partition"], found["rows"]) == (SET, str(FIRST_DAY), 3)
    assert [one["share"] for one in found["sample"]] == [0.25, None, None]
    assert [one["column"] for one in found["columns"]] == ["id", "share", "name"]
    assert json_of(SET, "--rows", "0")["sample"] == []
    evaluation = json_of(EVALUATION)
    assert evaluation["files"][0]["content"] == {"auc": 0.875, "gates": [1, 2]}
    assert evaluation["inputs"][0]["state"] == "current"


def test_files_and_the_plots_that_dagster_has_are_saved(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2018, 4, 1, 6, tzinfo=UTC)
    picture = f"![plot](data:image/png;base64,{base64.b64encode(b'drift').decode()})"
    check = Judgement("beats_champion", "failed", "0.1 is less than 0.2", at, "abc", {"value": 0.1})
    known = Known("abc", at, {"drift": picture, "rows": 3}, (check,))
    monkeypatch.setattr(inspect, "known_of", lambda *_: known)
    text = said("inspect", EVALUATION, "--save", str(tmp_path / "kept"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == {
        "report.json": b'{"auc": 0.875, "gates": [1, 2]}',
        "roc.png": PNG,
        "drift.png": b"drift",
    }
    assert "/runs/abc at 2018-04-01 06:00:00 UTC" in text
    assert cells(text, "beats_champion") == ["beats_champion", "failed", "0.1 is less than 0.2", "value 0.1"]
    assert cells(text, "drift")[1] == "a picture; --save FOLDER writes it"
    found = json_of(EVALUATION)
    assert found["dagster"]["metadata"] == {"drift": "(a picture)", "rows": 3}
    assert found["dagster"]["checks"][0]["outcome"] == "failed"


def test_table_is_saved_as_the_file_that_it_is(lake: Lake, tmp_path: Path) -> None:
    said("inspect", SET, "--save", str(tmp_path / "kept"))
    (path,) = (tmp_path / "kept").iterdir()
    import pyarrow.parquet as pq

    assert pq.read_table(path).num_rows == 3


def test_folder_that_cannot_be_written_is_an_error_with_the_next_step(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = error("inspect", EVALUATION, "--save", str(tmp_path / "file"))
    assert words.startswith("--save: ")
    assert words.endswith("Next: name a folder that can be written")


def test_picture_is_saved_below_the_folder_whatever_it_is_called(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = f"![plot](data:image/png;base64,{base64.b64encode(b'png').decode()})"
    monkeypatch.setattr(inspect, "known_of", lambda *_: Known("abc", None, {"../team/plot": picture}, ()))
    said("inspect", SET, "--save", str(tmp_path / "kept"))
    assert (tmp_path / "kept" / ".._team_plot.png").read_bytes() == b"png"


def test_wrong_asset_gets_the_nearest(lake: Lake) -> None:
    assert "did you mean `fraud_detection/training_set`?" in error("inspect", "fraud_detection/trainingset")
