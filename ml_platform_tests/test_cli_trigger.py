"""`ml-platform trigger`: what it refuses, and what it asks Dagster for."""

import json
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import PlatformError
from ml_platform.core.settings import Settings
from ml_platform.resources import triggers
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.lake import Lake

MODEL, LAST = "fraud_detection", date(2018, 5, 29)


@pytest.fixture
def asked(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What Dagster is asked for. Rows are there up to the last day, and inputs are complete up to the next."""
    Lake.at(environment).write_table(keys.raw("transactions"), LAST, pa.table({"n": [1]}), [])
    found: list[tuple[Any, ...]] = []

    def fingerprint(lake: Lake, catalog: Catalog, spec: Any, day: date) -> str | None:
        return "inputs" if day <= LAST + timedelta(days=1) and spec.training.window_days <= 28 else None

    def launch(api: DagsterApi, *arguments: Any) -> str:
        found.append(arguments)
        return "abc"

    monkeypatch.setattr(triggers, "training_fingerprint", fingerprint)
    monkeypatch.setattr(DagsterApi, "launch_run", launch)
    return found


def trigger(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["trigger", *options])
    refused = isinstance(result.exception, PlatformError)  # main() says it, and exits with 2
    return 2 if refused else result.exit_code, str(result.exception) if refused else result.output


def test_training_is_asked_for_with_all_that_was_said(asked: list[tuple[Any, ...]], catalog: Catalog) -> None:
    settings = (
        "--set",
        "training.window_days=14",
        "--set",
        "candidates.1.params.hidden=[8, 8]",
        "--set",
        "training.seed=7",
    )
    code, output = trigger(MODEL, "--reason", "new shop", "--priority", "5", *settings, "--json")
    assert code == 0, output
    said = json.loads(output)
    overrides = {"training.window_days": 14, "candidates.1.params.hidden": [8, 8]}
    assert (said["run"], said["as_of"], said["overrides"]) == ("abc", "2018-05-30", overrides)
    assert said["url"].endswith("/runs/abc")
    ((assets, day, tags, config),) = asked
    assert (assets, day) == (triggers.training_assets(catalog.models[MODEL]), date(2018, 5, 30))
    assert tags == {
        "ml_platform/model": MODEL,
        "ml_platform/trigger": "hand",
        "ml_platform/reason": "new shop",
        "dagster/priority": "5",
    }
    nested = {"training": {"window_days": 14}, "candidates": {"1": {"params": {"hidden": [8, 8]}}}}
    assert config == {"ops": {"fraud_detection__training_set": {"config": nested}}}


def test_plain_training_is_as_its_file_says(asked: list[tuple[Any, ...]]) -> None:
    code, output = trigger(MODEL, "--as-of", "2018-05-28")
    assert code == 0, output
    assert output.startswith("a training of fraud_detection as of 2018-05-28 has been asked for: http://")
    ((_, day, tags, config),) = asked
    assert (day, config) == (date(2018, 5, 28), {})
    assert tags["ml_platform/reason"].startswith("by hand of ")
    assert "dagster/priority" not in tags


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("fraud_detections",), "model fraud_detections: is not declared; did you mean `fraud_detection`?"),
        ((MODEL, "--set", "training.window_days"), "--set training.window_days: is no FIELD=VALUE"),
        ((MODEL, "--set", "training.window_days=[1"), "has a value that is no YAML"),
        ((MODEL, "--set", "training.window_days=0"), "`training.window_days`: Input should be greater than or equal to 1"),
        ((MODEL, "--set", "training.windows=9"), "is nothing that a run may change; did you mean `training.window_days`?"),
        ((MODEL, "--set", "training.window_days=29"), "[2018-05-30]: inputs of its 43 days are missing or out of date"),
        ((MODEL, "--set", "training.window_days=1000000000"), "and transactions begins on 2018-04-01"),
        ((MODEL, "--as-of", "2018-05-31"), "[2018-05-31]: inputs of its 42 days are missing or out of date"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_anything_starts(
    asked: list[tuple[Any, ...]], options: tuple[str, ...], said: str
) -> None:
    code, output = trigger(*options)
    assert (code, asked) == (2, [])
    assert said in output


def test_without_any_rows_there_is_no_newest_date(environment: Settings) -> None:
    code, output = trigger(MODEL)
    assert code == 2
    assert "there is nothing of transactions yet" in output
