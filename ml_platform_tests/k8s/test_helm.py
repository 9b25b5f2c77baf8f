"""The values for Dagster's Helm chart say the same as the manifests of `k8s/base` that they stand in for."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ml_platform_tests.k8s.test_manifests import VERSION, names, rendered

pytestmark = pytest.mark.processes

K8S = Path(__file__).parents[2] / "k8s"


def snake(value: Any) -> Any:
    """With the field names of dagster.yaml instead of the chart's, and {env: NAME} as it is."""
    if isinstance(value, dict):
        return {
            re.sub(r"(?<=[a-z0-9])[A-Z]", lambda m: f"_{m[0].lower()}", key): snake(one) for key, one in value.items()
        }
    return [snake(one) for one in value] if isinstance(value, list) else value


@pytest.fixture
def values() -> dict[str, Any]:
    return yaml.safe_load((K8S / "helm" / "values.yaml").read_text())


@pytest.fixture
def instance() -> dict[str, Any]:
    return yaml.safe_load((K8S / "base" / "dagster.yaml").read_text())


def deployment(name: str) -> dict[str, Any]:
    """The container of a deployment of the base."""
    manifests = yaml.safe_load_all((K8S / "base" / name).read_text())
    (found,) = (one for one in manifests if one["kind"] == "Deployment")
    return found["spec"]["template"]["spec"]["containers"][0]


def test_pods_of_runs_are_the_same_but_for_where_the_chart_mounts_the_instance(
    values: dict[str, Any], instance: dict[str, Any]
) -> None:
    chart, plain = values["runLauncher"]["config"]["k8sRunLauncher"], instance["run_launcher"]["config"]
    asked = snake(chart["runK8sConfig"])
    assert asked["pod_spec_config"].pop("service_account_name") == plain["service_account_name"]
    text = yaml.safe_dump(asked).replace("/opt/dagster/dagster_home", plain["dagster_home"])
    assert yaml.safe_load(text) == plain["run_k8s_config"]
    assert chart["imagePullPolicy"] == plain["image_pull_policy"]
    assert chart["labels"] == plain["labels"]
    assert [one["name"] for one in chart["envConfigMaps"]] == plain["env_config_maps"]
    assert [one["name"] for one in chart["envSecrets"]] == plain["env_secrets"]


def test_logs_queue_monitoring_retries_pools_and_retention_are_the_same(
    values: dict[str, Any], instance: dict[str, Any]
) -> None:
    daemon = snake(values["dagsterDaemon"])
    assert snake(values["computeLogManager"]["config"])["s3_compute_log_manager"] == instance["compute_logs"]["config"]
    queue = daemon["run_coordinator"]["config"]["queued_run_coordinator"]
    assert queue == {"dequeue_interval_seconds": instance["run_queue"]["dequeue_interval_seconds"]}
    assert daemon["run_monitoring"] == instance["run_monitoring"]
    assert daemon["run_retries"] == instance["run_retries"]
    assert snake(values["pythonLogs"]) == instance["python_logs"]
    concurrency = snake(values["concurrency"])
    concurrency["runs"]["tag_concurrency_limits"] = values["concurrency"]["runs"]["tagConcurrencyLimits"]  # as they are
    assert concurrency == {"enabled": True, **instance["concurrency"]}
    assert snake(values["retention"]) == {"enabled": True, **instance["retention"]}


def test_all_of_dagster_has_the_platforms_variables_and_restrictions(values: dict[str, Any]) -> None:
    (code,) = values["dagster-user-deployments"]["deployments"]
    for part in (code, values["dagsterWebserver"], values["dagsterDaemon"]):
        assert part["envConfigMaps"] == part["envSecrets"] == [{"name": "ml-platform"}]
        assert part["podSecurityContext"]["runAsNonRoot"]
        assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert part["labels"] == {"app.kubernetes.io/part-of": "ml-platform"}
        assert part["image"]["repository"].endswith("/dagster")


def test_code_location_serves_the_same_definitions(values: dict[str, Any]) -> None:
    (code,) = values["dagster-user-deployments"]["deployments"]
    command = " ".join(deployment("code-location.yaml")["args"])
    assert "ml_platform.definitions" in command
    assert code["codeServerArgs"][:2] == ["--module-name", "ml_platform.definitions"]


def test_database_is_reached_by_the_driver_that_works(values: dict[str, Any]) -> None:
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def test_everything_but_dagster_is_beside_it() -> None:
    beside, prod = rendered("beside-helm"), rendered("prod")
    for manifest in beside:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    dagster = {"dagster-code", "dagster-daemon", "dagster-webserver"}
    assert names(prod, "Deployment") - names(beside, "Deployment") == dagster
    for kind in ("Job", "NetworkPolicy", "Role", "ServiceAccount"):
        assert names(prod, kind) == names(beside, kind)
