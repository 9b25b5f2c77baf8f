"""Pods that fit a model together, as Kubernetes sees them: what is asked for, and what became of it. Plain data, no API."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ml_platform.core import digest
from ml_platform.resources.launcher import EX_TEMPFAIL, Training

Object = Mapping[str, Any]

LABEL = "ml-platform/training"  # of every pod: the name that Job, service and pods share
ORDERED = "ml-platform/training-job"  # annotation: digest of what is fitted
PORT = 29500
KINDS = {"job": "batch/v1/jobs", "pytorchjob": "kubeflow.org/v1/pytorchjobs"}
Kind = Literal["job", "pytorchjob"]
# What the kubelet says while it waits for something that does not come by itself.
STUCK = (
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
)  # fmt: skip
# A pod that the cluster took away, in the words of kubelet, scheduler and node lifecycle controller.
TAKEN = ("Evicted", "Preempting", "Preempted", "NodeLost", "Shutdown", "NodeShutdown", "Terminated", "NodeAffinity")
SIGKILLED, SIGTERMED = 137, 143


# --- what is asked for ------------------------------------------------------------------------------------------------


def name_of(training: Training) -> str:
    """The same for each try, so that a try finds what the one before has left. With `-<node>` it is a host name."""
    slug = re.sub("[^a-z0-9]+", "-", f"{training.model}-{training.fit}".lower()).strip("-")
    return f"train-{slug[:36].rstrip('-')}-{digest.of_json([training.model, training.day, training.fit])[:10]}"


def job(base: Object, training: Training, nodes: int, processes: int) -> dict[str, Any]:
    """An indexed Job whose pods find each other by their host names; `base` is a Job with the pod as it is to be."""
    name = base["metadata"]["name"]
    template = _template(base, _arguments(training, nodes, processes, f"{name}-0.{name}"))
    template["spec"] |= {"subdomain": name} if nodes > 1 else {}
    spec = {**base["spec"], "template": template, "backoffLimit": 0}
    spec |= {"completions": nodes, "parallelism": nodes, "completionMode": "Indexed"}
    return {**base, "metadata": _metadata(base, training), "spec": spec}


def pytorch_job(base: Object, training: Training, nodes: int, processes: int) -> dict[str, Any]:
    """The same as a PyTorchJob of Kubeflow's training operator, which tells the pods of each other."""
    template = _template(base, _arguments(training, nodes, processes, None))
    template["spec"]["containers"][0]["name"] = "pytorch"  # the operator looks for it
    kept = {
        name: base["spec"][name]
        for name in ("activeDeadlineSeconds", "ttlSecondsAfterFinished")
        if name in base["spec"]
    }
    replicas = {"Master": 1, "Worker": nodes - 1}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(base, training),
        "spec": {
            "runPolicy": {**kept, "backoffLimit": 0, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": {
                role: {"replicas": count, "restartPolicy": "Never", "template": template}
                for role, count in replicas.items()
                if count
            },
        },
    }


def service(name: str, owner: Object) -> dict[str, Any]:
    """Gives the pods of a Job host names, from before they are ready; it goes when the Job goes."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {LABEL: name}, "ownerReferences": [reference_to(owner)]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL: name},
            "ports": [{"name": "meeting", "port": PORT}],
        },
    }


def reference_to(owner: Object) -> dict[str, str]:
    """For `ownerReferences`: what has it goes when the owner goes."""
    named = {key: owner["metadata"][key] for key in ("name", "uid")}
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], **named}


def belongs(thing: Object, owner: Object) -> bool:
    """Whether it was made for this very owner, and not for another of the same name."""
    return owner["metadata"]["uid"] in [one["uid"] for one in thing["metadata"].get("ownerReferences") or ()]


def _arguments(training: Training, nodes: int, processes: int, master: str | None) -> list[str]:
    if not training.on_ranks:
        return training.command()
    together = ["--nodes", nodes, *(["--master", master] if master else [])] if nodes > 1 else []
    return training.command("--processes", processes, *together)


def _template(base: Object, arguments: Sequence[str]) -> dict[str, Any]:
    given, name = base["spec"]["template"], base["metadata"]["name"]
    container, *others = given["spec"]["containers"]
    # Not as `args`: an image may have an entry point of its own.
    container = {**container, "command": ["python", *arguments], "args": []}
    labels = {**given["metadata"].get("labels", {}), LABEL: name}
    spec = {**given["spec"], "restartPolicy": "Never", "containers": [container, *others]}
    spec["automountServiceAccountToken"] = False  # fitting asks nothing of the cluster
    return {"metadata": {"labels": labels}, "spec": spec}


def _metadata(base: Object, training: Training) -> dict[str, Any]:
    given = base["metadata"]
    labels = {**given.get("labels", {}), LABEL: given["name"]}
    return {**given, "labels": labels, "annotations": {**given.get("annotations", {}), ORDERED: training.content}}


# --- what became of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """How a training's pods stand. `words` say more; those of `waiting` are for people, until the pods run.

    stuck: a pod waits for something that does not come by itself.   taken: the cluster took a pod away.
    late: the deadline is over.
    """

    state: Literal["waiting", "running", "done", "stuck", "taken", "late", "failed"]
    words: str = ""


def standing(found: Object | None, pods: Sequence[Object], nodes: int = 1) -> Standing:
    """Of a Job or PyTorchJob of `nodes` pods (None: there is none any more), by those of its pods that are still there."""
    if found is None:
        return Standing("taken", "somebody deleted it")
    conditions = {
        one["type"]: one for one in found.get("status", {}).get("conditions") or () if one["status"] == "True"
    }
    if {"Complete", "Succeeded"} & conditions.keys():
        return Standing("done")
    over = conditions.get("Failed") or conditions.get("FailureTarget")
    if over and over.get("reason") == "DeadlineExceeded":
        return Standing("late", over.get("message", ""))
    if taken := [words for pod in pods for words in _taken(pod)]:
        return Standing("taken", "; ".join(taken))
    if over and len(pods) < nodes:
        return Standing("taken", f"{nodes - len(pods)} of {nodes} pods are gone: {over.get('message', '')}")
    ended = [(pod, code, reason) for pod in pods for code, reason in _exits(pod) if code]
    if ended and all(code in (EX_TEMPFAIL, SIGTERMED) for _, code, _ in ended):
        return Standing("taken", f"{_name(ended[0][0])} was asked to stop")
    if ended:
        return Standing("failed", "; ".join(_ended(*one) for one in ended))
    if over and (going := [_name(pod) for pod in pods if "deletionTimestamp" in pod["metadata"]]):
        return Standing("taken", f"{going[0]} was told to go")
    if over:
        return Standing("failed", over.get("message") or over.get("reason") or "no reason is given")
    if stuck := [words for pod in pods for words in _stuck(pod)]:
        return Standing("stuck", "; ".join(stuck))
    if len(pods) == nodes and all(pod["status"].get("phase") in ("Running", "Succeeded") for pod in pods):
        return Standing("running")
    return Standing("waiting", "; ".join(words for pod in pods for words in _waiting(pod)) or "no pod is there yet")


def _name(pod: Object) -> str:
    return pod["metadata"]["name"]


def _taken(pod: Object) -> Iterator[str]:
    status = pod["status"]
    for one in status.get("conditions") or ():
        if one["type"] == "DisruptionTarget" and one["status"] == "True":
            yield f"{_name(pod)}: {one.get('message') or one.get('reason')}"
            return
    if status.get("phase") == "Failed" and status.get("reason") in TAKEN:
        yield f"{_name(pod)}: {status.get('message') or status['reason']}"


def _exits(pod: Object) -> Iterator[tuple[int, str]]:
    """Exit code and reason of containers that have ended; those of a pod without any, if it has failed as a whole."""
    ended = [one["state"]["terminated"] for one in _containers(pod) if one.get("state", {}).get("terminated")]
    yield from ((one.get("exitCode", 0), one.get("reason") or "") for one in ended)
    if not ended and pod["status"].get("phase") == "Failed":
        yield 1, pod["status"].get("message") or pod["status"].get("reason") or "the pod failed"


def _ended(pod: Object, code: int, reason: str) -> str:
    if reason == "OOMKilled":
        limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "none")
        return f"{_name(pod)} took more memory than its limit of {limit}"
    killed = " (killed; out of memory?)" if code == SIGKILLED else ""
    return f"{_name(pod)} ended with {code}{killed}{f', {reason}' if reason not in ('', 'Error') else ''}"


def _stuck(pod: Object) -> Iterator[str]:
    for one in _containers(pod):
        waits = one.get("state", {}).get("waiting") or {}
        if waits.get("reason") in STUCK:
            yield f"{_name(pod)}: {waits['reason']}: {waits.get('message', '')}".rstrip(": ")


def _waiting(pod: Object) -> Iterator[str]:
    for one in pod["status"].get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            yield f"{_name(pod)}: {one.get('reason')}: {one.get('message', '')}".rstrip(": ")
            return
    if pod["status"].get("phase") == "Pending":
        yield f"{_name(pod)} is starting"


def _containers(pod: Object) -> Iterable[Object]:
    status = pod["status"]
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
