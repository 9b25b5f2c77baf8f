"""Who fits: the step itself, processes beside it, or pods of their own on Kubernetes; of what size, by the training set."""

import json
import os
from typing import Any

import dagster as dg

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import SpecError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import ClusterSpec, ModelSpec, ResourcesSpec, seconds
from ml_platform.resources.cluster import BYTES, fit_config
from ml_platform.resources.launcher import Launcher, LocalLauncher
from ml_platform.resources.manifest import Manifest


def sized(spec: ModelSpec, training_set: Manifest) -> tuple[ResourcesSpec, dict[str, Any]]:
    """What a training on this training set gets, and that as metadata."""
    resources = spec.resources
    measured = int(training_set.tags.get(BYTES, 0))
    place = resources.size_for(measured)
    if place is None:
        return resources, {}
    size = resources.sizes[place]
    chosen = resources.of_size(place)
    up_to = f"at most {size.up_to}" if size.up_to else "more than all others"
    words = f"size {place + 1} of {len(resources.sizes)} ({up_to}): {_words(chosen)}"
    return chosen, {"resources": words, "training_set_bytes": measured}


def _words(resources: ResourcesSpec) -> str:
    gpus = f", {resources.gpu} GPU{'s' if resources.gpu > 1 else ''}" if resources.gpu else ""
    pods = f"{resources.nodes} pods with " if resources.nodes > 1 else ""
    return f"{pods}{resources.cpu} CPU, {resources.memory}{gpus}"


def launcher_of(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, catalog: Catalog, resources: ResourcesSpec
) -> Launcher:
    """Without a cluster everything is fitted on this machine."""
    if load_settings().executor != "k8s" or resources.launched_by == "step":
        return LocalLauncher(resources.launched_processes)
    return _job_launcher(context, catalog.cluster, resources)


def _job_launcher(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, cluster: ClusterSpec, resources: ResourcesSpec
) -> Launcher:
    """The training's pods are what a step's pod of these resources would be, by the same code of dagster-k8s."""
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config
    from kubernetes.client import ApiClient

    from ml_platform.components.pods import priority_of
    from ml_platform.resources.job_launcher import JobLauncher
    from ml_platform.resources.namespace import Namespace

    run_launcher = context.instance.run_launcher
    if not isinstance(run_launcher, K8sRunLauncher):
        problem = f"needs runs that are pods, and this one was started by {type(run_launcher).__name__}"
        raise SpecError(
            f"resources.launcher {resources.launched_by}", problem, "see run_launcher in k8s/base/dagster.yaml"
        )
    asked = get_user_defined_k8s_config({"dagster-k8s/config": json.dumps(fit_config(resources, cluster))})
    whole = K8sContainerContext.create_for_run(context.run, run_launcher, include_run_tags=False)
    whole = whole.merge(K8sContainerContext(run_k8s_config=asked)).merge(priority_of(context.run))
    client: Any = ApiClient()
    assert whole.namespace, "the run launcher has one"
    namespace = Namespace(client, whole.namespace)
    # They go with this step's pod, what nobody watches any more trains no more; and have its image.
    name = os.environ.get("HOSTNAME")
    own_pod = namespace.pod(name) if name else None
    image = own_pod["spec"]["containers"][0]["image"] if own_pod else None

    def base(training: str) -> dict[str, Any]:
        job = construct_dagster_k8s_job(
            whole.get_k8s_job_config(image, run_launcher),
            args=None,
            job_name=training,
            pod_name=training,
            component="training",
            user_defined_k8s_config=whole.run_k8s_config,
            labels={"dagster/run-id": context.run.run_id},
        )
        return client.sanitize_for_serialization(job)

    kind = "pytorchjob" if resources.launched_by == "pytorchjob" else "job"
    processes = max(1, resources.launched_processes)
    limit = seconds(resources.start_timeout)
    return JobLauncher(namespace, kind, base, resources.nodes, processes, limit, own_pod)
