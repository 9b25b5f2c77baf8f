"""HTTP in front of the store: what a client of Kubernetes calls, and what goes wrong on demand."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double.controllers import Controllers
from ml_platform_tests.k8s.double.kubelet import Kubelet
from ml_platform_tests.k8s.double.store import Object, Store, now

VERSION = "1.36"
PATH = re.compile(
    r"/(?:api/v1|apis/[\w.]+/v\d)(?:/namespaces/(?P<ns>[\w-]+))?/(?P<plural>\w+)"
    r"(?:/(?P<name>[\w.-]+))?(?:/(?P<sub>\w+))?"
)
# By group and version: kinds, by the plural that paths name.
RESOURCES = {
    "v1": {
        "pods": "Pod", "services": "Service", "events": "Event", "nodes": "Node", "namespaces": "Namespace",
        "configmaps": "ConfigMap", "secrets": "Secret", "serviceaccounts": "ServiceAccount",
        "resourcequotas": "ResourceQuota", "limitranges": "LimitRange",
    },
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "batch/v1": {"jobs": "Job"},
    "kubeflow.org/v1": {"pytorchjobs": "PyTorchJob"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
}  # fmt: skip
KINDS = {plural: (version, kind) for version, kinds in RESOURCES.items() for plural, kind in kinds.items()}


@dataclass
class Fault:
    """The next `times` requests of a method whose path contains `path` are answered by `status`."""

    status: int
    times: int
    method: str
    path: str


class Double:
    """The whole cluster, on a port of its own. `requests` has method and path of everything that was asked."""

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        environment: Mapping[str, str] | None = None,
        namespace: str = "ml-platform",
    ) -> None:
        self.namespace = namespace
        self.store = Store()
        self.kubelet = Kubelet(self.store, folder / "pods", nursery, dict(environment or {}))
        self.controllers = Controllers(self.store, self.kubelet, self._pods_left)
        self.kubelet.add_node("node-0")
        self.quota: dict[str, int] = {}  # count/jobs.batch, pods
        self.admit: Callable[[Object], None] | None = None  # changes what is applied, as an admission webhook does
        self.is_down = False
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(self._config()))

    def __enter__(self) -> "Double":
        return self

    def __exit__(self, *_: object) -> None:
        self.controllers.close()
        self.kubelet.close()
        self._server.shutdown()
        self._server.server_close()

    # --- what tests do ------------------------------------------------------------------------------------------------

    def put(self, plural: str, name: str, **fields: Any) -> None:
        """A config map or secret, or whatever else is just data."""
        self.store.create(plural, self.namespace, {"metadata": {"name": name}, **fields})

    def expect(self, manifests: list[Object], elsewhere: Iterable[str] = ()) -> None:
        """Find ports for what is to be deployed; deployments in `elsewhere` run there, where `kubelet.network` has to lead."""
        self.controllers.elsewhere = frozenset(elsewhere)
        deployments = [
            one for one in manifests if one["kind"] == "Deployment" and one["metadata"]["name"] not in elsewhere
        ]
        for service in (one for one in manifests if one["kind"] == "Service"):
            self.kubelet.network.lead_to_pods(service, deployments)

    def pods(self, **labels: str) -> list[Object]:
        """Of these labels; `_` and `__` in their names are `-` and `/`."""
        wanted = {name.replace("__", "/").replace("_", "-"): value for name, value in labels.items()}
        return self.store.list("pods", lambda one: wanted.items() <= one["metadata"].get("labels", {}).items())

    def fail(self, status: int, times: int = 1, method: str = "POST", path: str = "/jobs") -> None:
        self.faults.append(Fault(status, times, method, path))

    # --- the server ---------------------------------------------------------------------------------------------------

    def _pods_left(self) -> int:
        over = ("Succeeded", "Failed")
        alive = self.store.list("pods", lambda one: one["status"].get("phase") not in over)
        return self.quota.get("pods", 10_000) - len(alive)

    def _config(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": "secret"}}],
            "contexts": [
                {"name": "double", "context": {"cluster": "double", "user": "tester", "namespace": self.namespace}}
            ],
            "current-context": "double",
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        double = self

        class Handler(_Handler):
            cluster = double

        return Handler


class _Handler(BaseHTTPRequestHandler):
    cluster: Double
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:  # the names that BaseHTTPRequestHandler looks for
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, respond: Callable[[], None]) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.body: Any = json.loads(self.rfile.read(length) or b"{}") if length else {}
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self.cluster.requests.append((self.command, url.path))
        if self.cluster.is_down:
            self.close_connection = True
            return
        for fault in self.cluster.faults:
            if fault.times and fault.method == self.command and fault.path in url.path:
                fault.times -= 1
                self._status(fault.status, f"the test wants a {fault.status}")
                return
        found = PATH.fullmatch(url.path)
        if url.path == "/version":
            self._json(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        elif (known := _discovered(url.path)) is not None:
            self._json(200, known)
        elif self.headers.get("Authorization") != "Bearer secret" and not self._is_kubectl():
            self._status(401, "Unauthorized")
        elif found is None:
            self._status(404, f"the double has no {url.path}")
        else:
            self.ns, self.plural, self.name, self.sub = found["ns"] or "", found["plural"], found["name"], found["sub"]
            respond()

    def _is_kubectl(self) -> bool:
        """It sends no token over HTTP."""
        return self.headers.get("User-Agent", "").startswith("kubectl")

    # --- verbs --------------------------------------------------------------------------------------------------------

    def _get(self) -> None:
        store = self.cluster.store
        if self.name is None:
            if self.query.get("watch") in ("true", "True"):
                self._watch()
                return
            items = [self._whole(one) for one in store.list(self.plural, self._fits)]
            meta = {"resourceVersion": str(store.version)}
            kind = f"{KINDS[self.plural][1]}List"
            self._json(200, {"kind": kind, "apiVersion": KINDS[self.plural][0], "metadata": meta, "items": items})
            return
        there = store.get(self.plural, self.ns, self.name)
        if there is None:
            self._status(404, f'{self.plural} "{self.name}" not found')
        elif self.sub == "log":
            self._log(there)
        else:
            self._json(200, self._whole(there))

    def _post(self) -> None:
        if self.sub == "eviction":
            if there := self.cluster.store.get("pods", self.ns, self.name or ""):
                self.cluster.kubelet.evict(there)
            self._json(201, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
            return
        body = self._whole(self.body)
        if not self._is_valid(body):
            return
        limit = self.cluster.quota.get("count/jobs.batch")
        if self.plural == "jobs" and limit is not None and len(self.cluster.store.list("jobs")) >= limit:
            self._status(403, f'jobs.batch "{body["metadata"]["name"]}" is forbidden: exceeded quota: q')
            return
        made = self.cluster.store.create(self.plural, self.ns, body)
        if made is None:
            name = body["metadata"]["name"]
            self._status(409, f'{self.plural} "{name}" already exists', {"name": name, "kind": self.plural})
        else:
            self._json(201, made)

    def _patch(self) -> None:
        store = self.cluster.store
        there = store.get(self.plural, self.ns, self.name or "")
        if "apply-patch" in self.headers.get("Content-Type", ""):
            if self.cluster.admit:
                self.cluster.admit(self.body)
            if there is None:
                self._post()
                return
            if not self._is_valid(self._whole(self.body)):
                return
        if changed := there and store.change(self.plural, there, self._change):
            self._json(200, self._whole(changed))
        else:
            self._status(404, f'{self.plural} "{self.name}" not found')

    def _change(self, one: Object) -> None:
        before = json.dumps(one.get("spec"))
        _merge(one, self.body)
        if json.dumps(one.get("spec")) != before:
            one["metadata"]["generation"] = one["metadata"].get("generation", 0) + 1

    def _is_valid(self, body: Object) -> bool:
        """By Kubernetes' own schema; says what is wrong."""
        if self.plural in ("pytorchjobs", "events"):
            return True
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            self._status(422, f"{error.message} at {'.'.join(map(str, error.path))}")
            return False
        return True

    def _delete(self) -> None:
        store = self.cluster.store
        there = store.get(self.plural, self.ns, self.name or "")
        if there is None:
            self._status(404, f'{self.plural} "{self.name}" not found')
            return
        policy = self.query.get("propagationPolicy") or (self.body or {}).get("propagationPolicy")
        if self.plural == "pods":
            grace = (self.body or {}).get("gracePeriodSeconds")
            self.cluster.kubelet.delete(there, grace)
        elif self.plural == "jobs" and policy in (None, "Orphan"):
            # What Kubernetes does with Jobs unless told otherwise: their pods stay, without an owner.
            uid = there["metadata"]["uid"]
            for pod in store.list("pods"):
                store.change("pods", pod, lambda one: _disown(one, uid))
            store.remove(self.plural, there)
        else:
            store.change(self.plural, there, lambda one: one["metadata"].setdefault("deletionTimestamp", now()))
        self._json(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    # --- streams ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        store = self.cluster.store
        until = time.monotonic() + float(self.query.get("timeoutSeconds", 3_600))

        def enough() -> bool:
            return time.monotonic() > until or self.cluster.is_down or self.cluster.kubelet.closing.is_set()

        with store.changed:
            version = store.version
            there = [] if self.query.get("resourceVersion") else store.list(self.plural, self._fits)
        since = int(self.query.get("resourceVersion") or version)
        self._begin("application/json")
        try:
            for one in there:
                self._chunk(json.dumps({"type": "ADDED", "object": self._whole(one)}) + "\n")
            for _, kind, one in store.events_since(since, self.plural, enough):
                if self._fits(one):
                    self._chunk(json.dumps({"type": kind, "object": self._whole(one)}) + "\n")
            self._end()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _log(self, pod: Object) -> None:
        path = self.cluster.kubelet.log(pod)
        if not path.exists():
            self._status(400, f'container in pod "{self.name}" is waiting to start')
            return
        since = time.time() - float(self.query["sinceSeconds"]) if "sinceSeconds" in self.query else 0
        stamped = self.query.get("timestamps") in ("true", "True")
        self._begin("text/plain")
        try:
            for line in self._lines(path, pod):
                stamp, _, text = line.partition(" ")
                if time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S") >= time.gmtime(since):
                    self._chunk((line if stamped else text) + "\n")
            self._end()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _lines(self, path: Path, pod: Object) -> Iterator[str]:
        """Of a log; as it grows, if the query says so."""
        follow = self.query.get("follow") in ("true", "True")
        with path.open() as log:
            rest = ""
            while True:
                there = self.cluster.store.get("pods", self.ns, pod["metadata"]["name"])
                over = there is None or there["status"].get("phase") != "Running"
                *lines, rest = (rest + log.read()).split("\n")
                yield from lines
                if not follow or over or self.cluster.is_down or self.cluster.kubelet.closing.is_set():
                    return
                time.sleep(0.05)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _fits(self, one: Object) -> bool:
        if one["metadata"]["namespace"] != self.ns:
            return False
        labels = one["metadata"].get("labels", {})
        for term in filter(None, self.query.get("labelSelector", "").split(",")):
            name, _, value = term.partition("=")
            if labels.get(name) != value.lstrip("="):
                return False
        for term in filter(None, self.query.get("fieldSelector", "").split(",")):
            path, _, value = term.partition("=")
            found: Any = one
            for part in path.split("."):
                found = (found or {}).get(part)
            if found != value.lstrip("="):
                return False
        return True

    def _whole(self, one: Object) -> Object:
        version, kind = KINDS[self.plural]
        return {"apiVersion": version, "kind": kind, **one}

    def _status(self, code: int, message: str, details: Object | None = None) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
        self._json(code, {**status, "details": details or {}})

    def _json(self, code: int, content: Object) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        content = text.encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")


def _discovered(path: str) -> Object | None:
    """What clients ask before anything else: which groups, versions and kinds there are."""
    groups = {version.partition("/")[0]: version for version in RESOURCES if "/" in version}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        named = {name: {"groupVersion": it, "version": it.partition("/")[2]} for name, it in groups.items()}
        listed = [{"name": name, "versions": [it], "preferredVersion": it} for name, it in named.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if path == "/openapi/v3":
        roots = {version: f"{'apis' if '/' in version else 'api'}/{version}" for version in RESOURCES}
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots.values()}}
    version = path.removeprefix("/openapi/v3").removeprefix("/apis/").removeprefix("/api/")
    if version not in RESOURCES:
        return None
    if path.startswith("/openapi/v3"):
        return _openapi(version)
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    resources = [
        {
            "name": plural,
            "kind": kind,
            "singularName": "",
            "verbs": verbs,
            "namespaced": kind not in ("Node", "Namespace"),
        }
        for plural, kind in RESOURCES[version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


def _openapi(version: str) -> Object:
    """As much as kubectl looks for: that this server validates the fields of what is applied by itself."""
    group, _, name = version.rpartition("/")
    parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths = {
        f"/{plural}": {
            "patch": {
                "parameters": parameters,
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": name, "kind": kind},
            }
        }
        for plural, kind in RESOURCES[version].items()
    }
    return {"openapi": "3.0.0", "info": {"title": "the double", "version": VERSION}, "paths": paths}


def _merge(onto: Object, patch: Object) -> None:
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(onto.get(name), dict):
            _merge(onto[name], value)
        elif value is None:
            onto.pop(name, None)
        else:
            onto[name] = value


def _disown(pod: Object, uid: str) -> None:
    owners = pod["metadata"].get("ownerReferences", [])
    pod["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
