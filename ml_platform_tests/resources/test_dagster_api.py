"""Dagster's GraphQL: against answers of a small server, and once against a real webserver and daemon."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import Backfill, DagsterApi, Run
from ml_platform.resources.triggers import training_assets
from ml_platform.training.overrides import run_config
from ml_platform_tests.conftest import FIRST_DAY
from ml_platform_tests.processes import BIN, free_port
from ml_platform_tests.servers import server

ROOT = Path(__file__).parents[2]
LAST_DAY = FIRST_DAY + timedelta(days=2)


@contextmanager
def answering(*answers: Any) -> Iterator[tuple[DagsterApi, list[dict[str, Any]]]]:
    """A server that gives these answers one after the other; yields what it was asked, too."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(left.pop(0)).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    webserver = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=webserver.serve_forever, daemon=True).start()
    try:
        yield DagsterApi(f"http://127.0.0.1:{webserver.server_port}"), asked
    finally:
        webserver.shutdown()
        webserver.server_close()


def seen(status: str, **runs: str) -> dict[str, Any]:
    assets = [{"path": ["x", "raw"]}]
    found = [{"runId": run, "status": state, "assetSelection": assets} for run, state in runs.items()]
    backfill = {"__typename": "PartitionBackfill", "id": "b", "status": status, "error": None, "runs": found}
    return {"data": {"partitionBackfillOrError": backfill}}


def test_backfill_asks_for_each_assets_own_days() -> None:
    launched = {"data": {"launchPartitionBackfill": {"__typename": "LaunchBackfillSuccess", "backfillId": "b"}}}
    with answering(launched) as (api, asked):
        assert api.launch_backfill({"x/raw": (FIRST_DAY, LAST_DAY)}) == "b"
    days = {"range": {"start": "2018-04-01", "end": "2018-04-03"}}
    assert asked[0]["variables"]["params"] == {
        "partitionsByAssets": [{"assetKey": {"path": ["x", "raw"]}, "partitions": days}]
    }


def test_waiting_ends_when_each_assets_run_has() -> None:
    looks: list[Backfill] = []
    launched = {"data": {"launchPartitionBackfill": {"__typename": "LaunchBackfillSuccess", "backfillId": "b"}}}
    answers = [launched, seen("REQUESTED"), seen("REQUESTED", r="STARTED"), seen("REQUESTED", r="SUCCESS")]
    with answering(*answers) as (api, _):
        ended = api.make({"x/raw": (FIRST_DAY, LAST_DAY)}, looks.append, lambda _: None)
    assert [len(look.runs) for look in looks] == [0, 1, 1]
    assert ended == Backfill("b", "REQUESTED", (Run("r", "SUCCESS", ("x/raw",)),))
    assert ended.succeeded


def test_backfill_of_two_assets_is_not_over_after_the_run_of_one() -> None:
    assert not Backfill("b", "REQUESTED", (Run("r", "SUCCESS", ("x/raw",)),)).is_over(["x/raw", "y/raw"])


@pytest.mark.parametrize("status", ["COMPLETED_FAILED", "FAILED", "CANCELED"])
def test_backfill_that_started_nothing_is_over_and_has_not_succeeded(status: str) -> None:
    assert Backfill("b", status, ()).is_over(["x/raw"])
    assert not Backfill("b", status, ()).succeeded


def test_backfill_with_a_failed_run_has_not_succeeded() -> None:
    """Dagster calls it a success if the partitions were materialized nevertheless."""
    assert not Backfill("b", "COMPLETED_SUCCESS", (Run("r", "FAILURE", ()),)).succeeded


def test_refusal_says_why() -> None:
    refused = {"data": {"launchPartitionBackfill": {"__typename": "PythonError", "message": "no such partition"}}}
    with answering(refused) as (api, _), pytest.raises(StackError, match="refused: no such partition"):
        api.launch_backfill({"x/raw": (FIRST_DAY, FIRST_DAY)})
    with answering({"errors": [{"message": "bad query"}]}) as (api, _), pytest.raises(StackError, match="bad query"):
        api.query("{")


def test_nobody_at_the_url_is_an_error_with_the_next_step() -> None:
    port = free_port()
    with pytest.raises(StackError, match=f"no Dagster answers at http://127.0.0.1:{port}: .*Next: make dev"):
        DagsterApi.at(Settings(dagster_port=port)).query("{ version }")


def test_own_address_of_dagster_replaces_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_DAGSTER", "https://dagster.example/")
    assert DagsterApi.at(Settings()).url == "https://dagster.example"


def test_storage_that_cannot_forget_partitions_is_no_error() -> None:
    for kind, forgot in (("AssetWipeSuccess", True), ("UnsupportedOperationError", False)):
        with answering({"data": {"wipeAssets": {"__typename": kind}}}) as (api, _):
            assert api.wipe_partitions([("x/raw", FIRST_DAY, LAST_DAY)]) is forgot


def test_run_makes_a_day_of_its_assets_with_tags_and_config() -> None:
    home = {"data": {"assetNodeOrError": {"repository": {"name": "r", "location": {"name": "l"}}}}}
    launched = {"data": {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "abc"}}}}
    with answering(home, launched) as (api, asked):
        assert api.launch_run(["x/one", "x/two"], FIRST_DAY, {"dagster/priority": "5"}, {"ops": {}}) == "abc"
    params = asked[1]["variables"]["params"]
    assert params["selector"]["assetSelection"] == [{"path": ["x", "one"]}, {"path": ["x", "two"]}]
    tags = {"dagster/partition": "2018-04-01", "dagster/priority": "5"}
    assert params["executionMetadata"]["tags"] == [{"key": key, "value": value} for key, value in tags.items()]
    refused = {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "no such field"}]}
    with (
        answering(home, {"data": {"launchRun": refused}}) as (api, _),
        pytest.raises(StackError, match="no such field"),
    ):
        api.launch_run(["x/one"], FIRST_DAY, {}, {})
    with (
        answering({"data": {"assetNodeOrError": {}}}) as (api, _),
        pytest.raises(StackError, match="does not know x/one"),
    ):
        api.launch_run(["x/one"], FIRST_DAY, {}, {})


# --- a real one -------------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_real_webserver_understands_what_it_is_asked(tmp_path: Path, catalog: Catalog) -> None:
    """Without the daemon, which looks after backfills every 30 seconds only: it is asked, and nothing runs."""
    port, days = free_port(), {"transactions/raw": (FIRST_DAY, LAST_DAY), "fraud_labels/raw": (FIRST_DAY, FIRST_DAY)}
    command = [str(BIN / "dagster-webserver"), "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    home = {"DAGSTER_HOME": str(tmp_path), "ML_PLATFORM_HOME": str(tmp_path)}
    shutil.copyfile(ROOT / "ml_platform" / "local" / "dagster.yaml", tmp_path / "dagster.yaml")
    with server(command, f"http://127.0.0.1:{port}/server_info", tmp_path / "dagster.log", home):
        api = DagsterApi(f"http://127.0.0.1:{port}")
        launched = api.launch_backfill(days)
        assert api.backfill(launched) == Backfill(launched, "REQUESTED", ())
        with pytest.raises(StackError, match="1999-01-01"):
            api.launch_backfill({"transactions/raw": (date(1999, 1, 1), date(1999, 1, 1))})
        with pytest.raises(StackError, match="nonsense"):
            api.backfill("nonsense")
        assert api.wipe_partitions([("transactions/raw", FIRST_DAY, LAST_DAY)]) is False
        with pytest.raises(StackError, match="refused"):
            api.wipe_partitions([("nobody/raw", FIRST_DAY, LAST_DAY)])
        assets = training_assets(catalog.models["fraud_detection"])
        op, descriptions = launchpad(api, assets)
        assert op["config"]["training"]["window_days"] == catalog.models["fraud_detection"].training.window_days
        assert op["config"]["candidates"]["1"]["params"]["epochs"] == 8
        assert descriptions["window_days"] == "days of rows that the model is fitted on"
        config = run_config("fraud_detection", {"training.window_days": 14, "candidates.1.params.epochs": 3})
        by_command = seen_of(api, api.launch_run(assets, LAST_DAY, {"dagster/priority": "5"}, config))
        assert by_command["assets"] == assets
        assert (by_command["tags"]["dagster/priority"], by_command["tags"]["dagster/partition"]) == ("5", "2018-04-03")
        assert yaml.safe_load(by_command["config"]) == config
        with pytest.raises(StackError, match='unexpected config entry "window_dayz"'):
            api.launch_run(assets, LAST_DAY, {}, run_config("fraud_detection", {"training.window_dayz": 14}))
        by_http = seen_of(api, documented_call(port))
        assert by_http["assets"] == assets
        assert yaml.safe_load(by_http["config"]) == run_config("fraud_detection", {"training.window_days": 14})
        assert by_http["tags"]["ml_platform/reason"] == "new merchants"


def launchpad(api: DagsterApi, assets: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The config of a training set that the UI begins with, and what it says of fields."""
    query = """query($asked: PipelineSelector!) { runConfigSchemaOrError(selector: $asked) { ... on RunConfigSchema {
        rootDefaultYaml allConfigTypes { ... on CompositeConfigType { fields { name description } } } } } }"""
    selector = {
        "repositoryLocationName": "ml_platform",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
    }
    asked = {**selector, "assetSelection": [{"path": key.split("/")} for key in assets]}
    found = api.query(query, asked=asked)["runConfigSchemaOrError"]
    fields = [field for kind in found["allConfigTypes"] for field in kind.get("fields", ())]
    descriptions = {field["name"]: field["description"] for field in fields if field["description"]}
    return yaml.safe_load(found["rootDefaultYaml"])["ops"]["fraud_detection__training_set"], descriptions


def seen_of(api: DagsterApi, run: str) -> dict[str, Any]:
    """What Dagster has of a run."""
    query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { runConfigYaml assetSelection { path }
        tags { key value } } } }"""
    found = api.query(query, id=run)["runOrError"]
    assets = ["/".join(key["path"]) for key in found["assetSelection"]]
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    return {"config": found["runConfigYaml"], "assets": sorted(assets, key=keys_in_order), "tags": tags}


def keys_in_order(key: str) -> int:
    return ["training_set", "candidate", "evaluation", "model_version", "deployment"].index(key.rpartition("/")[2])


def documented_call(port: int) -> str:
    """Run the example of docs/triggers.md; returns the run's id."""
    (call,) = re.findall(r"```bash\n(curl .*?)```", (ROOT / "docs" / "triggers.md").read_text(), re.DOTALL)
    ours = call.replace("127.0.0.1:3000", f"127.0.0.1:{port}")
    answer = json.loads(subprocess.run(["bash", "-c", ours], capture_output=True, check=True).stdout)
    return answer["data"]["launchRun"]["run"]["runId"]
