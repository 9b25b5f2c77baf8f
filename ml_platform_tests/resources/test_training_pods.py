"""How a training's pods stand, by what Kubernetes and Kubeflow say; and what is asked of them."""

from datetime import date
from typing import Any

import kubernetes_validate
import pytest

from ml_platform.resources.launcher import Training
from ml_platform.resources.training_pods import LABEL, job, name_of, pytorch_job, service, standing

TRAINING = Training("fraud_detection", date(2018, 5, 31), 1, on_ranks=True, content="abc")
BASE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "train-x", "labels": {"app.kubernetes.io/part-of": "ml-platform"}},
    "spec": {
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 30,
        "template": {
            "metadata": {"name": "train-x", "labels": {"app.kubernetes.io/part-of": "ml-platform"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "dagster", "image": "i", "args": ["x"]}]},
        },
    },
}


def pod(phase: str = "Running", state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    container = {"name": "c", "state": state} if state else None
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {"phase": phase, "containerStatuses": [container] if container else None, **status},
    }


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    phase = "Failed" if code else "Succeeded"
    return pod(phase, {"terminated": {"exitCode": code, "reason": reason}})


def with_condition(kind: str, **more: Any) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": "True", **more}]}}


def waits(reason: str) -> dict[str, Any]:
    return pod("Pending", {"waiting": {"reason": reason, "message": "why"}})


DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
FAILED = with_condition("Failed", reason="BackoffLimitExceeded", message="limit reached")


@pytest.mark.parametrize(
    ("found", "pods", "state", "words"),
    [
        ({}, [], "waiting", "no pod is there yet"),
        ({}, [pod("Pending")], "waiting", "p is starting"),
        ({}, [pod("Pending", conditions=[UNSCHEDULABLE])], "waiting", "Unschedulable: 0/3 nodes"),
        ({}, [waits("ContainerCreating")], "waiting", "p is starting"),
        ({}, [waits("ErrImagePull")], "stuck", "p: ErrImagePull: why"),
        ({}, [waits("CreateContainerConfigError")], "stuck", "p: CreateContainerConfigError: why"),
        ({}, [pod()], "running", ""),
        (with_condition("Complete"), [ended(0)], "done", ""),
        (with_condition("SuccessCriteriaMet"), [ended(0)], "running", ""),
        (with_condition("Succeeded"), [ended(0)], "done", ""),
        (FAILED, [ended(1)], "failed", "p ended with 1"),
        (FAILED, [ended(137, "OOMKilled")], "failed", "p took more memory than its limit of 2Gi"),
        (FAILED, [ended(137)], "failed", "ended with 137 (killed; out of memory?)"),
        (FAILED, [ended(75)], "taken", "p was asked to stop"),
        (FAILED, [ended(143)], "taken", "p was asked to stop"),
        ({}, [pod(conditions=[DISRUPTED])], "taken", "p: preempted"),
        (FAILED, [{**ended(1), "status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}}], "taken", "p: disk"),
        (FAILED, [], "taken", "1 of 1 pods are gone: limit reached"),
        (with_condition("FailureTarget", reason="BackoffLimitExceeded"), [], "taken", "pods are gone"),
        (with_condition("Failed", reason="DeadlineExceeded", message="late"), [ended(143)], "late", "late"),
        (with_condition("Failed", reason="PodFailurePolicy", message="policy"), [pod()], "failed", "policy"),
        (None, [pod()], "taken", "somebody deleted it"),
    ],
)  # fmt: skip
def test_standing(found: dict[str, Any] | None, pods: list[dict[str, Any]], state: str, words: str) -> None:
    now = standing(found, pods)
    assert now.state == state
    assert words in now.words


def test_one_of_several_pods_that_is_gone_is_no_failure_of_the_others() -> None:
    assert standing(FAILED, [ended(1)], nodes=2).state == "taken"
    assert standing({}, [pod()], nodes=2).state == "waiting"


def test_name_is_that_of_the_fit_and_fits_into_a_host_name() -> None:
    names = {name_of(Training("m" * 60, date(2018, 5, day), fit, True)) for day in (1, 2) for fit in (1, "c1_003")}
    assert len(names) == 4
    assert all(len(f"{name}-63") <= 63 and name == name.lower() and "_" not in name for name in names)
    assert name_of(TRAINING) == name_of(Training("fraud_detection", date(2018, 5, 31), 1, False, "other"))


def test_job_and_service_are_what_kubernetes_expects() -> None:
    made = job(BASE, TRAINING, nodes=2, processes=4)
    kubernetes_validate.validate(made, "1.36", strict=True)
    assert (made["spec"]["completions"], made["spec"]["completionMode"], made["spec"]["backoffLimit"]) == (
        2,
        "Indexed",
        0,
    )
    assert (made["spec"]["activeDeadlineSeconds"], made["spec"]["ttlSecondsAfterFinished"]) == (60, 30)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["command"][-6:] == ["--processes", "4", "--nodes", "2", "--master", "train-x-0.train-x"]
    assert made["spec"]["template"]["metadata"]["labels"][LABEL] == "train-x"
    assert made["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ml-platform"
    owner = {**made, "metadata": {**made["metadata"], "uid": "u"}}
    kubernetes_validate.validate(service("train-x", owner), "1.36", strict=True)


def test_pytorch_job_has_a_master_and_workers_and_leaves_the_meeting_to_the_operator() -> None:
    made = pytorch_job(BASE, TRAINING, nodes=3, processes=8)
    replicas = made["spec"]["pytorchReplicaSpecs"]
    assert {role: one["replicas"] for role, one in replicas.items()} == {"Master": 1, "Worker": 2}
    (container,) = replicas["Worker"]["template"]["spec"]["containers"]
    assert container["name"] == "pytorch"
    assert "--master" not in container["command"]
    policy = made["spec"]["runPolicy"]
    assert (policy["activeDeadlineSeconds"], policy["ttlSecondsAfterFinished"]) == (60, 30)
    assert "Worker" not in pytorch_job(BASE, TRAINING, nodes=1, processes=8)["spec"]["pytorchReplicaSpecs"]
