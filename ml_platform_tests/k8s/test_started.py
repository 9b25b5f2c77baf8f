"""A training's pod is the same, whatever has started the run: UI or job, backfill, sensor, automation, command line."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform_tests.forks import Nursery
from ml_platform_tests.k8s.double import Double
from ml_platform_tests.k8s.double.kubelet import ROOT
from ml_platform_tests.k8s.started import JOB, KEY, SENSED
from ml_platform_tests.processes import BIN, eventually

MODULE = "ml_platform_tests.k8s.started"
STEP = "__".join(KEY.path)


@pytest.fixture
def double(nursery: Nursery, tmp_path: Path) -> Iterator[Double]:
    with Double(tmp_path, nursery, {"OMP_NUM_THREADS": "1"}) as double:
        double.put("configmaps", "ml-platform", data={"ML_PLATFORM_EXECUTOR": "k8s", "ML_PLATFORM_HOME": str(tmp_path)})
        double.put("secrets", "ml-platform", data={})
        yield double


@pytest.fixture
def environment(tmp_path: Path, double: Double) -> dict[str, str]:
    """An instance as on a cluster, but for its storage."""
    instance = yaml.safe_load((ROOT / "k8s" / "base" / "dagster.yaml").read_text())
    for stored_elsewhere in ("storage", "compute_logs"):
        del instance[stored_elsewhere]
    instance["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(double.kubeconfig)}
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance))
    double.put("configmaps", "dagster-instance", data={"dagster.yaml": "{}"})
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(home),
        "DAGSTER_K8S_NAMESPACE": double.namespace,
        "DAGSTER_CURRENT_IMAGE": "ml-platform/dagster:1",
        "ML_PLATFORM_EXECUTOR": "k8s",
        "ML_PLATFORM_HOME": str(tmp_path),
    }


def asked(double: Double) -> dict[str, dict[str, Any]]:
    """The pods that were asked for the training step, by how the run was started."""
    jobs = double.store.list("jobs", lambda one: one["metadata"]["labels"].get("dagster/op") == STEP)
    return {one["metadata"]["labels"]["dagster/run-id"]: one["spec"] for one in jobs}


def without_names(spec: dict[str, Any]) -> dict[str, Any]:
    """Without what names the run, the step and its arguments."""
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    kept = [one for one in container["env"] if not one["name"].startswith(("DAGSTER_COMPRESSED", "DAGSTER_RUN_"))]
    container = {**container, "args": [], "env": kept}
    return {**spec, "template": {"spec": {**pod, "containers": [container]}}}


def test_pod_is_the_same_whatever_starts_the_run(double: Double, environment: dict[str, str], tmp_path: Path) -> None:
    with ExitStack() as stack, (tmp_path / "log").open("w") as log:

        def start(*command: str) -> None:
            process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)

        # Several processes that make the tables at once would be in each other's way.
        subprocess.run(["dagster", "instance", "migrate"], env=environment, stdout=log, stderr=log, check=True)
        start("dagster-daemon", "run", "-m", MODULE)
        start("dagster", "job", "launch", "-m", MODULE, "-j", JOB, "--tags", '{"dagster/partition": "2018-06-01"}')
        start("dagster", "job", "backfill", "-m", MODULE, "-j", JOB, "--partitions", "2018-06-02", "--noprompt")
        start(
            "dagster", "asset", "materialize", "-m", MODULE, "--select", "/".join(KEY.path), "--partition", "2018-06-05"
        )
        eventually(lambda: len(asked(double)) >= 5, timeout=180)
    pods = [without_names(spec) for spec in asked(double).values()]
    assert len(pods) == 5, SENSED
    assert all(pod == pods[0] for pod in pods)
    (container,) = pods[0]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["cpu"] == "4"
    assert pods[0]["template"]["spec"]["affinity"]["nodeAffinity"]
    assert {one["key"] for one in pods[0]["template"]["spec"]["tolerations"]} == {"nvidia.com/gpu"}
    # And what the instance says of every pod.
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["image"] == "ml-platform/dagster:1"
