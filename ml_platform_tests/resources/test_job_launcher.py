"""Trainings as Jobs and PyTorchJobs: real torchrun in the pods of a double of the Kubernetes API."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config

from ml_platform.core import keys
from ml_platform.core.errors import Interrupted, SpecError, TrainingError, WorkloadError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import CandidateSpec
from ml_platform.resources import job_launcher, training_pods
from ml_platform.resources import namespace as namespaces
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.job_launcher import JobLauncher
from ml_platform.resources.lake import Lake
from ml_platform.resources.launcher import Training, clear_job, fitting
from ml_platform.resources.namespace import Namespace
from ml_platform.resources.training_pods import LABEL, Kind
from ml_platform.training.trainers import Context, Trainer
from ml_platform.training.trainers.mlp import MLP
from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double import Double
from ml_platform_tests.processes import eventually
from ml_platform_tests.resources.test_launcher import HELD_OUT, PARAMS, TRAIN, X

DAY = date(2018, 5, 31)
ENDLESS = {**PARAMS, "epochs": 100_000}
NAME = training_pods.name_of(Training("m", DAY, 1, True))


@dataclass
class World:
    """A double, the lake that its pods train in, and all that was heard."""

    double: Double
    lake: Lake
    heard: list[str] = field(default_factory=list)
    template: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)

    def base(self, name: str) -> dict[str, Any]:
        """A Job as dagster-k8s makes one, with as little in it as there can be."""
        container = {"name": "dagster", "image": "ml-platform/training:1", "args": ["never"]}
        pod = {"containers": [container], "restartPolicy": "Never", **self.template}
        meta = {"name": name, "labels": {"app.kubernetes.io/part-of": "ml-platform"}}
        template = {"metadata": {"name": name, **meta}, "spec": pod}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {**self.job, "template": template}}

    def launcher(self, kind: Kind = "job", nodes: int = 1, processes: int = 1, owner: Any = None) -> JobLauncher:
        client: ApiClient = new_client_from_config(str(self.double.kubeconfig))
        namespace = Namespace(client, self.double.namespace, sleep=lambda seconds: time.sleep(seconds / 10))
        return JobLauncher(namespace, kind, self.base, nodes, processes, owner=owner)

    def fit(self, launcher: JobLauncher, params: dict = PARAMS, trainer: str = "mlp", **context: Any) -> Trainer:
        how = fitting(launcher, self.lake, "m", DAY, self.heard.append)
        whole = Context("binary_classification", 2, 5, **context)
        return how(1, CandidateSpec(trainer=trainer, params=params), TRAIN, HELD_OUT, whole)

    def has_checkpoint(self) -> bool:
        return LakeCheckpoints(self.lake, keys.checkpoint("m", 1), DAY).load() is not None

    def pods(self) -> list[dict[str, Any]]:
        return self.double.pods(ml_platform__training=NAME)

    def after(self, condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
        """Do something to the cluster as soon as something is so."""

        def wait() -> None:
            eventually(condition, timeout=60)
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture
def world(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("ML_PLATFORM_LAKE", str(tmp_path / "lake"))
    environment = {"ML_PLATFORM_LAKE": str(tmp_path / "lake"), "OMP_NUM_THREADS": "1"}
    with Double(tmp_path, nursery, environment) as double:
        yield World(double, Lake.at(load_settings()))


def here(params: dict = PARAMS) -> np.ndarray:
    return MLP.fit(params, TRAIN, HELD_OUT, Context("binary_classification", 2, 5)).predict(X)


# --- to the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["job", "pytorchjob"])
def test_two_pods_give_the_model_of_one_and_their_figures_are_heard(world: World, kind: Kind) -> None:
    epochs: list[tuple[int, float]] = []
    fitted = world.fit(
        world.launcher(kind, nodes=2), on_epoch=lambda epoch, figures: epochs.append((epoch, figures["train_loss"]))
    )
    np.testing.assert_allclose(fitted.predict(X), here(), atol=1e-3)
    assert [epoch for epoch, _ in epochs] == [1, 2]
    pods = world.pods()
    assert len(pods) == 2
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
    assert all(not pod["spec"]["automountServiceAccountToken"] for pod in pods)
    clear_job(world.lake, "m", DAY, 1)


def test_one_pod_gives_the_bits_of_this_process(world: World) -> None:
    assert np.array_equal(world.fit(world.launcher()).predict(X), here())


def test_trainer_that_one_process_fits_gets_one_pod(world: World) -> None:
    assert world.fit(world.launcher(nodes=2), {"max_iter": 5}, "linear").predict(X).shape == (2_000,)
    (pod,) = world.pods()
    assert "--processes" not in pod["spec"]["containers"][0]["command"]


def test_pods_of_a_job_find_each_other_by_a_headless_service_that_goes_with_the_job(world: World) -> None:
    world.fit(world.launcher(nodes=2))
    (service,) = world.double.store.list("services")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {LABEL: NAME}
    for pod in world.pods():
        assert pod["spec"]["subdomain"] == service["metadata"]["name"]
        assert f"{NAME}-0.{NAME}" in pod["spec"]["containers"][0]["command"]
    world.launcher().namespace.delete("job", NAME)
    eventually(lambda: not world.double.store.list("services"))


def test_it_goes_when_the_step_that_started_it_is_gone(world: World) -> None:
    world.double.put("pods", "step", apiVersion="v1", kind="Pod", spec={}, status={"phase": "Running"})
    step = world.double.store.get("pods", world.double.namespace, "step")
    thread = world.after(world.has_checkpoint, lambda: world.double.store.remove("pods", step or {}))
    with pytest.raises(Interrupted):
        world.fit(world.launcher(owner=step), ENDLESS)
    thread.join()
    eventually(lambda: not world.pods())


# --- stopped ----------------------------------------------------------------------------------------------------------


def test_stopped_it_leaves_a_checkpoint_and_no_pod_and_goes_on_to_the_same_bits(world: World) -> None:
    params = {**PARAMS, "epochs": 30}
    with pytest.raises(Interrupted):
        world.fit(world.launcher(), params, interrupted=world.has_checkpoint)
    assert world.has_checkpoint()
    assert world.pods() == []
    assert world.double.store.list("jobs") == []
    assert np.array_equal(world.fit(world.launcher(), params).predict(X), here(params))
    assert any("going on from the checkpoint" in line for line in world.heard)


@pytest.mark.parametrize("kind", ["job", "pytorchjob"])
def test_evicted_pod_is_a_preemption_that_ends_with_the_same_bits(world: World, kind: Kind) -> None:
    params = {**PARAMS, "epochs": 30}
    thread = world.after(world.has_checkpoint, lambda: world.double.kubelet.evict(world.pods()[0]))
    with pytest.raises(Interrupted, match=r"its pods were taken away|goes on from its checkpoint"):
        world.fit(world.launcher(kind), params)
    thread.join()
    assert world.double.store.list(f"{kind}s") == []
    assert np.array_equal(world.fit(world.launcher(kind), params).predict(X), here(params))


def test_pod_whose_node_is_lost_takes_the_others_along_and_it_is_a_preemption(world: World) -> None:
    def lose() -> None:
        pod = world.pods()[0]
        world.double.store.remove("pods", pod)
        world.double.kubelet.kill(pod)

    thread = world.after(world.has_checkpoint, lose)
    with pytest.raises(Interrupted, match="were taken away: 1 of 2 pods are gone"):
        world.fit(world.launcher(nodes=2), ENDLESS)
    thread.join()
    eventually(lambda: world.pods() == [])


def test_killed_pod_is_a_failure_that_says_what_may_be_the_reason(world: World) -> None:
    thread = world.after(world.has_checkpoint, lambda: world.double.kubelet.kill(world.pods()[0]))
    with pytest.raises(WorkloadError, match=r"ended with 137 \(killed; out of memory\?\).*kubectl describe job"):
        world.fit(world.launcher(), ENDLESS)
    thread.join()
    assert world.pods(), "they stay for whoever wants to look"
    world.fit(world.launcher())  # and are not in the way


def test_deadline_is_final(world: World) -> None:
    world.job = {"activeDeadlineSeconds": 6}
    with pytest.raises(TrainingError, match="raise resources.timeout"):
        world.fit(world.launcher(), ENDLESS)


def test_error_in_a_pod_is_the_error_here(world: World) -> None:
    with pytest.raises(SpecError, match=r"mend candidates.params.epoch"):
        world.fit(world.launcher(), {"epoch": 3})


# --- another try ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What becomes of a step by kill -9: it cleans nothing up."""


def left_by_a_step_that_was_killed(world: World, params: dict) -> str:
    """A training that runs and is watched by nobody; returns its pod's uid."""
    launcher = world.launcher()
    launcher._remove = lambda name: None  # type: ignore[method-assign]

    def killed() -> bool:
        if world.has_checkpoint():
            raise Killed
        return False

    with pytest.raises(Killed):
        world.fit(launcher, params, interrupted=killed)
    (pod,) = world.pods()
    return pod["metadata"]["uid"]


def test_try_after_one_that_was_killed_watches_what_that_one_has_started(world: World) -> None:
    params = {**PARAMS, "epochs": 100}
    before = left_by_a_step_that_was_killed(world, params)
    assert np.array_equal(world.fit(world.launcher(), params).predict(X), here(params))
    assert [pod["metadata"]["uid"] for pod in world.pods()] == [before]
    assert any("is there already: watching it" in line for line in world.heard)


def test_what_is_left_of_another_training_is_taken_away(world: World) -> None:
    before = left_by_a_step_that_was_killed(world, ENDLESS)
    assert np.array_equal(world.fit(world.launcher()).predict(X), here())
    assert before not in [pod["metadata"]["uid"] for pod in world.pods()]


def left_terminating(world: World, kind: str, **content: Any) -> None:
    """Something of a Job that had this name before, whose end nobody confirms: its node is gone."""
    meta = {"labels": {LABEL: NAME}, "ownerReferences": [{"kind": "Job", "name": NAME, "uid": "of-before"}]}
    world.double.store.create(kind, world.double.namespace, {"metadata": {"name": NAME, **meta}, **content})


def test_pods_of_a_job_before_are_not_those_of_this_one(world: World) -> None:
    taken = {"type": "DisruptionTarget", "status": "True", "message": "its node is lost"}
    left_terminating(world, "pods", spec={"containers": []}, status={"phase": "Running", "conditions": [taken]})
    assert np.array_equal(world.fit(world.launcher()).predict(X), here())


def test_service_of_a_job_before_gives_way(world: World) -> None:
    left_terminating(world, "services", spec={"clusterIP": "None"})
    world.fit(world.launcher(nodes=2))
    (service,) = world.double.store.list("services")
    (job,) = world.double.store.list("jobs")
    assert [one["uid"] for one in service["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]


# --- a cluster that is in trouble -------------------------------------------------------------------------------------


def test_image_that_cannot_be_pulled_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_launcher, "STUCK_FOR", 2.0)
    monkeypatch.setattr(job_launcher, "POLLED_EVERY", 1.0)
    world.double.kubelet.missing_images = {"ml-platform/training:1"}
    with pytest.raises(WorkloadError, match='ImagePullBackOff: Back-off pulling image "ml-platform/training:1"'):
        world.fit(world.launcher())
    assert world.pods() == []
    assert any(line.startswith("waiting: ") and "ImagePullBackOff" in line for line in world.heard)


def test_image_that_comes_late_is_waited_for(world: World) -> None:
    world.double.kubelet.missing_images = {"ml-platform/training:1"}
    thread = world.after(lambda: bool(world.heard), world.double.kubelet.missing_images.clear)
    assert np.array_equal(world.fit(world.launcher()).predict(X), here())
    thread.join()


def test_quota_and_gpu_nodes_are_waited_for(world: World) -> None:
    container = {"name": "dagster", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "1Gi"}}}
    world.template = {"containers": [container]}
    world.double.quota = {"count/jobs.batch": 0}
    jobs = world.after(
        lambda: world.double.requests.count(("POST", "/apis/batch/v1/namespaces/ml-platform/jobs")) > 1,
        lambda: world.double.quota.update({"count/jobs.batch": 9, "pods": 0}),
    )
    pods = world.after(lambda: any("exceeded quota" in line for line in world.heard), world.double.quota.clear)
    node = world.after(
        lambda: any("Unschedulable" in line for line in world.heard),
        lambda: world.double.kubelet.add_node("gpu", gpus=1),
    )
    assert np.array_equal(world.fit(world.launcher()).predict(X), here())
    for thread in (jobs, pods, node):
        thread.join()
    assert world.pods()[0]["spec"]["nodeName"] == "gpu"


def test_pods_that_find_no_node_in_time_fail_the_try_with_the_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_launcher, "POLLED_EVERY", 0.5)
    world.double.kubelet.limit_node("node-0", cpu="0", memory="0")
    world.template = {"containers": [{"name": "dagster", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}
    launcher = world.launcher()
    launcher.start_timeout = 2.0
    with pytest.raises(
        WorkloadError, match=r"did not start within 2 s \(resources.start_timeout\): .*Insufficient cpu"
    ):
        world.fit(launcher)
    assert world.pods() == []


def test_errors_of_the_api_that_pass_are_waited_out(world: World) -> None:
    for status, method, path in ((429, "POST", "/jobs"), (500, "GET", "/jobs"), (503, "GET", "/pods")):
        world.double.fail(status, times=2, method=method, path=path)
    assert np.array_equal(world.fit(world.launcher()).predict(X), here())
    assert not any(fault.times for fault in world.double.faults)


def test_api_that_is_away_meanwhile_does_not_stop_a_training(world: World) -> None:
    def away(seconds: float) -> None:
        world.double.is_down = True
        time.sleep(seconds)
        world.double.is_down = False

    threads = [world.after(lambda: True, lambda: away(2)), world.after(world.has_checkpoint, lambda: away(5))]
    epochs: list[int] = []
    params = {**PARAMS, "epochs": 40}
    fitted = world.fit(world.launcher(), params, on_epoch=lambda epoch, figures: epochs.append(epoch))
    for thread in threads:
        thread.join()
    assert np.array_equal(fitted.predict(X), here(params))
    assert epochs == [*range(1, 41)], "no figure is lost or told twice"


def test_api_that_stays_away_fails_the_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "OUTAGE", 1.0)
    world.double.is_down = True
    with pytest.raises(WorkloadError, match="the Kubernetes API does not answer"):
        world.fit(world.launcher())


def test_refusal_is_not_tried_again(world: World) -> None:
    world.double.fail(403)
    with pytest.raises(WorkloadError, match="the Kubernetes API said 403 Forbidden: the test wants a 403"):
        world.fit(world.launcher())


def test_pod_that_kubernetes_would_not_take_is_refused_with_the_field(world: World) -> None:
    world.template = {"tolerations": [{"keys": "wrong"}]}
    with pytest.raises(WorkloadError, match="422.*keys"):
        world.fit(world.launcher())
