"""What a step asks of Dagster and of a Kubernetes cluster, from the `resources:` of a model file."""

from typing import Any

from ml_platform.core.spec import ResourcesSpec, seconds

GPU_RESOURCE = "nvidia.com/gpu"
GPU_TYPE_LABEL = "ml-platform/gpu-type"
# The step itself stops at its timeout and says why; the pod's deadline is for one that hangs.
STARTS_AND_STOPS = 600  # seconds: image, definitions, rows, last checkpoint


def pool(resources: ResourcesSpec) -> str:
    """The Dagster pool that limits how many such steps run at once, over all runs."""
    return "gpu_training" if resources.gpu else "cpu_training"


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
        config["job_spec_config"] = {"active_deadline_seconds": seconds(resources.timeout) + STARTS_AND_STOPS}
    return config
