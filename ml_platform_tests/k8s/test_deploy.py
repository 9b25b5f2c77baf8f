"""`k8s/deploy` by a real kubectl on the double of the Kubernetes API, where each container only waits."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double import Double
from ml_platform_tests.processes import eventually

DEPLOY = Path(__file__).parents[2] / "k8s" / "deploy"
STORAGE = {"postgres", "redis", "s3"}
# The exporter has no pod on the one node of `local`.
PLATFORM = {"dagster-code", "dagster-daemon", "dagster-webserver", "mlflow", "model-server"}


@pytest.fixture
def double(nursery: Nursery, tmp_path: Path) -> Iterator[Double]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine")
    with Double(tmp_path, nursery) as double:
        double.admit = only_wait("exit 0")
        yield double


def only_wait(migration: str) -> Callable[[dict[str, Any]], None]:
    """Of what is applied: containers that do nothing, and a migration that does this."""

    def admit(manifest: dict[str, Any]) -> None:
        if manifest["kind"] in ("Deployment", "Job"):
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            for asked in ("args", "startupProbe", "readinessProbe", "livenessProbe"):
                container.pop(asked, None)
            container["command"] = ["sh", "-c", migration if manifest["kind"] == "Job" else "sleep 600"]

    return admit


def deploy(double: Double, tag: str) -> subprocess.Popen[str]:
    command = [str(DEPLOY), "local", "registry.example/team", tag]
    environment = {**os.environ, "KUBECONFIG": str(double.kubeconfig)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> int:
    said, _ = process.communicate(timeout=120)
    print(said)
    return process.returncode


def images(double: Double) -> dict[str, str]:
    """Of the pods that are there, by their deployment."""
    return {
        pod["metadata"]["labels"]["app"]: pod["spec"]["containers"][0]["image"]
        for pod in double.pods()
        if pod["metadata"]["labels"]["app"] != "migration" and "deletionTimestamp" not in pod["metadata"]
    }


def test_nothing_but_storage_is_there_before_the_schemas_are_migrated(double: Double, tmp_path: Path) -> None:
    double.admit = only_wait(f"until [ -e {tmp_path}/go ]; do sleep 0.2; done")
    process = deploy(double, "1")
    eventually(lambda: [pod["status"]["phase"] for pod in double.pods(app="migration")] == ["Running"])
    eventually(lambda: images(double).keys() == STORAGE)
    assert not {one["metadata"]["name"] for one in double.store.list("deployments")} & PLATFORM
    (tmp_path / "go").touch()
    assert ended(process) == 0
    assert images(double).keys() == STORAGE | PLATFORM
    (job,) = double.store.list("jobs")
    started = [pod["metadata"]["creationTimestamp"] for name in PLATFORM for pod in double.pods(app=name)]
    assert min(started) >= job["status"]["completionTime"]


def test_old_pods_go_on_until_the_migration_is_through_and_a_release_can_be_taken_back(
    double: Double, tmp_path: Path
) -> None:
    assert ended(deploy(double, "1")) == 0
    before = images(double)
    double.admit = only_wait(f"until [ -e {tmp_path}/go ]; do sleep 0.2; done")
    process = deploy(double, "2")
    eventually(lambda: [pod["status"]["phase"] for pod in double.pods(app="migration")] == ["Running"])
    assert {name: images(double)[name] for name in PLATFORM} == {name: before[name] for name in PLATFORM}
    (tmp_path / "go").touch()
    assert ended(process) == 0
    assert {image.rpartition(":")[2] for image in images(double).values()} == {"2"}
    assert ended(deploy(double, "1")) == 0
    assert images(double) == before


def test_migration_that_fails_leaves_the_old_pods(double: Double) -> None:
    assert ended(deploy(double, "1")) == 0
    before = images(double)
    double.admit = only_wait("exit 1")
    process = deploy(double, "2")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "the migration has failed" in said
    assert "kubectl logs --namespace ml-platform job/migration" in said
    assert {name: images(double)[name] for name in PLATFORM} == {name: before[name] for name in PLATFORM}
