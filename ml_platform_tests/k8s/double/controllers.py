"""What makes pods: Jobs, as Kubernetes' own controller does, and PyTorchJobs, as Kubeflow's operator does; and who cleans up."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ml_platform.core.digest import of_json
from ml_platform_tests.k8s.double.kubelet import Kubelet, event
from ml_platform_tests.k8s.double.store import Object, Store, now
from ml_platform_tests.processes import free_port

JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"
KUBEFLOW_NAME = "training.kubeflow.org/job-name"
TEMPLATE = "pod-template-hash"
OWNED = ("jobs", "pytorchjobs", "deployments", "pods", "services")


class Controllers:
    """Looks at everything again and again, as controllers do. `pods_left` says how many more pods a quota allows."""

    def __init__(self, store: Store, kubelet: Kubelet, pods_left: Callable[[], int]) -> None:
        self.store = store
        self.kubelet = kubelet
        self.pods_left = pods_left
        self.elsewhere: frozenset[str] = frozenset()  # deployments that are ready, and have no pods here
        self.closing = threading.Event()
        self._ports: dict[str, int] = {}  # uid of a job -> where its first pod listens
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._thread.join(10)

    def _work(self) -> None:
        version = 0
        while not self.closing.is_set():
            # Deadlines pass without a change; and a change is looked at a moment later, together with what it brings about.
            version = self.store.wait(version, 0.5)
            for job in self.store.list("jobs"):
                self._job(job)
            for job in self.store.list("pytorchjobs"):
                self._pytorch_job(job)
            for deployment in self.store.list("deployments"):
                self._deployment(deployment)
            self._collect()
            time.sleep(0.05)

    # --- Jobs ---------------------------------------------------------------------------------------------------------

    def _job(self, job: Object) -> None:
        pods = self._pods_of(job)
        spec, status = job["spec"], job.get("status", {})
        if "deletionTimestamp" in job["metadata"]:
            self._delete("jobs", job, pods)
            return
        if status.get("conditions"):
            self._expire("jobs", job, spec.get("ttlSecondsAfterFinished"), status["conditions"])
            return
        wanted = spec.get("completions", 1)
        # A pod that was deleted before it ended has failed, as one that ended with an error.
        gone = [name for name in status.get("known", []) if name not in {one["metadata"]["name"] for one in pods}]
        phases = ["Failed" if _counts_as_failed(one) else one["status"].get("phase") for one in pods]
        failed = phases.count("Failed") + len(gone)
        succeeded = phases.count("Succeeded")
        counts: dict[str, Any] = {"active": len(pods) - phases.count("Failed") - succeeded, "failed": failed}
        counts |= {"succeeded": succeeded, "startTime": status.get("startTime") or now()}
        if failed > spec.get("backoffLimit", 6):
            over = _condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            self._end(job, counts, over, pods)
        elif _age(counts["startTime"]) > spec.get("activeDeadlineSeconds", float("inf")):
            over = _condition("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            self._end(job, counts, over, pods)
        elif succeeded >= wanted:
            self._end(job, {**counts, "completionTime": now()}, _condition("Complete"), [])
        else:
            self._make(job, pods, wanted)
            names = [*status.get("known", []), *(one["metadata"]["name"] for one in self._pods_of(job))]
            self._status("jobs", job, {**counts, "known": list(dict.fromkeys(names))})

    def _make(self, job: Object, pods: list[Object], wanted: int) -> None:
        """The pods that are missing; one that failed and may fail is replaced by the next."""
        indexed = job["spec"].get("completionMode") == "Indexed"
        taken = {one["metadata"]["annotations"].get(INDEX) for one in pods if one["status"].get("phase") != "Failed"}
        for index in range(wanted):
            if str(index) in taken:
                continue
            name = (
                f"{job['metadata']['name']}-{index}-{_suffix()}"
                if indexed
                else f"{job['metadata']['name']}-{_suffix()}"
            )
            environment = []
            if indexed:
                environment = [{"name": "JOB_COMPLETION_INDEX", "value": str(index)}]
                environment.append({"name": "MASTER_PORT", "value": str(self._port(job))})
            labels = {JOB_NAME: job["metadata"]["name"], "job-name": job["metadata"]["name"]}
            self._pod(job, job["spec"]["template"], name, labels, environment, {INDEX: str(index)})

    def _end(self, job: Object, counts: dict[str, Any], condition: Object, pods: list[Object]) -> None:
        known = job.get("status", {}).get("known", [])
        self._status("jobs", job, {**counts, "known": known, "conditions": [condition]})
        for pod in pods:
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                self.kubelet.delete(pod)

    # --- PyTorchJobs --------------------------------------------------------------------------------------------------

    def _pytorch_job(self, job: Object) -> None:
        pods, spec = self._pods_of(job), job["spec"]
        conditions = {one["type"]: one for one in job.get("status", {}).get("conditions", [])}
        if "deletionTimestamp" in job["metadata"]:
            self._delete("pytorchjobs", job, pods)
            return
        if {"Succeeded", "Failed"} & conditions.keys():
            policy = spec.get("runPolicy", {})
            self._expire("pytorchjobs", job, policy.get("ttlSecondsAfterFinished"), list(conditions.values()))
            return
        replicas = {role.lower(): replica for role, replica in spec["pytorchReplicaSpecs"].items()}
        size = sum(replica.get("replicas", 1) for replica in replicas.values())
        master = f"{job['metadata']['name']}-master-0"
        rank = 0
        for role, replica in replicas.items():
            for index in range(replica.get("replicas", 1)):
                name = f"{job['metadata']['name']}-{role}-{index}"
                if "known" not in job.get("status", {}):
                    # Every pod is this machine, so that its own name would be of no use.
                    told = {
                        "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": self._port(job),
                        "WORLD_SIZE": size,
                        "RANK": rank,
                    }
                    told |= {"PET_NNODES": size, "PET_NODE_RANK": rank, "PET_MASTER_ADDR": master}
                    variables = [{"name": key, "value": str(value)} for key, value in told.items()]
                    labels = {KUBEFLOW_NAME: job["metadata"]["name"], "training.kubeflow.org/replica-type": role}
                    self._pod(job, replica["template"], name, labels, variables, {})
                rank += 1
        if "known" not in job.get("status", {}):
            self._status("pytorchjobs", job, {"known": True, "conditions": [_condition("Created")]})
            return
        phases = [one["status"].get("phase") for one in pods]
        if "Failed" in phases or len(pods) < size:
            self._end_pytorch(job, _condition("Failed", "PyTorchJobFailed", "a replica has failed"), pods)
        elif phases.count("Succeeded") == size:
            self._end_pytorch(job, _condition("Succeeded"), [])
        elif all(phase == "Running" for phase in phases) and "Running" not in conditions:
            self._status("pytorchjobs", job, {"conditions": [_condition("Created"), _condition("Running")]})

    def _end_pytorch(self, job: Object, condition: Object, pods: list[Object]) -> None:
        self._status("pytorchjobs", job, {"conditions": [_condition("Created"), condition]})
        for pod in pods:
            if pod["status"].get("phase") == "Running":
                self.kubelet.delete(pod)

    # --- Deployments --------------------------------------------------------------------------------------------------

    def _deployment(self, deployment: Object) -> None:
        """One pod, always: all listen on this machine, so that the old one ends before the new one starts."""
        if deployment["metadata"]["name"] in self.elsewhere:
            self._rolled(deployment, 1, 1, 1)
            return
        pods, template = self._pods_of(deployment), deployment["spec"]["template"]
        wanted = of_json(template)[:10]
        for pod in pods:
            if pod["metadata"]["labels"][TEMPLATE] != wanted or pod["status"].get("phase") in ("Succeeded", "Failed"):
                self.kubelet.delete(pod)
        if not pods and deployment["spec"].get("replicas", 1):
            self._pod(deployment, template, f"{deployment['metadata']['name']}-{_suffix()}", {TEMPLATE: wanted}, [], {})
        updated = [one for one in pods if one["metadata"]["labels"][TEMPLATE] == wanted]
        self._rolled(deployment, len(pods), len(updated), sum(map(is_ready, updated)))

    def _rolled(self, deployment: Object, pods: int, updated: int, ready: int) -> None:
        counts = {"replicas": pods, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready}
        self._status(
            "deployments", deployment, {**counts, "observedGeneration": deployment["metadata"].get("generation", 0)}
        )

    # --- both ---------------------------------------------------------------------------------------------------------

    def _pods_of(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return self.store.list(
            "pods", lambda one: any(ref["uid"] == uid for ref in one["metadata"].get("ownerReferences", []))
        )

    def _pod(
        self, owner: Object, template: Object, name: str, labels: dict[str, str], variables: list[Object], notes: Object
    ) -> None:
        if self.pods_left() < 1:
            if not self.store.list("events", lambda one: one["involvedObject"]["uid"] == owner["metadata"]["uid"]):
                event(
                    self.store, owner, "FailedCreate", f'Error creating: pods "{name}" is forbidden: exceeded quota: q'
                )
            return
        container, *others = template["spec"]["containers"]
        container = {**container, "env": [*container.get("env", []), *variables]}
        meta = template.get("metadata", {})
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {**meta.get("labels", {}), **labels},
                "annotations": {**meta.get("annotations", {}), **notes},
                "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"], "controller": True}],
            },
            "spec": {**template["spec"], "containers": [container, *others]},
            "status": {"phase": "Pending"},
        }
        if made := self.store.create("pods", owner["metadata"]["namespace"], body):
            self.kubelet.start(made)

    def _status(self, plural: str, known: Object, status: Object) -> None:
        self.store.change(plural, known, lambda one: one.setdefault("status", {}).update(status))

    def _port(self, job: Object) -> int:
        """In a network of its own every job could have the same."""
        return self._ports.setdefault(job["metadata"]["uid"], free_port())

    def _expire(self, plural: str, job: Object, ttl: int | None, conditions: list[Object]) -> None:
        if ttl is not None and _age(conditions[-1]["lastTransitionTime"]) > ttl:
            self.store.change(plural, job, lambda one: one["metadata"].setdefault("deletionTimestamp", now()))

    def _delete(self, plural: str, job: Object, pods: list[Object]) -> None:
        for pod in pods:
            self.kubelet.delete(pod)
        self.store.remove(plural, job)

    def _collect(self) -> None:
        """What had owners, and has none that is still there, goes."""
        there = {one["metadata"]["uid"] for plural in OWNED for one in self.store.list(plural)}
        for plural in OWNED:
            for one in self.store.list(plural):
                owners = one["metadata"].get("ownerReferences", [])
                if owners and not any(owner["uid"] in there for owner in owners):
                    if plural == "pods":
                        self.kubelet.delete(one)
                    elif plural == "services":
                        self.store.remove(plural, one)
                    else:
                        self.store.change(plural, one, lambda it: it["metadata"].setdefault("deletionTimestamp", now()))


def is_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _counts_as_failed(pod: Object) -> bool:
    """Of a Job: also if it was told to go and has not yet ended."""
    phase = pod["status"].get("phase")
    return phase == "Failed" or ("deletionTimestamp" in pod["metadata"] and phase != "Succeeded")


def _condition(kind: str, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()}


def _age(moment: str) -> float:
    began = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (datetime.now(UTC) - began).total_seconds()


def _suffix() -> str:
    return f"{time.monotonic_ns():x}"[-5:]
