"""What an overlay would put onto a cluster: rendered as `kubectl apply -k` does, and held against Kubernetes' own schemas."""

import shutil
import subprocess
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster_aws.s3.compute_log_manager import S3ComputeLogManager
from dagster_k8s import K8sRunLauncher

from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.spec.base import bytes_of
from ml_platform.resources.cluster import pod_config
from ml_platform_tests.k8s.double.kubelet import asked

pytestmark = pytest.mark.processes

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = ("local", "dev", "prod")
VERSION = "1.36"
WORKLOADS = ("Deployment", "Job", "StatefulSet", "DaemonSet")

Manifest = dict[str, Any]


def rendered(name: str) -> list[Manifest]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine, which renders the overlays")
    command = ["kubectl", "kustomize", str(K8S / "overlays" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


def of_kind(overlay: list[Manifest], *kinds: str) -> Iterator[Manifest]:
    return (manifest for manifest in overlay if manifest["kind"] in kinds)


def names(overlay: list[Manifest], kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in of_kind(overlay, kind)}


def pods(overlay: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in of_kind(overlay, *WORKLOADS):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]


def instance(overlay: list[Manifest]) -> dict[str, Any]:
    (found,) = (m for m in of_kind(overlay, "ConfigMap") if m["metadata"]["name"] == "dagster-instance")
    return yaml.safe_load(found["data"]["dagster.yaml"])


def test_every_manifest_is_what_kubernetes_expects(overlay: list[Manifest]) -> None:
    for manifest in overlay:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_validation_would_see_a_mistake(overlay: list[Manifest]) -> None:
    (server,) = (m for m in of_kind(overlay, "Deployment") if m["metadata"]["name"] == "model-server")
    server["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(server, VERSION, strict=True)
    del server["spec"]["replica"]


def test_every_pod_is_restricted(overlay: list[Manifest]) -> None:
    for name, template in pods(overlay):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


def test_run_pods_are_as_restricted_as_all_others(overlay: list[Manifest]) -> None:
    settings = instance(overlay)["run_launcher"]["config"]["run_k8s_config"]
    assert settings["container_config"]["security_context"]["read_only_root_filesystem"]
    assert settings["container_config"]["security_context"]["capabilities"] == {"drop": ["ALL"]}
    assert settings["pod_spec_config"]["security_context"]["run_as_non_root"]
    assert settings["job_spec_config"]["ttl_seconds_after_finished"]


def test_what_is_named_is_there(overlay: list[Manifest]) -> None:
    """Config maps, secrets and service accounts that pods name; dev and prod bring their secret from outside."""
    secrets = names(overlay, "Secret") | {"ml-platform"}
    launcher = instance(overlay)["run_launcher"]["config"]
    assert {*launcher["env_config_maps"], launcher["instance_config_map"]} <= names(overlay, "ConfigMap")
    assert set(launcher["env_secrets"]) <= secrets
    assert launcher["service_account_name"] in names(overlay, "ServiceAccount")
    for name, template in pods(overlay):
        spec = template["spec"]
        assert spec["serviceAccountName"] in names(overlay, "ServiceAccount"), name
        for volume in spec.get("volumes", []):
            assert volume.get("configMap", {}).get("name", "ml-platform") in names(overlay, "ConfigMap"), name
        for container in spec["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}, name
            for source in container.get("envFrom", []):
                assert source.get("secretRef", {"name": "ml-platform"})["name"] in secrets, name


def test_services_autoscalers_and_budgets_find_their_pods(overlay: list[Manifest]) -> None:
    labels = [template["metadata"]["labels"] for _, template in pods(overlay)]

    def found(selector: dict[str, str]) -> bool:
        return any(selector.items() <= one.items() for one in labels)

    assert all(found(service["spec"]["selector"]) for service in of_kind(overlay, "Service"))
    assert all(found(one["spec"]["selector"]["matchLabels"]) for one in of_kind(overlay, "PodDisruptionBudget"))
    targets = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(overlay, "HorizontalPodAutoscaler")}
    assert targets <= names(overlay, "Deployment")


def test_nothing_may_talk_unless_a_policy_says_so_and_all_pods_are_under_them(overlay: list[Manifest]) -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(overlay, "NetworkPolicy")}
    deny = policies["default-deny"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    member = policies["inside"]["podSelector"]["matchLabels"]
    assert all(member.items() <= template["metadata"]["labels"].items() for _, template in pods(overlay))
    launched = instance(overlay)["run_launcher"]["config"]["labels"]
    assert member.items() <= launched.items()


def test_only_what_launches_jobs_has_a_token(overlay: list[Manifest]) -> None:
    with_token = {name for name, template in pods(overlay) if template["spec"].get("automountServiceAccountToken")}
    assert with_token == {"dagster-code", "dagster-daemon", "dagster-webserver", "migration"}
    assert not any(account["automountServiceAccountToken"] for account in of_kind(overlay, "ServiceAccount"))


def test_runs_use_the_image_of_the_code_location(overlay: list[Manifest]) -> None:
    (container,) = next(template["spec"]["containers"] for name, template in pods(overlay) if name == "dagster-code")
    (current,) = (variable["value"] for variable in container["env"] if variable["name"] == "DAGSTER_CURRENT_IMAGE")
    assert current == container["image"]
    assert ":" in current


def test_instance_is_what_dagster_expects(overlay: list[Manifest]) -> None:
    settings = instance(overlay)
    for section, class_ in (("run_launcher", K8sRunLauncher), ("compute_logs", S3ComputeLogManager)):
        checked = process_config(resolve_to_config_type(class_.config_type()), settings[section]["config"])
        unset = [error for error in checked.errors or [] if "environment variable" not in error.message]
        assert not unset, unset


def test_instance_is_one_that_a_process_can_open(overlay: list[Manifest], tmp_path: Path) -> None:
    """Settings that exclude each other are refused only then."""
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance(overlay)))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_PG_URL", "DAGSTER_K8S_NAMESPACE", "ML_PLATFORM_LOG_BUCKET"):
            patch.setenv(name, "x")
        settings, _ = dagster_instance_config(str(tmp_path))
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] > 0


def test_smallest_node_has_room_for_its_runs_with_a_step_each() -> None:
    """2 CPUs and 6 GiB, of which the system's pods take 850m and 400 MiB; a training beside a run that waits fits too."""
    overlay = rendered("local")
    off = {one["metadata"]["name"] for one in of_kind(overlay, "Deployment") if one["spec"].get("replicas") == 0}
    taken = sum((asked(template) for name, template in pods(overlay) if name not in {"migration", *off}), Counter())
    room = Counter(cpu=2000 - 850, memory=bytes_of("6Gi") - bytes_of("400Mi")) - taken
    settings = instance(overlay)
    runs = settings["concurrency"]["runs"]["max_concurrent_runs"]
    launched = settings["run_launcher"]["config"]["run_k8s_config"]["container_config"]
    run = asked({"spec": {"containers": [launched]}})
    (platform,) = (m["data"] for m in of_kind(overlay, "ConfigMap") if m["metadata"]["name"] == "ml-platform")
    cluster = load_catalog(find_project(EXAMPLE).defs, cluster=platform["ML_PLATFORM_CLUSTER"]).cluster
    step, training = (
        asked({"spec": {"containers": [pod_config(pod, cluster)["container_config"]]}})
        for pod in (cluster.steps, cluster.profiles["gpu-training"])
    )
    for resource in ("cpu", "memory"):
        assert runs * (run[resource] + step[resource]) <= room[resource], resource
        assert runs * run[resource] + training[resource] <= room[resource], resource


def test_variables_that_processes_need_are_set(overlay: list[Manifest]) -> None:
    (platform,) = (m["data"] for m in of_kind(overlay, "ConfigMap") if m["metadata"]["name"] == "ml-platform")
    assert platform["ML_PLATFORM_EXECUTOR"] == "k8s"
    for variable in ("ML_PLATFORM_LAKE", "ML_PLATFORM_LANDING", "ML_PLATFORM_LOG_BUCKET", "MLFLOW_ARTIFACTS"):
        assert platform[variable], variable
    for secret in of_kind(overlay, "Secret"):
        assert {"DAGSTER_PG_URL", "MLFLOW_DB_URL", "ML_PLATFORM_ONLINE_STORE"} <= secret["data"].keys()
        assert b64decode(secret["data"]["DAGSTER_PG_URL"]).startswith(b"postgresql+psycopg2://")
