"""Pods as Kubernetes gets them: what model files say, on a cluster with labels, taints and profiles of its own."""

import json
from typing import Any

import kubernetes_validate
import pytest
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job, get_user_defined_k8s_config
from kubernetes.client import ApiClient
from pydantic import ValidationError

from ml_platform.core.spec import ClusterSpec, PodSpec, ResourcesSpec, seconds
from ml_platform.resources.cluster import STARTS_AND_STOPS, fit_config, pod_config, pool, priority_tags, training_config

VERSION = "1.36"
EVERYTHING: dict[str, Any] = {
    "cpu": 8,
    "memory": "32Gi",
    "gpu": 2,
    "gpu_type": ["a100", "h100"],
    "spot": True,
    "node_selector": {"pool": "training"},
    "tolerations": [{"key": "team", "value": "fraud", "effect": "NoSchedule"}, {"key": "slow"}],
    "volumes": [
        {"claim": "card-images", "mount": "/data/images"},
        {"claim": "card-images", "mount": "/data/labels", "sub_path": "labels"},
        {"config_map": "tokenizer.v2", "mount": "/etc/tokenizer"},
        {"scratch": "50Gi", "mount": "/scratch"},
    ],
    "secrets": ["warehouse", {"name": "hub", "env": {"HUB_TOKEN": "token"}}, {"name": "keys", "mount": "/etc/keys"}],
    "env": {"NCCL_DEBUG": "WARN"},
    "image": "registry.example/fraud-training:2",
    "image_pull_secrets": ["registry"],
    "service_account": "fraud-trainer",
    "timeout": "4h",
    "ttl": "30m",
}


def made(config: dict[str, Any]) -> dict[str, Any]:
    """The Job that dagster-k8s makes of a step's config, valid by the schemas of Kubernetes."""
    asked = get_user_defined_k8s_config({"dagster-k8s/config": json.dumps(config)})
    empty = DagsterK8sJobConfig(job_image="ml-platform/dagster:1", dagster_home="/opt/dagster/home")
    job: Any = ApiClient().sanitize_for_serialization(construct_dagster_k8s_job(empty, ["x"], "job", asked))
    kubernetes_validate.validate(job, VERSION, strict=True)
    return job["spec"]


def pod_of(resources: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    spec = fit_config(ResourcesSpec.model_validate(resources), ClusterSpec.model_validate(cluster))
    return made(spec)["template"]["spec"]


def test_cpu_training_asks_for_no_gpu_node() -> None:
    pod = pod_of({})
    resources = pod["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert not {"affinity", "tolerations", "nodeSelector"} & pod.keys()


def test_gpus_are_limits_too_and_their_nodes_are_tolerated_and_chosen_by_type() -> None:
    pod = pod_of(EVERYTHING)
    resources = pod["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "2"}
    assert resources["requests"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"}
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (expression,) = terms[0]["matchExpressions"]
    assert expression == {"key": "ml-platform/gpu-type", "operator": "In", "values": ["a100", "h100"]}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_cluster_says_how_its_gpus_are_called_and_how_pods_get_onto_spot_nodes() -> None:
    spot = {
        "tolerations": [{"key": "cloud.google.com/gke-spot", "value": "true"}],
        "node_selector": {"cloud.google.com/gke-spot": "true"},
    }
    pod = pod_of(EVERYTHING, gpu_resource="amd.com/gpu", gpu_type_label="amd.com/gpu.product-name", spot=spot)
    assert pod["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"pool": "training", "cloud.google.com/gke-spot": "true"}
    assert {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"} in pod["tolerations"]
    assert {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_volumes_are_there_once_and_read_only_unless_said_otherwise() -> None:
    pod = pod_of(EVERYTHING)
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/data/images"] == {"name": "claim-card-images", "mountPath": "/data/images", "readOnly": True}
    assert mounts["/data/labels"]["subPath"] == "labels"
    assert mounts["/etc/tokenizer"]["name"] == "config-tokenizer-v2"
    assert "readOnly" not in mounts["/scratch"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert len(volumes) == len(pod["volumes"]) == 5
    assert volumes["claim-card-images"]["persistentVolumeClaim"] == {"claimName": "card-images"}
    assert volumes["scratch-3"]["emptyDir"] == {"sizeLimit": "50Gi"}


def test_secrets_come_as_all_variables_as_some_or_as_files() -> None:
    (container,) = pod_of(EVERYTHING)["containers"]
    assert {"secretRef": {"name": "warehouse"}} in container["envFrom"]
    token = {"name": "HUB_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert token in container["env"]
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in container["env"]
    assert {"name": "secret-keys", "mountPath": "/etc/keys", "readOnly": True} in container["volumeMounts"]


def test_shared_memory_is_a_volume_in_memory() -> None:
    """Containers have 64 MiB of it, and GPUs of one node talk through it."""
    for resources, size in ((EVERYTHING, "1Gi"), ({"memory": "4Gi", "shm": "2Gi"}, "2Gi")):
        pod = pod_of(resources)
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}} in pod["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    assert "volumes" not in pod_of({"gpu": 1}) or not pod_of({"gpu": 1})["volumes"]


def test_image_pull_secrets_account_deadline_and_time_to_live() -> None:
    job = made(fit_config(ResourcesSpec.model_validate(EVERYTHING), ClusterSpec()))
    pod = job["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example/fraud-training:2"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["serviceAccountName"] == "fraud-trainer"
    assert (job["activeDeadlineSeconds"], job["ttlSecondsAfterFinished"]) == (14_400 + STARTS_AND_STOPS, 1_800)


def test_step_that_leaves_fitting_to_others_keeps_no_gpu_idle() -> None:
    resources = ResourcesSpec.model_validate({**EVERYTHING, "nodes": 2})
    assert resources.launched_by == "job"
    job = made(training_config(resources, ClusterSpec()))
    pod = job["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "32Gi"}
    assert "affinity" not in pod
    assert pod["containers"][0]["image"] == "registry.example/fraud-training:2"
    assert "serviceAccountName" not in pod  # that of all runs, which may start Jobs
    assert not pod.get("nodeSelector")
    assert {one["name"] for one in pod["volumes"]} == {"secret-keys"}
    assert "activeDeadlineSeconds" not in job
    assert made(fit_config(resources, ClusterSpec()))["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "memory": "32Gi",
        "nvidia.com/gpu": "2",
    }


def test_other_steps_get_pods_the_same_way() -> None:
    pod = PodSpec.model_validate({"memory": "16Gi", "volumes": [{"claim": "cache", "mount": "/cache"}]})
    container = made(pod_config(pod, ClusterSpec()))["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "16Gi"}
    assert container["volumeMounts"][0]["mountPath"] == "/cache"


def test_priority_is_a_place_in_the_queue_and_the_highest_class_that_it_reaches() -> None:
    cluster = ClusterSpec(priority_classes={"urgent": 5, "trainings": 0, "later": -5})
    classes = [json.loads(priority_tags(one, cluster).get("dagster-k8s/config", "{}")) for one in (-9, -1, 0, 4, 5, 9)]
    names = [one.get("pod_spec_config", {}).get("priority_class_name") for one in classes]
    assert names == [None, "later", "trainings", "trainings", "urgent", "urgent"]
    assert priority_tags(5, ClusterSpec()) == {"dagster/priority": "5"}
    assert priority_tags(0, ClusterSpec()) == {}


def test_steps_with_a_gpu_have_a_pool_of_their_own() -> None:
    assert pool(ResourcesSpec(gpu=2)) == "gpu_training"
    assert pool(ResourcesSpec()) == "cpu_training"
    assert pool(ResourcesSpec.model_validate({"sizes": [{"up_to": "1G"}, {"gpu": 1}]})) == "gpu_training"


SIZES: dict[str, Any] = {
    "cpu": 2,
    "memory": "8Gi",
    "sizes": [
        {"up_to": "10G"},
        {"up_to": "100G", "gpu": 1, "gpu_type": ["a100"], "memory": "64Gi"},
        {"gpu": 4, "nodes": 2, "memory": "256Gi"},
    ],
}


@pytest.mark.parametrize(
    ("measured", "place"), [(0, 0), (10 * 10**9, 0), (10 * 10**9 + 1, 1), (100 * 10**9, 1), (10**12, 2)]
)
def test_size_follows_the_training_set(measured: int, place: int) -> None:
    assert ResourcesSpec.model_validate(SIZES).size_for(measured) == place


def test_size_differs_only_in_what_it_says() -> None:
    resources = ResourcesSpec.model_validate({**SIZES, "timeout": "2h"})
    small, middle, large = (resources.of_size(place) for place in range(3))
    assert (small.gpu, small.memory, small.cpu, small.timeout) == (0, "8Gi", "2", "2h")
    assert (middle.gpu, middle.gpu_type, middle.nodes, middle.cpu) == (1, ("a100",), 1, "2")
    assert (large.gpu, large.nodes, large.launched_processes, large.sizes) == (4, 2, 4, ())
    assert {size.launched_by for size in (small, middle, large)} == {"job"}
    assert resources.launched_by == "job"


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpu_type": ["a100"]}, "gpu_type is given but gpu is 0"),
        ({"shm": "4Gi"}, "more than all of it"),
        ({"volumes": [{"mount": "/data"}]}, "exactly one of claim, config_map, scratch"),
        ({"volumes": [{"mount": "data", "claim": "c"}]}, "pattern"),
        ({"volumes": [{"mount": "/d", "claim": "c"}, {"mount": "/d", "scratch": "1Gi"}]}, "/d is mounted twice"),
        ({"secrets": [{"name": "s", "mount": "/s", "env": {"A": "b"}}]}, "not both"),
        ({"secrets": ["Not_A_Name"]}, "pattern"),
        ({"node_selector": {"a/b/c": "d"}}, "pattern"),
        ({"tolerations": [{"key": "k", "effect": "Never"}]}, "NoSchedule"),
        ({"sizes": [{"up_to": "1G"}]}, "the last of sizes has no up_to"),
        ({"sizes": [{"up_to": "2G"}, {"up_to": "1G"}, {}]}, "in order of up_to"),
        ({"sizes": [{}, {}]}, "in order of up_to"),
        ({"launcher": "step", "nodes": 2}, "a step is one pod"),
        ({"nodes": 0}, "greater than or equal to 1"),
        ({"processes": 0}, "greater than or equal to 1"),
        ({"gpu": -1}, "greater than or equal to 0"),
        ({"retries": {"max": -1}}, "greater than or equal to 0"),
        ({"retries": {"delay": "soon"}}, "is no duration, such as 30s"),
        ({"timeout": "4 hours"}, "is no duration, such as 30s"),
        ({"memory": "8 GB"}, "is no quantity, such as 500m"),
        ({"cpu": "four"}, "is no number of processors, such as 4"),
        ({"gpus": 1}, "Extra inputs"),
    ],
)
def test_impossible_resources_are_refused(resources: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ResourcesSpec.model_validate(resources)


def test_processes_are_started_one_per_gpu_unless_said_otherwise() -> None:
    assert [ResourcesSpec(gpu=n).launched_processes for n in (0, 1, 4)] == [0, 0, 4]
    assert [ResourcesSpec(gpu=4, processes=n).launched_processes for n in (1, 8)] == [1, 8]


def test_spot_is_tried_more_often_unless_said_otherwise() -> None:
    assert ResourcesSpec(spot=True).retried.max == 10
    assert ResourcesSpec.model_validate({"spot": True, "retries": {"max": 1}}).retried.max == 1
    assert ResourcesSpec().retried.max == 3


def test_durations_are_seconds() -> None:
    assert [seconds(text) for text in ("90s", "30m", "4h", "1d")] == [90, 1_800, 14_400, 86_400]
