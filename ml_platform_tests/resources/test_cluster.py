import json

import pytest
from dagster_k8s.job import get_user_defined_k8s_config
from pydantic import ValidationError

from ml_platform.core.spec import ResourcesSpec, seconds
from ml_platform.resources.cluster import STARTS_AND_STOPS, pod_config, pool


def test_gpu_training_gets_its_pod() -> None:
    resources = ResourcesSpec.model_validate(
        {"cpu": 4, "memory": "8Gi", "gpu": 1, "gpu_type": ["a100", "h100"], "timeout": "4h"}
    )
    config = pod_config(resources)
    assert config["container_config"]["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
    }
    assert config["job_spec_config"] == {"active_deadline_seconds": 14_400 + STARTS_AND_STOPS}
    term = config["pod_spec_config"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ][0]
    assert term["matchExpressions"] == [{"key": "ml-platform/gpu-type", "operator": "In", "values": ["a100", "h100"]}]
    assert config["pod_spec_config"]["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_cpu_training_asks_for_no_gpu_node() -> None:
    assert pod_config(ResourcesSpec()) == {
        "container_config": {"resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}}
    }


@pytest.mark.parametrize(
    "resources", [ResourcesSpec(), ResourcesSpec(cpu="500m", gpu=2, gpu_type=("h100",), timeout="30m")]
)
def test_dagster_k8s_accepts_every_config(resources: ResourcesSpec) -> None:
    """Not checked while definitions load, since that would import the Kubernetes client."""
    config = get_user_defined_k8s_config({"dagster-k8s/config": json.dumps(pod_config(resources))})
    assert config.container_config["resources"] == pod_config(resources)["container_config"]["resources"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": {"max": -1}},
        {"retries": {"delay": "soon"}},
        {"processes": 0},
        {"memory": "8 GB"},
        {"cpu": "four"},
        {"gpu": -1},
        {"gpus": 1},
        {"timeout": "4 hours"},
        {"gpu_type": ["a100"]},
    ],
)
def test_impossible_resources_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        ResourcesSpec.model_validate(wrong)


def test_trainings_with_and_without_gpu_have_pools_of_their_own() -> None:
    assert [pool(ResourcesSpec(gpu=n)) for n in (0, 1, 4)] == ["cpu_training", "gpu_training", "gpu_training"]


def test_processes_are_started_one_per_gpu_unless_said_otherwise() -> None:
    assert [ResourcesSpec(gpu=n).launched_processes for n in (0, 1, 4)] == [0, 0, 4]
    assert [ResourcesSpec(gpu=4, processes=n).launched_processes for n in (1, 8)] == [1, 8]


def test_durations() -> None:
    assert [seconds(duration) for duration in ("90s", "30m", "4h", "1d")] == [90, 1_800, 14_400, 86_400]
