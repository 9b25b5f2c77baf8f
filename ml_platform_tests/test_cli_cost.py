"""`ml-platform cost`: what Dagster tells of runs, at the prices of the cluster, by model, version, team and table."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app, cost
from ml_platform.core.errors import SettingsError

HOUR = 3_600.0
PRICES = (
    "{prices: {currency: CHF, cpu: 1, memory: 0, model_server: 0.5}, profiles: {gpu-training: {}}, steps: {cpu: 2}}"
)


def run(step: str, day: str, *tries: tuple[float, float | None]) -> dict[str, Any]:
    """A run of one step, whose tries began and ended at these hours; it ended after ten of them."""
    attempts = [{"startTime": a * HOUR, "endTime": None if b is None else b * HOUR} for a, b in tries]
    stats = {"stepKey": step, "status": "SUCCESS", "startTime": tries[0][0] * HOUR, "endTime": 10 * HOUR}
    times = {"creationTime": 0.0, "startTime": 0.0, "endTime": 10 * HOUR, "updateTime": 10 * HOUR}
    tags = [{"key": "dagster/partition", "value": day}]
    path = {"path": step.split("__")}
    return {"runId": f"{step} {day}", "status": "SUCCESS", **times, "tags": tags, "assetSelection": [path]} | {
        "stepStats": [{**stats, "attempts": attempts}]
    }


class Dagster:
    def query(self, *_: Any, **__: Any) -> dict[str, Any]:
        runs = [
            run("transactions__raw", "2018-05-31", (0, 1)),
            run("fraud_detection__candidate", "2018-05-31", (0, 1), (2, 4)),
            run("fraud_detection__candidate", "2018-06-07", (0, None), (3, 10)),
            run("fraud_detection__monitoring", "2018-06-08", (0, 1)),
        ]
        return {"runsOrError": {"results": runs}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_CLUSTER", PRICES)
    monkeypatch.setattr(cost.DagsterApi, "at", lambda _: Dagster())


def told(by: str) -> dict[str, dict[str, float]]:
    result = CliRunner().invoke(app, ["cost", "--by", by, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return {line.pop(by): line for line in json.loads(result.stdout)["lines"]}


def test_by_table_a_killed_try_lasted_until_the_next() -> None:
    lines = told("table")
    assert lines["transactions/raw"]["total"] == pytest.approx(2.0)
    candidate = lines["fraud_detection/candidate"]
    assert candidate["seconds"] == 13 * HOUR
    assert candidate["lost"] / candidate["own"] == pytest.approx(4 / 13)


def test_by_version_what_is_shared_is_paid_by_both_trainings() -> None:
    lines = told("version")
    names = ["fraud_detection 2018-05-31", "fraud_detection 2018-06-07"]
    assert [lines[name]["shared"] for name in names] == pytest.approx([1.0, 1.0])
    assert [lines[name]["seconds"] for name in names] == [3 * HOUR, 10 * HOUR]
    assert lines["fraud_detection (daily)"]["seconds"] == HOUR


def test_by_model_and_by_team_the_sum_is_the_same() -> None:
    model, team = told("model"), told("team")
    assert model["fraud_detection"]["total"] == pytest.approx(team["team:fraud"]["total"])
    assert model["(nobody)"]["serving"] == pytest.approx(0.5 * 24 * 30), "the server answered nobody"


def test_table_ends_with_all() -> None:
    result = CliRunner().invoke(app, ["cost", "--since", "2018-01-01"], catch_exceptions=False)
    assert "total, CHF" in result.stdout
    assert "all" in result.stdout.split("fraud_detection")[-1]


def test_without_prices_it_says_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_CLUSTER", "")
    with pytest.raises(SettingsError, match=r"says no prices.*prices: \{currency"):
        CliRunner().invoke(app, ["cost"], catch_exceptions=False)
