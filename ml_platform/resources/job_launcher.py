"""Training in pods of its own on Kubernetes: a Job or PyTorchJob is started, watched to its end, and taken away when it is to stop.

The cluster may answer late, with errors, or not at all for a while: that is waited out. What ends a training is said in the words
of `standing` (training_pods.py); what a fit resulted in lies in the lake, so that nothing depends on a log that was read.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ml_platform.core.errors import Interrupted, TrainingError, WorkloadError
from ml_platform.resources import training_pods
from ml_platform.resources.launcher import AGAIN, Hear, Training
from ml_platform.resources.namespace import Namespace
from ml_platform.resources.training_pods import LABEL, ORDERED, Kind, Standing

POLLED_EVERY, SOON = 10.0, 0.5  # seconds; a change of a pod is seen at once
STUCK_FOR = 120.0  # seconds in which a registry or a secret may come back
TOLD_EVERY = 60.0  # seconds between lines that say that it still waits
DRAINED = 10.0  # seconds for the last lines of the pods' logs
GONE_WITHIN = 18.0  # seconds from the wish to stop; the step itself has 20 (stopping.py)


class JobLauncher:
    """A training as a Job or PyTorchJob of `nodes` pods with `processes` each, which may wait `start_timeout` seconds to start.

    `base` gives, for a name, a Job as plain data, whose pod is as the training's pods are to be. `owner` is what the training
    goes with when that goes, if there is such a thing.
    """

    def __init__(
        self,
        namespace: Namespace,
        kind: Kind,
        base: Callable[[str], dict[str, Any]],
        nodes: int,
        processes: int,
        start_timeout: float = 3_600.0,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self.namespace = namespace
        self.kind: Kind = kind
        self.base = base
        self.nodes = nodes
        self.processes = processes
        self.start_timeout = start_timeout
        self.owners = [training_pods.reference_to(owner)] if owner else []

    def takes(self, on_ranks: bool) -> bool:
        return True

    def run(self, training: Training, hear: Hear, interrupted: Callable[[], bool]) -> None:
        """See `Launcher`.

        Raises:
            TrainingError: if it took longer than its deadline.
        """
        name = training_pods.name_of(training)
        self._start(name, training, hear)
        pods = _Pods(self.namespace, name)
        try:
            end = self._end(name, pods, training, hear, interrupted)
        except Interrupted:
            pods.close(hear)
            raise
        except BaseException:
            pods.closing.set()
            self._remove(name)
            raise
        pods.close(hear)
        if end.state == "done":
            return
        if end.state != "failed":  # those that failed stay for whoever wants to look, as long as the cluster keeps them
            self._remove(name)
        if end.state == "taken":
            raise Interrupted(training.subject, f"its pods were taken away: {end.words}", AGAIN)
        if end.state == "late":
            raise TrainingError(training.subject, "its pods have reached their deadline", "raise resources.timeout")
        raise WorkloadError(training.subject, end.words, f"kubectl describe {self.kind} {name}; it is tried again")

    def _start(self, name: str, training: Training, hear: Hear) -> None:
        """Start it, or go on watching what a try before has started and could not wait for."""
        make = training_pods.job if self.kind == "job" else training_pods.pytorch_job
        nodes = self.nodes if training.on_ranks else 1
        body = make(self.base(name), training, nodes, self.processes)
        body["metadata"]["ownerReferences"] = self.owners
        while True:
            there = self.namespace.create(self.kind, body)
            if there:
                hear(f"started {self.kind} {name}: {nodes} pods with {self.processes} processes each")
                break
            there, pods = self.namespace.training(self.kind, name)
            if there is None:
                continue
            state = training_pods.standing(there, pods).state
            same = there["metadata"].get("annotations", {}).get(ORDERED) == training.content
            if same and state in ("waiting", "running") and "deletionTimestamp" not in there["metadata"]:
                hear(f"{self.kind} {name} is there already: watching it")
                self.namespace.own(self.kind, name, self.owners)
                break
            self._remove(name)
        if self.kind == "job" and nodes > 1:
            self.namespace.put_service(name, there)

    def _end(
        self, name: str, pods: "_Pods", training: Training, hear: Hear, interrupted: Callable[[], bool]
    ) -> Standing:
        """Watch it until it has ended, or never will."""
        began = stuck_since = time.monotonic()
        told, said = began - TOLD_EVERY, ""
        nodes = self.nodes if training.on_ranks else 1
        while True:
            if interrupted():
                self._remove(name)
                raise Interrupted(training.subject, "was asked to stop", AGAIN)
            owner, there = self.namespace.training(self.kind, name)
            pods.follow(there)
            now_is = training_pods.standing(owner, there, nodes)
            now = time.monotonic()
            if now_is.state in ("done", "taken", "late", "failed"):
                return now_is
            if now_is.state == "running":
                began = now
            if now_is.state != "stuck":
                stuck_since = now
            elif now - stuck_since > STUCK_FOR:
                return now_is
            if now_is.state in ("waiting", "stuck") and (now_is.words != said or now - told > TOLD_EVERY):
                said, told = now_is.words, now
                hear("; ".join([f"waiting: {said}", *self.namespace.complaints(name)[-1:]]))
            if now - began > self.start_timeout:
                words = f"its pods did not start within {self.start_timeout:.0f} s (resources.start_timeout): {now_is.words}"
                return Standing("stuck", words)
            # The controller says a moment later than its pods that it is over.
            over = any(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in there)
            pods.listen(hear, interrupted, SOON if over else POLLED_EVERY)

    def _remove(self, name: str) -> None:
        """Delete it, and wait until its pods are gone: they save what they have."""
        self.namespace.delete(self.kind, name)
        until = time.monotonic() + GONE_WITHIN
        while time.monotonic() < until and (self.namespace.pods(name) or self.namespace.get(self.kind, name)):
            time.sleep(0.3)


class _Pods:
    """The logs of a training's pods, and whether anything about the pods has changed: a thread for each, one queue."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.closing = threading.Event()
        self.heard: queue.Queue[str | None] = queue.Queue()  # a line, or None: something has changed
        self.followers: dict[str, threading.Thread] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def follow(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Read the logs of those that have begun."""
        for pod in pods:
            uid, begun = pod["metadata"]["uid"], pod["status"].get("phase") in ("Running", "Succeeded", "Failed")
            if begun and uid not in self.followers:
                self.followers[uid] = threading.Thread(target=self._follow, args=(pod,), daemon=True)
                self.followers[uid].start()

    def listen(self, hear: Hear, interrupted: Callable[[], bool], seconds: float) -> None:
        """Pass lines on until something has changed, the time is over, or the training is to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not interrupted():
            try:
                line = self.heard.get(timeout=0.3)
            except queue.Empty:
                continue
            if line is None:
                return
            hear(line)

    def close(self, hear: Hear) -> None:
        """Pass on the last lines. Only what is for people may be lost: the outcome is in the lake."""
        self.closing.set()
        until = time.monotonic() + DRAINED
        for follower in self.followers.values():
            follower.join(max(0.0, until - time.monotonic()))
        while not self.heard.empty():
            if (line := self.heard.get()) is not None:
                hear(line)

    def _watch(self) -> None:
        from kubernetes.client.exceptions import ApiException
        from kubernetes.watch import Watch
        from urllib3.exceptions import HTTPError

        while not self.closing.is_set():
            with suppress(ApiException, HTTPError):
                for _ in Watch().stream(
                    self.namespace.core.list_namespaced_pod,
                    self.namespace.name,
                    label_selector=f"{LABEL}={self.name}",
                    timeout_seconds=60,
                ):
                    self.heard.put(None)
            self.closing.wait(1)

    def _follow(self, pod: Mapping[str, Any]) -> None:
        """Read a pod's log to its end, over connections that break."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.watch import Watch
        from urllib3.exceptions import HTTPError

        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
        last = ""
        while True:
            over = self.closing.is_set() or self._has_ended(name)
            options = {"container": container, "timestamps": True, **_since(last)}
            with suppress(ApiException, HTTPError):
                for stamped in Watch().stream(
                    self.namespace.core.read_namespaced_pod_log, name, self.namespace.name, **options
                ):
                    stamp, _, line = str(stamped).partition(" ")
                    if stamp > last:
                        last = stamp
                        self.heard.put(line)
            if over:
                return
            self.closing.wait(1)

    def _has_ended(self, name: str) -> bool:
        with suppress(WorkloadError):
            pod = self.namespace.pod(name)
            return pod is None or pod["status"].get("phase") in ("Succeeded", "Failed")
        return False


def _since(stamp: str) -> dict[str, int]:
    """The part of a log that begins at a moment, and a little before."""
    if not stamp:
        return {}
    moment = datetime.fromisoformat(stamp[:19]).replace(tzinfo=UTC)
    return {"since_seconds": math.ceil((datetime.now(UTC) - moment).total_seconds()) + 2}
