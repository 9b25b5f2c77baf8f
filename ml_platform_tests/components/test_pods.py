"""Steps as pods by dagster-k8s on the double: what it cannot bear by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import dagster_k8s.client
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepHandler
from dagster_k8s.client import DagsterKubernetesClient
from kubernetes.config import load_kube_config

from ml_platform.components import pods
from ml_platform.components.pods import Cancellable, PodSteps, executor_of_pods
from ml_platform.resources.job_launcher import STUCK_FOR
from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double import Double
from ml_platform_tests.processes import eventually

LAUNCHER = {
    "service_account_name": "dagster-run",
    "instance_config_map": "dagster-instance",
    "dagster_home": "/opt/dagster/home",
    "job_image": "ml-platform/dagster:1",
    "load_incluster_config": False,
}


@dg.op
def work() -> None:
    pass


@dg.job(executor_def=executor_of_pods())
def one_step() -> None:
    work()


@pytest.fixture
def double(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    # dagster-k8s waits ten seconds between its tries.
    monkeypatch.setattr(
        dagster_k8s.client, "time", SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(seconds / 100))
    )
    monkeypatch.setattr(pods, "PAUSE", 0.5)
    with Double(tmp_path, nursery) as double:
        double.put("configmaps", "dagster-instance", data={"dagster.yaml": ""})
        load_kube_config(str(double.kubeconfig))
        yield double


def run(double: Double, tries: int, then: Callable[[], object]) -> bool:
    """Run the job, and change the cluster when its step was to be launched that often."""
    config = {**LAUNCHER, "job_namespace": double.namespace, "kubeconfig_file": str(double.kubeconfig)}
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}

    def change() -> None:
        eventually(lambda: len(launches(double)) >= tries)
        then()

    changes = threading.Thread(target=change, daemon=True)
    changes.start()
    with (
        dg.instance_for_test(overrides={"run_launcher": launcher}) as instance,
        dg.execute_job(dg.reconstructable(one_step), instance, raise_on_error=False) as result,
    ):
        changes.join()
        return result.success


def launches(double: Double) -> list[tuple[Any, ...]]:
    return [one for one in double.requests if one[0] == "POST"]


def test_step_is_launched_once_the_api_is_back(double: Double) -> None:
    double.is_down = True
    longer_than_dagster_k8s_would_wait = 9
    assert run(double, longer_than_dagster_k8s_would_wait, lambda: setattr(double, "is_down", False))


def test_step_is_launched_once_the_quota_allows_it(double: Double) -> None:
    double.quota = {"count/jobs.batch": 0}
    assert run(double, 3, double.quota.clear)


def test_any_other_refusal_fails_the_run(double: Double) -> None:
    double.fail(403)
    assert not run(double, 0, lambda: None)


# --- without a run ----------------------------------------------------------------------------------------------------


class Handler(StepHandler):
    """Launches a Job that does not depend on the step."""

    @property
    def name(self) -> str:
        return "simple"

    def __init__(self, double: Double, command: str = "sleep 30") -> None:
        self.command = command
        self.client = DagsterKubernetesClient.production_client()
        self.double = double
        self.terminated = 0

    def launch_step(self, step_handler_context: Any) -> Iterator[dg.DagsterEvent]:
        labels = {"dagster/run-id": "r", "dagster/op": "work"}
        container = {"name": "c", "image": "i", "command": ["sh", "-c", self.command]}
        template = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
        body: Any = {"metadata": {"name": "step"}, "spec": {"backoffLimit": 0, "template": template}}
        self.client.create_namespaced_job_with_retries(body, self.double.namespace)
        yield from ()

    def check_step_health(self, step_handler_context: Any) -> CheckStepHealthResult:
        return CheckStepHealthResult.healthy()

    def terminate_step(self, step_handler_context: Any) -> Iterator[dg.DagsterEvent]:
        self.terminated += 1
        yield from ()


class Failed(Handler):
    """That of dagster-k8s, of a Job that has failed."""

    def check_step_health(self, step_handler_context: Any) -> CheckStepHealthResult:
        return CheckStepHealthResult.unhealthy("Discovered failed Kubernetes job")


def context(double: Double) -> Any:
    launcher = SimpleNamespace(job_namespace=double.namespace)
    arguments = SimpleNamespace(step_keys_to_execute=["work"], run_id="r")
    return SimpleNamespace(instance=SimpleNamespace(run_launcher=launcher), execute_step_args=arguments)


def uid(double: Double) -> str:
    (job,) = double.store.list("jobs")
    return job["metadata"]["uid"]


def launch(double: Double, command: str) -> None:
    list(PodSteps(Handler(double, command)).launch_step(context(double)))


def test_step_that_is_begun_anew_takes_the_place_of_one_that_has_failed(double: Double) -> None:
    launch(double, "exit 1")
    before = uid(double)
    eventually(lambda: bool(double.store.list("jobs")[0].get("status", {}).get("conditions")))
    launch(double, "sleep 30")
    assert uid(double) != before


def test_step_that_runs_is_not_begun_anew(double: Double) -> None:
    launch(double, "sleep 30")
    before = uid(double)
    eventually(lambda: [pod["status"]["phase"] for pod in double.pods()] == ["Running"])
    launch(double, "sleep 30")
    assert uid(double) == before


class Interrupted:
    """An executor that was told to stop while its step runs."""

    retries = None

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        yield from ()
        raise DagsterExecutionInterruptedError("steps still in flight")


@pytest.mark.parametrize(
    ("status", "ended"), [(dg.DagsterRunStatus.CANCELING, 1), (dg.DagsterRunStatus.STARTED, 0)], ids=str
)
def test_steps_end_with_a_run_that_is_cancelled_and_outlive_one_that_is_taken_up_again(
    double: Double, status: dg.DagsterRunStatus, ended: int
) -> None:
    handler = Handler(double)
    steps = PodSteps(handler)
    list(steps.launch_step(context(double)))
    eventually(lambda: [pod["status"]["phase"] for pod in double.pods()] == ["Running"])
    run = SimpleNamespace(status=status)
    plan: Any = SimpleNamespace(run_id="r", instance=SimpleNamespace(get_run_by_id=lambda run_id: run))
    executor: Any = Interrupted()
    nothing: Any = None
    with pytest.raises(DagsterExecutionInterruptedError):
        list(Cancellable(executor, steps).execute(plan, nothing))
    assert handler.terminated == ended


def test_step_whose_pod_is_told_to_go_has_not_failed_before_it_is_gone(double: Double) -> None:
    launch(double, "trap 'sleep 3; exit 75' TERM; sleep 30 & wait")
    eventually(lambda: [pod["status"]["phase"] for pod in double.pods()] == ["Running"])
    time.sleep(0.5)  # the shell sets its trap
    steps = PodSteps(Failed(double))
    double.kubelet.delete(double.pods()[0])
    eventually(lambda: bool(double.store.list("jobs")[0].get("status", {}).get("failed")))
    assert steps.check_step_health(context(double)).is_healthy
    eventually(lambda: not double.pods())
    assert not steps.check_step_health(context(double)).is_healthy


def test_step_whose_pod_stays_on_a_node_that_is_gone_has_failed(
    double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(double, "trap '' TERM; sleep 30")
    eventually(lambda: [pod["status"]["phase"] for pod in double.pods()] == ["Running"])
    monkeypatch.setattr(pods, "GRACE", -60.0)
    double.kubelet.delete(double.pods()[0])
    assert not PodSteps(Failed(double)).check_step_health(context(double)).is_healthy


def test_step_whose_image_cannot_be_pulled_is_unhealthy_after_a_while_and_taken_away(double: Double) -> None:
    double.kubelet.missing_images = {"i"}
    launch(double, "sleep 30")
    eventually(lambda: any(pod["status"].get("containerStatuses") for pod in double.pods()))
    now = [0.0]
    handler = Handler(double)
    steps = PodSteps(handler, clock=lambda: now[0])
    assert steps.check_step_health(context(double)).is_healthy
    now[0] += STUCK_FOR - 1
    assert steps.check_step_health(context(double)).is_healthy
    now[0] += 2
    found = steps.check_step_health(context(double))
    assert not found.is_healthy
    assert "its pod cannot start: " in str(found.unhealthy_reason)
    assert 'ImagePullBackOff: Back-off pulling image "i"' in str(found.unhealthy_reason)
    assert handler.terminated == 1


def test_step_whose_image_comes_at_last_is_healthy_and_counted_anew(double: Double) -> None:
    double.kubelet.missing_images = {"i"}
    launch(double, "sleep 30")
    eventually(lambda: any(pod["status"].get("containerStatuses") for pod in double.pods()))
    now = [0.0]
    steps = PodSteps(Handler(double), clock=lambda: now[0])
    steps.check_step_health(context(double))
    double.kubelet.missing_images.clear()
    eventually(lambda: double.pods()[0]["status"]["phase"] == "Running")
    now[0] += 10 * STUCK_FOR
    assert steps.check_step_health(context(double)).is_healthy
