"""Steps as pods by dagster-k8s on the double: what it cannot bear by itself."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
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

from ml_platform.components.pods import Cancellable, PodSteps, executor_of_pods
from ml_platform.resources.cluster import START_TIMEOUT, WAITING
from ml_platform.resources.job_launcher import STUCK_FOR
from ml_platform.resources.namespace import OUTAGE
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


@dg.job(executor_def=executor_of_pods(3_600.0))
def one_step() -> None:
    work()


@pytest.fixture
def double(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    # dagster-k8s waits ten seconds between its tries.
    monkeypatch.setattr(
        dagster_k8s.client, "time", SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(seconds / 100))
    )
    monkeypatch.setattr("ml_platform.components.pods.LOOKED_AT_EVERY", 1)
    with Double(tmp_path, nursery) as double:
        double.put("configmaps", "dagster-instance", data={"dagster.yaml": ""})
        load_kube_config(str(double.kubeconfig))
        yield double


def run(double: Double, tries: int, then: Callable[[], object], tags: dict[str, str] | None = None) -> bool:
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
        dg.execute_job(dg.reconstructable(one_step), instance, tags=tags, raise_on_error=False) as result,
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


def test_pods_of_steps_have_the_priority_class_of_their_run(double: Double) -> None:
    """dagster-k8s leaves the run's tags out of them."""
    tags = {"dagster-k8s/config": json.dumps({"pod_spec_config": {"priority_class_name": "urgent", "node_name": "n"}})}
    assert run(double, 0, lambda: None, tags)
    (job,) = double.store.list("jobs")
    spec = job["spec"]["template"]["spec"]
    assert (spec["priorityClassName"], spec.get("nodeName")) == ("urgent", None)


# --- without a run ----------------------------------------------------------------------------------------------------


class Handler(StepHandler):
    """Launches a Job that does not depend on the step."""

    @property
    def name(self) -> str:
        return "simple"

    def __init__(self, double: Double, command: str = "sleep 30", name: str = "step") -> None:
        self.command = command
        self.job = name
        self.client = DagsterKubernetesClient.production_client()
        self.double = double
        self.terminated = 0

    def launch_step(self, step_handler_context: Any) -> Iterator[dg.DagsterEvent]:
        labels = {"dagster/run-id": "r", "dagster/op": "work"}
        container: dict[str, Any] = {"name": "c", "image": "i", "command": ["sh", "-c", self.command]}
        container["resources"] = {"requests": {"cpu": "100m"}}
        template = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
        body: Any = {
            "metadata": {"name": self.job, "labels": labels},
            "spec": {"backoffLimit": 0, "template": template},
        }
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


class Instance:
    """What is said in a run's log, and its tags."""

    def __init__(self, double: Double) -> None:
        self.run_launcher = SimpleNamespace(job_namespace=double.namespace)
        self.said: list[str] = []
        self.tags: dict[str, str] = {}

    def report_engine_event(self, message: str, dagster_run: object, step_key: str) -> None:
        self.said.append(f"{step_key}: {message}")

    def add_run_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self.tags |= tags


def context(double: Double, **tags: str) -> Any:
    arguments = SimpleNamespace(step_keys_to_execute=["work"], run_id="r")
    run = SimpleNamespace(run_id="r", tags={})
    return SimpleNamespace(
        instance=Instance(double), execute_step_args=arguments, dagster_run=run, step_tags={"work": tags}
    )


def steps_of(handler: StepHandler, clock: Callable[[], float] = time.monotonic) -> PodSteps:
    return PodSteps(handler, 3_600.0, clock)


def uid(double: Double) -> str:
    (job,) = double.store.list("jobs")
    return job["metadata"]["uid"]


def launch(double: Double, command: str) -> None:
    list(steps_of(Handler(double, command)).launch_step(context(double)))


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
    steps = steps_of(handler)
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
    steps = steps_of(Failed(double))
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
    monkeypatch.setattr("ml_platform.components.pods.GRACE", -60.0)
    double.kubelet.delete(double.pods()[0])
    assert not steps_of(Failed(double)).check_step_health(context(double)).is_healthy


def test_step_whose_image_cannot_be_pulled_is_unhealthy_after_a_while_and_taken_away(double: Double) -> None:
    double.kubelet.missing_images = {"i"}
    launch(double, "sleep 30")
    eventually(lambda: any(pod["status"].get("containerStatuses") for pod in double.pods()))
    now = [0.0]
    handler = Handler(double)
    steps = steps_of(handler, lambda: now[0])
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
    steps = steps_of(Handler(double), lambda: now[0])
    steps.check_step_health(context(double))
    double.kubelet.missing_images.clear()
    eventually(lambda: double.pods()[0]["status"]["phase"] == "Running")
    now[0] += 10 * STUCK_FOR
    assert steps.check_step_health(context(double)).is_healthy


# --- what a step waits for --------------------------------------------------------------------------------------------


def crowd_out(double: Double) -> None:
    double.kubelet.limit_node("node-0", cpu="0", memory="1Gi")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (crowd_out, "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu"),
        (lambda double: double.kubelet.missing_images.add("i"), 'ImagePullBackOff: Back-off pulling image "i"'),
        (lambda double: double.quota.update({"pods": 0}), "no pod is there yet; FailedCreate: Error creating: pods"),
        (lambda double: double.quota.update({"count/jobs.batch": 0}), "its Job is refused: jobs.batch"),
    ],
    ids=["node", "image", "quota of pods", "quota of jobs"],
)
def test_what_a_pod_waits_for_is_said_within_half_a_minute_and_ends_the_step_at_its_limit(
    double: Double, trouble: Callable[[Double], None], words: str
) -> None:
    trouble(double)
    now = [0.0]
    handler, about = Handler(double), context(double, **{START_TIMEOUT: "100"})
    steps = steps_of(handler, lambda: now[0])
    list(steps.launch_step(about))
    for now[0] in (10.0, 20.0, 30.0):
        eventually(lambda: words in found(steps, about))
    (said,) = (one for one in about.instance.said if words in one)  # once
    assert said.startswith("work: waiting: ")
    assert words in about.instance.tags[WAITING]
    now[0] = 99.0
    assert steps.check_step_health(about).is_healthy
    now[0] = 100.0
    result = steps.check_step_health(about)
    assert "its pod cannot start within 100 s (start_timeout of its resources)" in str(result.unhealthy_reason)
    assert words in str(result.unhealthy_reason)
    assert about.instance.tags[WAITING] == ""


def found(steps: PodSteps, about: Any) -> str:
    """What is said of a step, once it is looked at."""
    assert steps.check_step_health(about).is_healthy
    return " ".join(about.instance.said)


def test_pod_that_starts_at_last_is_not_said_to_wait_any_more(double: Double) -> None:
    crowd_out(double)
    now = [0.0]
    about, steps = context(double), steps_of(Handler(double), lambda: now[0])
    list(steps.launch_step(about))
    now[0] = 20.0
    eventually(lambda: "Insufficient cpu" in found(steps, about))
    double.kubelet.limit_node("node-0", cpu="1", memory="1Gi")
    eventually(lambda: double.pods()[0]["status"]["phase"] == "Running")
    now[0] = 5_000.0
    assert steps.check_step_health(about).is_healthy
    assert about.instance.tags[WAITING] == ""


def test_pod_of_a_former_try_does_not_speak_for_the_present_one(double: Double) -> None:
    launch(double, "exit 1")
    (former,) = double.store.list("jobs")
    eventually(lambda: bool(double.store.list("jobs")[0].get("status", {}).get("conditions")))
    eventually(lambda: time.time() > datetime.fromisoformat(former["metadata"]["creationTimestamp"]).timestamp() + 1)
    crowd_out(double)
    now = [0.0]
    about, steps = context(double), steps_of(Handler(double, name="step-1"), lambda: now[0])
    list(steps.launch_step(about))
    now[0] = 20.0
    eventually(lambda: "Insufficient cpu" in found(steps, about))


def test_api_that_stays_away_ends_the_step(double: Double) -> None:
    double.is_down = True
    now = [0.0]
    about, steps = context(double), steps_of(Handler(double), lambda: now[0])
    list(steps.launch_step(about))
    now[0] = OUTAGE - 1
    assert steps.check_step_health(about).is_healthy
    now[0] = OUTAGE
    assert "the Kubernetes API does not answer" in str(steps.check_step_health(about).unhealthy_reason)
