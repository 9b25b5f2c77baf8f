"""The objects of a Kubernetes namespace as plain data, over a client that is patient."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_platform.core.errors import WorkloadError
from ml_platform.resources import training_pods
from ml_platform.resources.training_pods import KINDS, LABEL, Kind

OUTAGE = 300.0  # seconds that the API may be away
PASSING = (429, 500, 502, 503, 504)


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or "")[:300]


class Namespace:
    """The objects of a namespace as plain data, over a client that is patient with the API server."""

    def __init__(self, client: Any, name: str, sleep: Callable[[float], None] = time.sleep) -> None:
        from kubernetes.client import CoreV1Api, CustomObjectsApi

        self.name = name
        self.core: Any = CoreV1Api(client)
        self.objects: Any = CustomObjectsApi(client)  # which takes Jobs as well, as plain data
        self._sleep = sleep

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        found = self._patiently(
            lambda: self.objects.get_namespaced_custom_object(*self._path(kind), name), absent=(404,)
        )
        return found or None

    def create(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """None if there is one of this name already."""
        return self._patiently(
            lambda: self.objects.create_namespaced_custom_object(*self._path(kind), body), absent=(409,)
        )

    def own(self, kind: Kind, name: str, owners: list[dict[str, str]]) -> None:
        """Tie it to its owners."""
        patch = {"metadata": {"ownerReferences": owners}}
        self._patiently(
            lambda: self.objects.patch_namespaced_custom_object(*self._path(kind), name, patch), absent=(404,)
        )

    def delete(self, kind: Kind, name: str) -> None:
        """With its pods, which get SIGTERM."""
        self._patiently(
            lambda: self.objects.delete_namespaced_custom_object(
                *self._path(kind), name, propagation_policy="Background"
            ),
            absent=(404,),
        )

    def put_service(self, name: str, owner: Mapping[str, Any]) -> None:
        """Create a training's, in the place of one that belongs to another owner and would go with that."""
        body = training_pods.service(name, owner)
        while self._patiently(lambda: self.core.create_namespaced_service(self.name, body), absent=(409,)) is None:
            there = self._patiently(
                lambda: json.loads(self.core.read_namespaced_service(name, self.name, _preload_content=False).data),
                absent=(404,),
            )
            if there and training_pods.belongs(there, owner):
                return
            self._patiently(lambda: self.core.delete_namespaced_service(name, self.name), absent=(404,))

    def wait_until_gone(self, kind: Kind, name: str, seconds: float = 30.0) -> None:
        """Returns when it is gone, or when the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.get(kind, name):
            time.sleep(0.3)

    def training(self, kind: Kind, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """A training's Job, and the pods that are its own, not those of one before that had its name.

        The pods are read first: then the Job knows of their end, and of pods that are gone, if anything does.
        """
        pods, owner = self.pods(name), self.get(kind, name)
        return owner, [pod for pod in pods if owner is None or training_pods.belongs(pod, owner)]

    def pods(self, name: str) -> list[dict[str, Any]]:
        """All of a training's name."""
        return self.pods_with({LABEL: name})

    def pods_with(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        selector = ",".join(f"{label}={value}" for label, value in labels.items())
        listed = self._patiently(
            lambda: json.loads(
                self.core.list_namespaced_pod(self.name, label_selector=selector, _preload_content=False).data
            )
        )
        return listed["items"]

    def newest_job_with(self, labels: Mapping[str, str]) -> dict[str, Any] | None:
        selector = ",".join(f"{label}={value}" for label, value in labels.items())
        path = self._path("job")
        listed = self._patiently(lambda: self.objects.list_namespaced_custom_object(*path, label_selector=selector))
        return max(listed["items"], key=lambda job: job["metadata"]["creationTimestamp"], default=None)

    def pod(self, name: str) -> dict[str, Any] | None:
        return self._patiently(
            lambda: json.loads(self.core.read_namespaced_pod(name, self.name, _preload_content=False).data),
            absent=(404,),
        )

    def complaints(self, name: str) -> list[str]:
        """What warnings about an object say, the newest last."""
        listed = self._patiently(
            lambda: json.loads(
                self.core.list_namespaced_event(
                    self.name, field_selector=f"involvedObject.name={name},type=Warning", _preload_content=False
                ).data
            )
        )
        return [f"{event.get('reason')}: {event.get('message')}" for event in listed["items"]]

    def _path(self, kind: Kind) -> tuple[str, str, str, str]:
        group, version, plural = KINDS[kind].split("/")
        return group, version, self.name, plural

    def _patiently(self, call: Callable[[], Any], absent: Sequence[int] = ()) -> Any:
        """The answer of the API server; None where its status is one of `absent`.

        Raises:
            WorkloadError: if it refuses, or has not answered for too long.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        began, pause = time.monotonic(), 1.0
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status in absent:
                    return None
                problem = f"the Kubernetes API said {error.status} {error.reason}: {_message(error)}"
                # A quota is a refusal that passes.
                if error.status not in PASSING and not (error.status == 403 and "quota" in problem):
                    raise WorkloadError(f"namespace {self.name}", problem, "see docs/cluster.md, Access") from error
            except HTTPError as error:
                problem = f"the Kubernetes API does not answer: {error}"
            if time.monotonic() - began > OUTAGE:
                raise WorkloadError(f"namespace {self.name}", problem, "it is tried again, from its last checkpoint")
            self._sleep(pause)
            pause = min(2 * pause, 15.0)
