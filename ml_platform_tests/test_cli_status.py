"""`ml-platform status` against doubles of what it asks over HTTP; the lake is real."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app, status
from ml_platform.core import keys
from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.registry.versions import Aliases
from ml_platform.resources.dagster_api import DagsterApi

DAYS = [date(2018, 4, day) for day in (1, 2, 3, 5)]

QUIET = {"status": "SKIPPED", "skipReason": "nothing that was asked for is missing", "error": None}


class Answers:
    """What Dagster, the registry and the server say."""

    def __init__(self) -> None:
        self.known: dict[str, set[date]] = {}
        self.tick: dict[str, Any] = QUIET
        self.served = ""

    def query(self, text: str, **_: Any) -> dict[str, Any]:
        if "doing" in text:
            run = {"runId": "abc", "status": "STARTED", "assetSelection": [{"path": ["a", "raw"]}]}
            tags = [{"key": "dagster/partition", "value": "2018-04-01"}]
            return {"doing": {"results": [run | {"tags": tags}]}, "failed": {"results": []}}
        sensor = {"name": "recovery_sensor", "sensorState": {"status": "RUNNING", "ticks": [self.tick]}}
        location = {"locationOrLoadError": {"repositories": [{"sensors": [sensor]}]}}
        return {"workspaceOrError": {"locationEntries": [location]}}

    def materialized_days(self, key: str) -> set[date]:
        return self.known.get(key, set())

    def aliases(self, _: str) -> Aliases:
        return Aliases()


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr(status.DagsterApi, "at", lambda _: answers)
    monkeypatch.setattr(status.Registry, "at", lambda _: answers)
    server = type("Server", (), {"status": lambda self, model: {"version": answers.served or None}})()
    monkeypatch.setattr(status.ModelServer, "at", lambda _: server)
    folder = tmp_path / "lake" / keys.raw("transactions")
    for day in DAYS:
        (folder / f"date={day}").mkdir(parents=True)
        (folder / f"date={day}" / "_manifest.json").write_text("{}")
    return answers


def test_what_differs_is_said_and_the_exit_status_says_so(answers: Answers) -> None:
    answers.known = {keys.raw("transactions"): {DAYS[0], date(2018, 4, 9)}}
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    row = next(line for line in done.output.splitlines() if "transactions/raw" in line)
    assert [cell.strip() for cell in row.split("│")[1:4]] == [
        "transactions/raw",
        "2018-04-02 to 2018-04-03, 2018-04-05",
        "2018-04-09",
    ]
    assert "a/raw [2018-04-01]" in done.output
    assert "/runs/abc" in done.output


def test_agreement_is_status_zero_and_a_reason_for_every_sensor(answers: Answers) -> None:
    answers.known = {keys.raw("transactions"): set(DAYS)}
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "lake and Dagster: nothing" in done.output
    assert "nothing that was asked for is missing" in done.output


def test_what_is_trained_next_is_said_with_the_reason(answers: Answers) -> None:
    answers.known = {keys.raw("transactions"): set(DAYS)}
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"})
    row = next(line for line in done.output.splitlines() if "inputs for a training" in line)
    assert [cell.strip() for cell in row.split("│")[1:4]] == [
        "fraud_detection",
        "nothing is due",
        "inputs for a training as of 2018-04-06 are missing or out of date",
    ]


def test_tick_that_failed_and_version_that_is_not_served_are_trouble(answers: Answers) -> None:
    answers.known = {keys.raw("transactions"): set(DAYS)}
    answers.tick = {"status": "FAILURE", "skipReason": None, "error": {"message": "S3 is away"}}
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "S3 is away" in done.output
    answers.tick, answers.served = QUIET, "7"
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "the server does not serve the champion" in done.output


def test_dagster_without_its_code_location_is_an_error_and_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    api = DagsterApi.at(Settings())
    monkeypatch.setattr(DagsterApi, "query", lambda *_, **__: {"assetNodeOrError": {"message": "not found"}})
    with pytest.raises(StackError, match="it does not know a/raw; maybe the code location is not loaded"):
        api.materialized_days("a/raw")
