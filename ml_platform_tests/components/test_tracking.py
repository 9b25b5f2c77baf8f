"""One MLflow run per training: each fault of bare dagster-mlflow is shown, and that ours does not have it."""

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import dagster as dg
import mlflow
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_mlflow.resources import MlFlow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from ml_platform.components.progress import Progress
from ml_platform.components.tracking import Figures, Tracking, claims, log_dataset, log_files
from ml_platform.core.errors import Interrupted
from ml_platform_tests.conftest import NO_LOGS
from ml_platform_tests.proxy import Proxy, proxy

DAGSTER = "http://dagster.test"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster"), overrides=NO_LOGS) as instance:
        yield instance


@pytest.fixture
def experiment() -> str:
    return f"model_{uuid4().hex[:8]}"


@pytest.fixture
def run() -> dg.DagsterRun:
    return dg.DagsterRun(job_name="training", run_id=str(uuid4()), tags={"dagster/partition": "2018-05-31"})


@pytest.fixture
def tracking(instance: dg.DagsterInstance, run: dg.DagsterRun, mlflow_url: str) -> Tracking:
    return Tracking(dg.build_op_context().log, run, instance, mlflow_url, DAGSTER)


def runs_of(url: str, experiment: str, view: int = ViewType.ACTIVE_ONLY) -> list[Any]:
    client = MlflowClient(url)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], run_view_type=view))


# --- steps that start at once ------------------------------------------------------------------------------------------


def at_once(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, step: Callable[[], None]) -> None:
    """Two threads do `step`; both have looked for a run before either goes on."""
    barrier, look = threading.Barrier(2), getattr(owner, method)
    looked = threading.local()

    def look_together(self: Any, *arguments: Any) -> Any:
        found = look(self, *arguments)
        if not hasattr(looked, "once"):
            looked.once = True
            barrier.wait(timeout=60)
        return found

    monkeypatch.setattr(owner, method, look_together)
    problems: list[BaseException] = []

    def guarded() -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # a thread's error is the test's
            problems.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_bare_steps_that_start_at_once_create_two_runs(
    run: dg.DagsterRun, mlflow_url: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = dg.build_op_context().log
    config = {"experiment_name": experiment, "mlflow_tracking_uri": mlflow_url}
    MlflowClient(mlflow_url).create_experiment(experiment)

    def step() -> None:
        MlFlow(SimpleNamespace(log=log, dagster_run=run, run_id=run.run_id, resource_config=config))
        mlflow.end_run()

    at_once(monkeypatch, MlFlow, "_get_current_run_id", step)
    assert len(runs_of(mlflow_url, experiment)) == 2


def test_steps_that_start_at_once_share_one_run(
    tracking: Tracking, mlflow_url: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def step() -> None:
        with tracking.step(experiment) as mlflow:
            used.append(mlflow.active_run().info.run_id)

    at_once(monkeypatch, Tracking, "_claimed", step)
    (kept,) = runs_of(mlflow_url, experiment)
    assert used == [kept.info.run_id] * 2
    assert len(runs_of(mlflow_url, experiment, ViewType.ALL)) == 2  # the other one was given up
    assert claims(tracking.instance, tracking.run.run_id) == {experiment: kept.info.run_id}


def test_models_of_one_dagster_run_have_a_run_each(tracking: Tracking, mlflow_url: str, experiment: str) -> None:
    for name in (experiment, f"{experiment}_b", experiment):
        with tracking.step(name):
            pass
    assert [len(runs_of(mlflow_url, name)) for name in (experiment, f"{experiment}_b")] == [1, 1]


# --- how a run ends ----------------------------------------------------------------------------------------------------

BARE = """
    import dagster as dg
    from dagster_mlflow import mlflow_tracking

    @dg.op(required_resource_keys={"mlflow"})
    def fail(context):
        raise ValueError("no")

    @dg.job(resource_defs={"mlflow": mlflow_tracking})
    def training():
        fail()

    config = {"config": {"experiment_name": EXPERIMENT, "mlflow_tracking_uri": URL}}
    training.execute_in_process(run_config={"resources": {"mlflow": config}}, raise_on_error=False)
"""
OURS = """
    import dagster as dg
    from ml_platform.components.resources import tracking

    @dg.op(required_resource_keys={"tracking"})
    def fail(context):
        with context.resources.tracking.step(EXPERIMENT):
            raise ValueError("no")

    @dg.job(resource_defs={"tracking": tracking})
    def training():
        fail()

    training.execute_in_process(raise_on_error=False)
"""


def python(code: str, **variables: str) -> subprocess.Popen[str]:
    assigned = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    command = [sys.executable, "-c", assigned + textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("code", "status"), [(BARE, "FINISHED"), (OURS, "FAILED")], ids=["bare", "ours"])
@pytest.mark.processes
def test_failed_dagster_run_ends_its_mlflow_run_as(
    code: str, status: str, mlflow_url: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    process = python(code, EXPERIMENT=experiment, URL=mlflow_url)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (found,) = runs_of(mlflow_url, experiment)
    assert found.info.status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("no"), "FAILED"),
        (Interrupted("m", "asked to stop", "again"), "KILLED"),
        (DagsterExecutionInterruptedError(), "KILLED"),
    ],
    ids=str,
)
def test_run_ends_as_the_step_does(
    tracking: Tracking, mlflow_url: str, experiment: str, error: BaseException | None, status: str
) -> None:
    with pytest.raises(type(error)) if error else nullcontext(), tracking.step(experiment):
        if error:
            raise error
    assert [found.info.status for found in runs_of(mlflow_url, experiment)] == [status]
    with tracking.step(experiment):  # a step that is tried again opens it again
        assert [found.info.status for found in runs_of(mlflow_url, experiment)] == ["RUNNING"]


# --- imports, and the first use of a store ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "imported"),
    [("dagster_mlflow", "True True"), ("ml_platform.components.resources", "False False")],
    ids=["bare", "ours"],
)
@pytest.mark.processes
def test_import_of_the_resource_imports_mlflow_and_pandas(module: str, imported: str) -> None:
    process = python(f"import {module}, sys\nprint('mlflow' in sys.modules, 'pandas' in sys.modules)")
    assert process.communicate(timeout=120)[0].split("\n")[-2] == imported


STORE = """
    import os, time
    from pathlib import Path
    import mlflow.store.db.utils as utils

    exist = utils._all_tables_exist

    def both_look(engine):
        found = exist(engine)
        if not found:  # go on once the other has looked as well, if it ever does
            (Path(FOLDER) / f"looked-{os.getpid()}").touch()
            until = time.monotonic() + float(SECONDS)
            while len(list(Path(FOLDER).glob("looked-*"))) < 2 and time.monotonic() < until:
                time.sleep(0.01)
        return found

    utils._all_tables_exist = both_look
    uri = f"sqlite:///{FOLDER}/mlflow.db"
"""
BARE_STORE = """
    from types import SimpleNamespace
    import dagster as dg
    from dagster_mlflow.resources import MlFlow
    run = SimpleNamespace(job_name="training")
    config = {"experiment_name": "m", "mlflow_tracking_uri": uri}
    MlFlow(SimpleNamespace(log=dg.build_op_context().log, dagster_run=run, run_id="1", resource_config=config))
"""
OUR_STORE = """
    import dagster as dg
    from ml_platform.components.tracking import Tracking
    run = dg.DagsterRun(job_name="training")
    with dg.DagsterInstance.ephemeral() as instance:
        with Tracking(dg.build_op_context().log, run, instance, uri, "").step("m"):
            pass
"""


@pytest.mark.parametrize(("use", "fails"), [(BARE_STORE, True), (OUR_STORE, False)], ids=["bare", "ours"])
@pytest.mark.processes
def test_two_steps_that_open_a_new_sqlite_store_at_once_fail(
    tmp_path: Path, use: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    processes = [python(STORE + use, FOLDER=str(tmp_path), SECONDS="60" if fails else "3") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert any(process.returncode for process in processes) is fails, outputs
    if fails:
        assert any("OperationalError" in output for output in outputs), outputs  # of what both wanted to make


# --- a server that is replaced -----------------------------------------------------------------------------------------


@pytest.fixture
def way(mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to MLflow, which can be cut. Requests are tried again after 0, 2, 4, 8 s: half of what they wait otherwise."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with proxy(urlsplit(mlflow_url).port or 0) as running:
        yield running


def test_step_begins_once_a_server_is_back(
    instance: dg.DagsterInstance, run: dg.DagsterRun, way: Proxy, mlflow_url: str, experiment: str
) -> None:
    way.cut(to_client=0)
    back = threading.Timer(3, way.restore)  # by then a command would have given up
    back.start()
    with Tracking(dg.build_op_context().log, run, instance, f"http://127.0.0.1:{way.port}", DAGSTER).step(experiment):
        assert not back.is_alive()
    assert [found.info.status for found in runs_of(mlflow_url, experiment)] == ["FINISHED"]


def test_epochs_of_a_training_are_told_once_a_server_is_back(
    instance: dg.DagsterInstance, run: dg.DagsterRun, way: Proxy, mlflow_url: str, experiment: str
) -> None:
    log = dg.build_op_context().log
    with Tracking(log, run, instance, f"http://127.0.0.1:{way.port}", DAGSTER).step(experiment) as kept:
        figures = Figures(lambda epoch, told, at: kept.log_metrics(told, step=epoch, timestamp=at), log)
        figures(1, {"loss": 0.3})
        way.cut(to_client=0)
        figures(2, {"loss": 0.2})
        way.restore()
        figures(3, {"loss": 0.1})
    (found,) = runs_of(mlflow_url, experiment)
    history = MlflowClient(mlflow_url).get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.3), (2, 0.2), (3, 0.1)]
    assert history[1].timestamp < history[2].timestamp - 1_000, "each has the moment at which it was measured"


# --- what is in the run ------------------------------------------------------------------------------------------------


def test_metrics_of_the_system_go_on_from_step_to_step(tracking: Tracking, mlflow_url: str, experiment: str) -> None:
    for _ in range(3):
        with tracking.step(experiment):
            pass
    (found,) = runs_of(mlflow_url, experiment)
    history = MlflowClient(mlflow_url).get_metric_history(found.info.run_id, "system/cpu_utilization_percentage")
    assert [point.step for point in history] == [0, 1, 2]
    assert found.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_failure_to_log_the_last_metrics_of_the_system_fails_no_step(
    tracking: Tracking, mlflow_url: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    def refuse(self: Any, metrics: Any) -> None:
        raise MlflowException("away")

    monkeypatch.setattr(SystemMetricsMonitor, "publish_metrics", refuse)
    with tracking.step(experiment):
        pass
    assert [found.info.status for found in runs_of(mlflow_url, experiment)] == ["FINISHED"]


def test_error_of_a_step_is_not_lost_though_mlflow_is_away(tracking: Tracking, experiment: str) -> None:
    def away(status: str) -> None:
        raise MlflowException("the server does not answer")

    with pytest.raises(Interrupted), tracking.step(experiment) as kept:  # noqa: PT012
        kept.end_run = away
        raise Interrupted("m/candidate", "was asked to stop", "run it again")
    mlflow.end_run()


def test_runs_link_to_each_other_and_progress_shows_while_the_step_runs(
    instance: dg.DagsterInstance, mlflow_url: str, experiment: str
) -> None:
    moments = iter([0.0, 2.0, 6.0, 8.0])
    seen_meanwhile: list[int] = []
    key = dg.AssetKey([experiment, "candidate"])

    @dg.asset(key=key, partitions_def=dg.DailyPartitionsDefinition("2018-05-01"))
    def candidate(context: dg.AssetExecutionContext) -> None:
        tracking = Tracking(context.log, context.run, instance, mlflow_url, DAGSTER)
        with tracking.step(experiment) as mlflow:
            progress = Progress(context, mlflow, lambda: next(moments))
            for epoch in (1, 2, 3, 4):
                progress(epoch, {"train_loss": 1 / epoch, "rows_per_second": 10.0, "epochs": 4.0})
                seen_meanwhile.append(len(instance.fetch_observations(key, limit=10).records))
            log_files(mlflow, {"curve.png": b"png"}, "plots")
            context.add_asset_metadata(tracking.metadata(mlflow))

    result = dg.materialize([candidate], partition_key="2018-05-31", instance=instance)
    (found,) = runs_of(mlflow_url, experiment)
    client, run_id = MlflowClient(mlflow_url), found.info.run_id
    url = f"{DAGSTER}/runs/{result.run_id}"
    assert found.data.tags["dagster_run_url"] == url
    assert url in found.data.tags["mlflow.note.content"]
    assert found.info.run_name == f"{experiment} 2018-05-31"
    assert [point.value for point in client.get_metric_history(run_id, "train_loss")] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert "epochs" not in found.data.metrics
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/curve.png"]

    (materialized,) = instance.fetch_materializations(key, limit=1).records
    metadata = materialized.asset_materialization.metadata  # type: ignore[union-attr]
    link = f"{mlflow_url}/#/experiments/{found.info.experiment_id}/runs/{run_id}"
    assert (metadata["mlflow_run"].value, metadata["mlflow_run_id"].value) == (link, run_id)

    assert seen_meanwhile == [1, 1, 2, 3]  # at once, then every few seconds, and the last
    observations = [record.asset_observation for record in instance.fetch_observations(key, limit=10).records]
    last, third, _ = [one for one in observations if one]
    assert (third.metadata["epoch"].value, third.metadata["epochs"].value) == (3, 4)
    assert third.metadata["seconds_left"].value == 4.0
    assert last.metadata["seconds_left"].value == 0.0
    assert last.partition == "2018-05-31"


def test_rows_that_a_run_is_about_are_a_dataset_of_it(tracking: Tracking, mlflow_url: str, experiment: str) -> None:
    import pandas as pd

    with tracking.step(experiment) as mlflow:
        log_dataset(mlflow, pd.DataFrame({"amount": [1.0, 2.0], "label": [0, 1]}), "m/training_set", "f" * 64, "label")
    (found,) = runs_of(mlflow_url, experiment)
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("m/training_set", "f" * 16)
    assert json.loads(given.dataset.profile)["num_rows"] == 2
