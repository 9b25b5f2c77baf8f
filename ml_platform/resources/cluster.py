"""What a step asks of a Kubernetes cluster, from the `resources:` of a model file."""

from typing import Any

from ml_platform.core.spec import ResourcesSpec

GPU_RESOURCE = "nvidia.com/gpu"
GPU_TYPE_LABEL = "ml-platform/gpu-type"
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(duration: str) -> int:
    """A duration such as 4h in seconds."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def pod_config(resources: ResourcesSpec) -> dict[str, Any]:
    """The value of the op tag `dagster-k8s/config`.

    On the op, so that it holds whatever starts the run. Memory and GPUs get equal requests and limits: neither can be
    overcommitted. CPU gets no limit, since throttling a training step helps nobody.
    """
    requests = {"cpu": resources.cpu, "memory": resources.memory}
    limits = {"memory": resources.memory}
    pod_spec: dict[str, Any] = {}
    if resources.gpu:
        requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = str(resources.gpu)
        # Clusters taint GPU nodes so that nothing else lands there.
        pod_spec["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    if resources.gpu_type:
        term = {"matchExpressions": [{"key": GPU_TYPE_LABEL, "operator": "In", "values": list(resources.gpu_type)}]}
        pod_spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        }
    config: dict[str, Any] = {"container_config": {"resources": {"requests": requests, "limits": limits}}}
    if pod_spec:
        config["pod_spec_config"] = pod_spec
    if resources.timeout:
        config["job_spec_config"] = {"active_deadline_seconds": seconds(resources.timeout)}
    return config
