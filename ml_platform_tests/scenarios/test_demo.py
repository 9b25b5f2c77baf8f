"""The main story: files land, a gated model answers; then the same bytes, a worse candidate, and a server that is gone."""

import io
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.components import automation
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.data.contract import CHECKS
from ml_platform.local.producer import DailyTable
from ml_platform.registry.versions import Version
from ml_platform.resources.model_server import ModelServer
from ml_platform_tests.conftest import FIRST_DAY, NO_LOGS, STORY_DAYS
from ml_platform_tests.processes import BIN, eventually, free_port
from ml_platform_tests.scenarios.conftest import Platform, opened, problems
from ml_platform_tests.servers import mlflow_server, s3_command, server

MODEL = "fraud_detection"
TRAINING_DATE = FIRST_DAY + timedelta(days=STORY_DAYS)
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.story


@dataclass(frozen=True)
class Told:
    """The demo as it was told, and the workspace that it has left."""

    output: str
    home: Path
    ports: dict[str, int]
    variables: dict[str, str]


@pytest.fixture(scope="module")
def told(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The README's first command, as a user runs it: the whole stack, its daemon and its sensors."""
    home = tmp_path_factory.mktemp("demo") / "home"
    ports = {name: free_port() for name in ("S3", "MLFLOW", "DAGSTER", "MODEL_SERVER", "EXPORTER")}
    variables = {f"ML_PLATFORM_{name}_PORT": str(port) for name, port in ports.items()}
    variables["ML_PLATFORM_HOME"] = str(home)
    environment = {**os.environ, **variables, "COLUMNS": "200"}
    done = subprocess.run(
        [BIN / "ml-platform", "demo", "--days", str(STORY_DAYS)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    reasons = [line for line in done.stdout.splitlines() if line.startswith("NOT TRUE")]
    assert done.returncode == 0, "\n".join(
        [*reasons, done.stderr[-2_000:], f"the log of its stack: {home / 'logs' / 'stack.log'}"]
    )
    return Told(done.stdout, home, ports, variables)


@pytest.fixture(scope="module")
def deployed(told: Told) -> Iterator[Platform]:
    """What the demo has left, without Dagster's daemon: from here on the tests tick."""
    config = told.home / "dagster" / "dagster.yaml"
    config.write_text(f"{config.read_text()}\n{yaml.safe_dump(NO_LOGS)}")
    url = f"http://127.0.0.1:{told.ports['MODEL_SERVER']}"
    command = [sys.executable, "-m", "ml_platform.serving.main"]
    with (
        server(
            s3_command(told.home / "s3", told.ports["S3"]),
            f"http://127.0.0.1:{told.ports['S3']}/",
            told.home / "s3.log",
        ),
        mlflow_server(told.home / "mlflow", told.ports["MLFLOW"]),
        server(command, f"{url}/health", told.home / "server.log", told.variables),
        dg.DagsterInstance.from_config(str(config.parent)) as instance,
        opened(told.variables, instance) as platform,
    ):
        eventually(lambda: platform.server.status(MODEL) is not None)
        yield platform


def test_all_that_the_demo_promises_came_true(told: Told) -> None:
    assert "all of it is true" in told.output
    assert f"{STORY_DAYS} partitions" in told.output


def test_every_landed_day_became_a_raw_partition_with_green_checks(deployed: Platform) -> None:
    days = list(day_range(FIRST_DAY, TRAINING_DATE - ONE_DAY))
    assert deployed.lake.days("transactions/raw") == days
    assert deployed.lake.days("fraud_labels/raw") == days[: STORY_DAYS - 7]
    recorded = deployed.instance.get_materialized_partitions(dg.AssetKey(["transactions", "raw"]))
    assert recorded == {day.isoformat() for day in days}
    for day in (days[0], days[30], days[-1]):
        assert deployed.checks("transactions/raw", day) == dict.fromkeys(CHECKS.keys() - {"references_exist"}, True)


def test_backlog_was_made_by_few_range_runs(deployed: Platform) -> None:
    runs = [
        run
        for run in deployed.instance.get_runs()
        if dg.AssetKey(["transactions", "raw"]) in (run.asset_selection or ())
    ]
    assert [(run.asset_selection, run.status) for run in deployed.instance.get_runs() if not run.is_success] == []
    landed = deployed.instance.get_materialized_partitions(dg.AssetKey(["transactions", "landed"]))
    assert len(landed) == STORY_DAYS
    assert 1 <= len(runs) <= 10, "it is not a run a day"


def test_checks_of_a_range_run_count_for_each_partition(deployed: Platform) -> None:
    """What the UI shows and automation asks: the check is about the partition's latest materialization."""
    key = dg.AssetCheckKey(dg.AssetKey(["transactions", "raw"]), "keys_are_unique")
    infos = {i.partition_key: i for i in deployed.instance.event_log_storage.get_asset_check_partition_info([key])}
    info = infos["2018-04-20"]
    assert info.latest_target_materialization_storage_id == info.latest_materialization_storage_id is not None


def test_features_exist_as_of_every_day_after_the_first(deployed: Platform) -> None:
    expected = list(day_range(FIRST_DAY + ONE_DAY, TRAINING_DATE))
    assert deployed.lake.days("features/customer_activity") == expected
    assert deployed.lake.days("features/terminal_risk") == expected


def test_gates_passed_and_the_version_is_served(deployed: Platform) -> None:
    assert set(deployed.checks(f"{MODEL}/evaluation", TRAINING_DATE).values()) == {True}
    champion = deployed.registry.aliases(MODEL).champion
    assert champion is not None
    status = deployed.server.status(MODEL)
    assert status is not None
    assert status["digest"] == champion.digest
    assert status["training_date"] == TRAINING_DATE.isoformat()


def test_lineage_leads_from_the_served_version_to_landed_objects(deployed: Platform) -> None:
    champion = deployed.registry.aliases(MODEL).champion
    assert champion is not None
    training_set = deployed.lake.require(f"{MODEL}/training_set", date.fromisoformat(champion.training_date))
    raw = deployed.lake.require("transactions/raw", date(2018, 4, 20))
    assert ("transactions/raw [2018-04-20]", raw.content_hash) in {(i.name, i.version) for i in training_set.inputs}
    landed = next(deployed.landing.objects("transactions/2018-04-20/"))
    assert (deployed.landing.url(landed.key), landed.etag, landed.size) == (
        raw.inputs[0].name,
        raw.inputs[0].version,
        raw.inputs[0].size,
    )
    assert [i.name for i in raw.inputs[1:]] == [f"transactions/raw [2018-04-{day}]" for day in range(14, 20)]


def test_training_is_one_mlflow_run_that_says_how_it_ended(deployed: Platform) -> None:
    champion = deployed.registry.aliases(MODEL).champion
    assert champion is not None
    run = deployed.registry.client.get_run(champion.run_id)
    training_set = deployed.lake.require(f"{MODEL}/training_set", TRAINING_DATE)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dagster_run_id"] == training_set.tags["dagster_run_id"]
    assert len(deployed.registry.client.get_metric_history(champion.run_id, "train_loss")) == int(
        run.data.params["epochs"]
    )
    assert run.data.metrics["validation_average_precision"] > 0.55


def test_mlflow_run_has_bundle_plots_and_metrics_of_the_system(deployed: Platform) -> None:
    champion = deployed.registry.aliases(MODEL).champion
    assert champion is not None
    client = deployed.registry.client
    bundled = {file.path: file.file_size for file in client.list_artifacts(champion.run_id, "bundle")}
    assert bundled.keys() >= {"bundle/model.safetensors", "bundle/manifest.json", "bundle/files.json"}
    assert {file.path for file in client.list_artifacts(champion.run_id, "plots")} >= {
        "plots/learning_curves.png",
        "plots/precision_recall.png",
        "plots/roc.png",
        "plots/calibration.png",
    }
    assert len(client.get_metric_history(champion.run_id, "system/cpu_utilization_percentage")) >= 1
    (materialized,) = deployed.instance.fetch_materializations(dg.AssetKey([MODEL, "candidate"]), limit=1).records
    metadata = materialized.asset_materialization.metadata  # type: ignore[union-attr]
    assert metadata["mlflow_run_id"].value == champion.run_id
    assert "data:image/png" in str(metadata["learning_curves"].value)
    observed = deployed.instance.fetch_observations(dg.AssetKey([MODEL, "candidate"]), limit=100).records
    assert observed[0].asset_observation.metadata["epoch"].value == 8  # type: ignore[union-attr]


def test_version_is_reproduced_bit_for_bit(deployed: Platform) -> None:
    result = CliRunner().invoke(app, ["reproduce", MODEL, "1"])
    assert result.exit_code == 0, result.output
    assert "IDENTICAL: metrics.json, model.json, model.safetensors, schema.json, transforms.json" in result.output
    assert "differ" not in result.output


def rows_of(files: list[DailyTable], day: date) -> pa.Table:
    return next(table for source, file_day, table in files if source == "transactions" and file_day == day)


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}


def test_every_step_that_the_demo_has_left_can_be_inspected(
    deployed: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_platform.resources.dagster_api.PAUSES", ())  # it is not there
    of_model = ("training_set", "candidate", "evaluation", "model_version", "deployment", "prediction_log")
    names = ["transactions/landed", "transactions/raw", "transactions/ledger", "features/terminal_risk"]
    for name in [*names, "features/online_store", *(f"{MODEL}/{noun}" for noun in of_model)]:
        done = CliRunner().invoke(app, ["inspect", name, "--rows", "1", "--json"])
        assert done.exit_code == 0, (name, done.output, done.exception)
        found = json.loads(done.output)
        assert found["asset"] == name
        assert {one["state"] for one in found["inputs"]} <= {"current"}


def test_prediction_by_id_equals_prediction_by_the_features_of_the_lake(
    deployed: Platform, demo_files: list[DailyTable]
) -> None:
    """Online equals offline: the same rows, looked up by the server and given from the lake, score the same."""
    requests = rows_of(demo_files, TRAINING_DATE - ONE_DAY).slice(0, 50).drop_columns(["transaction_id"]).to_pylist()
    by_id = deployed.predict({"entities": [as_json(row) for row in requests]})
    full = [as_json(row) for row in requests]
    status = deployed.server.status(MODEL)
    assert status is not None
    for view, entity in (("customer_activity", "customer_id"), ("terminal_risk", "terminal_id")):
        snapshot = {
            row.pop(entity): row
            for row in deployed.lake.read_table(f"features/{view}", [TRAINING_DATE]).drop_columns(["as_of"]).to_pylist()
        }
        for row in full:
            row.update(snapshot.get(row[entity], {}))
    for row in full:
        for name, default in status["input"]["features"].items():
            row.setdefault(name, default)
    by_row = deployed.predict({"rows": full})
    np.testing.assert_allclose(by_id["scores"], by_row["scores"], atol=1e-9)


def test_deployment_was_proven_to_score_as_training_does(deployed: Platform) -> None:
    assert deployed.checks(f"{MODEL}/deployment", TRAINING_DATE) == {"serving_matches_training": True}


def test_server_that_looks_up_other_values_than_the_lake_has_is_found_out(deployed: Platform) -> None:
    """The online store is spoilt, the champion deployed again; then the store is published anew."""
    path = deployed.settings.online_store_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("UPDATE customer_activity SET customer_mean_amount_30d = customer_mean_amount_30d * 2")
    deployment, online_store = dg.AssetKey([MODEL, "deployment"]), dg.AssetKey(["features", "online_store"])
    result = deployed.materialize([deployment], TRAINING_DATE.isoformat())
    assert not result.success
    assert "rows differ" in problems(result)[0]
    assert deployed.checks(f"{MODEL}/deployment", TRAINING_DATE) == {"serving_matches_training": False}
    assert deployed.materialize([online_store]).success
    assert deployed.materialize([deployment], TRAINING_DATE.isoformat()).success
    assert deployed.checks(f"{MODEL}/deployment", TRAINING_DATE) == {"serving_matches_training": True}


def test_landing_the_same_bytes_again_starts_nothing(deployed: Platform, demo_files: list[DailyTable]) -> None:
    deployed.land(demo_files[-6:])
    assert deployed.arrivals() == []
    assert deployed.settle() == []


def test_same_rows_in_other_bytes_are_ingested_and_start_nothing_downstream(
    deployed: Platform, demo_files: list[DailyTable]
) -> None:
    """The content hash of the rows is the data version: features follow that, not the event."""
    before = {day: deployed.lake.require("transactions/raw", day) for _, day, _ in demo_files}
    for source, day, table in [file for file in demo_files if file[0] == "transactions"][-3:]:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="none")
        deployed.landing.write(f"{source}/{day}/{source}.parquet", buffer.getvalue())
    requests = [request for request in deployed.arrivals() if "transactions" in str(request.asset_selection)]
    assert [deployed.run(request).success for request in requests] == [True]
    last = TRAINING_DATE - ONE_DAY
    assert deployed.lake.require("transactions/raw", last).inputs != before[last].inputs
    assert deployed.lake.require("transactions/raw", last).content_hash == before[last].content_hash
    assert deployed.refresh() == 0
    assert [result.success for result in deployed.settle()] == []


def test_lost_cursor_makes_nothing_again(deployed: Platform) -> None:
    deployed.arrival_cursor = None
    assert [deployed.arrivals() for _ in range(3)] == [[], [], []]


def test_run_that_was_lost_is_asked_for_again_after_a_while(
    deployed: Platform, demo_files: list[DailyTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.land(demo_files[-1:])  # again in the bytes of before
    (lost,) = deployed.arrivals()
    assert deployed.arrivals() == []

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(minutes=1)

    monkeypatch.setattr(automation, "datetime", Later)
    (again,) = deployed.arrivals()
    assert again.run_key != lost.run_key
    assert deployed.run(again).success
    assert deployed.arrivals() == []


def test_older_training_date_that_is_backfilled_does_not_replace_the_champion(deployed: Platform) -> None:
    before = answering(deployed)
    result = deployed.materialize(
        [
            dg.AssetKey([MODEL, noun])
            for noun in ("training_set", "candidate", "evaluation", "model_version", "deployment")
        ],
        (TRAINING_DATE - ONE_DAY).isoformat(),
    )
    assert result.success
    assert answering(deployed) == before


def answering(platform: Platform) -> tuple[Version | None, Version | None]:
    """Champion and previous; the candidate is whatever was registered last and is neither."""
    aliases = platform.registry.aliases(MODEL)
    return aliases.champion, aliases.previous


def shuffled_labels(files: list[DailyTable]) -> list[DailyTable]:
    rng = np.random.default_rng(0)
    return [
        (source, day, table.set_column(2, "is_fraud", pa.array(rng.permutation(table["is_fraud"].to_numpy()))))
        for source, day, table in files
        if source == "fraud_labels"
    ]


def test_worse_candidate_is_held(deployed: Platform, demo_files: list[DailyTable]) -> None:
    """Labels are shuffled: the checks on evaluation are red, the run is green, and the old model keeps serving."""
    before = deployed.registry.aliases(MODEL)
    deployed.land(shuffled_labels(demo_files))
    results = deployed.settle()

    training = results[-1]
    assert training.success
    materialized = {
        event.asset_key.path[-1] for event in training.get_asset_materialization_events() if event.asset_key
    }
    assert materialized == {"training_set", "candidate", "evaluation"}
    checks = deployed.checks(f"{MODEL}/evaluation", TRAINING_DATE)
    assert checks["average_precision_is_above_minimum"] is False
    assert checks["no_null_predictions"] is True
    assert deployed.registry.aliases(MODEL) == before
    status = deployed.server.status(MODEL)
    assert status is not None
    assert before.champion is not None
    assert status["digest"] == before.champion.digest


def test_deployment_alone_verifies_the_verdict_again(deployed: Platform) -> None:
    """Blocking does not hold across runs: a run of deployment only must not deploy what the gates refused."""
    before = deployed.registry.aliases(MODEL)
    result = deployed.materialize(
        [dg.AssetKey([MODEL, "model_version"]), dg.AssetKey([MODEL, "deployment"])], TRAINING_DATE.isoformat()
    )
    assert deployed.registry.aliases(MODEL) == before
    assert result.get_asset_materialization_events() == []


def test_content_that_comes_back_is_trained_again_and_an_absent_server_changes_no_alias(
    deployed: Platform, demo_files: list[DailyTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good labels are back and the candidate with them, but nothing listens where the server should be."""
    before = answering(deployed)
    deployed.land([file for file in demo_files if file[0] == "fraud_labels"])
    minutes = itertools.count(step=60)
    nowhere = ModelServer("http://127.0.0.1:9", clock=lambda: next(minutes), sleep=lambda _: None)
    monkeypatch.setattr(ModelServer, "at", lambda _: nowhere)
    training = deployed.settle()[-1]
    assert set(deployed.checks(f"{MODEL}/evaluation", TRAINING_DATE).values()) == {True}
    assert not training.success
    assert "the model server at http://127.0.0.1:9 does not answer" in " ".join(problems(training))
    assert answering(deployed) == before
