"""Steps that train and are asked to stop: preempted, cancelled, out of time. Signals are real, and so are step processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from ml_platform.components.graph import limits
from ml_platform.components.stopping import within_limits
from ml_platform.core.errors import Interrupted
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import ResourcesSpec
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.lake import Lake
from ml_platform.resources.stopping import Stop
from ml_platform.training.trainers import Context, Labelled
from ml_platform_tests.forks import Fork, Nursery
from ml_platform_tests.processes import eventually

RESOURCES = ResourcesSpec.model_validate({"retries": {"max": 1, "delay": "1s"}})
FOLDER = "TEST_STOPPING_FOLDER"
DAY = date(2018, 5, 31)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 3)).astype(np.float32)
ROWS = Labelled(X, (X[:, 0] > 0).astype(np.int64))
PARAMS = {"hidden": [4], "batch_size": 20, "checkpoint_every": 10, "epochs": 12}


def run(work: Callable[[dg.OpExecutionContext, Stop], object], **resources: Any) -> dg.ExecuteInProcessResult:
    """A run of one step in this process."""
    limited = RESOURCES.model_copy(update=resources)

    @dg.op(retry_policy=limits(limited)["retry_policy"])
    def step(context: dg.OpExecutionContext) -> None:
        with within_limits(context, "m/candidate", limited) as stop:
            work(context, stop)

    @dg.job
    def training() -> None:
        step()

    return training.execute_in_process(raise_on_error=False)


def stopped(stop: Stop) -> None:
    """What a trainer does that is asked to stop."""
    while not stop.asked():
        pass
    raise Interrupted("training", "stopped in epoch 3", "run it again")


def terminated(stop: Stop) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    stopped(stop)


def said(result: dg.ExecuteInProcessResult) -> list[str]:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return [data.error.message + str(data.user_failure_data) for data in failures if data.error]


@pytest.mark.usefixtures("impatient")
def test_preempted_step_is_tried_again_and_that_counts_as_no_retry() -> None:
    ends: Iterator[Callable[[Stop], object]] = iter(
        [terminated, terminated, terminated, lambda stop: 1 / 0, lambda stop: None]
    )
    result = run(lambda context, stop: next(ends)(stop))
    assert result.success
    assert next(ends, None) is None
    assert [event.event_type_value for event in result.all_events].count("STEP_UP_FOR_RETRY") == 4


@pytest.mark.usefixtures("impatient")
def test_failures_beside_preemptions_are_counted() -> None:
    ends: Iterator[Callable[[Stop], object]] = iter(
        [terminated, lambda stop: 1 / 0, lambda stop: 1 / 0, lambda stop: None]
    )
    result = run(lambda context, stop: next(ends)(stop))
    assert not result.success
    assert next(ends, None) is not None


def test_cancelled_step_is_final_and_the_run_stays_cancelled() -> None:
    tries = []

    def work(context: dg.OpExecutionContext, stop: Stop) -> None:
        tries.append(context.retry_number)
        context.instance.report_run_canceling(context.run)
        terminated(stop)

    result = run(work)
    assert tries == [0]
    assert "cancelled: stopped in epoch 3" in said(result)[0]
    assert [e.event_type_value for e in result.all_events][-1] == "PIPELINE_CANCELED"


def test_step_out_of_time_says_so_and_is_not_tried_again() -> None:
    tries = []
    result = run(lambda context, stop: (tries.append(1), stopped(stop))[1], timeout="1s")
    assert tries == [1]
    assert "training took longer than 1s: stopped in epoch 3" in said(result)[0]
    assert "raise resources.timeout" in said(result)[0]


@dg.op(retry_policy=limits(RESOURCES)["retry_policy"])
def fit(context: dg.OpExecutionContext) -> None:
    from ml_platform.training.trainers.mlp import MLP

    folder, lake = Path(os.environ[FOLDER]), Lake.at(load_settings())
    (folder / f"try_{context.retry_number}").write_text(str(os.getpid()))
    with within_limits(context, "m/candidate", RESOURCES) as stop:
        checkpoints = LakeCheckpoints(lake, "m/checkpoint_1", DAY)

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            if context.retry_number == 0 and epoch == 3:  # goes on when it is asked to stop
                eventually(lambda: stop.asked())

        fitted = MLP.fit(PARAMS, ROWS, ROWS, Context("binary_classification", 2, 5, on_epoch, checkpoints, stop.asked))
    (folder / "result").write_bytes(fitted.save()["model.safetensors"])


@dg.job(executor_def=dg.multiprocess_executor)
def training_job() -> None:
    fit()


def main() -> None:
    """A run as its worker process executes it."""
    from dagster._utils.interrupts import capture_interrupts

    with capture_interrupts(), dg.DagsterInstance.get() as instance:
        dg.execute_job(dg.reconstructable(training_job), instance)


@pytest.fixture
def worker(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fork]:
    """A run whose only step is a process of its own, which trains."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ML_PLATFORM_LAKE", str(tmp_path / "lake"))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    command = [sys.executable, "-c", f"import {__name__} as module; module.main()"]
    with nursery.start(command, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: process.poll() is not None or any((tmp_path / "lake").rglob("*.checkpoint")), timeout=120)
        yield process
        process.kill()


def finished(tmp_path: Path, worker: Fork) -> tuple[dg.DagsterRunStatus, list[str]]:
    worker.wait(timeout=120)
    with dg.DagsterInstance.get() as instance:
        status = instance.get_runs()[0].status
        events = instance.all_logs(instance.get_runs()[0].run_id)
    return status, [event.dagster_event.event_type_value for event in events if event.dagster_event]


def test_step_process_that_is_preempted_goes_on_to_the_same_bits(tmp_path: Path, worker: Fork) -> None:
    from ml_platform.training.trainers.mlp import MLP

    os.kill(int((tmp_path / "try_0").read_text()), signal.SIGTERM)
    status, events = finished(tmp_path, worker)
    assert status == dg.DagsterRunStatus.SUCCESS
    assert events.count("STEP_UP_FOR_RETRY") == 1
    whole = MLP.fit(PARAMS, ROWS, ROWS, Context("binary_classification", 2, 5)).save()["model.safetensors"]
    assert (tmp_path / "result").read_bytes() == whole


def test_step_process_of_a_cancelled_run_saves_and_ends(tmp_path: Path, worker: Fork) -> None:
    with dg.DagsterInstance.get() as instance:
        instance.report_run_canceling(instance.get_runs()[0])
    worker.terminate()
    status, _ = finished(tmp_path, worker)
    assert status == dg.DagsterRunStatus.CANCELED
    assert not (tmp_path / "try_1").exists()
    assert any((tmp_path / "lake").rglob("*.checkpoint"))
