"""What a step asks of Dagster and of a Kubernetes cluster, from the `resources:` of a YAML file."""

import json
from typing import Any

from ml_platform.core.spec import ClusterSpec, PodSpec, ResourcesSpec, seconds
from ml_platform.core.spec.resources import TolerationSpec

# The step itself stops at its timeout and says why; the pod's deadline is for one that hangs.
STARTS_AND_STOPS = 600  # seconds: image, definitions, rows, last checkpoint
# Of a step that leaves fitting to other pods: it is small, may be anywhere, takes no volume from them, and may start Jobs.
NOT_BESIDE = {
    "gpu": 0,
    "gpu_type": (),
    "shm": None,
    "spot": False,
    "node_selector": {},
    "volumes": (),
    "service_account": None,
}


# Of an op: seconds that its pods may wait to start. The executor looks for it (components/pods.py).
START_TIMEOUT = "ml-platform/start-timeout"
BYTES = "bytes"  # tag of a training set: of its rows in memory
WAITING = "ml-platform/waiting"  # of a run: what pods of its steps wait for


def priority_tags(priority: int, cluster: ClusterSpec) -> dict[str, str]:
    """Tags of a run: its place in Dagster's queue, and the class of its pods."""
    tags = {"dagster/priority": str(priority)} if priority else {}
    if classes := [(least, name) for name, least in cluster.priority_classes.items() if least <= priority]:
        tags["dagster-k8s/config"] = json.dumps({"pod_spec_config": {"priority_class_name": max(classes)[1]}})
    return tags


def pool(resources: ResourcesSpec) -> str:
    """The Dagster pool that limits how many such steps run at once, over all runs."""
    return "gpu_training" if resources.with_gpu else "cpu_training"


def training_tags(resources: ResourcesSpec, cluster: ClusterSpec) -> dict[str, str]:
    """The tags of an op that trains."""
    return _tags(training_config(resources, cluster), resources)


def step_tags(pod: PodSpec, cluster: ClusterSpec) -> dict[str, str]:
    """The tags of an op that does not train: its pod's deadline is for one that hangs."""
    return _tags(pod_config(pod, cluster) | {"job_spec_config": {"active_deadline_seconds": _deadline(pod)}}, pod)


def requested(resources: ResourcesSpec, training_set_bytes: int = 0) -> list[PodSpec]:
    """All pods of a step that trains: its own, and those that it starts for a training set of this size."""
    if resources.launched_by == "step":
        return [resources]
    size = resources.size_for(training_set_bytes)
    fitting = resources if size is None else resources.of_size(size)
    return [resources.model_copy(update=NOT_BESIDE), *[fitting] * fitting.nodes]


def _tags(config: dict[str, Any], pod: PodSpec) -> dict[str, str]:
    return {"dagster-k8s/config": json.dumps(config), START_TIMEOUT: str(seconds(pod.start_timeout))}


def training_config(resources: ResourcesSpec, cluster: ClusterSpec) -> dict[str, Any]:
    """The `dagster-k8s/config` of a step that trains: that of its pod, or of the one that starts others and watches them."""
    if resources.launched_by == "step":
        return fit_config(resources, cluster)
    return pod_config(resources.model_copy(update=NOT_BESIDE), cluster) | _job_spec(resources, deadline=False)


def fit_config(resources: ResourcesSpec, cluster: ClusterSpec) -> dict[str, Any]:
    """The same of a pod that fits."""
    return pod_config(resources, cluster) | _job_spec(resources, deadline=True)


def pod_config(pod: PodSpec, cluster: ClusterSpec) -> dict[str, Any]:
    """The value of the op tag `dagster-k8s/config`. On the op, so that it holds whatever starts the run.

    Memory and GPUs get equal requests and limits: neither can be overcommitted. CPU gets no limit, since throttling a step
    helps nobody.
    """
    container, spec = _resources(pod, cluster), _placement(pod, cluster)
    volumes, mounts = _volumes(pod)
    container |= _given(
        image=pod.image,
        env=[{"name": name, "value": value} for name, value in pod.env.items()]
        + [
            {"name": name, "value_from": {"secret_key_ref": {"name": secret.name, "key": key}}}
            for secret in pod.secrets
            for name, key in secret.env.items()
        ],
        env_from=[{"secret_ref": {"name": one.name}} for one in pod.secrets if not one.mount and not one.env],
        volume_mounts=mounts,
    )
    spec |= _given(
        volumes=volumes,
        image_pull_secrets=[{"name": name} for name in pod.image_pull_secrets],
        service_account_name=pod.service_account,
    )
    return {"container_config": container, **_given(pod_spec_config=spec)}


def _resources(pod: PodSpec, cluster: ClusterSpec) -> dict[str, Any]:
    gpus = {cluster.gpu_resource: str(pod.gpu)} if pod.gpu else {}
    requests = {"cpu": pod.cpu, "memory": pod.memory, **gpus}
    return {"resources": {"requests": requests, "limits": {"memory": pod.memory, **gpus}}}


def _placement(pod: PodSpec, cluster: ClusterSpec) -> dict[str, Any]:
    """Onto which nodes."""
    tolerations = [_toleration(one) for one in pod.tolerations]
    selector = dict(pod.node_selector)
    if pod.gpu:  # clusters taint GPU nodes so that nothing else lands there
        tolerations.append({"key": cluster.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    if pod.spot:
        tolerations += [_toleration(one) for one in cluster.spot.tolerations]
        selector |= cluster.spot.node_selector
    affinity: dict[str, Any] = {}
    if pod.gpu_type:
        term = {"matchExpressions": [{"key": cluster.gpu_type_label, "operator": "In", "values": list(pod.gpu_type)}]}
        terms = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        affinity = {"nodeAffinity": terms}
    return _given(tolerations=tolerations, node_selector=selector, affinity=affinity)


def _toleration(one: TolerationSpec) -> dict[str, Any]:
    how = {"operator": "Exists"} if one.value is None else {"operator": "Equal", "value": one.value}
    return {"key": one.key, **how, **_given(effect=one.effect)}


def _volumes(pod: PodSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes, each once, and where they are mounted."""
    volumes: dict[str, dict[str, Any]] = {}
    mounts: list[dict[str, Any]] = []

    def mount(name: str, source: dict[str, Any], path: str, read_only: bool, sub_path: str | None = None) -> None:
        name = name.replace(".", "-")[:63].rstrip("-")
        volumes[name] = {"name": name, **source}
        mounts.append({"name": name, "mount_path": path, **_given(read_only=read_only, sub_path=sub_path)})

    for number, one in enumerate(pod.volumes):
        if one.claim:
            source = {"persistent_volume_claim": {"claim_name": one.claim}}
            mount(f"claim-{one.claim}", source, one.mount, one.is_read_only, one.sub_path)
        elif one.config_map:
            source = {"config_map": {"name": one.config_map}}
            mount(f"config-{one.config_map}", source, one.mount, one.is_read_only, one.sub_path)
        else:
            source = {"empty_dir": {"size_limit": one.scratch}}
            mount(f"scratch-{number}", source, one.mount, one.is_read_only, one.sub_path)
    for secret in pod.secrets:
        if secret.mount:
            mount(f"secret-{secret.name}", {"secret": {"secret_name": secret.name}}, secret.mount, True)
    if pod.shm_size:
        mount("shm", {"empty_dir": {"medium": "Memory", "size_limit": pod.shm_size}}, "/dev/shm", False)
    return list(volumes.values()), mounts


def _job_spec(resources: ResourcesSpec, deadline: bool) -> dict[str, Any]:
    limit = _deadline(resources) if deadline else None
    kept = seconds(resources.ttl) if resources.ttl else None
    return _given(job_spec_config=_given(active_deadline_seconds=limit, ttl_seconds_after_finished=kept))


def _deadline(pod: PodSpec) -> int:
    return int(seconds(pod.timeout)) + STARTS_AND_STOPS


def _given(**fields: Any) -> dict[str, Any]:
    """Those that say something."""
    return {name: value for name, value in fields.items() if value not in (None, False, [], {}, ())}
