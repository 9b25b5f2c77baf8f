"""Pods as processes: onto a node that fits, with their variables, files and signals, and what becomes of them."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from ml_platform.core.spec.base import bytes_of
from ml_platform_tests.forks import Fork, Nursery
from ml_platform_tests.k8s.double.network import Network
from ml_platform_tests.k8s.double.store import Object, Store, now

ROOT = Path(__file__).parents[3]
GRACE = 30.0
GPU = "nvidia.com/gpu"
PATIENCE = 0.5  # seconds after which what waits for a change looks whether it is still wanted
Status = dict[str, Any]


class Kubelet:
    """Runs the pods of a store, a thread for each."""

    def __init__(self, store: Store, folder: Path, nursery: Nursery, environment: dict[str, str]) -> None:
        self.store = store
        self.nursery = nursery
        self.folder = folder
        self.environment = environment
        self.network = Network()
        self.missing_images: set[str] = set()
        self.processes: dict[str, Fork] = {}  # by uid of the pod
        self.closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def add_node(
        self, name: str, gpus: int = 0, labels: dict[str, str] | None = None, taints: tuple[str, ...] = ()
    ) -> None:
        """With the keys of its taints. It has room for any number of pods that ask for no GPU; see `limit_node`."""
        tainted = [{"key": key, "effect": "NoSchedule"} for key in taints]
        has = {GPU: str(gpus)} if gpus else {}
        self.store.create(
            "nodes",
            "",
            {
                "metadata": {"name": name, "labels": labels or {}},
                "spec": {"taints": tainted},
                "status": {"capacity": has},
            },
        )

    def limit_node(self, name: str, cpu: str, memory: str) -> None:
        """The room that it has for pods: what they request is counted against it."""
        (node,) = self.store.list("nodes", lambda one: one["metadata"]["name"] == name)
        self.store.change("nodes", node, lambda one: one["status"]["capacity"].update(cpu=cpu, memory=memory))

    def start(self, pod: Object) -> None:
        thread = threading.Thread(target=self._live, args=(pod,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        self.closing.set()
        for process in list(self.processes.values()):
            _kill(process)
        for thread in self._threads:
            thread.join(5)

    def log(self, pod: Object) -> Path:
        return self.folder / pod["metadata"]["uid"] / "log"

    def evict(self, pod: Object, message: str = "the node is going down") -> None:
        """As a drain or a spot node's end does: with a reason that is there afterwards, and time to stop."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": message,
        }
        self.store.change("pods", pod, lambda one: one["status"].setdefault("conditions", []).append(condition))
        self.delete(pod)

    def delete(self, pod: Object, grace: float | None = None) -> None:
        """Ask it to stop; it is gone when it has ended, after its grace at the latest."""
        seconds = pod["spec"].get("terminationGracePeriodSeconds", GRACE) if grace is None else grace

        def ask(one: Object) -> None:
            one["metadata"].setdefault("deletionTimestamp", now())
            one["metadata"]["deletionGracePeriodSeconds"] = seconds

        self.store.change("pods", pod, ask)

    def kill(self, pod: Object) -> None:
        """kill -9 of its container."""
        _kill(self.processes[pod["metadata"]["uid"]])

    # --- the life of a pod --------------------------------------------------------------------------------------------

    def _live(self, pod: Object) -> None:
        if self._scheduled(pod) and self._pulled(pod):
            self._run(pod)
        version = 0
        while not self.closing.is_set() and (there := self.store.look("pods", pod)):
            if "deletionTimestamp" in there["metadata"]:
                self.store.remove("pods", pod)
                return
            version = self.store.wait(version, PATIENCE)

    def _wanted(self, pod: Object) -> bool:
        there = self.store.look("pods", pod)
        return not self.closing.is_set() and there is not None and "deletionTimestamp" not in there["metadata"]

    def _scheduled(self, pod: Object) -> str | None:
        """The name of the pod's node; None if it is to go before it has one."""
        told = False
        while self._wanted(pod):
            with self.store.changed:
                nodes = self.store.list("nodes")
                lacking = {one["metadata"]["name"]: _lacking(pod, one, self._taken(one)) for one in nodes}
                name = next((name for name, lacks in lacking.items() if not lacks), None)
                if name is not None:
                    self._status(pod, phase="Pending", conditions=[_condition("PodScheduled")])
                    self.store.change("pods", pod, partial(_put_onto, node=name))
                    return name
            if not told:
                told = True
                why = ", ".join(f"1 {lacks}" for lacks in lacking.values())
                words = f"0/{len(nodes)} nodes are available: {why}"
                failed = _condition("PodScheduled", "False", reason="Unschedulable", message=words)
                self._status(pod, phase="Pending", conditions=[failed])
                event(self.store, pod, "FailedScheduling", words)
            time.sleep(0.1)
        return None

    def _taken(self, node: Object) -> Counter[str]:
        """What the pods of a node have asked for."""
        over, name = ("Succeeded", "Failed"), node["metadata"]["name"]
        pods = self.store.list("pods", lambda one: one["spec"].get("nodeName") == name)
        return sum((asked(pod) for pod in pods if pod["status"].get("phase") not in over), Counter())

    def _pulled(self, pod: Object) -> bool:
        image, told = pod["spec"]["containers"][0]["image"], False
        while image in self.missing_images:
            if not self._wanted(pod):
                return False
            if not told:
                told = True
                words = f'Back-off pulling image "{image}"'
                event(self.store, pod, "Failed", f'Failed to pull image "{image}": not found')
                self._container(pod, {"waiting": {"reason": "ImagePullBackOff", "message": words}})
            time.sleep(0.1)
        return self._wanted(pod)

    def _run(self, pod: Object) -> None:
        place = self.folder / pod["metadata"]["uid"]
        place.mkdir(parents=True)
        try:
            command, environment = _container(pod, self.store, place, self.environment, self.network)
        except LookupError as error:
            words = {"reason": "CreateContainerConfigError", "message": str(error.args[0])}
            self._container(pod, {"waiting": words})
            return
        if (
            "command" not in pod["spec"]["containers"][0]
        ):  # the entry point of the platform's image; forks begin after it
            subprocess.run([ROOT / "k8s" / "images" / "reach", "true"], env=environment, check=False)
        with (place / "log").open("wb") as log:
            process = self.nursery.start(command, environment, place, subprocess.PIPE)
            self.processes[pod["metadata"]["uid"]] = process
            self._container(pod, {"running": {"startedAt": now()}}, phase="Running")
            threading.Thread(target=self._probe, args=(pod, process, environment), daemon=True).start()
            reader = threading.Thread(target=_stamp, args=(process, log), daemon=True)
            reader.start()
            self._until_it_ends(pod, process)
            _kill(process)  # nothing outlives the first process of a container
            reader.join(10)
        status = process.wait()
        code = status if status >= 0 else 128 - status
        reason = "Completed" if code == 0 else "Error"
        ended = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now()}}
        self._container(pod, ended, phase="Succeeded" if code == 0 else "Failed")

    def _probe(self, pod: Object, process: Fork, environment: dict[str, str]) -> None:
        """Say that the pod is ready once its probes, if it has some, say so."""
        container, app = pod["spec"]["containers"][0], pod["metadata"]["labels"].get("app", "")
        for probe in filter(None, (container.get("startupProbe"), container.get("readinessProbe"))):
            while process.poll() is None and not _succeeds(probe, container, app, environment, self.network):
                time.sleep(0.3)
        if process.poll() is None:
            self.store.change("pods", pod, lambda one: one["status"].update(conditions=[_condition("Ready")]))

    def _until_it_ends(self, pod: Object, process: Fork) -> None:
        deadline = None
        while process.poll() is None:
            there = self.store.look("pods", pod)
            asked = there is None or "deletionTimestamp" in there["metadata"]
            if asked and deadline is None:
                grace = there["metadata"]["deletionGracePeriodSeconds"] if there else 0
                deadline = time.monotonic() + grace
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                _kill(process)
            time.sleep(0.05)

    def _status(self, pod: Object, **fields: Any) -> None:
        self.store.change("pods", pod, lambda one: one["status"].update(fields))

    def _container(self, pod: Object, state: Status, **fields: Any) -> None:
        container = pod["spec"]["containers"][0]
        ready = "running" in state
        status = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        self._status(pod, containerStatuses=[{**status, "state": state, "ready": ready, "started": ready}], **fields)


def event(store: Store, about: Object, reason: str, message: str) -> None:
    """A warning about an object."""
    meta = about["metadata"]
    name = f"{meta['name']}.{time.monotonic_ns()}"
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "type": "Warning",
        "metadata": {"name": name},
        "involvedObject": {"kind": about["kind"], "name": meta["name"], "uid": meta["uid"]},
        "reason": reason,
        "message": message,
        "lastTimestamp": now(),
    }
    store.create("events", meta["namespace"], body)


def _condition(kind: str, status: str = "True", **more: str) -> Status:
    return {"type": kind, "status": status, **more}


def _put_onto(pod: Object, node: str) -> None:
    pod["spec"]["nodeName"] = node


def asked(pod: Object) -> Counter[str]:
    """The resources that a pod requests, in thousandths of a CPU, bytes and GPUs; a limit is a request where there is none."""
    total: Counter[str] = Counter()
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        for name, amount in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            total[name] += amount_of(name, amount)
    return total


def amount_of(resource: str, text: str) -> int:
    if resource == "cpu":
        return int(text[:-1]) if text.endswith("m") else round(1000 * float(text))
    return bytes_of(text) if resource == "memory" else int(text)


def _lacking(pod: Object, node: Object, taken: Counter[str]) -> str:
    """Why a pod cannot be on a node, in the scheduler's words; empty if it can."""
    spec, labels = pod["spec"], node["metadata"]["labels"]
    has = {GPU: "0", **node["status"]["capacity"]}
    for resource, amount in asked(pod).items():
        if resource in has and amount > amount_of(resource, has[resource]) - taken[resource]:
            return f"Insufficient {resource}"
    tolerated = {one.get("key") for one in spec.get("tolerations", [])}
    required = (
        spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    terms = [term["matchExpressions"] for term in required.get("nodeSelectorTerms", [])]
    if node["spec"].get("unschedulable"):
        return "node(s) were unschedulable"
    if not {one["key"] for one in node["spec"]["taints"]} <= tolerated:
        return "node(s) had untolerated taint(s)"
    of_type = not terms or any(all(labels.get(e["key"]) in e["values"] for e in term) for term in terms)
    if of_type and spec.get("nodeSelector", {}).items() <= labels.items():
        return ""
    return "node(s) didn't match Pod's node affinity/selector"


# --- a container as a process -----------------------------------------------------------------------------------------


def _succeeds(probe: Object, container: Object, app: str, environment: dict[str, str], network: Network) -> bool:
    if "exec" in probe:
        command = [network.own(app, word) for word in probe["exec"]["command"]]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode == 0
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    ask = probe.get("httpGet") or probe["tcpSocket"]
    port = network.own(app, str(ports.get(ask["port"], ask["port"])))
    try:
        if "tcpSocket" in probe:
            socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
            return True
        return httpx.get(f"http://127.0.0.1:{port}{ask['path']}", timeout=5).status_code < 400
    except (httpx.HTTPError, OSError):
        return False


def _container(
    pod: Object, store: Store, place: Path, environment: dict[str, str], network: Network
) -> tuple[list[str], dict[str, str]]:
    """Command and variables; mounted folders are folders in `place`, wherever a variable or argument names them.

    Raises:
        LookupError: if there is no such config map or secret.
    """
    container = pod["spec"]["containers"][0]
    mounted = _mounts(pod, container, store, place, network)
    app = pod["metadata"]["labels"].get("app", "")
    variables = {name: network.own(app, value) for name, value in _variables(pod, container, store)}

    def here(text: str) -> str:
        for path, folder in sorted(mounted.items(), key=lambda one: -len(one[0])):
            text = re.sub(rf"(?<![\w/.]){re.escape(path)}(?=/|$|[\s'\",])", str(folder), text)
        return network.here(text)

    def expanded(text: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)

    (place / "tmp").mkdir(exist_ok=True)
    base = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOSTNAME": pod["metadata"]["name"],
    }
    whole = {**base, **environment, **{name: here(value) for name, value in variables.items()}}
    whole |= {"TMPDIR": str(place / "tmp"), "HOME": str(place / "tmp")}
    command = [*container.get("command", []), *container.get("args", [])]
    return [here(expanded(_as_localhost(pod, network.own(app, word)))) for word in command], whole


def _as_localhost(pod: Object, word: str) -> str:
    """There is no DNS: the host names of a headless service's pods are this machine."""
    service = pod["spec"].get("subdomain")
    return re.sub(rf"^[\w-]+\.{re.escape(service)}$", "127.0.0.1", word) if service else word


def _mounts(pod: Object, container: Object, store: Store, place: Path, network: Network) -> dict[str, Path]:
    """Where each mounted folder is. Mounts of single files lie in the folder that is mounted around them."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    mounts = [one for one in container.get("volumeMounts", []) if one["mountPath"] not in ("/tmp", "/dev/shm")]
    folders: dict[str, Path] = {}
    for mount in mounts:
        volume = volumes[mount["name"]]
        if "configMap" not in volume and "secret" not in volume:
            folders[mount["mountPath"]] = place / mount["name"] / mount.get("subPath", "")
            folders[mount["mountPath"]].mkdir(parents=True, exist_ok=True)
    for mount in mounts:
        volume = volumes[mount["name"]]
        if "configMap" in volume or "secret" in volume:
            content = {name: network.here(text) for name, text in _content(store, pod, volume).items()}
            path = Path(mount["mountPath"])
            if file := mount.get("subPath"):
                folder = folders.setdefault(str(path.parent), place / mount["name"])
                folder.mkdir(parents=True, exist_ok=True)
                (folder / path.name).write_text(content[file])
            else:
                folders[str(path)] = place / mount["name"]
                folders[str(path)].mkdir(parents=True, exist_ok=True)
                for name, text in content.items():
                    (folders[str(path)] / name).write_text(text)
    return folders


def _content(store: Store, pod: Object, volume: Object) -> dict[str, str]:
    if "configMap" in volume:
        return _data(store, pod, "configmaps", volume["configMap"]["name"])
    return _data(store, pod, "secrets", volume["secret"]["secretName"])


def _data(store: Store, pod: Object, plural: str, name: str) -> dict[str, str]:
    """Of a config map or secret."""
    found = store.get(plural, pod["metadata"]["namespace"], name)
    if found is None:
        raise LookupError(f'{plural.removesuffix("s")} "{name}" not found')
    data = found.get("data", {})
    return {key: b64decode(value).decode() for key, value in data.items()} if plural == "secrets" else data


def _variables(pod: Object, container: Object, store: Store) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            yield from _data(store, pod, "configmaps", source["configMapRef"]["name"]).items()
        else:
            yield from _data(store, pod, "secrets", source["secretRef"]["name"]).items()
    for variable in container.get("env", []):
        origin = variable.get("valueFrom", {})
        if "secretKeyRef" in origin:
            yield (
                variable["name"],
                _data(store, pod, "secrets", origin["secretKeyRef"]["name"])[origin["secretKeyRef"]["key"]],
            )
        elif "fieldRef" in origin:
            value: Any = pod
            path = re.sub(r"\['(.+?)'\]", r".\1", origin["fieldRef"]["fieldPath"])
            first, _, rest = path.partition(".annotations.")
            for part in first.split("."):
                value = value[part]
            yield variable["name"], str(value["annotations"][rest] if rest else value)
        elif (value := variable.get("value")) is not None:
            yield variable["name"], value


def _stamp(process: Fork, log: Any) -> None:
    """Each line with its moment, as the kubelet keeps it."""
    assert process.stdout is not None, "it was started with a pipe"
    for line in process.stdout:
        log.write(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + line.rstrip(b"\n") + b"\n")
        log.flush()


def _kill(process: Fork) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
