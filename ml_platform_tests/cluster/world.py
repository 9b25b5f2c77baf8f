"""A whole platform as the overlay `local` has it: on the cluster that KUBECONFIG names, or on the double of the Kubernetes API.

What tests do goes through Kubernetes' API and through the platform's own addresses, so that it is the same on both.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from kubernetes.client import AppsV1Api, BatchV1Api, CoreV1Api
from kubernetes.config import new_client_from_config

from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double import Double
from ml_platform_tests.k8s.test_manifests import rendered
from ml_platform_tests.processes import free_port

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "k8s" / "overlays" / "local"
NAMESPACE = "ml-platform"
ASKED = "ML_PLATFORM_TEST_CLUSTER"  # set: the cluster of the present kubeconfig
REPOSITORY = os.environ.get("REPOSITORY", "localhost/ml-platform")
TAG = os.environ.get("TAG", "latest")
NEXT = os.environ.get("NEXT_TAG") or ("next" if not os.environ.get(ASKED) else TAG)  # of the release that follows
PATIENCE = float(os.environ.get("ML_PLATFORM_TEST_PATIENCE", "1"))
LOGS = Path(os.environ.get("ML_PLATFORM_TEST_LOGS", "test-cluster"))
MADE_FOR_TESTS = "ml-platform/made-for-tests"  # label of a namespace
SERVICES = {"s3": 9000, "mlflow": 80, "dagster-webserver": 80, "model-server": 80}
_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on InvalidSubsetError { message } } }"""
_CANCEL = """mutation($id: String!, $policy: TerminateRunPolicy) { terminateRun(runId: $id, terminatePolicy: $policy) { __typename ... on Error { message } } }"""
_RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_EVENTS = """query($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection { events {
    __typename ... on MessageEvent { message stepKey } ... on ErrorEvent { error { message } } } } } }"""
# Of the smallest node, 2 CPUs and 6 GiB, what its own pods leave: system pods ask for 850m and some 400 MiB, PostgreSQL for the rest.
ROOM = {"cpu": "1100m", "memory": "5616Mi"}
COMPONENT = "app.kubernetes.io/component"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass
class Cluster:
    """The platform from the outside; `urls` by service."""

    client: Any
    urls: dict[str, str]
    home: Path
    kubeconfig: Path | None = None  # of the double; none: that of whoever runs this
    core: Any = field(init=False)
    batch: Any = field(init=False)
    apps: Any = field(init=False)

    def __post_init__(self) -> None:
        self.core, self.batch, self.apps = CoreV1Api(self.client), BatchV1Api(self.client), AppsV1Api(self.client)

    @property
    def settings(self) -> Settings:
        """The addresses as a client outside of the cluster has them."""
        return Settings(
            home=self.home,
            lake="s3://lake",
            landing="s3://landing",
            s3_endpoint=self.urls["s3"],
            tracking_uri=self.urls["mlflow"],
            dagster=self.urls["dagster-webserver"],
            model_server=self.urls["model-server"],
            executor="k8s",
        )

    @property
    def dagster(self) -> DagsterApi:
        return DagsterApi.at(self.settings)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def launch(self, keys: list[str], partition: str) -> str:
        """As the button in the UI does; returns the run's id."""
        selector = {
            "repositoryLocationName": "ml_platform",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": key.split("/")} for key in keys],
        }
        tags = [{"key": "dagster/partition", "value": partition}]
        params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}}
        launched = self.dagster.query(_LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def ended(self, run: str, timeout: float = 600) -> str:
        """The status in which a run ends."""
        self.eventually(lambda: self.status(run) in ENDED, timeout)
        return self.status(run)

    def status(self, run: str) -> str:
        return self.dagster.query(_RUN, id=run)["runOrError"]["status"]

    def cancel(self, run: str, by_force: bool = False) -> None:
        """As the button in the UI does; by force, as its check box says that does not wait for the run."""
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if by_force else "SAFE_TERMINATE"
        answer = self.dagster.query(_CANCEL, id=run, policy=policy)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def events(self, run: str) -> list[dict[str, Any]]:
        return self.dagster.query(_EVENTS, id=run)["logsForRun"]["events"]

    def story(self, run: str) -> str:
        """What a run has said, for whoever reads of a test that failed."""
        told = ((one, (one.get("error") or {}).get("message", "")) for one in self.events(run))
        return "\n".join(f"{one['__typename']} {one.get('stepKey')}: {one.get('message')} {why}" for one, why in told)

    # --- pods ---------------------------------------------------------------------------------------------------------

    def pods(self, labels: dict[str, str]) -> list[Any]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return self.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items

    def running_pod(self, run: str, step: str | None = None) -> Any:
        """A pod of a run, once it runs: that of a step, or the run's own."""
        labels = {"dagster/run-id": run, COMPONENT: "step_worker" if step else "run_worker"}
        labels |= {"dagster/op": step} if step else {}

        def running() -> list[Any]:
            pods = self.pods(labels)
            return [pod for pod in pods if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp]

        self.eventually(lambda: bool(running()), 300, f"a running pod of {step or 'the run'}")
        return running()[0]

    def kill(self, pod: Any) -> None:
        """At once, without a word to it."""
        self.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE, grace_period_seconds=0)

    def drain(self, node: str, labels: dict[str, str]) -> None:
        """What `kubectl drain` does, of the pods with these labels."""
        self.cordon(node)
        for pod in self.pods(labels):
            if pod.spec.node_name == node and pod.status.phase == "Running":
                self.evict(pod)

    def evict(self, pod: Any) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.metadata.name}}
        self.core.create_namespaced_pod_eviction(pod.metadata.name, NAMESPACE, body)

    def cordon(self, node: str) -> None:
        self.core.patch_node(node, {"spec": {"unschedulable": True}})

    def uncordon(self, node: str) -> None:
        self.core.patch_node(node, {"spec": {"unschedulable": None}})

    def node(self) -> str:
        return self.core.list_node().items[0].metadata.name

    def advertise_gpus(self, node: str, count: int) -> None:
        """As a device plugin does."""
        self.core.patch_node_status(node, {"status": {"capacity": {"nvidia.com/gpu": str(count) if count else None}}})

    def deploy(self, tag: str) -> subprocess.Popen[bytes]:
        """k8s/deploy, begun."""
        environment = {**os.environ, **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})}
        command = [ROOT / "k8s" / "deploy", "local", REPOSITORY, tag]
        return subprocess.Popen(command, env=environment)

    # --- deployments --------------------------------------------------------------------------------------------------

    def configure(self, **variables: str) -> None:
        """Change the platform's config map; pods that start from now on have it."""
        self.core.patch_namespaced_config_map("ml-platform", NAMESPACE, {"data": variables})

    def restart(self, *names: str, timeout: float = 600) -> None:
        """`kubectl rollout restart`, and wait until the new pods are ready."""
        for name in names:
            stamp = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat()}
            body = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
            self.apps.patch_namespaced_deployment(name, NAMESPACE, body)
        for name in names:
            self.eventually(lambda name=name: self.is_rolled_out(name), timeout)

    def is_rolled_out(self, name: str) -> bool:
        found = self.apps.read_namespaced_deployment(name, NAMESPACE)
        pods = [pod for pod in self.pods({"app": name}) if not pod.metadata.deletion_timestamp]
        stamps = found.spec.template.metadata.annotations or {}
        fresh = all(stamps.items() <= (pod.metadata.annotations or {}).items() for pod in pods)
        return fresh and len(pods) == found.spec.replicas == found.status.ready_replicas

    def eventually(self, condition: Callable[[], bool], timeout: float, what: str = "it") -> None:
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout

        def holds() -> bool:
            try:
                return condition()
            except (StackError, httpx.HTTPError):  # a forwarded port whose pod is being replaced
                return False

        while not holds():
            assert time.monotonic() < deadline, f"{what} did not come true within {timeout:.0f} s"
            time.sleep(1)


def secrets() -> dict[str, str]:
    """What the overlay keeps secret."""
    return _variables("secrets.env")


def platform_env() -> dict[str, str]:
    return _variables("platform.env")


def _variables(name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (OVERLAY / name).read_text().splitlines())


# --- on the double ----------------------------------------------------------------------------------------------------


@contextmanager
def on_double(folder: Path, nursery: Nursery, postgres_url: str) -> Iterator[tuple[Cluster, Double]]:
    """All workloads of the overlay but PostgreSQL, which is the tests' own, as processes of this machine."""
    manifests = rendered("local")
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis on this machine: there is no `redis-server` on the PATH (apt-get install redis-server)")
    with Double(folder, nursery, {"OMP_NUM_THREADS": "1"}, NAMESPACE) as double:
        double.kubelet.limit_node("node-0", **ROOM)
        network = double.kubelet.network
        network.lead("postgres", 5432, _databases(postgres_url))
        double.admit = partial(_outside, double.kubeconfig)
        double.expect(manifests, elsewhere=("postgres",))
        urls = {name: network.here(f"http://{name}:{port}") for name, port in SERVICES.items()}
        client = new_client_from_config(str(double.kubeconfig))
        cluster = Cluster(client, urls, folder / "home", double.kubeconfig)
        assert cluster.deploy(TAG).wait() == 0, "k8s/deploy says why"
        yield cluster, double


def _databases(postgres_url: str) -> int:
    """The role and the databases that the overlay's own PostgreSQL begins with; returns the port of the tests' one."""
    plain = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        password = secrets()["POSTGRES_PASSWORD"]
        connection.execute("DROP ROLE IF EXISTS ml_platform")
        connection.execute(f"CREATE ROLE ml_platform LOGIN PASSWORD '{password}'")  # type: ignore[arg-type]
        for statement in (OVERLAY / "databases.sql").read_text().split(";"):
            if statement.strip():
                name = statement.split()[2]
                connection.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[arg-type]
                connection.execute(statement)  # type: ignore[arg-type]
    return int(plain.rsplit(":", 1)[1].split("/")[0])


def _outside(kubeconfig: Path, manifest: dict[str, Any]) -> None:
    """The instance is that of processes that have no service account of a cluster, but a kubeconfig."""
    if manifest["metadata"]["name"] == "dagster-instance":
        content = yaml.safe_load(manifest["data"]["dagster.yaml"])
        content["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
        manifest["data"]["dagster.yaml"] = yaml.safe_dump(content)


# --- on a cluster -----------------------------------------------------------------------------------------------------


@contextmanager
def on_cluster(folder: Path) -> Iterator[Cluster]:
    """The overlay with the images that were named, from nothing, on the cluster of the present kubeconfig."""
    gone = ["kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=10m"]
    subprocess.run(gone, check=True)
    subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=True)
    subprocess.run(["kubectl", "label", "namespace", NAMESPACE, f"{MADE_FOR_TESTS}=true"], check=True)
    with ExitStack() as stack:
        stack.enter_context(_logs_kept(LOGS))
        subprocess.run([ROOT / "k8s" / "deploy", "local", REPOSITORY, TAG], check=True)
        urls = {name: stack.enter_context(_forwarded(name, port)) for name, port in SERVICES.items()}
        yield Cluster(new_client_from_config(), urls, folder / "home")


@contextmanager
def _logs_kept(folder: Path) -> Iterator[None]:
    """The log of every pod as a file, also of those that are gone before the end."""
    folder.mkdir(parents=True, exist_ok=True)
    core: Any = CoreV1Api(new_client_from_config())
    over, followed = threading.Event(), dict[str, subprocess.Popen[bytes]]()

    def follow() -> None:
        while not over.wait(2):
            for pod in core.list_namespaced_pod(NAMESPACE).items:
                name = pod.metadata.name
                if pod.status.phase != "Pending" and name not in followed:
                    with (folder / f"{name}.log").open("wb") as file:
                        command = ["kubectl", "-n", NAMESPACE, "logs", "--follow", name]
                        followed[name] = subprocess.Popen(command, stdout=file, stderr=file)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for process in followed.values():
            process.terminate()
            process.wait()


@contextmanager
def _forwarded(service: str, port: int) -> Iterator[str]:
    """A port of this machine that leads to a service; again, whenever its pod has been replaced."""
    local = free_port()
    loop = f"while true; do kubectl -n {NAMESPACE} port-forward service/{service} {local}:{port}; sleep 0.5; done"
    process = subprocess.Popen(
        ["bash", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield f"http://127.0.0.1:{local}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False
